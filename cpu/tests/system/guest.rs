//! A small guest: identity-mapped memory, descriptor tables, a handler for every vector that halts, and
//! a machine around it that records what it is asked.

use ft_pair_cpu::flags::Flags;
use ft_pair_cpu::state::{CS, CpuState, DS, ES, FS, GS, RIP, RSP, SS, Segment, Table};
use ft_pair_cpu::{Bus, Cpu, Exit, GuestRam};
use std::collections::VecDeque;
use std::sync::Arc;

/// Page tables: 4 KiB pages up to 2 MiB, a 2 MiB page above, a 1 GiB page at 1 GiB onto address 0.
pub const PML4: u64 = 0x1000;
pub const PDPT: u64 = 0x2000;
pub const PD: u64 = 0x3000;
pub const PT: u64 = 0x4000;
pub const GDT: u64 = 0x8000;
pub const IDT: u64 = 0x9000;
pub const TSS: u64 = 0xa000;
/// Supervisor code.
pub const CODE: u64 = 0x1_0000;
/// Handlers, 16 bytes apart, each a HLT.
pub const HANDLERS: u64 = 0x2_0000;
/// Stack of the supervisor code.
pub const STACK: u64 = 0x4_0000;
/// RSP0 and IST1 in the TSS.
pub const STACK0: u64 = 0x5_0000;
pub const STACK_IST1: u64 = 0x6_0000;
/// Where user pages begin (1 MiB); user code, data and stack.
pub const USER_CODE: u64 = 0x10_0000;
pub const USER_DATA: u64 = 0x11_0000;
pub const USER_STACK: u64 = 0x12_0000;
/// A supervisor page to play with.
pub const DATA: u64 = 0x7_0000;

pub const KERNEL_CS: u16 = 0x08;
pub const KERNEL_DS: u16 = 0x10;
pub const USER_CS32: u16 = 0x1b;
pub const USER_DS: u16 = 0x23;
pub const USER_CS: u16 = 0x2b;
pub const TSS_SELECTOR: u16 = 0x30;
/// Free slots of the GDT start here.
pub const SPARE: u16 = 0x40;

pub const P: u64 = 1;
pub const W: u64 = 2;
pub const U: u64 = 4;
pub const A: u64 = 0x20;
pub const D: u64 = 0x40;
pub const PS: u64 = 0x80;
pub const G: u64 = 0x100;
pub const NX: u64 = 1 << 63;

/// The machine around the CPU.
#[derive(Default)]
pub struct Machine {
    pub interrupts: VecDeque<u8>,
    pub port_writes: Vec<(u16, u8, u32)>,
    pub port_value: u32,
    pub cr8: u8,
    pub deadline: u64,
}

impl Bus for Machine {
    fn io_read(&mut self, _: u64, _: u16, _: u8) -> u32 {
        self.port_value += 1;
        self.port_value
    }
    fn io_write(&mut self, _: u64, port: u16, size: u8, value: u32) {
        self.port_writes.push((port, size, value));
        // Port 0x80 raises an interrupt.
        if port == 0x80 {
            self.interrupts.push_back(value as u8);
        }
    }
    fn mmio_read(&mut self, _: u64, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: u64, _: u64, _: u8, _: u64) {}
    fn tsc(&mut self, now: u64) -> u64 {
        now + 1000
    }
    fn interrupt_pending(&self) -> bool {
        !self.interrupts.is_empty()
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.interrupts.pop_front()
    }
    fn msr_read(&mut self, _: u64, msr: u32) -> Option<u64> {
        (msr == 0x6e0).then_some(self.deadline)
    }
    fn msr_write(&mut self, _: u64, msr: u32, value: u64) -> bool {
        self.deadline = value;
        msr == 0x6e0
    }
    fn cr8(&self) -> u8 {
        self.cr8
    }
    fn set_cr8(&mut self, value: u8) {
        self.cr8 = value;
    }
}

/// What delivery left on the handler's stack.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub code: Option<u64>,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

pub struct Guest {
    pub cpu: Cpu,
    pub ram: Arc<GuestRam>,
    pub machine: Machine,
}

/// A code or data descriptor: type and attributes as in bytes 5 and 6, flat.
pub const fn flat(access: u64, flags: u64) -> u64 {
    0xffff | 0xf << 48 | access << 40 | flags << 52
}

impl Guest {
    /// At `CODE` with the given supervisor code.
    pub fn new(code: &[u8]) -> Self {
        let ram = Arc::new(GuestRam::new(8 << 20).unwrap());
        let mut guest = Self { cpu: Cpu::new(ram.clone()), ram, machine: Machine::default() };
        guest.write64(PML4, PDPT | P | W | U);
        guest.write64(PDPT, PD | P | W | U);
        guest.write64(PDPT + 8, P | W | PS);
        guest.write64(PD, PT | P | W | U);
        guest.write64(PD + 8, 0x20_0000 | P | W | U | PS);
        for page in 0..512 {
            let user = if page >= 256 { U } else { 0 };
            guest.write64(PT + 8 * page, page << 12 | P | W | user);
        }
        for (i, descriptor) in [
            0,
            flat(0x9b, 0xa),
            flat(0x93, 0xc),
            flat(0xfb, 0xc),
            flat(0xf3, 0xc),
            flat(0xfb, 0xa),
            0x67 | TSS << 16 | 0x8b << 40,
            0,
        ]
        .into_iter()
        .enumerate()
        {
            guest.write64(GDT + 8 * i as u64, descriptor);
        }
        for vector in 0..=255 {
            guest.set_gate(vector, 0x8e, 0);
            guest.bytes(HANDLERS + 16 * u64::from(vector), &[0xf4]);
        }
        guest.write64(TSS + 4, STACK0);
        guest.write64(TSS + 36, STACK_IST1);
        // No I/O permission bitmap.
        guest.bytes(TSS + 0x66, &[0x68, 0]);
        guest.bytes(CODE, code);
        let s = &mut guest.cpu.state;
        s.enter_long_mode(PML4, CODE, KERNEL_CS, KERNEL_DS);
        s.gdtr = Table { base: GDT, limit: 0xff };
        s.idtr = Table { base: IDT, limit: 0xfff };
        s.tr = Segment { base: TSS, limit: 0x67, selector: TSS_SELECTOR, attr: 0x8b };
        s.regs[RSP] = STACK;
        guest.cpu.state_replaced();
        guest
    }

    /// In 64-bit user mode at `USER_CODE` with the given code.
    pub fn user(code: &[u8]) -> Self {
        let mut guest = Self::new(&[]);
        guest.bytes(USER_CODE, code);
        let s = &mut guest.cpu.state;
        s.seg[CS] = Segment { base: 0, limit: u32::MAX, selector: USER_CS, attr: 0xa0fb };
        for seg in [SS, DS, ES, FS, GS] {
            s.seg[seg] = Segment { base: 0, limit: u32::MAX, selector: USER_DS, attr: 0xc0f3 };
        }
        s.cpl = 3;
        s.regs[RIP] = USER_CODE;
        s.regs[RSP] = USER_STACK;
        s.flags = Flags::from_rflags(0x202);
        guest
    }

    /// In 32-bit user mode (compatibility mode).
    pub fn compat(code: &[u8]) -> Self {
        let mut guest = Self::user(code);
        guest.cpu.state.seg[CS] =
            Segment { base: 0, limit: u32::MAX, selector: USER_CS32, attr: 0xc0fb };
        guest
    }

    pub fn state(&mut self) -> &mut CpuState {
        &mut self.cpu.state
    }

    pub fn bytes(&mut self, at: u64, bytes: &[u8]) {
        assert!(self.ram.write(at, bytes));
    }

    pub fn write64(&mut self, at: u64, value: u64) {
        self.bytes(at, &value.to_le_bytes());
    }

    pub fn read64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.ram.read(at, &mut bytes));
        u64::from_le_bytes(bytes)
    }

    /// Address of the page table entry for a page below 2 MiB.
    pub fn pte(va: u64) -> u64 {
        PT + (va >> 12) * 8
    }

    /// An IDT entry with the given type byte and IST.
    pub fn set_gate(&mut self, vector: u8, kind: u64, ist: u64) {
        let target = HANDLERS + 16 * u64::from(vector);
        let low = target & 0xffff
            | u64::from(KERNEL_CS) << 16
            | ist << 32
            | kind << 40
            | (target >> 16 & 0xffff) << 48;
        self.write64(IDT + 16 * u64::from(vector), low);
        self.write64(IDT + 16 * u64::from(vector) + 8, target >> 32);
    }

    /// Runs until something stops it, at most 1000 instructions.
    pub fn run(&mut self) -> Exit {
        let limit = self.cpu.state.retired + 1000;
        self.cpu.run(&mut self.machine, limit, 0)
    }

    /// Runs `n` instructions.
    pub fn step(&mut self, n: u64) {
        let limit = self.cpu.state.retired + n;
        assert_eq!(self.cpu.run(&mut self.machine, limit, 0), Exit::Limit);
    }

    /// Runs until the handler of `vector` halts, and gives the frame it found.
    #[track_caller]
    pub fn expect(&mut self, vector: u8) -> Frame {
        let exit = self.run();
        let rip = self.cpu.state.rip();
        assert_eq!(exit, Exit::Halted, "at {rip:#x}");
        let at = rip - 1;
        assert!((HANDLERS..HANDLERS + 0x1000).contains(&at), "halted at {at:#x}, not in a handler");
        assert_eq!(
            (at - HANDLERS) / 16,
            u64::from(vector),
            "vector, cr2 {:#x}",
            self.cpu.state.cr2
        );
        self.frame(matches!(vector, 8 | 10..=14 | 17))
    }

    /// Runs to a HLT that is not in a handler.
    #[track_caller]
    pub fn expect_halt(&mut self) {
        let exit = self.run();
        let rip = self.cpu.state.rip();
        assert_eq!(exit, Exit::Halted, "at {rip:#x}");
        assert!(
            !(HANDLERS..HANDLERS + 0x1000).contains(&rip),
            "vector {} with {:x?}, cr2 {:#x}",
            (rip - 1 - HANDLERS) / 16,
            self.frame(true),
            self.cpu.state.cr2
        );
    }

    fn frame(&self, with_code: bool) -> Frame {
        let mut at = self.cpu.state.regs[RSP];
        let mut next = || {
            at += 8;
            self.read64(at - 8)
        };
        let code = with_code.then(&mut next);
        let (rip, cs, rflags) = (next(), next(), next());
        Frame { code, rip, cs, rflags, rsp: next(), ss: next() }
    }
}
