//! MMX and SSE to SSE4.2, legacy encodings, with FXSAVE and FXRSTOR.
//!
//! Each group gives two handlers for a [`Code`]: one for register operands only, one with memory. Integer
//! results are the same on every host by definition; floating-point results come from the host's own
//! SSE2 unit under the guest's MXCSR (see [`host`]), where the architecture defines every bit. What it
//! leaves open (RCP, RSQRT) is computed by [`approx`].

#[macro_use]
mod forms;
mod approx;
mod convert;
mod float;
mod fxsave;
mod host;
mod integer;
mod lanes;
mod mmx;
mod moves;
mod shift;
mod shuffle;
mod sse3;
mod sse41;
mod strings;
#[cfg(test)]
mod tests;

use crate::op::{EA_ADDR16, EA_ADDR32, EA_LEGACY, Exec, Op};
use crate::state::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, FLAT, FS, GS, RDI};
use crate::{Cpu, Trap, Value};
use iced_x86::{Code, CodeSize, Instruction, OpKind};

use super::operand::{base_op, register_number, segment_number};

/// The handlers of one [`Code`]: operands in registers, and one operand in memory.
#[derive(Clone, Copy)]
struct Forms {
    rr: Exec,
    rm: Exec,
}

/// Asked in this order; what user code uses most comes first.
const GROUPS: &[fn(Code) -> Option<Forms>] = &[
    moves::forms,
    integer::forms,
    shuffle::forms,
    shift::forms,
    float::forms,
    convert::forms,
    sse41::forms,
    sse3::forms,
    strings::forms,
    fxsave::forms,
    mmx::forms,
];

/// The decoded form of an MMX or SSE instruction.
pub fn select(ins: &Instruction) -> Option<Op> {
    let code = ins.code();
    let forms = GROUPS.iter().find_map(|group| group(code))?;
    let memory = (0..ins.op_count()).any(|n| ins.op_kind(n) == OpKind::Memory);
    let mut op = base_op(ins, if memory { forms.rm } else { forms.rr });
    op.size = ins.memory_size().size().min(255) as u8;
    if ins.op_count() > 0 && ins.op_kind(0) == OpKind::Register {
        op.dst = register_number(ins.op_register(0));
    }
    if ins.op_count() > 1 && ins.op_kind(1) == OpKind::Register {
        op.src = register_number(ins.op_register(1));
    }
    let di = ins.op_count() == 3
        && matches!(
            ins.op_kind(0),
            OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI
        );
    if di {
        fill_masked_store(ins, &mut op);
    }
    Some(op)
}

/// MASKMOVQ and MASKMOVDQU write to DS:rDI, which iced does not report as a plain memory operand. The
/// value is the first register, the mask the second.
fn fill_masked_store(ins: &Instruction, op: &mut Op) {
    op.base = RDI as u8;
    op.dst = register_number(ins.op_register(1));
    op.src = register_number(ins.op_register(2));
    match ins.op_kind(0) {
        OpKind::MemorySegDI => op.flags |= EA_ADDR16,
        OpKind::MemorySegEDI => op.flags |= EA_ADDR32,
        _ => {}
    }
    let seg = segment_number(ins.memory_segment());
    if ins.code_size() != CodeSize::Code64 {
        op.flags |= EA_LEGACY;
        op.seg = seg as u8;
    } else {
        op.seg = if matches!(seg, FS | GS) { seg as u8 } else { FLAT as u8 };
    }
}

/// MXCSR: underflow masked.
const UNDERFLOW_MASK: u32 = 1 << 11;
/// MXCSR: the six exception masks.
const MASKS: u32 = 0x1f80;
/// MXCSR: the six sticky flags.
const FLAGS: u32 = 0x3f;
/// The exceptions that are found before anything is computed: invalid, denormal, divide by zero.
const BEFORE: u32 = 7;
/// Sticky flag of underflow.
const UNDERFLOW: u32 = 1 << 4;
/// Sticky flag of an inexact result.
const INEXACT: u32 = 1 << 5;
/// MXCSR: flush results that underflow to zero.
const FLUSH: u32 = 1 << 15;
/// MXCSR: denormal operands count as zero.
const DAZ: u32 = 1 << 6;
/// MXCSR bits that exist: also MXCSR_MASK of the FXSAVE image.
const MXCSR_MASK: u32 = 0xffff;

impl Cpu {
    /// SSE instructions may execute.
    #[inline(always)]
    fn sse_ready(&self) -> Result<(), Trap> {
        let s = &self.state;
        if s.cr0 & (CR0_EM | CR0_TS) | !s.cr4 & CR4_OSFXSR != 0 {
            return Err(self.sse_unavailable());
        }
        Ok(())
    }

    #[cold]
    fn sse_unavailable(&self) -> Trap {
        if self.state.cr0 & CR0_EM != 0 || self.state.cr4 & CR4_OSFXSR == 0 {
            Trap::UD
        } else {
            Trap::NM
        }
    }

    /// MMX instructions may execute: #UD, #NM, or the #MF of an x87 instruction before.
    #[inline(always)]
    fn mmx_ready(&self) -> Result<(), Trap> {
        if self.state.cr0 & CR0_EM != 0 {
            Err(Trap::UD)
        } else if self.state.cr0 & CR0_TS != 0 {
            Err(Trap::NM)
        } else if self.state.x87.status & 0x80 != 0 {
            Err(Trap::MF)
        } else {
            Ok(())
        }
    }

    /// What every MMX instruction does to the x87 state: TOP is 0 and all tags are valid.
    #[inline(always)]
    fn enter_mmx(&mut self) {
        self.state.x87.status &= !0x3800;
        self.state.x87.tags = 0xff;
    }

    /// Reads MMn.
    #[inline(always)]
    fn mm(&self, n: u8) -> u64 {
        self.state.x87.mantissa[n as usize & 7]
    }

    /// Writes MMn; sign and exponent of the x87 register become all ones.
    #[inline(always)]
    fn set_mm(&mut self, n: u8, value: u64) {
        self.state.x87.mantissa[n as usize & 7] = value;
        self.state.x87.sign_exponent[n as usize & 7] = 0xffff;
    }

    #[inline(always)]
    fn xmm(&self, n: u8) -> u128 {
        self.state.xmm[n as usize & 15]
    }

    #[inline(always)]
    fn set_xmm(&mut self, n: u8, value: u128) {
        self.state.xmm[n as usize & 15] = value;
    }

    /// Raises #GP(0) if the memory operand is not aligned to 16 bytes.
    #[inline(always)]
    fn aligned(&self, op: &Op) -> Result<(), Trap> {
        if self.ea(op)? & 15 != 0 { Err(Trap::GP0) } else { Ok(()) }
    }

    /// Reads a 16-byte operand that has to be aligned.
    #[inline(always)]
    fn load_aligned(&mut self, op: &Op) -> Result<u128, Trap> {
        self.aligned(op)?;
        self.load_op(op)
    }

    /// Reads an operand of any alignment, zero-extended.
    #[inline(always)]
    fn load_wide<T: Value>(&mut self, op: &Op) -> Result<u128, Trap> {
        Ok(self.load_op::<T>(op)?.to_wide())
    }

    /// Computes with the guest's rounding and flushing. `f` gets an MXCSR with all exceptions masked and
    /// no flags, gives its result and the flags. Flags are added to the guest's MXCSR; an exception that
    /// the guest has not masked is raised.
    #[inline(always)]
    fn float<R>(&mut self, f: impl Fn(u32) -> (R, u32)) -> Result<R, Trap> {
        let guest = self.state.mxcsr;
        if guest & MASKS != MASKS {
            return self.float_unmasked(f);
        }
        let (result, flags) = f(guest & !FLAGS);
        self.state.mxcsr = guest | flags & FLAGS;
        Ok(result)
    }

    /// [`Cpu::float`] when at least one exception is not masked.
    #[cold]
    fn float_unmasked<R>(&mut self, f: impl Fn(u32) -> (R, u32)) -> Result<R, Trap> {
        let guest = self.state.mxcsr;
        let mut control = guest & !FLAGS | MASKS;
        if guest & UNDERFLOW_MASK == 0 {
            // Flushing is only for masked underflow.
            control &= !FLUSH;
        }
        let (result, mut flags) = f(control);
        if guest & UNDERFLOW_MASK == 0 {
            // Unmasked, an exact tiny result underflows too. Flushing makes the host say so.
            flags |= f(control | FLUSH).1 & UNDERFLOW;
        }
        let open = !(guest >> 7) & FLAGS;
        if flags & open & BEFORE != 0 {
            flags &= BEFORE;
        }
        self.state.mxcsr = guest | flags & FLAGS;
        if flags & open != 0 {
            return Err(if self.state.cr4 & CR4_OSXMMEXCPT != 0 { Trap::XM } else { Trap::UD });
        }
        Ok(result)
    }
}
