//! One writer at a time: an exclusive lock on a recording's header, which ends with its process.

use crate::WriteError;
use crate::header;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a lock that somebody holds is tried again.
const AGAIN: Duration = Duration::from_millis(1);

/// Holds a recording until dropped. Readers take no lock.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Locks the recording in `dir`, waiting up to `patience` for a writer that is ending.
    pub(crate) fn acquire(dir: &Path, patience: Duration) -> Result<Self, WriteError> {
        let path = header::path(dir);
        let file = File::open(&path).map_err(|e| WriteError::io(&path, e))?;
        let until = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(e)) => return Err(WriteError::io(&path, e)),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                    return Err(WriteError::Busy { path: dir.to_owned() });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(AGAIN),
            }
        }
    }
}
