//! Floating-point arithmetic and comparison of SSE and SSE2.

use super::lanes::{from_u32, to_u32};
use super::{Forms, approx, host};
use crate::op::Op;
use crate::{Cpu, Trap};
use iced_x86::Code;

/// MXCSR without the flags other than "inexact": all masked, to nearest, no flushing, inexact seen.
const PLAIN: u32 = 0x1fa0;
const PLAIN_MASK: u32 = 0xffe0;

/// Zero, or a normal number: an operand that raises nothing by itself.
macro_rules! width {
    ($module:ident $float:ty, $bits:ty, $mantissa:literal, $top:literal) => {
        mod $module {
            /// Zero or normal.
            #[inline(always)]
            pub const fn plain_operand(x: $float) -> bool {
                let exponent = x.to_bits() >> $mantissa & $top;
                exponent != 0 && exponent != $top || x.to_bits() << 1 == 0
            }

            /// Normal, and so far from the limits that nothing but "inexact" can have been raised.
            #[inline(always)]
            pub const fn plain_result(x: $float) -> bool {
                let exponent = x.to_bits() >> $mantissa & $top;
                exponent > 1 && exponent != $top
            }

            /// The low lane.
            #[inline(always)]
            pub const fn low(x: u128) -> $float {
                <$float>::from_bits(x as $bits)
            }

            /// Replaces the low lane.
            #[inline(always)]
            pub const fn with_low(a: u128, x: $float) -> u128 {
                a & !(<$bits>::MAX as u128) | x.to_bits() as u128
            }
        }
    };
}

width!(single f32, u32, 23, 0xff);
width!(double f64, u64, 52, 0x7ff);

/// A scalar operation. Where the MXCSR is plain and neither operands nor result are special, the result
/// is that of the same operation in Rust and MXCSR does not change; else the host unit is asked.
macro_rules! quick {
    ($module:ident, $t:ty, $op:tt, $host:ident) => {{
        #[inline(always)]
        fn compute(cpu: &mut Cpu, dst: u8, a: u128, b: u128) -> Result<(), Trap> {
            if cpu.state.mxcsr & PLAIN_MASK == PLAIN {
                let (x, y) = ($module::low(a), $module::low(b));
                let r = x $op y;
                if $module::plain_operand(x)
                    && $module::plain_operand(y)
                    && $module::plain_result(r)
                {
                    cpu.set_xmm(dst, $module::with_low(a, r));
                    return Ok(());
                }
            }
            let value = cpu.float(|m| host::$host(a, b, m))?;
            cpu.set_xmm(dst, value);
            Ok(())
        }
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let (a, b) = (cpu.xmm(op.dst), cpu.xmm(op.src));
            compute(cpu, op.dst, a, b)
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let b = cpu.load_wide::<$t>(op)?;
            let a = cpu.xmm(op.dst);
            compute(cpu, op.dst, a, b)
        }
        Forms { rr, rm }
    }};
}

/// COMISS and so on: into ZF, PF, CF; OF, SF, AF are cleared.
macro_rules! into_flags {
    ($module:ident, $t:ty, $host:ident) => {{
        #[inline(always)]
        fn compute(cpu: &mut Cpu, a: u128, b: u128) -> Result<(), Trap> {
            let (x, y) = ($module::low(a), $module::low(b));
            let flags = if $module::plain_operand(x) && $module::plain_operand(y) {
                u64::from(x == y) << 6 | u64::from(x < y)
            } else {
                cpu.float(|m| host::$host(a, b, m))?
            };
            cpu.state.flags.set_arith(flags);
            Ok(())
        }
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let (a, b) = (cpu.xmm(op.dst), cpu.xmm(op.src));
            compute(cpu, a, b)
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let b = cpu.load_wide::<$t>(op)?;
            let a = cpu.xmm(op.dst);
            compute(cpu, a, b)
        }
        Forms { rr, rm }
    }};
}

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Addsd_xmm_xmmm64 => quick!(double, u64, +, addsd),
        Code::Subsd_xmm_xmmm64 => quick!(double, u64, -, subsd),
        Code::Mulsd_xmm_xmmm64 => quick!(double, u64, *, mulsd),
        Code::Divsd_xmm_xmmm64 => quick!(double, u64, /, divsd),
        Code::Addss_xmm_xmmm32 => quick!(single, u32, +, addss),
        Code::Subss_xmm_xmmm32 => quick!(single, u32, -, subss),
        Code::Mulss_xmm_xmmm32 => quick!(single, u32, *, mulss),
        Code::Divss_xmm_xmmm32 => quick!(single, u32, /, divss),
        Code::Comiss_xmm_xmmm32 => into_flags!(single, u32, comiss),
        Code::Comisd_xmm_xmmm64 => into_flags!(double, u64, comisd),
        Code::Ucomiss_xmm_xmmm32 => into_flags!(single, u32, ucomiss),
        Code::Ucomisd_xmm_xmmm64 => into_flags!(double, u64, ucomisd),
        Code::Addps_xmm_xmmm128 => float!(host::addps),
        Code::Addpd_xmm_xmmm128 => float!(host::addpd),
        Code::Subps_xmm_xmmm128 => float!(host::subps),
        Code::Subpd_xmm_xmmm128 => float!(host::subpd),
        Code::Mulps_xmm_xmmm128 => float!(host::mulps),
        Code::Mulpd_xmm_xmmm128 => float!(host::mulpd),
        Code::Divps_xmm_xmmm128 => float!(host::divps),
        Code::Divpd_xmm_xmmm128 => float!(host::divpd),
        Code::Minps_xmm_xmmm128 => float!(host::minps),
        Code::Minpd_xmm_xmmm128 => float!(host::minpd),
        Code::Maxps_xmm_xmmm128 => float!(host::maxps),
        Code::Maxpd_xmm_xmmm128 => float!(host::maxpd),
        Code::Sqrtps_xmm_xmmm128 => float!(host::sqrtps),
        Code::Sqrtpd_xmm_xmmm128 => float!(host::sqrtpd),
        Code::Minss_xmm_xmmm32 => scalar!(u32, host::minss),
        Code::Minsd_xmm_xmmm64 => scalar!(u64, host::minsd),
        Code::Maxss_xmm_xmmm32 => scalar!(u32, host::maxss),
        Code::Maxsd_xmm_xmmm64 => scalar!(u64, host::maxsd),
        Code::Sqrtss_xmm_xmmm32 => scalar!(u32, host::sqrtss),
        Code::Sqrtsd_xmm_xmmm64 => scalar!(u64, host::sqrtsd),
        Code::Cmpps_xmm_xmmm128_imm8 => float_imm!(host::cmpps),
        Code::Cmppd_xmm_xmmm128_imm8 => float_imm!(host::cmppd),
        Code::Cmpss_xmm_xmmm32_imm8 => scalar_imm!(u32, host::cmpss),
        Code::Cmpsd_xmm_xmmm64_imm8 => scalar_imm!(u64, host::cmpsd),
        Code::Rcpps_xmm_xmmm128 => packed!(|_, b| from_u32(to_u32(b).map(approx::reciprocal))),
        Code::Rsqrtps_xmm_xmmm128 => {
            packed!(|_, b| from_u32(to_u32(b).map(approx::reciprocal_root)))
        }
        Code::Rcpss_xmm_xmmm32 => narrow!(u32, |a, b| low_lane(a, approx::reciprocal(b as u32))),
        Code::Rsqrtss_xmm_xmmm32 => {
            narrow!(u32, |a, b| low_lane(a, approx::reciprocal_root(b as u32)))
        }
        _ => return None,
    })
}

const fn low_lane(a: u128, value: u32) -> u128 {
    a & !(u32::MAX as u128) | value as u128
}
