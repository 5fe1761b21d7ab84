//! Near branches: the end of a unit.
//!
//! A branch inside the page leads straight to the unit there once that is known. Everything else is looked
//! up among the known targets, which the TLB vouches for (see `window`). An indirect branch whose target is
//! unknown is executed by the interpreter, which raises its faults before anything has changed.

use super::emit::{Emitter, PAGE_VA, Want};
use super::regs::{RAX, guest_number};
use super::rewrite::{awkward, load, memory_operand};
use super::stack::{move_sp, reach_push};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Code, ConditionCode, Instruction, Mnemonic};

/// Emits a branch; false if it is none, or a form that the interpreter has to do. `next` is the offset of
/// the next instruction in the page.
pub fn translate(e: &mut Emitter, ins: &Instruction, next: i32) -> bool {
    let target = ins.near_branch_target().wrapping_sub(super::page_of(ins.ip())) as i64;
    let Ok(target) = i32::try_from(target) else { return false };
    match ins.code() {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => {
            e.settle();
            e.go(target);
        }
        Code::Call_rel32_64 => call(e, next, target),
        Code::Jmp_rm64 => return jump_indirect(e, ins),
        Code::Call_rm64 => return call_indirect(e, ins, next),
        Code::Retnq | Code::Retnq_imm16 => ret(e, ins),
        _ if ins.is_jcc_short_or_near() && ins.mnemonic() != Mnemonic::INVALID => {
            return conditional(e, ins.condition_code(), next, target);
        }
        _ => return false,
    }
    true
}

fn conditional(e: &mut Emitter, condition: ConditionCode, next: i32, target: i32) -> bool {
    e.settle();
    let taken = e.a.new_dynamic_label();
    match condition {
        ConditionCode::o => dynasm!(e.a ; .arch x64 ; jo =>taken),
        ConditionCode::no => dynasm!(e.a ; .arch x64 ; jno =>taken),
        ConditionCode::b => dynasm!(e.a ; .arch x64 ; jb =>taken),
        ConditionCode::ae => dynasm!(e.a ; .arch x64 ; jae =>taken),
        ConditionCode::e => dynasm!(e.a ; .arch x64 ; je =>taken),
        ConditionCode::ne => dynasm!(e.a ; .arch x64 ; jne =>taken),
        ConditionCode::be => dynasm!(e.a ; .arch x64 ; jbe =>taken),
        ConditionCode::a => dynasm!(e.a ; .arch x64 ; ja =>taken),
        ConditionCode::s => dynasm!(e.a ; .arch x64 ; js =>taken),
        ConditionCode::ns => dynasm!(e.a ; .arch x64 ; jns =>taken),
        ConditionCode::p => dynasm!(e.a ; .arch x64 ; jp =>taken),
        ConditionCode::np => dynasm!(e.a ; .arch x64 ; jnp =>taken),
        ConditionCode::l => dynasm!(e.a ; .arch x64 ; jl =>taken),
        ConditionCode::ge => dynasm!(e.a ; .arch x64 ; jge =>taken),
        ConditionCode::le => dynasm!(e.a ; .arch x64 ; jle =>taken),
        ConditionCode::g => dynasm!(e.a ; .arch x64 ; jg =>taken),
        ConditionCode::None => return false,
    }
    e.go(next);
    dynasm!(e.a ; .arch x64 ; =>taken);
    e.go(target);
    true
}

/// Writes the return address to `[rax + rdx]` and moves the stack pointer.
fn push_return(e: &mut Emitter, next: i32) {
    dynasm!(e.a ; .arch x64
        ; mov rcx, [rbp + PAGE_VA]
        ; lea rcx, [rcx + next]
        ; mov [rax + rdx], rcx);
    move_sp(e, -8);
}

fn call(e: &mut Emitter, next: i32, target: i32) {
    reach_push(e);
    push_return(e, next);
    e.settle();
    e.go(target);
}

/// The target of an indirect branch in RAX.
fn target_in_rax(e: &mut Emitter, ins: &Instruction) {
    if memory_operand(ins).is_some() {
        e.address(ins);
        e.reach(8, false);
        load(e, RAX, 8);
    } else {
        e.load_guest(RAX, guest_number(ins.op_register(0)));
    }
}

fn jump_indirect(e: &mut Emitter, ins: &Instruction) -> bool {
    if awkward(ins) {
        return false;
    }
    e.settle();
    target_in_rax(e, ins);
    let unknown = e.help(Want::Execute);
    e.find_target(unknown);
    e.leave_page();
    true
}

fn call_indirect(e: &mut Emitter, ins: &Instruction, next: i32) -> bool {
    if awkward(ins) {
        return false;
    }
    e.settle();
    target_in_rax(e, ins);
    let unknown = e.help(Want::Execute);
    e.find_target(unknown);
    e.note_target();
    reach_push(e);
    push_return(e, next);
    e.leave_to_noted();
    true
}

fn ret(e: &mut Emitter, ins: &Instruction) {
    let drop = if ins.op_count() > 0 { i32::from(ins.immediate16()) } else { 0 };
    e.settle();
    e.load_guest(RAX, crate::state::RSP as u8);
    e.reach(8, false);
    load(e, RAX, 8);
    let unknown = e.help(Want::Execute);
    e.find_target(unknown);
    move_sp(e, 8 + drop);
    e.leave_page();
}
