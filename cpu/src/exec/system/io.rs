//! IN, OUT, INS, OUTS, with the I/O permission bitmap of the TSS (Intel SDM volume 1, section 19.5).

use super::{iopl, set_register};
use crate::exec::operand::base_op;
use crate::exec::string::{SOURCE, TARGET, one_by_one, repeat, string_op};
use crate::op::{ENDS_BLOCK, Exec, Op};
use crate::state::{RAX, RDX};
use crate::{Cpu, Trap};
use iced_x86::{Code, Instruction, OpKind};

/// In `Op::aux`: the port is in DX.
const PORT_IN_DX: u16 = 1;
/// Offset of the bitmap's own offset in the TSS.
const TSS_BITMAP: u64 = 0x66;

/// #GP(0) unless CPL is at most IOPL or the TSS allows every port touched.
fn check_port(cpu: &mut Cpu, port: u16, size: u8) -> Result<(), Trap> {
    if cpu.state.cpl <= iopl(cpu) {
        return Ok(());
    }
    let tr = cpu.state.tr;
    if tr.attr & 0x80 == 0 || u64::from(tr.limit) < TSS_BITMAP + 1 {
        return Err(Trap::GP0);
    }
    let bitmap: u16 = cpu.load_system(tr.base.wrapping_add(TSS_BITMAP))?;
    let at = u64::from(bitmap) + u64::from(port / 8);
    if at + 1 > u64::from(tr.limit) {
        return Err(Trap::GP0);
    }
    let denied: u16 = cpu.load_system(tr.base.wrapping_add(at))?;
    let wanted = ((1u16 << size) - 1) << (port & 7);
    if denied & wanted != 0 { Err(Trap::GP0) } else { Ok(()) }
}

fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.aux & PORT_IN_DX != 0 { cpu.state.regs[RDX] as u16 } else { op.imm as u16 & 0xff }
}

fn input(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let port = port(cpu, op);
    check_port(cpu, port, op.size)?;
    let value = cpu.port_read(port, op.size);
    set_register(cpu, RAX as u8, op.size, value.into());
    Ok(())
}

fn output(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let port = port(cpu, op);
    check_port(cpu, port, op.size)?;
    let mask = u32::MAX >> (32 - 8 * u32::from(op.size));
    let value = cpu.state.regs[RAX] as u32 & mask;
    cpu.port_write(port, op.size, value);
    Ok(())
}

fn ins(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let port = cpu.state.regs[RDX] as u16;
    let size = op.size;
    check_port(cpu, port, size)?;
    let element = |cpu: &mut Cpu, _, target: u64| {
        // The device is asked only once the store cannot fail.
        cpu.probe_write(target, size.into())?;
        let value = cpu.port_read(port, size);
        match size {
            1 => cpu.store(target, value as u8)?,
            2 => cpu.store(target, value as u16)?,
            _ => cpu.store(target, value)?,
        }
        Ok(true)
    };
    repeat::<TARGET>(cpu, op, size.into(), element, one_by_one)
}

fn outs(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let port = cpu.state.regs[RDX] as u16;
    let size = op.size;
    check_port(cpu, port, size)?;
    let element = |cpu: &mut Cpu, source: u64, _| {
        let value = match size {
            1 => cpu.load::<u8>(source)?.into(),
            2 => cpu.load::<u16>(source)?.into(),
            _ => cpu.load::<u32>(source)?,
        };
        cpu.port_write(port, size, value);
        Ok(true)
    };
    repeat::<SOURCE>(cpu, op, size.into(), element, one_by_one)
}

/// The class.
pub(super) fn select(instruction: &Instruction) -> Option<Op> {
    let (string, exec, size): (bool, Exec, u8) = match instruction.code() {
        Code::In_AL_imm8 | Code::In_AL_DX => (false, input, 1),
        Code::In_AX_imm8 | Code::In_AX_DX => (false, input, 2),
        Code::In_EAX_imm8 | Code::In_EAX_DX => (false, input, 4),
        Code::Out_imm8_AL | Code::Out_DX_AL => (false, output, 1),
        Code::Out_imm8_AX | Code::Out_DX_AX => (false, output, 2),
        Code::Out_imm8_EAX | Code::Out_DX_EAX => (false, output, 4),
        Code::Insb_m8_DX => (true, ins, 1),
        Code::Insw_m16_DX => (true, ins, 2),
        Code::Insd_m32_DX => (true, ins, 4),
        Code::Outsb_DX_m8 => (true, outs, 1),
        Code::Outsw_DX_m16 => (true, outs, 2),
        Code::Outsd_DX_m32 => (true, outs, 4),
        _ => return None,
    };
    let mut op = if string {
        string_op(instruction, exec)
    } else {
        let mut op = base_op(instruction, exec);
        if (0..2).all(|n| instruction.op_kind(n) == OpKind::Register) {
            op.aux = PORT_IN_DX;
        }
        op
    };
    op.size = size;
    op.flags |= ENDS_BLOCK;
    Some(op)
}
