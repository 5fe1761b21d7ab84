//! Moves: between registers, to and from memory, between register files.

use super::Forms;
use super::lanes::{byte_signs, to_u32, to_u64};
use crate::op::Op;
use crate::{Cpu, Trap, Value};
use iced_x86::Code;

/// A store of part of an XMM register; `$rr` is what the register form does with (destination, source).
macro_rules! store {
    ($t:ty, $shift:literal, $rr:expr) => {{
        fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u128) -> u128 = $rr;
            let value = f(cpu.xmm(op.dst), cpu.xmm(op.src));
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
            cpu.sse_ready()?;
            let value = cpu.xmm(op.src);
            cpu.store_op(op, <$t as Value>::from_wide(value >> $shift))
        }
        Forms { rr, rm }
    }};
}

/// A store of 16 bytes that have to be aligned.
macro_rules! store_aligned {
    () => {
        Forms {
            rm: |cpu, op| {
                cpu.sse_ready()?;
                cpu.aligned(op)?;
                let value = cpu.xmm(op.src);
                cpu.store_op(op, value)
            },
            ..store!(u128, 0, |_, b| b)
        }
    };
}

/// A mask of sign bits into a general register.
macro_rules! sign_mask {
    ($f:expr) => {
        handler!(|cpu, op| {
            cpu.sse_ready()?;
            let f: fn(u128) -> u32 = $f;
            let mask = f(cpu.xmm(op.src));
            cpu.state.regs[op.dst as usize & 15] = u64::from(mask);
            Ok(())
        })
    };
}

const LOW: u128 = u64::MAX as u128;
const LOW32: u128 = u32::MAX as u128;

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Movdqa_xmm_xmmm128 | Code::Movaps_xmm_xmmm128 | Code::Movapd_xmm_xmmm128 => {
            packed!(|_, b| b)
        }
        Code::Movntdqa_xmm_m128 => packed!(|_, b| b),
        Code::Movdqu_xmm_xmmm128
        | Code::Movups_xmm_xmmm128
        | Code::Movupd_xmm_xmmm128
        | Code::Lddqu_xmm_m128 => narrow!(u128, |_, b| b),
        Code::Movdqa_xmmm128_xmm
        | Code::Movaps_xmmm128_xmm
        | Code::Movapd_xmmm128_xmm
        | Code::Movntdq_m128_xmm
        | Code::Movntps_m128_xmm
        | Code::Movntpd_m128_xmm => store_aligned!(),
        Code::Movdqu_xmmm128_xmm | Code::Movups_xmmm128_xmm | Code::Movupd_xmmm128_xmm => {
            store!(u128, 0, |_, b| b)
        }
        Code::Movq_xmm_xmmm64 => narrow!(u64, |_, b: u128| b & LOW),
        Code::Movq_xmmm64_xmm => store!(u64, 0, |_, b| b & LOW),
        Code::Movd_xmm_rm32 => from_gpr::<u32>(),
        Code::Movq_xmm_rm64 => from_gpr::<u64>(),
        Code::Movd_rm32_xmm => to_gpr::<u32>(),
        Code::Movq_rm64_xmm => to_gpr::<u64>(),
        Code::Movss_xmm_xmmm32 => Forms {
            rm: narrow!(u32, |_, b| b).rm,
            ..narrow!(u32, |a: u128, b: u128| a & !LOW32 | b & LOW32)
        },
        Code::Movsd_xmm_xmmm64 => Forms {
            rm: narrow!(u64, |_, b| b).rm,
            ..narrow!(u64, |a: u128, b: u128| a & !LOW | b & LOW)
        },
        Code::Movss_xmmm32_xmm => store!(u32, 0, |a, b| a & !LOW32 | b & LOW32),
        Code::Movsd_xmmm64_xmm => store!(u64, 0, |a, b| a & !LOW | b & LOW),
        Code::Movlps_xmm_m64 | Code::Movlpd_xmm_m64 => {
            narrow!(u64, |a: u128, b: u128| a & !LOW | b & LOW)
        }
        Code::Movhps_xmm_m64 | Code::Movhpd_xmm_m64 | Code::Movlhps_xmm_xmm => {
            narrow!(u64, |a: u128, b: u128| a & LOW | b << 64)
        }
        Code::Movhlps_xmm_xmm => narrow!(u64, |a: u128, b: u128| a & !LOW | b >> 64),
        Code::Movlps_m64_xmm | Code::Movlpd_m64_xmm => store!(u64, 0, |a, _| a),
        Code::Movhps_m64_xmm | Code::Movhpd_m64_xmm => store!(u64, 64, |a, _| a),
        Code::Pmovmskb_r32_xmm | Code::Pmovmskb_r64_xmm => {
            sign_mask!(byte_signs)
        }
        Code::Movmskps_r32_xmm | Code::Movmskps_r64_xmm => sign_mask!(|x| {
            let x = to_u32(x).map(|lane| lane >> 31);
            x[0] | x[1] << 1 | x[2] << 2 | x[3] << 3
        }),
        Code::Movmskpd_r32_xmm | Code::Movmskpd_r64_xmm => sign_mask!(|x| {
            let x = to_u64(x).map(|lane| (lane >> 63) as u32);
            x[0] | x[1] << 1
        }),
        // From general registers: available whatever CR0 and CR4 say.
        Code::Movnti_m32_r32 => handler!(|cpu, op| {
            let value = cpu.state.regs[op.src as usize & 15] as u32;
            cpu.store_op(op, value)
        }),
        Code::Movnti_m64_r64 => handler!(|cpu, op| {
            let value = cpu.state.regs[op.src as usize & 15];
            cpu.store_op(op, value)
        }),
        Code::Maskmovdqu_rDI_xmm_xmm => handler!(|cpu, op| {
            cpu.sse_ready()?;
            let (value, mask) = (cpu.xmm(op.dst), cpu.xmm(op.src));
            masked_store(cpu, op, value, mask)
        }),
        _ => return None,
    })
}

/// MOVD, MOVQ from a general register or memory.
fn from_gpr<T: Value>() -> Forms {
    fn rr<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
        cpu.sse_ready()?;
        let value = T::from_wide(cpu.state.regs[op.src as usize & 15].into());
        cpu.set_xmm(op.dst, value.to_wide());
        Ok(())
    }
    fn rm<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
        cpu.sse_ready()?;
        let value = cpu.load_wide::<T>(op)?;
        cpu.set_xmm(op.dst, value);
        Ok(())
    }
    Forms { rr: rr::<T>, rm: rm::<T> }
}

/// MOVD, MOVQ to a general register (zero-extended) or memory.
fn to_gpr<T: Value>() -> Forms {
    fn rr<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
        cpu.sse_ready()?;
        let value = T::from_wide(cpu.xmm(op.src));
        cpu.state.regs[op.dst as usize & 15] = value.to_wide() as u64;
        Ok(())
    }
    fn rm<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
        cpu.sse_ready()?;
        let value = T::from_wide(cpu.xmm(op.src));
        cpu.store_op(op, value)
    }
    Forms { rr: rr::<T>, rm: rm::<T> }
}

/// Stores those bytes whose mask byte has its top bit set. Nothing is stored, and no fault raised, where
/// the mask is clear.
pub(super) fn masked_store(cpu: &mut Cpu, op: &Op, value: u128, mask: u128) -> Result<(), Trap> {
    let va = cpu.ea(op)?;
    let bits = byte_signs(mask);
    let chosen = || (0..16u64).filter(|i| bits >> i & 1 != 0);
    for i in chosen() {
        cpu.probe_write(va.wrapping_add(i), 1)?;
    }
    for i in chosen() {
        cpu.store(va.wrapping_add(i), (value >> (8 * i)) as u8)?;
    }
    Ok(())
}
