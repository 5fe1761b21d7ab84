//! The run loop: executes blocks by fuel, takes interrupts, delivers exceptions, stops at exact places.
#![allow(unsafe_code)]
// Reason: the bus is lent to the CPU for the time of one `run`, as a pointer, so that instruction
// handlers need not pass it along. Obligation: `run` sets the pointer from a live exclusive reference,
// clears it before it returns (a guard does so on unwinding too), and nothing else uses that reference.

use crate::bus::Bus;
use crate::flags::{IF, TF};
use crate::jit::Ran;
use crate::state::RIP;
use crate::{Cpu, Trap};
use std::ptr::NonNull;

/// Why [`Cpu::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The limit is reached exactly.
    Limit,
    /// HLT, and no interrupt to wake up for.
    Halted,
    /// A REP instruction has gone on for [`REP_CHUNKS_PER_RUN`] chunks; the caller may go on.
    LongRep,
    /// A triple fault: the CPU has shut down.
    Shutdown,
    /// The machine asked to come back to it ([`Bus::take_exit_request`]) behind the current instruction.
    Requested,
}

/// Chunks of one REP instruction after which `run` comes back, so that the host stays in control.
pub const REP_CHUNKS_PER_RUN: u64 = 256;

struct BusGuard<'a>(&'a mut Cpu);

impl Drop for BusGuard<'_> {
    fn drop(&mut self) {
        self.0.bus = None;
    }
}

impl Cpu {
    /// Runs until `retired` instructions have retired since power-on and, if `rep` is not 0, until that
    /// many chunks of the REP instruction there are done. Interrupts pending at the limit are not taken
    /// before the next call: the limit is the place before anything else happens at that boundary.
    ///
    /// # Panics
    /// If the limit lies behind the current place.
    pub fn run(&mut self, bus: &mut (dyn Bus + '_), retired: u64, rep: u64) -> Exit {
        let limit = (retired, rep);
        assert!((self.state.retired, self.state.rep) <= limit, "positions only grow");
        // SAFETY: the lifetime is erased for the time of this call only; the guard clears the pointer.
        let bus: NonNull<dyn Bus> =
            unsafe { std::mem::transmute::<NonNull<dyn Bus + '_>, NonNull<dyn Bus>>(bus.into()) };
        self.bus = Some(bus);
        let guard = BusGuard(self);
        guard.0.run_inner(limit)
    }

    fn run_inner(&mut self, limit: (u64, u64)) -> Exit {
        self.exit_requested = false;
        self.irq = self.bus_mut().interrupt_pending();
        self.update_mode();
        let mut chunks_left = REP_CHUNKS_PER_RUN;
        loop {
            if self.ram.has_stale_code() {
                for page in self.ram.take_stale_code() {
                    self.invalidate_code(page);
                }
            }
            if (self.state.retired, self.state.rep) >= limit {
                return Exit::Limit;
            }
            if self.exit_requested {
                return Exit::Requested;
            }
            if self.shut_down {
                return Exit::Shutdown;
            }
            let shadow = std::mem::take(&mut self.state.shadow);
            if !shadow && self.irq && self.state.flags.has(IF) {
                self.take_interrupt();
                continue;
            }
            if self.state.halted {
                return Exit::Halted;
            }
            let before = self.state.rep;
            self.run_block(limit, shadow);
            if self.state.rep > before {
                chunks_left -= 1;
                if chunks_left == 0 {
                    return Exit::LongRep;
                }
            }
        }
    }

    /// Runs the block at RIP, and those that follow by plain branches, until the limit or something
    /// that the run loop has to look at.
    #[inline(always)]
    fn run_block(&mut self, limit: (u64, u64), shadow: bool) {
        self.block_stop = false;
        self.step = self.state.flags.has(TF);
        let one = shadow || self.step;
        let translatable = self.translatable();
        loop {
            let block = match self.block_at_rip() {
                Ok(block) => block,
                Err(trap) => return self.fault(trap),
            };
            if translatable && !one {
                match self.run_unit(&block, limit.0) {
                    Ran::Cold => {}
                    Ran::Next if self.state.retired < limit.0 => continue,
                    Ran::Next | Ran::Stop => break,
                    Ran::Fault(trap) => return self.fault(trap),
                }
            }
            let fuel = limit.0 - self.state.retired;
            let len = block.ops.len() as u64;
            let n = if one || fuel == 0 { 1 } else { fuel.min(len) };
            for op in &block.ops[..n as usize] {
                self.state.regs[RIP] = self.state.regs[RIP].wrapping_add(u64::from(op.len));
                self.state.retired += 1;
                if let Err(trap) = (op.exec)(self, op) {
                    self.state.retired -= 1;
                    self.state.regs[RIP] = self.state.regs[RIP].wrapping_sub(u64::from(op.len));
                    return self.fault(trap);
                }
                if self.block_stop {
                    break;
                }
            }
            if self.block_stop || one || fuel <= len || !block.chains {
                break;
            }
        }
        if self.step && self.state.rep == 0 {
            self.single_step_trap();
        }
    }

    /// Counts the delivery and lets `exception.rs` find the handler.
    #[cold]
    fn fault(&mut self, trap: Trap) {
        self.state.retired += 1;
        self.state.rep = 0;
        self.deliver_exception(trap);
    }

    fn take_interrupt(&mut self) {
        let Some(vector) = self.bus_mut().acknowledge_interrupt() else {
            self.irq = false;
            return;
        };
        self.irq = self.bus_mut().interrupt_pending();
        self.state.halted = false;
        self.state.retired += 1;
        self.state.rep = 0;
        self.deliver_interrupt(vector);
    }

    /// The machine around the CPU.
    #[inline]
    pub(crate) fn bus_mut(&mut self) -> &mut dyn Bus {
        let mut bus = self.bus.expect("instructions execute inside `run`");
        // SAFETY: set by `run` from an exclusive reference that lives until `run` returns.
        unsafe { bus.as_mut() }
    }

    /// Instructions retired before the one that executes now: what devices derive their time from.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.state.retired - 1
    }

    /// Called behind every access to a device: interrupts may have changed, so the block ends.
    fn after_bus(&mut self) {
        self.irq = self.bus_mut().interrupt_pending();
        self.exit_requested |= self.bus_mut().take_exit_request();
        self.block_stop = true;
    }

    /// Reads device memory.
    pub(crate) fn bus_read(&mut self, gpa: u64, size: u8) -> u64 {
        let now = self.now();
        let value = self.bus_mut().mmio_read(now, gpa, size);
        self.after_bus();
        value
    }

    /// Writes device memory.
    pub(crate) fn bus_write(&mut self, gpa: u64, size: u8, value: u64) {
        let now = self.now();
        self.bus_mut().mmio_write(now, gpa, size, value);
        self.after_bus();
    }

    /// IN.
    pub(crate) fn port_read(&mut self, port: u16, size: u8) -> u32 {
        let now = self.now();
        let value = self.bus_mut().io_read(now, port, size);
        self.after_bus();
        value
    }

    /// OUT.
    pub(crate) fn port_write(&mut self, port: u16, size: u8, value: u32) {
        let now = self.now();
        self.bus_mut().io_write(now, port, size, value);
        self.after_bus();
    }

    /// RDMSR of a register of the machine.
    pub(crate) fn bus_msr_read(&mut self, msr: u32) -> Option<u64> {
        let now = self.now();
        let value = self.bus_mut().msr_read(now, msr);
        self.after_bus();
        value
    }

    /// WRMSR to a register of the machine.
    pub(crate) fn bus_msr_write(&mut self, msr: u32, value: u64) -> bool {
        let now = self.now();
        let known = self.bus_mut().msr_write(now, msr, value);
        self.after_bus();
        known
    }

    /// The machine's time stamp counter, adjusted as the guest asked.
    pub(crate) fn read_tsc(&mut self) -> u64 {
        let now = self.now();
        let tsc = self.bus_mut().tsc(now);
        tsc.wrapping_add(self.state.msrs.tsc_adjust)
    }

    /// CR8.
    pub(crate) fn read_cr8(&mut self) -> u8 {
        self.bus_mut().cr8()
    }

    /// CR8.
    pub(crate) fn write_cr8(&mut self, value: u8) {
        self.bus_mut().set_cr8(value);
        self.after_bus();
    }
}
