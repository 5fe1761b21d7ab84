//! The two 8259 interrupt controllers, as far as an operating system that uses the I/O APIC touches
//! them: it finds them, initialises them and masks everything. No interrupt line leads to them.

use crate::saved_fields;

/// Command ports; the data ports follow each.
pub const PIC_PORTS: [u16; 2] = [0x20, 0xa0];
/// Edge/level control registers.
pub const ELCR_PORTS: [u16; 2] = [0x4d0, 0x4d1];

/// One 8259.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Chip {
    mask: u8,
    /// Initialisation words still expected at the data port.
    expected: u8,
    /// ICW1 asked for an ICW4.
    icw4: bool,
    elcr: u8,
}
saved_fields!(Chip { mask, expected, icw4, elcr });

/// Both chips.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pic {
    chips: [Chip; 2],
}
saved_fields!(Pic { chips });

impl Pic {
    /// Version of the saved bytes.
    pub const VERSION: u32 = 1;

    /// Reads a port of chip 0 or 1: the mask, or no requests and nothing in service.
    pub fn read(&self, chip: usize, data: bool) -> u8 {
        if data { self.chips[chip].mask } else { 0 }
    }

    /// Writes a port of chip 0 or 1.
    pub fn write(&mut self, chip: usize, data: bool, value: u8) {
        let chip = &mut self.chips[chip];
        if !data {
            if value & 0x10 != 0 {
                chip.icw4 = value & 1 != 0;
                chip.expected = 2 + u8::from(chip.icw4);
                chip.mask = 0;
            }
        } else if chip.expected > 0 {
            chip.expected -= 1;
        } else {
            chip.mask = value;
        }
    }

    /// Reads an edge/level control register.
    pub const fn elcr(&self, chip: usize) -> u8 {
        self.chips[chip].elcr
    }

    /// Writes an edge/level control register.
    pub const fn set_elcr(&mut self, chip: usize, value: u8) {
        self.chips[chip].elcr = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    #[test]
    fn a_driver_finds_it() {
        let mut pic = Pic::default();
        pic.write(0, true, 0xfb);
        assert_eq!(pic.read(0, true), 0xfb, "the test of Linux' probe_8259A");
        for (data, value) in [(false, 0x11), (true, 0x30), (true, 4), (true, 1), (true, 0xff)] {
            pic.write(0, data, value);
        }
        assert_eq!((pic.read(0, true), pic.read(0, false)), (0xff, 0));
        assert_eq!(from_bytes(&to_bytes(&pic)), Ok(pic));
    }
}
