//! XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. One CPU executes one instruction at a time, so each of
//! them is atomic with or without LOCK.

use super::int::{Int, Widths, widths};
use super::operand::{Arg, arg, arg_size, int_op};
use crate::flags::ZF;
use crate::op::Op;
use crate::state::{RAX, RBX, RCX, RDX};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic};

fn xchg_rr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (a, b) = (T::get(&cpu.state, op.dst), T::get(&cpu.state, op.src));
    T::set(&mut cpu.state, op.dst, b);
    T::set(&mut cpu.state, op.src, a);
    Ok(())
}

fn xchg_mr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (va, old): (u64, T) = cpu.load_op_for_update(op)?;
    cpu.store(va, T::get(&cpu.state, op.src))?;
    T::set(&mut cpu.state, op.src, old);
    Ok(())
}

fn xadd_rr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (a, b) = (T::get(&cpu.state, op.dst), T::get(&cpu.state, op.src));
    let r = a.u().wrapping_add(b.u());
    cpu.state.flags.set_add(a.u(), b.u(), r, T::BITS);
    T::set(&mut cpu.state, op.src, a);
    T::set(&mut cpu.state, op.dst, T::cut(r));
    Ok(())
}

fn xadd_mr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (va, a): (u64, T) = cpu.load_op_for_update(op)?;
    let b = T::get(&cpu.state, op.src);
    let r = a.u().wrapping_add(b.u());
    cpu.store(va, T::cut(r))?;
    cpu.state.flags.set_add(a.u(), b.u(), r, T::BITS);
    T::set(&mut cpu.state, op.src, a);
    Ok(())
}

/// Whichever register the comparison does not write keeps its upper half even with 32-bit operands.
fn cmpxchg_rr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (acc, old) = (T::get(&cpu.state, RAX as u8), T::get(&cpu.state, op.dst));
    let new = T::get(&cpu.state, op.src);
    cpu.state.flags.set_sub(acc.u(), old.u(), acc.u().wrapping_sub(old.u()), T::BITS);
    if acc == old {
        T::set(&mut cpu.state, op.dst, new);
    } else {
        T::set(&mut cpu.state, RAX as u8, old);
    }
    Ok(())
}

fn cmpxchg_mr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (va, old): (u64, T) = cpu.load_op_for_update(op)?;
    let acc = T::get(&cpu.state, RAX as u8);
    if acc == old {
        cpu.store(va, T::get(&cpu.state, op.src))?;
    } else {
        // The manual: the destination receives a write cycle either way.
        cpu.store(va, old)?;
        T::set(&mut cpu.state, RAX as u8, old);
    }
    cpu.state.flags.set_sub(acc.u(), old.u(), acc.u().wrapping_sub(old.u()), T::BITS);
    Ok(())
}

fn cmpxchg8b(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (va, old): (u64, u64) = cpu.load_op_for_update(op)?;
    let r = &cpu.state.regs;
    let pair = |high: usize, low: usize| r[high] << 32 | r[low] & u64::from(u32::MAX);
    let equal = pair(RDX, RAX) == old;
    let new = pair(RCX, RBX);
    cpu.store(va, if equal { new } else { old })?;
    if !equal {
        cpu.state.regs[RAX] = old & u64::from(u32::MAX);
        cpu.state.regs[RDX] = old >> 32;
    }
    cpu.state.flags.set_some(ZF, if equal { ZF } else { 0 });
    Ok(())
}

fn cmpxchg16b(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if cpu.ea(op)? & 15 != 0 {
        return Err(Trap::GP0);
    }
    let (va, old): (u64, u128) = cpu.load_op_for_update(op)?;
    let r = &cpu.state.regs;
    let pair = |high: usize, low: usize| u128::from(r[high]) << 64 | u128::from(r[low]);
    let equal = pair(RDX, RAX) == old;
    let new = pair(RCX, RBX);
    cpu.store(va, if equal { new } else { old })?;
    if !equal {
        cpu.state.regs[RAX] = old as u64;
        cpu.state.regs[RDX] = (old >> 64) as u64;
    }
    cpu.state.flags.set_some(ZF, if equal { ZF } else { 0 });
    Ok(())
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    let (rr, mr): (Widths, Widths) = match ins.mnemonic() {
        Mnemonic::Xchg => (widths!(xchg_rr), widths!(xchg_mr)),
        Mnemonic::Xadd => (widths!(xadd_rr), widths!(xadd_mr)),
        Mnemonic::Cmpxchg => (widths!(cmpxchg_rr), widths!(cmpxchg_mr)),
        Mnemonic::Cmpxchg8b => return Some(int_op(ins, cmpxchg8b)),
        Mnemonic::Cmpxchg16b => return Some(int_op(ins, cmpxchg16b)),
        _ => return None,
    };
    let size = arg_size(ins, 0);
    let mut op = match (arg(ins, 0)?, arg(ins, 1)?) {
        (Arg::Reg, Arg::Reg) => int_op(ins, rr.of(size)),
        (Arg::Mem, Arg::Reg) => int_op(ins, mr.of(size)),
        // XCHG r, m in this order of operands.
        (Arg::Reg, Arg::Mem) => {
            let mut op = int_op(ins, mr.of(size));
            op.src = op.dst;
            op
        }
        _ => return None,
    };
    if ins.mnemonic() == Mnemonic::Xchg {
        // XCHG with memory locks by itself; nothing else depends on the mark.
        op.flags &= !crate::op::LOCKED;
    }
    Some(op)
}
