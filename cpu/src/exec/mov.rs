//! MOV, MOVZX, MOVSX, MOVSXD, CMOVcc, SETcc, LEA, BSWAP, XLAT, and the sign extensions of the accumulator.

use super::int::{Int, Widths, conditions, widths};
use super::operand::{Arg, arg, arg_size, int_op};
use crate::op::{EA_ADDR16, EA_ADDR32, EA_LEGACY, Exec, Op};
use crate::state::{FLAT, RAX, RBX, RDX};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, MemorySize, Mnemonic};

fn mov_rr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = T::get(&cpu.state, op.src);
    T::set(&mut cpu.state, op.dst, value);
    Ok(())
}

fn mov_ri<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    T::set(&mut cpu.state, op.dst, T::cut(op.imm));
    Ok(())
}

fn mov_rm<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value: T = cpu.load_op(op)?;
    T::set(&mut cpu.state, op.dst, value);
    Ok(())
}

fn mov_mr<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.store_op(op, T::get(&cpu.state, op.src))
}

fn mov_mi<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.store_op(op, T::cut(op.imm))
}

fn mov(ins: &Instruction) -> Option<Exec> {
    let forms: Widths = match (arg(ins, 0)?, arg(ins, 1)?) {
        (Arg::Reg, Arg::Reg) => widths!(mov_rr),
        (Arg::Reg, Arg::Mem) => widths!(mov_rm),
        (Arg::Mem, Arg::Reg) => widths!(mov_mr),
        (Arg::Reg, Arg::Imm) => widths!(mov_ri),
        (Arg::Mem, Arg::Imm) => widths!(mov_mi),
        _ => return None,
    };
    Some(forms.of(arg_size(ins, 0)))
}

fn movzx_r<S: Int, D: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = S::get(&cpu.state, op.src);
    D::set(&mut cpu.state, op.dst, D::cut(value.u()));
    Ok(())
}

fn movzx_m<S: Int, D: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value: S = cpu.load_op(op)?;
    D::set(&mut cpu.state, op.dst, D::cut(value.u()));
    Ok(())
}

fn movsx_r<S: Int, D: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = S::get(&cpu.state, op.src);
    D::set(&mut cpu.state, op.dst, D::cut(value.s() as u64));
    Ok(())
}

fn movsx_m<S: Int, D: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value: S = cpu.load_op(op)?;
    D::set(&mut cpu.state, op.dst, D::cut(value.s() as u64));
    Ok(())
}

fn extend(ins: &Instruction) -> Option<Exec> {
    let zero = ins.mnemonic() == Mnemonic::Movzx;
    let forms: Widths = match (arg(ins, 1)?, zero, arg_size(ins, 1)) {
        (Arg::Reg, true, 1) => widths!(movzx_r::<u8>),
        (Arg::Reg, true, _) => widths!(movzx_r::<u16>),
        (Arg::Mem, true, 1) => widths!(movzx_m::<u8>),
        (Arg::Mem, true, _) => widths!(movzx_m::<u16>),
        (Arg::Reg, false, 1) => widths!(movsx_r::<u8>),
        (Arg::Reg, false, 2) => widths!(movsx_r::<u16>),
        (Arg::Reg, false, _) => widths!(movsx_r::<u32>),
        (Arg::Mem, false, 1) => widths!(movsx_m::<u8>),
        (Arg::Mem, false, 2) => widths!(movsx_m::<u16>),
        (Arg::Mem, false, _) => widths!(movsx_m::<u32>),
        (Arg::Imm, ..) => return None,
    };
    Some(forms.of(arg_size(ins, 0)))
}

/// With 32-bit operands the upper half of the destination is cleared even if the condition is false.
fn cmov_r<const CC: u8, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let new = T::get(&cpu.state, op.src);
    let old = T::get(&cpu.state, op.dst);
    let value = if cpu.state.flags.condition(CC) { new } else { old };
    T::set(&mut cpu.state, op.dst, value);
    Ok(())
}

/// The load happens (and faults) whatever the condition.
fn cmov_m<const CC: u8, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let new: T = cpu.load_op(op)?;
    let old = T::get(&cpu.state, op.dst);
    let value = if cpu.state.flags.condition(CC) { new } else { old };
    T::set(&mut cpu.state, op.dst, value);
    Ok(())
}

fn cmov(ins: &Instruction, cc: u8) -> Option<Exec> {
    Some(match (arg(ins, 1)?, arg_size(ins, 0)) {
        (Arg::Reg, 2) => conditions!(cc, cmov_r, u16),
        (Arg::Reg, 4) => conditions!(cc, cmov_r, u32),
        (Arg::Reg, _) => conditions!(cc, cmov_r, u64),
        (_, 2) => conditions!(cc, cmov_m, u16),
        (_, 4) => conditions!(cc, cmov_m, u32),
        _ => conditions!(cc, cmov_m, u64),
    })
}

fn set_r<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = cpu.state.flags.condition(CC).into();
    u8::set(&mut cpu.state, op.dst, value);
    Ok(())
}

fn set_m<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value: u8 = cpu.state.flags.condition(CC).into();
    cpu.store_op(op, value)
}

fn lea<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let offset = cpu.ea_offset(op);
    T::set(&mut cpu.state, op.dst, T::cut(offset));
    Ok(())
}

/// `lea r64, [base + disp]`, the common form.
fn lea_base(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = u64::get(&cpu.state, op.base).wrapping_add(op.disp);
    u64::set(&mut cpu.state, op.dst, value);
    Ok(())
}

fn bswap32(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = u32::get(&cpu.state, op.dst).swap_bytes();
    u32::set(&mut cpu.state, op.dst, value);
    Ok(())
}

fn bswap64(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = u64::get(&cpu.state, op.dst).swap_bytes();
    u64::set(&mut cpu.state, op.dst, value);
    Ok(())
}

/// Undefined by the manual; gives zero here, as the hardware does.
fn bswap16(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    u16::set(&mut cpu.state, op.dst, 0);
    Ok(())
}

/// AL = [base + unsigned AL]. The index register's place in the operand does not say "AL", so the
/// address is made here.
fn xlat(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let mut at = cpu.state.regs[RBX].wrapping_add(u8::get(&cpu.state, RAX as u8).u());
    if op.flags & EA_ADDR16 != 0 {
        at &= 0xffff;
    } else if op.flags & EA_ADDR32 != 0 {
        at &= 0xffff_ffff;
    }
    let va = cpu.linear(op.seg as usize, at, op.flags & EA_LEGACY != 0, 1)?;
    let value: u8 = cpu.load(va)?;
    u8::set(&mut cpu.state, RAX as u8, value);
    Ok(())
}

/// CBW, CWDE, CDQE: the accumulator's lower half sign-extended into all of it.
fn widen<S: Int, D: Int>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let value = S::get(&cpu.state, RAX as u8).s() as u64;
    D::set(&mut cpu.state, RAX as u8, D::cut(value));
    Ok(())
}

/// CWD, CDQ, CQO: the accumulator's sign into all of rDX.
fn sign_into_rdx<T: Int>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let sign = (T::get(&cpu.state, RAX as u8).s() >> 63) as u64;
    T::set(&mut cpu.state, RDX as u8, T::cut(sign));
    Ok(())
}

fn select_lea(ins: &Instruction) -> Op {
    let size = arg_size(ins, 0);
    let mut op = int_op(ins, widths!(lea).of(size));
    let plain = op.index == crate::state::ZERO as u8 && op.flags & (EA_ADDR16 | EA_ADDR32) == 0;
    if size == 8 && plain {
        op.exec = lea_base;
    }
    op
}

fn select_xlat(ins: &Instruction) -> Op {
    let mut op = int_op(ins, xlat);
    if op.flags & EA_LEGACY == 0
        && op.seg != crate::state::FS as u8
        && op.seg != crate::state::GS as u8
    {
        op.seg = FLAT as u8;
    }
    debug_assert_eq!(ins.memory_size(), MemorySize::UInt8);
    op
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    let exec = match ins.mnemonic() {
        M::Mov => mov(ins)?,
        M::Movzx | M::Movsx | M::Movsxd => extend(ins)?,
        M::Lea => return Some(select_lea(ins)),
        M::Bswap => match arg_size(ins, 0) {
            2 => bswap16,
            4 => bswap32,
            _ => bswap64,
        },
        M::Xlatb => return Some(select_xlat(ins)),
        M::Cbw => widen::<u8, u16>,
        M::Cwde => widen::<u16, u32>,
        M::Cdqe => widen::<u32, u64>,
        M::Cwd => sign_into_rdx::<u16>,
        M::Cdq => sign_into_rdx::<u32>,
        M::Cqo => sign_into_rdx::<u64>,
        M::Seto
        | M::Setno
        | M::Setb
        | M::Setae
        | M::Sete
        | M::Setne
        | M::Setbe
        | M::Seta
        | M::Sets
        | M::Setns
        | M::Setp
        | M::Setnp
        | M::Setl
        | M::Setge
        | M::Setle
        | M::Setg => {
            let cc = ins.condition_code() as u8 - 1;
            match arg(ins, 0)? {
                Arg::Reg => conditions!(cc, set_r),
                _ => conditions!(cc, set_m),
            }
        }
        M::Cmovo
        | M::Cmovno
        | M::Cmovb
        | M::Cmovae
        | M::Cmove
        | M::Cmovne
        | M::Cmovbe
        | M::Cmova
        | M::Cmovs
        | M::Cmovns
        | M::Cmovp
        | M::Cmovnp
        | M::Cmovl
        | M::Cmovge
        | M::Cmovle
        | M::Cmovg => cmov(ins, ins.condition_code() as u8 - 1)?,
        _ => return None,
    };
    Some(int_op(ins, exec))
}
