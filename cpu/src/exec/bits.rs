//! BT, BTS, BTR, BTC, BSF, BSR, POPCNT, CRC32.
//!
//! What the manual leaves open follows the hardware: bit tests change CF alone, scans ZF alone, and a
//! scan of zero leaves all 64 bits of its destination as they were.

use super::int::{Int, Widths, widths};
use super::operand::{Arg, arg, arg_size, int_op};
use crate::op::{Exec, Op};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic};

/// What becomes of the tested bit: the word and the bit's mask give the new word.
trait Change: 'static {
    const WRITES: bool = true;
    fn run(word: u64, mask: u64) -> u64;
}

struct Keep;
impl Change for Keep {
    const WRITES: bool = false;
    #[inline(always)]
    fn run(word: u64, _: u64) -> u64 {
        word
    }
}
struct Set;
impl Change for Set {
    #[inline(always)]
    fn run(word: u64, mask: u64) -> u64 {
        word | mask
    }
}
struct Reset;
impl Change for Reset {
    #[inline(always)]
    fn run(word: u64, mask: u64) -> u64 {
        word & !mask
    }
}
struct Complement;
impl Change for Complement {
    #[inline(always)]
    fn run(word: u64, mask: u64) -> u64 {
        word ^ mask
    }
}

#[inline(always)]
fn mask_of<T: Int>(offset: u64) -> u64 {
    1 << (offset & u64::from(T::BITS - 1))
}

#[inline(always)]
fn register<C: Change, T: Int>(cpu: &mut Cpu, op: &Op, offset: u64) {
    let word = T::get(&cpu.state, op.dst).u();
    let mask = mask_of::<T>(offset);
    cpu.state.flags.set_cf(word & mask != 0);
    if C::WRITES {
        T::set(&mut cpu.state, op.dst, T::cut(C::run(word, mask)));
    }
}

#[inline(always)]
fn memory<C: Change, T: Int>(cpu: &mut Cpu, op: &Op, offset: u64) -> Result<(), Trap> {
    let mask = mask_of::<T>(offset);
    let word = if C::WRITES {
        let (va, word): (u64, T) = cpu.load_op_for_update(op)?;
        cpu.store(va, T::cut(C::run(word.u(), mask)))?;
        word
    } else {
        cpu.load_op::<T>(op)?
    };
    cpu.state.flags.set_cf(word.u() & mask != 0);
    Ok(())
}

fn rr<C: Change, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let offset = T::get(&cpu.state, op.src).u();
    register::<C, T>(cpu, op, offset);
    Ok(())
}

fn ri<C: Change, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    register::<C, T>(cpu, op, op.imm);
    Ok(())
}

/// The bit offset in a register is signed and reaches beyond the operand.
fn mr<C: Change, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let offset = T::get(&cpu.state, op.src).s();
    let words = offset >> T::BITS.trailing_zeros();
    let mut op = *op;
    op.disp = op.disp.wrapping_add((words as u64).wrapping_mul(T::BYTES));
    memory::<C, T>(cpu, &op, offset as u64)
}

fn mi<C: Change, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    memory::<C, T>(cpu, op, op.imm)
}

fn test<C: Change>(ins: &Instruction) -> Option<Exec> {
    let forms: Widths = match (arg(ins, 0)?, arg(ins, 1)?) {
        (Arg::Reg, Arg::Reg) => widths!(rr::<C>),
        (Arg::Reg, _) => widths!(ri::<C>),
        (_, Arg::Reg) => widths!(mr::<C>),
        _ => widths!(mi::<C>),
    };
    Some(forms.of(arg_size(ins, 0)))
}

#[inline(always)]
fn source<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<T, Trap> {
    if MEM { cpu.load_op(op) } else { Ok(T::get(&cpu.state, op.src)) }
}

fn bsf<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let word = source::<MEM, T>(cpu, op)?.u();
    cpu.state.flags.set_zf(word == 0);
    if word != 0 {
        T::set(&mut cpu.state, op.dst, T::cut(word.trailing_zeros().into()));
    }
    Ok(())
}

fn bsr<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let word = source::<MEM, T>(cpu, op)?.u();
    cpu.state.flags.set_zf(word == 0);
    if word != 0 {
        T::set(&mut cpu.state, op.dst, T::cut((63 - word.leading_zeros()).into()));
    }
    Ok(())
}

fn popcnt<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let word = source::<MEM, T>(cpu, op)?.u();
    T::set(&mut cpu.state, op.dst, T::cut(word.count_ones().into()));
    cpu.state.flags.set_arith(if word == 0 { crate::flags::ZF } else { 0 });
    Ok(())
}

/// The Castagnoli polynomial, bits reversed.
const CRC_POLYNOMIAL: u32 = 0x82f6_3b78;

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { CRC_POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// The upper half of a 64-bit destination is cleared; no flag changes.
fn crc32<const MEM: bool, T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let word = source::<MEM, T>(cpu, op)?.u();
    let mut crc = u32::get(&cpu.state, op.dst);
    for byte in &word.to_le_bytes()[..T::SIZE] {
        crc = crc >> 8 ^ CRC_TABLE[usize::from(crc as u8 ^ byte)];
    }
    u32::set(&mut cpu.state, op.dst, crc);
    Ok(())
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    macro_rules! from_source {
        ($size:expr, $f:ident) => {
            match arg(ins, 1)? {
                Arg::Mem => widths!($f::<true>).of($size),
                _ => widths!($f::<false>).of($size),
            }
        };
    }
    let exec = match ins.mnemonic() {
        Mnemonic::Bt => test::<Keep>(ins)?,
        Mnemonic::Bts => test::<Set>(ins)?,
        Mnemonic::Btr => test::<Reset>(ins)?,
        Mnemonic::Btc => test::<Complement>(ins)?,
        Mnemonic::Bsf => from_source!(arg_size(ins, 0), bsf),
        Mnemonic::Bsr => from_source!(arg_size(ins, 0), bsr),
        Mnemonic::Popcnt => from_source!(arg_size(ins, 0), popcnt),
        Mnemonic::Crc32 => from_source!(arg_size(ins, 1), crc32),
        _ => return None,
    };
    Some(int_op(ins, exec))
}
