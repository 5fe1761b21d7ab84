//! PUSH, POP, LEAVE, and the flags' own instructions that need no help.

use super::emit::{Emitter, SCRATCH, state};
use super::regs::{RAX, RCX, guest_number};
use super::rewrite::{awkward, load, memory_operand};
use crate::flags::{AC, IF};
use crate::state::{RBP, RSP};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

const SP: u8 = RSP as u8;
const BP: u8 = RBP as u8;

/// Emits an instruction of this class; false if it is none, or a form that the interpreter has to do.
pub fn translate(e: &mut Emitter, ins: &Instruction) -> bool {
    match ins.mnemonic() {
        Mnemonic::Push => push(e, ins),
        Mnemonic::Pop => pop(e, ins),
        Mnemonic::Leave => leave(e, ins),
        Mnemonic::Cli => cli(e),
        Mnemonic::Stac => stac(e),
        Mnemonic::Clac => clac(e),
        _ => false,
    }
}

/// Lets `[rax + rdx]` be the 8 bytes below the stack pointer.
pub fn reach_push(e: &mut Emitter) {
    e.load_guest(RAX, SP);
    dynasm!(e.a ; .arch x64 ; lea rax, [rax - 8]);
    e.reach(8, true);
}

/// Moves the stack pointer. Uses RCX.
pub fn move_sp(e: &mut Emitter, by: i32) {
    e.add_guest(SP, by);
}

fn push(e: &mut Emitter, ins: &Instruction) -> bool {
    if ins.stack_pointer_increment() != -8 || awkward(ins) {
        return false;
    }
    match ins.op_kind(0) {
        OpKind::Register if ins.op_register(0).is_gpr64() => {
            reach_push(e);
            let from = e.guest_in(guest_number(ins.op_register(0)), RCX);
            dynasm!(e.a ; .arch x64 ; mov [rax + rdx], Rq(from));
        }
        OpKind::Memory => {
            e.address(ins);
            e.reach(8, false);
            load(e, RCX, 8);
            dynasm!(e.a ; .arch x64 ; mov [rbp + SCRATCH], rcx);
            reach_push(e);
            dynasm!(e.a ; .arch x64 ; mov rcx, [rbp + SCRATCH] ; mov [rax + rdx], rcx);
        }
        OpKind::Register => return false,
        _ => {
            let value = ins.immediate(0) as i64;
            reach_push(e);
            dynasm!(e.a ; .arch x64 ; mov QWORD [rax + rdx], value as i32);
        }
    }
    move_sp(e, -8);
    true
}

fn pop(e: &mut Emitter, ins: &Instruction) -> bool {
    let plain = ins.op_kind(0) == OpKind::Register && ins.op_register(0).is_gpr64();
    if !plain || ins.stack_pointer_increment() != 8 {
        return false;
    }
    e.load_guest(RAX, SP);
    e.reach(8, false);
    load(e, RAX, 8);
    move_sp(e, 8);
    // POP into RSP leaves the value popped.
    e.store_guest(guest_number(ins.op_register(0)), RAX);
    true
}

fn leave(e: &mut Emitter, ins: &Instruction) -> bool {
    if ins.code() != Code::Leaveq || memory_operand(ins).is_some() {
        return false;
    }
    e.load_guest(RAX, BP);
    e.reach(8, false);
    load(e, RCX, 8);
    e.load_guest(RAX, BP);
    dynasm!(e.a ; .arch x64 ; lea rax, [rax + 8]);
    e.store_guest(SP, RAX);
    e.store_guest(BP, RCX);
    true
}

/// CLI at CPL 0: takes IF, wherever it is, out of the flags without an arithmetic instruction. Rotated so
/// that IF is on top, it falls off when the word is doubled.
fn cli(e: &mut Emitter) -> bool {
    if e.mode.is_user() {
        return false;
    }
    const { assert!(IF == 1 << 9) };
    dynasm!(e.a ; .arch x64
        ; rorx rcx, [rbp + state!(flags.other)], 10
        ; lea rcx, [rcx + rcx]
        ; rorx rcx, rcx, 55
        ; mov [rbp + state!(flags.other)], rcx);
    true
}

/// STAC and CLAC where SMAP is in use: AC is known from the view.
fn stac(e: &mut Emitter) -> bool {
    let Some(lifted) = e.mode.with_smap_lifted() else { return false };
    add_to_flags(e, AC as i32);
    e.mode = lifted;
    true
}

fn clac(e: &mut Emitter) -> bool {
    let Some(enforced) = e.mode.with_smap_enforced() else { return false };
    add_to_flags(e, -(AC as i32));
    e.mode = enforced;
    true
}

fn add_to_flags(e: &mut Emitter, by: i32) {
    dynasm!(e.a ; .arch x64
        ; mov rcx, [rbp + state!(flags.other)]
        ; lea rcx, [rcx + by]
        ; mov [rbp + state!(flags.other)], rcx);
}
