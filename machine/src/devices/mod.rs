//! All devices of the machine, and how the CPU reaches them.
//!
//! Everything here runs on the vCPU thread at a position. A device is plain state that is told the guest
//! time; [`Devices`] routes accesses to them, carries interrupts between them, and knows when the next
//! of them wants to do something by itself.

pub mod interrupt;
pub mod ioapic;
pub mod lapic;
pub mod msix;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod virtio;

mod routing;
#[cfg(test)]
mod tests;

use crate::block_device::{BlockDevice, DiskError};
use crate::clock::VirtualClock;
use crate::config::MachineConfig;
use crate::guest_view::{GuestView, guest_view};
use crate::saved_fields;
use crate::state::{Section, StateError};
use ft_pair_cpu::GuestRam;
use ft_pair_shared::{Output, Position, PowerEvent, Stream};
use interrupt::{Delivery, Message};
use ioapic::IoApic;
use lapic::{Effect, Lapic, Shorthand};
use std::sync::Arc;
use virtio::{Block, Entropy, VirtioDevice, VirtioPci};

/// Slot of the disk.
pub const BLOCK_SLOT: u8 = 1;
/// Slot of the entropy device.
pub const ENTROPY_SLOT: u8 = 2;
/// The slots that have a function which can interrupt.
pub const INTERRUPTING_SLOTS: [u8; 2] = [BLOCK_SLOT, ENTROPY_SLOT];

const fn intx(slot: u8) -> u32 {
    pci::INTX_PIN + slot as u32
}

/// State of the wiring itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Board {
    /// The address port of PCI configuration mechanism 1.
    pci_address: u32,
    /// Number of the next power event.
    power_events: u64,
    /// How the power cycle ended: [`power_code`], 0 while it lasts.
    ended: u8,
}
saved_fields!(Board { pci_address, power_events, ended });

/// A power event as one byte; 0 is none. The same byte is the payload of the output, less one.
const fn power_code(event: PowerEvent) -> u8 {
    1 + event as u8
}

/// The devices, the clock that they derive time from, and what they have told the world.
#[derive(Debug)]
pub struct Devices {
    pub(crate) clock: VirtualClock,
    lapics: Vec<Lapic>,
    ioapic: IoApic,
    pub(crate) serial: serial::Serial,
    rtc: rtc::Rtc,
    pit: pit::Pit,
    pic: pic::Pic,
    pub(crate) power: power::Power,
    host_bridge: pci::ConfigSpace,
    pub(crate) block: VirtioPci<Block>,
    entropy: VirtioPci<Entropy>,
    board: Board,
    // What follows is of the host's side: derived, or emptied at every stop.
    memory: GuestView,
    outputs: Vec<Output>,
    host_error: Option<DiskError>,
    /// The RTC's deadline, kept because it takes a search.
    rtc_deadline: Option<u64>,
    /// Guest time up to which the CPU was let run; a device that wants to act earlier asks for a stop.
    armed_ns: u64,
    exit_request: bool,
}

impl Devices {
    /// The devices of a machine with one CPU, as power-on leaves them.
    pub fn new(config: &MachineConfig, ram: &Arc<GuestRam>, disk: Box<dyn BlockDevice>) -> Self {
        let bars = pci::MMIO_WINDOW.0;
        let block = Block::new(disk, config.disk_latency_ns);
        let entropy = Entropy::new(config.entropy_seed);
        Self {
            clock: VirtualClock::new(config.rate),
            lapics: vec![Lapic::new(0)],
            ioapic: IoApic::default(),
            serial: serial::Serial::default(),
            rtc: rtc::Rtc::new(config.wall_clock),
            pit: pit::Pit::default(),
            pic: pic::Pic::default(),
            power: power::Power::default(),
            host_bridge: pci::ConfigSpace::host_bridge(),
            block: VirtioPci::new(block, BLOCK_SLOT, bars, intx(BLOCK_SLOT) as u8),
            entropy: VirtioPci::new(entropy, ENTROPY_SLOT, bars, intx(ENTROPY_SLOT) as u8),
            board: Board::default(),
            memory: guest_view(ram),
            outputs: Vec::new(),
            host_error: None,
            rtc_deadline: None,
            armed_ns: 0,
            exit_request: false,
        }
    }

    // Time.

    /// Guest time of the next thing that a device does by itself.
    pub fn deadline(&self) -> Option<u64> {
        let timers = self.lapics.iter().filter_map(Lapic::deadline);
        let others = [self.rtc_deadline, self.block.deadline(), self.entropy.deadline()];
        timers.chain(others.into_iter().flatten()).min()
    }

    /// Does what is due when `retired` instructions have retired, in a fixed order.
    pub(crate) fn advance(&mut self, retired: u64) {
        let now = self.clock.time_at(retired);
        self.lapics.iter_mut().for_each(|lapic| lapic.advance(now));
        if self.rtc_deadline.is_some_and(|due| due <= now) {
            self.rtc.advance(now);
            self.rtc_deadline = self.rtc.deadline();
        }
        match self.block.advance(&self.memory, now) {
            Ok(messages) => self.send_all(messages),
            Err(error) => self.host_error = Some(error),
        }
        match self.entropy.advance(&self.memory, now) {
            Ok(messages) => self.send_all(messages),
            Err(error) => self.host_error = Some(error),
        }
        self.update_lines();
    }

    /// The CPU is about to run until guest time `ns` at most.
    pub(crate) const fn arm(&mut self, ns: u64) {
        self.armed_ns = ns;
        self.exit_request = false;
    }

    /// Called behind every access that may have changed a device.
    fn settle(&mut self) {
        self.update_lines();
        if self.board.ended != 0 || self.deadline().is_some_and(|due| due < self.armed_ns) {
            self.exit_request = true;
        }
    }

    // Interrupts.

    pub(crate) fn update_lines(&mut self) {
        let lines = u32::from(self.serial.line()) << serial::SERIAL_PIN
            | u32::from(self.rtc.line()) << rtc::RTC_PIN
            | u32::from(self.power.line()) << power::SCI_PIN
            | u32::from(self.block.line()) << intx(BLOCK_SLOT)
            | u32::from(self.entropy.line()) << intx(ENTROPY_SLOT);
        if lines != self.ioapic.lines() {
            let messages = self.ioapic.set_lines(lines);
            self.send_all(messages);
        }
    }

    fn send_all(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.send(&message);
        }
    }

    fn send(&mut self, message: &Message) {
        let mut targets = self.lapics.iter_mut().filter(|lapic| lapic.is_destination(message));
        match message.delivery {
            Delivery::Fixed => targets.for_each(|l| l.accept(message.vector, message.level)),
            Delivery::LowestPriority => {
                if let Some(lapic) = targets.next() {
                    lapic.accept(message.vector, message.level);
                }
            }
            Delivery::Ignored => {}
        }
    }

    /// Carries out what a register of CPU `sender`'s APIC asked for.
    fn carry_out(&mut self, sender: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Eoi(vector) => {
                let messages = self.ioapic.end_of_interrupt(vector);
                self.send_all(messages);
            }
            Effect::Ipi { message, .. } if message.delivery == Delivery::Ignored => {}
            Effect::Ipi { message, shorthand: Shorthand::None } => self.send(&message),
            Effect::Ipi { message, shorthand } => {
                for (cpu, lapic) in self.lapics.iter_mut().enumerate() {
                    let meant = match shorthand {
                        Shorthand::Myself => cpu == sender,
                        Shorthand::Others => cpu != sender,
                        _ => true,
                    };
                    if meant {
                        lapic.accept(message.vector, false);
                    }
                }
            }
        }
    }

    // Output.

    fn console_byte(&mut self, now: u64, number: u64, byte: u8) {
        let position = Position::at(now);
        let after_flush = self.block.device_ref().flushes();
        if let Some(last) = self.outputs.last_mut()
            && last.stream == Stream::Console
            && last.after_flush == after_flush
        {
            last.bytes.push(byte);
            last.position = position;
            return;
        }
        let bytes = vec![byte];
        self.outputs.push(Output {
            stream: Stream::Console,
            seq: number,
            position,
            bytes,
            after_flush,
        });
    }

    /// The power cycle ends; only the first end counts.
    pub(crate) fn end(&mut self, position: Position, event: PowerEvent) {
        if self.board.ended != 0 {
            return;
        }
        self.board.ended = power_code(event);
        self.outputs.push(Output {
            stream: Stream::Power,
            seq: self.board.power_events,
            position,
            bytes: vec![event as u8],
            after_flush: self.block.device_ref().flushes(),
        });
        self.board.power_events += 1;
    }

    /// How the power cycle ended, if it has.
    pub const fn ended(&self) -> Option<PowerEvent> {
        match self.board.ended {
            0 => None,
            1 => Some(PowerEvent::Off),
            2 => Some(PowerEvent::Reboot),
            _ => Some(PowerEvent::Crash),
        }
    }

    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    pub(crate) const fn take_host_error(&mut self) -> Option<DiskError> {
        self.host_error.take()
    }

    // State.

    /// The sections of all devices, in a fixed order.
    pub(crate) fn save(&self) -> Vec<Section> {
        let Self {
            clock,
            lapics,
            ioapic,
            serial,
            rtc,
            pit,
            pic,
            power,
            host_bridge,
            block,
            entropy,
            board,
            memory: _,
            outputs: _,
            host_error: _,
            rtc_deadline: _,
            armed_ns: _,
            exit_request: _,
        } = self;
        vec![
            Section::of("clock", 1, clock),
            Section::of("lapic", Lapic::VERSION, lapics),
            Section::of("ioapic", IoApic::VERSION, ioapic),
            Section::of("serial", serial::Serial::VERSION, serial),
            Section::of("rtc", rtc::Rtc::VERSION, rtc),
            Section::of("pit", pit::Pit::VERSION, pit),
            Section::of("pic", pic::Pic::VERSION, pic),
            Section::of("power", power::Power::VERSION, power),
            Section::of("host-bridge", 1, &host_bridge.save()),
            Section::of("virtio-blk", Block::VERSION, &block.save()),
            Section::of("virtio-rng", Entropy::VERSION, &entropy.save()),
            Section::of("board", 1, board),
        ]
    }

    /// Takes saved sections back, all of them or, on an error in their form, none.
    pub(crate) fn restore(&mut self, sections: &[Section]) -> Result<(), StateError> {
        let [clock, lapics, ioapic, serial, rtc, pit, pic, power, bridge, block, entropy, board] =
            sections
        else {
            return Err(StateError::Section {
                expected: "12 devices".into(),
                found: sections.len().to_string(),
            });
        };
        let clock = clock.read("clock", 1)?;
        let lapics: Vec<Lapic> = lapics.read("lapic", Lapic::VERSION)?;
        let ioapic = ioapic.read("ioapic", IoApic::VERSION)?;
        let serial = serial.read("serial", serial::Serial::VERSION)?;
        let rtc = rtc.read("rtc", rtc::Rtc::VERSION)?;
        let pit = pit.read("pit", pit::Pit::VERSION)?;
        let pic = pic.read("pic", pic::Pic::VERSION)?;
        let power = power.read("power", power::Power::VERSION)?;
        let bridge = bridge.read("host-bridge", 1)?;
        let block = block.read("virtio-blk", Block::VERSION)?;
        let entropy = entropy.read("virtio-rng", Entropy::VERSION)?;
        let board: Board = board.read("board", 1)?;
        if lapics.len() != self.lapics.len() {
            return Err(StateError::Value("the number of CPUs"));
        }
        if board.ended > power_code(PowerEvent::Crash) {
            return Err(StateError::Value("the end of the power cycle"));
        }
        self.block.restore(block)?;
        self.entropy.restore(entropy)?;
        self.host_bridge.restore(&bridge);
        (self.clock, self.lapics, self.ioapic) = (clock, lapics, ioapic);
        (self.serial, self.rtc, self.pit, self.pic) = (serial, rtc, pit, pic);
        (self.power, self.board) = (power, board);
        self.rtc_deadline = self.rtc.deadline();
        self.outputs.clear();
        self.host_error = None;
        self.arm(0);
        Ok(())
    }
}
