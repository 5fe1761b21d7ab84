//! Shifts of lanes and of the whole register. Lanes shift by a count in the low 64 bits of the second
//! operand; counts beyond the lane give zero or, arithmetic to the right, copies of the sign.

use super::Forms;
use super::lanes::{pslld, psllq, psllw, psrad, psraw, psrld, psrlq, psrlw};
use crate::op::Op;
use crate::{Cpu, Trap};
use iced_x86::Code;

/// A shift by an immediate: XMM and MMX.
macro_rules! by_imm {
    ($f:expr) => {
        handler!(|cpu: &mut Cpu, op: &Op| -> Result<(), Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u128) -> u128 = $f;
            let value = f(cpu.xmm(op.dst), u128::from(op.imm as u8));
            cpu.set_xmm(op.dst, value);
            Ok(())
        })
    };
}

macro_rules! mmx_by_imm {
    ($f:expr) => {
        handler!(|cpu: &mut Cpu, op: &Op| -> Result<(), Trap> {
            cpu.mmx_ready()?;
            let value = $f(u128::from(cpu.mm(op.dst)), u128::from(op.imm as u8));
            cpu.enter_mmx();
            cpu.set_mm(op.dst, value as u64);
            Ok(())
        })
    };
}

/// The four instructions of one shift: XMM, MMX, each by register or memory and by immediate.
macro_rules! family {
    ($code:expr; $($xmm:ident $xmm_imm:ident $mm:ident $mm_imm:ident $f:ident;)*) => {
        match $code {
            $(
                Code::$xmm => packed!($f),
                Code::$xmm_imm => by_imm!($f),
                Code::$mm => mmx!($f),
                Code::$mm_imm => mmx_by_imm!($f),
            )*
            Code::Psrldq_xmm_imm8 => by_imm!(|a, n| if n < 16 { a >> (8 * n) } else { 0 }),
            Code::Pslldq_xmm_imm8 => by_imm!(|a, n| if n < 16 { a << (8 * n) } else { 0 }),
            _ => return None,
        }
    };
}

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(family! { code;
        Psllw_xmm_xmmm128 Psllw_xmm_imm8 Psllw_mm_mmm64 Psllw_mm_imm8 psllw;
        Pslld_xmm_xmmm128 Pslld_xmm_imm8 Pslld_mm_mmm64 Pslld_mm_imm8 pslld;
        Psllq_xmm_xmmm128 Psllq_xmm_imm8 Psllq_mm_mmm64 Psllq_mm_imm8 psllq;
        Psrlw_xmm_xmmm128 Psrlw_xmm_imm8 Psrlw_mm_mmm64 Psrlw_mm_imm8 psrlw;
        Psrld_xmm_xmmm128 Psrld_xmm_imm8 Psrld_mm_mmm64 Psrld_mm_imm8 psrld;
        Psrlq_xmm_xmmm128 Psrlq_xmm_imm8 Psrlq_mm_mmm64 Psrlq_mm_imm8 psrlq;
        Psraw_xmm_xmmm128 Psraw_xmm_imm8 Psraw_mm_mmm64 Psraw_mm_imm8 psraw;
        Psrad_xmm_xmmm128 Psrad_xmm_imm8 Psrad_mm_mmm64 Psrad_mm_imm8 psrad;
    })
}
