//! Reads a recording, and stops at the first entry that is not beyond doubt.

use crate::chain::Chain;
use crate::error::{Fault, Place, ReadError};
use crate::floor::Floor;
use crate::header::Header;
use crate::index::{Index, IndexEntry};
use crate::segment::{self, FrameHeader};
use crate::segment_reader::{SegmentReader, Step, Trouble};
use crate::{Decoder, Record};
use ft_pair_shared::{Epoch, Position};
use std::path::{Path, PathBuf};

/// Iterates over the records of a recording.
///
/// Every record was checked against all of the log before it (from the segment on that was sought).
/// After the last one the iterator ends if that was [`Record::End`]; otherwise it gives one error,
/// which says where and why the log stops, and then ends.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    header: Header,
    floor: Option<Floor>,
    /// Numbers of the segment files that were there when the reader was opened.
    segments: Vec<u64>,
    decoder: Decoder,
    /// Segment to open next, or being read.
    number: u64,
    /// The chain's state at its start.
    chain: Chain,
    segment: Option<SegmentReader>,
    frame: Frame,
    /// Records of the segment so far.
    records: u64,
    /// What seeking read too far.
    ahead: Option<Result<Record, ReadError>>,
    done: bool,
    usage: Usage,
}

/// The frame that is being decoded.
#[derive(Debug)]
struct Frame {
    entry: IndexEntry,
    plain: Vec<u8>,
    /// Bytes of `plain` that are decoded.
    at: usize,
    first: bool,
}

/// Bytes of the log as it lies on disk, for [`crate::stat`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Segments opened.
    pub(crate) segments: u64,
    /// Frames of records.
    pub(crate) frames: u64,
    /// Bytes of the frames' records before compression.
    pub(crate) plain: u64,
    /// Bytes of the good part of the segment files.
    pub(crate) files: u64,
    /// Bytes of the good part that hold records, compressed or not.
    pub(crate) stored: u64,
    /// Encoded bytes of the last record.
    pub(crate) last_record: u64,
}

impl Reader {
    /// Opens the recording in `dir` at its first record that was not removed. Segments that a running
    /// writer begins later are not seen.
    ///
    /// # Errors
    /// The header (or the note of removed segments) cannot be read, is damaged or of another version.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let (header, file) = Header::read_with_bytes(dir)?;
        let floor = Floor::read(dir, header.log_id)?;
        let segments = segment::list(dir).map_err(|e| ReadError::io(dir, e))?;
        let mut reader = Self {
            dir: dir.to_owned(),
            header,
            floor,
            segments,
            decoder: Decoder::new(),
            number: 0,
            chain: Chain::start(&file),
            segment: None,
            frame: Frame::none(),
            records: 0,
            ahead: None,
            done: false,
            usage: Usage::default(),
        };
        if let Some(floor) = floor {
            let decoder = Decoder::resume(floor.last, floor.epoch);
            reader.restart(floor.segment, floor.chain, decoder);
        }
        Ok(reader)
    }

    /// The recording's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Position of the last record that [`crate::remove_before`] took away; `None` if the log is whole.
    pub fn removed(&self) -> Option<Position> {
        self.floor.map(|f| f.last)
    }

    /// Position of the last record that was read or, before the first, of the one before it in the log.
    pub fn last(&self) -> Option<Position> {
        self.decoder.last()
    }

    /// The frame of the last record that was read.
    pub fn frame(&self) -> IndexEntry {
        self.frame.entry
    }

    /// Goes to the first record at or after `position`.
    ///
    /// # Errors
    /// The log was removed up to there, or is refused before. An unfinished log that stops before is no
    /// error here; the iterator then says so.
    pub fn seek(&mut self, position: Position) -> Result<(), ReadError> {
        self.check_floor(position)?;
        let hint = self.index().and_then(|i| i.before(position).map(|e| e.segment));
        self.enter(hint, |segment| segment.header().position < position)?;
        loop {
            match self.next() {
                Some(Ok(record)) if record.position() < position => {}
                Some(Ok(record)) => {
                    self.ahead = Some(Ok(record));
                    return Ok(());
                }
                Some(Err(e @ ReadError::Unfinished { .. })) => {
                    self.ahead = Some(Err(e));
                    return Ok(());
                }
                Some(Err(e)) => return Err(e),
                None => return Ok(()),
            }
        }
    }

    /// Goes to just after the end of `epoch` and gives the position where it ended
    /// and its digest.
    ///
    /// # Errors
    /// The epoch does not end in the log or was removed, or the log is refused before.
    pub fn seek_epoch(&mut self, epoch: Epoch) -> Result<(Position, [u8; 32]), ReadError> {
        match self.floor {
            Some(floor) if epoch <= floor.epoch => {
                return Err(ReadError::Removed { last: floor.last });
            }
            _ => {}
        }
        let hint = self.index().and_then(|i| i.epoch(epoch).map(|e| e.segment));
        self.enter(hint, |segment| segment.header().epoch < epoch)?;
        loop {
            match self.next() {
                Some(Ok(Record::EpochEnd { epoch: e, position, digest })) if e == epoch => {
                    return Ok((position, digest));
                }
                Some(Ok(_)) if self.decoder.epoch() < epoch => {}
                Some(Err(e)) if !matches!(e, ReadError::Unfinished { .. }) => return Err(e),
                _ => return Err(ReadError::NoSuchEpoch { epoch: epoch.0 }),
            }
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// First segment that was not removed.
    pub(crate) fn first_segment(&self) -> u64 {
        self.floor.map_or(0, |f| f.segment)
    }

    fn index(&self) -> Option<Index> {
        Index::load(&self.dir, self.header.log_id).ok()
    }

    fn check_floor(&self, position: Position) -> Result<(), ReadError> {
        match self.removed() {
            Some(last) if position <= last => Err(ReadError::Removed { last }),
            _ => Ok(()),
        }
    }

    fn restart(&mut self, number: u64, chain: Chain, decoder: Decoder) {
        self.decoder = decoder;
        self.number = number;
        self.chain = chain;
        self.segment = None;
        self.frame = Frame::none();
        self.ahead = None;
        self.done = false;
    }

    /// Goes to the start of the last segment for which `before` holds, or of the first segment.
    /// `before` holds for a front part of the log.
    fn enter(
        &mut self,
        hint: Option<u64>,
        before: impl Fn(&SegmentReader) -> bool,
    ) -> Result<(), ReadError> {
        let kept = self.segments.partition_point(|&n| n < self.first_segment());
        let numbers = &self.segments[kept..];
        let probe = |i: usize| match numbers.get(i) {
            None => Ok(false),
            Some(&number) => match SegmentReader::open(&self.dir, number, self.header.log_id) {
                Ok(segment) => Ok(before(&segment)),
                Err(Trouble::NoHeader(_)) if i + 1 == numbers.len() => Ok(false),
                Err(trouble) => Err(trouble.into_error(&self.dir, number, Place::start(number))),
            },
        };
        let hinted = hint.and_then(|h| numbers.binary_search(&h).ok());
        let after = match hinted {
            Some(i) if probe(i)? && !probe(i + 1)? => i + 1,
            _ => partition(numbers.len(), probe)?,
        };
        let number = after.checked_sub(1).map_or(self.first_segment(), |i| numbers[i]);
        self.enter_segment(number)
    }

    /// Goes to the start of segment `number`, with the chain's state from the seal before it.
    fn enter_segment(&mut self, number: u64) -> Result<(), ReadError> {
        let first = self.first_segment();
        if number == first {
            let fresh = Self::open(&self.dir)?;
            self.restart(number, fresh.chain, fresh.decoder);
            return Ok(());
        }
        let before = number - 1;
        let place = Place::start(before);
        let seal = SegmentReader::open(&self.dir, before, self.header.log_id)
            .and_then(SegmentReader::seal)
            .map_err(|trouble| trouble.into_error(&self.dir, before, place))?;
        let (seal, chain) = seal.ok_or(ReadError::Refused { place, fault: Fault::NotSealed })?;
        self.restart(number, chain, Decoder::resume(seal.position, seal.epoch));
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if self.frame.at < self.frame.plain.len() {
                return self.decode().map(Some);
            }
            match self.segment.take() {
                Some(segment) => self.next_frame(segment)?,
                None if !self.open_segment()? => return Ok(None),
                None => {}
            }
        }
    }

    fn decode(&mut self) -> Result<Record, ReadError> {
        let mut rest = &self.frame.plain[self.frame.at..];
        let before = rest.len();
        let (start, place) = (self.decoder.epoch(), self.place(self.frame.entry.offset));
        let record = self.decoder.decode(&mut rest);
        self.usage.last_record = (before - rest.len()) as u64;
        self.frame.at = self.frame.plain.len() - rest.len();
        let refused = |fault| ReadError::Refused { place, fault };
        let record = record.map_err(|e| refused(Fault::Record(e)))?;
        if self.frame.first {
            self.frame.first = false;
            self.frame.entry.position = record.position();
            self.frame.entry.epoch = start;
        }
        let header = self.segment.as_ref().map(|s| *s.header());
        if self.records == 0 && header.is_some_and(|h| h.position != record.position()) {
            return Err(refused(Fault::SegmentStart));
        }
        self.records += 1;
        Ok(record)
    }

    fn next_frame(&mut self, mut segment: SegmentReader) -> Result<(), ReadError> {
        let offset = segment.offset();
        match segment.step() {
            Ok(Step::Records(plain)) => {
                self.usage.frames += 1;
                self.usage.plain += plain.len() as u64;
                self.usage.stored += segment.offset() - offset - FrameHeader::BYTES as u64;
                self.usage.files += segment.offset() - offset;
                self.frame = Frame::new(self.number, offset, plain);
                self.segment = Some(segment);
                Ok(())
            }
            Ok(Step::Sealed(seal)) => {
                let fits = seal.records == self.records
                    && Some(seal.position) == self.decoder.last()
                    && seal.epoch == self.decoder.epoch();
                if !fits {
                    return Err(self.refused(offset, Fault::Seal));
                }
                self.usage.files += segment.offset() - offset;
                self.chain = segment.chain();
                self.number += 1;
                Ok(())
            }
            Ok(Step::Torn(torn)) => Err(self.stopped(offset, torn)),
            Err(trouble) => {
                let place = self.place(offset);
                Err(trouble.into_error(&self.dir, self.number, place))
            }
        }
    }

    /// Opens the next segment; false after the end of a finished log.
    fn open_segment(&mut self) -> Result<bool, ReadError> {
        let number = self.number;
        let present = self.segments.binary_search(&number).is_ok();
        let more = self.segments.last().is_some_and(|&last| last > number);
        match (present, self.decoder.ended()) {
            (false, true) if !more => return Ok(false),
            (_, true) => return Err(self.refused(0, Fault::Trailing)),
            (false, false) if more => return Err(self.refused(0, Fault::SegmentMissing)),
            (false, false) => return Err(self.stopped(0, 0)),
            (true, false) => {}
        }
        let segment = match SegmentReader::open(&self.dir, number, self.header.log_id) {
            Ok(segment) => segment,
            Err(Trouble::NoHeader(torn)) => return Err(self.stopped(0, torn)),
            Err(trouble) => return Err(trouble.into_error(&self.dir, number, self.place(0))),
        };
        let header = *segment.header();
        if header.chain != self.chain {
            return Err(self.refused(0, Fault::SegmentChain));
        }
        if header.epoch != self.decoder.epoch()
            || self.decoder.last().is_some_and(|last| header.position < last)
        {
            return Err(self.refused(0, Fault::SegmentStart));
        }
        self.decoder.rebase(header.position);
        self.records = 0;
        self.usage.segments += 1;
        self.usage.files += segment.offset();
        self.segment = Some(segment);
        Ok(true)
    }

    /// The log stops at `offset`: fine for the last segment before the End record, else not.
    fn stopped(&self, offset: u64, torn: u64) -> ReadError {
        let later = self.segments.last().is_some_and(|&last| last > self.number);
        if later || self.decoder.ended() {
            return self.refused(offset, Fault::NotSealed);
        }
        ReadError::Unfinished { place: self.place(offset), torn }
    }

    fn refused(&self, offset: u64, fault: Fault) -> ReadError {
        ReadError::Refused { place: self.place(offset), fault }
    }

    fn place(&self, offset: u64) -> Place {
        Place { segment: self.number, offset, last_good: self.decoder.last() }
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ahead.is_some() {
            return self.ahead.take();
        }
        if self.done {
            return None;
        }
        let next = self.advance().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Frame {
    fn none() -> Self {
        Self::new(0, 0, Vec::new())
    }

    fn new(segment: u64, offset: u64, plain: Vec<u8>) -> Self {
        let entry = IndexEntry { segment, offset, position: Position::ZERO, epoch: Epoch(0) };
        Self { entry, plain, at: 0, first: true }
    }
}

impl Place {
    /// A whole segment, from a seek that has read nothing before it.
    fn start(segment: u64) -> Self {
        Self { segment, offset: 0, last_good: None }
    }
}

/// How many of `0..len` satisfy `holds`, which does for a front part.
fn partition(
    len: usize,
    holds: impl Fn(usize) -> Result<bool, ReadError>,
) -> Result<usize, ReadError> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
