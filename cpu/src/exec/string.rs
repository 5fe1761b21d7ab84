//! MOVS, STOS, LODS, CMPS, SCAS, and the frame of all string instructions.
//!
//! A repeated instruction goes on in chunks: one call of its handler executes elements up to the end of
//! the page of either operand and comes back to the run loop, which may take an interrupt there. The
//! chunks follow from the guest's state alone, so they are the same on every run.

use super::bulk;
use super::int::{Int, Widths, widths};
use super::operand::{base_op, segment_number};
use crate::flags::DF;
use crate::op::{EA_ADDR16, EA_ADDR32, EA_LEGACY, Exec, Op, REP, REPNE};
use crate::ram::PAGE;
use crate::state::{DS, ES, FLAT, FS, GS, RAX, RCX, RDI, RIP, RSI};
use crate::{Cpu, Trap};
use iced_x86::{Code, CodeSize, Instruction, OpKind};

/// The instruction reads at rSI.
pub const SOURCE: u8 = 1;
/// The instruction reads or writes at ES:rDI.
pub const TARGET: u8 = 2;

/// A register cut to the address size.
#[inline(always)]
fn address_register(cpu: &Cpu, op: &Op, reg: usize) -> u64 {
    let value = cpu.state.regs[reg];
    if op.flags & EA_ADDR16 != 0 {
        value & 0xffff
    } else if op.flags & EA_ADDR32 != 0 {
        value & 0xffff_ffff
    } else {
        value
    }
}

#[inline(always)]
fn set_address_register(cpu: &mut Cpu, op: &Op, reg: usize, value: u64) {
    if op.flags & EA_ADDR16 != 0 {
        u16::set(&mut cpu.state, reg as u8, value as u16);
    } else if op.flags & EA_ADDR32 != 0 {
        u32::set(&mut cpu.state, reg as u8, value as u32);
    } else {
        cpu.state.regs[reg] = value;
    }
}

/// Linear addresses of the current elements at rSI and rDI (0 where the instruction has none).
#[inline(always)]
fn places<const USES: u8>(cpu: &Cpu, op: &Op, size: u64) -> Result<(u64, u64), Trap> {
    let legacy = op.flags & EA_LEGACY != 0;
    let source = if USES & SOURCE != 0 {
        cpu.linear(usize::from(op.seg), address_register(cpu, op, RSI), legacy, size)?
    } else {
        0
    };
    let target = if USES & TARGET != 0 {
        cpu.linear(usize::from(op.aux), address_register(cpu, op, RDI), legacy, size)?
    } else {
        0
    };
    Ok((source, target))
}

/// Moves rSI and rDI by `count` elements of `size` bytes in the direction that DF says.
#[inline(always)]
fn advance<const USES: u8>(cpu: &mut Cpu, op: &Op, size: u64, count: u64) {
    let mut by = size.wrapping_mul(count);
    if cpu.state.flags.has(DF) {
        by = by.wrapping_neg();
    }
    if USES & SOURCE != 0 {
        let to = address_register(cpu, op, RSI).wrapping_add(by);
        set_address_register(cpu, op, RSI, to);
    }
    if USES & TARGET != 0 {
        let to = address_register(cpu, op, RDI).wrapping_add(by);
        set_address_register(cpu, op, RDI, to);
    }
}

/// Elements from `va` on, in the direction of the string, that lie whole in its page; at least 1.
const fn elements_in_page(va: u64, size: u64, down: bool) -> u64 {
    let offset = va % PAGE;
    let n = if !down {
        (PAGE - offset) / size
    } else if offset + size > PAGE {
        1
    } else {
        offset / size + 1
    };
    if n == 0 { 1 } else { n }
}

/// The instruction stays at RIP with the rest to do: one more chunk is done.
fn unfinished(cpu: &mut Cpu, op: &Op) {
    cpu.state.regs[RIP] = cpu.state.regs[RIP].wrapping_sub(u64::from(op.len));
    cpu.state.retired -= 1;
    cpu.state.rep += 1;
    cpu.block_stop = true;
}

/// Runs a string instruction with its prefixes, one chunk if it is repeated. `element` handles one
/// element at the given linear addresses (of rSI, of rDI) and says whether to go on; it must not change
/// anything if it fails. `many` may handle the given number of elements at once, all inside their pages,
/// in ascending order, and says whether it did.
#[inline(always)]
pub fn repeat<const USES: u8>(
    cpu: &mut Cpu,
    op: &Op,
    size: u64,
    mut element: impl FnMut(&mut Cpu, u64, u64) -> Result<bool, Trap>,
    many: impl FnOnce(&mut Cpu, u64, u64, u64) -> Result<bool, Trap>,
) -> Result<(), Trap> {
    if op.flags & (REP | REPNE) == 0 {
        let (source, target) = places::<USES>(cpu, op, size)?;
        element(cpu, source, target)?;
        advance::<USES>(cpu, op, size, 1);
        return Ok(());
    }
    let mut left = address_register(cpu, op, RCX);
    if left == 0 {
        cpu.state.rep = 0;
        return Ok(());
    }
    let (source, target) = places::<USES>(cpu, op, size)?;
    let down = cpu.state.flags.has(DF);
    let mut chunk = left;
    if USES & SOURCE != 0 {
        chunk = chunk.min(elements_in_page(source, size, down));
    }
    if USES & TARGET != 0 {
        chunk = chunk.min(elements_in_page(target, size, down));
    }
    // Chunks of one element may straddle pages; the others lie inside.
    let simple = op.flags & (EA_ADDR16 | EA_ADDR32 | EA_LEGACY) == 0 && !down && chunk > 1;
    if simple && many(cpu, source, target, chunk)? {
        advance::<USES>(cpu, op, size, chunk);
        left -= chunk;
        set_address_register(cpu, op, RCX, left);
    } else {
        for _ in 0..chunk {
            let (source, target) = places::<USES>(cpu, op, size)?;
            let go_on = element(cpu, source, target)?;
            advance::<USES>(cpu, op, size, 1);
            left -= 1;
            set_address_register(cpu, op, RCX, left);
            if !go_on {
                left = 0;
                break;
            }
        }
    }
    if left == 0 {
        cpu.state.rep = 0;
    } else {
        unfinished(cpu, op);
    }
    Ok(())
}

/// For `repeat`: this instruction has no way to do many elements at once.
pub fn one_by_one(_: &mut Cpu, _: u64, _: u64, _: u64) -> Result<bool, Trap> {
    Ok(false)
}

fn movs<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    repeat::<{ SOURCE | TARGET }>(
        cpu,
        op,
        T::BYTES,
        |cpu, source, target| {
            let value: T = cpu.load(source)?;
            cpu.store(target, value)?;
            Ok(true)
        },
        |cpu, source, target, n| bulk::copy::<T>(cpu, source, target, n as usize),
    )
}

fn stos<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = T::get(&cpu.state, RAX as u8);
    repeat::<TARGET>(
        cpu,
        op,
        T::BYTES,
        |cpu, _, target| {
            cpu.store(target, value)?;
            Ok(true)
        },
        |cpu, _, target, n| bulk::fill(cpu, target, value, n as usize),
    )
}

fn lods<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    repeat::<SOURCE>(
        cpu,
        op,
        T::BYTES,
        |cpu, source, _| {
            let value: T = cpu.load(source)?;
            T::set(&mut cpu.state, RAX as u8, value);
            Ok(true)
        },
        one_by_one,
    )
}

/// Compares like CMP; says whether REPE or REPNE goes on.
#[inline(always)]
fn compare<T: Int>(cpu: &mut Cpu, op: &Op, a: T, b: T) -> bool {
    cpu.state.flags.set_sub(a.u(), b.u(), a.u().wrapping_sub(b.u()), T::BITS);
    (a == b) == (op.flags & REPNE == 0)
}

fn cmps<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    repeat::<{ SOURCE | TARGET }>(
        cpu,
        op,
        T::BYTES,
        |cpu, source, target| {
            let a: T = cpu.load(source)?;
            let b: T = cpu.load(target)?;
            Ok(compare(cpu, op, a, b))
        },
        one_by_one,
    )
}

fn scas<T: Int>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let a = T::get(&cpu.state, RAX as u8);
    repeat::<TARGET>(
        cpu,
        op,
        T::BYTES,
        |cpu, _, target| {
            let b: T = cpu.load(target)?;
            Ok(compare(cpu, op, a, b))
        },
        one_by_one,
    )
}

/// The decoded form of a string instruction: segment of rSI in `seg`, of rDI in `aux`, address size in
/// the flags.
pub fn string_op(ins: &Instruction, exec: Exec) -> Op {
    let mut op = base_op(ins, exec);
    let legacy = ins.code_size() != CodeSize::Code64;
    for n in 0..ins.op_count() {
        match ins.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => op.flags |= EA_ADDR16,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => op.flags |= EA_ADDR32,
            _ => {}
        }
    }
    let source = match segment_number(ins.memory_segment()) {
        FLAT => DS,
        seg => seg,
    };
    if legacy {
        op.flags |= EA_LEGACY;
        op.seg = source as u8;
        op.aux = ES as u16;
    } else {
        op.seg = if matches!(source, FS | GS) { source as u8 } else { FLAT as u8 };
        op.aux = FLAT as u16;
    }
    op
}

/// The class.
pub fn select(ins: &Instruction) -> Option<Op> {
    // By code: MOVSD and CMPSD are also mnemonics of SSE2.
    let (handlers, size): (Widths, u8) = match ins.code() {
        Code::Movsb_m8_m8 => (widths!(movs), 1),
        Code::Movsw_m16_m16 => (widths!(movs), 2),
        Code::Movsd_m32_m32 => (widths!(movs), 4),
        Code::Movsq_m64_m64 => (widths!(movs), 8),
        Code::Stosb_m8_AL => (widths!(stos), 1),
        Code::Stosw_m16_AX => (widths!(stos), 2),
        Code::Stosd_m32_EAX => (widths!(stos), 4),
        Code::Stosq_m64_RAX => (widths!(stos), 8),
        Code::Lodsb_AL_m8 => (widths!(lods), 1),
        Code::Lodsw_AX_m16 => (widths!(lods), 2),
        Code::Lodsd_EAX_m32 => (widths!(lods), 4),
        Code::Lodsq_RAX_m64 => (widths!(lods), 8),
        Code::Cmpsb_m8_m8 => (widths!(cmps), 1),
        Code::Cmpsw_m16_m16 => (widths!(cmps), 2),
        Code::Cmpsd_m32_m32 => (widths!(cmps), 4),
        Code::Cmpsq_m64_m64 => (widths!(cmps), 8),
        Code::Scasb_AL_m8 => (widths!(scas), 1),
        Code::Scasw_AX_m16 => (widths!(scas), 2),
        Code::Scasd_EAX_m32 => (widths!(scas), 4),
        Code::Scasq_RAX_m64 => (widths!(scas), 8),
        _ => return None,
    };
    Some(string_op(ins, handlers.of(size)))
}
