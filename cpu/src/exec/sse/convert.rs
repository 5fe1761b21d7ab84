//! Conversions between integers, singles and doubles.

use super::{Forms, host};
use crate::op::Op;
use crate::{Cpu, Trap, Value};
use iced_x86::Code;

/// From XMM or memory of type `$t` to a general register.
macro_rules! to_gpr {
    ($t:ty, $f:expr) => {{
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u32) -> (u64, u32) = $f;
            let b = cpu.xmm(op.src);
            cpu.state.regs[op.dst as usize & 15] = cpu.float(|m| f(b, m))?;
            Ok(())
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u32) -> (u64, u32) = $f;
            let b = cpu.load_wide::<$t>(op)?;
            cpu.state.regs[op.dst as usize & 15] = cpu.float(|m| f(b, m))?;
            Ok(())
        }
        Forms { rr, rm }
    }};
}

/// From a general register or memory of type `$t` to XMM.
macro_rules! from_gpr {
    ($t:ty, $f:expr) => {{
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u64, u32) -> (u128, u32) = $f;
            let (a, b) = (cpu.xmm(op.dst), cpu.state.regs[op.src as usize & 15]);
            let value = cpu.float(|m| f(a, b, m))?;
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u64, u32) -> (u128, u32) = $f;
            let b = cpu.load_op::<$t>(op)?.to_wide() as u64;
            let a = cpu.xmm(op.dst);
            let value = cpu.float(|m| f(a, b, m))?;
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        Forms { rr, rm }
    }};
}

/// From MMX or 8 bytes of memory to XMM. With `$enter`, a memory operand counts as MMX use too.
macro_rules! from_mmx {
    ($enter:literal, $f:expr) => {{
        fn convert(cpu: &mut Cpu, op: &Op, b: u64) -> Result<(), Trap> {
            let f: fn(u128, u128, u32) -> (u128, u32) = $f;
            let a = cpu.xmm(op.dst);
            let value = cpu.float(|m| f(a, b.into(), m))?;
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            cpu.mmx_ready()?;
            let b = cpu.mm(op.src);
            convert(cpu, op, b)?;
            cpu.enter_mmx();
            Ok(())
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            if $enter {
                cpu.mmx_ready()?;
            }
            let b = cpu.load_op::<u64>(op)?;
            convert(cpu, op, b)?;
            if $enter {
                cpu.enter_mmx();
            }
            Ok(())
        }
        Forms { rr, rm }
    }};
}

/// From XMM or memory to MMX. Memory operands of 16 bytes (`$aligned`) have to be aligned.
macro_rules! to_mmx {
    ($t:ty, $aligned:literal, $f:expr) => {{
        fn convert(cpu: &mut Cpu, op: &Op, b: u128) -> Result<(), Trap> {
            let f: fn(u128, u32) -> (u128, u32) = $f;
            let value = cpu.float(|m| f(b, m))?;
            cpu.enter_mmx();
            cpu.set_mm(op.dst, value as u64);
            Ok(())
        }
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            cpu.mmx_ready()?;
            let b = cpu.xmm(op.src);
            convert(cpu, op, b)
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            cpu.mmx_ready()?;
            if $aligned {
                cpu.aligned(op)?;
            }
            let b = cpu.load_wide::<$t>(op)?;
            convert(cpu, op, b)
        }
        Forms { rr, rm }
    }};
}

/// The low half alone: what the other lanes hold must raise nothing.
const fn low(b: u128) -> u128 {
    b & u64::MAX as u128
}

/// CVTSI2SD from 32 bits is exact: MXCSR has no part in it.
fn double_from_i32(a: u128, b: u64, _: u32) -> (u128, u32) {
    (a & !(u64::MAX as u128) | u128::from(f64::from(b as i32).to_bits()), 0)
}

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Cvtsi2sd_xmm_rm32 => from_gpr!(u32, double_from_i32),
        Code::Cvtsi2sd_xmm_rm64 => from_gpr!(u64, host::cvtsi2sd64),
        Code::Cvtsi2ss_xmm_rm32 => from_gpr!(u32, host::cvtsi2ss32),
        Code::Cvtsi2ss_xmm_rm64 => from_gpr!(u64, host::cvtsi2ss64),
        Code::Cvttsd2si_r32_xmmm64 => to_gpr!(u64, host::cvttsd2si32),
        Code::Cvttsd2si_r64_xmmm64 => to_gpr!(u64, host::cvttsd2si64),
        Code::Cvttss2si_r32_xmmm32 => to_gpr!(u32, host::cvttss2si32),
        Code::Cvttss2si_r64_xmmm32 => to_gpr!(u32, host::cvttss2si64),
        Code::Cvtsd2si_r32_xmmm64 => to_gpr!(u64, host::cvtsd2si32),
        Code::Cvtsd2si_r64_xmmm64 => to_gpr!(u64, host::cvtsd2si64),
        Code::Cvtss2si_r32_xmmm32 => to_gpr!(u32, host::cvtss2si32),
        Code::Cvtss2si_r64_xmmm32 => to_gpr!(u32, host::cvtss2si64),
        Code::Cvtss2sd_xmm_xmmm32 => scalar!(u32, host::cvtss2sd),
        Code::Cvtsd2ss_xmm_xmmm64 => scalar!(u64, host::cvtsd2ss),
        Code::Cvtps2pd_xmm_xmmm64 => scalar!(u64, host::cvtps2pd),
        Code::Cvtpd2ps_xmm_xmmm128 => float!(host::cvtpd2ps),
        Code::Cvtdq2ps_xmm_xmmm128 => float!(host::cvtdq2ps),
        Code::Cvtps2dq_xmm_xmmm128 => float!(host::cvtps2dq),
        Code::Cvttps2dq_xmm_xmmm128 => float!(host::cvttps2dq),
        Code::Cvtpd2dq_xmm_xmmm128 => float!(host::cvtpd2dq),
        Code::Cvttpd2dq_xmm_xmmm128 => float!(host::cvttpd2dq),
        Code::Cvtdq2pd_xmm_xmmm64 => scalar!(u64, host::cvtdq2pd),
        Code::Cvtpi2pd_xmm_mmm64 => from_mmx!(false, host::cvtdq2pd),
        Code::Cvtpi2ps_xmm_mmm64 => from_mmx!(true, |a, b, m| {
            let (value, flags) = host::cvtdq2ps(0, b, m);
            (a & !low(u128::MAX) | low(value), flags)
        }),
        Code::Cvtps2pi_mm_xmmm64 => to_mmx!(u64, false, |b, m| host::cvtps2dq(0, low(b), m)),
        Code::Cvttps2pi_mm_xmmm64 => to_mmx!(u64, false, |b, m| host::cvttps2dq(0, low(b), m)),
        Code::Cvtpd2pi_mm_xmmm128 => to_mmx!(u128, true, |b, m| host::cvtpd2dq(0, b, m)),
        Code::Cvttpd2pi_mm_xmmm128 => to_mmx!(u128, true, |b, m| host::cvttpd2dq(0, b, m)),
        _ => return None,
    })
}
