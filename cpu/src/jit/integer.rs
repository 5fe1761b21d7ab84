//! Moves, arithmetic and logic, exchanges, bit tests, multiplication and division.

use super::emit::{Emitter, SCRATCH, Want, host};
use super::regs::{RAX, RCX, RDX, gpr, guest_number, home};
use super::rewrite::{awkward, load, memory_operand, rewrite};
use crate::state;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

const GUEST_RAX: u8 = state::RAX as u8;
const GUEST_RCX: u8 = state::RCX as u8;
const GUEST_RDX: u8 = state::RDX as u8;

/// Emits an instruction of this class; false if it is none, or a form that the interpreter has to do.
/// `dead`: nobody sees the flags that it leaves.
pub fn translate(e: &mut Emitter, ins: &Instruction, dead: bool) -> bool {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Mov if ins.op_count() == 2 && plain_mov(ins) => rewrite(e, ins, false),
        M::Add | M::Or | M::Adc | M::Sbb | M::And | M::Sub | M::Xor | M::Cmp | M::Test => {
            rewrite(e, ins, false)
        }
        M::Inc | M::Dec | M::Neg | M::Not | M::Popcnt | M::Crc32 | M::Movnti => {
            rewrite(e, ins, false)
        }
        M::Movzx | M::Movsx | M::Movsxd => rewrite(e, ins, false),
        M::Bswap if ins.op_register(0).size() >= 4 => rewrite(e, ins, false),
        _ if is_conditional(ins) => rewrite(e, ins, false),
        M::Lea => lea(e, ins),
        M::Nop | M::Reservednop | M::Pause | M::Endbr64 | M::Lfence | M::Mfence | M::Sfence => true,
        M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetchnta | M::Prefetchw => true,
        M::Cbw | M::Cwde | M::Cdqe | M::Cdq | M::Cqo => widen(e, ins.mnemonic()),
        M::Xchg => xchg(e, ins),
        M::Xadd => xadd(e, ins),
        M::Cmpxchg => cmpxchg(e, ins),
        M::Bt | M::Bts | M::Btr | M::Btc => bit_test(e, ins),
        M::Bsf | M::Bsr => scan(e, ins),
        M::Imul if ins.op_count() > 1 => imul(e, ins, dead),
        M::Mul | M::Imul => multiply(e, ins, dead),
        M::Div | M::Idiv => divide(e, ins),
        _ => false,
    }
}

/// MOV between general registers, memory and immediates, in forms that can name any register.
fn plain_mov(ins: &Instruction) -> bool {
    let general = |n| match ins.op_kind(n) {
        OpKind::Register => ins.op_register(n).is_gpr(),
        _ => true,
    };
    let offset_form = matches!(
        ins.code(),
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    );
    general(0) && general(1) && !offset_form
}

/// SETcc and CMOVcc.
fn is_conditional(ins: &Instruction) -> bool {
    use iced_x86::ConditionCode;
    ins.condition_code() != ConditionCode::None
        && !ins.is_jcc_short_or_near()
        && matches!(ins.op_count(), 1 | 2)
        && ins.flow_control() == iced_x86::FlowControl::Next
}

/// LEA. With homes for all of its registers it is one instruction, as for the guest.
fn lea(e: &mut Emitter, ins: &Instruction) -> bool {
    if awkward(ins) {
        return false;
    }
    let size = ins.op_register(0).size();
    let to = guest_number(ins.op_register(0));
    let (base, index) = (ins.memory_base(), ins.memory_index());
    let housed =
        |r: Register| r == Register::None || r.is_gpr64() && home(guest_number(r)).is_some();
    let some = base != Register::None || index != Register::None;
    if let Some(at) = home(to)
        && some
        && housed(base)
        && housed(index)
    {
        let mut out = *ins;
        let named = |r: Register| match r {
            Register::None => r,
            r => gpr(home(guest_number(r)).unwrap_or(0), 8),
        };
        out.set_memory_base(named(base));
        out.set_memory_index(named(index));
        out.set_segment_prefix(Register::None);
        out.set_op_register(0, gpr(at, size));
        e.raw(&out);
        return true;
    }
    e.effective(ins);
    match size {
        8 => e.store_guest(to, RAX),
        4 => {
            dynasm!(e.a ; .arch x64 ; mov eax, eax);
            e.store_guest(to, RAX);
        }
        _ => {
            e.load_guest(RCX, to);
            dynasm!(e.a ; .arch x64 ; mov cx, ax);
            e.store_guest(to, RCX);
        }
    }
    true
}

fn widen(e: &mut Emitter, mnemonic: Mnemonic) -> bool {
    e.load_guest(RAX, GUEST_RAX);
    match mnemonic {
        Mnemonic::Cbw => dynasm!(e.a ; .arch x64 ; movsx cx, al ; mov ax, cx),
        Mnemonic::Cwde => dynasm!(e.a ; .arch x64 ; movsx eax, ax),
        Mnemonic::Cdqe => dynasm!(e.a ; .arch x64 ; movsxd rax, eax),
        Mnemonic::Cdq => {
            dynasm!(e.a ; .arch x64 ; mov ecx, 31 ; sarx eax, eax, ecx);
            e.store_guest(GUEST_RDX, RAX);
            return true;
        }
        _ => {
            dynasm!(e.a ; .arch x64 ; mov ecx, 63 ; sarx rax, rax, rcx);
            e.store_guest(GUEST_RDX, RAX);
            return true;
        }
    }
    e.store_guest(GUEST_RAX, RAX);
    true
}

/// Lets RAX be the host's address of the memory operand, which is read and written. RCX and RDX are free.
fn reach_for_update(e: &mut Emitter, ins: &Instruction) {
    e.address(ins);
    e.reach(ins.memory_size().size() as u8, true);
    dynasm!(e.a ; .arch x64 ; lea rax, [rax + rdx]);
}

/// An instruction on `[base]` and one register, from a form that names memory first.
fn on_memory(ins: &Instruction, base: Register, register: Register) -> Instruction {
    let mut out = *ins;
    out.set_has_lock_prefix(false);
    out.set_segment_prefix(Register::None);
    out.set_memory_base(base);
    out.set_memory_index(Register::None);
    out.set_memory_displacement64(0);
    out.set_memory_displ_size(0);
    let n = u32::from(ins.op_kind(0) == OpKind::Memory);
    out.set_op_register(n, register);
    out
}

/// XCHG. With memory it is a load and a store here: nobody else sees this memory, and the host's own would
/// lock the bus.
fn xchg(e: &mut Emitter, ins: &Instruction) -> bool {
    if awkward(ins) {
        return false;
    }
    if let Some(n) = memory_operand(ins) {
        let register = ins.op_register(1 - n);
        let (guest, size) = (guest_number(register), register.size());
        reach_for_update(e, ins);
        e.load_guest(RDX, guest);
        e.load_guest(RCX, guest);
        let (read, write) = match size {
            1 => (Code::Mov_r8_rm8, Code::Mov_rm8_r8),
            2 => (Code::Mov_r16_rm16, Code::Mov_rm16_r16),
            4 => (Code::Mov_r32_rm32, Code::Mov_rm32_r32),
            _ => (Code::Mov_r64_rm64, Code::Mov_rm64_r64),
        };
        let at = MemoryOperand::with_base(Register::RAX);
        e.raw(&host(Instruction::with2(read, gpr(RCX, size), at)));
        e.raw(&host(Instruction::with2(write, at, gpr(RDX, size))));
        e.store_guest(guest, RCX);
        return true;
    }
    let (a, b) = (ins.op_register(0), ins.op_register(1));
    let size = a.size();
    if size < 4 {
        return false;
    }
    let (a, b) = (guest_number(a), guest_number(b));
    e.load_guest(RCX, a);
    e.load_guest(RDX, b);
    if size == 4 {
        dynasm!(e.a ; .arch x64 ; mov ecx, ecx ; mov edx, edx);
    }
    e.store_guest(a, RDX);
    e.store_guest(b, RCX);
    true
}

fn xadd(e: &mut Emitter, ins: &Instruction) -> bool {
    if awkward(ins) || memory_operand(ins).is_none() {
        return false;
    }
    let register = ins.op_register(1);
    let guest = guest_number(register);
    reach_for_update(e, ins);
    e.load_guest(RCX, guest);
    e.raw(&on_memory(ins, Register::RAX, gpr(RCX, register.size())));
    e.store_guest(guest, RCX);
    true
}

/// CMPXCHG. The accumulator is left alone, upper half included, unless the comparison fails.
fn cmpxchg(e: &mut Emitter, ins: &Instruction) -> bool {
    if awkward(ins) || memory_operand(ins).is_none() {
        return false;
    }
    let register = ins.op_register(1);
    reach_for_update(e, ins);
    dynasm!(e.a ; .arch x64 ; mov rdx, rax);
    e.load_guest(RCX, guest_number(register));
    e.load_guest(RAX, GUEST_RAX);
    e.raw(&on_memory(ins, Register::RDX, gpr(RCX, register.size())));
    dynasm!(e.a ; .arch x64 ; jz >equal);
    e.store_guest(GUEST_RAX, RAX);
    dynasm!(e.a ; .arch x64 ; equal:);
    true
}

/// Keeps the flags as they are in the first scratch word. Uses RAX.
fn keep_flags(e: &mut Emitter) {
    dynasm!(e.a ; .arch x64 ; lahf ; seto al ; mov [rbp + SCRATCH], eax);
}

/// BT and its kin change CF alone. A bit offset in a register may lead beyond a memory operand: that is
/// left to the interpreter.
fn bit_test(e: &mut Emitter, ins: &Instruction) -> bool {
    if awkward(ins) || memory_operand(ins).is_some() && ins.op_kind(1) == OpKind::Register {
        return false;
    }
    keep_flags(e);
    rewrite(e, ins, false);
    dynasm!(e.a ; .arch x64
        ; setc cl
        ; mov eax, [rbp + SCRATCH]
        ; and ah, -2
        ; or ah, cl);
    e.restore_flags();
    true
}

/// BSF and BSR change ZF alone, and leave their destination alone if there is no bit.
fn scan(e: &mut Emitter, ins: &Instruction) -> bool {
    let size = ins.op_register(0).size();
    if awkward(ins) || size < 4 {
        return false;
    }
    let to = guest_number(ins.op_register(0));
    if memory_operand(ins).is_some() {
        e.address(ins);
        e.reach(size as u8, false);
        load(e, RCX, size);
    } else {
        e.load_guest(RCX, guest_number(ins.op_register(1)));
    }
    dynasm!(e.a ; .arch x64 ; lahf ; seto al ; or ah, 0x40);
    let (source, result) = (gpr(RCX, size), gpr(RCX, size));
    let test = if size == 8 { Code::Test_rm64_r64 } else { Code::Test_rm32_r32 };
    e.raw(&host(Instruction::with2(test, source, source)));
    dynasm!(e.a ; .arch x64 ; jz >none ; and ah, -65);
    let code = match (ins.mnemonic(), size) {
        (Mnemonic::Bsf, 8) => Code::Bsf_r64_rm64,
        (Mnemonic::Bsf, _) => Code::Bsf_r32_rm32,
        (_, 8) => Code::Bsr_r64_rm64,
        _ => Code::Bsr_r32_rm32,
    };
    e.raw(&host(Instruction::with2(code, result, source)));
    e.store_guest(to, RCX);
    dynasm!(e.a ; .arch x64 ; none:);
    e.restore_flags();
    true
}

/// After a multiplication: CF and OF say whether the product fits, the other flags are those kept.
fn product_flags(e: &mut Emitter) {
    dynasm!(e.a ; .arch x64
        ; seto cl
        ; mov eax, [rbp + SCRATCH]
        ; and ah, -2
        ; or ah, cl
        ; mov al, cl);
    e.restore_flags();
}

/// IMUL with two or three operands.
fn imul(e: &mut Emitter, ins: &Instruction, dead: bool) -> bool {
    if dead {
        return rewrite(e, ins, false);
    }
    if awkward(ins) {
        return false;
    }
    keep_flags(e);
    rewrite(e, ins, false);
    product_flags(e);
    true
}

/// The one operand of MUL, IMUL, DIV or IDIV in RCX.
fn operand_in_rcx(e: &mut Emitter, ins: &Instruction, size: usize) {
    if memory_operand(ins).is_some() {
        e.address(ins);
        e.reach(size as u8, false);
        load(e, RCX, size);
    } else {
        e.load_guest(RCX, guest_number(ins.op_register(0)));
    }
}

fn operand_size(ins: &Instruction) -> usize {
    match memory_operand(ins) {
        Some(_) => ins.memory_size().size(),
        None => ins.op_register(0).size(),
    }
}

/// The same instruction on RCX.
fn on_rcx(ins: &Instruction, size: usize) -> Instruction {
    host(Instruction::with1(ins.code(), gpr(RCX, size)))
}

/// MUL and IMUL with one operand.
fn multiply(e: &mut Emitter, ins: &Instruction, dead: bool) -> bool {
    let size = operand_size(ins);
    if awkward(ins) || size < 4 {
        return false;
    }
    operand_in_rcx(e, ins, size);
    if !dead {
        keep_flags(e);
    }
    e.load_guest(RAX, GUEST_RAX);
    e.raw(&on_rcx(ins, size));
    e.store_guest(GUEST_RAX, RAX);
    e.store_guest(GUEST_RDX, RDX);
    if !dead {
        product_flags(e);
    }
    true
}

/// DIV and IDIV where they cannot fault: the upper half is below the divisor (unsigned), or it is the sign of
/// the lower and the divisor is neither 0 nor -1. Else the interpreter does it. AF is set, SF, ZF and PF are
/// clear, CF and OF stay.
fn divide(e: &mut Emitter, ins: &Instruction) -> bool {
    let size = operand_size(ins);
    if awkward(ins) || size < 4 {
        return false;
    }
    let signed = ins.mnemonic() == Mnemonic::Idiv;
    operand_in_rcx(e, ins, size);
    keep_flags(e);
    let slow = e.help(Want::Execute);
    e.load_guest(RAX, GUEST_RAX);
    e.load_guest(RDX, GUEST_RDX);
    match (signed, size) {
        (false, 8) => dynasm!(e.a ; .arch x64 ; cmp rdx, rcx ; jb >fine),
        (false, _) => dynasm!(e.a ; .arch x64 ; cmp edx, ecx ; jb >fine),
        (true, 8) => dynasm!(e.a ; .arch x64
            ; lea rdx, [rcx + 1]
            ; cmp rdx, 1
            ; jbe >slow
            ; mov rdx, rax
            ; sar rdx, 63
            ; mov [rbp + SCRATCH + 8], rcx),
        (true, _) => dynasm!(e.a ; .arch x64
            ; lea edx, [rcx + 1]
            ; cmp edx, 1
            ; jbe >slow
            ; mov edx, eax
            ; sar edx, 31
            ; mov [rbp + SCRATCH + 8], rcx),
    }
    if signed {
        e.load_guest(RCX, GUEST_RDX);
        if size == 8 {
            dynasm!(e.a ; .arch x64 ; cmp rdx, rcx);
        } else {
            dynasm!(e.a ; .arch x64 ; cmp edx, ecx);
        }
        dynasm!(e.a ; .arch x64 ; mov rcx, [rbp + SCRATCH + 8] ; je >fine);
    }
    dynasm!(e.a ; .arch x64 ; slow: ; mov eax, [rbp + SCRATCH]);
    e.restore_flags();
    dynasm!(e.a ; .arch x64 ; jmp =>slow ; fine:);
    e.raw(&on_rcx(ins, size));
    e.store_guest(GUEST_RAX, RAX);
    e.store_guest(GUEST_RDX, RDX);
    dynasm!(e.a ; .arch x64 ; mov eax, [rbp + SCRATCH] ; and ah, 0x3b ; or ah, 0x10);
    e.restore_flags();
    true
}

/// The guest's count register, for the shifts.
pub const COUNT: u8 = GUEST_RCX;
