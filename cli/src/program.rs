//! This program's own file: which build it is, and how to start it again.

use anyhow::Context as _;
use ft_pair_shared::digest;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file that this process executes, whatever has become of its name since.
const OWN: &str = "/proc/self/exe";

/// Name, version and build, like `ft-pair 0.1.0 (build 0123456789abcdef)`. Builds are told apart by
/// content: two of them may execute a guest differently.
///
/// # Errors
/// When the program's file cannot be read.
pub fn name_of_build() -> anyhow::Result<String> {
    let bytes = std::fs::read(OWN).with_context(|| format!("cannot read {OWN}"))?;
    let digest = digest::bytes(&bytes);
    let build: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("ft-pair {} (build {build})", env!("CARGO_PKG_VERSION")))
}

/// Where to start this very build from, also after its file was replaced by an upgrade.
///
/// # Errors
/// When the system does not know.
pub fn path() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find this program's file")?;
    let file = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    match (file(&path), file(Path::new(OWN))) {
        (Some(there), Some(own)) if there == own => Ok(path),
        // Its processes are called `exe` then in short listings: better than another build's.
        _ => Ok(OWN.into()),
    }
}
