//! The 8254 interval timer at 40h, read only in the sense that it raises no interrupt: its counters and
//! port 61h follow guest time, for code that calibrates a delay or mixes a counter into its entropy.

use crate::saved_fields;

/// First port of the timer.
pub const PIT_BASE: u16 = 0x40;
/// The port that gates channel 2 and shows its output.
pub const PORT_B: u16 = 0x61;
/// Input clock, Hz.
const HZ: u128 = 1_193_182;

/// Ticks of the input clock up to a guest time.
const fn ticks(now_ns: u64) -> u64 {
    (now_ns as u128 * HZ / 1_000_000_000) as u64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Channel {
    mode: u8,
    /// 1: low byte only, 2: high byte only, 3: low, then high.
    access: u8,
    reload: u32,
    /// Tick at which the count started.
    start: u64,
    /// The next byte written is the high one; the low one waits in `low`.
    write_high: bool,
    low: u8,
    read_high: bool,
    latched: Option<u16>,
    status: Option<u8>,
}
saved_fields!(Channel { mode, access, reload, start, write_high, low, read_high, latched, status });

impl Channel {
    const NEW: Self = Self {
        mode: 3,
        access: 3,
        reload: 0x1_0000,
        start: 0,
        write_high: false,
        low: 0,
        read_high: false,
        latched: None,
        status: None,
    };

    const fn count(&self, now: u64) -> u16 {
        let passed = now.saturating_sub(self.start);
        let reload = self.reload as u64;
        match self.mode {
            2 => (reload - passed % reload) as u16,
            3 => (reload - passed * 2 % reload) as u16,
            _ => reload.wrapping_sub(passed) as u16,
        }
    }

    const fn output(&self, now: u64) -> bool {
        let passed = now.saturating_sub(self.start);
        let reload = self.reload as u64;
        match self.mode {
            2 => passed % reload != reload - 1,
            3 => passed % reload < reload.div_ceil(2),
            _ => passed >= reload,
        }
    }

    const fn load(&mut self, count: u16, now: u64) {
        self.reload = if count == 0 { 0x1_0000 } else { count as u32 };
        self.start = now;
    }

    fn write(&mut self, value: u8, now: u64) {
        match (self.access, self.write_high) {
            (1, _) => self.load(u16::from(value), now),
            (2, _) => self.load(u16::from(value) << 8, now),
            (_, false) => {
                self.low = value;
                self.write_high = true;
            }
            (_, true) => {
                self.write_high = false;
                self.load(u16::from_le_bytes([self.low, value]), now);
            }
        }
    }

    fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let count = self.latched.unwrap_or_else(|| self.count(now));
        let high = match self.access {
            1 => false,
            2 => true,
            _ => {
                self.read_high = !self.read_high;
                !self.read_high
            }
        };
        if self.access != 3 || high {
            self.latched = None;
        }
        count.to_le_bytes()[usize::from(high)]
    }
}

/// The timer and port 61h.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pit {
    channels: [Channel; 3],
    port_b: u8,
}
saved_fields!(Pit { channels, port_b });

impl Default for Pit {
    fn default() -> Self {
        Self { channels: [Channel::NEW; 3], port_b: 0 }
    }
}

impl Pit {
    /// Version of the saved bytes.
    pub const VERSION: u32 = 1;

    /// Reads one of the four ports, or port 61h.
    pub fn read(&mut self, port: u16, now_ns: u64) -> u8 {
        let now = ticks(now_ns);
        match port {
            PORT_B => {
                let output = self.channels[2].output(now);
                // Bit 4 is the refresh clock, which toggles every 15 us.
                let refresh = (now / 18) & 1 != 0;
                self.port_b | u8::from(output) << 5 | u8::from(refresh) << 4
            }
            0x40..0x43 => self.channels[usize::from(port - PIT_BASE)].read(now),
            _ => 0xff,
        }
    }

    /// Writes one of the four ports, or port 61h.
    pub fn write(&mut self, port: u16, value: u8, now_ns: u64) {
        let now = ticks(now_ns);
        match port {
            PORT_B => {
                let gate_rises = value & !self.port_b & 1 != 0;
                self.port_b = value & 3;
                if gate_rises {
                    self.channels[2].start = now;
                }
            }
            0x40..0x43 => self.channels[usize::from(port - PIT_BASE)].write(value, now),
            0x43 => self.control(value, now),
            _ => {}
        }
    }

    fn control(&mut self, value: u8, now: u64) {
        if value >> 6 == 3 {
            // Read-back: bits 1 to 3 name channels, bits 4 and 5 (inverted) what to latch.
            for (i, channel) in self.channels.iter_mut().enumerate() {
                if value & 2 << i == 0 {
                    continue;
                }
                if value & 0x20 == 0 && channel.latched.is_none() {
                    channel.latched = Some(channel.count(now));
                }
                if value & 0x10 == 0 && channel.status.is_none() {
                    let output = u8::from(channel.output(now)) << 7;
                    channel.status = Some(output | channel.access << 4 | channel.mode << 1);
                }
            }
            return;
        }
        let channel = &mut self.channels[usize::from(value >> 6)];
        match value >> 4 & 3 {
            0 => {
                if channel.latched.is_none() {
                    channel.latched = Some(channel.count(now));
                }
            }
            access => {
                let mode = value >> 1 & 7;
                *channel = Channel {
                    mode: if mode > 5 { mode - 4 } else { mode },
                    access,
                    start: now,
                    ..Channel::NEW
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    #[test]
    fn channel_2_times_a_delay() {
        let mut pit = Pit::default();
        pit.write(PORT_B, 1, 0);
        pit.write(0x43, 0xb0, 0); // channel 2, both bytes, mode 0
        pit.write(0x42, 0xa9, 0);
        pit.write(0x42, 0x04, 0); // 1193 ticks: 1 ms
        assert_eq!(pit.read(PORT_B, 999_000) & 0x20, 0);
        assert_eq!(pit.read(PORT_B, 1_000_000) & 0x20, 0x20);
    }

    #[test]
    fn counters_can_be_latched() {
        let mut pit = Pit::default();
        pit.write(0x43, 0x34, 0); // channel 0, both bytes, mode 2
        pit.write(0x40, 0x00, 0);
        pit.write(0x40, 0x10, 0);
        pit.write(0x43, 0x00, 100_000); // 119 ticks
        let (low, high) = (pit.read(0x40, 500_000), pit.read(0x40, 700_000));
        assert_eq!(u16::from_le_bytes([low, high]), 0x1000 - 119);
        pit.write(0x43, 0xe2, 100_000);
        assert_eq!(pit.read(0x40, 0), 0x80 | 0x34);
    }

    #[test]
    fn state_comes_back() {
        let mut pit = Pit::default();
        pit.write(0x43, 0xb0, 0);
        pit.write(0x42, 0xa9, 5);
        pit.write(0x43, 0xc2, 77);
        assert_eq!(from_bytes(&to_bytes(&pit)), Ok(pit));
    }
}
