//! System instructions: privileged state, segments, far control flow, interrupts, I/O.

mod control;
mod far;
mod fast;
mod io;
mod selectors;
mod tables;

use super::int::Int;
use super::operand::{base_op, register_number};
use crate::op::{ENDS_BLOCK, Exec, Op};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, OpKind};

/// In `Op::aux`: the general operand is in memory, not in a register.
const IN_MEMORY: u16 = 0x100;

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    control::select(ins)
        .or_else(|| selectors::select(ins))
        .or_else(|| tables::select(ins))
        .or_else(|| far::select(ins))
        .or_else(|| fast::select(ins))
        .or_else(|| io::select(ins))
}

/// An op that ends its block.
fn ending(ins: &Instruction, exec: Exec) -> Op {
    let mut op = base_op(ins, exec);
    op.flags |= ENDS_BLOCK;
    op
}

/// An op with operand `n` as its general operand: the register in `dst` or [`IN_MEMORY`], and its size
/// (of the register, which selectors are extended to; 2 in memory).
fn with_operand(ins: &Instruction, n: u32, mut op: Op) -> Op {
    if ins.op_kind(n) == OpKind::Memory {
        op.aux |= IN_MEMORY;
        op.size = 2;
    } else {
        let register = ins.op_register(n);
        op.dst = register_number(register);
        op.size = register.size() as u8;
    }
    op
}

/// Reads a register of 2, 4 or 8 bytes, zero-extended.
fn get_register(cpu: &Cpu, reg: u8, size: u8) -> u64 {
    match size {
        2 => u16::get(&cpu.state, reg).u(),
        4 => u32::get(&cpu.state, reg).u(),
        _ => u64::get(&cpu.state, reg),
    }
}

/// Writes a register of 1, 2, 4 or 8 bytes as MOV does.
fn set_register(cpu: &mut Cpu, reg: u8, size: u8, value: u64) {
    match size {
        1 => u8::set(&mut cpu.state, reg, value as u8),
        2 => u16::set(&mut cpu.state, reg, value as u16),
        4 => u32::set(&mut cpu.state, reg, value as u32),
        _ => u64::set(&mut cpu.state, reg, value),
    }
}

/// The 16-bit general operand.
fn read_word(cpu: &mut Cpu, op: &Op) -> Result<u16, Trap> {
    if op.aux & IN_MEMORY != 0 { cpu.load_op(op) } else { Ok(u16::get(&cpu.state, op.dst)) }
}

/// Writes the general operand: 2 bytes in memory, the whole register otherwise.
fn write_operand(cpu: &mut Cpu, op: &Op, value: u64) -> Result<(), Trap> {
    if op.aux & IN_MEMORY != 0 {
        return cpu.store_op(op, value as u16);
    }
    set_register(cpu, op.dst, op.size, value);
    Ok(())
}

/// #GP(0) outside CPL 0.
#[inline(always)]
fn privileged(cpu: &Cpu) -> Result<(), Trap> {
    if cpu.state.cpl == 0 { Ok(()) } else { Err(Trap::GP0) }
}

/// EFLAGS.IOPL.
fn iopl(cpu: &Cpu) -> u8 {
    (cpu.state.flags.other >> 12) as u8 & 3
}
