//! Where in the log a position or the end of an epoch is to be found.
//!
//! The index only saves time: it can be rebuilt from the log, and what it says is checked there.

use crate::fields::{Fields, PutFields};
use crate::header::{FORMAT_VERSION, LogId, check_kind, replace_file};
use crate::{HeaderFault, ReadError, Reader, WriteError};
use ft_pair_shared::{Epoch, Position};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"FTPLIDX\n";
const FILE: &str = "index";
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 48;

/// One frame of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Number of the frame's segment.
    pub segment: u64,
    /// Where in the segment's file the frame starts, bytes.
    pub offset: u64,
    /// Position of the frame's first record.
    pub position: Position,
    /// The epoch that ended last before the frame, 0 for none.
    pub epoch: Epoch,
}

/// Why there is no usable index. The log is read without one.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged or of another kind.
    #[error("{path}: {fault}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: HeaderFault,
    },
    /// The file is of another recording.
    #[error("{0} belongs to another recording")]
    Foreign(PathBuf),
}

/// The frames of a log, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// One entry a frame. Segments that are not sealed yet have none.
    pub entries: Vec<IndexEntry>,
}

impl Index {
    /// Reads the index of the recording `log_id` in `dir`.
    ///
    /// # Errors
    /// There is none, or it is damaged or another recording's.
    pub fn load(dir: &Path, log_id: LogId) -> Result<Self, IndexError> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(IndexError::Io { path, source }),
        };
        match Self::parse(&bytes) {
            Ok((id, _)) if id != log_id => Err(IndexError::Foreign(path)),
            Ok((_, index)) => Ok(index),
            Err(fault) => Err(IndexError::Damaged { path, fault }),
        }
    }

    /// Makes the index anew from the log and saves it. A log that is bad or unfinished further on gets
    /// the index of its good part.
    ///
    /// # Errors
    /// The log cannot be opened, or the index cannot be written.
    pub fn rebuild(dir: &Path) -> Result<Self, ReadError> {
        let mut reader = Reader::open(dir)?;
        let mut index = Self::default();
        while let Some(Ok(_)) = reader.next() {
            index.note(reader.frame());
        }
        let path = dir.join(FILE);
        let bytes = index.to_bytes(reader.header().log_id);
        replace_file(&path, &bytes).map_err(|e| ReadError::io(&path, e))?;
        Ok(index)
    }

    /// The last frame that starts before `position`, after which a record there is found.
    pub fn before(&self, position: Position) -> Option<&IndexEntry> {
        self.entries[..self.entries.partition_point(|e| e.position < position)].last()
    }

    /// The frame in which `epoch` ends, if the log gets that far.
    pub fn epoch(&self, epoch: Epoch) -> Option<&IndexEntry> {
        self.entries[..self.entries.partition_point(|e| e.epoch < epoch)].last()
    }

    /// Adds `entry` unless it is there: frames come one after the other.
    pub(crate) fn note(&mut self, entry: IndexEntry) {
        if self.entries.last() != Some(&entry) {
            self.entries.push(entry);
        }
    }

    fn to_bytes(&self, log_id: LogId) -> Vec<u8> {
        let mut out = header(log_id);
        self.entries.iter().for_each(|e| put_entry(&mut out, e));
        out
    }

    fn parse(bytes: &[u8]) -> Result<(LogId, Self), HeaderFault> {
        check_kind(bytes, &MAGIC)?;
        Self::parse_checked(bytes).ok_or(HeaderFault::Damaged)
    }

    fn parse_checked(bytes: &[u8]) -> Option<(LogId, Self)> {
        let (head, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let mut fields = Fields(&head[12..]);
        let log_id = LogId(fields.array()?);
        if fields.u32()? != crc32c::crc32c(&head[..HEADER_BYTES - 4]) {
            return None;
        }
        let entries = rest.chunks(ENTRY_BYTES).map(take_entry).collect::<Option<_>>()?;
        Some((log_id, Self { entries }))
    }
}

fn header(log_id: LogId) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u32(FORMAT_VERSION);
    out.extend_from_slice(&log_id.0);
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

fn put_entry(out: &mut Vec<u8>, entry: &IndexEntry) {
    let start = out.len();
    out.put_u64(entry.segment);
    out.put_u64(entry.offset);
    out.put_position(entry.position);
    out.put_u64(entry.epoch.0);
    let crc = crc32c::crc32c(&out[start..]);
    out.put_u32(crc);
}

fn take_entry(bytes: &[u8]) -> Option<IndexEntry> {
    let mut fields = Fields(bytes);
    let entry = IndexEntry {
        segment: fields.u64()?,
        offset: fields.u64()?,
        position: fields.position()?,
        epoch: fields.epoch()?,
    };
    (fields.u32()? == crc32c::crc32c(&bytes[..ENTRY_BYTES - 4])).then_some(entry)
}

/// The index as the writer keeps it: entries go out when their segment is sealed.
pub(crate) struct IndexFile {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
}

impl IndexFile {
    pub(crate) fn create(dir: &Path, log_id: LogId) -> Result<Self, WriteError> {
        let path = dir.join(FILE);
        let file = File::create(&path).and_then(|mut file| {
            file.write_all(&header(log_id))?;
            Ok(file)
        });
        match file {
            Ok(file) => Ok(Self { path, file, pending: Vec::new() }),
            Err(e) => Err(WriteError::io(&path, e)),
        }
    }

    /// Begins anew with `index`.
    pub(crate) fn replace(dir: &Path, log_id: LogId, index: &Index) -> Result<Self, WriteError> {
        let mut file = Self::create(dir, log_id)?;
        index.entries.iter().for_each(|entry| file.push(*entry));
        file.save()?;
        Ok(file)
    }

    pub(crate) fn push(&mut self, entry: IndexEntry) {
        put_entry(&mut self.pending, &entry);
    }

    pub(crate) fn save(&mut self) -> Result<(), WriteError> {
        self.file.write_all(&self.pending).map_err(|e| WriteError::io(&self.path, e))?;
        self.pending.clear();
        Ok(())
    }
}
