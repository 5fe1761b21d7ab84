//! The stack: PUSH, POP, PUSHF, POPF, PUSHA, POPA, ENTER, LEAVE; pushing and popping for other classes.

use super::int::Int;
use super::operand::{Arg, arg, int_op, segment_number};
use crate::flags::{self, IF, IOPL, RF, VM};
use crate::op::{EA_LEGACY, ENDS_BLOCK, Exec, Op};
use crate::state::{RBP, RSP, SS};
use crate::{Cpu, Trap};
use iced_x86::{CodeSize, Instruction, Mnemonic, OpKind};

/// How the stack is addressed.
pub trait Mode: 'static {
    /// The stack pointer, cut to the size of the stack.
    fn sp(cpu: &Cpu) -> u64;
    /// Sets as much of RSP as the size of the stack says.
    fn set_sp(cpu: &mut Cpu, sp: u64);
    /// Linear address of `size` bytes at offset `sp` in the stack segment.
    fn address(cpu: &Cpu, sp: u64, size: u64) -> Result<u64, Trap>;
}

/// 64-bit mode.
#[derive(Debug)]
pub struct Long;
/// Compatibility and legacy modes: SS counts, and its B bit selects ESP or SP.
#[derive(Debug)]
pub struct Legacy;

impl Mode for Long {
    #[inline(always)]
    fn sp(cpu: &Cpu) -> u64 {
        cpu.state.regs[RSP]
    }
    #[inline(always)]
    fn set_sp(cpu: &mut Cpu, sp: u64) {
        cpu.state.regs[RSP] = sp;
    }
    #[inline(always)]
    fn address(_: &Cpu, sp: u64, _: u64) -> Result<u64, Trap> {
        Ok(sp)
    }
}

impl Mode for Legacy {
    fn sp(cpu: &Cpu) -> u64 {
        cpu.state.regs[RSP] & stack_mask(cpu)
    }
    fn set_sp(cpu: &mut Cpu, sp: u64) {
        if stack_mask(cpu) == 0xffff {
            u16::set(&mut cpu.state, RSP as u8, sp as u16);
        } else {
            cpu.state.regs[RSP] = u64::from(sp as u32);
        }
    }
    fn address(cpu: &Cpu, sp: u64, size: u64) -> Result<u64, Trap> {
        cpu.linear(SS, sp & stack_mask(cpu), true, size)
    }
}

fn stack_mask(cpu: &Cpu) -> u64 {
    if cpu.state.seg[SS].attr & (1 << 14) != 0 { 0xffff_ffff } else { 0xffff }
}

/// A non-canonical stack address raises #SS.
#[cold]
fn stack_fault(trap: Trap) -> Trap {
    if trap == Trap::GP0 { Trap::SS0 } else { trap }
}

/// Writes `value` below the stack pointer `sp` and gives the new one; RSP stays.
#[inline(always)]
pub fn push_at<M: Mode, T: Int>(cpu: &mut Cpu, sp: u64, value: T) -> Result<u64, Trap> {
    let sp = sp.wrapping_sub(T::BYTES);
    let va = M::address(cpu, sp, T::BYTES)?;
    cpu.store(va, value).map_err(stack_fault)?;
    Ok(sp)
}

/// Reads the value at the stack pointer `sp`; RSP stays.
#[inline(always)]
pub fn pop_at<M: Mode, T: Int>(cpu: &mut Cpu, sp: u64) -> Result<T, Trap> {
    let va = M::address(cpu, sp, T::BYTES)?;
    cpu.load(va).map_err(stack_fault)
}

/// Pushes a value.
#[inline(always)]
pub fn push<M: Mode, T: Int>(cpu: &mut Cpu, value: T) -> Result<(), Trap> {
    let sp = push_at::<M, T>(cpu, M::sp(cpu), value)?;
    M::set_sp(cpu, sp);
    Ok(())
}

/// Pops a value.
#[inline(always)]
pub fn pop<M: Mode, T: Int>(cpu: &mut Cpu) -> Result<T, Trap> {
    let sp = M::sp(cpu);
    let value = pop_at::<M, T>(cpu, sp)?;
    M::set_sp(cpu, sp.wrapping_add(T::BYTES));
    Ok(value)
}

/// PUSH of RSP pushes the value from before.
fn push_r<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = T::get(&cpu.state, op.dst);
    push::<M, T>(cpu, value)
}

fn push_i<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    push::<M, T>(cpu, T::cut(op.imm))
}

fn push_m<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value: T = cpu.load_op(op)?;
    push::<M, T>(cpu, value)
}

/// The selector, zero-extended to the operand size.
fn push_segment<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let selector = cpu.state.seg[usize::from(op.aux)].selector;
    push::<M, T>(cpu, T::cut(selector.into()))
}

/// POP into RSP leaves the value popped.
fn pop_r<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = pop::<M, T>(cpu)?;
    T::set(&mut cpu.state, op.dst, value);
    Ok(())
}

/// A destination addressed by RSP is found with RSP already incremented.
fn pop_m<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let saved = cpu.state.regs[RSP];
    let value = pop::<M, T>(cpu)?;
    cpu.store_op(op, value).inspect_err(|_| cpu.state.regs[RSP] = saved)
}

fn pushf<M: Mode, T: Int>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let image = cpu.state.flags.rflags() & !(VM | RF);
    push::<M, T>(cpu, T::cut(image))
}

/// CPL 0 may change all; IF only if CPL is at most IOPL, and IOPL only CPL 0. RF ends up clear.
fn popf<M: Mode, T: Int>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let image = pop::<M, T>(cpu)?.u();
    let old = cpu.state.flags.rflags();
    let mut may = flags::ALL & !RF & T::MASK;
    if cpu.state.cpl > 0 {
        may &= !IOPL;
    }
    if u64::from(cpu.state.cpl) > (old & IOPL) >> 12 {
        may &= !IF;
    }
    cpu.state.flags = flags::Flags::from_rflags(old & !may & !RF | image & may);
    cpu.update_mode();
    Ok(())
}

fn leave<M: Mode, T: Int>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let sp = cpu.state.regs[RBP];
    let value = pop_at::<M, T>(cpu, sp)?;
    M::set_sp(cpu, sp.wrapping_add(T::BYTES));
    T::set(&mut cpu.state, RBP as u8, value);
    Ok(())
}

/// ENTER imm16, imm8: the size in `imm`, the nesting level in `aux`. The manual checks that the final
/// stack pointer may be written before anything takes effect.
fn enter<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let level = u64::from(op.aux & 31);
    let mut frame_link = cpu.state.regs[RBP];
    let mut sp = push_at::<M, T>(cpu, M::sp(cpu), T::cut(frame_link))?;
    let frame = sp;
    for _ in 1..level {
        frame_link = frame_link.wrapping_sub(T::BYTES);
        let link: T = pop_at::<M, T>(cpu, frame_link)?;
        sp = push_at::<M, T>(cpu, sp, link)?;
    }
    if level > 0 {
        sp = push_at::<M, T>(cpu, sp, T::cut(frame))?;
    }
    sp = sp.wrapping_sub(op.imm & 0xffff);
    let probe = M::address(cpu, sp, 1)?;
    cpu.probe_write(probe, 1).map_err(stack_fault)?;
    T::set(&mut cpu.state, RBP as u8, T::cut(frame));
    M::set_sp(cpu, sp);
    Ok(())
}

fn pusha<T: Int>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let mut sp = Legacy::sp(cpu);
    for reg in 0..8 {
        let value = T::get(&cpu.state, reg);
        sp = push_at::<Legacy, T>(cpu, sp, value)?;
    }
    Legacy::set_sp(cpu, sp);
    Ok(())
}

fn popa<T: Int>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let start = Legacy::sp(cpu);
    let mut values = [T::cut(0); 8];
    for (n, value) in values.iter_mut().enumerate() {
        *value = pop_at::<Legacy, T>(cpu, start.wrapping_add(n as u64 * T::BYTES))?;
    }
    for reg in (0..8).filter(|reg| usize::from(*reg) != RSP) {
        T::set(&mut cpu.state, reg, values[7 - usize::from(reg)]);
    }
    Legacy::set_sp(cpu, start.wrapping_add(8 * T::BYTES));
    Ok(())
}

macro_rules! by_mode {
    ($ins:expr, $f:ident) => {
        match ($ins.code_size() == CodeSize::Code64, $ins.stack_pointer_increment().abs()) {
            (true, 2) => $f::<Long, u16> as Exec,
            (true, _) => $f::<Long, u64>,
            (false, 2) => $f::<Legacy, u16>,
            (false, _) => $f::<Legacy, u32>,
        }
    };
}

fn select_frame(ins: &Instruction) -> Option<Op> {
    use iced_x86::Code;
    let exec: Exec = match ins.code() {
        Code::Enterw_imm16_imm8 if ins.code_size() == CodeSize::Code64 => enter::<Long, u16>,
        Code::Enterq_imm16_imm8 => enter::<Long, u64>,
        Code::Enterw_imm16_imm8 => enter::<Legacy, u16>,
        Code::Enterd_imm16_imm8 => enter::<Legacy, u32>,
        Code::Leavew if ins.code_size() == CodeSize::Code64 => leave::<Long, u16>,
        Code::Leaveq => leave::<Long, u64>,
        Code::Leavew => leave::<Legacy, u16>,
        Code::Leaved => leave::<Legacy, u32>,
        _ => return None,
    };
    let mut op = int_op(ins, exec);
    if ins.mnemonic() == Mnemonic::Enter {
        op.imm = ins.immediate16().into();
        op.aux = ins.immediate8_2nd().into();
    }
    Some(op)
}

/// The class. POP of a segment register is not part of it.
pub fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    let exec = match ins.mnemonic() {
        M::Push
            if ins.op_kind(0) == OpKind::Register && ins.op_register(0).is_segment_register() =>
        {
            let mut op = int_op(ins, by_mode!(ins, push_segment));
            op.aux = segment_number(ins.op_register(0)) as u16;
            return Some(op);
        }
        M::Push => match arg(ins, 0)? {
            Arg::Reg => by_mode!(ins, push_r),
            Arg::Mem => by_mode!(ins, push_m),
            Arg::Imm => by_mode!(ins, push_i),
        },
        M::Pop => match arg(ins, 0)? {
            Arg::Mem => by_mode!(ins, pop_m),
            _ => by_mode!(ins, pop_r),
        },
        M::Pushf | M::Pushfd | M::Pushfq => by_mode!(ins, pushf),
        M::Popf | M::Popfd | M::Popfq => {
            let mut op = int_op(ins, by_mode!(ins, popf));
            op.flags |= ENDS_BLOCK;
            return Some(op);
        }
        M::Enter | M::Leave => return select_frame(ins),
        M::Pusha => pusha::<u16>,
        M::Pushad => pusha::<u32>,
        M::Popa => popa::<u16>,
        M::Popad => popa::<u32>,
        _ => return None,
    };
    let mut op = int_op(ins, exec);
    if ins.code_size() != CodeSize::Code64 {
        op.flags |= EA_LEGACY;
    }
    Some(op)
}
