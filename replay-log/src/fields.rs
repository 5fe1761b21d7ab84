//! Fixed-width little-endian fields of headers.

use ft_pair_shared::{Epoch, Position};

/// Appends fields to a buffer.
pub(crate) trait PutFields {
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// Twenty bytes: retired, rep, seq.
    fn put_position(&mut self, value: Position);
}

impl PutFields for Vec<u8> {
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_position(&mut self, value: Position) {
        self.put_u64(value.retired);
        self.put_u64(value.rep);
        self.put_u32(value.seq);
    }
}

/// Takes fields off the front of bytes; `None` when they run out.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn position(&mut self) -> Option<Position> {
        Some(Position { retired: self.u64()?, rep: self.u64()?, seq: self.u32()? })
    }

    pub(crate) fn epoch(&mut self) -> Option<Epoch> {
        self.u64().map(Epoch)
    }

    /// Bytes with their length, four bytes, before them.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }
}
