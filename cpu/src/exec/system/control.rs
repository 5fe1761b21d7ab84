//! Control and debug registers, MSRs, CPUID, the time stamp counter, HLT, the interrupt flag, TLB and
//! cache control.

use super::{
    ending, get_register, iopl, privileged, read_word, set_register, with_operand, write_operand,
};
use crate::cpuid::cpuid;
use crate::exception::DR7_GD;
use crate::exec::operand::base_op;
use crate::flags::{AC, IF};
use crate::mmu::{PHYSICAL_BITS, is_canonical};
use crate::op::{Exec, Op};
use crate::state::{
    CR0_AM, CR0_EM, CR0_ET, CR0_MP, CR0_NE, CR0_PE, CR0_PG, CR0_TS, CR0_WP, CR4_DE, CR4_FSGSBASE,
    CR4_MCE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE, CR4_PGE, CR4_PSE, CR4_SMAP, CR4_SMEP, CR4_TSD,
    RAX, RBX, RCX, RDX,
};
use crate::{Cpu, Trap};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_KNOWN: u64 = CR0_PE
    | CR0_MP
    | CR0_EM
    | CR0_TS
    | CR0_ET
    | CR0_NE
    | CR0_WP
    | CR0_AM
    | CR0_NW
    | CR0_CD
    | CR0_PG;
const CR4_PCE: u64 = 1 << 8;
/// What CPUID offers.
const CR4_KNOWN: u64 = CR4_TSD
    | CR4_DE
    | CR4_PSE
    | CR4_PAE
    | CR4_MCE
    | CR4_PGE
    | CR4_PCE
    | CR4_OSFXSR
    | CR4_OSXMMEXCPT
    | CR4_FSGSBASE
    | CR4_SMEP
    | CR4_SMAP;
/// Bits of CR4 whose change voids translations.
const CR4_TRANSLATION: u64 = CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP;
/// DR6: the bits that can change, and those that read as one.
const DR6_WRITABLE: u64 = 0xe00f;
const DR6_ONES: u64 = 0xffff_0ff0;
const DR6_BD: u64 = 1 << 13;
const DR7_WRITABLE: u64 = 0xffff_23ff;
const DR7_ONES: u64 = 0x400;

fn read_cr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let value = match op.src {
        0 => cpu.state.cr0,
        2 => cpu.state.cr2,
        3 => cpu.state.cr3,
        4 => cpu.state.cr4,
        8 => cpu.read_cr8().into(),
        _ => return Err(Trap::UD),
    };
    set_register(cpu, op.dst, op.size, value);
    Ok(())
}

fn write_cr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let value = get_register(cpu, op.dst, op.size);
    match op.src {
        0 => write_cr0(cpu, value)?,
        2 => cpu.state.cr2 = value,
        3 => {
            if value >> PHYSICAL_BITS != 0 {
                return Err(Trap::GP0);
            }
            cpu.state.cr3 = value;
            cpu.flush_tlb_non_global();
        }
        4 => write_cr4(cpu, value)?,
        8 => {
            if value > 15 {
                return Err(Trap::GP0);
            }
            cpu.write_cr8(value as u8);
        }
        _ => return Err(Trap::UD),
    }
    Ok(())
}

fn write_cr0(cpu: &mut Cpu, value: u64) -> Result<(), Trap> {
    let old = cpu.state.cr0;
    if value >> 32 != 0
        || value & (CR0_PG | CR0_PE) == CR0_PG
        || value & (CR0_CD | CR0_NW) == CR0_NW
    {
        return Err(Trap::GP0);
    }
    if old & !value & (CR0_PG | CR0_PE) != 0 {
        return Err(cpu.refused("mov cr0: leaving long mode"));
    }
    cpu.state.cr0 = value & CR0_KNOWN | CR0_ET;
    if (old ^ value) & (CR0_PG | CR0_WP) != 0 {
        cpu.flush_tlb();
    }
    Ok(())
}

fn write_cr4(cpu: &mut Cpu, value: u64) -> Result<(), Trap> {
    let old = cpu.state.cr4;
    if value & !CR4_KNOWN != 0 || cpu.state.is_long() && value & CR4_PAE == 0 {
        return Err(Trap::GP0);
    }
    cpu.state.cr4 = value;
    if (old ^ value) & CR4_TRANSLATION != 0 {
        cpu.flush_tlb();
    }
    cpu.update_mode();
    Ok(())
}

/// Checks access to a debug register; DR4 and DR5 are DR6 and DR7 unless CR4.DE forbids them.
fn debug_register(cpu: &mut Cpu, number: u8) -> Result<usize, Trap> {
    let number = match number {
        4 | 5 if cpu.state.cr4 & CR4_DE != 0 => return Err(Trap::UD),
        4 | 5 => number + 2,
        0..=7 => number,
        _ => return Err(Trap::UD),
    };
    privileged(cpu)?;
    if cpu.state.dr[7] & DR7_GD != 0 {
        cpu.state.dr[6] |= DR6_BD;
        return Err(Trap::DB);
    }
    Ok(number.into())
}

fn read_dr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let number = debug_register(cpu, op.src)?;
    let value = cpu.state.dr[number];
    set_register(cpu, op.dst, op.size, value);
    Ok(())
}

fn write_dr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let number = debug_register(cpu, op.src)?;
    let value = get_register(cpu, op.dst, op.size);
    if number >= 6 && value >> 32 != 0 {
        return Err(Trap::GP0);
    }
    cpu.state.dr[number] = match number {
        6 => value & DR6_WRITABLE | DR6_ONES,
        7 => value & DR7_WRITABLE | DR7_ONES,
        _ => value,
    };
    Ok(())
}

fn clts(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    cpu.state.cr0 &= !CR0_TS;
    Ok(())
}

/// LMSW: PE, MP, EM, TS; PE cannot be cleared.
fn lmsw(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let new = u64::from(read_word(cpu, op)?) & 15;
    let kept = cpu.state.cr0 & !(CR0_MP | CR0_EM | CR0_TS);
    cpu.state.cr0 = kept | new;
    Ok(())
}

fn smsw(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let value = cpu.state.cr0;
    write_operand(cpu, op, value)
}

fn invlpg(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    // Segment limits are not checked.
    let base = cpu.state.seg[usize::from(op.seg)].base;
    let va = base.wrapping_add(cpu.ea_offset(op));
    if is_canonical(va) {
        cpu.flush_tlb_page(va);
    }
    Ok(())
}

/// INVD, WBINVD: there are no caches.
fn cache_control(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    privileged(cpu)
}

fn hlt(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    cpu.state.halted = true;
    Ok(())
}

fn cli(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    if cpu.state.cpl > iopl(cpu) {
        return Err(Trap::GP0);
    }
    cpu.state.flags.other &= !IF;
    Ok(())
}

/// STI holds interrupts off for one more instruction if it enables them.
fn sti(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    if cpu.state.cpl > iopl(cpu) {
        return Err(Trap::GP0);
    }
    if !cpu.state.flags.has(IF) {
        cpu.state.flags.other |= IF;
        cpu.state.shadow = true;
    }
    Ok(())
}

fn stac(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    if cpu.state.cpl != 0 {
        return Err(Trap::UD);
    }
    cpu.state.flags.other |= AC;
    cpu.update_mode();
    Ok(())
}

fn clac(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    if cpu.state.cpl != 0 {
        return Err(Trap::UD);
    }
    cpu.state.flags.other &= !AC;
    cpu.update_mode();
    Ok(())
}

fn cpuid_op(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    let r = &mut cpu.state.regs;
    let [a, b, c, d] = cpuid(r[RAX] as u32, r[RCX] as u32);
    (r[RAX], r[RBX], r[RCX], r[RDX]) = (a.into(), b.into(), c.into(), d.into());
    Ok(())
}

fn set_edx_eax(cpu: &mut Cpu, value: u64) {
    cpu.state.regs[RAX] = value & 0xffff_ffff;
    cpu.state.regs[RDX] = value >> 32;
}

fn rdtsc(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    if cpu.state.cr4 & CR4_TSD != 0 && cpu.state.cpl != 0 {
        return Err(Trap::GP0);
    }
    let value = cpu.read_tsc();
    set_edx_eax(cpu, value);
    Ok(())
}

fn rdtscp(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    rdtsc(cpu, op)?;
    cpu.state.regs[RCX] = cpu.state.msrs.tsc_aux;
    Ok(())
}

/// There are no performance counters: at any privilege, every index is wrong.
fn rdpmc(_: &mut Cpu, _: &Op) -> Result<(), Trap> {
    Err(Trap::GP0)
}

fn rdmsr(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let value = cpu.read_msr(cpu.state.regs[RCX] as u32)?;
    set_edx_eax(cpu, value);
    Ok(())
}

fn wrmsr(cpu: &mut Cpu, _: &Op) -> Result<(), Trap> {
    privileged(cpu)?;
    let r = &cpu.state.regs;
    let value = r[RAX] & 0xffff_ffff | r[RDX] << 32;
    cpu.write_msr(r[RCX] as u32, value)
}

/// MOV to and from control and debug registers: the general register in `dst`, the other in `src`.
fn select_mov(ins: &Instruction) -> Option<Op> {
    if ins.op_kind(0) != OpKind::Register || ins.op_kind(1) != OpKind::Register {
        return None;
    }
    let special = |r: Register| r.is_cr() || r.is_dr();
    let (to, from) = (ins.op_register(0), ins.op_register(1));
    let (exec, system, general): (Exec, _, _) = match (special(to), special(from)) {
        (true, _) if to.is_cr() => (write_cr, to, 1),
        (true, _) => (write_dr, to, 1),
        (_, true) if from.is_cr() => (read_cr, from, 0),
        (_, true) => (read_dr, from, 0),
        _ => return None,
    };
    let mut op = with_operand(ins, general, ending(ins, exec));
    op.src = system.number() as u8;
    Some(op)
}

/// The class.
pub(super) fn select(ins: &Instruction) -> Option<Op> {
    use Mnemonic as M;
    Some(match ins.mnemonic() {
        M::Mov => return select_mov(ins),
        M::Clts => ending(ins, clts),
        M::Lmsw => with_operand(ins, 0, ending(ins, lmsw)),
        M::Smsw => with_operand(ins, 0, base_op(ins, smsw)),
        M::Invlpg => ending(ins, invlpg),
        M::Invd | M::Wbinvd | M::Wbnoinvd => ending(ins, cache_control),
        M::Hlt => ending(ins, hlt),
        M::Cli => base_op(ins, cli),
        M::Sti => ending(ins, sti),
        M::Stac => base_op(ins, stac),
        M::Clac => base_op(ins, clac),
        M::Cpuid => base_op(ins, cpuid_op),
        M::Rdtsc => base_op(ins, rdtsc),
        M::Rdtscp => base_op(ins, rdtscp),
        M::Rdpmc => base_op(ins, rdpmc),
        M::Rdmsr => ending(ins, rdmsr),
        M::Wrmsr => ending(ins, wrmsr),
        _ => return None,
    })
}
