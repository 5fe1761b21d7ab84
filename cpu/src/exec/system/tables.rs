//! Descriptor tables and the task register: LGDT, LIDT, SGDT, SIDT, LLDT, SLDT, LTR, STR.

use super::{ending, privileged, read_word, with_operand, write_operand};
use crate::exec::operand::base_op;
use crate::mmu::is_canonical;
use crate::op::{EA_LEGACY, Exec, Op};
use crate::segment::{Descriptor, not_present, protection};
use crate::state::{Segment, Table};
use crate::{Cpu, Trap};
use iced_x86::{CodeSize, Instruction, Mnemonic};

const LDT: u8 = 2;
const TSS_AVAILABLE: u8 = 9;
const BUSY: u64 = 1 << 41;

/// Limit and base at the memory operand: 2 + 8 bytes in 64-bit mode, 2 + 4 (`aux`: 3 used) elsewhere.
fn load_table(cpu: &mut Cpu, op: &Op) -> Result<Table, Trap> {
    privileged(cpu)?;
    let va = cpu.ea(op)?;
    let limit = cpu.load(va)?;
    let base = if op.flags & EA_LEGACY == 0 {
        cpu.load(va.wrapping_add(2))?
    } else {
        u64::from(cpu.load::<u32>(va.wrapping_add(2))?) & u64::MAX >> (64 - u32::from(op.aux))
    };
    if is_canonical(base) { Ok(Table { base, limit }) } else { Err(Trap::GP0) }
}

fn store_table(cpu: &mut Cpu, op: &Op, table: Table) -> Result<(), Trap> {
    let va = cpu.ea(op)?;
    if op.flags & EA_LEGACY == 0 {
        cpu.probe_write(va, 10)?;
        cpu.store(va, table.limit)?;
        cpu.store(va.wrapping_add(2), table.base)
    } else {
        cpu.probe_write(va, 6)?;
        cpu.store(va, table.limit)?;
        cpu.store(va.wrapping_add(2), table.base as u32)
    }
}

fn lgdt(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.state.gdtr = load_table(cpu, op)?;
    Ok(())
}

fn lidt(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.state.idtr = load_table(cpu, op)?;
    Ok(())
}

fn sgdt(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    store_table(cpu, op, cpu.state.gdtr)
}

fn sidt(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    store_table(cpu, op, cpu.state.idtr)
}

/// A system descriptor of 16 bytes in the GDT, of the given type, present; with its address.
fn system_descriptor(cpu: &mut Cpu, selector: u16, kind: u8) -> Result<(u64, Segment), Trap> {
    let fault = protection(selector);
    if selector & 4 != 0 {
        return Err(fault);
    }
    let at = cpu.descriptor_address(selector, 16).ok_or(fault)?;
    let low = Descriptor(cpu.load_system(at)?);
    let high: u64 = cpu.load_system(at.wrapping_add(8))?;
    if !low.is_system() || low.kind() != kind || high >> 40 & 0x1f != 0 {
        return Err(fault);
    }
    if !low.is_present() {
        return Err(not_present(selector));
    }
    let mut segment = low.segment(selector);
    segment.base |= high << 32;
    if is_canonical(segment.base) { Ok((at, segment)) } else { Err(fault) }
}

fn lldt(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let selector = read_word(cpu, op)?;
    cpu.state.ldtr = if selector & !3 == 0 {
        Segment { selector, ..Segment::default() }
    } else {
        system_descriptor(cpu, selector, LDT)?.1
    };
    Ok(())
}

fn ltr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let selector = read_word(cpu, op)?;
    if selector & !3 == 0 {
        return Err(Trap::GP0);
    }
    let (at, mut segment) = system_descriptor(cpu, selector, TSS_AVAILABLE)?;
    let byte: u8 = cpu.load_system(at.wrapping_add(5))?;
    cpu.store_system(at.wrapping_add(5), byte | (BUSY >> 40) as u8)?;
    segment.attr |= (BUSY >> 40) as u16;
    cpu.state.tr = segment;
    Ok(())
}

fn sldt(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = cpu.state.ldtr.selector;
    write_operand(cpu, op, selector.into())
}

fn str(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = cpu.state.tr.selector;
    write_operand(cpu, op, selector.into())
}

fn table(ins: &Instruction, exec: Exec) -> Op {
    let mut op = ending(ins, exec);
    let code16 =
        matches!(ins.code(), iced_x86::Code::Lgdt_m1632_16 | iced_x86::Code::Lidt_m1632_16);
    op.aux = if code16 { 24 } else { 32 };
    op.size = if ins.code_size() == CodeSize::Code64 { 10 } else { 6 };
    op
}

/// The class.
pub(super) fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    Some(match ins.mnemonic() {
        M::Lgdt => table(ins, lgdt),
        M::Lidt => table(ins, lidt),
        M::Sgdt => table(ins, sgdt),
        M::Sidt => table(ins, sidt),
        M::Lldt => with_operand(ins, 0, ending(ins, lldt)),
        M::Ltr => with_operand(ins, 0, ending(ins, ltr)),
        M::Sldt => with_operand(ins, 0, base_op(ins, sldt)),
        M::Str => with_operand(ins, 0, base_op(ins, str)),
        _ => return None,
    })
}
