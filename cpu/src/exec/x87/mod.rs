//! The x87 FPU with its 80-bit precision.
//!
//! [`ext`] is the number format, [`soft`] the correctly rounded operations of the SoftFloat library,
//! [`calc`] and [`trans`] the operations as the x87 defines them on values; the rest are the instructions.
//!
//! What the manuals leave to the implementation, and our CPU model's choice:
//! - The transcendental functions: see [`trans`].
//! - FIP is updated by every instruction but control instructions and FNOP, FDP by those of them that have a memory
//!   operand. FCS and FDS are 0 (deprecated), FOP changes only when it is loaded (as with the "fopcode
//!   compatibility mode" off, but for unmasked exceptions too).
//! - An unmasked exception is #MF at the next waiting instruction whatever CR0.NE says: there is no FERR#.
//! - FPREM and FPREM1 that cannot complete reduce the exponent by 32 to 63.
//! - FBLD takes nibbles above 9 as what they are.

mod arith;
mod calc;
mod compare;
mod control;
mod ext;
mod moves;
mod soft;
#[cfg(test)]
mod tests;
mod trans;
mod unit;

use super::operand::base_op;
use crate::op::{Exec, Op};
use iced_x86::{Code, Instruction, OpKind};

/// A handler and what it finds in the op.
#[derive(Clone, Copy)]
struct Form {
    exec: Exec,
    /// Which operation of the handler's.
    aux: u16,
    /// Registers popped.
    pops: u8,
    /// Format of the memory operand, if there is one that is a number.
    format: Format,
}

/// Formats of numbers in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Format {
    F32,
    F64,
    I16,
    I32,
    I64,
    Other,
}

impl Format {
    const fn of(op: &Op) -> Self {
        match op.src {
            0 => Self::F32,
            1 => Self::F64,
            2 => Self::I16,
            3 => Self::I32,
            4 => Self::I64,
            _ => Self::Other,
        }
    }
}

impl Form {
    const fn new(exec: Exec, aux: u16) -> Self {
        Self { exec, aux, pops: 0, format: Format::Other }
    }

    const fn pops(self, pops: u8) -> Self {
        Self { pops, ..self }
    }

    const fn format(self, format: Format) -> Self {
        Self { format, ..self }
    }
}

/// Asked in this order.
const GROUPS: &[fn(Code) -> Option<Form>] =
    &[moves::form, arith::form, compare::form, control::form];

/// The decoded form of an x87 instruction. `dst` and `src` are the register operands; `src` is the format if
/// the operand is in memory; `src2` the number of pops.
pub fn select(ins: &Instruction) -> Option<Op> {
    let code = ins.code();
    let form = GROUPS.iter().find_map(|group| group(code))?;
    let mut op = base_op(ins, form.exec);
    op.aux = form.aux;
    op.src2 = form.pops;
    for n in 0..ins.op_count().min(2) {
        match ins.op_kind(n) {
            OpKind::Memory => {
                op.size = ins.memory_size().size() as u8;
                op.src = form.format as u8;
            }
            OpKind::Register if ins.op_register(n).is_st() => {
                let number = ins.op_register(n).number() as u8;
                if n == 0 {
                    op.dst = number;
                } else {
                    op.src = number;
                }
            }
            _ => {}
        }
    }
    Some(op)
}
