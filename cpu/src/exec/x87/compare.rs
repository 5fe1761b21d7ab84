//! Comparisons and FXAM.

use super::calc::{self, Relation};
use super::ext::{Class, Ext};
use super::unit::{C0, C1, C2, C3};
use super::{Form, Format};
use crate::flags::{AF, CF, OF, PF, SF, ZF};
use crate::op::Op;
use crate::{Cpu, Trap};
use iced_x86::Code;
use std::cmp::Ordering;

/// `aux`: only signaling NaNs are invalid.
const QUIET: u16 = 1;

pub(super) fn form(code: Code) -> Option<Form> {
    let memory = |format, pops| Some(Form::new(memory, 0).format(format).pops(pops));
    let registers = |aux, pops| Some(Form::new(registers, aux).pops(pops));
    let to_flags = |aux, pops| Some(Form::new(to_flags, aux).pops(pops));
    match code {
        Code::Fcom_m32fp => memory(Format::F32, 0),
        Code::Fcomp_m32fp => memory(Format::F32, 1),
        Code::Fcom_m64fp => memory(Format::F64, 0),
        Code::Fcomp_m64fp => memory(Format::F64, 1),
        Code::Ficom_m16int => memory(Format::I16, 0),
        Code::Ficomp_m16int => memory(Format::I16, 1),
        Code::Ficom_m32int => memory(Format::I32, 0),
        Code::Ficomp_m32int => memory(Format::I32, 1),
        Code::Fcom_st0_sti | Code::Fcom_st0_sti_DCD0 => registers(0, 0),
        Code::Fcomp_st0_sti | Code::Fcomp_st0_sti_DCD8 | Code::Fcomp_st0_sti_DED0 => {
            registers(0, 1)
        }
        Code::Fcompp => Some(Form::new(compare_pop_both, 0).pops(2)),
        Code::Fucom_st0_sti => registers(QUIET, 0),
        Code::Fucomp_st0_sti => registers(QUIET, 1),
        Code::Fucompp => Some(Form::new(compare_pop_both, QUIET).pops(2)),
        Code::Fcomi_st0_sti => to_flags(0, 0),
        Code::Fcomip_st0_sti => to_flags(0, 1),
        Code::Fucomi_st0_sti => to_flags(QUIET, 0),
        Code::Fucomip_st0_sti => to_flags(QUIET, 1),
        Code::Ftst => Some(Form::new(test, 0)),
        Code::Fxam => Some(Form::new(examine, 0)),
        _ => None,
    }
}

/// Condition codes of a comparison.
const fn conditions(relation: Relation) -> u16 {
    match relation {
        Relation::Unordered => C0 | C2 | C3,
        Relation::Ordered(Ordering::Less) => C0,
        Relation::Ordered(Ordering::Equal) => C3,
        Relation::Ordered(Ordering::Greater) => 0,
    }
}

/// Compares ST(0) with `b` (`None`: a register is empty) into the condition codes.
fn compare(cpu: &mut Cpu, op: &Op, b: Option<(Ext, u16)>) {
    let relation = match b {
        Some((b, more)) if !cpu.st_empty(0) => {
            let (relation, flags) = calc::compare(cpu.st(0), b, op.aux & QUIET != 0, more);
            cpu.x87_raise(flags).then_some(relation)
        }
        _ => cpu.stack_fault(false).then_some(Relation::Unordered),
    };
    if let Some(relation) = relation {
        cpu.set_conditions(C0 | C2 | C3, conditions(relation));
        cpu.pop(op.src2);
    }
}

fn memory(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let offset = cpu.ea_offset(op);
    let number = cpu.load_number(op)?;
    cpu.x87_begin_memory(op, offset);
    compare(cpu, op, Some(number));
    Ok(())
}

fn register(cpu: &Cpu, i: u8) -> Option<(Ext, u16)> {
    (!cpu.st_empty(i)).then(|| (cpu.st(i), 0))
}

fn registers(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let b = register(cpu, op.src);
    compare(cpu, op, b);
    Ok(())
}

/// FCOMPP, FUCOMPP.
fn compare_pop_both(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let b = register(cpu, 1);
    compare(cpu, op, b);
    Ok(())
}

/// FTST.
fn test(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    compare(cpu, op, Some((Ext::ZERO, 0)));
    Ok(())
}

/// F(U)COMI(P).
fn to_flags(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let relation = if cpu.st_empty(0) || cpu.st_empty(op.src) {
        cpu.stack_fault(false).then_some(Relation::Unordered)
    } else {
        let quiet = op.aux & QUIET != 0;
        let (relation, flags) = calc::compare(cpu.st(0), cpu.st(op.src), quiet, 0);
        cpu.x87_raise(flags).then_some(relation)
    };
    if let Some(relation) = relation {
        let flags = match relation {
            Relation::Unordered => ZF | PF | CF,
            Relation::Ordered(Ordering::Less) => CF,
            Relation::Ordered(Ordering::Equal) => ZF,
            Relation::Ordered(Ordering::Greater) => 0,
        };
        cpu.state.flags.set_some(ZF | PF | CF | OF | SF | AF, flags);
        cpu.pop(op.src2);
    }
    Ok(())
}

/// FXAM.
fn examine(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let a = cpu.st(0);
    let class = if cpu.st_empty(0) {
        C3 | C0
    } else {
        match a.class() {
            Class::Unsupported => 0,
            Class::Quiet | Class::Signaling => C0,
            Class::Normal => C2,
            Class::Infinity => C2 | C0,
            Class::Zero => C3,
            Class::Denormal => C3 | C2,
        }
    };
    let sign = if a.negative() { C1 } else { 0 };
    cpu.set_conditions(C0 | C1 | C2 | C3, class | sign);
    Ok(())
}
