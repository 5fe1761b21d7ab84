//! Removal of old segments, and the note that tells it apart from loss.

use crate::chain::Chain;
use crate::fields::{Fields, PutFields};
use crate::header::{FORMAT_VERSION, LogId, check_kind, replace_file};
use crate::segment_reader::{SegmentReader, Trouble};
use crate::{Header, HeaderFault, Place, ReadError, segment};
use ft_pair_shared::{Epoch, Position};
use std::fs;
use std::path::Path;

const MAGIC: [u8; 8] = *b"FTPLFLR\n";
const FILE: &str = "floor";

/// Where the log starts since segments were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    /// The recording.
    pub(crate) log_id: LogId,
    /// First segment that is kept.
    pub(crate) segment: u64,
    /// State of the chain before it.
    pub(crate) chain: Chain,
    /// Position of the last removed record.
    pub(crate) last: Position,
    /// The epoch that ended last before the first kept segment.
    pub(crate) epoch: Epoch,
}

/// What [`remove_before`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Segments removed by this call.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Floor {
    /// True if there is a floor in `dir`, of whatever recording.
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Reads the floor in `dir`; `None` if nothing was removed.
    pub(crate) fn read(dir: &Path, log_id: LogId) -> Result<Option<Self>, ReadError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ReadError::io(&path, e)),
        };
        match Self::from_bytes(&bytes) {
            Ok(floor) if floor.log_id == log_id => Ok(Some(floor)),
            Ok(_) => Err(ReadError::Header { path, fault: HeaderFault::Foreign }),
            Err(fault) => Err(ReadError::Header { path, fault }),
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u32(FORMAT_VERSION);
        out.extend_from_slice(&self.log_id.0);
        out.put_u64(self.segment);
        out.extend_from_slice(&self.chain.0);
        out.put_position(self.last);
        out.put_u64(self.epoch.0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderFault> {
        check_kind(bytes, &MAGIC)?;
        Self::parse(bytes).ok_or(HeaderFault::Damaged)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(&bytes[12..]);
        let floor = Self {
            log_id: LogId(fields.array()?),
            segment: fields.u64()?,
            chain: Chain(fields.array()?),
            last: fields.position()?,
            epoch: fields.epoch()?,
        };
        let intact = fields.u32()? == crc32c::crc32c(&bytes[..bytes.len() - 4]);
        (intact && fields.0.is_empty()).then_some(floor)
    }
}

/// Removes the segments all of whose records lie before `position`, oldest first; never one that is
/// still written to. May run while a writer appends to the recording.
///
/// A note of where the log now starts is on stable storage before the first file goes, so a reader
/// tells removed segments from lost ones, even after a kill in between.
///
/// # Errors
/// The recording's header or the seal of an old segment cannot be read, or the system refuses.
pub fn remove_before(dir: &Path, position: Position) -> Result<Removed, ReadError> {
    let log_id = Header::read(dir)?.log_id;
    let old = Floor::read(dir, log_id)?;
    let numbers = segment::list(dir).map_err(|e| ReadError::io(dir, e))?;
    let mut floor = old;
    for &number in numbers.iter().filter(|&&n| old.is_none_or(|o| n >= o.segment)) {
        let Some(next) = floor_after(dir, number, log_id, floor, position)? else { break };
        floor = Some(next);
    }
    let Some(floor) = floor else { return Ok(Removed::default()) };
    if Some(floor) != old {
        let path = dir.join(FILE);
        replace_file(&path, &floor.to_bytes()).map_err(|e| ReadError::io(&path, e))?;
    }
    remove_segments(dir, numbers.iter().copied().filter(|&n| n < floor.segment))
}

/// The floor after segment `number`, if the segment may go.
fn floor_after(
    dir: &Path,
    number: u64,
    log_id: LogId,
    floor: Option<Floor>,
    position: Position,
) -> Result<Option<Floor>, ReadError> {
    if number != floor.map_or(0, |f| f.segment) {
        return Ok(None);
    }
    let place = Place { segment: number, offset: 0, last_good: floor.map(|f| f.last) };
    let sealed = SegmentReader::open(dir, number, log_id).and_then(SegmentReader::seal);
    match sealed {
        Ok(Some((seal, chain))) if seal.position < position => Ok(Some(Floor {
            log_id,
            segment: number + 1,
            chain,
            last: seal.position,
            epoch: seal.epoch,
        })),
        Ok(_) | Err(Trouble::NoHeader(_)) => Ok(None),
        Err(trouble) => Err(trouble.into_error(dir, number, place)),
    }
}

fn remove_segments(dir: &Path, numbers: impl Iterator<Item = u64>) -> Result<Removed, ReadError> {
    let mut removed = Removed::default();
    for number in numbers {
        let path = segment::path(dir, number);
        let bytes = fs::metadata(&path).and_then(|m| fs::remove_file(&path).map(|()| m.len()));
        removed.bytes += bytes.map_err(|e| ReadError::io(&path, e))?;
        removed.segments += 1;
    }
    Ok(removed)
}
