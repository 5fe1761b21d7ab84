//! MMX moves and what exists for MMX registers only. Arithmetic stands with its XMM forms.

use super::Forms;
use super::lanes::byte_signs;
use super::moves::masked_store;
use super::shuffle::insert;
use crate::op::Op;
use crate::{Cpu, Trap, Value};
use iced_x86::Code;

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Movq_mm_mmm64 => mmx!(|_, b| b),
        Code::Movq_mmm64_mm => Forms { rr: mmx!(|_, b| b).rr, rm: store::<u64> },
        Code::Movntq_m64_mm => handler!(store::<u64>),
        Code::Movd_mm_rm32 => Forms { rr: from_gpr::<u32>, rm: mmx_forms!(u32, |_, b, _| b).rm },
        Code::Movq_mm_rm64 => Forms { rr: from_gpr::<u64>, rm: mmx!(|_, b| b).rm },
        Code::Movd_rm32_mm => Forms { rr: to_gpr::<u32>, rm: store::<u32> },
        Code::Movq_rm64_mm => Forms { rr: to_gpr::<u64>, rm: store::<u64> },
        Code::Movq2dq_xmm_mm => handler!(|cpu, op| {
            cpu.sse_ready()?;
            cpu.mmx_ready()?;
            cpu.enter_mmx();
            cpu.set_xmm(op.dst, cpu.mm(op.src).into());
            Ok(())
        }),
        Code::Movdq2q_mm_xmm => handler!(|cpu, op| {
            cpu.sse_ready()?;
            cpu.mmx_ready()?;
            cpu.enter_mmx();
            cpu.set_mm(op.dst, cpu.xmm(op.src) as u64);
            Ok(())
        }),
        Code::Pmovmskb_r32_mm | Code::Pmovmskb_r64_mm => handler!(|cpu, op| {
            cpu.mmx_ready()?;
            cpu.enter_mmx();
            let mask = byte_signs(cpu.mm(op.src).into());
            cpu.state.regs[op.dst as usize & 15] = mask.into();
            Ok(())
        }),
        Code::Pinsrw_mm_r32m16_imm8 | Code::Pinsrw_mm_r64m16_imm8 => Forms {
            rr: |cpu, op| {
                cpu.mmx_ready()?;
                let word = cpu.state.regs[op.src as usize & 15].into();
                let value = insert(cpu.mm(op.dst).into(), word, 16, op.imm as u8 & 3);
                cpu.enter_mmx();
                cpu.set_mm(op.dst, value as u64);
                Ok(())
            },
            rm: mmx_forms!(u16, |a, b, i| insert(a, b, 16, i & 3)).rm,
        },
        Code::Pextrw_r32_mm_imm8 | Code::Pextrw_r64_mm_imm8 => handler!(|cpu, op| {
            cpu.mmx_ready()?;
            cpu.enter_mmx();
            let word = (cpu.mm(op.src) >> (16 * (op.imm & 3))) as u16;
            cpu.state.regs[op.dst as usize & 15] = word.into();
            Ok(())
        }),
        Code::Maskmovq_rDI_mm_mm => handler!(|cpu, op| {
            cpu.mmx_ready()?;
            let (value, mask) = (cpu.mm(op.dst).into(), cpu.mm(op.src).into());
            masked_store(cpu, op, value, mask)?;
            cpu.enter_mmx();
            Ok(())
        }),
        Code::Emms => handler!(|cpu, _| {
            cpu.mmx_ready()?;
            cpu.enter_mmx();
            cpu.state.x87.tags = 0;
            Ok(())
        }),
        _ => return None,
    })
}

fn from_gpr<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.mmx_ready()?;
    let value = T::from_wide(cpu.state.regs[op.src as usize & 15].into());
    cpu.enter_mmx();
    cpu.set_mm(op.dst, value.to_wide() as u64);
    Ok(())
}

fn to_gpr<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.mmx_ready()?;
    let value = T::from_wide(cpu.mm(op.src).into());
    cpu.enter_mmx();
    cpu.state.regs[op.dst as usize & 15] = value.to_wide() as u64;
    Ok(())
}

fn store<T: Value>(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.mmx_ready()?;
    let value = T::from_wide(cpu.mm(op.src).into());
    cpu.store_op(op, value)?;
    cpu.enter_mmx();
    Ok(())
}
