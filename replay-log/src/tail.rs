//! Finds up to where a recording is to be kept, without changing it.

use crate::chain::Chain;
use crate::error::{Place, ReadError};
use crate::floor::Floor;
use crate::segment_reader::{SegmentReader, Step, Trouble};
use crate::segment_writer::SegmentEnd;
use crate::writer::Pending;
use crate::{Decoder, Encoder, Fault, Header, IndexEntry, Record, segment};
use ft_pair_shared::{Epoch, Position};
use std::path::Path;

/// The part of a recording that belongs to the execution of a machine that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Where the machine stands.
    pub(crate) position: Position,
    /// The last epoch that ended in its life.
    pub(crate) epoch: Epoch,
}

impl Cut {
    /// Keeps everything but the End record.
    pub(crate) const NOTHING: Self = Self {
        position: Position { retired: u64::MAX, rep: u64::MAX, seq: u32::MAX },
        epoch: Epoch(u64::MAX),
    };

    fn keeps(&self, record: &Record) -> bool {
        match record {
            // The machine that took an input stands behind its position.
            Record::Input { position, .. } => *position < self.position,
            Record::EpochEnd { epoch, position, .. } => {
                *epoch <= self.epoch && *position <= self.position
            }
            Record::TlbFlush { position } => *position <= self.position,
            Record::End { .. } => false,
        }
    }
}

/// The segment that is cut.
#[derive(Debug)]
pub(crate) struct Open {
    /// After the frames that are kept whole.
    pub(crate) end: SegmentEnd,
    /// These frames.
    pub(crate) frames: Vec<IndexEntry>,
    /// What is kept of the frame after them.
    pub(crate) pending: Pending,
}

/// The end of what is kept.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) header: Header,
    /// The segment that is cut; `None` where the next record begins a new one.
    pub(crate) open: Option<Open>,
    /// Number of the first segment of which nothing is kept.
    pub(crate) next_number: u64,
    /// The chain's state after the last segment that is kept sealed.
    pub(crate) chain: Chain,
    /// Continues the kept records.
    pub(crate) encoder: Encoder,
    /// The last input, as far as the search had to read.
    pub(crate) last_input: Option<Position>,
}

/// Reads as little of the recording's end as tells where `cut` lies.
pub(crate) fn find(dir: &Path, cut: &Cut) -> Result<Tail, ReadError> {
    let (header, file) = Header::read_with_bytes(dir)?;
    let floor = Floor::read(dir, header.log_id)?;
    let segments = segment::list(dir).map_err(|e| ReadError::io(dir, e))?;
    let first = floor.map_or(0, |f| f.segment);
    let begin = begin(dir, &header, &segments, first, cut);
    let (chain, decoder) = match (begin == first, floor) {
        (true, None) => (Chain::start(&file), Decoder::new()),
        (true, Some(floor)) => (floor.chain, Decoder::resume(floor.last, floor.epoch)),
        (false, _) => before(dir, &header, begin)?,
    };
    let search = Search { dir, cut, decoder, number: begin, chain, last_input: None, open: None };
    search.run(header, &segments)
}

/// The segment to begin in: the last one whose first record is surely kept.
fn begin(dir: &Path, header: &Header, segments: &[u64], first: u64, cut: &Cut) -> u64 {
    let kept = |number: &&u64| {
        SegmentReader::open(dir, **number, header.log_id)
            .is_ok_and(|segment| segment.header().position < cut.position)
    };
    segments.iter().rev().find(kept).copied().unwrap_or(first).max(first)
}

/// The state before segment `number`, from the seal of the one before.
fn before(dir: &Path, header: &Header, number: u64) -> Result<(Chain, Decoder), ReadError> {
    let before = number - 1;
    let place = Place { segment: before, offset: 0, last_good: None };
    let seal = SegmentReader::open(dir, before, header.log_id)
        .and_then(SegmentReader::seal)
        .map_err(|trouble| trouble.into_error(dir, before, place))?;
    let (seal, chain) = seal.ok_or(ReadError::Refused { place, fault: Fault::NotSealed })?;
    Ok((chain, Decoder::resume(seal.position, seal.epoch)))
}

struct Search<'a> {
    dir: &'a Path,
    cut: &'a Cut,
    decoder: Decoder,
    /// Segment to open next, or being read.
    number: u64,
    /// The chain's state at its start.
    chain: Chain,
    last_input: Option<Position>,
    open: Option<Open>,
}

/// Whether anything more may be kept.
#[derive(PartialEq, Eq)]
enum Next {
    Frame,
    Segment,
    Nothing,
}

impl Search<'_> {
    fn run(mut self, header: Header, segments: &[u64]) -> Result<Tail, ReadError> {
        while segments.binary_search(&self.number).is_ok() {
            match SegmentReader::open(self.dir, self.number, header.log_id) {
                Ok(segment) => {
                    if self.segment(segment)? == Next::Nothing {
                        break;
                    }
                }
                // A kill while it was begun.
                Err(Trouble::NoHeader(_)) => break,
                Err(trouble) => return Err(self.refused(trouble, 0)),
            }
        }
        let Self { decoder, number, chain, last_input, open, .. } = self;
        // Of a segment whose first record goes nothing stays.
        let open = open.filter(|open| open.end.records + open.pending.records > 0);
        let next_number = if open.is_some() { number + 1 } else { number };
        let encoder = decoder.into_encoder();
        Ok(Tail { header, open, next_number, chain, encoder, last_input })
    }

    fn segment(&mut self, mut segment: SegmentReader) -> Result<Next, ReadError> {
        let header = *segment.header();
        if header.chain != self.chain {
            return Err(self.refused(Trouble::Bad(Fault::SegmentChain), 0));
        }
        self.decoder.rebase(header.position);
        let number = header.number;
        self.open = Some(Open {
            end: SegmentEnd { number, chain: segment.chain(), bytes: segment.offset(), records: 0 },
            frames: Vec::new(),
            pending: Pending::default(),
        });
        loop {
            match self.frame(&mut segment)? {
                Next::Frame => {}
                next => return Ok(next),
            }
        }
    }

    fn frame(&mut self, segment: &mut SegmentReader) -> Result<Next, ReadError> {
        let offset = segment.offset();
        match segment.step() {
            Ok(Step::Records(plain)) => self.records(segment, offset, plain),
            Ok(Step::Sealed(_)) => {
                self.open = None;
                self.chain = segment.chain();
                self.number += 1;
                Ok(Next::Segment)
            }
            Ok(Step::Torn(_)) => Ok(Next::Nothing),
            Err(trouble) => Err(self.refused(trouble, offset)),
        }
    }

    /// Takes a frame's records up to the first that is not kept.
    fn records(
        &mut self,
        segment: &SegmentReader,
        offset: u64,
        mut plain: Vec<u8>,
    ) -> Result<Next, ReadError> {
        let mut rest = plain.as_slice();
        let (mut count, mut start) = (0, None);
        while !rest.is_empty() {
            let (state, left) = (self.decoder.clone(), rest.len());
            let record = match self.decoder.decode(&mut rest) {
                Ok(record) => record,
                Err(error) => return Err(self.refused(Trouble::Bad(Fault::Record(error)), offset)),
            };
            if !self.cut.keeps(&record) {
                let kept = plain.len() - left;
                self.decoder = state;
                plain.truncate(kept);
                let open = self.open.as_mut().expect("a segment is being read");
                open.pending = Pending { bytes: plain, records: count, start };
                return Ok(Next::Nothing);
            }
            let (number, position, epoch) = (self.number, record.position(), state.epoch());
            start.get_or_insert(IndexEntry { segment: number, offset, position, epoch });
            count += 1;
            if let Record::Input { position, .. } = record {
                self.last_input = Some(position);
            }
        }
        let open = self.open.as_mut().expect("a segment is being read");
        open.frames.extend(start);
        open.end.records += count;
        open.end.bytes = segment.offset();
        open.end.chain = segment.chain();
        Ok(Next::Frame)
    }

    fn refused(&self, trouble: Trouble, offset: u64) -> ReadError {
        let place = Place { segment: self.number, offset, last_good: self.decoder.last() };
        trouble.into_error(self.dir, self.number, place)
    }
}
