//! Arithmetic: on two operands, on ST(0), and the transcendental instructions.

use super::calc::{self, Quotient, Res};
use super::ext::{Class, Ext};
use super::soft::Binary;
use super::unit::{C0, C1, C2, C3};
use super::{Form, Format, trans};
use crate::op::Op;
use crate::{Cpu, Trap};
use iced_x86::Code;

/// Values of `aux` in [`registers`] and [`memory`].
const ADD: u16 = 0;
const MUL: u16 = 1;
const SUB: u16 = 4;
const SUBR: u16 = 5;
const DIV: u16 = 6;
const DIVR: u16 = 7;

pub(super) fn form(code: Code) -> Option<Form> {
    binary_form(code).or_else(|| unary_form(code))
}

fn binary_form(code: Code) -> Option<Form> {
    let (aux, place) = match code {
        Code::Fadd_st0_sti | Code::Fadd_sti_st0 => (ADD, None),
        Code::Fmul_st0_sti | Code::Fmul_sti_st0 => (MUL, None),
        Code::Fsub_st0_sti | Code::Fsub_sti_st0 => (SUB, None),
        Code::Fsubr_st0_sti | Code::Fsubr_sti_st0 => (SUBR, None),
        Code::Fdiv_st0_sti | Code::Fdiv_sti_st0 => (DIV, None),
        Code::Fdivr_st0_sti | Code::Fdivr_sti_st0 => (DIVR, None),
        Code::Faddp_sti_st0 => return Some(Form::new(registers, ADD).pops(1)),
        Code::Fmulp_sti_st0 => return Some(Form::new(registers, MUL).pops(1)),
        Code::Fsubp_sti_st0 => return Some(Form::new(registers, SUB).pops(1)),
        Code::Fsubrp_sti_st0 => return Some(Form::new(registers, SUBR).pops(1)),
        Code::Fdivp_sti_st0 => return Some(Form::new(registers, DIV).pops(1)),
        Code::Fdivrp_sti_st0 => return Some(Form::new(registers, DIVR).pops(1)),
        Code::Fadd_m32fp => (ADD, Some(Format::F32)),
        Code::Fmul_m32fp => (MUL, Some(Format::F32)),
        Code::Fsub_m32fp => (SUB, Some(Format::F32)),
        Code::Fsubr_m32fp => (SUBR, Some(Format::F32)),
        Code::Fdiv_m32fp => (DIV, Some(Format::F32)),
        Code::Fdivr_m32fp => (DIVR, Some(Format::F32)),
        Code::Fadd_m64fp => (ADD, Some(Format::F64)),
        Code::Fmul_m64fp => (MUL, Some(Format::F64)),
        Code::Fsub_m64fp => (SUB, Some(Format::F64)),
        Code::Fsubr_m64fp => (SUBR, Some(Format::F64)),
        Code::Fdiv_m64fp => (DIV, Some(Format::F64)),
        Code::Fdivr_m64fp => (DIVR, Some(Format::F64)),
        Code::Fiadd_m16int => (ADD, Some(Format::I16)),
        Code::Fimul_m16int => (MUL, Some(Format::I16)),
        Code::Fisub_m16int => (SUB, Some(Format::I16)),
        Code::Fisubr_m16int => (SUBR, Some(Format::I16)),
        Code::Fidiv_m16int => (DIV, Some(Format::I16)),
        Code::Fidivr_m16int => (DIVR, Some(Format::I16)),
        Code::Fiadd_m32int => (ADD, Some(Format::I32)),
        Code::Fimul_m32int => (MUL, Some(Format::I32)),
        Code::Fisub_m32int => (SUB, Some(Format::I32)),
        Code::Fisubr_m32int => (SUBR, Some(Format::I32)),
        Code::Fidiv_m32int => (DIV, Some(Format::I32)),
        Code::Fidivr_m32int => (DIVR, Some(Format::I32)),
        _ => return None,
    };
    Some(match place {
        None => Form::new(registers, aux),
        Some(format) => Form::new(memory, aux).format(format),
    })
}

fn unary_form(code: Code) -> Option<Form> {
    Some(match code {
        Code::Fabs => Form::new(sign, 0),
        Code::Fchs => Form::new(sign, 1),
        Code::Fsqrt => Form::new(square_root, 0),
        Code::Frndint => Form::new(round, 0),
        Code::F2xm1 => Form::new(exponential, 0),
        Code::Fscale => Form::new(scale, 0),
        Code::Fxtract => Form::new(extract, 0),
        Code::Fprem => Form::new(remainder, 0),
        Code::Fprem1 => Form::new(remainder, 1),
        Code::Fyl2x => Form::new(replace_two, 0).pops(1),
        Code::Fyl2xp1 => Form::new(replace_two, 1).pops(1),
        Code::Fpatan => Form::new(replace_two, 2).pops(1),
        Code::Fsin => Form::new(trigonometric, 0),
        Code::Fcos => Form::new(trigonometric, 1),
        Code::Fsincos => Form::new(trigonometric, 2),
        Code::Fptan => Form::new(trigonometric, 3),
        _ => return None,
    })
}

/// `x` is the destination operand, `y` the source.
#[inline(always)]
fn compute(cpu: &Cpu, aux: u16, x: Ext, y: Ext, more: u16) -> Res {
    let control = cpu.x87_control();
    let (op, a, b) = match aux {
        ADD => (Binary::Add, x, y),
        MUL => (Binary::Mul, x, y),
        SUB => (Binary::Sub, x, y),
        SUBR => (Binary::Sub, y, x),
        DIV => (Binary::Div, x, y),
        _ => (Binary::Div, y, x),
    };
    calc::arithmetic(op, a, b, more, control)
}

/// Register forms, with and without pop.
fn registers(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let done = if cpu.st_empty(op.dst) || cpu.st_empty(op.src) {
        let masked = cpu.stack_fault(false);
        if masked {
            cpu.set_st(op.dst, Ext::INDEFINITE);
        }
        masked
    } else {
        let res = compute(cpu, op.aux, cpu.st(op.dst), cpu.st(op.src), 0);
        cpu.finish(op.dst, res)
    };
    if done {
        cpu.pop(op.src2);
    }
    Ok(())
}

/// Memory forms.
fn memory(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let offset = cpu.ea_offset(op);
    let (y, more) = cpu.load_number(op)?;
    cpu.x87_begin_memory(op, offset);
    if cpu.st_empty(0) {
        underflow(cpu);
    } else {
        let res = compute(cpu, op.aux, cpu.st(0), y, more);
        cpu.finish(0, res);
    }
    Ok(())
}

/// ST(0) is empty, or another source is: ST(0) becomes indefinite.
#[cold]
fn underflow(cpu: &mut Cpu) {
    if cpu.stack_fault(false) {
        cpu.set_st(0, Ext::INDEFINITE);
    }
}

/// Replaces ST(0) by a function of it.
#[inline(always)]
fn replace(cpu: &mut Cpu, op: &Op, f: impl FnOnce(&Cpu, Ext) -> Res) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    if cpu.st_empty(0) {
        underflow(cpu);
    } else {
        let res = f(cpu, cpu.st(0));
        cpu.finish(0, res);
    }
    Ok(())
}

/// FABS, FCHS with `aux`.
fn sign(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let flip = op.aux != 0;
    replace(cpu, op, |_, a| {
        Res::exact(if flip { a.negated() } else { Ext { se: a.se & 0x7fff, ..a } })
    })
}

fn square_root(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    replace(cpu, op, |cpu, a| calc::square_root(a, cpu.x87_control()))
}

fn round(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    replace(cpu, op, |cpu, a| calc::round_to_integer(a, cpu.x87_control()))
}

fn exponential(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    replace(cpu, op, |cpu, a| trans::exp2_minus_1(a, cpu.x87_control()))
}

/// FSCALE.
fn scale(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    if cpu.st_empty(0) || cpu.st_empty(1) {
        underflow(cpu);
    } else {
        let res = calc::scale(cpu.st(0), cpu.st(1), cpu.x87_control());
        cpu.finish(0, res);
    }
    Ok(())
}

/// What a push onto ST(0)'s result needs: a value in ST(0) and room. Does the masked response otherwise.
fn one_to_two(cpu: &mut Cpu) -> bool {
    let empty = cpu.st_empty(0);
    if !empty && cpu.st_empty(7) {
        return true;
    }
    if cpu.stack_fault(!empty) {
        cpu.set_st(0, Ext::INDEFINITE);
        cpu.push(Ext::INDEFINITE);
    }
    false
}

/// FXTRACT.
fn extract(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    if one_to_two(cpu) {
        let (exponent, significand) = calc::extract(cpu.st(0));
        if cpu.finish(0, exponent) {
            cpu.push(significand);
        }
    }
    Ok(())
}

/// FPREM, FPREM1 with `aux`.
fn remainder(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    cpu.set_conditions(C2, 0);
    if cpu.st_empty(0) || cpu.st_empty(1) {
        underflow(cpu);
        return Ok(());
    }
    let control = cpu.x87_control();
    let (res, quotient) = calc::remainder(cpu.st(0), cpu.st(1), op.aux != 0, control);
    if cpu.finish(0, res) {
        let conditions = match quotient {
            Quotient::Partial => C2,
            Quotient::None => return Ok(()),
            Quotient::Bits(q) => [(4, C0), (2, C3), (1, C1)]
                .iter()
                .filter(|(bit, _)| q & bit != 0)
                .fold(0, |all, c| all | c.1),
        };
        cpu.set_conditions(C0 | C1 | C2 | C3, conditions);
    }
    Ok(())
}

/// FYL2X, FYL2XP1, FPATAN: ST(1) by a function of both, and a pop.
fn replace_two(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let done = if cpu.st_empty(0) || cpu.st_empty(1) {
        let masked = cpu.stack_fault(false);
        if masked {
            cpu.set_st(1, Ext::INDEFINITE);
        }
        masked
    } else {
        let (x, y, control) = (cpu.st(0), cpu.st(1), cpu.x87_control());
        let res = match op.aux {
            0 => trans::y_log2_x(x, y, control),
            1 => trans::y_log2_x_plus_1(x, y, control),
            _ => trans::arctangent(x, y, control),
        };
        cpu.finish(1, res)
    };
    if done {
        cpu.pop(op.src2);
    }
    Ok(())
}

/// FSIN, FCOS, FSINCOS, FPTAN. C2: the operand is out of range and stays.
fn trigonometric(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let pushes = op.aux >= 2;
    if pushes {
        if !one_to_two(cpu) {
            return Ok(());
        }
    } else if cpu.st_empty(0) {
        underflow(cpu);
        return Ok(());
    }
    let (a, control) = (cpu.st(0), cpu.x87_control());
    cpu.set_conditions(C2, 0);
    if matches!(a.class(), Class::Normal) && a.exponent() >= trans::TOO_FAR {
        cpu.set_conditions(C2, C2);
        return Ok(());
    }
    match op.aux {
        0 => {
            cpu.finish(0, trans::sine(a, control));
        }
        1 => {
            cpu.finish(0, trans::cosine(a, control));
        }
        2 => {
            let (sine, cosine) = (trans::sine(a, control), trans::cosine(a, control));
            let both = Res { flags: sine.flags | cosine.flags, ..sine };
            if cpu.finish(0, both) {
                cpu.push(cosine.value);
            }
        }
        _ => {
            let tangent = trans::tangent(a, control);
            if cpu.finish(0, tangent) {
                let nan = a.is_nan() || tangent.value == Ext::INDEFINITE;
                cpu.push(if nan { tangent.value } else { Ext::ONE });
            }
        }
    }
    Ok(())
}
