//! Linear memory accesses of the guest: the TLB's fast path, and what lies behind it.
#![allow(unsafe_code)]
// Reason: the fast path reads and writes guest memory through host addresses in the TLB. Obligation: an
// entry's `host` comes from `GuestRam::host_addr` for that page and the access stays inside the page, so
// the address lies in the mapping, which `self.ram` keeps alive.

use crate::mmu::is_canonical;
use crate::op::{EA_ADDR16, EA_ADDR32, EA_LEGACY, Op};
use crate::ram::PAGE;
use crate::state::{CS, SS, ZERO};
use crate::tlb::{Access, QUIET, Tlb, TlbEntry};
use crate::{Cpu, Trap};

/// A plain little-endian value of 1 to 16 bytes.
pub trait Value: Copy + 'static {
    /// Bytes.
    const SIZE: usize;
    /// From up to 16 bytes, the low ones used.
    fn from_wide(value: u128) -> Self;
    /// To 16 bytes, zero-extended.
    fn to_wide(self) -> u128;
}

macro_rules! values {
    ($($t:ty),*) => {$(
        impl Value for $t {
            const SIZE: usize = size_of::<$t>();
            #[inline(always)]
            fn from_wide(value: u128) -> Self { value as $t }
            #[inline(always)]
            fn to_wide(self) -> u128 { self as u128 }
        }
    )*};
}
values!(u8, u16, u32, u64, u128);

const OFFSET: u64 = PAGE - 1;

impl Cpu {
    /// Linear address of the instruction's memory operand.
    #[inline(always)]
    pub fn ea(&self, op: &Op) -> Result<u64, Trap> {
        let r = &self.state.regs;
        let a = r[op.base as usize & 31]
            .wrapping_add(r[op.index as usize & 31] << op.scale)
            .wrapping_add(op.disp);
        if op.flags & (EA_ADDR32 | EA_ADDR16 | EA_LEGACY) != 0 {
            return self.ea_slow(op, a);
        }
        Ok(a.wrapping_add(self.state.seg[op.seg as usize].base))
    }

    /// The effective address alone, as LEA gives it (no segment), before truncation to operand size.
    #[inline(always)]
    pub fn ea_offset(&self, op: &Op) -> u64 {
        let r = &self.state.regs;
        let a = r[op.base as usize & 31]
            .wrapping_add(r[op.index as usize & 31] << op.scale)
            .wrapping_add(op.disp);
        Self::truncate_address(op, a)
    }

    const fn truncate_address(op: &Op, a: u64) -> u64 {
        if op.flags & EA_ADDR16 != 0 {
            a as u16 as u64
        } else if op.flags & EA_ADDR32 != 0 {
            a as u32 as u64
        } else {
            a
        }
    }

    #[cold]
    fn ea_slow(&self, op: &Op, a: u64) -> Result<u64, Trap> {
        let a = Self::truncate_address(op, a);
        self.linear(op.seg as usize, a, op.flags & EA_LEGACY != 0, u64::from(op.size.max(1)))
    }

    /// Linear address of `offset` in a segment. Outside 64-bit mode (`legacy`) the segment has to be
    /// usable and to hold `size` bytes there.
    pub fn linear(&self, seg: usize, offset: u64, legacy: bool, size: u64) -> Result<u64, Trap> {
        let s = &self.state.seg[seg];
        if !legacy {
            return Ok(s.base.wrapping_add(offset));
        }
        let fault = if seg == SS { Trap::SS0 } else { Trap::GP0 };
        if s.attr & 0x80 == 0 {
            return Err(fault);
        }
        let last = offset + size - 1;
        let expand_down = s.attr & 0x1c == 0x14;
        let inside = if expand_down {
            let top = if s.attr & (1 << 14) != 0 { u64::from(u32::MAX) } else { 0xffff };
            offset > u64::from(s.limit) && last <= top
        } else {
            last <= u64::from(s.limit)
        };
        if inside { Ok(u64::from((s.base as u32).wrapping_add(offset as u32))) } else { Err(fault) }
    }

    /// Reads a value at a linear address with the current privilege.
    #[inline(always)]
    pub fn load<T: Value>(&mut self, va: u64) -> Result<T, Trap> {
        let e = &self.tlb.data[Tlb::data_index(va)];
        if e.page == va & !OFFSET
            && e.perms & self.read_need != 0
            && e.host != 0
            && va & OFFSET <= PAGE - T::SIZE as u64
        {
            let p = (e.host + (va & OFFSET) as usize) as *const T;
            // SAFETY: see the module's head; `Value` types take any bit pattern.
            return Ok(unsafe { p.read_unaligned() });
        }
        self.load_slow(va, self.read_need)
    }

    /// Writes a value at a linear address with the current privilege.
    #[inline(always)]
    pub fn store<T: Value>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        let e = &self.tlb.data[Tlb::data_index(va)];
        let need = self.write_need | QUIET;
        if e.page == va & !OFFSET && e.perms & need == need && va & OFFSET <= PAGE - T::SIZE as u64
        {
            let p = (e.host + (va & OFFSET) as usize) as *mut T;
            // SAFETY: see the module's head; QUIET is only set on entries with a host address.
            unsafe { p.write_unaligned(value) };
            return Ok(());
        }
        self.store_slow(va, value)
    }

    /// Reads a value that the instruction is going to write back: faults as a write does.
    #[inline(always)]
    pub fn load_for_update<T: Value>(&mut self, va: u64) -> Result<T, Trap> {
        let e = &self.tlb.data[Tlb::data_index(va)];
        if e.page == va & !OFFSET
            && e.perms & self.write_need != 0
            && e.host != 0
            && va & OFFSET <= PAGE - T::SIZE as u64
        {
            let p = (e.host + (va & OFFSET) as usize) as *const T;
            // SAFETY: see the module's head.
            return Ok(unsafe { p.read_unaligned() });
        }
        self.probe_write(va, T::SIZE as u64)?;
        self.load_slow(va, self.write_need)
    }

    /// Reads as the supervisor does implicitly (descriptor tables, TSS), whatever the CPL; EFLAGS.AC
    /// does not lift SMAP here.
    pub fn load_system<T: Value>(&mut self, va: u64) -> Result<T, Trap> {
        let need = self.system_read_need();
        self.load_slow(va, need)
    }

    /// Writes as the supervisor does implicitly.
    pub fn store_system<T: Value>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        let saved = self.write_need;
        self.write_need = self.system_write_need();
        let done = self.store_slow(va, value);
        self.write_need = saved;
        done
    }

    /// Raises what a write of `len` (at most a page) bytes at `va` would raise; writes nothing.
    pub fn probe_write(&mut self, va: u64, len: u64) -> Result<(), Trap> {
        self.data_entry(va, Access::Write, self.write_need)?;
        let last = va.wrapping_add(len - 1);
        if (va ^ last) & !OFFSET != 0 {
            self.data_entry(last & !OFFSET, Access::Write, self.write_need)?;
        }
        Ok(())
    }

    /// Raises what a read of `len` (at most a page) bytes at `va` would raise.
    pub fn probe_read(&mut self, va: u64, len: u64) -> Result<(), Trap> {
        self.data_entry(va, Access::Read, self.read_need)?;
        let last = va.wrapping_add(len - 1);
        if (va ^ last) & !OFFSET != 0 {
            self.data_entry(last & !OFFSET, Access::Read, self.read_need)?;
        }
        Ok(())
    }

    /// The TLB entry for an access at `va`, filled by a page walk if it is not there.
    pub(crate) fn data_entry(
        &mut self,
        va: u64,
        access: Access,
        need: u16,
    ) -> Result<TlbEntry, Trap> {
        let i = Tlb::data_index(va);
        let e = self.tlb.data[i];
        if e.page == va & !OFFSET && e.perms & need != 0 {
            return Ok(e);
        }
        let t = self.page_walk(va, access, need)?;
        let host = self.ram.host_addr(t.gpa).map_or(0, |p| p as usize);
        let mut perms = t.perms;
        if let Some(page) = self.ram.page_index(t.gpa)
            && self.ram.quiet_for_stores(page)
        {
            perms |= QUIET;
        }
        let entry = TlbEntry {
            page: va & !OFFSET,
            host,
            gpa: t.gpa,
            perms,
            global: t.global,
            size_log2: t.size_log2,
        };
        if t.size_log2 > 12 {
            self.tlb.note_large();
        }
        if e.page != TlbEntry::INVALID {
            self.tlb.changes.page(e.page);
        }
        self.tlb.data[i] = entry;
        Ok(entry)
    }

    #[cold]
    #[inline(never)]
    fn load_slow<T: Value>(&mut self, va: u64, need: u16) -> Result<T, Trap> {
        let access = if need & self.write_need != 0 { Access::Write } else { Access::Read };
        ends_canonical(va, T::SIZE)?;
        let first = self.data_entry(va, access, need)?;
        let in_page = (PAGE - (va & OFFSET)) as usize;
        if in_page >= T::SIZE {
            return Ok(T::from_wide(self.read_part(&first, va, T::SIZE)));
        }
        let second = self.data_entry(va.wrapping_add(in_page as u64), access, need)?;
        let low = self.read_part(&first, va, in_page);
        let high = self.read_part(&second, va.wrapping_add(in_page as u64), T::SIZE - in_page);
        Ok(T::from_wide(low | high << (8 * in_page)))
    }

    #[cold]
    #[inline(never)]
    fn store_slow<T: Value>(&mut self, va: u64, value: T) -> Result<(), Trap> {
        ends_canonical(va, T::SIZE)?;
        let first = self.data_entry(va, Access::Write, self.write_need)?;
        let in_page = (PAGE - (va & OFFSET)) as usize;
        let wide = value.to_wide();
        if in_page >= T::SIZE {
            self.write_part(&first, va, T::SIZE, wide);
            return Ok(());
        }
        let next = va.wrapping_add(in_page as u64);
        let second = self.data_entry(next, Access::Write, self.write_need)?;
        self.write_part(&first, va, in_page, wide);
        self.write_part(&second, next, T::SIZE - in_page, wide >> (8 * in_page));
        Ok(())
    }

    fn read_part(&mut self, e: &TlbEntry, va: u64, len: usize) -> u128 {
        let off = va & OFFSET;
        let mut bytes = [0u8; 16];
        if e.host != 0 {
            let p = (e.host + off as usize) as *const u8;
            // SAFETY: `len` bytes from `off` stay inside the entry's page.
            unsafe { std::ptr::copy_nonoverlapping(p, bytes.as_mut_ptr(), len) };
        } else {
            for (at, n) in pieces(off, len) {
                let v = self.bus_read(e.gpa + off + at as u64, n as u8);
                bytes[at..at + n].copy_from_slice(&v.to_le_bytes()[..n]);
            }
        }
        u128::from_le_bytes(bytes)
    }

    fn write_part(&mut self, e: &TlbEntry, va: u64, len: usize, value: u128) {
        let off = va & OFFSET;
        let bytes = value.to_le_bytes();
        if e.host != 0 {
            let p = (e.host + off as usize) as *mut u8;
            // SAFETY: `len` bytes from `off` stay inside the entry's page.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, len) };
            self.stored_to(e);
        } else {
            for (at, n) in pieces(off, len) {
                let mut v = [0; 8];
                v[..n].copy_from_slice(&bytes[at..at + n]);
                self.bus_write(e.gpa + off + at as u64, n as u8, u64::from_le_bytes(v));
            }
        }
    }

    /// Book-keeping after a store to RAM by the slow path.
    pub(crate) fn stored_to(&mut self, e: &TlbEntry) {
        let page = self.ram.page_index(e.gpa).expect("an entry with a host address is RAM");
        if self.ram.mark_dirty(page) {
            self.invalidate_code(page);
        }
        let entry = &mut self.tlb.data[Tlb::data_index(e.page)];
        if entry.page == e.page && entry.gpa == e.gpa {
            entry.perms |= QUIET;
        }
    }

    /// Host address of `len` bytes at `va` if they lie in one page of RAM that may be read now; for
    /// string instructions in bulk. Raises the fault of a read at `va` otherwise.
    pub(crate) fn bulk_read(&mut self, va: u64) -> Result<Option<*const u8>, Trap> {
        let e = self.data_entry(va, Access::Read, self.read_need)?;
        Ok((e.host != 0).then_some((e.host + (va & OFFSET) as usize) as *const u8))
    }

    /// Likewise for writing; the page counts as written.
    pub(crate) fn bulk_write(&mut self, va: u64) -> Result<Option<*mut u8>, Trap> {
        let e = self.data_entry(va, Access::Write, self.write_need)?;
        if e.host == 0 {
            return Ok(None);
        }
        if e.perms & QUIET == 0 {
            self.stored_to(&e);
        }
        Ok(Some((e.host + (va & OFFSET) as usize) as *mut u8))
    }

    /// Reads an operand at the instruction's memory operand. Non-canonical stack addresses raise #SS.
    #[inline(always)]
    pub fn load_op<T: Value>(&mut self, op: &Op) -> Result<T, Trap> {
        let va = self.ea(op)?;
        self.load(va).map_err(|t| stack_fault(op, t))
    }

    /// Writes to the instruction's memory operand.
    #[inline(always)]
    pub fn store_op<T: Value>(&mut self, op: &Op, value: T) -> Result<(), Trap> {
        let va = self.ea(op)?;
        self.store(va, value).map_err(|t| stack_fault(op, t))
    }

    /// Reads the memory operand for a read-modify-write; gives the address for the store.
    #[inline(always)]
    pub fn load_op_for_update<T: Value>(&mut self, op: &Op) -> Result<(u64, T), Trap> {
        let va = self.ea(op)?;
        let value = self.load_for_update(va).map_err(|t| stack_fault(op, t))?;
        Ok((va, value))
    }

    /// True outside 64-bit mode.
    #[inline(always)]
    pub fn legacy_mode(&self) -> bool {
        self.state.seg[CS].attr & (1 << 13) == 0
    }
}

/// An access that ends outside the canonical addresses raises #GP before its first page is looked at.
const fn ends_canonical(va: u64, size: usize) -> Result<(), Trap> {
    if is_canonical(va.wrapping_add(size as u64 - 1)) { Ok(()) } else { Err(Trap::GP0) }
}

#[cold]
fn stack_fault(op: &Op, trap: Trap) -> Trap {
    if op.stack && trap == Trap::GP0 { Trap::SS0 } else { trap }
}

/// Splits an access to device memory into naturally aligned pieces of at most 8 bytes: (offset, size).
fn pieces(start: u64, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let mut n = 8;
        while n > len - at || !(start as usize + at).is_multiple_of(n) {
            n /= 2;
        }
        at += n;
        Some((at - n, n))
    })
}

const _: () = assert!(ZERO < 32, "register numbers are masked to 5 bits in `ea`");
