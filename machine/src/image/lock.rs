//! One image, one pair: an exclusive lock on the image file itself, which ends with its process.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Who holds the lock, as far as the host tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// The image could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else uses it.
    #[error(
        "{} is in use{}; end that one first (ft-pair down), or use a copy of the image",
        .path.display(),
        .owner.as_ref().map(|o| format!(" by process {} ({})", o.pid, o.command)).unwrap_or_default()
    )]
    InUse {
        /// The image.
        path: PathBuf,
        /// Who uses it.
        owner: Option<Owner>,
    },
    /// The host refused.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

/// Holds an image until dropped.
#[derive(Debug)]
pub struct ImageLock {
    file: File,
}

impl ImageLock {
    /// Locks an image for one pair. It is opened for writing where that is allowed.
    ///
    /// # Errors
    /// [`LockError::InUse`] if another process, or another lock of this one, holds it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let err = |source| LockError::Io { path: path.to_owned(), source };
        // The image may be replaced (renamed over) between open and lock; then the lock is on the
        // old file and worth nothing.
        for _ in 0..16 {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .or_else(|_| File::open(path))
                .map_err(err)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let owner = file.metadata().ok().and_then(|m| owner_of(&m));
                    return Err(LockError::InUse { path: path.to_owned(), owner });
                }
                Err(e) => return Err(err(e.into())),
            }
            let held = file.metadata().map_err(err)?;
            let named = std::fs::metadata(path).map_err(err)?;
            if (held.dev(), held.ino()) == (named.dev(), named.ino()) {
                return Ok(Self { file });
            }
        }
        Err(err(io::Error::other("it is being replaced again and again")))
    }

    /// The locked file.
    pub const fn file(&self) -> &File {
        &self.file
    }
}

/// Looks the holder up in /proc/locks, whose lines read
/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF` (device numbers in hexadecimal).
fn owner_of(meta: &std::fs::Metadata) -> Option<Owner> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = find_owner(&locks, meta.ino())?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    Some(Owner { pid, command })
}

/// Overlay filesystems show another device number than `stat` does, so the inode number decides.
fn find_owner(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, id, ..] = words.as_slice() else { return None };
        let same = id.rsplit(':').next()?.parse() == Ok(inode);
        same.then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest.img");
        std::fs::write(&path, b"x").unwrap();
        let lock = ImageLock::acquire(&path).unwrap();
        let refused = ImageLock::acquire(&path).unwrap_err();
        assert!(matches!(refused, LockError::InUse { .. }), "{refused}");
        assert!(refused.to_string().contains("is in use"), "{refused}");
        drop(lock);
        ImageLock::acquire(&path).unwrap();
    }

    #[test]
    fn the_owner_is_read_from_proc_locks() {
        let text = "1: POSIX  ADVISORY  WRITE 77 fe:01:42 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 1234 fe:01:42 0 EOF\n";
        assert_eq!(find_owner(text, 42), Some(1234));
        assert_eq!(find_owner(text, 43), None);
    }
}
