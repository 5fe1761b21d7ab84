//! What translated code sees of the software TLB and of known branch targets.
//!
//! The TLB proper (`tlb.rs`) is machine state, filled and evicted alike by every engine. A window entry only
//! repeats a TLB entry for one privilege, so that a hit in the window is a hit in the TLB, which changes
//! nothing. Whatever forgets a TLB entry notes it in [`Changes`]; the window forgets it before translated
//! code runs again. A tag is a negated page address: tag + address of the last byte is below the page
//! size just if the access lies in that page.

use crate::frame::{Link, TARGETS, VIEWS, WINDOW};
use crate::ram::PAGE;

/// How many single pages are noted before all are forgotten.
const NOTED: usize = 16;

/// What the TLB has forgotten since the window was last brought in line.
#[derive(Debug, Default)]
pub struct Changes {
    all: bool,
    stores: bool,
    targets: bool,
    pages: Vec<u64>,
}

impl Changes {
    /// Everything is forgotten.
    pub fn all(&mut self) {
        self.all = true;
    }

    /// Every store has to be noticed once more.
    pub fn stores(&mut self) {
        self.stores = true;
    }

    /// An instruction page is forgotten or replaced, or code is void.
    pub fn targets(&mut self) {
        self.targets = true;
    }

    /// The data translation of one page is forgotten or replaced.
    pub fn page(&mut self, va: u64) {
        if self.pages.len() == NOTED {
            self.all = true;
        } else if !self.all {
            self.pages.push(va);
        }
    }
}

/// Index of a page.
const fn index(va: u64) -> usize {
    (va / PAGE) as usize % WINDOW
}

/// A tag that no address with this index can match.
const fn no_page(index: usize) -> u64 {
    (((index + WINDOW / 2) % WINDOW) as u64 * PAGE).wrapping_neg()
}

/// Index of a branch target: the top bits of its CRC-32C, as the translated code computes it.
pub const fn target_index(va: u64) -> usize {
    // All 64 bits at once, least significant first.
    let mut crc = va;
    let mut bit = 0;
    while bit < 64 {
        crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        bit += 1;
    }
    (crc as u32 >> (32 - TARGETS.trailing_zeros())) as usize
}

/// Two targets that are not canonical and differ in their index.
const NO_TARGET: [u64; 2] = [0x5a5a_0000_0000_0001, 0xa5a5_0000_0000_0002];
/// The index that the first of them has: there the second stands for "none".
const SPECIAL: usize = target_index(NO_TARGET[0]);
const _: () = assert!(SPECIAL != target_index(NO_TARGET[1]), "each stands where it cannot be met");

impl Link {
    /// Empties the window on data.
    pub fn forget_pages(&mut self) {
        for view in 0..VIEWS {
            for i in 0..WINDOW {
                self.read_tags[view][i] = no_page(i);
                self.write_tags[view][i] = no_page(i);
            }
        }
    }

    /// Empties the cache of branch targets.
    pub fn forget_targets(&mut self) {
        for tags in &mut self.target_tags {
            tags.fill(NO_TARGET[0].wrapping_neg());
            tags[SPECIAL] = NO_TARGET[1].wrapping_neg();
        }
    }

    fn forget_stores(&mut self) {
        for tags in &mut self.write_tags {
            for (i, tag) in tags.iter_mut().enumerate() {
                *tag = no_page(i);
            }
        }
    }

    fn forget_page(&mut self, va: u64) {
        let (i, tag) = (index(va), (va & !(PAGE - 1)).wrapping_neg());
        for view in 0..VIEWS {
            for tags in [&mut self.read_tags[view], &mut self.write_tags[view]] {
                if tags[i] == tag {
                    tags[i] = no_page(i);
                }
            }
        }
    }

    /// Forgets what the TLB has forgotten.
    pub fn follow(&mut self, changes: &mut Changes) {
        if changes.all {
            self.forget_pages();
        } else {
            if changes.stores {
                self.forget_stores();
            }
            for va in &changes.pages {
                self.forget_page(*va);
            }
        }
        if changes.targets {
            self.forget_targets();
        }
        changes.all = false;
        changes.stores = false;
        changes.targets = false;
        changes.pages.clear();
    }

    /// Shows a page of RAM that the TLB holds: `host` is the address of its first byte.
    pub fn show_page(&mut self, view: usize, va: u64, host: usize, write: bool) {
        let page = va & !(PAGE - 1);
        let (i, tag) = (index(va), page.wrapping_neg());
        let (shown, other) = if write {
            (&mut self.write_tags[view], &mut self.read_tags[view])
        } else {
            (&mut self.read_tags[view], &mut self.write_tags[view])
        };
        shown[i] = tag;
        // Both kinds of tag share the addend.
        if other[i] != tag {
            other[i] = no_page(i);
        }
        self.addends[view][i] = (host as u64).wrapping_sub(page);
    }

    /// Notes where the code of a target is.
    pub fn show_target(&mut self, view: usize, va: u64, code: usize) {
        let i = target_index(va);
        self.target_tags[view][i] = va.wrapping_neg();
        self.target_code[view][i] = code as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::StateBox;

    fn hits(tags: &[u64; WINDOW], va: u64, size: u64) -> bool {
        tags[index(va)].wrapping_add(va).wrapping_add(size - 1) >> 12 == 0
    }

    #[test]
    fn an_empty_window_matches_nothing() {
        let mut state = StateBox::default();
        for base in [0, 1 << 63, 0xffff_8000_0000_0000, 0x7fff_ffff_f000, u64::MAX << 20] {
            for n in 0..600u64 {
                let va = (base + n * PAGE).wrapping_add(4090);
                assert!(!hits(&state.link().read_tags[0], va, 16), "{va:x}");
            }
        }
        for n in 0..100_000u64 {
            let va = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_ne!(state.link().target_tags[0][target_index(va)].wrapping_add(va), 0);
        }
        for strange in NO_TARGET {
            let tag = state.link().target_tags[0][target_index(strange)];
            assert_ne!(tag.wrapping_add(strange), 0);
        }
    }

    #[test]
    fn an_access_that_leaves_the_page_does_not_match() {
        let mut state = StateBox::default();
        let link = state.link();
        link.show_page(1, 0x7000, 0x1000_0000, false);
        assert!(hits(&link.read_tags[1], 0x7ff8, 8));
        assert!(!hits(&link.read_tags[1], 0x7ff9, 8));
        assert!(!hits(&link.read_tags[1], 0x6fff, 8));
        assert!(!hits(&link.write_tags[1], 0x7000, 1));
        link.show_page(1, 0x7000 + WINDOW as u64 * PAGE, 0x2000_0000, true);
        assert!(!hits(&link.read_tags[1], 0x7000, 1), "the addend is another page's");
        link.follow(&mut Changes {
            pages: vec![0x7000 + WINDOW as u64 * PAGE],
            ..Changes::default()
        });
        assert!(!hits(&link.write_tags[1], 0x7000 + WINDOW as u64 * PAGE, 1));
    }
}
