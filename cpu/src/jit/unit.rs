//! Translation of one block into one unit of host code.

use super::emit::{Common, Emitter, Site, Slot};
use super::{Mode, branch, integer, shift, stack, vector};
use crate::op::{CHAINS, ENDS_BLOCK, Op};
use iced_x86::{Instruction, Mnemonic, OpKind, RflagsBits};

/// A block to translate.
#[derive(Debug)]
pub struct Source<'a> {
    /// Its instructions, decoded as if their page lay at [`super::PAGE_AT`].
    pub instructions: &'a [Instruction],
    /// The same for the interpreter.
    pub ops: &'a [Op],
    /// Index that the unit is going to have.
    pub unit: u32,
    /// Number of its first site and slot.
    pub first: (u32, u32),
    /// What it may assume.
    pub mode: Mode,
}

/// A translated block.
#[derive(Debug)]
pub struct Code {
    /// Host code.
    pub bytes: Vec<u8>,
    /// Offset of the entry.
    pub entry: usize,
    /// Calls for help.
    pub sites: Vec<Site>,
    /// Patchable jumps, by offset.
    pub slots: Vec<Slot>,
    /// How many of the instructions are translated, not left to the interpreter.
    pub translated: usize,
}

/// The six arithmetic flags.
const ARITH: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// Translates a block for execution at `address`.
pub fn translate(source: &Source<'_>, address: usize, common: Common) -> Code {
    let Source { instructions, ops, unit, first, mode } = *source;
    let count = instructions.len();
    let mut e = Emitter::new(address, common, mode, unit, first);
    let start = super::offset_of(instructions[0].ip());
    let entry = e.entry(start, count as i32);
    let mut translated = 0;
    for (i, (ins, op)) in instructions.iter().zip(ops).enumerate() {
        let next = super::offset_of(ins.ip()) + ins.len() as i32;
        e.begin(i as u8, (count - i) as u8, next as u16);
        if sees_pending(ins) {
            e.resolve();
        }
        let dead = flags_are_dead(&instructions[i + 1..]);
        let done = if op.flags & ENDS_BLOCK != 0 {
            op.flags & CHAINS != 0 && branch::translate(&mut e, ins, next)
        } else {
            integer::translate(&mut e, ins, dead)
                || shift::translate(&mut e, ins, dead)
                || stack::translate(&mut e, ins)
                || vector::translate(&mut e, ins)
        };
        if done {
            translated += 1;
            if replaces_flags(ins) {
                e.pending = super::emit::Pending::None;
            }
        } else {
            e.interpret();
        }
        e.end();
        if i + 1 == count && op.flags & ENDS_BLOCK == 0 {
            e.settle();
            e.go(next);
        }
    }
    let (bytes, sites, slots) = e.finish();
    Code { bytes, entry, sites, slots, translated }
}

/// True if the instruction could tell a flag that is still to be corrected, or keeps some of the flags and
/// changes others.
fn sees_pending(ins: &Instruction) -> bool {
    let (read, modified) = (ins.rflags_read() & ARITH, ins.rflags_modified() & ARITH);
    read & (RflagsBits::OF | RflagsBits::AF) != 0
        || modified != 0 && (modified != ARITH || keeps_flags_at_times(ins))
}

/// Shifts change no flag if their count is 0; multiplications and scans change some only.
fn keeps_flags_at_times(ins: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        ins.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd | M::Rol | M::Ror | M::Rcl | M::Rcr
    ) && !matches!(ins.op_kind(1), OpKind::Immediate8)
        || matches!(
            ins.mnemonic(),
            M::Mul
                | M::Imul
                | M::Div
                | M::Idiv
                | M::Bsf
                | M::Bsr
                | M::Bt
                | M::Bts
                | M::Btr
                | M::Btc
        )
        || matches!(ins.mnemonic(), M::Shld | M::Shrd | M::Rol | M::Ror | M::Rcl | M::Rcr)
}

/// True if all six flags are the instruction's own afterwards, as the architecture defines them (AF after
/// the logic operations: clear, which every host that the translator runs on agrees to).
fn replaces_flags(ins: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        ins.mnemonic(),
        M::Add
            | M::Adc
            | M::Sub
            | M::Sbb
            | M::Cmp
            | M::And
            | M::Or
            | M::Xor
            | M::Test
            | M::Neg
            | M::Xadd
            | M::Cmpxchg
            | M::Popcnt
            | M::Comiss
            | M::Comisd
            | M::Ucomiss
            | M::Ucomisd
    )
}

/// True if the flags are replaced by one of the instructions that follow before anybody can see them: no
/// instruction in between reads them, can fault, or ends the unit.
fn flags_are_dead(rest: &[Instruction]) -> bool {
    for ins in rest {
        if ins.rflags_read() & ARITH != 0 || can_leave(ins) {
            return false;
        }
        if replaces_flags(ins) {
            return true;
        }
    }
    false
}

/// True unless it is one of the plain instructions on registers.
fn can_leave(ins: &Instruction) -> bool {
    use Mnemonic as M;
    let memory = (0..ins.op_count()).any(|n| ins.op_kind(n) == OpKind::Memory);
    let plain = matches!(
        ins.mnemonic(),
        M::Mov
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Add
            | M::Sub
            | M::Cmp
            | M::And
            | M::Or
            | M::Xor
            | M::Test
            | M::Neg
            | M::Not
            | M::Inc
            | M::Dec
            | M::Bswap
            | M::Cdqe
            | M::Cwde
            | M::Cqo
            | M::Cdq
    );
    let general = (0..ins.op_count()).all(|n| {
        ins.op_kind(n) != OpKind::Register
            || ins.op_register(n).is_gpr() && !super::regs::is_high_byte(ins.op_register(n))
    });
    if ins.mnemonic() == M::Lea {
        return !general;
    }
    memory || !plain || !general
}
