//! The file under a copy, behind a trait so that tests can record and fail what is done to it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the disk asks of its file.
pub trait DiskFile: Send + Sync {
    /// Reads at an offset, all of `buf`.
    ///
    /// # Errors
    /// When the host cannot.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes at an offset, all of `data`; durable only after [`DiskFile::sync`].
    ///
    /// # Errors
    /// When the host cannot.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes every write so far durable.
    ///
    /// # Errors
    /// When the host cannot; writes since the last success may be lost then, also after a later success.
    fn sync(&self) -> io::Result<()>;
}

/// A file of the host.
#[derive(Debug)]
pub struct RealFile {
    file: File,
    len: u64,
}

impl RealFile {
    /// Opens an image for reading and writing.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::io::{Seek, SeekFrom};
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, len })
    }

    /// Length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True if there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // An image need not end with a whole sector; what is missing of the last reads as zeros.
        let there = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        buf[there..].fill(0);
        self.file.read_exact_at(&mut buf[..there], offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
