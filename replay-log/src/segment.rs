//! The fixed parts of a segment file: its header, the headers of its frames, its seal.

use crate::HeaderFault;
use crate::chain::Chain;
use crate::fields::{Fields, PutFields};
use crate::header::{FORMAT_VERSION, LogId, check_kind};
use ft_pair_shared::{Epoch, Position};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"FTPLSEG\n";

/// The most bytes of records in one frame, before compression.
pub(crate) const MAX_FRAME_RECORDS: u32 = 4 << 20;

/// The header of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Number of the segment, from 0.
    pub(crate) number: u64,
    /// The recording that it belongs to.
    pub(crate) log_id: LogId,
    /// State of the chain at the end of the segment before.
    pub(crate) chain: Chain,
    /// Position of its first record.
    pub(crate) position: Position,
    /// The epoch that ended last before it, 0 for none.
    pub(crate) epoch: Epoch,
}

impl SegmentHeader {
    pub(crate) const BYTES: usize = 100;

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u32(FORMAT_VERSION);
        out.put_u64(self.number);
        out.extend_from_slice(&self.log_id.0);
        out.extend_from_slice(&self.chain.0);
        out.put_position(self.position);
        out.put_u64(self.epoch.0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, HeaderFault> {
        check_kind(bytes, &MAGIC)?;
        Self::parse(Fields(&bytes[12..]), crc32c::crc32c(&bytes[..Self::BYTES - 4]))
            .ok_or(HeaderFault::Damaged)
    }

    fn parse(mut fields: Fields<'_>, crc: u32) -> Option<Self> {
        let header = Self {
            number: fields.u64()?,
            log_id: LogId(fields.array()?),
            chain: Chain(fields.array()?),
            position: fields.position()?,
            epoch: fields.epoch()?,
        };
        (fields.u32()? == crc).then_some(header)
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// Records as they are.
    Plain = 1,
    /// Records, compressed by zstd.
    Zstd = 2,
    /// The [`Seal`] of the segment.
    Seal = 3,
}

/// The header of a frame. Its own checksum comes last, so that a damaged length is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// What the frame holds.
    pub(crate) kind: FrameKind,
    /// Bytes that follow the header.
    pub(crate) stored: u32,
    /// Bytes of records in the frame, before compression.
    pub(crate) plain: u32,
    /// crc32c of the bytes that follow.
    crc: u32,
    /// Start of the chain's state after the frame.
    tag: [u8; 8],
}

impl FrameHeader {
    pub(crate) const BYTES: usize = 25;
    /// The bytes of a header that the chain covers: those before the tag.
    const CHAINED: usize = 13;

    /// A whole frame, and the state of the chain after it.
    pub(crate) fn frame(
        kind: FrameKind,
        plain: u32,
        stored: &[u8],
        chain: Chain,
    ) -> (Vec<u8>, Chain) {
        let mut out = Vec::with_capacity(Self::BYTES + stored.len());
        out.push(kind as u8);
        out.put_u32(u32::try_from(stored.len()).expect("a frame is below 4 GiB"));
        out.put_u32(plain);
        out.put_u32(crc32c::crc32c(stored));
        let next = chain.next(&[&out, stored]);
        out.extend_from_slice(&next.tag());
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out.extend_from_slice(stored);
        (out, next)
    }

    /// Reads a header; `None` if it is damaged.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let kind = match fields.array()? {
            [1] => FrameKind::Plain,
            [2] => FrameKind::Zstd,
            [3] => FrameKind::Seal,
            _ => return None,
        };
        let (stored, plain, crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let header = Self { kind, stored, plain, crc, tag: fields.array()? };
        let intact = fields.u32()? == crc32c::crc32c(&bytes[..Self::BYTES - 4]);
        (intact && header.sizes_fit()).then_some(header)
    }

    fn sizes_fit(&self) -> bool {
        match self.kind {
            FrameKind::Plain => self.stored == self.plain && self.plain_fits(),
            FrameKind::Zstd => self.stored < self.plain && self.plain_fits(),
            FrameKind::Seal => self.stored as usize == Seal::BYTES && self.plain == 0,
        }
    }

    fn plain_fits(&self) -> bool {
        (1..=MAX_FRAME_RECORDS).contains(&self.plain)
    }

    /// True if `stored` are the bytes that the header was made for.
    pub(crate) fn holds(&self, stored: &[u8]) -> bool {
        crc32c::crc32c(stored) == self.crc
    }

    /// The chain's state after the frame, if the frame continues `chain`.
    pub(crate) fn continues(&self, bytes: &[u8], stored: &[u8], chain: Chain) -> Option<Chain> {
        let next = chain.next(&[&bytes[..Self::CHAINED], stored]);
        (next.tag() == self.tag).then_some(next)
    }
}

/// The last frame of a finished segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Records in the segment.
    pub(crate) records: u64,
    /// Position of the last of them.
    pub(crate) position: Position,
    /// The epoch that ended last, 0 for none.
    pub(crate) epoch: Epoch,
    /// The whole state of the chain before the seal.
    pub(crate) chain: Chain,
}

impl Seal {
    pub(crate) const BYTES: usize = 68;
    /// Bytes of the frame that holds a seal.
    pub(crate) const FRAME_BYTES: usize = FrameHeader::BYTES + Self::BYTES;

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES);
        out.put_u64(self.records);
        out.put_position(self.position);
        out.put_u64(self.epoch.0);
        out.extend_from_slice(&self.chain.0);
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let seal = Self {
            records: fields.u64()?,
            position: fields.position()?,
            epoch: fields.epoch()?,
            chain: Chain(fields.array()?),
        };
        fields.0.is_empty().then_some(seal)
    }
}

/// The file of a segment.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:06}.ftlog"))
}

/// The numbers of the segment files in `dir`, in order.
pub(crate) fn list(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix("segment-")?.strip_suffix(".ftlog")?.parse().ok());
        if let Some(number) = number
            && path(dir, number).file_name() == Some(&name)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
