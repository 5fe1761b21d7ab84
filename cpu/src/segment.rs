//! Segment descriptors: reading them from the tables, checking them, loading segment registers
//! (Intel SDM volume 3, sections 3.4 and 5).

use crate::state::{CS, DS, ES, FS, GS, SS, Segment};
use crate::{Cpu, Trap};

/// A code, data or system descriptor (its low 8 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Type, 0 to 15.
    pub const fn kind(self) -> u8 {
        (self.0 >> 40) as u8 & 15
    }
    /// A system descriptor (S = 0).
    pub const fn is_system(self) -> bool {
        self.0 >> 44 & 1 == 0
    }
    /// A code segment.
    pub const fn is_code(self) -> bool {
        !self.is_system() && self.kind() & 8 != 0
    }
    /// A conforming code segment.
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }
    /// A data segment that may be written.
    pub const fn is_writable_data(self) -> bool {
        !self.is_system() && self.kind() & 10 == 2
    }
    /// Data, or code that may be read.
    pub const fn is_readable(self) -> bool {
        !self.is_system() && self.kind() & 10 != 8
    }
    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        (self.0 >> 45) as u8 & 3
    }
    /// P.
    pub const fn is_present(self) -> bool {
        self.0 >> 47 & 1 != 0
    }
    /// L: 64-bit code.
    pub const fn is_long(self) -> bool {
        self.0 >> 53 & 1 != 0
    }
    /// D/B.
    pub const fn is_big(self) -> bool {
        self.0 >> 54 & 1 != 0
    }
    /// Limit in bytes.
    pub const fn limit(self) -> u32 {
        let limit = (self.0 & 0xffff) as u32 | (self.0 >> 32) as u32 & 0xf_0000;
        if self.0 >> 55 & 1 != 0 { limit << 12 | 0xfff } else { limit }
    }
    /// Base, bits 0 to 31.
    pub const fn base(self) -> u64 {
        (self.0 >> 16) & 0xff_ffff | (self.0 >> 56) << 24
    }
    /// As a loaded segment register.
    pub const fn segment(self, selector: u16) -> Segment {
        Segment {
            base: self.base(),
            limit: self.limit(),
            selector,
            attr: (self.0 >> 40) as u16 & 0xf0ff,
        }
    }
}

/// #NP about a selector.
pub const fn not_present(selector: u16) -> Trap {
    Trap::with_code(11, selector as u32 & !3)
}

/// #GP about a selector.
pub const fn protection(selector: u16) -> Trap {
    Trap::gp(selector as u32 & !3)
}

impl Cpu {
    /// Linear address of a descriptor of `len` bytes, if it lies within its table.
    pub(crate) fn descriptor_address(&self, selector: u16, len: u64) -> Option<u64> {
        let at = u64::from(selector & !7);
        let (base, limit) = if selector & 4 == 0 {
            (self.state.gdtr.base, u64::from(self.state.gdtr.limit))
        } else if self.state.ldtr.attr & 0x80 != 0 {
            (self.state.ldtr.base, u64::from(self.state.ldtr.limit))
        } else {
            return None;
        };
        (at + len - 1 <= limit).then(|| base.wrapping_add(at))
    }

    /// Reads the descriptor that a selector names, with its address; `None` if it lies outside its table.
    pub(crate) fn read_descriptor(
        &mut self,
        selector: u16,
    ) -> Result<Option<(u64, Descriptor)>, Trap> {
        match self.descriptor_address(selector, 8) {
            Some(at) => Ok(Some((at, Descriptor(self.load_system(at)?)))),
            None => Ok(None),
        }
    }

    /// Sets the accessed bit of a code or data descriptor in memory, if it is clear.
    pub(crate) fn mark_accessed(
        &mut self,
        at: u64,
        descriptor: Descriptor,
    ) -> Result<Descriptor, Trap> {
        const ACCESSED: u64 = 1 << 40;
        let marked = Descriptor(descriptor.0 | ACCESSED);
        if marked != descriptor {
            self.store_system(at.wrapping_add(5), (marked.0 >> 40) as u8)?;
        }
        Ok(marked)
    }

    /// Loads ES, SS, DS, FS or GS as MOV does.
    pub(crate) fn load_segment(&mut self, seg: usize, selector: u16) -> Result<(), Trap> {
        let loaded = if seg == SS {
            self.stack_segment(selector, self.state.cpl, self.state.is_64bit())?
        } else {
            self.data_segment(selector)?
        };
        self.state.seg[seg] = loaded;
        Ok(())
    }

    fn data_segment(&mut self, selector: u16) -> Result<Segment, Trap> {
        if selector & !3 == 0 {
            return Ok(Segment { selector, ..Segment::default() });
        }
        let Some((at, d)) = self.read_descriptor(selector)? else {
            return Err(protection(selector));
        };
        let rpl = selector as u8 & 3;
        if !d.is_readable() || !d.is_conforming() && d.dpl() < rpl.max(self.state.cpl) {
            return Err(protection(selector));
        }
        if !d.is_present() {
            return Err(not_present(selector));
        }
        Ok(self.mark_accessed(at, d)?.segment(selector))
    }

    /// The stack segment for code at privilege `cpl`; null is fine for 64-bit code below CPL 3.
    pub(crate) fn stack_segment(
        &mut self,
        selector: u16,
        cpl: u8,
        long: bool,
    ) -> Result<Segment, Trap> {
        let rpl = selector as u8 & 3;
        if selector & !3 == 0 {
            if long && cpl < 3 && rpl == cpl {
                return Ok(Segment { selector, ..Segment::default() });
            }
            return Err(Trap::GP0);
        }
        let Some((at, d)) = self.read_descriptor(selector)? else {
            return Err(protection(selector));
        };
        if rpl != cpl || d.dpl() != cpl || !d.is_writable_data() {
            return Err(protection(selector));
        }
        if !d.is_present() {
            return Err(Trap::with_code(12, u32::from(selector & !3)));
        }
        Ok(self.mark_accessed(at, d)?.segment(selector))
    }

    /// The code segment that RETF or IRET returns to; its RPL is the new CPL.
    pub(crate) fn return_segment(&mut self, selector: u16) -> Result<Segment, Trap> {
        if selector & !3 == 0 {
            return Err(Trap::GP0);
        }
        let Some((at, d)) = self.read_descriptor(selector)? else {
            return Err(protection(selector));
        };
        let rpl = selector as u8 & 3;
        let privilege_fits = if d.is_conforming() { d.dpl() <= rpl } else { d.dpl() == rpl };
        if !d.is_code() || rpl < self.state.cpl || !privilege_fits || d.is_long() && d.is_big() {
            return Err(protection(selector));
        }
        if !d.is_present() {
            return Err(not_present(selector));
        }
        Ok(self.mark_accessed(at, d)?.segment(selector))
    }

    /// The code segment of a far JMP or CALL, from its descriptor; CPL stays.
    pub(crate) fn jump_segment(
        &mut self,
        selector: u16,
        at: u64,
        d: Descriptor,
    ) -> Result<Segment, Trap> {
        let cpl = self.state.cpl;
        let rpl = selector as u8 & 3;
        let privilege_fits =
            if d.is_conforming() { d.dpl() <= cpl } else { rpl <= cpl && d.dpl() == cpl };
        if !d.is_code() || !privilege_fits || d.is_long() && d.is_big() {
            return Err(protection(selector));
        }
        if !d.is_present() {
            return Err(not_present(selector));
        }
        Ok(self.mark_accessed(at, d)?.segment(selector & !3 | u16::from(cpl)))
    }

    /// After a return to an outer level: data segments that it may not use become null. The bases stay.
    pub(crate) fn drop_inner_segments(&mut self) {
        let cpl = self.state.cpl;
        for seg in [ES, DS, FS, GS] {
            let s = &mut self.state.seg[seg];
            let usable = s.attr & 0x80 != 0;
            let conforming_code = s.attr & 0x1c == 0x1c;
            if usable && !conforming_code && (s.attr >> 5) as u8 & 3 < cpl {
                s.selector = 0;
                s.attr = 0;
            }
        }
    }

    /// Loads CS; its RPL is the CPL from now on.
    pub(crate) fn set_code_segment(&mut self, segment: Segment) {
        self.state.seg[CS] = segment;
        self.state.cpl = segment.selector as u8 & 3;
        self.block_stop = true;
        self.update_mode();
    }
}
