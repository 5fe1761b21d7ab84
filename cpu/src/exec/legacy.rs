//! What exists outside 64-bit mode only: DAA, DAS, AAA, AAS, AAM, AAD, BOUND, SALC.
//!
//! What the manual leaves open: AAA and AAS set SF, ZF and PF by AL and clear OF; DAA and DAS clear OF;
//! AAM and AAD clear CF, OF and AF.

use super::int::Int;
use super::operand::int_op;
use crate::flags::{AF, CF};
use crate::op::{Exec, HIGH_BYTE, Op};
use crate::state::RAX;
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic};

const AL: u8 = RAX as u8;
const AH: u8 = HIGH_BYTE;
const BR: Trap = Trap::new(5);

fn decimal<const SUBTRACT: bool>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let old = u8::get(&cpu.state, AL);
    let flags = &mut cpu.state.flags;
    let (old_cf, old_af) = (flags.cf(), flags.af());
    let step = |al: u8, by: u8| if SUBTRACT { al.wrapping_sub(by) } else { al.wrapping_add(by) };
    let mut al = old;
    let low = old & 15 > 9 || old_af;
    // DAS: the borrow of the low digit counts as a carry too.
    let mut cf = SUBTRACT && (old_cf || low && old < 6);
    if low {
        al = step(al, 6);
    }
    if old > 0x99 || old_cf {
        al = step(al, 0x60);
        cf = true;
    }
    flags.set_logic(al.into(), 8);
    flags.set_some(CF | AF, if cf { CF } else { 0 } | if low { AF } else { 0 });
    u8::set(&mut cpu.state, AL, al);
    Ok(())
}

fn ascii<const SUBTRACT: bool>(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let ax = u16::get(&cpu.state, AL);
    let adjust = ax & 15 > 9 || cpu.state.flags.af();
    let moved = match (adjust, SUBTRACT) {
        (false, _) => ax,
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(0x106),
    };
    let ax = moved & 0xff0f;
    cpu.state.flags.set_logic(ax.into(), 8);
    cpu.state.flags.set_some(CF | AF, if adjust { CF | AF } else { 0 });
    u16::set(&mut cpu.state, AL, ax);
    Ok(())
}

fn aam(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (al, base) = (u8::get(&cpu.state, AL), op.imm as u8);
    if base == 0 {
        return Err(Trap::DE);
    }
    u8::set(&mut cpu.state, AH, al / base);
    u8::set(&mut cpu.state, AL, al % base);
    cpu.state.flags.set_logic((al % base).into(), 8);
    Ok(())
}

fn aad(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let (al, ah) = (u8::get(&cpu.state, AL), u8::get(&cpu.state, AH));
    let al = al.wrapping_add(ah.wrapping_mul(op.imm as u8));
    u16::set(&mut cpu.state, AL, al.into());
    cpu.state.flags.set_logic(al.into(), 8);
    Ok(())
}

/// AL = all ones if CF, else zero. Not in the manual, on every CPU.
fn salc(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let value = if cpu.state.flags.cf() { 0xff } else { 0 };
    u8::set(&mut cpu.state, AL, value);
    Ok(())
}

fn bound<T: Int, P: crate::Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let pair = cpu.load_op::<P>(op)?.to_wide() as u64;
    let index = T::get(&cpu.state, op.dst).s();
    let (lower, upper) = (T::cut(pair).s(), T::cut(pair >> T::BITS).s());
    if index < lower || index > upper { Err(BR) } else { Ok(()) }
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    let exec: Exec = match ins.mnemonic() {
        Mnemonic::Daa => decimal::<false>,
        Mnemonic::Das => decimal::<true>,
        Mnemonic::Aaa => ascii::<false>,
        Mnemonic::Aas => ascii::<true>,
        Mnemonic::Aam => aam,
        Mnemonic::Aad => aad,
        Mnemonic::Salc => salc,
        Mnemonic::Bound if ins.op_register(0).size() == 2 => bound::<u16, u32>,
        Mnemonic::Bound => bound::<u32, u64>,
        _ => return None,
    };
    Some(int_op(ins, exec))
}
