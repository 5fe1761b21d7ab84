//! Where Intel's processors do something else than AMD's Zen, which the model follows.
//!
//! Found by running the regular cases on a Sapphire Rapids. Each difference is described by what it changes and
//! when, and only that much of the host's outcome is replaced by ours before the two are compared: all the
//! rest of such a case still has to match. On a host that the model follows nothing is replaced.

use super::case::{DATA, DATA_LEN, Outcome};
use super::generate::Generated;
use iced_x86::{Code, Mnemonic, OpKind, Register};

const RAX: usize = 0;
const RCX: usize = 1;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;
const R8: usize = 8;
const DEBUG: u64 = 1;
const PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
/// The six arithmetic flags.
const ARITH: u64 = 0x8d5;
const TOP: u16 = 7 << 11;
/// FSW: an unmasked exception waits.
const SUMMARY: u16 = 1 << 7;

/// The host's outcome with what the vendors differ in as we have it.
pub fn as_modelled(g: &Generated, host: &Outcome, ours: &Outcome) -> Outcome {
    let mut out = *host;
    narrow_string(g, &mut out, ours);
    flags_of_an_interrupted_comparison(g, &mut out, ours);
    top_of_a_failed_mmx_store(g, &mut out, ours);
    store_that_a_pending_exception_suppresses(g, host, &mut out, ours);
    return_address_of_a_failed_call(g, &mut out, ours);
    pause_or_exchange(g, &mut out, ours);
    dot_product_of_nans(g, &mut out, ours);
    long_double_shift(g, &mut out, ours);
    out
}

/// Repeated string instructions with 32-bit addresses: Intel clears the upper halves of RCX, RSI and RDI even
/// if no element is done.
fn narrow_string(g: &Generated, host: &mut Outcome, ours: &Outcome) {
    let ins = &g.instruction;
    let narrow = (0..ins.op_count())
        .any(|n| matches!(ins.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI));
    if !narrow || !(ins.has_rep_prefix() || ins.has_repne_prefix()) {
        return;
    }
    for n in [RCX, RSI, RDI] {
        let (theirs, our) = (&mut host.after.gpr[n], ours.after.gpr[n]);
        if *theirs == our & 0xffff_ffff {
            *theirs = our;
        }
    }
}

/// REP CMPS and SCAS that fault: Intel's flags are those from before the instruction, AMD's those of the last
/// comparison.
fn flags_of_an_interrupted_comparison(g: &Generated, host: &mut Outcome, ours: &Outcome) {
    use Mnemonic as M;
    let compares = matches!(
        g.instruction.mnemonic(),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq
    );
    let string = (0..g.instruction.op_count())
        .any(|n| !matches!(g.instruction.op_kind(n), OpKind::Register | OpKind::Immediate8));
    let faulted = host.vector == PAGE_FAULT && ours.vector == PAGE_FAULT;
    let kept = (host.after.rflags ^ g.case.before.rflags) & ARITH == 0;
    if compares && string && faulted && kept {
        host.after.rflags = host.after.rflags & !ARITH | ours.after.rflags & ARITH;
    }
}

/// MMX stores that fault: Intel has set TOP to 0 already.
fn top_of_a_failed_mmx_store(g: &Generated, host: &mut Outcome, ours: &Outcome) {
    let stores = g.instruction.op0_kind() == OpKind::Memory
        && g.instruction.op1_kind() == OpKind::Register
        && g.instruction.op1_register().is_mm();
    let status = host.after.fx_word(2);
    if !stores || host.vector == DEBUG || host.vector != ours.vector || status & TOP != 0 {
        return;
    }
    let top = usize::from(ours.after.fx_word(2) >> 11 & 7);
    let physical: [u128; 8] = std::array::from_fn(|n| host.after.st(n));
    for n in 0..8 {
        host.after.set_wide(32 + 16 * n, physical[(top + n) & 7]);
    }
    let status = status | ours.after.fx_word(2) & TOP;
    host.after.fx[2..4].copy_from_slice(&status.to_le_bytes());
}

/// An x87 store with an unmasked exception stores nothing: Intel then does not look at the address, AMD faults.
fn store_that_a_pending_exception_suppresses(
    g: &Generated,
    unchanged: &Outcome,
    host: &mut Outcome,
    ours: &Outcome,
) {
    use Mnemonic as M;
    let stores = matches!(
        g.instruction.mnemonic(),
        M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fbstp
    ) && g.instruction.op0_kind() == OpKind::Memory;
    let waits = unchanged.after.fx_word(2) & SUMMARY != 0
        && g.case.before.fx_word(2) & SUMMARY == 0
        && unchanged.vector == DEBUG;
    let nothing_done = unchanged.after.gpr == g.case.before.gpr && unchanged.memory == ours.memory;
    if stores && waits && nothing_done && matches!(ours.vector, 12 | PROTECTION | PAGE_FAULT) {
        *host = *ours;
    }
}

/// A near call to an address that is not canonical: Intel pushes the return address first.
fn return_address_of_a_failed_call(g: &Generated, host: &mut Outcome, ours: &Outcome) {
    let failed = host.vector == PROTECTION && ours.vector == PROTECTION;
    if g.instruction.code() == Code::Call_rm64 && failed {
        let at = g.case.before.gpr[RSP].wrapping_sub(8);
        replace_memory(host, ours, at, 8);
    }
}

/// F3 REX.B 90: PAUSE for Intel, an exchange of RAX and R8 for AMD.
fn pause_or_exchange(g: &Generated, host: &mut Outcome, ours: &Outcome) {
    let code = &g.case.code[..g.instruction.len()];
    let extended = matches!(code, [.., rex, 0x90] if rex & 0xf1 == 0x41);
    if g.instruction.mnemonic() == Mnemonic::Pause && extended {
        host.after.gpr[RAX] = ours.after.gpr[RAX];
        host.after.gpr[R8] = ours.after.gpr[R8];
    }
}

/// DPPS: which of several NaNs comes out depends on the order of the additions.
fn dot_product_of_nans(g: &Generated, host: &mut Outcome, ours: &Outcome) {
    if g.instruction.mnemonic() != Mnemonic::Dpps {
        return;
    }
    let n = g.instruction.op0_register().number();
    let (mut theirs, our) = (host.after.xmm(n), ours.after.xmm(n));
    for shift in [0, 32, 64, 96] {
        let lane = |value: u128| f32::from_bits((value >> shift) as u32);
        if lane(theirs).is_nan() && lane(our).is_nan() {
            let mask = u128::from(u32::MAX) << shift;
            theirs = theirs & !mask | our & mask;
        }
    }
    host.after.set_wide(160 + 16 * n, theirs);
}

/// SHLD and SHRD of 16 bits by more than 16: the manual leaves the result open.
fn long_double_shift(g: &Generated, host: &mut Outcome, ours: &Outcome) {
    let ins = &g.instruction;
    let word = matches!(ins.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd)
        && ins.op0_kind() == OpKind::Memory
        && ins.memory_size().size() == 2;
    let before = &g.case.before;
    let count = match ins.op2_kind() {
        OpKind::Immediate8 => u64::from(ins.immediate8()),
        _ => before.gpr[RCX],
    };
    let address = ins.virtual_address(0, 0, |register, _, _| match register {
        r if r.is_segment_register() => {
            Some(if r == Register::GS { super::case::GS_BASE } else { 0 })
        }
        r => Some(before.gpr[r.full_register().number()]),
    });
    if let Some(at) = address.filter(|_| word && count & 31 > 16) {
        replace_memory(host, ours, at, 2);
    }
}

/// Replaces `len` bytes of the host's memory, as far as they lie in the data.
fn replace_memory(host: &mut Outcome, ours: &Outcome, at: u64, len: usize) {
    for n in 0..len as u64 {
        let offset = at.wrapping_add(n).wrapping_sub(DATA) as usize;
        if offset < DATA_LEN {
            host.memory[offset] = ours.memory[offset];
        }
    }
}
