//! The I/O APIC (82093AA): 24 pins in front of the local APICs.

use super::interrupt::{Delivery, Message};
use crate::saved_fields;

/// Where its registers lie.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// Length of its register window.
pub const IOAPIC_LEN: u64 = 0x1000;
/// Number of pins.
pub const PINS: usize = 24;

const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;
/// Delivery status and remote IRR are read-only.
const READ_ONLY: u64 = 1 << 12 | REMOTE_IRR;
const VERSION: u32 = 0x11 | (PINS as u32 - 1) << 16;

/// The I/O APIC. Lines are logical (true: asserted); the polarity bits are kept and not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoApic {
    id: u32,
    select: u32,
    entries: [u64; PINS],
    /// Levels of the input lines, one bit a pin.
    lines: u32,
    /// Edges that came while their pin was masked: delivered at the unmask.
    edges: u32,
}
saved_fields!(IoApic { id, select, entries, lines, edges });

impl Default for IoApic {
    fn default() -> Self {
        Self { id: 0, select: 0, entries: [MASKED; PINS], lines: 0, edges: 0 }
    }
}

impl IoApic {
    /// Version of the saved bytes.
    pub const VERSION: u32 = 1;

    /// Sets all input lines at once and names the messages that follow, lowest pin first.
    pub fn set_lines(&mut self, lines: u32) -> Vec<Message> {
        let rising = lines & !self.lines;
        self.lines = lines;
        self.edges |= rising;
        if rising == 0 {
            return Vec::new();
        }
        (0..PINS).filter(|pin| rising & 1 << pin != 0).filter_map(|pin| self.service(pin)).collect()
    }

    /// The levels of the input lines.
    pub const fn lines(&self) -> u32 {
        self.lines
    }

    /// A local APIC ended a level-triggered interrupt: pins still asserted ask again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        for pin in 0..PINS {
            let entry = self.entries[pin];
            if entry & LEVEL != 0 && entry & REMOTE_IRR != 0 && entry as u8 == vector {
                self.entries[pin] &= !REMOTE_IRR;
                messages.extend(self.service(pin));
            }
        }
        messages
    }

    fn service(&mut self, pin: usize) -> Option<Message> {
        let entry = self.entries[pin];
        let line = 1 << pin;
        if entry & MASKED != 0 {
            return None;
        }
        if entry & LEVEL != 0 {
            self.edges &= !line;
            if self.lines & line == 0 || entry & REMOTE_IRR != 0 {
                return None;
            }
            self.entries[pin] |= REMOTE_IRR;
        } else {
            if self.edges & line == 0 {
                return None;
            }
            self.edges &= !line;
        }
        Some(Message {
            vector: entry as u8,
            delivery: Delivery::from_bits((entry >> 8) as u32),
            logical: entry & 1 << 11 != 0,
            destination: (entry >> 56) as u32,
            level: entry & LEVEL != 0,
        })
    }

    /// Reads a register.
    pub const fn mmio_read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => self.select,
            0x10 => match self.select {
                0 | 2 => self.id << 24,
                1 => VERSION,
                0x10..0x40 => {
                    let entry = self.entries[(self.select as usize - 0x10) / 2];
                    if self.select & 1 == 0 { entry as u32 } else { (entry >> 32) as u32 }
                }
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Writes a register; an unmasked pin may send its message at once.
    pub fn mmio_write(&mut self, offset: u64, value: u32) -> Option<Message> {
        match (offset, self.select) {
            (0x00, _) => self.select = value & 0xff,
            (0x10, 0) => self.id = value >> 24 & 0xf,
            (0x10, 0x10..0x40) => {
                let pin = (self.select as usize - 0x10) / 2;
                let old = self.entries[pin];
                let new = if self.select & 1 == 0 {
                    old & 0xffff_ffff_0000_0000 | u64::from(value)
                } else {
                    old & 0xffff_ffff | u64::from(value) << 32
                };
                let mut entry = new & !READ_ONLY | old & READ_ONLY;
                if entry & LEVEL == 0 {
                    entry &= !REMOTE_IRR;
                }
                self.entries[pin] = entry & 0xff00_0000_0001_ffff;
                return self.service(pin);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    fn program(apic: &mut IoApic, pin: u32, low: u32) -> Option<Message> {
        apic.mmio_write(0, 0x10 + pin * 2);
        apic.mmio_write(0x10, low)
    }

    #[test]
    fn registers_read_back() {
        let mut apic = IoApic::default();
        apic.mmio_write(0, 1);
        assert_eq!(apic.mmio_read(0x10), 0x0017_0011);
        program(&mut apic, 5, 0x0001_5051);
        assert_eq!(apic.mmio_read(0x10), 0x0001_0051, "read-only bits stay");
        apic.mmio_write(0, 0x10 + 5 * 2 + 1);
        apic.mmio_write(0x10, 0x0300_0000);
        assert_eq!(apic.mmio_read(0x10), 0x0300_0000);
    }

    #[test]
    fn an_edge_is_sent_once_and_kept_while_masked() {
        let mut apic = IoApic::default();
        program(&mut apic, 4, 0x41);
        assert_eq!(apic.set_lines(1 << 4)[0].vector, 0x41);
        assert!(apic.set_lines(1 << 4).is_empty());
        assert!(apic.set_lines(0).is_empty());
        program(&mut apic, 4, 0x1_0041);
        assert!(apic.set_lines(1 << 4).is_empty());
        assert!(program(&mut apic, 4, 0x41).is_some());
        assert!(program(&mut apic, 4, 0x41).is_none());
    }

    #[test]
    fn a_level_is_sent_again_until_it_falls() {
        let mut apic = IoApic::default();
        program(&mut apic, 9, 0x8051);
        let messages = apic.set_lines(1 << 9);
        assert!(messages.len() == 1 && messages[0].level);
        assert!(apic.set_lines(1 << 9).is_empty());
        assert_eq!(apic.end_of_interrupt(0x51).len(), 1, "still asserted");
        assert!(apic.set_lines(0).is_empty());
        assert!(apic.end_of_interrupt(0x51).is_empty());
        assert_eq!(apic.set_lines(1 << 9).len(), 1);
    }

    #[test]
    fn state_comes_back() {
        let mut apic = IoApic::default();
        program(&mut apic, 9, 0x8051);
        apic.set_lines(1 << 9 | 1 << 4);
        assert_eq!(from_bytes(&to_bytes(&apic)), Ok(apic));
    }
}
