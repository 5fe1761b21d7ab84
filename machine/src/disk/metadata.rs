//! What a copy says about itself, in a small file beside it (`IMG.ftpair`).
//!
//! Lines of text, the first with the format's version, the last with a checksum of those before:
//! replaced as a whole by renaming, so a crash leaves the old one or the new one.

use ft_pair_shared::{Epoch, Generation, PairId};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// First line: name and version of the format.
const HEADER: &str = "ft-pair-copy 1";

/// Whether a copy's content can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// In use by a live Master or a Slave in sync; after a crash it holds what the guest had synced.
    InUse,
    /// Being filled from another copy; of no use until that is done.
    Syncing,
    /// The guest ended with everything in this copy.
    Clean,
}

impl CopyState {
    const NAMES: [(Self, &str); 3] =
        [(Self::InUse, "in-use"), (Self::Syncing, "syncing"), (Self::Clean, "clean")];
}

/// The metadata of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyMeta {
    /// The guest that it belongs to.
    pub pair: PairId,
    /// Generation in which it was last known to be current. A side writes a new one *before* it
    /// releases anything that the other side has not got.
    pub generation: Generation,
    /// Last committed epoch that is known to be in it.
    pub epoch: Epoch,
    /// Whether it can be used.
    pub state: CopyState,
    /// Length of the copy in bytes.
    pub len: u64,
}

/// The metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The host failed.
    #[error("cannot read or write {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Not what was written.
    #[error("{} is damaged ({detail}); delete it only if you know which copy is the newest", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Written by another version.
    #[error("{} was written by another version of ft-pair ({found}); use that one", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
}

/// Where the metadata of a copy lie.
pub fn sidecar(copy: &Path) -> PathBuf {
    with_suffix(copy, ".ftpair")
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl CopyMeta {
    /// Reads the metadata of a copy; none if it has none.
    ///
    /// # Errors
    /// When there are some that cannot be used.
    pub fn load(copy: &Path) -> Result<Option<Self>, MetaError> {
        let path = sidecar(copy);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MetaError::Io { path, source }),
        };
        let text = String::from_utf8_lossy(&bytes);
        let first = text.lines().next().unwrap_or_default();
        if first != HEADER && first.starts_with("ft-pair-copy ") {
            return Err(MetaError::Version { path, found: first.to_owned() });
        }
        Self::parse(&text).map(Some).map_err(|detail| MetaError::Damaged { path, detail })
    }

    /// Replaces the metadata of a copy; durable on return.
    ///
    /// # Errors
    /// When the host fails; the old metadata are still there then.
    pub fn store(&self, copy: &Path) -> Result<(), MetaError> {
        let path = sidecar(copy);
        let temporary = with_suffix(&path, ".tmp");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(self.format().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            sync_directory(&path)
        };
        write().map_err(|source| MetaError::Io { path: path.clone(), source })
    }

    /// Removes the metadata of a copy, if it has any.
    ///
    /// # Errors
    /// When the host fails.
    pub fn remove(copy: &Path) -> Result<(), MetaError> {
        let path = sidecar(copy);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(MetaError::Io { path, source: e }),
            _ => Ok(()),
        }
    }

    fn format(&self) -> String {
        let Self { pair, generation, epoch, state, len } = self;
        let state = CopyState::NAMES.iter().find(|(s, _)| s == state).map_or("", |(_, name)| name);
        let body = format!(
            "{HEADER}\npair {pair}\ngeneration {}\nepoch {}\nstate {state}\nlen {len}\n",
            generation.0, epoch.0
        );
        let sum = blake3::hash(body.as_bytes()).to_hex();
        format!("{body}sum {sum}\n")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (body, sum) = text.rsplit_once("sum ").ok_or("no checksum")?;
        if sum.trim_end() != blake3::hash(body.as_bytes()).to_hex().as_str() {
            return Err("its checksum is wrong".to_owned());
        }
        let field = |name: &str| {
            body.lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .ok_or_else(|| format!("no {name}"))
        };
        let number = |name: &str| -> Result<u64, String> {
            field(name)?.parse().map_err(|_| format!("{name} is no number"))
        };
        let state = field("state")?;
        let state = CopyState::NAMES.iter().find(|(_, name)| *name == state);
        Ok(Self {
            pair: parse_pair(field("pair")?).ok_or("its pair id is none")?,
            generation: Generation(number("generation")?),
            epoch: Epoch(number("epoch")?),
            state: state.ok_or("an unknown state")?.0,
            len: number("len")?,
        })
    }
}

fn parse_pair(hex: &str) -> Option<PairId> {
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    let mut id = [0; 16];
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(PairId(id))
}

/// Makes a rename in a file's directory durable.
pub(super) fn sync_directory(of: &Path) -> io::Result<()> {
    let dir = of.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
