//! The 16550A UART at 3F8h, interrupt 4: the guest's console.
//!
//! vm-superio's `Serial` raises no interrupt when THRE is enabled with the transmitter empty, has no
//! interrupt line that falls again and fires while it is restored, so this is a UART of our own:
//! transmission takes no time, reception is as fast as the guest reads.

use crate::saved_fields;
use std::collections::VecDeque;

/// First port.
pub const SERIAL_BASE: u16 = 0x3f8;
/// Number of ports.
pub const SERIAL_LEN: u16 = 8;
/// Pin of the I/O APIC.
pub const SERIAL_PIN: u32 = 4;

const FIFO: usize = 16;

const IER_RX: u8 = 1;
const IER_THRE: u8 = 2;
const IER_MODEM: u8 = 8;
const IIR_NONE: u8 = 1;
const IIR_THRE: u8 = 2;
const IIR_RX: u8 = 4;
const IIR_TIMEOUT: u8 = 0xc;
const LCR_DLAB: u8 = 0x80;
const MCR_OUT2: u8 = 8;
const MCR_LOOP: u8 = 0x10;
const LSR_DATA: u8 = 1;
const LSR_OVERRUN: u8 = 2;
const LSR_IDLE: u8 = 0x60;
/// Carrier, data set ready, clear to send.
const MSR_CONNECTED: u8 = 0xb0;

/// The UART and the queue of typed bytes that waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial {
    ier: u8,
    /// FIFO control: bit 0 enable, bits 6 and 7 trigger level.
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: u16,
    /// The transmitter has become empty and nobody has been told yet.
    thre_pending: bool,
    overrun: bool,
    /// Changes of the modem lines since MSR was read (only loopback makes any).
    modem_delta: u8,
    rx: VecDeque<u8>,
    /// Typed bytes that have not reached the receiver.
    queue: VecDeque<u8>,
    /// Number of the next input byte expected: those before have been taken.
    input_next: u64,
    /// Number of the next output byte.
    output_next: u64,
}
saved_fields!(Serial {
    ier,
    fcr,
    lcr,
    mcr,
    scratch,
    divisor,
    thre_pending,
    overrun,
    modem_delta,
    rx,
    queue,
    input_next,
    output_next,
});

impl Default for Serial {
    fn default() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 3,
            mcr: 0,
            scratch: 0,
            divisor: 12,
            thre_pending: false,
            overrun: false,
            modem_delta: 0,
            rx: VecDeque::new(),
            queue: VecDeque::new(),
            input_next: 0,
            output_next: 0,
        }
    }
}

impl Serial {
    /// Version of the saved bytes.
    pub const VERSION: u32 = 1;

    /// Level of the interrupt line. OUT2 gates it, as on a PC.
    pub fn line(&self) -> bool {
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && self.identification() != IIR_NONE
    }

    /// Number of the next input byte that is expected.
    pub const fn input_next(&self) -> u64 {
        self.input_next
    }

    /// Takes typed bytes, of which the first has the number `first`; those that were taken before are
    /// skipped.
    ///
    /// # Panics
    /// If bytes before `first` are missing: input would be lost.
    pub fn type_bytes(&mut self, first: u64, bytes: &[u8]) {
        assert!(
            first <= self.input_next,
            "console input has no gap: {first} follows {}",
            self.input_next
        );
        let known = (self.input_next - first).min(bytes.len() as u64) as usize;
        self.queue.extend(&bytes[known..]);
        self.input_next += (bytes.len() - known) as u64;
        self.fill();
    }

    const fn fifo_enabled(&self) -> bool {
        self.fcr & 1 != 0
    }

    fn fill(&mut self) {
        let room = if self.fifo_enabled() { FIFO } else { 1 };
        while self.rx.len() < room && self.mcr & MCR_LOOP == 0 {
            let Some(byte) = self.queue.pop_front() else { break };
            self.rx.push_back(byte);
        }
    }

    fn rx_trigger(&self) -> usize {
        if self.fifo_enabled() { [1, 4, 8, 14][usize::from(self.fcr >> 6)] } else { 1 }
    }

    fn identification(&self) -> u8 {
        if self.ier & IER_RX != 0 && self.rx.len() >= self.rx_trigger() {
            IIR_RX
        } else if self.ier & IER_RX != 0 && !self.rx.is_empty() {
            // The character timeout has no duration here: what is below the trigger is due at once.
            IIR_TIMEOUT
        } else if self.ier & IER_THRE != 0 && self.thre_pending {
            IIR_THRE
        } else if self.ier & IER_MODEM != 0 && self.modem_delta != 0 {
            0
        } else {
            IIR_NONE
        }
    }

    const fn modem_lines(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return MSR_CONNECTED;
        }
        // Loopback: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
        (self.mcr & 1) << 5 | (self.mcr & 2) << 3 | (self.mcr & 4) << 4 | (self.mcr & 8) << 4
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u16) -> u8 {
        match offset {
            0 if self.lcr & LCR_DLAB != 0 => self.divisor as u8,
            0 => {
                let byte = self.rx.pop_front().unwrap_or(0);
                self.fill();
                byte
            }
            1 if self.lcr & LCR_DLAB != 0 => (self.divisor >> 8) as u8,
            1 => self.ier,
            2 => {
                let id = self.identification();
                if id == IIR_THRE {
                    self.thre_pending = false;
                }
                id | if self.fifo_enabled() { 0xc0 } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let overrun = std::mem::take(&mut self.overrun);
                LSR_IDLE
                    | if self.rx.is_empty() { 0 } else { LSR_DATA }
                    | if overrun { LSR_OVERRUN } else { 0 }
            }
            6 => self.modem_lines() | std::mem::take(&mut self.modem_delta),
            7 => self.scratch,
            _ => 0xff,
        }
    }

    /// Writes a register. A byte that leaves on the wire is returned with its number.
    pub fn write(&mut self, offset: u16, value: u8) -> Option<(u64, u8)> {
        match offset {
            0 if self.lcr & LCR_DLAB != 0 => {
                self.divisor = self.divisor & 0xff00 | u16::from(value);
            }
            0 => return self.transmit(value),
            1 if self.lcr & LCR_DLAB != 0 => {
                self.divisor = self.divisor & 0xff | u16::from(value) << 8;
            }
            1 => {
                if value & !self.ier & IER_THRE != 0 {
                    self.thre_pending = true;
                }
                self.ier = value & 0xf;
            }
            2 => self.control_fifo(value),
            3 => self.lcr = value,
            4 => {
                let before = self.modem_lines();
                self.mcr = value & 0x1f;
                let changed = before ^ self.modem_lines();
                // The ring indicator reports its falling edge only.
                let ring_fell = before & 0x40 & !self.modem_lines();
                self.modem_delta |= (changed & 0xb0) >> 4 | ring_fell >> 4;
                self.fill();
            }
            7 => self.scratch = value,
            _ => {}
        }
        None
    }

    fn transmit(&mut self, value: u8) -> Option<(u64, u8)> {
        self.thre_pending = true;
        if self.mcr & MCR_LOOP == 0 {
            let number = self.output_next;
            self.output_next += 1;
            return Some((number, value));
        }
        let room = if self.fifo_enabled() { FIFO } else { 1 };
        if self.rx.len() < room {
            self.rx.push_back(value);
        } else {
            self.overrun = true;
        }
        None
    }

    fn control_fifo(&mut self, value: u8) {
        // Resets throw away what the receiver holds, not what waits to be typed. Turning the FIFO on
        // or off resets too.
        if value & 2 != 0 || (value ^ self.fcr) & 1 != 0 {
            self.rx.clear();
        }
        self.fcr = if value & 1 != 0 { value & 0xc9 } else { 0 };
        self.fill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    fn ready() -> Serial {
        let mut uart = Serial::default();
        uart.write(4, MCR_OUT2 | 3);
        uart.write(2, 0x01);
        uart
    }

    #[test]
    fn output_bytes_are_numbered() {
        let mut uart = ready();
        assert_eq!(uart.write(0, b'a'), Some((0, b'a')));
        assert_eq!(uart.write(0, b'b'), Some((1, b'b')));
        assert_eq!(uart.read(5), LSR_IDLE);
    }

    #[test]
    fn the_transmitter_interrupt_comes_and_goes() {
        let mut uart = ready();
        assert!(!uart.line());
        uart.write(1, IER_THRE);
        assert!(uart.line(), "enabling it with an empty transmitter raises it");
        assert_eq!(uart.read(2), 0xc0 | IIR_THRE);
        assert!(!uart.line(), "reading IIR takes it back");
        uart.write(0, b'x');
        assert!(uart.line());
        uart.write(1, 0);
        assert!(!uart.line());
    }

    #[test]
    fn input_waits_for_the_fifo_and_interrupts() {
        let mut uart = ready();
        uart.write(1, IER_RX);
        uart.type_bytes(0, &[7; 20]);
        assert!(uart.line());
        assert_eq!(uart.rx.len(), FIFO);
        for _ in 0..20 {
            assert_eq!(uart.read(5) & LSR_DATA, LSR_DATA);
            assert_eq!(uart.read(0), 7);
        }
        assert_eq!(uart.read(5) & LSR_DATA, 0);
        assert!(!uart.line());
    }

    #[test]
    fn input_delivered_again_is_taken_once() {
        let mut uart = ready();
        uart.type_bytes(0, b"abc");
        uart.type_bytes(1, b"bcd");
        uart.type_bytes(0, b"ab");
        assert_eq!(uart.input_next(), 4);
        let read: Vec<u8> = (0..4).map(|_| uart.read(0)).collect();
        assert_eq!(read, b"abcd");
        assert_eq!(uart.read(5) & LSR_DATA, 0);
    }

    #[test]
    #[should_panic(expected = "no gap")]
    fn input_with_a_gap_is_refused() {
        ready().type_bytes(1, b"x");
    }

    #[test]
    fn a_reset_of_the_fifo_keeps_what_is_still_to_be_typed() {
        let mut uart = ready();
        uart.type_bytes(0, &[1; 16]);
        uart.type_bytes(16, b"next");
        uart.write(2, 0x07);
        assert_eq!(uart.read(0), b'n');
    }

    #[test]
    fn loopback_tells_a_driver_that_we_are_here() {
        let mut uart = ready();
        uart.write(4, MCR_LOOP | 0x0a);
        assert_eq!(uart.read(6) & 0xf0, 0x90, "the test of Linux' 8250 autoconfig");
        assert_eq!(uart.write(0, b'q'), None);
        assert_eq!(uart.read(0), b'q');
    }

    #[test]
    fn state_comes_back() {
        let mut uart = ready();
        uart.write(1, 3);
        uart.write(0, b'x');
        uart.type_bytes(0, &[9; 30]);
        assert_eq!(from_bytes(&to_bytes(&uart)), Ok(uart));
    }
}
