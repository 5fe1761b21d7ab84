//! What a recording's directory holds beside the log: all that the recorded machine started from.
//!
//! | file | what |
//! | --- | --- |
//! | `kernel`, `initrd` | as they were booted |
//! | `disk.img` | the disk as it was at power-on, a reflink where the host can |
//!
//! The log's header names the digests of all three, so a recording replays whatever becomes of the image.

use crate::failure::{OrWrongUse, wrong_use};
use anyhow::{Context as _, bail};
use ft_pair_machine::MachineConfig;
use ft_pair_machine::disk::make_copy;
use ft_pair_machine::image::{GuestSource, identify};
use ft_pair_replay_log::{Header, Image, Options, Record, Start, Writer};
use ft_pair_shared::Position;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The disk at power-on.
pub const DISK: &str = "disk.img";
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
/// How long the process that wrote last has for its end.
const LAST_WRITER: Duration = Duration::from_secs(10);

/// How to make the recorded machine again: the log header's machine description, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The machine.
    pub machine: MachineConfig,
    /// The kernel command line.
    pub cmdline: String,
    /// Where the kernel was found, for people.
    pub found_by: String,
    /// blake3 of the kernel.
    pub kernel: [u8; 32],
    /// blake3 of the initrd.
    pub initrd: Option<[u8; 32]>,
    /// Whether there is a disk.
    pub disk: bool,
}

/// The boot files of a recording, checked.
pub struct BootFiles {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// The initrd.
    pub initrd: Option<Vec<u8>>,
}

impl Recipe {
    /// From a log's header.
    pub fn from_header(header: &Header, dir: &Path) -> anyhow::Result<Self> {
        serde_json::from_slice(&header.machine).with_context(|| {
            format!(
                "the recording in {} describes its machine in a way that this version does not know \
                 (written by ft-pair {})",
                dir.display(),
                header.crate_version
            )
        })
    }

    /// Reads and checks kernel, initrd and disk.
    pub fn check(&self, header: &Header, dir: &Path) -> anyhow::Result<BootFiles> {
        let kernel = read_checked(&dir.join(KERNEL), &self.kernel)?;
        let initrd = match &self.initrd {
            Some(digest) => Some(read_checked(&dir.join(INITRD), digest)?),
            None => None,
        };
        if self.disk {
            let path = dir.join(DISK);
            let found = identify(&path, &mut |_, _| {})?;
            if (found.digest, found.len) != (header.image.digest, header.image.bytes) {
                bail!("{} is not what was recorded: it has changed since", path.display());
            }
        }
        Ok(BootFiles { kernel, initrd })
    }
}

fn read_checked(path: &Path, digest: &[u8; 32]) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    if blake3::hash(&bytes).as_bytes() != digest {
        bail!("{} is not what was recorded: it has changed since", path.display());
    }
    Ok(bytes)
}

/// Refuses a directory that cannot take a recording, before anything is copied.
pub fn check_dir(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() && !dir.is_dir() {
        return Err(wrong_use(format!("{} is not a directory", dir.display())));
    }
    let used = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        let shown = dir.display();
        return Err(wrong_use(format!(
            "{shown} is not empty: name a new directory for the recording"
        )));
    }
    Ok(())
}

/// Keeps what the machine starts from in `dir` and begins the log there.
pub fn begin(dir: &Path, machine: &MachineConfig, source: &GuestSource) -> anyhow::Result<Writer> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string()).or_wrong_use()?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())
    };
    write(KERNEL, &source.kernel)?;
    if let Some(initrd) = &source.initrd {
        write(INITRD, initrd)?;
    }
    let digest = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let image = match &source.disk {
        Some(disk) => {
            let path = dir.join(DISK);
            make_copy(&disk.path, &path, &mut |_, _| {})
                .with_context(|| format!("cannot keep the disk's start in {}", path.display()))?;
            let id = identify(&path, &mut |_, _| {})?;
            Image { digest: id.digest, bytes: id.len }
        }
        None => Image { digest: digest(&source.kernel), bytes: source.kernel.len() as u64 },
    };
    let recipe = Recipe {
        machine: machine.clone(),
        cmdline: source.cmdline.clone(),
        found_by: source.found_by.clone(),
        kernel: digest(&source.kernel),
        initrd: source.initrd.as_deref().map(digest),
        disk: source.disk.is_some(),
    };
    let header = Header::new(image, Start::PowerOn, serde_json::to_vec(&recipe)?);
    Ok(Writer::create(dir, &header, Options::default())?)
}

/// Ends a recording on purpose, behind its last record. Its writers have ended, or are about to.
pub fn end(dir: &Path) -> anyhow::Result<()> {
    let end = || -> anyhow::Result<()> {
        let mut writer = Writer::reopen(dir, Options::default(), LAST_WRITER)?;
        let position = writer.last().unwrap_or(Position::ZERO);
        writer.append(&Record::End { position })?;
        Ok(writer.finish()?)
    };
    end().with_context(|| format!("the recording in {} has no end", dir.display()))
}
