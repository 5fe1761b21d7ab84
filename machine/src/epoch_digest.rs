//! What both sides compare at the end of an epoch.

use crate::disk::DiskControl;
use crate::{DiskError, DiskWrites, Machine};
use ft_pair_shared::protocol::RootDigest;
use ft_pair_shared::scrub::{self, BLOCKS_PER_EPOCH};
use ft_pair_shared::{Epoch, digest, page_digests};
use std::ops::Range;

/// Sectors of a disk block as synchronisation, repair and scrub count them (4 KiB).
pub const BLOCK_SECTORS: u64 = 8;

/// A digest with what it was made from.
#[derive(Debug, Clone)]
pub struct EpochDigest {
    /// The root digest.
    pub root: RootDigest,
    /// The pages that it covers, ascending: dirty ones and the scrubbed window.
    pub pages: Vec<u32>,
    /// Its disk part: the epoch's writes and the scrubbed window.
    pub disk: [u8; 32],
    /// The scrubbed window of the disk alone.
    pub scrubbed: [u8; 32],
}

/// The disk blocks that are scrubbed with an epoch.
pub fn scrubbed_blocks(epoch: Epoch, sectors: u64) -> Range<u64> {
    scrub::window(epoch, sectors.div_ceil(BLOCK_SECTORS), BLOCKS_PER_EPOCH)
}

/// The 4 KiB blocks that an epoch wrote to, ascending, each once.
pub fn written_blocks(writes: &DiskWrites) -> Vec<u64> {
    let mut blocks: Vec<u64> = writes
        .ranges
        .iter()
        .filter(|(_, count)| *count > 0)
        .flat_map(|(first, count)| first / BLOCK_SECTORS..=(first + count - 1) / BLOCK_SECTORS)
        .collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

/// Sectors of a 4 KiB block: the last of a disk may be shorter. First sector and number.
pub fn sectors_of_block(block: u64, sectors: u64) -> (u64, u64) {
    let first = block * BLOCK_SECTORS;
    (first, BLOCK_SECTORS.min(sectors - first))
}

/// The digest of one 4 KiB block of the disk.
///
/// # Errors
/// When the host cannot read the disk.
pub fn block_digest(block: u64, disk: &DiskControl) -> Result<[u8; 32], DiskError> {
    let (first, count) = sectors_of_block(block, disk.sectors());
    disk.digest_range(first, count)
}

/// The digest of the disk's window that is scrubbed with an epoch.
///
/// # Errors
/// When the host cannot read the disk.
pub fn scrub_disk(epoch: Epoch, disk: &DiskControl) -> Result<[u8; 32], DiskError> {
    let blocks = scrubbed_blocks(epoch, disk.sectors());
    let first = blocks.start * BLOCK_SECTORS;
    let end = (blocks.end * BLOCK_SECTORS).min(disk.sectors());
    disk.digest_range(first, end - first)
}

impl Machine {
    /// The digest of an epoch that ends here: CPU and devices, its disk writes, the pages dirtied in
    /// it, and the windows of memory and disk whose turn it is to be scrubbed.
    ///
    /// # Errors
    /// When the host cannot read the disk.
    pub fn epoch_digest(
        &self,
        epoch: Epoch,
        dirty: &[u32],
        writes: &DiskWrites,
        disk: Option<&DiskControl>,
    ) -> Result<EpochDigest, DiskError> {
        let scrubbed = disk.map_or(Ok([0; 32]), |disk| scrub_disk(epoch, disk))?;
        let disk = digest::disk(&writes.digest, &scrubbed);
        let pages = scrub::pages(epoch, dirty, self.ram().pages());
        let mut root = digest::Root::new(&digest::bytes(&self.state().to_bytes()), &disk);
        let content: Vec<_> = pages.iter().map(|page| self.ram().page(*page)).collect();
        for (page, digest) in pages.iter().zip(page_digests::of_pages(&content)) {
            root.page(*page, &digest);
        }
        Ok(EpochDigest { root: root.finish(), pages, disk, scrubbed })
    }
}
