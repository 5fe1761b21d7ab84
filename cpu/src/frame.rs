//! The architectural state together with what translated code reaches from the same base register.
//!
//! Translated code addresses everything as `[rbp + constant]`, with RBP at [`BASE`] bytes into a [`Frame`]:
//! guest registers and flags, a window on the software TLB, a cache of branch targets, and the words by
//! which it talks to the run loop.

use crate::Cpu;
use crate::state::CpuState;
use std::ops::{Deref, DerefMut};

/// Where RBP points in a [`Frame`]. Frames are aligned to 64 bytes, so RBP modulo 64 is the width of a page
/// offset: `shrx r, r, rbp` divides by the page size without touching the flags.
pub const BASE: usize = 12;
/// Entries of each window on the TLB. An entry is one of the TLB's own, seen with one privilege.
pub const WINDOW: usize = 256;
/// Entries of each branch target cache.
pub const TARGETS: usize = 1024;
/// Privileges that see memory differently: user, supervisor under SMAP, supervisor without.
pub const VIEWS: usize = 3;

/// What translated code and the run loop exchange.
#[derive(Debug)]
#[repr(C)]
pub struct Link {
    /// Virtual address of the page that the running code lies in.
    pub page_va: u64,
    /// The arithmetic flags while Rust code runs; see [`pack_flags`].
    pub flags: u64,
    /// Instructions left before the limit, those of the running unit already taken off.
    pub fuel: u64,
    /// `retired` where the fuel runs out.
    pub end: u64,
    /// Why the code came back: one of `jit::enter`'s reasons.
    pub reason: u64,
    /// The place in the code that calls for help or exits: an index into `Jit`'s tables.
    pub site: u64,
    /// Guest virtual address of the access that needs help.
    pub va: u64,
    /// What became of a call for help.
    pub answer: u64,
    /// Address of the function that helps.
    pub helper: usize,
    /// Where to go, while the entry sequence sets up the registers.
    pub target: usize,
    /// Scratch words of one instruction.
    pub scratch: [u64; 3],
    /// The CPU around this frame, valid while translated code runs.
    pub cpu: *mut Cpu,
    /// MXCSR as Rust code expects it.
    pub host_mxcsr: u32,
    /// Negated page addresses of what may be read at once, by view and index; see `jit::window`.
    pub read_tags: [[u64; WINDOW]; VIEWS],
    /// Likewise for what may be written at once.
    pub write_tags: [[u64; WINDOW]; VIEWS],
    /// Host minus guest address of these pages.
    pub addends: [[u64; WINDOW]; VIEWS],
    /// Negated branch targets, by view and hash.
    pub target_tags: [[u64; TARGETS]; VIEWS],
    /// Host code of these targets.
    pub target_code: [[u64; TARGETS]; VIEWS],
}

/// State and [`Link`] in one place that does not move.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Frame {
    /// The architectural state.
    pub state: CpuState,
    /// The rest.
    pub link: Link,
}

/// The CPU's state, on the heap with its [`Link`]. Behaves as the [`CpuState`] in it.
#[derive(Debug)]
pub struct StateBox(Box<Frame>);

impl StateBox {
    /// The link beside the state.
    pub(crate) fn link(&mut self) -> &mut Link {
        &mut self.0.link
    }

    /// The whole frame.
    pub(crate) fn frame(&mut self) -> *mut Frame {
        &raw mut *self.0
    }
}

impl Default for StateBox {
    fn default() -> Self {
        let link = Link {
            page_va: 0,
            flags: 0,
            fuel: 0,
            end: 0,
            reason: 0,
            site: 0,
            va: 0,
            answer: 0,
            helper: 0,
            target: 0,
            scratch: [0; 3],
            cpu: std::ptr::null_mut(),
            host_mxcsr: 0x1f80,
            read_tags: [[0; WINDOW]; VIEWS],
            write_tags: [[0; WINDOW]; VIEWS],
            addends: [[0; WINDOW]; VIEWS],
            target_tags: [[0; TARGETS]; VIEWS],
            target_code: [[0; TARGETS]; VIEWS],
        };
        let mut new = Self(Box::new(Frame { state: CpuState::default(), link }));
        new.link().forget_pages();
        new.link().forget_targets();
        new
    }
}

impl Deref for StateBox {
    type Target = CpuState;
    #[inline(always)]
    fn deref(&self) -> &CpuState {
        &self.0.state
    }
}

impl DerefMut for StateBox {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut CpuState {
        &mut self.0.state
    }
}

/// The arithmetic flags of an RFLAGS image as LAHF and SETO leave them in AX.
pub const fn pack_flags(rflags: u64) -> u64 {
    (rflags & 0xd5) << 8 | rflags >> 11 & 1
}

/// The inverse of [`pack_flags`].
pub const fn unpack_flags(ax: u64) -> u64 {
    ax >> 8 & 0xd5 | (ax & 1) << 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::ARITH;

    #[test]
    fn flags_survive_packing() {
        for n in 0..4096u64 {
            let image = n & ARITH;
            assert_eq!(unpack_flags(pack_flags(image)), image);
        }
    }
}
