//! The register stack, the status word and the pointers.

use super::calc::{Control, Res};
use super::ext::{Ext, IE, SF};
use crate::op::Op;
use crate::state::{CR0_EM, CR0_TS};
use crate::{Cpu, Trap};

/// Condition code C0 in the status word.
pub const C0: u16 = 1 << 8;
/// C1.
pub const C1: u16 = 1 << 9;
/// C2.
pub const C2: u16 = 1 << 10;
/// C3.
pub const C3: u16 = 1 << 14;
/// ES and B: an unmasked exception is pending.
pub const PENDING: u16 = 0x8080;
/// The exceptions that are found before a result is computed: it is not stored if one is unmasked.
const BEFORE: u16 = 7;
/// Bits of the control word that software can set; bit 6 is always set.
const CONTROL_BITS: u16 = 0x1f3f;

impl Cpu {
    /// #NM: what every x87 instruction but WAIT checks.
    #[inline(always)]
    pub(super) fn x87_available(&self) -> Result<(), Trap> {
        if self.state.cr0 & (CR0_EM | CR0_TS) != 0 { Err(Trap::NM) } else { Ok(()) }
    }

    /// #NM and the #MF of an instruction before: what waiting instructions check.
    #[inline(always)]
    pub(super) fn x87_wait(&self) -> Result<(), Trap> {
        if self.state.cr0 & (CR0_EM | CR0_TS) != 0 {
            Err(Trap::NM)
        } else if self.state.x87.status & 0x80 != 0 {
            Err(Trap::MF)
        } else {
            Ok(())
        }
    }

    /// Records a non-control instruction.
    #[inline(always)]
    pub(super) fn x87_record(&mut self, op: &Op) {
        self.state.x87.ip = self.state.rip().wrapping_sub(u64::from(op.len));
        self.state.x87.cs = 0;
    }

    /// Records a non-control instruction without memory operand and clears C1.
    #[inline(always)]
    pub(super) fn x87_begin(&mut self, op: &Op) {
        self.x87_record(op);
        self.state.x87.status &= !C1;
    }

    /// Records a non-control instruction with its operand's offset and clears C1.
    #[inline(always)]
    pub(super) fn x87_begin_memory(&mut self, op: &Op, offset: u64) {
        self.x87_begin(op);
        self.state.x87.dp = offset;
        self.state.x87.ds = 0;
    }

    /// The control word.
    #[inline(always)]
    pub(super) fn x87_control(&self) -> Control {
        Control(self.state.x87.control)
    }

    /// Number of the physical register of ST(i).
    #[inline(always)]
    fn physical(&self, i: u8) -> usize {
        (i as usize + (self.state.x87.status as usize >> 11)) & 7
    }

    /// The value in ST(i), empty or not.
    #[inline(always)]
    pub(super) fn st(&self, i: u8) -> Ext {
        let r = self.physical(i);
        Ext { sig: self.state.x87.mantissa[r], se: self.state.x87.sign_exponent[r] }
    }

    /// True if ST(i) is empty; -1 (as 7) is the register that a push fills.
    #[inline(always)]
    pub(super) fn st_empty(&self, i: u8) -> bool {
        self.state.x87.tags >> self.physical(i) & 1 == 0
    }

    /// Writes ST(i).
    #[inline(always)]
    pub(super) fn set_st(&mut self, i: u8, value: Ext) {
        let r = self.physical(i);
        self.state.x87.mantissa[r] = value.sig;
        self.state.x87.sign_exponent[r] = value.se;
        self.state.x87.tags |= 1 << r;
    }

    /// Marks ST(i) empty.
    #[inline(always)]
    pub(super) fn free_st(&mut self, i: u8) {
        self.state.x87.tags &= !(1 << self.physical(i));
    }

    /// Moves TOP by one up (pop) or, with 7, down (push).
    #[inline(always)]
    pub(super) fn turn(&mut self, by: u16) {
        let status = self.state.x87.status;
        self.state.x87.status = status & !0x3800 | status.wrapping_add(by << 11) & 0x3800;
    }

    #[inline(always)]
    pub(super) fn pop(&mut self, times: u8) {
        for _ in 0..times {
            self.free_st(0);
            self.turn(1);
        }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: Ext) {
        self.turn(7);
        self.set_st(0, value);
    }

    /// Sets or clears C1.
    #[inline(always)]
    pub(super) fn set_c1(&mut self, set: bool) {
        self.set_conditions(C1, if set { C1 } else { 0 });
    }

    /// Sets the condition codes of `mask`.
    #[inline(always)]
    pub(super) fn set_conditions(&mut self, mask: u16, to: u16) {
        self.state.x87.status = self.state.x87.status & !mask | to & mask;
    }

    /// Raises exceptions. False if an unmasked one forbids to store the result (and those behind it in priority
    /// have not happened).
    #[inline(always)]
    pub(super) fn x87_raise(&mut self, flags: u16) -> bool {
        if flags == 0 {
            return true;
        }
        let control = self.x87_control();
        let stop = control.unmasked(flags & BEFORE) != 0;
        let flags = if stop { flags & (BEFORE | SF) } else { flags };
        self.state.x87.status |= flags;
        if control.unmasked(flags) != 0 {
            self.state.x87.status |= PENDING;
        }
        !stop
    }

    /// A stack fault. True if the masked response is to follow.
    #[cold]
    pub(super) fn stack_fault(&mut self, overflow: bool) -> bool {
        self.set_c1(overflow);
        self.x87_raise(IE | SF)
    }

    /// Raises what a result raises and sets C1. True if it is to be stored.
    #[inline(always)]
    pub(super) fn accept(&mut self, res: Res) -> bool {
        let store = self.x87_raise(res.flags);
        if store && res.up {
            self.state.x87.status |= C1;
        }
        store
    }

    /// [`Cpu::accept`], and stores in ST(i).
    #[inline(always)]
    pub(super) fn finish(&mut self, i: u8, res: Res) -> bool {
        let store = self.accept(res);
        if store {
            self.set_st(i, res.value);
        }
        store
    }

    /// Makes the pending bits follow from flags and masks.
    pub(super) fn update_pending(&mut self) {
        let x87 = &mut self.state.x87;
        if x87.status & !x87.control & 0x3f != 0 {
            x87.status |= PENDING;
        } else {
            x87.status &= !PENDING;
        }
    }

    /// Loads the control word.
    pub(super) fn set_x87_control(&mut self, value: u16) {
        self.state.x87.control = value & CONTROL_BITS | 0x40;
        self.update_pending();
    }
}
