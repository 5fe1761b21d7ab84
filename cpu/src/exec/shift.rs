//! SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD.
//!
//! What the manual leaves open follows AMD's Zen: AF is set by shifts; OF for counts above 1 is computed
//! from the result as for a count of 1; CF after an 8- or 16-bit shift by more than the width is 0 (SHL,
//! SHR). A count of 0 changes no flag, but a 32-bit register destination is still zero-extended.

use super::int::{Int, Widths, widths};
use super::operand::{Arg, arg, arg_size, int_op};
use crate::flags::Flags;
use crate::op::{Exec, Op};
use crate::state::RCX;
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic};

/// A shift or rotation of the zero-extended `a` by `count`, which is masked to 5 or 6 bits and not 0.
trait Shift: 'static {
    fn run<T: Int>(flags: &mut Flags, a: u64, count: u32) -> u64;
}

#[inline(always)]
const fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 != 0
}

struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64, count: u32) -> u64 {
        let r = a << count;
        let cf = if T::BITS == 64 { bit(a, 64 - count) } else { bit(r, T::BITS & 63) };
        f.set_shift(r, T::BITS, cf, bit(r, T::BITS - 1) != cf);
        r
    }
}

struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64, count: u32) -> u64 {
        let r = a >> count;
        f.set_shift(r, T::BITS, bit(a, count - 1), bit(r ^ (r << 1), T::BITS - 1));
        r
    }
}

struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64, count: u32) -> u64 {
        let a = T::cut(a).s();
        let r = (a >> count) as u64;
        f.set_shift(r, T::BITS, bit(a as u64, count - 1), false);
        r
    }
}

struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64, count: u32) -> u64 {
        let k = count & (T::BITS - 1);
        let r = a << k | a >> ((T::BITS - k) & 63) & if k == 0 { 0 } else { T::MASK };
        let cf = bit(r, 0);
        f.set_cf_of(cf, bit(r, T::BITS - 1) != cf);
        r
    }
}

struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64, count: u32) -> u64 {
        let k = count & (T::BITS - 1);
        let r = a >> k | if k == 0 { 0 } else { a << (T::BITS - k) };
        f.set_cf_of(bit(r, T::BITS - 1), bit(r ^ (r << 1), T::BITS - 1));
        r
    }
}

/// Rotates the `BITS + 1` bits of CF and `a` to the left by `count`, below `BITS + 1`.
fn through_carry<T: Int>(cf: bool, a: u64, count: u32) -> (bool, u64) {
    let all = u128::from(cf) << T::BITS | u128::from(a);
    let r = if count == 0 { all } else { all << count | all >> (T::BITS + 1 - count) };
    (r >> T::BITS & 1 != 0, r as u64)
}

struct Rcl;
impl Shift for Rcl {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64, count: u32) -> u64 {
        let (cf, r) = through_carry::<T>(f.cf(), a, count % (T::BITS + 1));
        f.set_cf_of(cf, bit(r, T::BITS - 1) != cf);
        r
    }
}

struct Rcr;
impl Shift for Rcr {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64, count: u32) -> u64 {
        let left = (T::BITS + 1 - count % (T::BITS + 1)) % (T::BITS + 1);
        let (cf, r) = through_carry::<T>(f.cf(), a, left);
        f.set_cf_of(cf, bit(r ^ (r << 1), T::BITS - 1));
        r
    }
}

/// Where the count comes from.
trait Count: 'static {
    fn get(cpu: &Cpu, op: &Op) -> u64;
}

struct Imm;
impl Count for Imm {
    #[inline(always)]
    fn get(_: &Cpu, op: &Op) -> u64 {
        op.imm
    }
}

struct Cl;
impl Count for Cl {
    #[inline(always)]
    fn get(cpu: &Cpu, _: &Op) -> u64 {
        cpu.state.regs[RCX]
    }
}

#[inline(always)]
fn masked<T: Int>(count: u64) -> u32 {
    (count & if T::BITS == 64 { 63 } else { 31 }) as u32
}

fn reg<S: Shift, C: Count, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let count = masked::<T>(C::get(cpu, op));
    let a = T::get(&cpu.state, op.dst).u();
    let r = if count == 0 { a } else { S::run::<T>(&mut cpu.state.flags, a, count) };
    T::set(&mut cpu.state, op.dst, T::cut(r));
    Ok(())
}

fn mem<S: Shift, C: Count, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let count = masked::<T>(C::get(cpu, op));
    let (va, a): (u64, T) = cpu.load_op_for_update(op)?;
    if count == 0 {
        return Ok(());
    }
    let mut flags = cpu.state.flags;
    let r = S::run::<T>(&mut flags, a.u(), count);
    cpu.store(va, T::cut(r))?;
    cpu.state.flags = flags;
    Ok(())
}

fn shift<S: Shift>(ins: &Instruction) -> Option<Exec> {
    let forms: Widths = match (arg(ins, 0)?, arg(ins, 1)?) {
        (Arg::Reg, Arg::Imm) => widths!(reg::<S, Imm>),
        (Arg::Reg, _) => widths!(reg::<S, Cl>),
        (_, Arg::Imm) => widths!(mem::<S, Imm>),
        _ => widths!(mem::<S, Cl>),
    };
    Some(forms.of(arg_size(ins, 0)))
}

/// SHLD (`LEFT`) or SHRD. 16-bit operands with counts above 16 are undefined: they shift `a:b:b`
/// (SHRD: `b:b:a`) as Zen does, with CF (SHLD: and OF) clear.
#[inline(always)]
fn double<const LEFT: bool, T: Int>(f: &mut Flags, a: u64, b: u64, count: u32) -> u64 {
    let (wide_a, wide_b) = (u128::from(a), u128::from(b));
    let beyond = count > T::BITS;
    if LEFT {
        let r = if T::BITS == 16 {
            ((wide_a << 32 | wide_b << 16 | wide_b) << count >> 32) as u64
        } else {
            ((wide_a << T::BITS | wide_b) << count >> T::BITS) as u64
        };
        let cf = !beyond && bit(a, T::BITS.wrapping_sub(count) & 63);
        let of = !(T::BITS == 16 && count >= 16) && bit(r, T::BITS - 1) != cf;
        f.set_shift(r, T::BITS, cf, of);
        r
    } else {
        let r = if T::BITS == 16 {
            ((wide_b << 32 | wide_b << 16 | wide_a) >> count) as u64
        } else {
            ((wide_b << T::BITS | wide_a) >> count) as u64
        };
        let cf = !beyond && bit(a, count - 1);
        f.set_shift(r, T::BITS, cf, bit(r ^ (r << 1), T::BITS - 1));
        r
    }
}

fn double_r<const LEFT: bool, C: Count, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let count = masked::<T>(C::get(cpu, op));
    let (a, b) = (T::get(&cpu.state, op.dst).u(), T::get(&cpu.state, op.src).u());
    let r = if count == 0 { a } else { double::<LEFT, T>(&mut cpu.state.flags, a, b, count) };
    T::set(&mut cpu.state, op.dst, T::cut(r));
    Ok(())
}

fn double_m<const LEFT: bool, C: Count, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let count = masked::<T>(C::get(cpu, op));
    let b = T::get(&cpu.state, op.src).u();
    let (va, a): (u64, T) = cpu.load_op_for_update(op)?;
    if count == 0 {
        return Ok(());
    }
    let mut flags = cpu.state.flags;
    let r = double::<LEFT, T>(&mut flags, a.u(), b, count);
    cpu.store(va, T::cut(r))?;
    cpu.state.flags = flags;
    Ok(())
}

fn select_double<const LEFT: bool>(ins: &Instruction) -> Option<Exec> {
    macro_rules! three {
        ($f:ident, $c:ty) => {
            match arg_size(ins, 0) {
                2 => $f::<LEFT, $c, u16> as Exec,
                4 => $f::<LEFT, $c, u32>,
                _ => $f::<LEFT, $c, u64>,
            }
        };
    }
    Some(match (arg(ins, 0)?, arg(ins, 2)?) {
        (Arg::Reg, Arg::Imm) => three!(double_r, Imm),
        (Arg::Reg, _) => three!(double_r, Cl),
        (_, Arg::Imm) => three!(double_m, Imm),
        _ => three!(double_m, Cl),
    })
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    let exec = match ins.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => shift::<Shl>(ins),
        Mnemonic::Shr => shift::<Shr>(ins),
        Mnemonic::Sar => shift::<Sar>(ins),
        Mnemonic::Rol => shift::<Rol>(ins),
        Mnemonic::Ror => shift::<Ror>(ins),
        Mnemonic::Rcl => shift::<Rcl>(ins),
        Mnemonic::Rcr => shift::<Rcr>(ins),
        Mnemonic::Shld => select_double::<true>(ins),
        Mnemonic::Shrd => select_double::<false>(ins),
        _ => None,
    }?;
    Some(int_op(ins, exec))
}
