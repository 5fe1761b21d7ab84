//! Far control flow: JMP, CALL, RETF, IRET, and software interrupts.

use super::ending;
use crate::exec::stack::{Legacy, Long, Mode, pop_at, push_at};
use crate::flags::{ALL, Flags, IF, IOPL, NT, OF, RF};
use crate::mmu::is_canonical;
use crate::op::Op;
use crate::segment::{Descriptor, not_present, protection};
use crate::state::{CS, RIP, RSP, SS, Segment};
use crate::{Cpu, Trap};
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

/// In `Op::aux`: a far pointer is in the instruction.
const DIRECT: u16 = 1;
/// Type of a 64-bit call gate.
const CALL_GATE: u8 = 12;

/// A position on the stack; RSP itself changes only once an instruction can no longer fault.
#[derive(Clone, Copy)]
struct Cursor(u64);

impl Cursor {
    fn top(cpu: &Cpu) -> Self {
        Self(if cpu.legacy_mode() { Legacy::sp(cpu) } else { Long::sp(cpu) })
    }

    fn pop(&mut self, cpu: &mut Cpu, size: u8) -> Result<u64, Trap> {
        let value = match (cpu.legacy_mode(), size) {
            (false, 2) => pop_at::<Long, u16>(cpu, self.0)?.into(),
            (false, 4) => pop_at::<Long, u32>(cpu, self.0)?.into(),
            (false, _) => pop_at::<Long, u64>(cpu, self.0)?,
            (true, 2) => pop_at::<Legacy, u16>(cpu, self.0)?.into(),
            (true, _) => pop_at::<Legacy, u32>(cpu, self.0)?.into(),
        };
        self.0 = self.0.wrapping_add(size.into());
        Ok(value)
    }

    fn push(&mut self, cpu: &mut Cpu, size: u8, value: u64) -> Result<(), Trap> {
        self.0 = match (cpu.legacy_mode(), size) {
            (false, 2) => push_at::<Long, u16>(cpu, self.0, value as u16)?,
            (false, 4) => push_at::<Long, u32>(cpu, self.0, value as u32)?,
            (false, _) => push_at::<Long, u64>(cpu, self.0, value)?,
            (true, 2) => push_at::<Legacy, u16>(cpu, self.0, value as u16)?,
            (true, _) => push_at::<Legacy, u32>(cpu, self.0, value as u32)?,
        };
        Ok(())
    }

    fn commit(self, cpu: &mut Cpu) {
        if cpu.legacy_mode() {
            Legacy::set_sp(cpu, self.0);
        } else {
            Long::set_sp(cpu, self.0);
        }
    }
}

/// Offset (`size` bytes) and selector at the memory operand.
pub(super) fn read_pointer(cpu: &mut Cpu, op: &Op) -> Result<(u64, u16), Trap> {
    let va = cpu.ea(op)?;
    let offset = match op.size {
        2 => cpu.load::<u16>(va)?.into(),
        4 => cpu.load::<u32>(va)?.into(),
        _ => cpu.load::<u64>(va)?,
    };
    let selector = cpu.load(va.wrapping_add(op.size.into()))?;
    Ok((offset, selector))
}

/// #GP(0) if code in `segment` cannot be at `rip`.
fn check_target(segment: &Segment, rip: u64) -> Result<(), Trap> {
    let long = segment.attr & (1 << 13) != 0;
    let fits = if long { is_canonical(rip) } else { rip <= segment.limit.into() };
    if fits { Ok(()) } else { Err(Trap::GP0) }
}

/// Where a far JMP or CALL goes.
enum Target {
    /// To a code segment at the present privilege.
    Code(Segment, u64),
    /// Through a call gate to a more privileged code segment.
    Inner(Segment, u64),
}

fn far_target(cpu: &mut Cpu, op: &Op, call: bool) -> Result<Target, Trap> {
    let (offset, selector) =
        if op.aux & DIRECT != 0 { (op.disp, op.imm as u16) } else { read_pointer(cpu, op)? };
    if selector & !3 == 0 {
        return Err(Trap::GP0);
    }
    let (at, d) = cpu.read_descriptor(selector)?.ok_or(protection(selector))?;
    if d.is_system() {
        return gate_target(cpu, selector, at, d, call);
    }
    let segment = cpu.jump_segment(selector, at, d)?;
    check_target(&segment, offset)?;
    Ok(Target::Code(segment, offset))
}

/// A 64-bit call gate (SDM volume 3, section 5.8.3.1).
fn gate_target(
    cpu: &mut Cpu,
    selector: u16,
    at: u64,
    gate: Descriptor,
    call: bool,
) -> Result<Target, Trap> {
    let fault = protection(selector);
    if gate.kind() != CALL_GATE || gate.dpl() < cpu.state.cpl.max(selector as u8 & 3) {
        return Err(fault);
    }
    if !gate.is_present() {
        return Err(not_present(selector));
    }
    if cpu.descriptor_address(selector, 16).is_none() {
        return Err(fault);
    }
    let high: u64 = cpu.load_system(at.wrapping_add(8))?;
    if high >> 40 & 0x1f != 0 {
        return Err(fault);
    }
    let offset = gate.0 & 0xffff | (gate.0 >> 48) << 16 | high << 32;
    let code = (gate.0 >> 16) as u16;
    if code & !3 == 0 {
        return Err(Trap::GP0);
    }
    let fault = protection(code);
    let (at, d) = cpu.read_descriptor(code)?.ok_or(fault)?;
    if !d.is_code() || d.dpl() > cpu.state.cpl || !d.is_long() || d.is_big() {
        return Err(fault);
    }
    let inner = call && !d.is_conforming() && d.dpl() < cpu.state.cpl;
    if !inner && !d.is_conforming() && d.dpl() != cpu.state.cpl {
        return Err(fault);
    }
    if !d.is_present() {
        return Err(not_present(code));
    }
    let cpl = if inner { d.dpl() } else { cpu.state.cpl };
    let segment = cpu.mark_accessed(at, d)?.segment(code & !3 | u16::from(cpl));
    check_target(&segment, offset)?;
    Ok(if inner { Target::Inner(segment, offset) } else { Target::Code(segment, offset) })
}

fn go(cpu: &mut Cpu, segment: Segment, rip: u64) {
    cpu.state.regs[RIP] = rip;
    cpu.set_code_segment(segment);
}

fn jmp_far(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    match far_target(cpu, op, false)? {
        Target::Code(segment, rip) | Target::Inner(segment, rip) => go(cpu, segment, rip),
    }
    Ok(())
}

fn call_far(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = cpu.state.seg[CS].selector.into();
    let next = cpu.state.regs[RIP];
    match far_target(cpu, op, true)? {
        Target::Code(segment, rip) => {
            let mut sp = Cursor::top(cpu);
            sp.push(cpu, op.size, selector)?;
            sp.push(cpu, op.size, next)?;
            sp.commit(cpu);
            go(cpu, segment, rip);
        }
        Target::Inner(segment, rip) => {
            let cpl = segment.selector & 3;
            let mut sp = cpu.tss_stack(4 + 8 * u32::from(cpl), 0)?;
            let frame = [cpu.state.seg[SS].selector.into(), cpu.state.regs[RSP], selector, next];
            for value in frame {
                sp = sp.wrapping_sub(8);
                if !is_canonical(sp) {
                    return Err(Trap::SS0);
                }
                cpu.store_system(sp, value)?;
            }
            cpu.state.regs[RSP] = sp;
            cpu.state.seg[SS] = Segment { selector: cpl, ..Segment::default() };
            go(cpu, segment, rip);
        }
    }
    Ok(())
}

/// The outer stack that follows on the stack of a return to privilege `cpl`.
fn outer_stack(
    cpu: &mut Cpu,
    sp: &mut Cursor,
    size: u8,
    code: &Segment,
) -> Result<(u64, Segment), Trap> {
    let rsp = sp.pop(cpu, size)?;
    let selector = sp.pop(cpu, size)? as u16;
    let long = code.attr & (1 << 13) != 0;
    Ok((rsp, cpu.stack_segment(selector, code.selector as u8 & 3, long)?))
}

fn set_stack(cpu: &mut Cpu, rsp: u64, segment: Segment) {
    cpu.state.regs[RSP] = rsp;
    cpu.state.seg[SS] = segment;
}

/// RETF: `imm` more bytes leave the stack (both stacks, if it changes).
fn ret_far(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let mut sp = Cursor::top(cpu);
    let rip = sp.pop(cpu, op.size)?;
    let selector = sp.pop(cpu, op.size)? as u16;
    let code = cpu.return_segment(selector)?;
    check_target(&code, rip)?;
    let release = op.imm & 0xffff;
    sp.0 = sp.0.wrapping_add(release);
    if selector as u8 & 3 > cpu.state.cpl {
        let (rsp, ss) = outer_stack(cpu, &mut sp, op.size, &code)?;
        set_stack(cpu, rsp.wrapping_add(release), ss);
        go(cpu, code, rip);
        cpu.drop_inner_segments();
    } else {
        sp.commit(cpu);
        go(cpu, code, rip);
    }
    Ok(())
}

/// IRET in long mode (SDM volume 3, section 6.14.3): 64-bit code always gets SS:RSP off the stack.
fn iret(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if cpu.state.flags.has(NT) {
        return Err(Trap::GP0);
    }
    let mut sp = Cursor::top(cpu);
    let rip = sp.pop(cpu, op.size)?;
    let selector = sp.pop(cpu, op.size)? as u16;
    let image = sp.pop(cpu, op.size)?;
    let code = cpu.return_segment(selector)?;
    check_target(&code, rip)?;
    let old_cpl = cpu.state.cpl;
    let outer = selector as u8 & 3 > old_cpl;
    if outer || !cpu.legacy_mode() {
        let (rsp, ss) = outer_stack(cpu, &mut sp, op.size, &code)?;
        set_stack(cpu, rsp, ss);
    } else {
        sp.commit(cpu);
    }
    let old = cpu.state.flags.rflags();
    let mut may = ALL & !RF;
    if op.size == 2 {
        may &= 0xffff;
    }
    if old_cpl > 0 {
        may &= !IOPL;
    }
    if u64::from(old_cpl) > (old & IOPL) >> 12 {
        may &= !IF;
    }
    cpu.state.flags = Flags::from_rflags(old & !may & !RF | image & may);
    cpu.state.nmi_blocked = false;
    go(cpu, code, rip);
    if outer {
        cpu.drop_inner_segments();
    }
    Ok(())
}

fn int(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.software_interrupt(op.imm as u8)
}

fn into(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    if cpu.state.flags.rflags() & OF == 0 {
        return Ok(());
    }
    cpu.software_interrupt(4)
}

fn int1(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.icebp()
}

/// JMP and CALL with a far pointer in the instruction (offset in `disp`, selector in `imm`) or in memory.
fn pointer(ins: &Instruction, mut op: Op) -> Op {
    op.size = match ins.code() {
        Code::Jmp_ptr1616 | Code::Jmp_m1616 | Code::Call_ptr1616 | Code::Call_m1616 => 2,
        Code::Jmp_ptr1632 | Code::Jmp_m1632 | Code::Call_ptr1632 | Code::Call_m1632 => 4,
        _ => 8,
    };
    match ins.op_kind(0) {
        OpKind::FarBranch16 => op.disp = ins.far_branch16().into(),
        OpKind::FarBranch32 => op.disp = ins.far_branch32().into(),
        _ => return op,
    }
    op.imm = ins.far_branch_selector().into();
    op.aux = DIRECT;
    op
}

/// The class.
pub(super) fn select(ins: &Instruction) -> Option<Op> {
    let mut op = match ins.code() {
        Code::Jmp_ptr1616
        | Code::Jmp_ptr1632
        | Code::Jmp_m1616
        | Code::Jmp_m1632
        | Code::Jmp_m1664 => return Some(pointer(ins, ending(ins, jmp_far))),
        Code::Call_ptr1616
        | Code::Call_ptr1632
        | Code::Call_m1616
        | Code::Call_m1632
        | Code::Call_m1664 => return Some(pointer(ins, ending(ins, call_far))),
        Code::Int1 => ending(ins, int1),
        Code::Into => ending(ins, into),
        Code::Int3 => {
            let mut op = ending(ins, int);
            op.imm = 3;
            op
        }
        _ => match ins.mnemonic() {
            Mnemonic::Retf => ending(ins, ret_far),
            Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => ending(ins, iret),
            Mnemonic::Int => ending(ins, int),
            _ => return None,
        },
    };
    op.size = match ins.code() {
        Code::Retfw | Code::Retfw_imm16 | Code::Iretw => 2,
        Code::Retfd | Code::Retfd_imm16 | Code::Iretd => 4,
        _ => 8,
    };
    Some(op)
}
