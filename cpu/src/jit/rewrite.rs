//! The host executes the guest's own instruction, with other registers and another address.
//!
//! Fits every instruction that names all of its operands and whose result and flags the architecture
//! defines; the classes decide which those are.

use super::emit::{Emitter, host};
use super::regs::{RAX, RCX, RDX, gpr, guest_number, home, is_high_byte};
use dynasmrt::dynasm;
use iced_x86::{
    Code, Instruction, InstructionInfoFactory, MemoryOperand, OpAccess, OpKind, Register,
};

/// The memory operand's number, if there is one.
pub fn memory_operand(ins: &Instruction) -> Option<u32> {
    (0..ins.op_count()).find(|n| ins.op_kind(*n) == OpKind::Memory)
}

/// True if an operand is a high byte register, or the address is one that translated code cannot make.
pub fn awkward(ins: &Instruction) -> bool {
    let high = (0..ins.op_count())
        .any(|n| ins.op_kind(n) == OpKind::Register && is_high_byte(ins.op_register(n)));
    high || memory_operand(ins).is_some() && ins.memory_base() == Register::EIP
}

const fn reads(access: OpAccess) -> bool {
    !matches!(access, OpAccess::Write | OpAccess::NoMemAccess | OpAccess::None)
}

const fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
    )
}

/// Guest registers that stand in scratch registers during one instruction.
struct Scratch {
    free: Vec<u8>,
    taken: Vec<(u8, u8)>,
}

impl Scratch {
    fn place(&mut self, guest: u8) -> Option<(u8, bool)> {
        if let Some((_, at)) = self.taken.iter().find(|(g, _)| *g == guest) {
            return Some((*at, false));
        }
        let at = self.free.pop()?;
        self.taken.push((guest, at));
        Some((at, true))
    }
}

/// Emits the instruction with its operands where the host has them. False, and nothing emitted, if one of
/// its registers cannot be named.
///
/// The memory operand has to be in RAM within one page; else help is called. With `align`, it also has
/// to be a multiple of 16.
pub fn rewrite(e: &mut Emitter, ins: &Instruction, align: bool) -> bool {
    if awkward(ins) {
        return false;
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(ins);
    let memory = memory_operand(ins);
    let mut out = *ins;
    out.set_code(without_fixed_register(ins.code()));
    out.set_has_lock_prefix(false);
    out.set_has_rep_prefix(false);
    out.set_has_repne_prefix(false);
    let homeless = homeless_registers(ins);
    let mut scratch = Scratch { free: vec![RAX, RDX, RCX], taken: Vec::new() };
    if let Some(n) = memory {
        e.address(ins);
        if align {
            e.aligned();
        }
        e.reach(ins.memory_size().size() as u8, writes(info.op_access(n)));
        out.set_segment_prefix(Register::None);
        out.set_memory_base(Register::RAX);
        out.set_memory_displacement64(0);
        out.set_memory_displ_size(0);
        out.set_memory_index_scale(1);
        if homeless.len() > 1 {
            dynasm!(e.a ; .arch x64 ; lea rax, [rax + rdx]);
            out.set_memory_index(Register::None);
            scratch.free = vec![RDX, RCX];
        } else {
            out.set_memory_index(Register::RDX);
            scratch.free = vec![RCX];
        }
    }
    let registers: Vec<_> = (0..ins.op_count())
        .filter(|n| ins.op_kind(*n) == OpKind::Register)
        .map(|n| (n, ins.op_register(n), info.op_access(n)))
        .collect();
    // All that is read first: one register may be both operands.
    for (_, register, access) in registers.iter().filter(|(_, register, _)| register.is_xmm()) {
        if reads(*access) || !fills_destination(ins) {
            e.vector_in(register.number() as u8);
        }
    }
    let mut back = Vec::new();
    for (n, register, access) in &registers {
        if register.is_xmm() {
            if writes(*access) {
                e.vector_out(register.number() as u8);
            }
            continue;
        }
        let (guest, size) = (guest_number(*register), register.size());
        let at = match home(guest) {
            Some(at) => at,
            None => {
                let Some((at, new)) = scratch.place(guest) else {
                    unreachable!("no instruction names so many registers")
                };
                if new && is_read(&registers, guest) {
                    e.load_guest(at, guest);
                }
                if writes(*access) {
                    back.push((guest, at));
                }
                at
            }
        };
        out.set_op_register(*n, gpr(at, size));
    }
    e.raw(&out);
    for (guest, at) in back {
        e.store_guest(guest, at);
    }
    true
}

/// True if an instruction with these operands needs what a general register holds: it reads it, or writes
/// less than all of it.
fn is_read(operands: &[(u32, Register, OpAccess)], guest: u8) -> bool {
    operands.iter().any(|(_, register, access)| {
        register.is_gpr()
            && guest_number(*register) == guest
            && (reads(*access) || register.size() < 4)
    })
}

/// Distinct general registers among the operands that have no home.
fn homeless_registers(ins: &Instruction) -> Vec<u8> {
    let mut found = Vec::new();
    for n in 0..ins.op_count() {
        if ins.op_kind(n) == OpKind::Register && ins.op_register(n).is_gpr() {
            let guest = guest_number(ins.op_register(n));
            if home(guest).is_none() && !found.contains(&guest) {
                found.push(guest);
            }
        }
    }
    found
}

/// True for vector instructions that write all of their destination and do not read it.
fn fills_destination(ins: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    match ins.mnemonic() {
        M::Movdqa | M::Movdqu | M::Movaps | M::Movups | M::Movapd | M::Movupd | M::Lddqu => true,
        M::Movd | M::Movq | M::Pshufd | M::Pshuflw | M::Pshufhw | M::Movntdqa => true,
        M::Movss | M::Movsd => memory_operand(ins) == Some(1),
        _ => false,
    }
}

/// A load of `size` bytes at `[rax + rdx]` into a host register, zero-extended.
pub fn load(e: &mut Emitter, to: u8, size: usize) {
    let from = MemoryOperand::with_base_index(Register::RAX, Register::RDX);
    let code = match size {
        1 => Code::Movzx_r32_rm8,
        2 => Code::Movzx_r32_rm16,
        4 => Code::Mov_r32_rm32,
        _ => Code::Mov_r64_rm64,
    };
    e.raw(&host(Instruction::with2(code, gpr(to, size.max(4)), from)));
}

/// The form of an instruction that can name any register, for one whose opcode implies the accumulator.
fn without_fixed_register(code: Code) -> Code {
    macro_rules! accumulator {
        ($($al:ident $ax:ident $eax:ident $rax:ident => $rm8:ident $rm16:ident $rm32:ident $rm64:ident;)*) => {
            match code {
                $(
                    Code::$al => Code::$rm8,
                    Code::$ax => Code::$rm16,
                    Code::$eax => Code::$rm32,
                    Code::$rax => Code::$rm64,
                )*
                other => other,
            }
        };
    }
    accumulator! {
        Add_AL_imm8 Add_AX_imm16 Add_EAX_imm32 Add_RAX_imm32
            => Add_rm8_imm8 Add_rm16_imm16 Add_rm32_imm32 Add_rm64_imm32;
        Or_AL_imm8 Or_AX_imm16 Or_EAX_imm32 Or_RAX_imm32
            => Or_rm8_imm8 Or_rm16_imm16 Or_rm32_imm32 Or_rm64_imm32;
        Adc_AL_imm8 Adc_AX_imm16 Adc_EAX_imm32 Adc_RAX_imm32
            => Adc_rm8_imm8 Adc_rm16_imm16 Adc_rm32_imm32 Adc_rm64_imm32;
        Sbb_AL_imm8 Sbb_AX_imm16 Sbb_EAX_imm32 Sbb_RAX_imm32
            => Sbb_rm8_imm8 Sbb_rm16_imm16 Sbb_rm32_imm32 Sbb_rm64_imm32;
        And_AL_imm8 And_AX_imm16 And_EAX_imm32 And_RAX_imm32
            => And_rm8_imm8 And_rm16_imm16 And_rm32_imm32 And_rm64_imm32;
        Sub_AL_imm8 Sub_AX_imm16 Sub_EAX_imm32 Sub_RAX_imm32
            => Sub_rm8_imm8 Sub_rm16_imm16 Sub_rm32_imm32 Sub_rm64_imm32;
        Xor_AL_imm8 Xor_AX_imm16 Xor_EAX_imm32 Xor_RAX_imm32
            => Xor_rm8_imm8 Xor_rm16_imm16 Xor_rm32_imm32 Xor_rm64_imm32;
        Cmp_AL_imm8 Cmp_AX_imm16 Cmp_EAX_imm32 Cmp_RAX_imm32
            => Cmp_rm8_imm8 Cmp_rm16_imm16 Cmp_rm32_imm32 Cmp_rm64_imm32;
        Test_AL_imm8 Test_AX_imm16 Test_EAX_imm32 Test_RAX_imm32
            => Test_rm8_imm8 Test_rm16_imm16 Test_rm32_imm32 Test_rm64_imm32;
    }
}
