//! Fast system calls, SWAPGS, and the FS and GS base instructions.

use super::{get_register, privileged, set_register};
use crate::exec::operand::{base_op, register_number};
use crate::flags::{ALL, Flags, IF, RF, TF};
use crate::mmu::is_canonical;
use crate::op::{ENDS_BLOCK, Exec, Op};
use crate::state::{CR4_FSGSBASE, EFER_SCE, FS, GS, RCX, RDX, RIP, RSP, SS, Segment};
use crate::{Cpu, Trap};
use iced_x86::{Code, Instruction, Mnemonic};

/// Number of R11.
const R11: usize = 11;

/// Flat segments as these instructions set them: the descriptor tables are not read.
const fn flat(selector: u16, attr: u16) -> Segment {
    let dpl = (selector & 3) << 5;
    Segment { base: 0, limit: u32::MAX, selector, attr: attr | dpl }
}
const CODE64: u16 = 0xa09b;
const CODE32: u16 = 0xc09b;
const DATA: u16 = 0xc093;

fn enter(cpu: &mut Cpu, code: Segment, stack: u16, rip: u64) {
    cpu.state.seg[SS] = flat(stack, DATA);
    cpu.state.regs[RIP] = rip;
    cpu.set_code_segment(code);
}

/// SYSCALL exists in 64-bit mode only, as on Intel processors. The single-step trap behind it depends on
/// TF as masked.
fn syscall(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    if cpu.state.efer & EFER_SCE == 0 || !cpu.state.is_64bit() {
        return Err(Trap::UD);
    }
    let s = &mut cpu.state;
    s.regs[RCX] = s.regs[RIP];
    let rflags = s.flags.rflags() & !RF;
    s.regs[R11] = rflags;
    s.flags = Flags::from_rflags(rflags & !s.msrs.fmask);
    let selector = (s.msrs.star >> 32) as u16 & !3;
    let target = s.msrs.lstar;
    cpu.step = cpu.state.flags.has(TF);
    enter(cpu, flat(selector, CODE64), selector.wrapping_add(8), target);
    Ok(())
}

/// SYSRET: to 64-bit code (`size` 8) or compatibility mode.
fn sysret(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if cpu.state.efer & EFER_SCE == 0 || !cpu.state.is_64bit() {
        return Err(Trap::UD);
    }
    privileged(cpu)?;
    let s = &mut cpu.state;
    let star = (s.msrs.star >> 48) as u16;
    let stack = star.wrapping_add(8) | 3;
    let (code, rip) = if op.size == 8 {
        if !is_canonical(s.regs[RCX]) {
            return Err(Trap::GP0);
        }
        (flat(star.wrapping_add(16) | 3, CODE64), s.regs[RCX])
    } else {
        (flat(star | 3, CODE32), s.regs[RCX] & 0xffff_ffff)
    };
    s.flags = Flags::from_rflags(s.regs[R11] & ALL & !RF);
    cpu.step = cpu.state.flags.has(TF);
    enter(cpu, code, stack, rip);
    Ok(())
}

fn sysenter(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let selector = cpu.state.msrs.sysenter_cs as u16 & !3;
    if selector == 0 {
        return Err(Trap::GP0);
    }
    let s = &mut cpu.state;
    s.flags.other &= !(IF | RF);
    s.regs[RSP] = s.msrs.sysenter_esp;
    let target = s.msrs.sysenter_eip;
    enter(cpu, flat(selector, CODE64), selector.wrapping_add(8), target);
    Ok(())
}

fn sysexit(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = cpu.state.msrs.sysenter_cs as u16 & !3;
    if selector == 0 {
        return Err(Trap::GP0);
    }
    privileged(cpu)?;
    let (rip, rsp) = (cpu.state.regs[RDX], cpu.state.regs[RCX]);
    let (code, rip, rsp) = if op.size == 8 {
        if !is_canonical(rip) || !is_canonical(rsp) {
            return Err(Trap::GP0);
        }
        (flat(selector.wrapping_add(32) | 3, CODE64), rip, rsp)
    } else {
        (flat(selector.wrapping_add(16) | 3, CODE32), rip & 0xffff_ffff, rsp & 0xffff_ffff)
    };
    cpu.state.regs[RSP] = rsp;
    let stack = (code.selector & !3).wrapping_add(8) | 3;
    enter(cpu, code, stack, rip);
    Ok(())
}

fn swapgs(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let s = &mut *cpu.state;
    std::mem::swap(&mut s.seg[GS].base, &mut s.msrs.kernel_gs_base);
    Ok(())
}

fn read_base(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if cpu.state.cr4 & CR4_FSGSBASE == 0 {
        return Err(Trap::UD);
    }
    let base = cpu.state.seg[usize::from(op.seg)].base;
    set_register(cpu, op.dst, op.size, base);
    Ok(())
}

fn write_base(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if cpu.state.cr4 & CR4_FSGSBASE == 0 {
        return Err(Trap::UD);
    }
    let base = get_register(cpu, op.dst, op.size);
    if !is_canonical(base) {
        return Err(Trap::GP0);
    }
    cpu.state.seg[usize::from(op.seg)].base = base;
    Ok(())
}

/// The class. Instructions that exist in 64-bit mode only do not decode elsewhere.
pub(super) fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    let (exec, seg): (Exec, _) = match ins.mnemonic() {
        M::Syscall => (syscall, None),
        M::Sysret | M::Sysretq => (sysret, None),
        M::Sysenter => (sysenter, None),
        M::Sysexit | M::Sysexitq => (sysexit, None),
        M::Swapgs => (swapgs, None),
        M::Rdfsbase => (read_base, Some(FS)),
        M::Rdgsbase => (read_base, Some(GS)),
        M::Wrfsbase => (write_base, Some(FS)),
        M::Wrgsbase => (write_base, Some(GS)),
        _ => return None,
    };
    let mut op = base_op(ins, exec);
    if let Some(seg) = seg {
        op.seg = seg as u8;
        op.dst = register_number(ins.op_register(0));
        op.size = ins.op_register(0).size() as u8;
    } else if ins.mnemonic() != M::Swapgs {
        op.flags |= ENDS_BLOCK;
        op.size = if matches!(ins.code(), Code::Sysretq | Code::Sysexitq) { 8 } else { 4 };
    }
    Some(op)
}
