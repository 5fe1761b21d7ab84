//! Two machines that differ in their engine only, run side by side: they must be the same at every step.
//!
//! Both start alike and are deterministic, so the first difference is a bug in one of the engines. Small
//! steps cost time, but say more exactly where it is.

use crate::{Machine, Stop};
use ft_pair_cpu::CpuState;
use ft_pair_cpu::flags::ARITH;
use ft_pair_cpu::ram::PAGE;
use ft_pair_shared::{Output, Position};
use std::fmt::Write;

/// Names of the general registers and RIP, as in [`CpuState::regs`].
const NAMES: [&str; 17] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip",
];
/// Differing pages that a report shows.
const SHOWN: usize = 4;

/// The machines differ.
#[derive(Debug, thiserror::Error)]
#[error("the engines differ between {from} and {to} retired instructions:\n{report}")]
pub struct Difference {
    /// Here they were still the same.
    pub from: u64,
    /// Here they are not.
    pub to: u64,
    /// Registers and bytes that differ: first machine, second machine.
    pub report: String,
}

/// Two machines in step.
#[derive(Debug)]
pub struct Lockstep {
    first: Machine,
    second: Machine,
    /// What the guest put out, compared.
    outputs: Vec<Output>,
}

impl Lockstep {
    /// Two machines in the same state, with engines of the caller's choice.
    ///
    /// # Panics
    /// If they are not at the same position.
    pub fn new(first: Machine, second: Machine) -> Self {
        assert_eq!(first.position(), second.position(), "both begin at the same place");
        Self { first, second, outputs: Vec::new() }
    }

    /// Runs both for `step` instructions, or until the guest idles, and compares everything that they have
    /// touched.
    ///
    /// # Errors
    /// The first difference.
    pub fn step(&mut self, step: u64) -> Result<Stop, Box<Difference>> {
        let from = self.first.position();
        let to = Position::at(from.retired + step);
        let stop = self.first.run(to);
        let other = self.second.run(to);
        let mut report = String::new();
        if format!("{stop:?}") != format!("{other:?}") {
            let _ = writeln!(report, "stopped by: {stop:?}, {other:?}");
        }
        self.compare(&mut report);
        if report.is_empty() {
            return Ok(stop);
        }
        Err(Box::new(Difference { from: from.retired, to: self.first.position().retired, report }))
    }

    /// Lets both idle until the next thing that is due.
    pub fn idle_to_deadline(&mut self) {
        self.first.idle_to_deadline();
        self.second.idle_to_deadline();
    }

    /// Where both are.
    pub fn position(&self) -> Position {
        self.first.position()
    }

    /// What the guest has put out since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The second machine.
    pub const fn second(&self) -> &Machine {
        &self.second
    }

    fn compare(&mut self, report: &mut String) {
        if self.first.position() != self.second.position() {
            let (a, b) = (self.first.position(), self.second.position());
            let _ = writeln!(report, "position: {a}, {b}");
        }
        compare_registers(self.first.cpu(), self.second.cpu(), report);
        let (a, b) = (self.first.take_outputs(), self.second.take_outputs());
        if a != b {
            let _ = writeln!(report, "outputs: {a:?}, {b:?}");
        }
        self.outputs.extend(a);
        let (a, b) = (self.first.take_dirty(), self.second.take_dirty());
        if a != b {
            let only = |x: &[u32], y: &[u32]| -> Vec<u32> {
                x.iter().filter(|page| !y.contains(page)).copied().collect()
            };
            let _ = writeln!(
                report,
                "pages dirty in one only: {:x?}, {:x?}",
                only(&a, &b),
                only(&b, &a)
            );
        }
        let mut pages: Vec<u32> = a.into_iter().chain(b).collect();
        pages.sort_unstable();
        pages.dedup();
        let (first, second) = (self.first.ram(), self.second.ram());
        let differ = pages.iter().filter(|page| first.page(**page) != second.page(**page));
        for page in differ.take(SHOWN) {
            compare_page(*page, first.page(*page), second.page(*page), report);
        }
        if report.is_empty() && self.first.state() != self.second.state() {
            report.push_str("the state of CPU or devices differs\n");
        }
    }
}

fn compare_registers(a: &CpuState, b: &CpuState, report: &mut String) {
    for (n, name) in NAMES.iter().enumerate().filter(|(n, _)| a.regs[*n] != b.regs[*n]) {
        let _ = writeln!(report, "{name}: {:#x}, {:#x}", a.regs[n], b.regs[n]);
    }
    let (fa, fb) = (a.flags.rflags(), b.flags.rflags());
    if fa != fb {
        let _ = writeln!(report, "rflags: {fa:#x}, {fb:#x} (arithmetic {:#x})", (fa ^ fb) & ARITH);
    }
    for n in (0..16).filter(|n| a.xmm[*n] != b.xmm[*n]) {
        let _ = writeln!(report, "xmm{n}: {:#x}, {:#x}", a.xmm[n], b.xmm[n]);
    }
    if a.mxcsr != b.mxcsr {
        let _ = writeln!(report, "mxcsr: {:#x}, {:#x}", a.mxcsr, b.mxcsr);
    }
    if a.cr2 != b.cr2 {
        let _ = writeln!(report, "cr2: {:#x}, {:#x}", a.cr2, b.cr2);
    }
}

fn compare_page(page: u32, a: &[u8], b: &[u8], report: &mut String) {
    let differing: Vec<usize> = (0..a.len()).filter(|n| a[*n] != b[*n]).collect();
    let Some(first) = differing.first() else { return };
    let from = first & !15;
    let to = (from + 32).min(PAGE as usize);
    let _ = writeln!(
        report,
        "page {page:#x}: {} bytes differ, from offset {first:#x} on: {:02x?}, {:02x?}",
        differing.len(),
        &a[from..to],
        &b[from..to]
    );
}
