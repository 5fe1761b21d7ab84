//! The page walk: 4-level paging with NX, WP, SMEP, SMAP, global and large pages, accessed and dirty
//! bits (Intel SDM volume 3, sections 4.5 to 4.8).

use crate::ram::PAGE;
use crate::state::{CR0_PG, CR0_WP, CR4_PGE, EFER_NXE};
use crate::tlb::{Access, R_S, R_SMAP, R_U, Tlb, TlbEntry, W_S, W_SMAP, W_U, X_S, X_U};
use crate::{Cpu, Trap};

/// Bits of a guest physical address, as CPUID leaf 0x8000_0008 says.
pub const PHYSICAL_BITS: u32 = 40;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & !(PAGE - 1);
/// Bits 40 to 51: above the physical address width, reserved.
const RESERVED: u64 = ((1 << 52) - 1) & !((1 << PHYSICAL_BITS) - 1);

/// Error code bits of #PF.
const CODE_PRESENT: u32 = 1;
const CODE_WRITE: u32 = 1 << 1;
const CODE_USER: u32 = 1 << 2;
const CODE_RESERVED: u32 = 1 << 3;
const CODE_FETCH: u32 = 1 << 4;

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

/// True if bits 47 to 63 of a linear address are equal.
#[inline(always)]
pub const fn is_canonical(va: u64) -> bool {
    ((va << 16) as i64 >> 16) as u64 == va
}

impl Cpu {
    /// Walks the page tables for `va`; sets accessed (and for writes dirty) bits; `need` is the one
    /// permission bit that the access needs (which also says as whom: user, supervisor, under SMAP).
    /// Non-canonical addresses raise #GP(0). A failed walk sets CR2 and raises #PF.
    ///
    /// The permissions found hold for every accessor under the present CR0.WP, CR4.SMEP and EFER.NXE;
    /// a change of those empties the TLB. Accessed and dirty bits change only if the access is allowed.
    pub(crate) fn page_walk(
        &mut self,
        va: u64,
        access: Access,
        need: u16,
    ) -> Result<Translation, Trap> {
        if self.state.cr0 & CR0_PG == 0 {
            let gpa = va & 0xffff_f000;
            return Ok(Translation { gpa, perms: 0xff, global: false, size_log2: 12 });
        }
        if !is_canonical(va) {
            return Err(Trap::GP0);
        }
        let reserved =
            if self.state.efer & EFER_NXE != 0 { RESERVED } else { RESERVED | NO_EXECUTE };
        let mut path = [(0, 0); 4];
        let mut used = 0;
        let mut table = self.state.cr3 & ADDRESS;
        let mut shift = 39;
        let mut all = USER | WRITABLE;
        let mut any = 0;
        loop {
            let at = table | ((va >> shift) & 0x1ff) << 3;
            let entry = self.read_table_entry(at);
            if entry & PRESENT == 0 {
                return Err(self.page_fault(va, access, need, 0));
            }
            let leaf = shift == 12 || entry & LARGE != 0;
            let must_be_zero = match shift {
                39 => reserved | LARGE,
                30 | 21 if leaf => reserved | ((1 << shift) - 1) & !0x1fff,
                _ => reserved,
            };
            if entry & must_be_zero != 0 {
                return Err(self.page_fault(va, access, need, CODE_PRESENT | CODE_RESERVED));
            }
            all &= entry;
            any |= entry;
            path[used] = (at, entry);
            used += 1;
            if leaf {
                break;
            }
            table = entry & ADDRESS;
            shift -= 9;
        }
        let mut perms = self.page_permissions(all, any & NO_EXECUTE != 0);
        if perms & need == 0 {
            return Err(self.page_fault(va, access, need, CODE_PRESENT));
        }
        for &(at, entry) in &path[..used - 1] {
            if entry & ACCESSED == 0 {
                self.write_table_entry(at, entry | ACCESSED);
            }
        }
        let (at, entry) = path[used - 1];
        let marked = if access == Access::Write { ACCESSED | DIRTY } else { ACCESSED } | entry;
        if marked != entry {
            self.write_table_entry(at, marked);
        }
        if marked & DIRTY == 0 {
            perms &= !(W_U | W_S | W_SMAP);
        }
        let inside = (1u64 << shift) - 1;
        Ok(Translation {
            gpa: entry & ADDRESS & !inside | va & inside & !(PAGE - 1),
            perms,
            global: entry & GLOBAL != 0 && self.state.cr4 & CR4_PGE != 0,
            size_log2: shift as u8,
        })
    }

    /// Who may do what with a page whose entries have the bits `all` in common (SDM 4.6), as if its
    /// dirty bit were set.
    fn page_permissions(&self, all: u64, no_execute: bool) -> u16 {
        let user = all & USER != 0;
        let writable = all & WRITABLE != 0;
        let mut perms = R_S;
        let supervisor_writes = writable || self.state.cr0 & CR0_WP == 0;
        if supervisor_writes {
            perms |= W_S;
        }
        if user {
            perms |= R_U;
            if writable {
                perms |= W_U;
            }
        } else {
            perms |= R_SMAP;
            if supervisor_writes {
                perms |= W_SMAP;
            }
        }
        if !no_execute {
            if user {
                perms |= X_U;
            }
            if !(user && self.smep()) {
                perms |= X_S;
            }
        }
        perms
    }

    /// Sets CR2 and makes the #PF; forgets translations of the page, as SDM 4.10.4.1 says.
    #[cold]
    fn page_fault(&mut self, va: u64, access: Access, need: u16, cause: u32) -> Trap {
        let mut code = cause;
        if access == Access::Write {
            code |= CODE_WRITE;
        }
        if need & (R_U | W_U | X_U) != 0 {
            code |= CODE_USER;
        }
        if access == Access::Fetch && (self.state.efer & EFER_NXE != 0 || self.smep()) {
            code |= CODE_FETCH;
        }
        self.state.cr2 = va;
        let page = va & !(PAGE - 1);
        let data = &mut self.tlb.data[Tlb::data_index(va)];
        if data.page == page {
            *data = TlbEntry::EMPTY;
            self.tlb.changes.page(va);
        }
        let fetch = &mut self.tlb.fetch[Tlb::fetch_index(va)];
        if fetch.page == page {
            *fetch = TlbEntry::EMPTY;
            self.tlb.changes.targets();
        }
        Trap::pf(code)
    }

    /// Reads a paging-structure entry. What is not RAM reads as all ones, which has reserved bits set.
    #[inline]
    fn read_table_entry(&self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        if self.ram.read(gpa, &mut bytes) { u64::from_le_bytes(bytes) } else { u64::MAX }
    }

    fn write_table_entry(&mut self, gpa: u64, entry: u64) {
        let page = self.ram.page_index(gpa).expect("the entry was read from RAM");
        self.ram.write_untracked(gpa, &entry.to_le_bytes());
        if self.ram.mark_dirty(page) {
            self.invalidate_code(page);
        }
    }
}
