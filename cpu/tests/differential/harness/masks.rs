//! What the manuals leave undefined, instruction by instruction. Nothing else is left out of the
//! comparison.

use super::case::Outcome;
use super::generate::Generated;
use iced_x86::{Mnemonic as M, OpKind};
use std::ops::Range;

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
/// #DB by single step: the instruction completed.
const SINGLE_STEP: u64 = 1;
/// Bits of the x87 status word.
const ES: u16 = 1 << 7;
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;
/// #XM.
const SIMD_ERROR: u64 = 19;
/// MXCSR: overflow, underflow and precision flag, overflow and underflow mask.
const OE: u32 = 1 << 3;
const UE: u32 = 1 << 4;
const PE: u32 = 1 << 5;
const OM: u32 = 1 << 10;
const UM: u32 = 1 << 11;
/// Two bytes of one operand are not farther apart: the longest has 512 bytes.
const IN_OPERAND: u64 = 511;
const ALL: u64 = CF | PF | AF | ZF | SF | OF;

/// What is not compared.
#[derive(Debug, Default)]
pub struct Masks {
    /// Flags.
    pub flags: u64,
    /// Condition bits of the x87 status word.
    pub status: u16,
    /// Bytes of memory, by linear address.
    pub memory: Vec<Range<u64>>,
    /// The destination holds no defined value.
    pub destination: bool,
    /// Flags of MXCSR.
    pub mxcsr: u32,
    /// How far CR2 may be off.
    pub cr2: u64,
    /// TOP and the tags of the x87, and with TOP the order of its registers.
    pub top: bool,
}

/// The count of a shift, masked as the processor does.
fn shift_count(g: &Generated, operand: u32) -> u64 {
    let ins = &g.instruction;
    let count = match ins.op_kind(operand) {
        OpKind::Register => g.case.before.gpr[1],
        _ => ins.immediate(operand),
    };
    count & if operand_bits(g) == 64 { 63 } else { 31 }
}

fn operand_bits(g: &Generated) -> u64 {
    let ins = &g.instruction;
    let bytes = match ins.op0_kind() {
        OpKind::Register => ins.op0_register().size(),
        _ => ins.memory_size().size(),
    };
    8 * bytes as u64
}

/// What the instruction alone decides. Sections are those of the SDM's volume 2 (the APM's volume 3 says the same unless
/// noted): "Flags Affected" of the named instruction.
fn masks(g: &Generated) -> Masks {
    let mut m = Masks::default();
    match g.instruction.mnemonic() {
        // "The state of the AF flag is undefined."
        M::And | M::Or | M::Xor | M::Test => m.flags = AF,
        // SHL/SHR: "the CF flag [...] is undefined for SHL and SHR instructions where the count is greater
        // than or equal to the size (in bits) of the destination operand. The OF flag is affected only for
        // 1-bit shifts; otherwise, it is undefined. [...] For a non-zero count, the AF flag is undefined."
        M::Shl | M::Sal | M::Shr | M::Sar => {
            let count = shift_count(g, 1);
            if count != 0 {
                m.flags = AF;
            }
            if count > 1 {
                m.flags |= OF;
            }
            if count >= operand_bits(g) && g.instruction.mnemonic() != M::Sar {
                m.flags |= CF;
            }
        }
        // "The OF flag is defined only for the 1-bit rotates; it is undefined in all other cases (except
        // [...] a zero-bit rotate does nothing)."
        M::Rol | M::Ror | M::Rcl | M::Rcr if shift_count(g, 1) > 1 => m.flags = OF,
        // "For shifts greater than 1 bit, the OF flag is undefined. If a shift occurs, the AF flag is
        // undefined. If the count operand is 0, the flags are not affected. If the count is greater than
        // the operand size, the flags are undefined" and so is the destination.
        M::Shld | M::Shrd => {
            let count = shift_count(g, 2);
            if count != 0 {
                m.flags = AF;
            }
            if count > 1 {
                m.flags |= OF;
            }
            if count > operand_bits(g) {
                m.flags = ALL;
                m.destination = true;
            }
        }
        // "The SF, ZF, AF, and PF flags are undefined."
        M::Mul | M::Imul => m.flags = SF | ZF | AF | PF,
        // "The CF, OF, SF, ZF, AF, and PF flags are undefined."
        M::Div | M::Idiv => m.flags = ALL,
        // "The CF, OF, SF, AF, and PF flags are undefined." With a source of 0 the SDM calls the
        // destination undefined; the APM leaves it unchanged, and so do all processors, so it is compared.
        M::Bsf | M::Bsr => m.flags = CF | OF | SF | AF | PF,
        // "The OF, SF, AF, and PF flags are undefined", ZF is unaffected.
        M::Bt | M::Btc | M::Btr | M::Bts => m.flags = OF | SF | AF | PF,
        // FOP, FIP, FCS, FDP, FDS (SDM volume 1, 8.1.8): processors differ in when they record them (only
        // with an unmasked exception: CPUID.7.0:EBX[6], and AMD's ES rule); MXCSR_MASK names the model.
        M::Fxsave | M::Fxsave64 => m.memory = vec![part(g, 6, 24), part(g, 28, 32)],
        // The same pointers.
        M::Fnstenv | M::Fnsave => {
            m.memory = vec![if g.instruction.memory_size().size() % 4 == 2 {
                part(g, 6, 14)
            } else {
                part(g, 12, 28)
            }];
        }
        _ => {}
    }
    m
}

/// The masks of a case whose instruction raised a fault or may have: what the outcome decides.
pub fn masks_of(g: &Generated, host: &Outcome) -> Masks {
    let mut m = masks(g);
    if host.vector != SINGLE_STEP {
        // Nothing that a faulting instruction left alone is undefined.
        m = Masks { memory: m.memory, ..Masks::default() };
    }
    let mxcsr = host.after.mxcsr();
    let unbounded = mxcsr & (UM | UE) == UE || mxcsr & (OM | OE) == OE;
    if host.vector == SIMD_ERROR && unbounded {
        // Not the manual's: a limit of our CPU. Behind an unmasked underflow or overflow PE says whether the
        // result would be inexact with an exponent without bounds; ours says it of the masked result.
        m.mxcsr = PE;
    }
    let raised = host.after.fx_word(2) & ES != 0 && g.case.before.fx_word(2) & ES == 0;
    match g.instruction.mnemonic() {
        // SDM volume 2, FFREE: "C0, C1, C2, C3 undefined."
        M::Ffree | M::Ffreep => m.status = C0 | C1 | C2 | C3,
        // The SDM sets C1 to 0, the APM leaves it as it was unless the stack faults.
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => {
            m.status = C1;
            if raised {
                m.flags = ALL;
            }
        }
        // SDM volume 2, FCOM: "If the exception is unmasked, the condition code flags are not set"; the APM
        // sets them.
        M::Fcom
        | M::Fcomp
        | M::Fcompp
        | M::Fucom
        | M::Fucomp
        | M::Fucompp
        | M::Ficom
        | M::Ficomp
        | M::Ftst
            if raised =>
        {
            m.status = C0 | C2 | C3;
        }
        // The SDM has the transition to MMX operation for every form, the APM not for memory operands. Where
        // these instructions fault neither says whether it has happened.
        M::Cvtpi2ps => m.top = memory_operand(g) || host.vector != SINGLE_STEP,
        M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi | M::Cvtpi2pd => {
            m.top = host.vector != SINGLE_STEP;
        }
        // An access in parts: which part comes first is left to the processor, CR2 shows a byte of it (SDM
        // volume 3, 4.7: "the linear address that caused the page fault").
        M::Maskmovq => {
            m.top = host.vector != SINGLE_STEP;
            m.cr2 = IN_OPERAND;
        }
        M::Maskmovdqu
        | M::Fnsave
        | M::Frstor
        | M::Fnstenv
        | M::Fldenv
        | M::Fxsave
        | M::Fxsave64
        | M::Fxrstor
        | M::Fxrstor64 => m.cr2 = IN_OPERAND,
        // Of two sources that both fault either may be reported.
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => m.cr2 = u64::MAX,
        _ => {}
    }
    m
}

fn memory_operand(g: &Generated) -> bool {
    g.instruction.op_kinds().any(|k| k == OpKind::Memory)
}

fn part(g: &Generated, from: u64, to: u64) -> Range<u64> {
    g.target.wrapping_add(from)..g.target.wrapping_add(to)
}
