//! Instruction semantics, one file a class, and the choice of a handler for a decoded instruction.

mod alu;
mod bits;
mod bulk;
mod control;
mod exchange;
mod flagops;
mod int;
mod legacy;
mod mov;
mod muldiv;
mod operand;
mod shift;
mod sse;
mod stack;
mod string;
mod system;
mod x87;

pub use operand::base_op;

use crate::op::{ENDS_BLOCK, Op};
use crate::{Cpu, Trap};
use iced_x86::Instruction;

/// A class of instructions: gives the decoded form if the instruction belongs to it.
type Select = fn(&Instruction) -> Option<Op>;

/// Asked in this order.
const CLASSES: &[Select] = &[integer, sse::select, system::select, x87::select];

/// The integer classes, by how often they are met.
fn integer(ins: &Instruction) -> Option<Op> {
    mov::select(ins)
        .or_else(|| alu::select(ins))
        .or_else(|| control::select(ins))
        .or_else(|| stack::select(ins))
        .or_else(|| shift::select(ins))
        .or_else(|| flagops::select(ins))
        .or_else(|| bits::select(ins))
        .or_else(|| muldiv::select(ins))
        .or_else(|| exchange::select(ins))
        .or_else(|| string::select(ins))
        .or_else(|| legacy::select(ins))
}

/// The decoded form of an instruction; one that no class knows raises #UD and is counted.
pub fn select(ins: &Instruction) -> Op {
    CLASSES.iter().find_map(|class| class(ins)).unwrap_or_else(|| {
        let mut op = base_op(ins, undefined);
        op.aux = ins.code() as u16;
        op.flags |= ENDS_BLOCK;
        op
    })
}

fn undefined(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let name = iced_x86::Code::values()
        .nth(usize::from(op.aux))
        .map_or_else(|| "?".to_owned(), |code| format!("{code:?}"));
    *cpu.undefined.entry(name).or_default() += 1;
    Err(Trap::UD)
}
