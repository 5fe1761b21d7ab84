//! The host's x87 as oracle, and our CPU with the same state.
#![allow(unsafe_code)]
// Reason: instructions are executed natively from a page made executable. Obligation: only bytes of this
// module's tests get there: x87 instructions whose memory operand is [rax], and a RET; the control
// word is reset behind them before any waiting instruction of the host's.

use super::super::ext::Ext;
use crate::flags::Flags;
use crate::state::RAX;
use crate::{Cpu, GuestRam};
use iced_x86::{Decoder, DecoderOptions};
use std::sync::Arc;

/// Where the memory operand lies in the guest.
const OPERAND: u64 = 0x2000;

/// What goes in and what comes out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub control: u16,
    pub status: u16,
    /// One bit a physical register.
    pub tags: u8,
    /// ST(0) to ST(7).
    pub st: [Ext; 8],
    pub memory: [u8; 16],
    /// ZF, PF, CF, OF, SF, AF.
    pub flags: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cw {:04x} sw {:04x} tags {:02x}", self.control, self.status, self.tags)?;
        write!(f, " flags {:x} mem {:02x?}", self.flags, self.memory)?;
        for st in self.st {
            write!(f, "\n    {:04x} {:016x}", st.se, st.sig)?;
        }
        Ok(())
    }
}

const FLAGS: u64 = 0x8d5;

pub struct Native {
    code: *mut u8,
}

#[repr(C, align(16))]
struct Frame {
    image: [u8; 112],
    memory: [u8; 16],
}

impl Native {
    pub fn new() -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping.
        let code = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) };
        assert_ne!(code, libc::MAP_FAILED, "no executable page");
        Self { code: code.cast() }
    }

    pub fn set_code(&mut self, bytes: &[u8]) {
        assert!(bytes.len() < 16);
        // SAFETY: the page holds this.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.code, bytes.len());
            self.code.add(bytes.len()).write(0xc3);
        }
    }

    /// Runs the code on a state without pending exceptions.
    pub fn run(&self, state: &State) -> State {
        let mut frame = Frame { image: [0; 112], memory: state.memory };
        let mut tags = 0u16;
        for r in 0..8 {
            // FRSTOR only looks at empty or not.
            tags |= if state.tags >> r & 1 == 0 { 3 << (2 * r) } else { 0 };
        }
        for (at, word) in [(0, state.control), (4, state.status), (8, tags)] {
            frame.image[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        for (i, st) in state.st.iter().enumerate() {
            let at = 28 + 10 * i;
            frame.image[at..at + 8].copy_from_slice(&st.sig.to_le_bytes());
            frame.image[at + 8..at + 10].copy_from_slice(&st.se.to_le_bytes());
        }
        let mut flags = state.flags | 2;
        // SAFETY: see the module's head. The red zone is left alone: pushes are declared by not saying nostack.
        unsafe {
            std::arch::asm!(
                "frstor [{image}]",
                "push {flags}",
                "popfq",
                "call {code}",
                "pushfq",
                "pop {flags}",
                "fnsave [{image}]",
                "fninit",
                image = in(reg) &raw mut frame.image,
                code = in(reg) self.code,
                flags = inout(reg) flags,
                inout("rax") &raw mut frame.memory => _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        let word = |at: usize| u16::from_le_bytes([frame.image[at], frame.image[at + 1]]);
        let full = word(8);
        let mut out = State {
            control: word(0),
            status: word(4),
            tags: (0..8).fold(0, |all, r| all | u8::from(full >> (2 * r) & 3 != 3) << r),
            st: [Ext::ZERO; 8],
            memory: frame.memory,
            flags: flags & FLAGS,
        };
        for (i, st) in out.st.iter_mut().enumerate() {
            let at = 28 + 10 * i;
            st.sig = u64::from_le_bytes(frame.image[at..at + 8].try_into().expect("8 bytes"));
            st.se = word(at + 8);
        }
        out
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe { libc::munmap(self.code.cast(), 4096) };
    }
}

pub struct Model {
    pub cpu: Cpu,
}

impl Model {
    pub fn new() -> Self {
        let ram = Arc::new(GuestRam::new(1 << 20).expect("memory for a small guest"));
        let mut cpu = Cpu::new(ram);
        cpu.state.enter_long_mode(0, 0x1000, 8, 16);
        cpu.state.cr0 &= !crate::state::CR0_PG;
        cpu.state_replaced();
        Self { cpu }
    }

    /// Executes an instruction on a state.
    pub fn run(&mut self, bytes: &[u8], state: &State) -> State {
        let mut decoder = Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE);
        let ins = decoder.decode();
        let op = super::super::select(&ins).expect("an x87 instruction");
        let cpu = &mut self.cpu;
        let top = usize::from(state.status >> 11 & 7);
        cpu.state.x87.control = state.control | 0x40;
        cpu.state.x87.status = state.status;
        cpu.state.x87.tags = state.tags;
        for (i, st) in state.st.iter().enumerate() {
            cpu.state.x87.mantissa[(i + top) & 7] = st.sig;
            cpu.state.x87.sign_exponent[(i + top) & 7] = st.se;
        }
        cpu.state.flags = Flags::from_rflags(state.flags | 2);
        cpu.state.regs[RAX] = OPERAND;
        let [low, high] = [0, 8]
            .map(|at| u64::from_le_bytes(state.memory[at..at + 8].try_into().expect("8 bytes")));
        cpu.store(OPERAND, low).expect("RAM");
        cpu.store(OPERAND + 8, high).expect("RAM");
        (op.exec)(cpu, &op).expect("no fault");
        let x87 = &cpu.state.x87;
        let top = usize::from(x87.status >> 11 & 7);
        let mut st = [Ext::ZERO; 8];
        for (i, st) in st.iter_mut().enumerate() {
            *st = Ext { sig: x87.mantissa[(i + top) & 7], se: x87.sign_exponent[(i + top) & 7] };
        }
        let (control, status, tags) = (x87.control, x87.status, x87.tags);
        let flags = cpu.state.flags.rflags() & FLAGS;
        let memory = cpu.load::<u128>(OPERAND).expect("RAM").to_le_bytes();
        State { control, status, tags, st, memory, flags }
    }
}
