//! Prints how many guest instructions a second the CPU executes in a small integer loop (xorshift and a
//! sum, with a load and a store each round). `loop_speed interp` measures the interpreter.

use ft_pair_cpu::state::{CpuState, RCX, RSI, RSP};
use ft_pair_cpu::{Bus, Cpu, Engine, GuestRam};
use std::sync::Arc;
use std::time::Instant;

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

/// again: mov rax, rbx / shl rax, 13 / xor rbx, rax / mov rax, rbx / shr rax, 7 / xor rbx, rax /
/// add rdx, rbx / mov [rsi + 8], rdx / add rdi, [rsi + 8] / cmp rdi, rbx / cmovb r8, rdi / dec rcx / jnz again
const CODE: &[u8] = &[
    0x48, 0x89, 0xd8, 0x48, 0xc1, 0xe0, 0x0d, 0x48, 0x31, 0xc3, 0x48, 0x89, 0xd8, 0x48, 0xc1, 0xe8,
    0x07, 0x48, 0x31, 0xc3, 0x48, 0x01, 0xda, 0x48, 0x89, 0x56, 0x08, 0x48, 0x03, 0x7e, 0x08, 0x48,
    0x39, 0xdf, 0x4c, 0x0f, 0x42, 0xc7, 0x48, 0xff, 0xc9, 0x75, 0xd5,
];
const ENTRY: u64 = 0x10000;

fn main() {
    let ram = Arc::new(GuestRam::new(4 << 20).expect("4 MiB of memory"));
    // One gigabyte, mapped to itself by 2 MiB pages.
    ram.write(0x1000, &0x2003u64.to_le_bytes());
    ram.write(0x2000, &0x3003u64.to_le_bytes());
    ram.write(0x3000, &0x83u64.to_le_bytes());
    ram.write(0x3008, &0x20_0083u64.to_le_bytes());
    ram.write(ENTRY, CODE);
    let mut cpu = Cpu::new(ram);
    let engine = match std::env::args().nth(1).as_deref() {
        Some("interp") => Engine::Interpreter,
        _ => Engine::Translator,
    };
    cpu.set_engine(engine).expect("this host runs translated code");
    let mut state = CpuState::default();
    state.enter_long_mode(0x1000, ENTRY, 0x8, 0x10);
    state.regs[3] = 0x2545_f491_4f6c_dd1d;
    state.regs[RCX] = u64::MAX;
    state.regs[RSI] = 0x20000;
    state.regs[RSP] = 0x30000;
    *cpu.state = state;
    cpu.state_replaced();
    let instructions = 500_000_000;
    let start = Instant::now();
    let exit = cpu.run(&mut NoDevices, instructions, 0);
    let seconds = start.elapsed().as_secs_f64();
    let mips = instructions as f64 / seconds / 1e6;
    println!("{exit:?} after {instructions} instructions: {mips:.0} million a second");
}
