//! Digests that both sides compute alike.
//!
//! The root digest of an epoch covers CPU and device state, the epoch's disk writes, and every page
//! dirtied in it: `blake3("ft-pair epoch 1" || state || disk || (index u32 LE || page)*)`, where each
//! part is the blake3 digest of the thing and pages come in ascending order.

use crate::protocol::RootDigest;

/// Digest of one page.
pub fn page(bytes: &[u8; crate::bulk::PAGE]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Digest of anything else.
pub fn bytes(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Digest of the disk's part in an epoch: the epoch's writes, and the scrubbed window's content.
pub fn disk(writes: &[u8; 32], window: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"ft-pair disk 1").update(writes).update(window);
    *hasher.finalize().as_bytes()
}

/// Builds a root digest.
#[derive(Debug, Clone)]
pub struct Root {
    hasher: blake3::Hasher,
    last: Option<u32>,
}

impl Root {
    /// Begins with the digests of the machine's state and of the epoch's disk writes.
    pub fn new(state: &[u8; 32], disk: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ft-pair epoch 1").update(state).update(disk);
        Self { hasher, last: None }
    }

    /// Adds a dirty page.
    ///
    /// # Panics
    /// If pages do not come in ascending order.
    pub fn page(&mut self, index: u32, digest: &[u8; 32]) {
        assert!(self.last.is_none_or(|last| last < index), "dirty pages are digested in order");
        self.last = Some(index);
        self.hasher.update(&index.to_le_bytes()).update(digest);
    }

    /// The root digest.
    pub fn finish(self) -> RootDigest {
        RootDigest(*self.hasher.finalize().as_bytes())
    }
}
