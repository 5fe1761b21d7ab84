//! Whole chunks of REP MOVS and REP STOS through host memory.
#![allow(unsafe_code)]
// Reason: copying element by element through the TLB costs ten times as much. Obligation: the caller
// asks for no more bytes than lie in the page of either operand; `bulk_read` and `bulk_write` give the
// host address of the first byte in a page of guest RAM, which stays mapped as long as the CPU lives.

use super::int::Int;
use crate::ram::PAGE;
use crate::{Cpu, Trap};

/// Checks the obligation above.
fn in_page(va: u64, bytes: usize) {
    assert!((va % PAGE) as usize + bytes <= PAGE as usize, "a chunk stays inside its pages");
}

/// Copies `count` elements upwards, each read after the one before it is written. False, and nothing
/// done, if one of the operands is no RAM.
pub fn copy<T: Int>(cpu: &mut Cpu, from: u64, to: u64, count: usize) -> Result<bool, Trap> {
    let bytes = count * T::SIZE;
    in_page(from, bytes);
    in_page(to, bytes);
    let Some(source) = cpu.bulk_read(from)? else { return Ok(false) };
    let Some(target) = cpu.bulk_write(to)? else { return Ok(false) };
    let ahead = (target as usize).wrapping_sub(source as usize);
    if ahead >= bytes {
        // SAFETY: both ranges lie in guest RAM. The target is below the source or does not overlap it,
        // so that moving all at once reads no byte that an element before it has written.
        unsafe { std::ptr::copy(source, target, bytes) };
        return Ok(true);
    }
    for n in 0..count {
        // SAFETY: element `n` lies inside both ranges; no alignment is assumed.
        unsafe {
            let value = source.cast::<T>().add(n).read_unaligned();
            target.cast::<T>().add(n).write_unaligned(value);
        }
    }
    Ok(true)
}

/// Fills `count` elements with a value. False, and nothing done, if the operand is no RAM.
pub fn fill<T: Int>(cpu: &mut Cpu, to: u64, value: T, count: usize) -> Result<bool, Trap> {
    in_page(to, count * T::SIZE);
    let Some(target) = cpu.bulk_write(to)? else { return Ok(false) };
    let bytes = value.u().to_le_bytes();
    if bytes[..T::SIZE].iter().all(|b| *b == bytes[0]) {
        // SAFETY: the range lies in guest RAM.
        unsafe { target.write_bytes(bytes[0], count * T::SIZE) };
        return Ok(true);
    }
    for n in 0..count {
        // SAFETY: element `n` lies inside the range; no alignment is assumed.
        unsafe { target.cast::<T>().add(n).write_unaligned(value) };
    }
    Ok(true)
}
