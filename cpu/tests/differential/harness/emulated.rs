//! Execution by our CPU: user mode at CPL 3 with the trap flag set, and an IDT whose handlers are told
//! apart by their addresses.

use super::case::{
    CODE, CODE_AT, CODE_FILL, CODE_LEN, Case, DATA, DATA_LEN, GS_BASE, Outcome, Registers, USER_CS,
    USER_SS, WINDOW, WRITABLE_LEN,
};
use ft_pair_cpu::flags::{Flags, TF};
use ft_pair_cpu::state::{CS, CpuState, DS, ES, FS, GS, RIP, RSP, SS, Segment, Table};
use ft_pair_cpu::{Bus, Cpu, Exit, GuestRam};
use std::sync::Arc;

struct NoDevices;

impl Bus for NoDevices {
    fn io_read(&mut self, _: u64, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn io_write(&mut self, _: u64, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: u64, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: u64, _: u64, _: u8, _: u64) {}
    fn tsc(&mut self, now: u64) -> u64 {
        now
    }
    fn interrupt_pending(&self) -> bool {
        false
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn msr_read(&mut self, _: u64, _: u32) -> Option<u64> {
        None
    }
    fn msr_write(&mut self, _: u64, _: u32, _: u64) -> bool {
        false
    }
    fn cr8(&self) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: u8) {}
}

/// The supervisor's view of the first 2 MiB of RAM, out of reach of user addresses.
const KERNEL: u64 = 0xffff_8000_0000_0000;
const PML4: u64 = 0x1000;
const USER_PDPT: u64 = 0x2000;
const USER_PD: u64 = 0x3000;
const USER_TABLES: [u64; 2] = [0x4000, 0x5000];
const KERNEL_PDPT: u64 = 0x6000;
const KERNEL_PD: u64 = 0x7000;
const GDT: u64 = 0x8000;
const IDT: u64 = 0x9000;
const TSS: u64 = 0xa000;
const KERNEL_STACK_TOP: u64 = 0xc000;
/// Handler of vector n: `HANDLERS + 16 * n`.
const HANDLERS: u64 = KERNEL + 0xd000;
const VECTORS: u64 = 32;
const KERNEL_CS: u16 = 0x8;
const RAM: u64 = 4 << 20;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Accessed and dirty, so that no case depends on the one before it.
const USED: u64 = 3 << 5;

/// Our CPU with the guest around it.
pub struct Emulated {
    pub cpu: Cpu,
    pub ram: Arc<GuestRam>,
    pub clean: CpuState,
}

fn poke(ram: &GuestRam, gpa: u64, value: u64) {
    assert!(ram.write(gpa, &value.to_le_bytes()), "{gpa:#x} lies in RAM");
}

impl Emulated {
    pub fn new(background: &[u8; DATA_LEN]) -> Self {
        let ram = Arc::new(GuestRam::new(RAM).expect("4 MiB of memory"));
        let table = PRESENT | WRITE | USER | USED;
        poke(&ram, PML4, USER_PDPT | table);
        poke(&ram, USER_PDPT, USER_PD | table);
        for (i, at) in USER_TABLES.iter().enumerate() {
            poke(&ram, USER_PD + 8 * i as u64, at | table);
        }
        poke(&ram, PML4 + 8 * 256, KERNEL_PDPT | PRESENT | WRITE | USED);
        poke(&ram, KERNEL_PDPT, KERNEL_PD | PRESENT | WRITE | USED);
        poke(&ram, KERNEL_PD, PRESENT | WRITE | USED | LARGE);
        let map = |va: u64, bits: u64| {
            let at = USER_TABLES[(va >> 21) as usize] + 8 * (va >> 12 & 511);
            poke(&ram, at, va | PRESENT | USER | USED | bits);
        };
        map(CODE, 0);
        for page in (0..DATA_LEN).step_by(4096) {
            let write = if page < WRITABLE_LEN { WRITE } else { 0 };
            map(DATA + page as u64, NO_EXECUTE | write);
        }
        poke(&ram, GDT + u64::from(KERNEL_CS), 0x00af_9b00_0000_ffff);
        for vector in 0..VECTORS {
            // A 64-bit interrupt gate, DPL 3.
            let to = HANDLERS + 16 * vector;
            let low =
                to & 0xffff | u64::from(KERNEL_CS) << 16 | 0xee << 40 | (to >> 16 & 0xffff) << 48;
            poke(&ram, IDT + 16 * vector, low);
            poke(&ram, IDT + 16 * vector + 8, to >> 32);
        }
        assert!(ram.write(TSS + 4, &(KERNEL + KERNEL_STACK_TOP).to_le_bytes()), "the TSS is RAM");
        assert!(ram.write(CODE, &[CODE_FILL; CODE_LEN]), "the code is RAM");
        assert!(ram.write(DATA, &background[..]), "the data is RAM");

        let mut clean = CpuState::default();
        clean.enter_long_mode(PML4, CODE_AT, USER_CS, USER_SS);
        clean.cpl = 3;
        // What a 64-bit process has there: null selectors.
        for i in [ES, DS, FS, GS] {
            clean.seg[i] = Segment::default();
        }
        clean.seg[CS].attr |= 3 << 5;
        clean.seg[SS].attr |= 3 << 5;
        clean.seg[GS].base = GS_BASE;
        clean.gdtr = Table { base: KERNEL + GDT, limit: 0xf };
        clean.idtr = Table { base: KERNEL + IDT, limit: (VECTORS * 16 - 1) as u16 };
        clean.tr = Segment { base: KERNEL + TSS, limit: 0x67, selector: 0x40, attr: 0x8b };
        let mut cpu = Cpu::new(Arc::clone(&ram));
        *cpu.state = clean.clone();
        cpu.state_replaced();
        Self { cpu, ram, clean }
    }

    /// From here on the handlers halt.
    pub fn halt_in_handlers(&mut self) {
        assert!(self.ram.write(HANDLERS - KERNEL, &[0xf4; 16 * VECTORS as usize]), "they are RAM");
    }

    /// Runs until a handler halts, at most `limit` instructions.
    pub fn run_to(&mut self, limit: u64) -> Exit {
        loop {
            let exit = self.cpu.run(&mut NoDevices, limit, 0);
            if exit != Exit::LongRep {
                return exit;
            }
        }
    }

    /// Reads the top of the kernel's stack.
    pub fn read_stack(&self, to: &mut [u8]) {
        let from = KERNEL_STACK_TOP - to.len() as u64;
        assert!(self.ram.read(from, to), "the kernel's stack is RAM");
    }

    /// Executes one case. An error is a CPU that never came back to a handler.
    pub fn run(
        &mut self,
        case: &Case,
        background: &[u8; DATA_LEN],
    ) -> Result<Box<Outcome>, String> {
        assert!(self.ram.write(DATA, &background[..WRITABLE_LEN]), "the data is RAM");
        assert!(self.ram.write(DATA + case.window_at, &case.window), "the window is RAM");
        assert!(self.ram.write(CODE_AT, &case.code), "the code is RAM");
        *self.cpu.state = self.clean.clone();
        put_registers(&mut self.cpu.state, &case.before, TF);
        let mut exit = Exit::LongRep;
        for _ in 0..1000 {
            exit = self.cpu.run(&mut NoDevices, 1, 0);
            if exit != Exit::LongRep {
                break;
            }
        }
        let state = &self.cpu.state;
        let handler = state.regs[RIP].wrapping_sub(HANDLERS);
        if exit != Exit::Limit || handler >= 16 * VECTORS || !handler.is_multiple_of(16) {
            let rip = state.regs[RIP];
            self.cpu.state_replaced();
            return Err(format!("no handler was entered: {exit:?}, RIP {rip:#x}"));
        }
        let vector = handler / 16;
        let mut frame = [0u64; 6];
        let mut at = state.regs[RSP] - KERNEL;
        for word in &mut frame {
            let mut bytes = [0; 8];
            assert!(self.ram.read(at, &mut bytes), "the kernel's stack is RAM");
            *word = u64::from_le_bytes(bytes);
            at += 8;
        }
        let has_code = KERNEL_STACK_TOP - (state.regs[RSP] - KERNEL) == 48;
        let (error, frame) = if has_code { (frame[0], &frame[1..]) } else { (0, &frame[..]) };
        let mut outcome = Box::new(Outcome {
            after: get_registers(state),
            vector,
            error,
            cr2: state.cr2,
            memory: [0; DATA_LEN],
        });
        outcome.after.rip = frame[0];
        outcome.after.rflags = frame[2];
        outcome.after.gpr[4] = frame[3];
        assert!(self.ram.read(DATA, &mut outcome.memory), "the data is RAM");
        Ok(outcome)
    }
}

const _: () = assert!(WINDOW <= WRITABLE_LEN);

/// Loads a case's registers, with a flag set besides theirs.
pub fn put_registers(state: &mut CpuState, registers: &Registers, flag: u64) {
    state.regs[..16].copy_from_slice(&registers.gpr);
    state.regs[RIP] = registers.rip;
    state.flags = Flags::from_rflags(registers.rflags & !TF | flag);
    state.mxcsr = registers.mxcsr();
    for i in 0..16 {
        state.xmm[i] = registers.xmm(i);
    }
    let x87 = &mut state.x87;
    x87.control = registers.fx_word(0);
    x87.status = registers.fx_word(2);
    x87.tags = registers.fx[4];
    let top = usize::from(x87.status >> 11 & 7);
    for i in 0..8 {
        let value = registers.st(i);
        x87.mantissa[(top + i) & 7] = value as u64;
        x87.sign_exponent[(top + i) & 7] = (value >> 64) as u16;
    }
}

fn get_registers(state: &CpuState) -> Registers {
    let mut registers = Registers::new();
    registers.gpr.copy_from_slice(&state.regs[..16]);
    let x87 = &state.x87;
    registers.fx[..2].copy_from_slice(&x87.control.to_le_bytes());
    registers.fx[2..4].copy_from_slice(&x87.status.to_le_bytes());
    registers.fx[4] = x87.tags;
    registers.fx[24..28].copy_from_slice(&state.mxcsr.to_le_bytes());
    let top = usize::from(x87.status >> 11 & 7);
    for i in 0..8 {
        let from = (top + i) & 7;
        let value = u128::from(x87.sign_exponent[from]) << 64 | u128::from(x87.mantissa[from]);
        registers.set_wide(32 + 16 * i, value);
    }
    for i in 0..16 {
        registers.set_wide(160 + 16 * i, state.xmm[i]);
    }
    registers
}
