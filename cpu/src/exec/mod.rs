//! Instruction semantics, one file a class, and the choice of a handler for a decoded instruction.

mod operand;

pub use operand::base_op;

use crate::op::{ENDS_BLOCK, Op};
use crate::{Cpu, Trap};
use iced_x86::Instruction;

/// A class of instructions: gives the decoded form if the instruction belongs to it.
type Select = fn(&Instruction) -> Option<Op>;

/// Asked in this order.
const CLASSES: &[Select] = &[];

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
