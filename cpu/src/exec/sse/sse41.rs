//! SSE4.1 apart from plain lane-wise integer arithmetic: blends, extensions, inserting and extracting,
//! rounding, dot products, PTEST.

use super::lanes::*;
use super::shuffle::insert;
use super::{DAZ, Forms, INEXACT, host};
use crate::flags::{CF, ZF};
use crate::op::Op;
use crate::{Cpu, Trap, Value};
use iced_x86::Code;

/// PMOVSX, PMOVZX: `$n` lanes of the low part of the source, widened by way of type `$mid`.
macro_rules! extend {
    ($load:ty, $to:ident, $from:ident, $lane:ty) => {
        narrow!($load, |_, b| {
            let b = $to(b);
            $from(std::array::from_fn(|i| b[i] as $lane))
        })
    };
}

/// A blend by the top bits of the lanes of XMM0.
macro_rules! blend_by_xmm0 {
    ($f:expr) => {{
        fn blend(cpu: &mut Cpu, op: &Op, b: u128) {
            let f: fn(u128) -> u128 = $f;
            let mask = f(cpu.xmm(0));
            let value = cpu.xmm(op.dst) & !mask | b & mask;
            cpu.set_xmm(op.dst, value);
        }
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let b = cpu.xmm(op.src);
            blend(cpu, op, b);
            Ok(())
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let b = cpu.load_aligned(op)?;
            blend(cpu, op, b);
            Ok(())
        }
        Forms { rr, rm }
    }};
}

/// PEXTRx, EXTRACTPS: lane `imm` as type `$t`, to a general register (zero-extended) or memory.
macro_rules! extract {
    ($t:ty) => {{
        fn lane(cpu: &Cpu, op: &Op) -> $t {
            let bits = 8 * size_of::<$t>() as u32;
            let n = op.imm as u32 & (128 / bits - 1);
            <$t>::from_wide(cpu.xmm(op.src) >> (bits * n))
        }
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            cpu.state.regs[op.dst as usize & 15] = lane(cpu, op).to_wide() as u64;
            Ok(())
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let value = lane(cpu, op);
            cpu.store_op(op, value)
        }
        Forms { rr, rm }
    }};
}

/// PINSRx: a general register or memory into lane `imm`.
macro_rules! insert_lane {
    ($t:ty) => {{
        fn put(cpu: &mut Cpu, op: &Op, value: u128) {
            let bits = 8 * size_of::<$t>() as u32;
            let n = op.imm as u8 & (128 / bits - 1) as u8;
            let value = insert(cpu.xmm(op.dst), value, bits, n);
            cpu.set_xmm(op.dst, value);
        }
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let value = cpu.state.regs[op.src as usize & 15].into();
            put(cpu, op, value);
            Ok(())
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let value = cpu.load_wide::<$t>(op)?;
            put(cpu, op, value);
            Ok(())
        }
        Forms { rr, rm }
    }};
}

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Pmovsxbw_xmm_xmmm64 => extend!(u64, to_i8, from_i16, i16),
        Code::Pmovsxbd_xmm_xmmm32 => extend!(u32, to_i8, from_i32, i32),
        Code::Pmovsxbq_xmm_xmmm16 => extend!(u16, to_i8, from_i64, i64),
        Code::Pmovsxwd_xmm_xmmm64 => extend!(u64, to_i16, from_i32, i32),
        Code::Pmovsxwq_xmm_xmmm32 => extend!(u32, to_i16, from_i64, i64),
        Code::Pmovsxdq_xmm_xmmm64 => extend!(u64, to_i32, from_i64, i64),
        Code::Pmovzxbw_xmm_xmmm64 => extend!(u64, to_u8, from_u16, u16),
        Code::Pmovzxbd_xmm_xmmm32 => extend!(u32, to_u8, from_u32, u32),
        Code::Pmovzxbq_xmm_xmmm16 => extend!(u16, to_u8, from_u64, u64),
        Code::Pmovzxwd_xmm_xmmm64 => extend!(u64, to_u16, from_u32, u32),
        Code::Pmovzxwq_xmm_xmmm32 => extend!(u32, to_u16, from_u64, u64),
        Code::Pmovzxdq_xmm_xmmm64 => extend!(u64, to_u32, from_u64, u64),
        Code::Pblendvb_xmm_xmmm128 => blend_by_xmm0!(|m| from_i8(to_i8(m).map(|x| x >> 7))),
        Code::Blendvps_xmm_xmmm128 => blend_by_xmm0!(|m| from_i32(to_i32(m).map(|x| x >> 31))),
        Code::Blendvpd_xmm_xmmm128 => blend_by_xmm0!(|m| from_i64(to_i64(m).map(|x| x >> 63))),
        Code::Blendps_xmm_xmmm128_imm8 => packed_imm!(|a, b, i| blend::<4>(a, b, i)),
        Code::Blendpd_xmm_xmmm128_imm8 => packed_imm!(|a, b, i| blend::<2>(a, b, i)),
        Code::Pblendw_xmm_xmmm128_imm8 => packed_imm!(|a, b, i| blend::<8>(a, b, i)),
        Code::Pextrb_r32m8_xmm_imm8 | Code::Pextrb_r64m8_xmm_imm8 => extract!(u8),
        Code::Pextrw_r32m16_xmm_imm8 | Code::Pextrw_r64m16_xmm_imm8 => extract!(u16),
        Code::Pextrd_rm32_xmm_imm8
        | Code::Extractps_rm32_xmm_imm8
        | Code::Extractps_r64m32_xmm_imm8 => extract!(u32),
        Code::Pextrq_rm64_xmm_imm8 => extract!(u64),
        Code::Pinsrb_xmm_r32m8_imm8 | Code::Pinsrb_xmm_r64m8_imm8 => insert_lane!(u8),
        Code::Pinsrd_xmm_rm32_imm8 => insert_lane!(u32),
        Code::Pinsrq_xmm_rm64_imm8 => insert_lane!(u64),
        Code::Insertps_xmm_xmmm32_imm8 => Forms {
            // A memory operand is the one lane there is.
            rm: narrow_imm!(u32, |a, b, i| insertps(a, b, i & 0x3f)).rm,
            ..narrow_imm!(u32, insertps)
        },
        Code::Ptest_xmm_xmmm128 => Forms { rr: ptest_rr, rm: ptest_rm },
        Code::Roundps_xmm_xmmm128_imm8 => float_imm!(|_, b, i, m| round_lanes_ps(b, i, m)),
        Code::Roundpd_xmm_xmmm128_imm8 => float_imm!(|_, b, i, m| round_lanes_pd(b, i, m)),
        Code::Roundss_xmm_xmmm32_imm8 => scalar_imm!(u32, |a, b, i, m| {
            let (value, flags) = round32(b as u32, i, m);
            (a & !u128::from(u32::MAX) | u128::from(value), flags)
        }),
        Code::Roundsd_xmm_xmmm64_imm8 => scalar_imm!(u64, |a, b, i, m| {
            let (value, flags) = round64(b as u64, i, m);
            (a & !u128::from(u64::MAX) | u128::from(value), flags)
        }),
        Code::Dpps_xmm_xmmm128_imm8 => Forms { rr: dpps_rr, rm: dpps_rm },
        Code::Dppd_xmm_xmmm128_imm8 => Forms { rr: dppd_rr, rm: dppd_rm },
        _ => return None,
    })
}

/// Takes lane i (of `N`) of `b` where bit i of `imm` is set.
fn blend<const N: u32>(a: u128, b: u128, imm: u8) -> u128 {
    let bits = 128 / N;
    let lane = u128::MAX >> (128 - bits);
    let mask = (0..N).filter(|i| imm >> i & 1 != 0).fold(0, |mask, i| mask | lane << (bits * i));
    a & !mask | b & mask
}

/// INSERTPS: source lane (bits 6, 7) to destination lane (bits 4, 5), then zeros by bits 0 to 3.
fn insertps(a: u128, b: u128, imm: u8) -> u128 {
    let mut lanes = to_u32(a);
    lanes[usize::from(imm >> 4 & 3)] = to_u32(b)[usize::from(imm >> 6)];
    for (i, lane) in lanes.iter_mut().enumerate() {
        if imm >> i & 1 != 0 {
            *lane = 0;
        }
    }
    from_u32(lanes)
}

fn ptest(cpu: &mut Cpu, op: &Op, b: u128) {
    let a = cpu.xmm(op.dst);
    let zf = if a & b == 0 { ZF } else { 0 };
    let cf = if !a & b == 0 { CF } else { 0 };
    cpu.state.flags.set_arith(zf | cf);
}

fn ptest_rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.sse_ready()?;
    let b = cpu.xmm(op.src);
    ptest(cpu, op, b);
    Ok(())
}

fn ptest_rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.sse_ready()?;
    let b = cpu.load_aligned(op)?;
    ptest(cpu, op, b);
    Ok(())
}

/// Rounds one number to an integer: by bits 0 and 1 of `imm`, or (bit 2) as MXCSR says; bit 3 suppresses
/// "inexact". Denormals raise nothing of their own.
macro_rules! round {
    ($name:ident $lanes:ident $to:ident $from:ident $bits:ty, $float:ty, $exponent:expr, $quiet:expr) => {
        fn $name(x: $bits, imm: u8, mxcsr: u32) -> ($bits, u32) {
            const EXPONENT: $bits = $exponent;
            const QUIET: $bits = $quiet;
            const SIGN: $bits = 1 << (<$bits>::BITS - 1);
            if x & !SIGN > EXPONENT {
                return (x | QUIET, u32::from(x & QUIET == 0));
            }
            let x = if mxcsr & DAZ != 0 && x & EXPONENT == 0 { x & SIGN } else { x };
            let value = <$float>::from_bits(x);
            let mode = if imm & 4 != 0 { mxcsr >> 13 & 3 } else { u32::from(imm & 3) };
            let rounded = match mode {
                0 => value.round_ties_even(),
                1 => value.floor(),
                2 => value.ceil(),
                _ => value.trunc(),
            };
            let flags = if rounded != value && imm & 8 == 0 { INEXACT } else { 0 };
            // Zeros keep the sign of what was rounded.
            (rounded.to_bits() & !SIGN | x & SIGN, flags)
        }

        fn $lanes(b: u128, imm: u8, mxcsr: u32) -> (u128, u32) {
            let mut flags = 0;
            let value = $to(b).map(|x| {
                let (value, raised) = $name(x, imm, mxcsr);
                flags |= raised;
                value
            });
            ($from(value), flags)
        }
    };
}

round!(round32 round_lanes_ps to_u32 from_u32 u32, f32, 0x7f80_0000, 0x0040_0000);
round!(round64 round_lanes_pd to_u64 from_u64 u64, f64, 0x7ff0_0000_0000_0000, 0x0008_0000_0000_0000);

/// Spreads the low four bits over doublewords.
fn mask32(bits: u8) -> u128 {
    from_u32(std::array::from_fn(|i| if bits >> i & 1 != 0 { u32::MAX } else { 0 }))
}

fn mask64(bits: u8) -> u128 {
    from_u64(std::array::from_fn(|i| if bits >> i & 1 != 0 { u64::MAX } else { 0 }))
}

/// DPPS: products first, then (0 + 1) + (2 + 3). Each step raises its own exceptions, in this order;
/// flags of steps that were done stay.
fn dpps(cpu: &mut Cpu, op: &Op, b: u128) -> Result<(), Trap> {
    let a = cpu.xmm(op.dst);
    let chosen = mask32(op.imm as u8 >> 4);
    let p = to_u32(cpu.float(|m| host::mulps(a & chosen, b & chosen, m))?);
    let (even, odd) = (from_u32([p[0], p[2], 0, 0]), from_u32([p[1], p[3], 0, 0]));
    let sums = to_u32(cpu.float(|m| host::addps(even, odd, m))?);
    let sum = cpu.float(|m| host::addss(sums[0].into(), sums[1].into(), m))? as u32;
    cpu.set_xmm(op.dst, from_u32([sum; 4]) & mask32(op.imm as u8));
    Ok(())
}

fn dpps_rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.sse_ready()?;
    let b = cpu.xmm(op.src);
    dpps(cpu, op, b)
}

fn dpps_rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.sse_ready()?;
    let b = cpu.load_aligned(op)?;
    dpps(cpu, op, b)
}

fn dppd(cpu: &mut Cpu, op: &Op, b: u128) -> Result<(), Trap> {
    let a = cpu.xmm(op.dst);
    let chosen = mask64(op.imm as u8 >> 4);
    let p = to_u64(cpu.float(|m| host::mulpd(a & chosen, b & chosen, m))?);
    let sum = cpu.float(|m| host::addsd(p[0].into(), p[1].into(), m))? as u64;
    cpu.set_xmm(op.dst, from_u64([sum; 2]) & mask64(op.imm as u8));
    Ok(())
}

fn dppd_rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.sse_ready()?;
    let b = cpu.xmm(op.src);
    dppd(cpu, op, b)
}

fn dppd_rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.sse_ready()?;
    let b = cpu.load_aligned(op)?;
    dppd(cpu, op, b)
}
