//! What bulk payloads are made of: pages, disk blocks, machine state, digests.
//!
//! A payload is a sequence of items, split into chunks at item boundaries so that sending can begin
//! before the last page is collected. The encoding is little-endian, one tag byte an item:
//!
//! | tag | item | content |
//! | --- | --- | --- |
//! | 1 | zero page | index u32 |
//! | 2 | page | index u32, 4096 bytes |
//! | 3 | machine state | length u32, bytes |
//! | 4 | disk write | sector u64, length u32, bytes |
//! | 5 | disk flush | number u64 |
//! | 6 | dirty list | count u32, indices u32 |
//! | 7 | page digest | index u32, 32 bytes |
//! | 8 | disk digest | 32 bytes |
//! | 9 | log | length u32, bytes |
//! | 10 | disk scrub | 32 bytes |
//! | 11 | disk block digest | block u64, 32 bytes |

use crate::account::{Bytes, Class};

/// Bytes of a guest page.
pub const PAGE: usize = 4096;

/// One item of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A page of zeros.
    ZeroPage(u32),
    /// A page, whole.
    Page(u32, &'a [u8; PAGE]),
    /// State of CPU and devices.
    State(&'a [u8]),
    /// Sectors of the disk.
    DiskWrite(u64, &'a [u8]),
    /// The guest flushed its disk here.
    DiskFlush(u64),
    /// Little-endian u32 indices of the pages that the root digest of this payload's epoch covers.
    DirtyList(&'a [u8]),
    /// The digest of a page.
    PageDigest(u32, &'a [u8; 32]),
    /// Digest of the epoch's disk writes.
    DiskDigest(&'a [u8; 32]),
    /// Digest of the disk's window that is scrubbed with the epoch, as it is after the epoch.
    DiskScrub(&'a [u8; 32]),
    /// Encoded log records.
    Log(&'a [u8]),
    /// The digest of a 4 KiB block of the disk.
    BlockDigest(u64, &'a [u8; 32]),
}

/// A payload could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bulk payload is malformed at byte {at}: drop this connection and synchronise again")]
pub struct Malformed {
    /// Offset in the chunk.
    pub at: usize,
}

/// Encodes items into a chunk and counts them per class.
#[derive(Debug, Default)]
pub struct ChunkWriter {
    bytes: Vec<u8>,
    counted: Bytes,
    pages: u64,
}

impl ChunkWriter {
    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Pages written, zero pages included.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The chunk and what its bytes were for.
    pub fn finish(self) -> (Vec<u8>, Bytes) {
        (self.bytes, self.counted)
    }

    /// Appends one item.
    pub fn put(&mut self, item: Item<'_>) {
        let before = self.bytes.len();
        let class = match item {
            Item::ZeroPage(index) => {
                self.head(1, &index.to_le_bytes());
                self.pages += 1;
                Class::PageAtEnd
            }
            Item::Page(index, bytes) => {
                self.head(2, &index.to_le_bytes());
                self.bytes.extend_from_slice(bytes);
                self.pages += 1;
                Class::PageAtEnd
            }
            Item::State(bytes) => self.sized(3, bytes, Class::State),
            Item::DiskWrite(sector, bytes) => {
                self.head(4, &sector.to_le_bytes());
                self.bytes.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                self.bytes.extend_from_slice(bytes);
                Class::Disk
            }
            Item::DiskFlush(number) => {
                self.head(5, &number.to_le_bytes());
                Class::Disk
            }
            Item::DirtyList(bytes) => self.sized(6, bytes, Class::Digest),
            Item::PageDigest(index, digest) => {
                self.head(7, &index.to_le_bytes());
                self.bytes.extend_from_slice(digest);
                Class::Digest
            }
            Item::DiskDigest(digest) => {
                self.head(8, digest);
                Class::Digest
            }
            Item::Log(bytes) => self.sized(9, bytes, Class::Log),
            Item::DiskScrub(digest) => {
                self.head(10, digest);
                Class::Digest
            }
            Item::BlockDigest(block, digest) => {
                self.head(11, &block.to_le_bytes());
                self.bytes.extend_from_slice(digest);
                Class::Digest
            }
        };
        self.counted.add(class, (self.bytes.len() - before) as u64);
    }

    /// Appends a page, as zeros where it is all zeros.
    pub fn put_page(&mut self, index: u32, bytes: &[u8; PAGE]) {
        if is_zero(bytes) {
            self.put(Item::ZeroPage(index));
        } else {
            self.put(Item::Page(index, bytes));
        }
    }

    /// Appends a dirty list.
    pub fn put_dirty_list(&mut self, pages: &[u32]) {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.put(Item::DirtyList(&bytes));
    }

    fn head(&mut self, tag: u8, bytes: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(bytes);
    }

    fn sized(&mut self, tag: u8, bytes: &[u8], class: Class) -> Class {
        self.head(tag, &(bytes.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
        class
    }
}

/// True if every byte is zero.
pub fn is_zero(bytes: &[u8; PAGE]) -> bool {
    bytes.as_chunks::<64>().0.iter().all(|line| *line == [0; 64])
}

/// The indices of a [`Item::DirtyList`].
pub fn dirty_list(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|index| u32::from_le_bytes(*index)).collect()
}

/// Iterates over the items of a chunk.
#[derive(Debug)]
pub struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    /// The items of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let taken = self
            .at
            .checked_add(len)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(Malformed { at: self.at })?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| Malformed { at })
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn item(&mut self) -> Result<Item<'a>, Malformed> {
        let at = self.at;
        Ok(match self.array::<1>()?[0] {
            1 => Item::ZeroPage(self.u32()?),
            2 => Item::Page(self.u32()?, self.array()?),
            3 => Item::State(self.sized()?),
            4 => Item::DiskWrite(self.u64()?, self.sized()?),
            5 => Item::DiskFlush(self.u64()?),
            6 => Item::DirtyList(self.sized()?),
            7 => Item::PageDigest(self.u32()?, self.array()?),
            8 => Item::DiskDigest(self.array()?),
            10 => Item::DiskScrub(self.array()?),
            11 => Item::BlockDigest(self.u64()?, self.array()?),
            9 => Item::Log(self.sized()?),
            _ => return Err(Malformed { at }),
        })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.at = self.bytes.len();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Bytes) {
        let mut w = ChunkWriter::default();
        w.put_page(7, &[0; PAGE]);
        w.put_page(8, &[3; PAGE]);
        w.put(Item::State(b"state"));
        w.put(Item::DiskWrite(9, &[1; 512]));
        w.put(Item::DiskFlush(4));
        w.put_dirty_list(&[1, 2, 3]);
        w.put(Item::PageDigest(5, &[6; 32]));
        w.put(Item::DiskDigest(&[7; 32]));
        w.put(Item::DiskScrub(&[8; 32]));
        w.put(Item::BlockDigest(9, &[9; 32]));
        w.put(Item::Log(b"log"));
        w.finish()
    }

    #[test]
    fn what_is_put_comes_out_and_is_counted() {
        let (bytes, counted) = sample();
        assert_eq!(counted.total(), bytes.len() as u64);
        let items: Vec<_> = Items::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(items.len(), 11);
        assert_eq!(items[0], Item::ZeroPage(7));
        assert!(matches!(items[5], Item::DirtyList(list) if dirty_list(list) == [1, 2, 3]));
    }

    #[test]
    fn truncation_is_an_error_at_every_length_but_item_boundaries() {
        let (bytes, _) = sample();
        let mut whole = 0;
        for len in 0..bytes.len() {
            whole += usize::from(Items::new(&bytes[..len]).all(|item| item.is_ok()));
        }
        assert_eq!(whole, 11, "one clean end before each item");
    }
}
