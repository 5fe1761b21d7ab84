//! What can be wrong with a log, and where.

use crate::CodecError;
use ft_pair_shared::Position;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// A place in a log: where the first bad entry lies, and up to where the log is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Where in the segment's file the bad frame (or what should be one) starts, in bytes.
    pub offset: u64,
    /// Position of the last record before it that is good; `None` if there is none.
    pub last_good: Option<Position>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {}, offset {}, ", self.segment, self.offset)?;
        match self.last_good {
            Some(position) => write!(f, "after position {position}"),
            None => write!(f, "before the first record"),
        }
    }
}

/// What is wrong with a fixed header: of the recording, a segment or another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The file is of another kind.
    #[error("the file does not start with the magic bytes of its kind")]
    Magic,
    /// The file's format is not the one of this program.
    #[error(
        "format version {found}, this program reads {supported}: use the ft-pair that wrote it"
    )]
    Version {
        /// What the file says.
        found: u32,
        /// What this program reads.
        supported: u32,
    },
    /// The checksum is wrong, or the fields make no sense.
    #[error("the header is damaged")]
    Damaged,
    /// The file belongs to another recording.
    #[error("the file belongs to another recording")]
    Foreign,
}

/// What is wrong with the first bad entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A segment is not there, though a later one is.
    #[error("the segment is missing")]
    SegmentMissing,
    /// The segment's header cannot be read.
    #[error("the segment's header: {0}")]
    SegmentHeader(HeaderFault),
    /// The file holds a segment of another recording.
    #[error("the segment belongs to another recording")]
    Foreign,
    /// The file holds another segment than its name says.
    #[error("the file holds segment {0}")]
    Number(u64),
    /// The segment does not continue the one before it.
    #[error("the segment does not continue the one before it")]
    SegmentChain,
    /// The segment's header does not fit the records around it.
    #[error("the segment's header names another first position or epoch than its records")]
    SegmentStart,
    /// A frame's header is damaged.
    #[error("the frame's header is damaged")]
    FrameHeader,
    /// A frame's bytes are damaged.
    #[error("the frame's bytes are damaged")]
    FrameBytes,
    /// A frame, undamaged in itself, does not continue the one before it.
    #[error(
        "the frame does not continue the one before it: frames are missing, swapped or foreign"
    )]
    FrameChain,
    /// A frame cannot be decompressed to its stated size.
    #[error("the frame cannot be decompressed")]
    Compression,
    /// The bytes of a frame are no record, or one that may not come there.
    #[error("a record: {0}")]
    Record(CodecError),
    /// The seal of a segment contradicts what it seals.
    #[error("the seal does not fit the segment")]
    Seal,
    /// The segment ends without a seal, though it is not where the recording stopped.
    #[error("the segment is cut off")]
    NotSealed,
    /// Bytes follow the seal of a segment, or a segment the End record.
    #[error("something follows the end")]
    Trailing,
}

/// Why a log, or the rest of it, is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The recording's header, or another of its fixed files, is not usable.
    #[error("{path}: {fault}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: HeaderFault,
    },
    /// The log is damaged, incomplete in the middle, or mixed up. All records before `place` are good.
    #[error("log refused at {place}: {fault}")]
    Refused {
        /// Where the first bad entry is.
        place: Place,
        /// What is wrong there.
        fault: Fault,
    },
    /// The log stops without an End record, as after a kill. All records before `place` are good.
    #[error("log ends without an End record at {place} ({torn} bytes of an unfinished frame)")]
    Unfinished {
        /// Where the log stops.
        place: Place,
        /// Bytes there of a frame that was not written to its end.
        torn: u64,
    },
    /// The sought place lies in segments that were removed.
    #[error("the log up to position {last} was removed")]
    Removed {
        /// Position of the last removed record.
        last: Position,
    },
    /// The sought epoch does not end in the log.
    #[error("epoch {epoch} does not end in this log")]
    NoSuchEpoch {
        /// Which.
        epoch: u64,
    },
}

impl ReadError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Where the good part of the log ends, if this error says so.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Refused { place, .. } | Self::Unfinished { place, .. } => Some(*place),
            _ => None,
        }
    }
}

/// Why a log is not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system refused. What was on disk before stays readable.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The directory holds a recording already.
    #[error("{path} holds a recording already: choose another directory, or remove it")]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("{path} is being written by another process: wait for its end")]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier write failed; the log ended there.
    #[error("the log ended earlier, when a write to it failed")]
    Failed,
}

impl WriteError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
