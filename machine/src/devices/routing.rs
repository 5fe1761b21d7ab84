//! Which device answers at which port, address or MSR.

use super::{BLOCK_SLOT, Devices, ENTROPY_SLOT, ioapic, lapic, pci, pic, pit, rtc, serial};
use ft_pair_cpu::Bus;
use ft_pair_shared::Position;

/// The CPU whose accesses these are. There is one; its APIC comes first.
const CPU: usize = 0;

/// All ones in `size` bytes: nobody answers.
const fn absent(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size as u32)) - 1 }
}

impl Devices {
    fn port_read(&mut self, port: u16, now_ns: u64) -> u8 {
        match port {
            serial::SERIAL_BASE..=0x3ff => self.serial.read(port - serial::SERIAL_BASE),
            rtc::RTC_PORT | 0x71 => {
                let value = self.rtc.read(port, now_ns);
                self.rtc_deadline = self.rtc.deadline();
                value
            }
            0x40..=0x43 | pit::PORT_B => self.pit.read(port, now_ns),
            _ => {
                let at = |ports: [u16; 2]| ports.iter().position(|p| *p == port);
                if let Some(chip) = at(pic::PIC_PORTS) {
                    self.pic.read(chip, false)
                } else if let Some(chip) = at(pic::PIC_PORTS.map(|p| p + 1)) {
                    self.pic.read(chip, true)
                } else if let Some(chip) = at(pic::ELCR_PORTS) {
                    self.pic.elcr(chip)
                } else {
                    self.power.read(port, now_ns).unwrap_or(0xff)
                }
            }
        }
    }

    fn port_write(&mut self, now: u64, port: u16, value: u8, now_ns: u64) {
        match port {
            serial::SERIAL_BASE..=0x3ff => {
                if let Some((number, byte)) = self.serial.write(port - serial::SERIAL_BASE, value) {
                    self.console_byte(now, number, byte);
                }
            }
            rtc::RTC_PORT | 0x71 => {
                self.rtc.write(port, value, now_ns);
                self.rtc_deadline = self.rtc.deadline();
            }
            0x40..=0x43 | pit::PORT_B => self.pit.write(port, value, now_ns),
            _ => {
                let at = |ports: [u16; 2]| ports.iter().position(|p| *p == port);
                if let Some(chip) = at(pic::PIC_PORTS) {
                    self.pic.write(chip, false, value);
                } else if let Some(chip) = at(pic::PIC_PORTS.map(|p| p + 1)) {
                    self.pic.write(chip, true, value);
                } else if let Some(chip) = at(pic::ELCR_PORTS) {
                    self.pic.set_elcr(chip, value);
                } else if let Some(event) = self.power.write(port, value) {
                    self.end(Position::at(now), event);
                }
            }
        }
    }

    fn pci_read(&mut self, port: u16, size: u8) -> u32 {
        let Some((slot, register)) = pci::decode_address(self.board.pci_address) else {
            return absent(size) as u32;
        };
        let at = register + usize::from(port - pci::CONFIG_DATA);
        match slot {
            0 => self.host_bridge.read(at, size),
            BLOCK_SLOT => self.block.config_read(at, size),
            ENTROPY_SLOT => self.entropy.config_read(at, size),
            _ => absent(size) as u32,
        }
    }

    fn pci_write(&mut self, port: u16, size: u8, value: u32, now_ns: u64) {
        let Some((slot, register)) = pci::decode_address(self.board.pci_address) else { return };
        let at = register + usize::from(port - pci::CONFIG_DATA);
        let messages = match slot {
            0 => {
                self.host_bridge.write(at, size, value);
                Vec::new()
            }
            BLOCK_SLOT => self.block.config_write(at, size, value, &self.memory, now_ns),
            ENTROPY_SLOT => self.entropy.config_write(at, size, value, &self.memory, now_ns),
            _ => Vec::new(),
        };
        self.send_all(messages);
    }

    fn lapic_answers(&self, gpa: u64) -> bool {
        (lapic::LAPIC_BASE..lapic::LAPIC_BASE + lapic::LAPIC_LEN).contains(&gpa)
            && self.lapics[CPU].answers_memory()
    }
}

const fn in_ioapic(gpa: u64) -> bool {
    gpa >= ioapic::IOAPIC_BASE && gpa < ioapic::IOAPIC_BASE + ioapic::IOAPIC_LEN
}

const fn in_pci_data(port: u16) -> bool {
    port >= pci::CONFIG_DATA && port < pci::CONFIG_DATA + 4
}

impl Bus for Devices {
    fn io_read(&mut self, now: u64, port: u16, size: u8) -> u32 {
        let now_ns = self.clock.time_at(now);
        let value = if port == pci::CONFIG_ADDRESS && size == 4 {
            self.board.pci_address
        } else if in_pci_data(port) {
            self.pci_read(port, size)
        } else {
            (0..u16::from(size)).fold(0, |value, i| {
                value | u32::from(self.port_read(port.wrapping_add(i), now_ns)) << (8 * i)
            })
        };
        self.settle();
        value
    }

    fn io_write(&mut self, now: u64, port: u16, size: u8, value: u32) {
        let now_ns = self.clock.time_at(now);
        if port == pci::CONFIG_ADDRESS && size == 4 {
            self.board.pci_address = value & 0x80ff_fffc;
        } else if in_pci_data(port) {
            self.pci_write(port, size, value, now_ns);
        } else {
            for i in 0..u16::from(size) {
                let byte = value.to_le_bytes()[usize::from(i)];
                self.port_write(now, port.wrapping_add(i), byte, now_ns);
            }
        }
        self.settle();
    }

    fn mmio_read(&mut self, now: u64, gpa: u64, size: u8) -> u64 {
        let now_ns = self.clock.time_at(now);
        if self.lapic_answers(gpa) {
            return u64::from(self.lapics[CPU].mmio_read(gpa - lapic::LAPIC_BASE, now_ns));
        }
        if in_ioapic(gpa) {
            return u64::from(self.ioapic.mmio_read(gpa - ioapic::IOAPIC_BASE));
        }
        let value = if let Some((bar, offset)) = self.block.decode(gpa) {
            self.block.bar_read(bar, offset, size)
        } else if let Some((bar, offset)) = self.entropy.decode(gpa) {
            self.entropy.bar_read(bar, offset, size)
        } else {
            return absent(size);
        };
        self.settle();
        value
    }

    fn mmio_write(&mut self, now: u64, gpa: u64, size: u8, value: u64) {
        let now_ns = self.clock.time_at(now);
        if self.lapic_answers(gpa) {
            let offset = gpa - lapic::LAPIC_BASE;
            let effect = self.lapics[CPU].mmio_write(offset, value as u32, now_ns);
            self.carry_out(CPU, effect);
        } else if in_ioapic(gpa) {
            let offset = gpa - ioapic::IOAPIC_BASE;
            if let Some(message) = self.ioapic.mmio_write(offset, value as u32) {
                self.send(&message);
            }
        } else if let Some((bar, offset)) = self.block.decode(gpa) {
            let sent = self.block.bar_write(bar, offset, size, value, &self.memory, now_ns);
            self.send_all(sent);
        } else if let Some((bar, offset)) = self.entropy.decode(gpa) {
            let sent = self.entropy.bar_write(bar, offset, size, value, &self.memory, now_ns);
            self.send_all(sent);
        }
        self.settle();
    }

    fn tsc(&mut self, now: u64) -> u64 {
        self.clock.time_at(now)
    }

    fn interrupt_pending(&self) -> bool {
        self.lapics[CPU].pending().is_some()
    }

    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.lapics[CPU].acknowledge()
    }

    fn take_exit_request(&mut self) -> bool {
        std::mem::replace(&mut self.exit_request, false)
    }

    fn msr_read(&mut self, now: u64, msr: u32) -> Option<u64> {
        self.lapics[CPU].msr_read(msr, self.clock.time_at(now))
    }

    fn msr_write(&mut self, now: u64, msr: u32, value: u64) -> bool {
        let now_ns = self.clock.time_at(now);
        let Some(effect) = self.lapics[CPU].msr_write(msr, value, now_ns) else { return false };
        self.carry_out(CPU, effect);
        self.settle();
        true
    }

    fn cr8(&self) -> u8 {
        self.lapics[CPU].cr8()
    }

    fn set_cr8(&mut self, value: u8) {
        self.lapics[CPU].set_cr8(value);
    }
}
