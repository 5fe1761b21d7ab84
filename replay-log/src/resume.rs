//! Going on with a recording that another process wrote: after a failover, or to end it.

use crate::index::IndexFile;
use crate::lock::WriterLock;
use crate::segment_writer::SegmentWriter;
use crate::tail::{self, Cut, Open, Tail};
use crate::writer::Pending;
use crate::{Index, Options, ReadError, WriteError, Writer, segment};
use ft_pair_shared::{Epoch, Position};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A machine that goes on with a recorded execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// Where it stands.
    pub position: Position,
    /// The last epoch that ended in its life, 0 for none.
    pub epoch: Epoch,
    /// The last input that it took by itself; `None` if what it took is part of a state that it was given.
    pub last_input: Option<Position>,
}

/// Why a recording is not gone on with. It is as it was, unless the system failed in the middle: then it is
/// readable to where it was cut.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It stops before the machine that is to go on with it: its former writer could not write all.
    #[error(
        "{path} stops before the machine that should go on with it (it has epoch {found} of {epoch}{})",
        .last.map(|last| format!(", and ends at position {last}")).unwrap_or_default()
    )]
    Gap {
        /// The recording.
        path: PathBuf,
        /// The last epoch that ended in the machine's life.
        epoch: u64,
        /// The last epoch of the recording up to there.
        found: u64,
        /// Position of the last record up to there.
        last: Option<Position>,
    },
}

impl Writer {
    /// Goes on with a recording from where a machine stands, as the one who writes it from here on. What lies
    /// behind the machine's life is cut off: a torn frame, inputs that it did not take, ends of epochs that
    /// it does not know, the End record. Waits up to `patience` for another writer's end.
    ///
    /// # Errors
    /// The recording cannot be read or written, is still being written, or lacks a part of the machine's life.
    pub fn resume(
        dir: &Path,
        stand: &Stand,
        options: Options,
        patience: Duration,
    ) -> Result<Self, ResumeError> {
        let lock = WriterLock::acquire(dir, patience)?;
        let tail = tail::find(dir, &Cut { position: stand.position, epoch: stand.epoch })?;
        if !reaches(&tail, stand) {
            return Err(ResumeError::Gap {
                path: dir.to_owned(),
                epoch: stand.epoch.0,
                found: tail.encoder.epoch().0,
                last: tail.encoder.last(),
            });
        }
        Ok(cut(dir, tail, options, lock)?)
    }

    /// Goes on behind the last record that is whole; an End record is taken back.
    ///
    /// # Errors
    /// The recording cannot be read or written, or is still being written.
    pub fn reopen(dir: &Path, options: Options, patience: Duration) -> Result<Self, ResumeError> {
        let lock = WriterLock::acquire(dir, patience)?;
        let tail = tail::find(dir, &Cut::NOTHING)?;
        Ok(cut(dir, tail, options, lock)?)
    }
}

/// True if the kept part has all of the machine's life that a recording shows. Records are written in order:
/// where one is, so are those before.
fn reaches(tail: &Tail, stand: &Stand) -> bool {
    let last = tail.encoder.last();
    let has = |input| tail.last_input >= Some(input) || last > Some(input);
    tail.encoder.epoch() == stand.epoch && stand.last_input.is_none_or(has)
}

/// Removes what is not kept, from the end on: whatever stops this in the middle, the log stays readable.
fn cut(dir: &Path, tail: Tail, options: Options, lock: WriterLock) -> Result<Writer, WriteError> {
    let Tail { header, open, next_number, chain, encoder, last_input: _ } = tail;
    let numbers = segment::list(dir).map_err(|e| WriteError::io(dir, e))?;
    for number in numbers.into_iter().rev().filter(|number| *number >= next_number) {
        let path = segment::path(dir, number);
        fs::remove_file(&path).map_err(|e| WriteError::io(&path, e))?;
    }
    let (segment, frames, pending) = match open {
        Some(Open { end, frames, pending }) => {
            let path = segment::path(dir, end.number);
            let segment = SegmentWriter::resume(&path, &end);
            (Some(segment.map_err(|e| WriteError::io(&path, e))?), frames, pending)
        }
        None => (None, Vec::new(), Pending::default()),
    };
    let index = Index::load(dir, header.log_id).or_else(|_| Index::rebuild(dir));
    let mut index = index.unwrap_or_default();
    let unsealed = segment.as_ref().map_or(next_number, SegmentWriter::number);
    index.entries.retain(|entry| entry.segment < unsealed);
    let mut index = IndexFile::replace(dir, header.log_id, &index)?;
    frames.into_iter().for_each(|frame| index.push(frame));
    let mut writer = Writer {
        dir: dir.to_owned(),
        log_id: header.log_id,
        options: options.within_bounds(),
        encoder,
        pending,
        segment,
        next_number,
        chain,
        index,
        failed: false,
        _lock: lock,
    };
    writer.flush()?;
    Ok(writer)
}
