//! From iced's operands to the numbers in an [`Op`].

use crate::op::{
    EA_ADDR16, EA_ADDR32, EA_LEGACY, ENDS_BLOCK, Exec, HIGH_BYTE, LOCKED, Op, REP, REPNE,
};
use crate::state::{CS, DS, ES, FLAT, FS, GS, RIP, SS, ZERO};
use iced_x86::{CodeSize, FlowControl, Instruction, OpKind, Register};

/// An op with length, flags, memory operand and first immediate filled in, and no registers.
pub fn base_op(ins: &Instruction, exec: Exec) -> Op {
    let mut op = Op {
        exec,
        disp: 0,
        imm: 0,
        base: ZERO as u8,
        index: ZERO as u8,
        scale: 0,
        seg: FLAT as u8,
        dst: 0,
        src: 0,
        src2: 0,
        size: 0,
        len: ins.len() as u8,
        flags: 0,
        aux: 0,
        stack: false,
    };
    if ins.has_lock_prefix() {
        op.flags |= LOCKED;
    }
    if ins.has_rep_prefix() {
        op.flags |= REP;
    }
    if ins.has_repne_prefix() {
        op.flags |= REPNE;
    }
    if ins.flow_control() != FlowControl::Next {
        op.flags |= ENDS_BLOCK;
    }
    let legacy = ins.code_size() != CodeSize::Code64;
    for n in 0..ins.op_count() {
        match ins.op_kind(n) {
            OpKind::Memory => fill_memory(ins, &mut op, legacy),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = ins.near_branch_target().wrapping_sub(ins.next_ip());
            }
            OpKind::FarBranch16 | OpKind::FarBranch32 | OpKind::Register => {}
            kind if is_immediate(kind) => op.imm = ins.immediate(n),
            _ => {}
        }
    }
    op
}

const fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

fn fill_memory(ins: &Instruction, op: &mut Op, legacy: bool) {
    let base = ins.memory_base();
    op.disp = ins.memory_displacement64();
    match base {
        Register::None => {}
        Register::RIP | Register::EIP => {
            op.base = RIP as u8;
            op.disp = ins.memory_displacement64().wrapping_sub(ins.next_ip());
            if base == Register::EIP {
                op.flags |= EA_ADDR32;
            }
        }
        _ => op.base = base.number() as u8,
    }
    let index = ins.memory_index();
    if index != Register::None {
        op.index = index.number() as u8;
        op.scale = ins.memory_index_scale().trailing_zeros() as u8;
    }
    let width = if base != Register::None { base } else { index };
    if width.is_gpr32() || width == Register::None && ins.memory_displ_size() == 4 {
        op.flags |= EA_ADDR32;
    } else if width.is_gpr16() || width == Register::None && ins.memory_displ_size() == 2 {
        op.flags |= EA_ADDR16;
    }
    let seg = segment_number(ins.memory_segment());
    // In 64-bit mode an override by CS, DS, ES or SS is ignored: the base alone decides.
    op.stack = if legacy {
        seg == SS
    } else {
        !matches!(seg, FS | GS)
            && matches!(base, Register::RSP | Register::RBP | Register::ESP | Register::EBP)
    };
    if legacy {
        op.flags |= EA_LEGACY;
        op.seg = seg as u8;
    } else {
        op.seg = if matches!(seg, FS | GS) { seg as u8 } else { FLAT as u8 };
    }
}

/// Index of a segment register in `CpuState::seg`.
pub fn segment_number(register: Register) -> usize {
    match register {
        Register::ES => ES,
        Register::CS => CS,
        Register::SS => SS,
        Register::DS => DS,
        Register::FS => FS,
        Register::GS => GS,
        _ => FLAT,
    }
}

/// Number of a register as an [`Op`] names it: GPRs 0 to 15 of any width (AH, CH, DH, BH from
/// [`HIGH_BYTE`]), others by their architectural number.
pub fn register_number(register: Register) -> u8 {
    match register {
        Register::AH => HIGH_BYTE,
        Register::CH => HIGH_BYTE + 1,
        Register::DH => HIGH_BYTE + 2,
        Register::BH => HIGH_BYTE + 3,
        // iced numbers the 8-bit registers AL..BL, AH..BH, SPL..R15L in sequence.
        r if r.is_gpr8() => r.full_register().number() as u8,
        r => r.number() as u8,
    }
}

/// Where an integer operand lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// A general register.
    Reg,
    /// Memory.
    Mem,
    /// In the instruction.
    Imm,
}

/// Where operand `n` lies; `None` for what is no integer operand (segment, control, vector registers).
pub fn arg(ins: &Instruction, n: u32) -> Option<Arg> {
    if n >= ins.op_count() {
        return None;
    }
    match ins.op_kind(n) {
        OpKind::Register if ins.op_register(n).is_gpr() => Some(Arg::Reg),
        OpKind::Memory => Some(Arg::Mem),
        kind if is_immediate(kind) => Some(Arg::Imm),
        _ => None,
    }
}

/// Bytes of operand `n` (register or memory).
pub fn arg_size(ins: &Instruction, n: u32) -> u8 {
    match ins.op_kind(n) {
        OpKind::Register => ins.op_register(n).size() as u8,
        _ => ins.memory_size().size() as u8,
    }
}

/// [`base_op`] with the general registers of operands 0, 1, 2 in `dst`, `src`, `src2`, and in `size` the
/// size of the memory operand, or else of operand 0.
pub fn int_op(ins: &Instruction, exec: Exec) -> Op {
    let mut op = base_op(ins, exec);
    let mut memory = false;
    for n in 0..ins.op_count().min(3) {
        match arg(ins, n) {
            Some(Arg::Reg) => {
                let number = register_number(ins.op_register(n));
                match n {
                    0 => op.dst = number,
                    1 => op.src = number,
                    _ => op.src2 = number,
                }
            }
            Some(Arg::Mem) => memory = true,
            _ => {}
        }
    }
    op.size = if memory {
        ins.memory_size().size() as u8
    } else if ins.op_count() > 0 {
        arg_size(ins, 0)
    } else {
        0
    };
    op
}
