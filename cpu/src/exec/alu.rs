//! ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT.
//!
//! AF after the logic operations is left open by the manual; here it is 0.

use super::int::{Int, Widths, widths};
use super::operand::{Arg, arg, arg_size, int_op};
use crate::flags::Flags;
use crate::op::{Exec, Op};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic};

/// An operation on two operands. Operands are zero-extended; only the low bits of the result count.
trait Binary: 'static {
    /// False for CMP and TEST.
    const WRITES: bool = true;
    fn run<T: Int>(flags: &mut Flags, a: u64, b: u64) -> u64;
}

macro_rules! binary {
    ($name:ident, $writes:expr, |$f:ident, $a:ident, $b:ident, $t:ident| $body:block) => {
        struct $name;
        impl Binary for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn run<$t: Int>($f: &mut Flags, $a: u64, $b: u64) -> u64 $body
        }
    };
}

binary!(Add, true, |f, a, b, T| {
    let r = a.wrapping_add(b);
    f.set_add(a, b, r, T::BITS);
    r
});
binary!(Adc, true, |f, a, b, T| {
    let r = a.wrapping_add(b).wrapping_add(f.cf().into());
    f.set_add(a, b, r, T::BITS);
    r
});
binary!(Sub, true, |f, a, b, T| {
    let r = a.wrapping_sub(b);
    f.set_sub(a, b, r, T::BITS);
    r
});
binary!(Sbb, true, |f, a, b, T| {
    let r = a.wrapping_sub(b).wrapping_sub(f.cf().into());
    f.set_sub(a, b, r, T::BITS);
    r
});
binary!(Cmp, false, |f, a, b, T| {
    let r = a.wrapping_sub(b);
    f.set_sub(a, b, r, T::BITS);
    r
});
binary!(And, true, |f, a, b, T| {
    f.set_logic(a & b, T::BITS);
    a & b
});
binary!(Or, true, |f, a, b, T| {
    f.set_logic(a | b, T::BITS);
    a | b
});
binary!(Xor, true, |f, a, b, T| {
    f.set_logic(a ^ b, T::BITS);
    a ^ b
});
binary!(Test, false, |f, a, b, T| {
    f.set_logic(a & b, T::BITS);
    a & b
});

fn rr<O: Binary, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (a, b) = (T::get(&cpu.state, op.dst), T::get(&cpu.state, op.src));
    let r = O::run::<T>(&mut cpu.state.flags, a.u(), b.u());
    if O::WRITES {
        T::set(&mut cpu.state, op.dst, T::cut(r));
    }
    Ok(())
}

fn ri<O: Binary, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let a = T::get(&cpu.state, op.dst);
    let r = O::run::<T>(&mut cpu.state.flags, a.u(), T::cut(op.imm).u());
    if O::WRITES {
        T::set(&mut cpu.state, op.dst, T::cut(r));
    }
    Ok(())
}

fn rm<O: Binary, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let b: T = cpu.load_op(op)?;
    let a = T::get(&cpu.state, op.dst);
    let r = O::run::<T>(&mut cpu.state.flags, a.u(), b.u());
    if O::WRITES {
        T::set(&mut cpu.state, op.dst, T::cut(r));
    }
    Ok(())
}

#[inline(always)]
fn memory<O: Binary, T: Int>(cpu: &mut Cpu, op: &Op, b: u64) -> Result<(), Trap> {
    if !O::WRITES {
        let a: T = cpu.load_op(op)?;
        O::run::<T>(&mut cpu.state.flags, a.u(), b);
        return Ok(());
    }
    let (va, a): (u64, T) = cpu.load_op_for_update(op)?;
    let mut flags = cpu.state.flags;
    let r = O::run::<T>(&mut flags, a.u(), b);
    cpu.store(va, T::cut(r))?;
    cpu.state.flags = flags;
    Ok(())
}

fn mr<O: Binary, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let b = T::get(&cpu.state, op.src);
    memory::<O, T>(cpu, op, b.u())
}

fn mi<O: Binary, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    memory::<O, T>(cpu, op, T::cut(op.imm).u())
}

fn binary<O: Binary>(ins: &Instruction) -> Option<Exec> {
    let forms: Widths = match (arg(ins, 0)?, arg(ins, 1)?) {
        (Arg::Reg, Arg::Reg) => widths!(rr::<O>),
        (Arg::Reg, Arg::Mem) => widths!(rm::<O>),
        (Arg::Mem, Arg::Reg) => widths!(mr::<O>),
        (Arg::Reg, Arg::Imm) => widths!(ri::<O>),
        (Arg::Mem, Arg::Imm) => widths!(mi::<O>),
        _ => return None,
    };
    Some(forms.of(arg_size(ins, 0)))
}

/// An operation on one operand.
trait Unary: 'static {
    fn run<T: Int>(flags: &mut Flags, a: u64) -> u64;
}

struct Inc;
impl Unary for Inc {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64) -> u64 {
        let r = a.wrapping_add(1);
        f.set_inc(a, r, T::BITS);
        r
    }
}

struct Dec;
impl Unary for Dec {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64) -> u64 {
        let r = a.wrapping_sub(1);
        f.set_dec(a, r, T::BITS);
        r
    }
}

struct Neg;
impl Unary for Neg {
    #[inline(always)]
    fn run<T: Int>(f: &mut Flags, a: u64) -> u64 {
        let r = a.wrapping_neg();
        f.set_sub(0, a, r, T::BITS);
        r
    }
}

struct Not;
impl Unary for Not {
    #[inline(always)]
    fn run<T: Int>(_: &mut Flags, a: u64) -> u64 {
        !a
    }
}

fn unary_r<O: Unary, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let a = T::get(&cpu.state, op.dst);
    let r = O::run::<T>(&mut cpu.state.flags, a.u());
    T::set(&mut cpu.state, op.dst, T::cut(r));
    Ok(())
}

fn unary_m<O: Unary, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (va, a): (u64, T) = cpu.load_op_for_update(op)?;
    let mut flags = cpu.state.flags;
    let r = O::run::<T>(&mut flags, a.u());
    cpu.store(va, T::cut(r))?;
    cpu.state.flags = flags;
    Ok(())
}

fn unary<O: Unary>(ins: &Instruction) -> Option<Exec> {
    let forms: Widths = match arg(ins, 0)? {
        Arg::Reg => widths!(unary_r::<O>),
        Arg::Mem => widths!(unary_m::<O>),
        Arg::Imm => return None,
    };
    Some(forms.of(arg_size(ins, 0)))
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    let exec = match ins.mnemonic() {
        Mnemonic::Add => binary::<Add>(ins),
        Mnemonic::Or => binary::<Or>(ins),
        Mnemonic::Adc => binary::<Adc>(ins),
        Mnemonic::Sbb => binary::<Sbb>(ins),
        Mnemonic::And => binary::<And>(ins),
        Mnemonic::Sub => binary::<Sub>(ins),
        Mnemonic::Xor => binary::<Xor>(ins),
        Mnemonic::Cmp => binary::<Cmp>(ins),
        Mnemonic::Test => binary::<Test>(ins),
        Mnemonic::Inc => unary::<Inc>(ins),
        Mnemonic::Dec => unary::<Dec>(ins),
        Mnemonic::Neg => unary::<Neg>(ins),
        Mnemonic::Not => unary::<Not>(ins),
        _ => None,
    }?;
    Some(int_op(ins, exec))
}
