//! Control instructions: control and status word, environment, the whole state, the stack pointer.

use super::Form;
use super::ext::{Class, Ext};
use crate::op::Op;
use crate::state::{CR0_MP, CR0_TS, RAX, X87};
use crate::{Cpu, Trap};
use iced_x86::Code;

pub(super) fn form(code: Code) -> Option<Form> {
    Some(match code {
        Code::Wait => Form::new(wait, 0),
        Code::Fnop => Form::new(nop, 0),
        // Instructions of the 8087 and 80287 that do nothing since.
        Code::Fneni | Code::Fndisi | Code::Fnsetpm => Form::new(nothing, 0),
        Code::Fninit => Form::new(init, 0),
        Code::Fnclex => Form::new(clear, 0),
        Code::Fldcw_m2byte => Form::new(load_control, 0),
        Code::Fnstcw_m2byte => Form::new(store_control, 0),
        Code::Fnstsw_m2byte => Form::new(store_status, 0),
        Code::Fnstsw_AX => Form::new(status_to_ax, 0),
        Code::Fincstp => Form::new(turn, 1),
        Code::Fdecstp => Form::new(turn, 7),
        Code::Ffree_sti => Form::new(free, 0),
        Code::Ffreep_sti => Form::new(free, 0).pops(1),
        Code::Fnstenv_m14byte => Form::new(store_environment, 2),
        Code::Fnstenv_m28byte => Form::new(store_environment, 4),
        Code::Fldenv_m14byte => Form::new(load_environment, 2),
        Code::Fldenv_m28byte => Form::new(load_environment, 4),
        Code::Fnsave_m94byte => Form::new(save, 2),
        Code::Fnsave_m108byte => Form::new(save, 4),
        Code::Frstor_m94byte => Form::new(restore, 2),
        Code::Frstor_m108byte => Form::new(restore, 4),
        _ => return None,
    })
}

/// WAIT.
fn wait(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let both = CR0_MP | CR0_TS;
    if cpu.state.cr0 & both == both {
        Err(Trap::NM)
    } else if cpu.state.x87.status & 0x80 != 0 {
        Err(Trap::MF)
    } else {
        Ok(())
    }
}

/// FNOP.
fn nop(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.x87_wait()
}

fn nothing(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.x87_available()
}

/// FNINIT: what it does to the state. The registers keep their values, empty.
const fn reset(x87: &mut X87) {
    x87.control = 0x37f;
    x87.status = 0;
    x87.tags = 0;
    x87.opcode = 0;
    x87.ip = 0;
    x87.dp = 0;
    x87.cs = 0;
    x87.ds = 0;
}

fn init(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.x87_available()?;
    reset(&mut cpu.state.x87);
    Ok(())
}

/// FNCLEX.
fn clear(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.x87_available()?;
    cpu.state.x87.status &= 0x7f00;
    Ok(())
}

fn load_control(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let value = cpu.load_op(op)?;
    cpu.set_x87_control(value);
    Ok(())
}

fn store_control(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_available()?;
    cpu.store_op(op, cpu.state.x87.control)
}

fn store_status(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_available()?;
    cpu.store_op(op, cpu.state.x87.status)
}

fn status_to_ax(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    cpu.x87_available()?;
    let state = &mut *cpu.state;
    state.regs[RAX] = state.regs[RAX] & !0xffff | u64::from(state.x87.status);
    Ok(())
}

/// FINCSTP, FDECSTP.
fn turn(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    cpu.turn(op.aux);
    Ok(())
}

/// FFREE, FFREEP. C1 stays.
fn free(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_record(op);
    cpu.free_st(op.dst);
    cpu.pop(op.src2);
    Ok(())
}

/// The value in physical register `r`.
const fn physical(x87: &X87, r: usize) -> Ext {
    Ext { sig: x87.mantissa[r], se: x87.sign_exponent[r] }
}

/// The tag word with two bits a register, computed from what the registers hold.
fn tag_word(x87: &X87) -> u16 {
    (0..8).fold(0, |word, r| {
        let tag = if x87.tags >> r & 1 == 0 {
            3
        } else {
            match physical(x87, r).class() {
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            }
        };
        word | tag << (2 * r)
    })
}

/// The environment in fields of `width` bytes (2 or 4), protected mode form (SDM volume 1, section
/// 8.1.10).
fn environment(x87: &X87, width: usize) -> Vec<u8> {
    let words = [x87.control, x87.status, tag_word(x87)];
    let mut bytes = Vec::with_capacity(28 + 80);
    if width == 2 {
        let pointers = [x87.ip as u16, x87.cs, x87.dp as u16, x87.ds];
        for word in words.into_iter().chain(pointers) {
            bytes.extend(word.to_le_bytes());
        }
    } else {
        let reserved = 0xffff_0000;
        let selector = u32::from(x87.cs) | u32::from(x87.opcode) << 16;
        let pointers = [x87.ip as u32, selector, x87.dp as u32, u32::from(x87.ds) | reserved];
        for word in words.into_iter().map(|word| u32::from(word) | reserved).chain(pointers) {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes
}

/// The inverse of [`environment`].
fn set_environment(cpu: &mut Cpu, bytes: &[u8], width: usize) {
    let field = |n: usize| {
        let mut value = [0; 4];
        value[..width].copy_from_slice(&bytes[n * width..(n + 1) * width]);
        u32::from_le_bytes(value)
    };
    let x87 = &mut cpu.state.x87;
    x87.status = field(1) as u16 & 0x7f7f;
    let tags = field(2);
    x87.tags = (0..8).fold(0, |all, r| all | u8::from(tags >> (2 * r) & 3 != 3) << r);
    x87.ip = u64::from(field(3));
    x87.cs = field(4) as u16;
    x87.opcode = if width == 4 { (field(4) >> 16) as u16 & 0x7ff } else { 0 };
    x87.dp = u64::from(field(5));
    x87.ds = field(6) as u16;
    cpu.set_x87_control(field(0) as u16);
}

/// Writes bytes at the memory operand, all or none.
fn write(cpu: &mut Cpu, op: &Op, bytes: &[u8]) -> Result<(), Trap> {
    let va = cpu.ea(op)?;
    let fault = |t| if op.stack && t == Trap::GP0 { Trap::SS0 } else { t };
    cpu.probe_write(va, bytes.len() as u64).map_err(fault)?;
    for (n, pair) in bytes.chunks_exact(2).enumerate() {
        cpu.store(va.wrapping_add(2 * n as u64), u16::from_le_bytes([pair[0], pair[1]]))?;
    }
    Ok(())
}

/// Reads bytes at the memory operand.
fn read(cpu: &mut Cpu, op: &Op, bytes: &mut [u8]) -> Result<(), Trap> {
    let va = cpu.ea(op)?;
    let fault = |t| if op.stack && t == Trap::GP0 { Trap::SS0 } else { t };
    cpu.probe_read(va, bytes.len() as u64).map_err(fault)?;
    for (n, pair) in bytes.chunks_exact_mut(2).enumerate() {
        let word: u16 = cpu.load(va.wrapping_add(2 * n as u64))?;
        pair.copy_from_slice(&word.to_le_bytes());
    }
    Ok(())
}

/// FNSTENV: also masks all exceptions.
fn store_environment(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_available()?;
    let bytes = environment(&cpu.state.x87, usize::from(op.aux));
    write(cpu, op, &bytes)?;
    let control = cpu.state.x87.control | 0x3f;
    cpu.set_x87_control(control);
    Ok(())
}

fn load_environment(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let width = usize::from(op.aux);
    let mut bytes = [0; 28];
    read(cpu, op, &mut bytes[..7 * width])?;
    set_environment(cpu, &bytes, width);
    Ok(())
}

/// FNSAVE: environment and registers, then as FNINIT.
fn save(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_available()?;
    let mut bytes = environment(&cpu.state.x87, usize::from(op.aux));
    for i in 0..8 {
        let value = cpu.st(i);
        bytes.extend(value.sig.to_le_bytes());
        bytes.extend(value.se.to_le_bytes());
    }
    write(cpu, op, &bytes)?;
    reset(&mut cpu.state.x87);
    Ok(())
}

fn restore(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let width = usize::from(op.aux);
    let mut bytes = [0; 108];
    read(cpu, op, &mut bytes[..7 * width + 80])?;
    set_environment(cpu, &bytes, width);
    let top = usize::from(cpu.state.x87.status >> 11);
    for (i, register) in bytes[7 * width..7 * width + 80].chunks_exact(10).enumerate() {
        let r = (i + top) & 7;
        let (sig, se) = register.split_at(8);
        cpu.state.x87.mantissa[r] = u64::from_le_bytes(sig.try_into().expect("8 bytes"));
        cpu.state.x87.sign_exponent[r] = u16::from_le_bytes(se.try_into().expect("2 bytes"));
    }
    Ok(())
}
