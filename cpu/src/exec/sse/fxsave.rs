//! FXSAVE, FXRSTOR, LDMXCSR, STMXCSR.

use super::{Forms, MXCSR_MASK};
use crate::op::Op;
use crate::state::{CR0_EM, CR0_TS, CpuState};
use crate::{Cpu, Trap};
use iced_x86::Code;

/// Bytes of the image that FXSAVE writes in 64-bit mode; what lies behind belongs to software.
const USED: usize = 416;
/// Bytes of the memory operand.
const SIZE: u64 = 512;

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Fxsave_m512byte => handler!(|cpu, op| save(cpu, op, false)),
        Code::Fxsave64_m512byte => handler!(|cpu, op| save(cpu, op, true)),
        Code::Fxrstor_m512byte => handler!(|cpu, op| restore(cpu, op, false)),
        Code::Fxrstor64_m512byte => handler!(|cpu, op| restore(cpu, op, true)),
        Code::Ldmxcsr_m32 => handler!(|cpu, op| {
            cpu.sse_ready()?;
            let value = cpu.load_op::<u32>(op)?;
            if value & !MXCSR_MASK != 0 {
                return Err(Trap::GP0);
            }
            cpu.state.mxcsr = value;
            Ok(())
        }),
        Code::Stmxcsr_m32 => handler!(|cpu, op| {
            cpu.sse_ready()?;
            let value = cpu.state.mxcsr;
            cpu.store_op(op, value)
        }),
        _ => return None,
    })
}

fn ready(cpu: &Cpu) -> Result<(), Trap> {
    if cpu.state.cr0 & CR0_EM != 0 {
        Err(Trap::UD)
    } else if cpu.state.cr0 & CR0_TS != 0 {
        Err(Trap::NM)
    } else {
        Ok(())
    }
}

/// Bytes of the image that hold something: outside 64-bit mode there are only XMM0 to XMM7.
fn used(cpu: &Cpu) -> usize {
    if cpu.legacy_mode() { 288 } else { USED }
}

fn save(cpu: &mut Cpu, op: &Op, wide: bool) -> Result<(), Trap> {
    ready(cpu)?;
    cpu.aligned(op)?;
    let va = cpu.ea(op)?;
    cpu.probe_write(va, SIZE)?;
    let image = image(&cpu.state, wide);
    for (i, chunk) in image[..used(cpu)].chunks_exact(16).enumerate() {
        let value = u128::from_le_bytes(chunk.try_into().expect("chunks of 16 bytes"));
        cpu.store(va.wrapping_add(16 * i as u64), value)?;
    }
    Ok(())
}

fn restore(cpu: &mut Cpu, op: &Op, wide: bool) -> Result<(), Trap> {
    ready(cpu)?;
    cpu.aligned(op)?;
    let va = cpu.ea(op)?;
    cpu.probe_read(va, SIZE)?;
    let mut image = [0; USED];
    let used = used(cpu);
    for (i, chunk) in image[..used].chunks_exact_mut(16).enumerate() {
        chunk.copy_from_slice(&cpu.load::<u128>(va.wrapping_add(16 * i as u64))?.to_le_bytes());
    }
    if u32::from_le_bytes(bytes(&image, 24)) & !MXCSR_MASK != 0 {
        return Err(Trap::GP0);
    }
    set_image(&mut cpu.state, &image, wide, (used - 160) / 16);
    Ok(())
}

fn bytes<const N: usize>(image: &[u8; USED], at: usize) -> [u8; N] {
    image[at..at + N].try_into().expect("a slice of this length")
}

/// The x87 and SSE state as FXSAVE lays it out (Intel SDM volume 1, section 10.5.1). `wide`: with REX.W,
/// instruction and data pointers of 64 bits instead of 32 and a selector.
pub(super) fn image(state: &CpuState, wide: bool) -> [u8; USED] {
    let x87 = &state.x87;
    let mut image = [0; USED];
    let mut put = |at: usize, value: &[u8]| image[at..at + value.len()].copy_from_slice(value);
    put(0, &x87.control.to_le_bytes());
    put(2, &x87.status.to_le_bytes());
    put(4, &[x87.tags]);
    put(6, &x87.opcode.to_le_bytes());
    if wide {
        put(8, &x87.ip.to_le_bytes());
        put(16, &x87.dp.to_le_bytes());
    } else {
        put(8, &(x87.ip as u32).to_le_bytes());
        put(12, &x87.cs.to_le_bytes());
        put(16, &(x87.dp as u32).to_le_bytes());
        put(20, &x87.ds.to_le_bytes());
    }
    put(24, &state.mxcsr.to_le_bytes());
    put(28, &MXCSR_MASK.to_le_bytes());
    for i in 0..8 {
        let r = physical(x87.status, i);
        put(32 + 16 * i, &x87.mantissa[r].to_le_bytes());
        put(40 + 16 * i, &x87.sign_exponent[r].to_le_bytes());
    }
    for (i, value) in state.xmm.iter().enumerate() {
        put(160 + 16 * i, &value.to_le_bytes());
    }
    image
}

/// Number of the physical register that ST(i) is.
const fn physical(status: u16, i: usize) -> usize {
    (i + (status as usize >> 11)) & 7
}

/// The inverse of [`image`]; `xmms` registers are taken from it.
pub(super) fn set_image(state: &mut CpuState, image: &[u8; USED], wide: bool, xmms: usize) {
    let x87 = &mut state.x87;
    let word = |at| u16::from_le_bytes(bytes(image, at));
    x87.control = word(0) & 0x1f3f | 0x40;
    // The summary bits (7 and 15) follow from flags and masks.
    let pending = word(2) & !word(0) & 0x3f != 0;
    x87.status = word(2) & 0x7f7f | if pending { 0x8080 } else { 0 };
    x87.tags = image[4];
    x87.opcode = word(6) & 0x7ff;
    if wide {
        x87.ip = u64::from_le_bytes(bytes(image, 8));
        x87.dp = u64::from_le_bytes(bytes(image, 16));
    } else {
        x87.ip = u32::from_le_bytes(bytes(image, 8)).into();
        x87.cs = word(12);
        x87.dp = u32::from_le_bytes(bytes(image, 16)).into();
        x87.ds = word(20);
    }
    for i in 0..8 {
        let r = physical(x87.status, i);
        x87.mantissa[r] = u64::from_le_bytes(bytes(image, 32 + 16 * i));
        x87.sign_exponent[r] = word(40 + 16 * i);
    }
    state.mxcsr = u32::from_le_bytes(bytes(image, 24));
    for (i, value) in state.xmm[..xmms].iter_mut().enumerate() {
        *value = u128::from_le_bytes(bytes(image, 160 + 16 * i));
    }
}
