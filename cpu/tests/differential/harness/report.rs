//! Comparison of two outcomes, and its words.

use super::case::{CODE_AT, DATA, DATA_LEN, FX_USED, Outcome, Registers, USER_END};
use super::generate::Generated;
use super::masks::{Masks, masks_of};
use iced_x86::{Formatter, IntelFormatter, OpKind};
use std::fmt::Write;

const NAMES: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];
/// What RFLAGS holds in user mode.
const FLAGS: u64 = 0x0025_7fd7;
const PAGE_FAULT: u64 = 14;

fn differ(text: &mut String, name: &str, before: u128, host: u128, ours: u128) {
    if host != ours {
        let _ = writeln!(
            text,
            "  {name:8} before {before:#x}\n           host   {host:#x}\n           ours   {ours:#x}"
        );
    }
}

/// The differences between the host's outcome and ours, if there are any.
pub fn compare(
    g: &Generated,
    host: &Outcome,
    ours: &Outcome,
    background: &[u8; DATA_LEN],
) -> Option<String> {
    let masks = masks_of(g, host);
    let mut text = String::new();
    differ(&mut text, "vector", 1, host.vector.into(), ours.vector.into());
    let mut code_mask = error_mask(host);
    if host.vector == PAGE_FAULT && masks.cr2 != 0 {
        // Of the pages of such an operand one may be missing and the other read-only.
        code_mask &= !1;
    }
    let (host_error, our_error) = (host.error & code_mask, ours.error & code_mask);
    differ(&mut text, "error", 0, host_error.into(), our_error.into());
    if host.vector == PAGE_FAULT && host.cr2.abs_diff(ours.cr2) > masks.cr2 {
        differ(&mut text, "CR2", 0, host.cr2.into(), ours.cr2.into());
    }
    registers(&mut text, g, &masks, &host.after, &ours.after);
    memory(&mut text, g, &masks, host, ours, background);
    if text.is_empty() {
        return None;
    }
    let _ = writeln!(text, "  masked: {masks:?}, target {:#x}", g.target);
    Some(text)
}

/// Bits of the error code that are compared. Linux reports every kernel address as a protection fault,
/// so that nobody learns what is mapped there.
const fn error_mask(host: &Outcome) -> u64 {
    if host.vector == 1 {
        0
    } else if host.vector == PAGE_FAULT && host.cr2 >= USER_END {
        !1
    } else {
        !0
    }
}

fn registers(text: &mut String, g: &Generated, masks: &Masks, host: &Registers, ours: &Registers) {
    let before = &g.case.before;
    let skipped = if masks.destination && g.instruction.op0_kind() == OpKind::Register {
        Some(g.instruction.op0_register().full_register().number())
    } else {
        None
    };
    for (i, name) in NAMES.iter().enumerate() {
        if skipped != Some(i) {
            let [before, host, ours] = [before, host, ours].map(|r| u128::from(r.gpr[i]));
            differ(text, name, before, host, ours);
        }
    }
    differ(text, "RIP", CODE_AT.into(), host.rip.into(), ours.rip.into());
    let flags = [before, host, ours].map(|r| u128::from(r.rflags & FLAGS & !masks.flags));
    differ(text, "RFLAGS", flags[0], flags[1], flags[2]);
    let mxcsr = [before, host, ours].map(|r| u128::from(r.mxcsr() & !masks.mxcsr));
    differ(text, "MXCSR", mxcsr[0], mxcsr[1], mxcsr[2]);
    for i in 0..16 {
        let xmm = [before, host, ours].map(|r| r.xmm(i));
        differ(text, &format!("XMM{i}"), xmm[0], xmm[1], xmm[2]);
    }
    let control = [before, host, ours].map(|r| u128::from(r.fx_word(0)));
    differ(text, "FCW", control[0], control[1], control[2]);
    const TOP: u16 = 7 << 11;
    let status_mask = masks.status | if masks.top { TOP } else { 0 };
    let status = [before, host, ours].map(|r| u128::from(r.fx_word(2) & !status_mask));
    differ(text, "FSW", status[0], status[1], status[2]);
    if masks.top {
        return;
    }
    let tags = [before, host, ours].map(|r| u128::from(r.fx[4]));
    differ(text, "FTW", tags[0], tags[1], tags[2]);
    for i in 0..8 {
        const EIGHTY: u128 = (1 << 80) - 1;
        let st = [before, host, ours].map(|r| r.st(i) & EIGHTY);
        differ(text, &format!("ST{i}"), st[0], st[1], st[2]);
    }
}

const _: () = assert!(160 + 16 * 16 == FX_USED, "XMM15 is the last that is compared");

fn memory(
    text: &mut String,
    g: &Generated,
    masks: &Masks,
    host: &Outcome,
    ours: &Outcome,
    background: &[u8; DATA_LEN],
) {
    if host.memory == ours.memory {
        return;
    }
    let before = g.case.memory(background);
    let mut left = 24;
    let undefined_store = masks.destination && g.instruction.op0_kind() == OpKind::Memory;
    let stored = g.target..g.target + g.instruction.memory_size().size() as u64;
    for i in 0..DATA_LEN {
        let at = DATA + i as u64;
        let masked =
            masks.memory.iter().any(|r| r.contains(&at)) || undefined_store && stored.contains(&at);
        if host.memory[i] != ours.memory[i] && !masked && left > 0 {
            left -= 1;
            let name = format!("{at:#x}");
            let bytes = [before[i], host.memory[i], ours.memory[i]].map(u128::from);
            let _ = writeln!(
                text,
                "  [{name}] before {:02x} host {:02x} ours {:02x}",
                bytes[0], bytes[1], bytes[2]
            );
        }
    }
}

/// A case that failed, in full.
pub fn describe(place: &str, g: &Generated, difference: &str) -> String {
    let mut words = String::new();
    IntelFormatter::new().format(&g.instruction, &mut words);
    let bytes = &g.case.code[..g.instruction.len()];
    let mut text =
        format!("{place}: {words}  ({:?}, bytes {bytes:02x?})\n{difference}", g.instruction.code());
    let before = &g.case.before;
    let list: Vec<_> =
        NAMES.iter().zip(before.gpr).map(|(name, value)| format!("{name}={value:#x}")).collect();
    let _ = writeln!(
        text,
        "  before: {} RFLAGS={:#x} MXCSR={:#x} FCW={:#x} FSW={:#x} FTW={:#x}",
        list.join(" "),
        before.rflags,
        before.mxcsr(),
        before.fx_word(0),
        before.fx_word(2),
        before.fx[4]
    );
    let at = g.target.wrapping_sub(super::case::DATA + g.case.window_at) as usize;
    if let Some(bytes) = g.case.window.get(at..(at + 32).min(super::case::WINDOW)) {
        let _ = writeln!(text, "  at the target: {bytes:02x?}");
    }
    text
}
