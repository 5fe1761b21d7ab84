//! Single flags, LAHF, SAHF; instructions that do nothing; UD0, UD1, UD2.

use super::int::Int;
use super::operand::base_op;
use crate::flags::{AF, CF, DF, PF, SF, ZF};
use crate::op::{ENDS_BLOCK, Exec, HIGH_BYTE, Op};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic};

fn nop(_: &mut Cpu, _: &Op) -> Result<(), Trap> {
    Ok(())
}

fn clc(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.state.flags.set_cf(false);
    Ok(())
}

fn stc(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.state.flags.set_cf(true);
    Ok(())
}

fn cmc(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let cf = cpu.state.flags.cf();
    cpu.state.flags.set_cf(!cf);
    Ok(())
}

fn cld(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.state.flags.other &= !DF;
    Ok(())
}

fn std(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.state.flags.other |= DF;
    Ok(())
}

const AH_FLAGS: u64 = CF | PF | AF | ZF | SF;

fn lahf(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let image = cpu.state.flags.arith() & AH_FLAGS | 2;
    u8::set(&mut cpu.state, HIGH_BYTE, image as u8);
    Ok(())
}

fn sahf(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let image = u8::get(&cpu.state, HIGH_BYTE).u();
    cpu.state.flags.set_some(AH_FLAGS, image);
    Ok(())
}

/// An opcode that is invalid by definition; unlike an unknown one it is not counted.
/// CLFLUSH: no cache to flush, but it faults as a load of a byte does.
fn flush_line(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.load_op::<u8>(op).map(|_| ())
}

fn undefined(_: &mut Cpu, _: &Op) -> Result<(), Trap> {
    Err(Trap::UD)
}

/// The class. Cache control, fences and prefetches do nothing: there are no caches to speak of, and
/// memory is coherent. Control-flow enforcement is hidden, so ENDBR and RDSSP are the NOPs they were.
pub fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    let exec: Exec = match ins.mnemonic() {
        M::Nop | M::Reservednop | M::Pause | M::Endbr32 | M::Endbr64 | M::Rdsspd | M::Rdsspq => nop,
        M::Prefetch | M::Prefetchw | M::Prefetchwt1 | M::Prefetchnta => nop,
        M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 => nop,
        M::Clflush => flush_line,
        M::Cldemote | M::Lfence | M::Mfence | M::Sfence => nop,
        M::Clc => clc,
        M::Stc => stc,
        M::Cmc => cmc,
        M::Cld => cld,
        M::Std => std,
        M::Lahf => lahf,
        M::Sahf => sahf,
        M::Ud0 | M::Ud1 | M::Ud2 => undefined,
        _ => return None,
    };
    let mut op = base_op(ins, exec);
    if matches!(ins.mnemonic(), M::Ud0 | M::Ud1 | M::Ud2) {
        op.flags |= ENDS_BLOCK;
    }
    Some(op)
}
