//! Writes a recording.

use crate::chain::Chain;
use crate::floor::Floor;
use crate::header::{Header, LogId};
use crate::index::{IndexEntry, IndexFile};
use crate::lock::WriterLock;
use crate::segment::{self, SegmentHeader};
use crate::segment_writer::SegmentWriter;
use crate::{Encoder, Record, WriteError};
use ft_pair_shared::Position;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a [`Writer`] cuts the log up. Neither number changes what a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment of at least this many bytes is sealed and the next one begun.
    pub segment_bytes: u64,
    /// Buffered records go out as a frame when they reach this many bytes, before compression; at
    /// most 1 MiB.
    pub frame_bytes: usize,
}

impl Default for Options {
    /// Segments of 4 MiB, frames of 64 KiB.
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, frame_bytes: 64 << 10 }
    }
}

impl Options {
    pub(crate) fn within_bounds(self) -> Self {
        Self { frame_bytes: self.frame_bytes.clamp(1, 1 << 20), ..self }
    }
}

/// The records of the frame that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u64,
    /// Position of the first record, and the epoch that ended last before it.
    pub(crate) start: Option<IndexEntry>,
}

/// Writes a recording into a directory of its own.
///
/// Records are buffered until a frame is full or [`Self::flush`] is called. A writer that is dropped
/// flushes but writes no End record: such a log reads as unfinished, all of its records intact.
pub struct Writer {
    pub(crate) dir: PathBuf,
    pub(crate) log_id: LogId,
    pub(crate) options: Options,
    pub(crate) encoder: Encoder,
    pub(crate) pending: Pending,
    pub(crate) segment: Option<SegmentWriter>,
    pub(crate) next_number: u64,
    /// End of the last sealed segment.
    pub(crate) chain: Chain,
    pub(crate) index: IndexFile,
    pub(crate) failed: bool,
    pub(crate) _lock: WriterLock,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts a recording in `dir`, which is created if need be. To go on with one: [`Self::resume`].
    ///
    /// # Errors
    /// The directory holds a recording (or parts of one) already, or the system refuses.
    pub fn create(dir: &Path, header: &Header, options: Options) -> Result<Self, WriteError> {
        let io = |e| WriteError::io(dir, e);
        fs::create_dir_all(dir).map_err(io)?;
        if !segment::list(dir).map_err(io)?.is_empty() || Floor::exists(dir) {
            return Err(WriteError::Exists { path: dir.to_owned() });
        }
        let header_file = header.write(dir)?;
        let lock = WriterLock::acquire(dir, Duration::ZERO)?;
        Ok(Self {
            dir: dir.to_owned(),
            log_id: header.log_id,
            options: options.within_bounds(),
            encoder: Encoder::new(),
            pending: Pending::default(),
            segment: None,
            next_number: 0,
            chain: Chain::start(&header_file),
            index: IndexFile::create(dir, header.log_id)?,
            failed: false,
            _lock: lock,
        })
    }

    /// Appends a record, buffered.
    ///
    /// # Errors
    /// The system refused a write; the log ends with what was written before.
    ///
    /// # Panics
    /// As [`Encoder::encode`]: positions and epochs only grow, nothing follows the end.
    pub fn append(&mut self, record: &Record) -> Result<(), WriteError> {
        self.usable()?;
        let epoch = self.encoder.epoch();
        if self.segment.is_none() && self.pending.records == 0 {
            self.encoder.begin_segment(record);
        }
        self.encoder.encode(record, &mut self.pending.bytes);
        self.pending.records += 1;
        let position = record.position();
        self.pending.start.get_or_insert(IndexEntry { segment: 0, offset: 0, position, epoch });
        if self.pending.bytes.len() >= self.options.frame_bytes {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands all buffered records to the operating system, as a frame. They then survive the end of
    /// this process; for the end of the machine see [`Self::sync`].
    ///
    /// # Errors
    /// The system refused a write; the log ends with what was written before.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.usable()?;
        let done = self.write_pending();
        self.failed |= done.is_err();
        done
    }

    /// As [`Self::flush`], and waits until the records are on stable storage.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn sync(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        let Some(segment) = &self.segment else { return Ok(()) };
        let synced = segment.sync().map_err(|e| WriteError::io(segment.path(), e));
        let synced = synced.and_then(|()| self.sync_dir());
        self.failed |= synced.is_err();
        synced
    }

    /// Seals the current segment; the next record begins another one. Without records since the last
    /// rotation it does nothing.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn rotate(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        let done = self.seal();
        self.failed |= done.is_err();
        done
    }

    /// Seals the log and waits until it is on stable storage. The last record should be
    /// [`Record::End`]; without it the log reads as unfinished.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.rotate()?;
        self.failed = true;
        self.sync_dir()
    }

    /// Position of the last record; `None` before the first.
    pub fn last(&self) -> Option<Position> {
        self.encoder.last()
    }

    /// Number of the segment that the next frame goes to.
    pub fn segment(&self) -> u64 {
        self.segment.as_ref().map_or(self.next_number, SegmentWriter::number)
    }

    fn usable(&self) -> Result<(), WriteError> {
        if self.failed { Err(WriteError::Failed) } else { Ok(()) }
    }

    fn write_pending(&mut self) -> Result<(), WriteError> {
        let Some(start) = self.pending.start.take() else { return Ok(()) };
        let segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.begin_segment(start)?,
        };
        let segment = self.segment.insert(segment);
        let entry = IndexEntry { segment: segment.number(), offset: segment.bytes(), ..start };
        segment
            .write_records(&self.pending.bytes, self.pending.records)
            .map_err(|e| WriteError::io(segment.path(), e))?;
        self.index.push(entry);
        self.pending.bytes.clear();
        self.pending.records = 0;
        if segment.bytes() >= self.options.segment_bytes { self.seal() } else { Ok(()) }
    }

    fn begin_segment(&mut self, start: IndexEntry) -> Result<SegmentWriter, WriteError> {
        let header = SegmentHeader {
            number: self.next_number,
            log_id: self.log_id,
            chain: self.chain,
            position: start.position,
            epoch: start.epoch,
        };
        let path = segment::path(&self.dir, header.number);
        let segment = SegmentWriter::create(&path, header).map_err(|e| WriteError::io(&path, e))?;
        self.next_number += 1;
        Ok(segment)
    }

    fn seal(&mut self) -> Result<(), WriteError> {
        let Some(mut segment) = self.segment.take() else { return Ok(()) };
        let last = self.encoder.last().expect("a segment has a record");
        let sealed = segment.seal(last, self.encoder.epoch()).and_then(|chain| {
            segment.sync()?;
            Ok(chain)
        });
        self.chain = sealed.map_err(|e| WriteError::io(segment.path(), e))?;
        self.index.save()
    }

    fn sync_dir(&self) -> Result<(), WriteError> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|e| WriteError::io(&self.dir, e))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.failed {
            // Nobody is left to tell; who wants to know calls `flush` or `finish` before.
            let _ = self.flush();
        }
    }
}
