//! Shuffles, packing and unpacking, inserting and extracting words.

use super::Forms;
use super::integer::{horizontal16, horizontal32};
use super::lanes::*;
use crate::op::Op;
use crate::{Cpu, Trap};
use iced_x86::Code;

/// An MMX instruction whose function takes the two operands as one 16-byte value, twice: the low half of
/// the result is then what the 8-byte instruction gives.
macro_rules! joined {
    ($f:expr) => {
        mmx!(|a: u128, b: u128| ($f)(a | b << 64, a | b << 64))
    };
}

/// The high unpacking of 8 bytes is the high half of the low unpacking of 16.
macro_rules! high_half {
    ($f:expr) => {
        mmx!(|a, b| $f(a, b) >> 64)
    };
}

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Pshufd_xmm_xmmm128_imm8 => packed_imm!(|_, b, i| pshufd(b, b, i)),
        Code::Pshuflw_xmm_xmmm128_imm8 => packed_imm!(|_, b, i| {
            b & !u128::from(u64::MAX) | u128::from(shuffle_words(b as u64, i))
        }),
        Code::Pshufhw_xmm_xmmm128_imm8 => packed_imm!(|_, b, i| {
            b & u128::from(u64::MAX) | u128::from(shuffle_words((b >> 64) as u64, i)) << 64
        }),
        Code::Pshufw_mm_mmm64_imm8 => {
            mmx_forms!(u64, |_, b, i| shuffle_words(b as u64, i).into())
        }
        Code::Shufps_xmm_xmmm128_imm8 => packed_imm!(pshufd),
        Code::Shufpd_xmm_xmmm128_imm8 => packed_imm!(|a, b, i| {
            let (a, b) = (to_u64(a), to_u64(b));
            from_u64([a[usize::from(i & 1)], b[usize::from(i >> 1 & 1)]])
        }),
        Code::Punpcklbw_xmm_xmmm128 => packed!(punpcklbw),
        Code::Punpcklwd_xmm_xmmm128 => packed!(punpcklwd),
        Code::Punpckldq_xmm_xmmm128 | Code::Unpcklps_xmm_xmmm128 => packed!(punpckldq),
        Code::Punpcklqdq_xmm_xmmm128 | Code::Unpcklpd_xmm_xmmm128 => packed!(punpcklqdq),
        Code::Punpckhbw_xmm_xmmm128 => packed!(punpckhbw),
        Code::Punpckhwd_xmm_xmmm128 => packed!(punpckhwd),
        Code::Punpckhdq_xmm_xmmm128 | Code::Unpckhps_xmm_xmmm128 => packed!(punpckhdq),
        Code::Punpckhqdq_xmm_xmmm128 | Code::Unpckhpd_xmm_xmmm128 => packed!(punpckhqdq),
        Code::Packsswb_xmm_xmmm128 => packed!(packsswb),
        Code::Packuswb_xmm_xmmm128 => packed!(packuswb),
        Code::Packssdw_xmm_xmmm128 => packed!(packssdw),
        Code::Packusdw_xmm_xmmm128 => packed!(packusdw),
        Code::Punpcklbw_mm_mmm32 => mmx_forms!(u32, |a, b, _| punpcklbw(a, b)),
        Code::Punpcklwd_mm_mmm32 => mmx_forms!(u32, |a, b, _| punpcklwd(a, b)),
        Code::Punpckldq_mm_mmm32 => mmx_forms!(u32, |a, b, _| punpckldq(a, b)),
        Code::Punpckhbw_mm_mmm64 => high_half!(punpcklbw),
        Code::Punpckhwd_mm_mmm64 => high_half!(punpcklwd),
        Code::Punpckhdq_mm_mmm64 => high_half!(punpckldq),
        Code::Packsswb_mm_mmm64 => joined!(packsswb),
        Code::Packuswb_mm_mmm64 => joined!(packuswb),
        Code::Packssdw_mm_mmm64 => joined!(packssdw),
        Code::Pshufb_xmm_xmmm128 => packed!(pshufb),
        Code::Pshufb_mm_mmm64 => mmx!(|a, b| pshufb(a, b & 0x8787_8787_8787_8787)),
        Code::Palignr_xmm_xmmm128_imm8 => packed_imm!(palignr),
        Code::Palignr_mm_mmm64_imm8 => {
            mmx_forms!(u64, |a, b, i| { if i < 16 { (a << 64 | b) >> (8 * i) } else { 0 } })
        }
        Code::Phaddw_xmm_xmmm128 => packed!(|a, b| horizontal16(a, b, i16::wrapping_add)),
        Code::Phaddsw_xmm_xmmm128 => packed!(|a, b| horizontal16(a, b, i16::saturating_add)),
        Code::Phsubw_xmm_xmmm128 => packed!(|a, b| horizontal16(a, b, i16::wrapping_sub)),
        Code::Phsubsw_xmm_xmmm128 => packed!(|a, b| horizontal16(a, b, i16::saturating_sub)),
        Code::Phaddd_xmm_xmmm128 => packed!(|a, b| horizontal32(a, b, u32::wrapping_add)),
        Code::Phsubd_xmm_xmmm128 => packed!(|a, b| horizontal32(a, b, u32::wrapping_sub)),
        Code::Phaddw_mm_mmm64 => joined!(|a, b| horizontal16(a, b, i16::wrapping_add)),
        Code::Phaddsw_mm_mmm64 => joined!(|a, b| horizontal16(a, b, i16::saturating_add)),
        Code::Phsubw_mm_mmm64 => joined!(|a, b| horizontal16(a, b, i16::wrapping_sub)),
        Code::Phsubsw_mm_mmm64 => joined!(|a, b| horizontal16(a, b, i16::saturating_sub)),
        Code::Phaddd_mm_mmm64 => joined!(|a, b| horizontal32(a, b, u32::wrapping_add)),
        Code::Phsubd_mm_mmm64 => joined!(|a, b| horizontal32(a, b, u32::wrapping_sub)),
        Code::Pinsrw_xmm_r32m16_imm8 | Code::Pinsrw_xmm_r64m16_imm8 => {
            Forms { rr: pinsrw_rr, rm: narrow_imm!(u16, |a, b, i| insert(a, b, 16, i & 7)).rm }
        }
        Code::Pextrw_r32_xmm_imm8 | Code::Pextrw_r64_xmm_imm8 => handler!(|cpu, op| {
            cpu.sse_ready()?;
            let word = cpu.xmm(op.src) >> (16 * (op.imm & 7));
            cpu.state.regs[op.dst as usize & 15] = u64::from(word as u16);
            Ok(())
        }),
        _ => return None,
    })
}

/// Replaces lane `n` of `bits` bits.
pub(super) const fn insert(a: u128, value: u128, bits: u32, n: u8) -> u128 {
    let mask = (1 << bits) - 1;
    let shift = bits * n as u32;
    a & !(mask << shift) | (value & mask) << shift
}

fn pinsrw_rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.sse_ready()?;
    let word = cpu.state.regs[op.src as usize & 15].into();
    let value = insert(cpu.xmm(op.dst), word, 16, op.imm as u8 & 7);
    cpu.set_xmm(op.dst, value);
    Ok(())
}

/// SHUFPS; PSHUFD is the same with both operands the source.
#[inline(always)]
fn pshufd(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (to_u32(a), to_u32(b));
    let at = |n: u8| usize::from(imm >> (2 * n) & 3);
    from_u32([a[at(0)], a[at(1)], b[at(2)], b[at(3)]])
}

/// The four words of a quadword in the order that the immediate says.
#[inline(always)]
fn shuffle_words(value: u64, imm: u8) -> u64 {
    let word = |n: u8| (value >> (16 * (imm >> (2 * n) & 3))) & 0xffff;
    word(0) | word(1) << 16 | word(2) << 32 | word(3) << 48
}

fn packusdw(a: u128, b: u128) -> u128 {
    let (a, b) = (to_i32(a), to_i32(b));
    from_u16(std::array::from_fn(|i| (if i < 4 { a[i] } else { b[i - 4] }).clamp(0, 0xffff) as u16))
}

fn pshufb(a: u128, b: u128) -> u128 {
    let a = to_u8(a);
    from_u8(to_u8(b).map(|i| if i < 0x80 { a[usize::from(i & 15)] } else { 0 }))
}

/// PALIGNR: 16 bytes from byte `n` of the source with the destination above it.
fn palignr(a: u128, b: u128, n: u8) -> u128 {
    match n {
        0 => b,
        1..16 => b >> (8 * n) | a << (128 - 8 * u32::from(n)),
        16..32 => a >> (8 * (n - 16)),
        _ => 0,
    }
}
