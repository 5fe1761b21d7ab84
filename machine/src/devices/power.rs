//! ACPI fixed hardware (PM1 event and control blocks, PM timer), and the ways to reset a PC.
//!
//! Full ACPI, not hardware-reduced: a stock kernel handles the fixed power button and S5 here without
//! any AML of ours. There is no SMI command port, so ACPI mode is always on.

use crate::saved_fields;
use ft_pair_shared::PowerEvent;

/// PM1a event block: status and enable, 16 bits each.
pub const PM1_EVENT: u16 = 0x600;
/// PM1a control block.
pub const PM1_CONTROL: u16 = 0x604;
/// PM timer, 32 bits at 3.579545 MHz.
pub const PM_TIMER: u16 = 0x608;
/// Pin of the I/O APIC that the SCI uses (level).
pub const SCI_PIN: u32 = 9;
/// Reset control register.
pub const RESET_CONTROL: u16 = 0xcf9;
/// Command port of the keyboard controller, of which only the reset pulse exists.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// SLP_TYP of S5, as `\_S5` says.
pub const S5_TYPE: u8 = 5;

const POWER_BUTTON: u16 = 1 << 8;
/// Timer, bus master, global lock, power button, sleep button, RTC, wake.
const STATUS_BITS: u16 = 0x8731;
const ENABLE_BITS: u16 = 0x0721;
const SCI_ENABLED: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;

/// The fixed hardware.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Power {
    status: u16,
    enable: u16,
    control: u16,
    reset_control: u8,
}
saved_fields!(Power { status, enable, control, reset_control });

impl Power {
    /// Version of the saved bytes.
    pub const VERSION: u32 = 1;

    /// Somebody presses the power button.
    pub const fn press_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// Level of the SCI.
    pub const fn line(&self) -> bool {
        self.status & self.enable & ENABLE_BITS != 0
    }

    /// Reads a byte of one of the ports; `None`: not ours.
    pub fn read(&self, port: u16, now_ns: u64) -> Option<u8> {
        let byte = |value: u32, base: u16| value.to_le_bytes()[usize::from(port - base)];
        Some(match port {
            0x600..0x602 => byte(u32::from(self.status), PM1_EVENT),
            0x602..0x604 => byte(u32::from(self.enable), PM1_EVENT + 2),
            0x604..0x606 => byte(u32::from(self.control | SCI_ENABLED), PM1_CONTROL),
            0x608..0x60c => {
                let ticks = u128::from(now_ns) * 3_579_545 / 1_000_000_000;
                byte(ticks as u32, PM_TIMER)
            }
            RESET_CONTROL => self.reset_control,
            _ => return None,
        })
    }

    /// Writes a byte of one of the ports, and says how the power cycle ends if it does.
    pub fn write(&mut self, port: u16, value: u8) -> Option<PowerEvent> {
        let put = |old: u16, high: bool| {
            if high { old & 0xff | u16::from(value) << 8 } else { old & 0xff00 | u16::from(value) }
        };
        match port {
            0x600 => self.status &= !(u16::from(value) & STATUS_BITS),
            0x601 => self.status &= !(u16::from(value) << 8 & STATUS_BITS),
            0x602 | 0x603 => self.enable = put(self.enable, port == 0x603) & ENABLE_BITS,
            0x604 => self.control = put(self.control, false),
            0x605 => {
                let control = put(self.control, true);
                self.control = control & !SLEEP_ENABLE;
                if control & SLEEP_ENABLE != 0 && (control >> 10) as u8 & 7 == S5_TYPE {
                    return Some(PowerEvent::Off);
                }
            }
            RESET_CONTROL => {
                self.reset_control = value & 0xe;
                if value & 4 != 0 {
                    return Some(PowerEvent::Reboot);
                }
            }
            KEYBOARD_COMMAND if value == 0xfe => return Some(PowerEvent::Reboot),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    #[test]
    fn the_button_raises_the_sci_until_it_is_handled() {
        let mut power = Power::default();
        power.press_button();
        assert!(!power.line());
        power.write(0x603, 1);
        assert!(power.line());
        assert_eq!(power.read(0x601, 0), Some(1));
        power.write(0x601, 1);
        assert!(!power.line());
    }

    #[test]
    fn s5_and_resets_end_the_power_cycle() {
        let mut power = Power::default();
        assert_eq!(power.read(0x604, 0), Some(1), "ACPI mode is on");
        assert_eq!(power.write(0x605, 5 << 2), None);
        assert_eq!(power.write(0x605, 1 << 5 | 5 << 2), Some(PowerEvent::Off));
        assert_eq!(power.write(RESET_CONTROL, 2), None);
        assert_eq!(power.write(RESET_CONTROL, 6), Some(PowerEvent::Reboot));
        assert_eq!(power.write(KEYBOARD_COMMAND, 0xfe), Some(PowerEvent::Reboot));
    }

    #[test]
    fn the_pm_timer_follows_guest_time() {
        let power = Power::default();
        let read = |ns| {
            (0..4).fold(0, |v, i| v | u32::from(power.read(0x608 + i, ns).unwrap()) << (8 * i))
        };
        assert_eq!(read(1_000_000_000), 3_579_545);
        assert_eq!(from_bytes(&to_bytes(&power)), Ok(power));
    }
}
