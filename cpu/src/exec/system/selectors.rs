//! Segment registers: MOV, POP, LDS to LSS; what a selector leads to: LAR, LSL, VERR, VERW, ARPL.

use super::{IN_MEMORY, ending, read_word, set_register, with_operand, write_operand};
use crate::exec::operand::{base_op, register_number, segment_number};
use crate::exec::stack::{Legacy, Long, Mode, pop_at};
use crate::flags::ZF;
use crate::op::{ENDS_BLOCK, Exec, Op};
use crate::segment::Descriptor;
use crate::state::{CS, DS, ES, FS, GS, SS};
use crate::{Cpu, Trap};
use iced_x86::{CodeSize, Instruction, Mnemonic, OpKind, Register};

fn mov_from_segment(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = cpu.state.seg[usize::from(op.src2)].selector;
    write_operand(cpu, op, selector.into())
}

/// A load of SS holds interrupts and the single-step trap off for one instruction.
fn load(cpu: &mut Cpu, seg: u8, selector: u16) -> Result<(), Trap> {
    cpu.load_segment(seg.into(), selector)?;
    if usize::from(seg) == SS {
        cpu.state.shadow = true;
        cpu.step = false;
    }
    Ok(())
}

fn mov_to_segment(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if usize::from(op.src2) == CS {
        return Err(Trap::UD);
    }
    let selector = read_word(cpu, op)?;
    load(cpu, op.src2, selector)
}

/// POP: `size` bytes leave the stack, the low 16 bits are the selector.
fn pop_segment<M: Mode>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let sp = M::sp(cpu);
    let selector: u16 = pop_at::<M, u16>(cpu, sp)?;
    load(cpu, op.src2, selector)?;
    M::set_sp(cpu, sp.wrapping_add(op.size.into()));
    Ok(())
}

/// LDS, LES, LFS, LGS, LSS: offset of `size` bytes, then the selector.
fn load_far_pointer(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (offset, selector) = super::far::read_pointer(cpu, op)?;
    cpu.load_segment(op.src2.into(), selector)?;
    set_register(cpu, op.dst, op.size, offset);
    Ok(())
}

/// A descriptor of a type that `system` accepts (for system descriptors) and that may be seen from here.
fn visible(
    cpu: &mut Cpu,
    selector: u16,
    system: fn(u8) -> bool,
) -> Result<Option<Descriptor>, Trap> {
    if selector & !3 == 0 {
        return Ok(None);
    }
    let Some((_, d)) = cpu.read_descriptor(selector)? else { return Ok(None) };
    let privilege = cpu.state.cpl.max(selector as u8 & 3);
    let kind_fits = if d.is_system() { system(d.kind()) } else { true };
    Ok((kind_fits && (d.is_conforming() || d.dpl() >= privilege)).then_some(d))
}

fn set_zf(cpu: &mut Cpu, zf: bool) {
    cpu.state.flags.set_some(ZF, if zf { ZF } else { 0 });
}

/// LAR: LDT, TSS and 64-bit call gates are the system types that count in long mode.
fn lar(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = read_word(cpu, op)?;
    let found = visible(cpu, selector, |kind| matches!(kind, 2 | 9 | 11 | 12))?;
    if let Some(d) = found {
        set_register(cpu, op.src, op.src2, d.0 >> 32 & 0x00ff_ff00);
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

fn lsl(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = read_word(cpu, op)?;
    let found = visible(cpu, selector, |kind| matches!(kind, 2 | 9 | 11))?;
    if let Some(d) = found {
        set_register(cpu, op.src, op.src2, d.limit().into());
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

fn verr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = read_word(cpu, op)?;
    let found = visible(cpu, selector, |_| false)?;
    set_zf(cpu, found.is_some_and(Descriptor::is_readable));
    Ok(())
}

fn verw(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = read_word(cpu, op)?;
    let found = visible(cpu, selector, |_| false)?;
    set_zf(cpu, found.is_some_and(Descriptor::is_writable_data));
    Ok(())
}

/// ARPL (not in 64-bit mode): raises the RPL of the destination to that of the register `src`.
fn arpl(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let rpl = cpu.state.regs[usize::from(op.src)] as u16 & 3;
    let old = if op.aux & IN_MEMORY != 0 {
        cpu.load_op_for_update::<u16>(op)?.1
    } else {
        read_word(cpu, op)?
    };
    let raise = old & 3 < rpl;
    if raise {
        write_operand(cpu, op, u64::from(old & !3 | rpl))?;
    }
    set_zf(cpu, raise);
    Ok(())
}

fn is_segment(ins: &Instruction, n: u32) -> bool {
    ins.op_kind(n) == OpKind::Register && ins.op_register(n).is_segment_register()
}

/// LAR and LSL: the selector is operand 1; the destination's number and size go to `src`, `src2`.
fn with_destination(ins: &Instruction, exec: Exec) -> Op {
    let mut op = with_operand(ins, 1, base_op(ins, exec));
    op.src = register_number(ins.op_register(0));
    op.src2 = ins.op_register(0).size() as u8;
    op
}

fn far_pointer(ins: &Instruction, seg: usize) -> Op {
    let mut op = ending(ins, load_far_pointer);
    let register: Register = ins.op_register(0);
    op.dst = register_number(register);
    op.size = register.size() as u8;
    op.src2 = seg as u8;
    op
}

/// The class.
pub(super) fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    Some(match ins.mnemonic() {
        M::Mov if is_segment(ins, 1) => {
            let mut op = with_operand(ins, 0, base_op(ins, mov_from_segment));
            op.src2 = segment_number(ins.op_register(1)) as u8;
            op
        }
        M::Mov if is_segment(ins, 0) => {
            let mut op = with_operand(ins, 1, ending(ins, mov_to_segment));
            op.src2 = segment_number(ins.op_register(0)) as u8;
            op
        }
        M::Pop if is_segment(ins, 0) => {
            let long = ins.code_size() == CodeSize::Code64;
            let mut op =
                base_op(ins, if long { pop_segment::<Long> } else { pop_segment::<Legacy> });
            op.src2 = segment_number(ins.op_register(0)) as u8;
            op.size = ins.stack_pointer_increment() as u8;
            op.flags |= ENDS_BLOCK;
            op
        }
        M::Lds => far_pointer(ins, DS),
        M::Les => far_pointer(ins, ES),
        M::Lfs => far_pointer(ins, FS),
        M::Lgs => far_pointer(ins, GS),
        M::Lss => far_pointer(ins, SS),
        M::Lar => with_destination(ins, lar),
        M::Lsl => with_destination(ins, lsl),
        M::Verr => with_operand(ins, 0, base_op(ins, verr)),
        M::Verw => with_operand(ins, 0, base_op(ins, verw)),
        M::Arpl => {
            let mut op = with_operand(ins, 0, base_op(ins, arpl));
            op.src = register_number(ins.op_register(1));
            op
        }
        _ => return None,
    })
}
