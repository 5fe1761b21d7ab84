//! The background scrub: each epoch's digest covers, beside what was dirtied, a window of memory and
//! disk that moves with the epoch's number. Corruption that no dirty tracking saw is found when the
//! window has come round: after `pages / PAGES_PER_EPOCH` epochs for memory, likewise for the disk.

use crate::Epoch;
use std::ops::Range;

/// Pages of memory in each epoch's window: 512 MiB are covered in 2048 epochs, about 51 s of a busy guest.
pub const PAGES_PER_EPOCH: u64 = 64;
/// 4 KiB disk blocks in each epoch's window.
pub const BLOCKS_PER_EPOCH: u64 = 64;

/// The window of an epoch over `total` pages or blocks.
pub fn window(epoch: Epoch, total: u64, per_epoch: u64) -> Range<u64> {
    if total == 0 {
        return 0..0;
    }
    let windows = total.div_ceil(per_epoch);
    let start = (epoch.0 % windows) * per_epoch;
    start..(start + per_epoch).min(total)
}

/// The pages that an epoch's digest covers: the dirty ones and the window, ascending, each once.
pub fn pages(epoch: Epoch, dirty: &[u32], total: u32) -> Vec<u32> {
    let window = window(epoch, u64::from(total), PAGES_PER_EPOCH);
    let mut pages: Vec<u32> = dirty.to_vec();
    pages.extend(window.map(|page| page as u32));
    pages.sort_unstable();
    pages.dedup();
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_turn() {
        for total in [1u64, 63, 64, 65, 1000] {
            let mut seen = vec![false; total as usize];
            for epoch in 1..=total.div_ceil(PAGES_PER_EPOCH) {
                window(Epoch(epoch), total, PAGES_PER_EPOCH).for_each(|p| seen[p as usize] = true);
            }
            assert!(seen.iter().all(|seen| *seen), "{total} pages");
        }
    }

    #[test]
    fn pages_are_ascending_and_single() {
        let pages = pages(Epoch(1), &[3, 70, 100, 200], 300);
        assert!(pages.is_sorted_by(|a, b| a < b));
        assert_eq!(pages.len(), 64 + 2);
    }
}
