//! Near control flow: JMP, Jcc, CALL, RET, LOOPcc, JrCXZ.
//!
//! In 64-bit mode the operand size of near branches is 64 bits; elsewhere 16 or 32 bits, and RIP wraps.
//! A branch to an address outside the code segment's limit faults when its target is fetched.

use super::int::{Int, conditions};
use super::operand::{Arg, arg, int_op};
use super::stack::{Legacy, Long, Mode, pop_at, push};
use crate::op::{CHAINS, EA_LEGACY, Exec, Op};
use crate::state::{RCX, RIP};
use crate::{Cpu, Trap};
use iced_x86::{Code, CodeSize, Instruction, Mnemonic, OpKind};

/// True for addresses whose bits 63 to 47 are equal.
#[inline(always)]
const fn canonical(va: u64) -> bool {
    ((va as i64) << 16 >> 16) as u64 == va
}

/// Sets RIP to an absolute target of the operand size.
#[inline(always)]
fn go<T: Int>(cpu: &mut Cpu, target: T) -> Result<(), Trap> {
    if T::BITS == 64 && !canonical(target.u()) {
        return Err(Trap::GP0);
    }
    cpu.state.regs[RIP] = target.u();
    Ok(())
}

#[inline(always)]
fn jump<T: Int>(cpu: &mut Cpu, op: &Op) {
    cpu.state.regs[RIP] = T::cut(cpu.state.regs[RIP].wrapping_add(op.imm)).u();
}

fn jmp<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    jump::<T>(cpu, op);
    Ok(())
}

fn jcc<const CC: u8, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if cpu.state.flags.condition(CC) {
        jump::<T>(cpu, op);
    }
    Ok(())
}

fn jmp_r<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let target = T::get(&cpu.state, op.dst);
    go(cpu, target)
}

fn jmp_m<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let target: T = cpu.load_op(op)?;
    go(cpu, target)
}

fn call<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let next = T::cut(cpu.state.regs[RIP]);
    push::<M, T>(cpu, next)?;
    jump::<T>(cpu, op);
    Ok(())
}

#[inline(always)]
fn call_to<M: Mode, T: Int>(cpu: &mut Cpu, target: T) -> Result<(), Trap> {
    if T::BITS == 64 && !canonical(target.u()) {
        return Err(Trap::GP0);
    }
    let next = T::cut(cpu.state.regs[RIP]);
    push::<M, T>(cpu, next)?;
    cpu.state.regs[RIP] = target.u();
    Ok(())
}

fn call_r<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let target = T::get(&cpu.state, op.dst);
    call_to::<M, T>(cpu, target)
}

fn call_m<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let target: T = cpu.load_op(op)?;
    call_to::<M, T>(cpu, target)
}

/// RET and RET imm16 (`imm` is 0 for the former).
fn ret<M: Mode, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let sp = M::sp(cpu);
    let target: T = pop_at::<M, T>(cpu, sp)?;
    go(cpu, target)?;
    M::set_sp(cpu, sp.wrapping_add(T::BYTES).wrapping_add(op.imm & 0xffff));
    Ok(())
}

/// What ends LOOP, LOOPE and LOOPNE besides the counter: `WANT` is 0, 1 (goes on while ZF), 2 (while not).
fn loopcc<const WANT: u8, C: Int, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let count = C::cut(C::get(&cpu.state, RCX as u8).u().wrapping_sub(1));
    C::set(&mut cpu.state, RCX as u8, count);
    let condition = match WANT {
        0 => true,
        1 => cpu.state.flags.zf(),
        _ => !cpu.state.flags.zf(),
    };
    if count.u() != 0 && condition {
        jump::<T>(cpu, op);
    }
    Ok(())
}

fn jcxz<C: Int, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if C::get(&cpu.state, RCX as u8).u() == 0 {
        jump::<T>(cpu, op);
    }
    Ok(())
}

/// Bytes of the counter of LOOPcc and JrCXZ: that of the address size.
fn counter_size(code: Code) -> u8 {
    match code {
        Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => 2,
        Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Jrcxz_rel8_16
        | Code::Jrcxz_rel8_64 => 8,
        _ => 4,
    }
}

/// A handler generic over counter and operand size, chosen by both.
macro_rules! counted {
    ($ins:expr, $size:expr, $f:ident $(, $p:tt)?) => {
        match (counter_size($ins.code()), $size) {
            (2, 2) => $f::<$($p,)? u16, u16> as Exec,
            (2, _) => $f::<$($p,)? u16, u32>,
            (4, 2) => $f::<$($p,)? u32, u16>,
            (4, 4) => $f::<$($p,)? u32, u32>,
            (4, _) => $f::<$($p,)? u32, u64>,
            (_, 2) => $f::<$($p,)? u64, u16>,
            _ => $f::<$($p,)? u64, u64>,
        }
    };
}

/// A handler generic over the mode and the operand size.
macro_rules! by_mode {
    ($long:expr, $size:expr, $f:ident) => {
        match ($long, $size) {
            (true, 2) => $f::<Long, u16> as Exec,
            (true, _) => $f::<Long, u64>,
            (false, 2) => $f::<Legacy, u16>,
            (false, _) => $f::<Legacy, u32>,
        }
    };
}

macro_rules! by_size {
    ($size:expr, $f:ident) => {
        match $size {
            2 => $f::<u16> as Exec,
            4 => $f::<u32>,
            _ => $f::<u64>,
        }
    };
}

/// Operand size of a near branch or return.
fn branch_size(ins: &Instruction) -> u8 {
    if ins.op_count() > 0 {
        match ins.op_kind(0) {
            OpKind::NearBranch16 => return 2,
            OpKind::NearBranch32 => return 4,
            OpKind::NearBranch64 => return 8,
            OpKind::Register => return ins.op_register(0).size() as u8,
            OpKind::Memory => return ins.memory_size().size() as u8,
            _ => {}
        }
    }
    match ins.code() {
        Code::Retnw | Code::Retnw_imm16 => 2,
        Code::Retnd | Code::Retnd_imm16 => 4,
        _ => 8,
    }
}

fn near_branch(ins: &Instruction) -> bool {
    matches!(ins.op_kind(0), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

/// True for the near indirect forms (`JMP r/m`, `CALL r/m`), not the far ones.
fn near_indirect(code: Code) -> bool {
    matches!(
        code,
        Code::Jmp_rm16
            | Code::Jmp_rm32
            | Code::Jmp_rm64
            | Code::Call_rm16
            | Code::Call_rm32
            | Code::Call_rm64
    )
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    let long = ins.code_size() == CodeSize::Code64;
    let size = branch_size(ins);
    let exec = match ins.mnemonic() {
        M::Jmp if near_branch(ins) => by_size!(size, jmp),
        M::Jmp if near_indirect(ins.code()) => match arg(ins, 0)? {
            Arg::Mem => by_size!(size, jmp_m),
            _ => by_size!(size, jmp_r),
        },
        M::Call if near_branch(ins) => by_mode!(long, size, call),
        M::Call if near_indirect(ins.code()) => match arg(ins, 0)? {
            Arg::Mem => by_mode!(long, size, call_m),
            _ => by_mode!(long, size, call_r),
        },
        M::Ret => by_mode!(long, size, ret),
        M::Loop => counted!(ins, size, loopcc, 0),
        M::Loope => counted!(ins, size, loopcc, 1),
        M::Loopne => counted!(ins, size, loopcc, 2),
        M::Jcxz | M::Jecxz | M::Jrcxz => counted!(ins, size, jcxz),
        _ if ins.is_jcc_short_or_near() => {
            let cc = ins.condition_code() as u8 - 1;
            match size {
                2 => conditions!(cc, jcc, u16),
                4 => conditions!(cc, jcc, u32),
                _ => conditions!(cc, jcc, u64),
            }
        }
        _ => return None,
    };
    let mut op = int_op(ins, exec);
    op.flags |= CHAINS;
    if !long {
        op.flags |= EA_LEGACY;
    }
    Some(op)
}
