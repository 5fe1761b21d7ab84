//! The machine: one CPU, its memory and devices, run from position to position.
//!
//! What happens at one boundary happens in this order: first what is due by the guest's own time (timers,
//! completions), then inputs and idle wake-ups in the order of `seq`, each followed by what it makes due.
//! [`Machine::run`] stops at its limit with everything due there done and no interrupt taken yet.

use crate::acpi;
use crate::block_device::{BlockDevice, DiskError};
use crate::config::MachineConfig;
use crate::cpu_state;
use crate::devices::Devices;
use crate::devices::virtio::DiskWrites;
use crate::state::{MachineState, Section, StateError};
use ft_pair_cpu::flags::IF;
use ft_pair_cpu::jit::{Statistics, Unsupported};
use ft_pair_cpu::ram::{PAGE, RamError};
use ft_pair_cpu::{Bus, Cpu, CpuState, Engine, Exit, GuestRam};
use ft_pair_shared::{Input, Output, Position, PowerEvent};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// The least memory that a machine can have: firmware tables lie below 1 MiB.
pub const MEMORY_MIN: u64 = 2 << 20;

/// A machine cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No memory to be had.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// A memory size that a guest cannot have.
    #[error("guest memory of {0} bytes: use a multiple of 4096 of at least {MEMORY_MIN}")]
    Memory(u64),
    /// A clock that would stand still.
    #[error("guest time must advance with every instruction: use a rate above 0")]
    Rate,
}

/// Why [`Machine::run`] came back.
#[derive(Debug)]
pub enum Stop {
    /// The limit is reached exactly.
    Limit,
    /// The guest waits. Without inputs it goes on at `deadline` ([`Machine::idle_to_deadline`]), or
    /// never, if interrupts are off or nothing is armed.
    Idle {
        /// Guest time of the next thing that a device does by itself.
        deadline: Option<u64>,
    },
    /// The power cycle has ended; the machine does not run again.
    Power(PowerEvent),
    /// The host could not read the guest's disk. The request is still in flight: running again tries
    /// again, at the same position.
    HostError(DiskError),
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    cpu: Cpu,
    devices: Devices,
    ram: Arc<GuestRam>,
    /// Inputs and idle wake-ups taken at the current boundary.
    seq: u32,
    rsdp: u64,
}

impl Machine {
    /// A machine as power-on leaves it, with its ACPI tables in memory; boot code has to load a kernel.
    ///
    /// # Errors
    /// When the configuration is impossible or the host has no memory.
    pub fn new(config: &MachineConfig, disk: Box<dyn BlockDevice>) -> Result<Self, MachineError> {
        if config.memory < MEMORY_MIN || !config.memory.is_multiple_of(PAGE) {
            return Err(MachineError::Memory(config.memory));
        }
        if config.rate == 0 {
            return Err(MachineError::Rate);
        }
        let ram = Arc::new(GuestRam::new(config.memory)?);
        let rsdp = acpi::install(&ram);
        let devices = Devices::new(config, &ram, disk);
        Ok(Self { cpu: Cpu::new(Arc::clone(&ram)), devices, ram, seq: 0, rsdp })
    }

    /// Where the machine is.
    pub fn position(&self) -> Position {
        Position { retired: self.cpu.state.retired, rep: self.cpu.state.rep, seq: self.seq }
    }

    /// Guest time, nanoseconds since power-on.
    pub fn time_ns(&self) -> u64 {
        self.devices.clock.time_at(self.cpu.state.retired)
    }

    /// Nanoseconds of guest time per retired instruction, in 32.32 fixed point.
    pub const fn rate(&self) -> u64 {
        self.devices.clock.rate()
    }

    /// The position, at a boundary between instructions, at which guest time is `ns` or more. Holds
    /// until the next clock anchor.
    pub fn position_of(&self, ns: u64) -> Position {
        Position::at(self.devices.clock.first_at(ns).max(self.cpu.state.retired))
    }

    /// Number of the next console input byte that the machine expects.
    pub const fn console_input_next(&self) -> u64 {
        self.devices.serial.input_next()
    }

    /// Guest memory.
    pub const fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Guest physical address of the ACPI root pointer, for the boot parameters.
    pub const fn rsdp(&self) -> u64 {
        self.rsdp
    }

    /// The disk behind the controller.
    pub fn disk(&mut self) -> &mut dyn BlockDevice {
        self.devices.block.device().disk()
    }

    /// The CPU's state.
    pub fn cpu(&self) -> &CpuState {
        &self.cpu.state
    }

    /// Changes the CPU's state from outside (boot, repair, injected faults).
    pub fn change_cpu(&mut self, change: impl FnOnce(&mut CpuState)) {
        change(&mut self.cpu.state);
        self.cpu.state_replaced();
    }

    /// Chooses what executes the guest's code; this changes nothing that the guest could see.
    ///
    /// # Errors
    /// Where this host cannot run translated code; then it is interpreted.
    pub fn set_engine(&mut self, engine: Engine) -> Result<(), Unsupported> {
        self.cpu.set_engine(engine)
    }

    /// Counters of the translator, if code runs translated.
    pub fn translator_statistics(&self) -> Option<Statistics> {
        self.cpu.translator_statistics()
    }

    /// Invalid or unsupported opcodes met, with how often.
    pub const fn undefined_opcodes(&self) -> &std::collections::BTreeMap<String, u64> {
        &self.cpu.undefined
    }

    /// Runs to `limit` at most. Its `seq` does not matter: inputs are applied by [`Machine::apply`].
    ///
    /// # Panics
    /// If the limit lies behind the machine.
    pub fn run(&mut self, limit: Position) -> Stop {
        let end = (limit.retired, limit.rep);
        assert!(
            self.place() <= end,
            "positions only grow: at {}, asked for {limit}",
            self.position()
        );
        loop {
            self.devices.advance(self.cpu.state.retired);
            if let Some(error) = self.devices.take_host_error() {
                return Stop::HostError(error);
            }
            if let Some(event) = self.devices.ended() {
                return Stop::Power(event);
            }
            if self.place() >= end {
                return Stop::Limit;
            }
            let before = self.place();
            let (retired, rep) = self.next_stop(end);
            let exit = self.cpu.run(&mut self.devices, retired, rep);
            if self.place() != before {
                self.seq = 0;
            }
            match exit {
                Exit::Limit | Exit::LongRep | Exit::Requested => {}
                Exit::Halted if self.can_wake() => {}
                Exit::Halted => return Stop::Idle { deadline: self.idle_deadline() },
                Exit::Shutdown => self.devices.end(self.position(), PowerEvent::Crash),
            }
        }
    }

    fn place(&self) -> (u64, u64) {
        (self.cpu.state.retired, self.cpu.state.rep)
    }

    /// The place to let the CPU run to: the limit, or the next deadline before it.
    fn next_stop(&mut self, end: (u64, u64)) -> (u64, u64) {
        let due = self.devices.deadline();
        let place = due.map(|ns| (self.devices.clock.first_at(ns), 0)).filter(|place| *place < end);
        let stop = place.unwrap_or(end);
        assert!(stop > self.place(), "what is due here has been done");
        self.devices.arm(self.devices.clock.time_at(stop.0));
        stop
    }

    fn can_wake(&self) -> bool {
        self.cpu.state.flags.has(IF) && self.devices.interrupt_pending()
    }

    /// True if the guest has halted and nothing that it waits for is here.
    pub fn is_idle(&self) -> bool {
        self.cpu.state.halted && !self.can_wake()
    }

    /// Guest time at which an idle guest wakes up by itself, if ever.
    pub fn idle_deadline(&self) -> Option<u64> {
        if self.cpu.state.flags.has(IF) { self.devices.deadline() } else { None }
    }

    /// The derived idle wake-up: guest time jumps to the deadline that [`Stop::Idle`] named.
    ///
    /// # Panics
    /// If the guest is not idle or has no deadline.
    pub fn idle_to_deadline(&mut self) {
        assert!(self.cpu.state.halted && !self.can_wake(), "only an idle guest skips time");
        let deadline = self.idle_deadline().expect("an idle guest wakes up at a deadline");
        let rate = self.devices.clock.rate();
        let time = deadline.max(self.time_ns());
        self.devices.clock.set(self.cpu.state.retired, time, rate);
        self.seq += 1;
        self.devices.advance(self.cpu.state.retired);
    }

    /// Applies an input at the current position.
    ///
    /// # Panics
    /// If a clock anchor would turn time back, or console input has a gap.
    pub fn apply(&mut self, input: &Input) {
        let retired = self.cpu.state.retired;
        match input {
            Input::Clock { time_ns, rate } => self.devices.clock.set(retired, *time_ns, *rate),
            Input::Console { first, bytes } => self.devices.serial.type_bytes(*first, bytes),
            Input::PowerButton => self.devices.power.press_button(),
        }
        self.seq += 1;
        self.devices.advance(retired);
    }

    /// What the guest has told the world since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.devices.take_outputs()
    }

    /// What the guest has written to its disk since the last call.
    pub fn take_disk_writes(&mut self) -> DiskWrites {
        self.devices.block.device().take_writes()
    }

    /// The pages dirtied since the last call, ascending.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let pages = self.ram.take_dirty();
        self.cpu.dirty_marks_cleared();
        pages
    }

    /// The second, longer-lived set of dirty pages.
    pub fn take_dirty_long(&mut self) -> Vec<u32> {
        let pages = self.ram.take_dirty_long();
        self.cpu.dirty_marks_cleared();
        pages
    }

    /// State of CPU and devices. The CPU's TLB is flushed, as it is on the side that restores.
    pub fn save(&mut self) -> MachineState {
        self.flush_tlb();
        self.state()
    }

    /// Empties the CPU's TLB alone, as [`Self::save`] does: where a replay meets the record of one.
    pub fn flush_tlb(&mut self) {
        self.cpu.flush_tlb();
    }

    /// The same without a flush: for digests, at positions where the other side flushes nothing either.
    pub fn state(&self) -> MachineState {
        let Self { cpu, devices, ram: _, seq, rsdp: _ } = self;
        let mut sections = vec![
            Section::of(cpu_state::SECTION, cpu_state::VERSION, &*cpu.state),
            Section::of("position", 1, seq),
        ];
        sections.extend(devices.save());
        MachineState { sections }
    }

    /// Takes a saved state back. Memory and disk are the caller's, before this call. Outputs not taken
    /// are dropped, disk writes not taken are forgotten.
    ///
    /// # Errors
    /// When the state is damaged, of another version or of another kind of machine.
    pub fn restore(&mut self, state: &MachineState) -> Result<(), StateError> {
        let [cpu, position, devices @ ..] = state.sections.as_slice() else {
            return Err(StateError::Short);
        };
        let cpu: CpuState = cpu.read(cpu_state::SECTION, cpu_state::VERSION)?;
        let seq = position.read("position", 1)?;
        self.devices.restore(devices)?;
        *self.cpu.state = cpu;
        self.cpu.state_replaced();
        self.seq = seq;
        Ok(())
    }
}
