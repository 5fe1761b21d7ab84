//! Reads the file of one segment, frame by frame, and believes nothing in it.

use crate::chain::Chain;
use crate::error::{Fault, ReadError};
use crate::header::LogId;
use crate::segment::{self, FrameHeader, FrameKind, Seal, SegmentHeader};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What comes next in a segment.
pub(crate) enum Step {
    /// The records of a frame, encoded.
    Records(Vec<u8>),
    /// The seal; nothing follows.
    Sealed(Seal),
    /// The file ends, with this many bytes of a frame that is not whole.
    Torn(u64),
}

/// Why a segment is not read on.
pub(crate) enum Trouble {
    /// The operating system refused.
    Io(io::Error),
    /// What is there is bad.
    Bad(Fault),
    /// The file ends within the segment's header, after this many bytes.
    NoHeader(u64),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// An open segment file, at the start of a frame.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    input: BufReader<File>,
    /// Length of the file when it was opened.
    len: u64,
    /// Where the next frame starts.
    offset: u64,
    header: SegmentHeader,
    chain: Chain,
}

impl SegmentReader {
    /// Opens a segment and checks that it is the named one of the recording.
    pub(crate) fn open(dir: &Path, number: u64, log_id: LogId) -> Result<Self, Trouble> {
        let file = File::open(segment::path(dir, number))?;
        let len = file.metadata()?.len();
        let mut input = BufReader::with_capacity(32 << 10, file);
        let mut bytes = [0; SegmentHeader::BYTES];
        if len < bytes.len() as u64 {
            return Err(Trouble::NoHeader(len));
        }
        input.read_exact(&mut bytes)?;
        let header =
            SegmentHeader::from_bytes(&bytes).map_err(|f| Trouble::Bad(Fault::SegmentHeader(f)))?;
        if header.log_id != log_id {
            return Err(Trouble::Bad(Fault::Foreign));
        }
        if header.number != number {
            return Err(Trouble::Bad(Fault::Number(header.number)));
        }
        let chain = header.chain.next(&[&bytes]);
        Ok(Self { input, len, offset: bytes.len() as u64, header, chain })
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Where the next frame starts.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// State of the chain after what was read.
    pub(crate) fn chain(&self) -> Chain {
        self.chain
    }

    /// Reads one frame and checks it.
    pub(crate) fn step(&mut self) -> Result<Step, Trouble> {
        let left = self.len - self.offset;
        if left < FrameHeader::BYTES as u64 {
            return Ok(Step::Torn(left));
        }
        let mut bytes = [0; FrameHeader::BYTES];
        self.input.read_exact(&mut bytes)?;
        let header = FrameHeader::from_bytes(&bytes).ok_or(Trouble::Bad(Fault::FrameHeader))?;
        let size = FrameHeader::BYTES as u64 + u64::from(header.stored);
        if left < size {
            return Ok(Step::Torn(left));
        }
        let mut stored = vec![0; header.stored as usize];
        self.input.read_exact(&mut stored)?;
        if !header.holds(&stored) {
            return Err(Trouble::Bad(Fault::FrameBytes));
        }
        let next = header.continues(&bytes, &stored, self.chain);
        let next = next.ok_or(Trouble::Bad(Fault::FrameChain))?;
        let step = self.open_frame(header, stored, left == size)?;
        self.offset += size;
        self.chain = next;
        Ok(step)
    }

    fn open_frame(
        &self,
        header: FrameHeader,
        stored: Vec<u8>,
        last: bool,
    ) -> Result<Step, Trouble> {
        let plain = header.plain as usize;
        match header.kind {
            FrameKind::Plain => Ok(Step::Records(stored)),
            FrameKind::Zstd => match zstd::bulk::decompress(&stored, plain) {
                Ok(records) if records.len() == plain => Ok(Step::Records(records)),
                _ => Err(Trouble::Bad(Fault::Compression)),
            },
            FrameKind::Seal => match Seal::from_bytes(&stored) {
                Some(seal) if seal.chain != self.chain => Err(Trouble::Bad(Fault::Seal)),
                Some(_) if !last => Err(Trouble::Bad(Fault::Trailing)),
                Some(seal) => Ok(Step::Sealed(seal)),
                None => Err(Trouble::Bad(Fault::Seal)),
            },
        }
    }

    /// Reads the seal at the end of the file, without what comes before it. `None`: there is none.
    pub(crate) fn seal(mut self) -> Result<Option<(Seal, Chain)>, Trouble> {
        if self.len < (SegmentHeader::BYTES + Seal::FRAME_BYTES) as u64 {
            return Ok(None);
        }
        self.input.seek(SeekFrom::Start(self.len - Seal::FRAME_BYTES as u64))?;
        let mut frame = [0; Seal::FRAME_BYTES];
        self.input.read_exact(&mut frame)?;
        let (bytes, stored) = frame.split_at(FrameHeader::BYTES);
        let header = bytes.try_into().ok().and_then(FrameHeader::from_bytes);
        let seal = header.filter(|h| h.kind == FrameKind::Seal).and_then(|h| {
            let seal = Seal::from_bytes(stored)?;
            Some((seal, h.continues(bytes, stored, seal.chain)?))
        });
        Ok(seal)
    }
}

impl Trouble {
    /// The error to report, for a segment where a missing header is a fault.
    pub(crate) fn into_error(self, dir: &Path, number: u64, place: crate::Place) -> ReadError {
        let refused = |fault| ReadError::Refused { place, fault };
        match self {
            Self::Io(source) => ReadError::io(&segment::path(dir, number), source),
            Self::Bad(fault) => refused(fault),
            Self::NoHeader(_) => refused(Fault::NotSealed),
        }
    }
}
