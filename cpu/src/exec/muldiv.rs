//! MUL, IMUL, DIV, IDIV.
//!
//! What the manual leaves open follows AMD's Zen: multiplications leave SF, ZF, AF and PF alone;
//! divisions set AF, clear SF, ZF and PF, and leave CF and OF alone.

use super::int::{Int, widths};
use super::operand::{Arg, arg, arg_size, int_op};
use crate::flags::{AF, PF, SF, ZF};
use crate::op::{Exec, HIGH_BYTE, Op};
use crate::state::{RAX, RDX};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic};

/// Writes the halves of a double-width result: AX, or rDX:rAX.
#[inline(always)]
fn set_pair<T: Int>(cpu: &mut Cpu, low: u64, high: u64) {
    T::set(&mut cpu.state, RAX as u8, T::cut(low));
    let upper = if T::BITS == 8 { HIGH_BYTE } else { RDX as u8 };
    T::set(&mut cpu.state, upper, T::cut(high));
}

#[inline(always)]
fn upper_half<T: Int>(cpu: &Cpu) -> T {
    T::get(&cpu.state, if T::BITS == 8 { HIGH_BYTE } else { RDX as u8 })
}

#[inline(always)]
fn source<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op, reg: u8) -> Result<T, Trap> {
    if MEM { cpu.load_op(op) } else { Ok(T::get(&cpu.state, reg)) }
}

fn mul<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let b = source::<MEM, T>(cpu, op, op.dst)?.u();
    let a = T::get(&cpu.state, RAX as u8).u();
    let wide = u128::from(a) * u128::from(b);
    let high = (wide >> T::BITS) as u64;
    set_pair::<T>(cpu, wide as u64, high);
    cpu.state.flags.set_cf_of(high != 0, high != 0);
    Ok(())
}

/// The product, and whether it does not fit.
#[inline(always)]
fn signed_product<T: Int>(a: T, b: T) -> (i128, bool) {
    let wide = i128::from(a.s()) * i128::from(b.s());
    (wide, i128::from(T::cut(wide as u64).s()) != wide)
}

fn imul1<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let b: T = source::<MEM, T>(cpu, op, op.dst)?;
    let (wide, over) = signed_product(T::get(&cpu.state, RAX as u8), b);
    set_pair::<T>(cpu, wide as u64, (wide >> T::BITS) as u64);
    cpu.state.flags.set_cf_of(over, over);
    Ok(())
}

fn imul2<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let b: T = source::<MEM, T>(cpu, op, op.src)?;
    let (wide, over) = signed_product(T::get(&cpu.state, op.dst), b);
    T::set(&mut cpu.state, op.dst, T::cut(wide as u64));
    cpu.state.flags.set_cf_of(over, over);
    Ok(())
}

fn imul3<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let a: T = source::<MEM, T>(cpu, op, op.src)?;
    let (wide, over) = signed_product(a, T::cut(op.imm));
    T::set(&mut cpu.state, op.dst, T::cut(wide as u64));
    cpu.state.flags.set_cf_of(over, over);
    Ok(())
}

fn division_flags(cpu: &mut Cpu) {
    cpu.state.flags.set_some(SF | ZF | AF | PF, AF);
}

fn div<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let d = source::<MEM, T>(cpu, op, op.dst)?.u();
    let (high, low) = (upper_half::<T>(cpu).u(), T::get(&cpu.state, RAX as u8).u());
    // The quotient fits just if the upper half is below the divisor; so no divisor of 0 either.
    if high >= d {
        return Err(Trap::DE);
    }
    let (q, r) = if high == 0 {
        (low / d, low % d)
    } else if T::BITS < 64 {
        let n = high << (T::BITS & 63) | low;
        (n / d, n % d)
    } else {
        let n = u128::from(high) << 64 | u128::from(low);
        ((n / u128::from(d)) as u64, (n % u128::from(d)) as u64)
    };
    set_pair::<T>(cpu, q, r);
    division_flags(cpu);
    Ok(())
}

fn idiv<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let d = source::<MEM, T>(cpu, op, op.dst)?.s();
    let (high, low) = (upper_half::<T>(cpu), T::get(&cpu.state, RAX as u8));
    if d == 0 {
        return Err(Trap::DE);
    }
    let (q, r) = if T::BITS < 64 {
        let n = high.s() << (T::BITS & 63) | low.u() as i64;
        (i128::from(n.wrapping_div(d)), i128::from(n.wrapping_rem(d)))
    } else if high.u() as i64 == low.s() >> 63 {
        let n = low.s();
        // The one quotient beyond 64 bits, -2^63 / -1, needs the wider type.
        let q = if d == -1 { -i128::from(n) } else { i128::from(n / d) };
        (q, i128::from(n.wrapping_rem(d)))
    } else {
        let n = i128::from(high.s()) << 64 | i128::from(low.u());
        let d = i128::from(d);
        if d == -1 && n == i128::MIN {
            return Err(Trap::DE);
        }
        (n / d, n % d)
    };
    if i128::from(T::cut(q as u64).s()) != q {
        return Err(Trap::DE);
    }
    set_pair::<T>(cpu, q as u64, r as u64);
    division_flags(cpu);
    Ok(())
}

macro_rules! by_place {
    ($place:expr, $size:expr, $f:ident) => {
        match $place {
            Arg::Mem => widths!($f::<true>).of($size),
            _ => widths!($f::<false>).of($size),
        }
    };
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    let exec: Exec = match (ins.mnemonic(), ins.op_count()) {
        (Mnemonic::Mul, _) => by_place!(arg(ins, 0)?, arg_size(ins, 0), mul),
        (Mnemonic::Imul, 1) => by_place!(arg(ins, 0)?, arg_size(ins, 0), imul1),
        (Mnemonic::Imul, 2) => by_place!(arg(ins, 1)?, arg_size(ins, 0), imul2),
        (Mnemonic::Imul, _) => by_place!(arg(ins, 1)?, arg_size(ins, 0), imul3),
        (Mnemonic::Div, _) => by_place!(arg(ins, 0)?, arg_size(ins, 0), div),
        (Mnemonic::Idiv, _) => by_place!(arg(ins, 0)?, arg_size(ins, 0), idiv),
        _ => return None,
    };
    Some(int_op(ins, exec))
}
