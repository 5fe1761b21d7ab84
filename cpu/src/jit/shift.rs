//! Shifts and rotations.
//!
//! The model's flags are those of `exec/shift.rs`. A shift by a constant leaves a correction pending; one by
//! CL, which changes no flag if the count is 0, is corrected at once.

use super::emit::{Emitter, Pending};
use super::integer::COUNT;
use super::regs::{RCX, RDX, gpr, guest_number, home};
use super::rewrite::{awkward, memory_operand, rewrite};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// Emits an instruction of this class; false if it is none, or a form that the interpreter has to do.
pub fn translate(e: &mut Emitter, ins: &Instruction, dead: bool) -> bool {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Shl | M::Sal | M::Shr | M::Sar => match count(ins) {
            Some(count) => by_constant(e, ins, count),
            None => by_cl(e, ins, dead),
        },
        M::Rol | M::Ror => match count(ins) {
            Some(1) => rewrite(e, ins, false),
            Some(count) if count > 0 => rotate(e, ins, dead),
            Some(_) => false,
            None => dead && rotate_by_cl(e, ins),
        },
        M::Rcl | M::Rcr => count(ins) == Some(1) && rewrite(e, ins, false),
        M::Shld | M::Shrd => {
            let constant = ins.op_kind(2) == OpKind::Immediate8;
            let masked = constant && ins.immediate8() & if size(ins) == 8 { 63 } else { 31 } != 0;
            dead && masked && size(ins) >= 4 && rewrite(e, ins, false)
        }
        _ => false,
    }
}

fn size(ins: &Instruction) -> usize {
    match memory_operand(ins) {
        Some(_) => ins.memory_size().size(),
        None => ins.op_register(0).size(),
    }
}

/// The masked constant count; none for a count in CL.
fn count(ins: &Instruction) -> Option<u32> {
    match ins.op_kind(1) {
        OpKind::Immediate8 => {
            Some(u32::from(ins.immediate8()) & if size(ins) == 8 { 63 } else { 31 })
        }
        _ => None,
    }
}

fn by_constant(e: &mut Emitter, ins: &Instruction, count: u32) -> bool {
    // Beyond the width CF is the model's own; by 0 no flag changes.
    if count == 0 || count as usize >= 8 * size(ins) || !rewrite(e, ins, false) {
        return false;
    }
    e.pending = match (count, ins.mnemonic()) {
        (1, _) => Pending::Shifted,
        (_, Mnemonic::Shl | Mnemonic::Sal) => Pending::ShiftedLeft,
        _ => Pending::ShiftedRight,
    };
    true
}

/// A register that is shifted where it lives, or in RDX.
struct Shifted {
    guest: u8,
    at: u8,
    size: usize,
}

fn shifted(e: &mut Emitter, ins: &Instruction) -> Option<Shifted> {
    if awkward(ins) || memory_operand(ins).is_some() || size(ins) < 4 {
        return None;
    }
    let guest = guest_number(ins.op_register(0));
    Some(Shifted { guest, at: e.guest_in(guest, RDX), size: size(ins) })
}

impl Shifted {
    fn back(&self, e: &mut Emitter) {
        if home(self.guest).is_none() {
            e.store_guest(self.guest, self.at);
        }
    }

    /// The guest's own instruction, on this register and the host's CL.
    fn apply(&self, e: &mut Emitter, ins: &Instruction) {
        let mut out = *ins;
        out.set_op_register(0, gpr(self.at, self.size));
        e.raw(&out);
    }
}

fn by_cl(e: &mut Emitter, ins: &Instruction, dead: bool) -> bool {
    let Some(value) = shifted(e, ins) else { return false };
    let at = value.at;
    if dead {
        let by = e.guest_in(COUNT, RCX);
        match (ins.mnemonic(), value.size) {
            (Mnemonic::Shr, 8) => dynasm!(e.a ; .arch x64 ; shrx Rq(at), Rq(at), Rq(by)),
            (Mnemonic::Shr, _) => dynasm!(e.a ; .arch x64 ; shrx Rd(at), Rd(at), Rd(by)),
            (Mnemonic::Sar, 8) => dynasm!(e.a ; .arch x64 ; sarx Rq(at), Rq(at), Rq(by)),
            (Mnemonic::Sar, _) => dynasm!(e.a ; .arch x64 ; sarx Rd(at), Rd(at), Rd(by)),
            (_, 8) => dynasm!(e.a ; .arch x64 ; shlx Rq(at), Rq(at), Rq(by)),
            _ => dynasm!(e.a ; .arch x64 ; shlx Rd(at), Rd(at), Rd(by)),
        }
        value.back(e);
        return true;
    }
    e.load_guest(RCX, COUNT);
    value.apply(e, ins);
    value.back(e);
    let mask = if value.size == 8 { 63 } else { 31 };
    dynasm!(e.a ; .arch x64 ; lahf ; seto al ; and ecx, mask ; jz >unchanged ; or ah, 0x10);
    match (ins.mnemonic(), value.size) {
        (Mnemonic::Shr, 8) => {
            dynasm!(e.a ; .arch x64 ; rorx rcx, Rq(at), 62 ; and ecx, 1 ; mov al, cl);
        }
        (Mnemonic::Shr, _) => {
            dynasm!(e.a ; .arch x64 ; rorx ecx, Rd(at), 30 ; and ecx, 1 ; mov al, cl);
        }
        (Mnemonic::Sar, _) => dynasm!(e.a ; .arch x64 ; mov al, 0),
        _ => dynasm!(e.a ; .arch x64 ; mov al, ah ; rol al, 1 ; xor al, ah ; and al, 1),
    }
    dynasm!(e.a ; .arch x64 ; unchanged:);
    e.restore_flags();
    true
}

/// ROL and ROR by a constant above 1: OF is what a rotation by 1 would leave.
fn rotate(e: &mut Emitter, ins: &Instruction, dead: bool) -> bool {
    if dead && size(ins) >= 4 {
        return rewrite(e, ins, false);
    }
    let Some(value) = shifted(e, ins) else { return false };
    value.apply(e, ins);
    value.back(e);
    let at = value.at;
    let left = ins.mnemonic() == Mnemonic::Rol;
    dynasm!(e.a ; .arch x64 ; lahf);
    // The two bits whose difference is OF, at bits 0 of RCX and EAX's low byte.
    match (left, value.size) {
        (true, 8) => dynasm!(e.a ; .arch x64 ; rorx rcx, Rq(at), 63 ; xor rcx, Rq(at)),
        (true, _) => dynasm!(e.a ; .arch x64 ; rorx ecx, Rd(at), 31 ; xor ecx, Rd(at)),
        (false, 8) => {
            dynasm!(e.a ; .arch x64 ; rorx rcx, Rq(at), 62 ; mov edx, ecx ; shr edx, 1 ; xor ecx, edx);
        }
        (false, _) => {
            dynasm!(e.a ; .arch x64 ; rorx ecx, Rd(at), 30 ; mov edx, ecx ; shr edx, 1 ; xor ecx, edx);
        }
    }
    dynasm!(e.a ; .arch x64 ; and ecx, 1 ; mov al, cl);
    e.restore_flags();
    true
}

fn rotate_by_cl(e: &mut Emitter, ins: &Instruction) -> bool {
    let Some(value) = shifted(e, ins) else { return false };
    e.load_guest(RCX, COUNT);
    value.apply(e, ins);
    value.back(e);
    true
}
