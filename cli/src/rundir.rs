//! The private directory of a running pair, and how others find it.

use crate::failure::wrong_use;
use anyhow::Context as _;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Name of the control socket in it.
const SOCKET: &str = "control";

/// The directory; removed when dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

fn base() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_dir() => dir.join("ft-pair"),
        _ => {
            let uid = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("ft-pair-{uid}"))
        }
    }
}

/// Checks a pair's name.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 40 || name.starts_with('.') || !name.chars().all(fine) {
        return Err(wrong_use(format!(
            "`{name}` is no name for a pair: use up to 40 letters, digits, `.`, `_` and `-`"
        )));
    }
    Ok(())
}

/// A name made from an image's file name.
pub fn name_from(image: &Path) -> String {
    let stem = image.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let fine = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = stem.trim_start_matches('.').chars().map(fine).take(40).collect();
    if name.is_empty() { "guest".to_owned() } else { name }
}

impl RunDir {
    /// Makes the directory of a new pair. One that a killed supervisor left behind goes.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        check_name(name)?;
        let base = base();
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(&base).with_context(|| base.display().to_string())?;
        let meta = std::fs::symlink_metadata(&base)?;
        if !meta.is_dir()
            || meta.uid() != rustix::process::geteuid().as_raw()
            || meta.mode() & 0o77 != 0
        {
            let shown = base.display();
            return Err(wrong_use(format!(
                "{shown} is not a private directory of this user: remove it, or set XDG_RUNTIME_DIR"
            )));
        }
        let path = base.join(name);
        builder.recursive(false);
        match builder.create(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                if answers(&path) {
                    return Err(wrong_use(format!(
                        "a pair named `{name}` runs already: choose another --name, or end it with \
                         `ft-pair down {name}`"
                    )));
                }
                std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
                builder.create(&path).with_context(|| path.display().to_string())?;
            }
            other => other.with_context(|| path.display().to_string())?,
        }
        Ok(Self { path })
    }

    /// Where the control socket goes.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Writes a file that only this user can read.
    pub fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        use std::io::Write;
        let path = self.path.join(name);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(bytes));
        written.with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What cannot be removed is cleared away by the next pair of that name.
        drop(std::fs::remove_dir_all(&self.path));
        if let Some(base) = self.path.parent() {
            drop(std::fs::remove_dir(base));
        }
    }
}

fn answers(dir: &Path) -> bool {
    UnixStream::connect(dir.join(SOCKET)).is_ok()
}

/// Names of the pairs that run.
fn running() -> Vec<String> {
    let entries = std::fs::read_dir(base()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| answers(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Connects to a pair; without a name to the only one.
pub fn connect(name: Option<&str>) -> anyhow::Result<(String, UnixStream)> {
    let running = running();
    let name = match (name, running.as_slice()) {
        (Some(name), _) => {
            check_name(name)?;
            name.to_owned()
        }
        (None, [only]) => only.clone(),
        (None, []) => return Err(wrong_use("no pair runs: start one with `ft-pair up GUEST.IMG`")),
        (None, several) => {
            let list = several.join(", ");
            return Err(wrong_use(format!("several pairs run, name one of: {list}")));
        }
    };
    let stream = UnixStream::connect(base().join(&name).join(SOCKET));
    let stream = stream.map_err(|_| match running.as_slice() {
        [] => wrong_use(format!("no pair named `{name}` runs")),
        others => {
            wrong_use(format!("no pair named `{name}` runs; there is: {}", others.join(", ")))
        }
    })?;
    Ok((name, stream))
}
