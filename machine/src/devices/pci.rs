//! PCI: configuration mechanism 1 (ports CF8h and CFCh) and the header of a type 0 function.
//!
//! There is one bus, with a host bridge in slot 0 and one function a slot behind it. Registers are bytes
//! with a mask of what software may write; BAR sizing follows from the mask alone.

use crate::saved_fields;

/// The address port.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// The data port, four bytes.
pub const CONFIG_DATA: u16 = 0xcfc;
/// Where BARs may lie: what the root bridge's _CRS names.
pub const MMIO_WINDOW: (u32, u32) = (0xe000_0000, 0xfebf_ffff);
/// Slots with a function, the host bridge included, must stay below this: one interrupt pin each.
pub const SLOTS: u8 = 8;
/// Interrupt pin INTA of slot n leads to this pin of the I/O APIC, plus n.
pub const INTX_PIN: u32 = 16;

const COMMAND: usize = 4;
const STATUS: usize = 6;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_PIN: usize = 0x3d;
const COMMAND_MEMORY: u8 = 2;
const COMMAND_INTX_OFF: u8 = 4; // in the high byte

/// Who a function is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Class, subclass, programming interface.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Subsystem vendor and device.
    pub subsystem: (u16, u16),
}

/// The configuration space of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpace {
    registers: [u8; 256],
    writable: [u8; 256],
}

/// What is saved of it: what may be written follows from the kind of function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpaceState {
    registers: [u8; 256],
}
saved_fields!(ConfigSpaceState { registers });

impl ConfigSpace {
    /// A function without BARs or capabilities.
    pub fn new(identity: Identity) -> Self {
        let Identity { vendor, device, class, revision, subsystem } = identity;
        let mut space = Self { registers: [0; 256], writable: [0; 256] };
        space.put(0, &vendor.to_le_bytes());
        space.put(2, &device.to_le_bytes());
        space.put(8, &[revision]);
        space.put(9, &class.to_le_bytes()[..3]);
        space.put(0x2c, &subsystem.0.to_le_bytes());
        space.put(0x2e, &subsystem.1.to_le_bytes());
        space
    }

    /// The host bridge.
    pub fn host_bridge() -> Self {
        Self::new(Identity {
            vendor: 0x1b36,
            device: 0x0008,
            class: 0x06_0000,
            revision: 0,
            subsystem: (0x1af4, 0x1100),
        })
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.registers[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes bits writable.
    pub fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Adds 32-bit memory BAR number `index`, placed at `address`. Memory decoding, bus mastering and
    /// the INTx disable bit become writable with it.
    pub fn add_bar(&mut self, index: usize, address: u32, size: u32) {
        assert!(size.is_power_of_two() && size >= 16 && address.is_multiple_of(size));
        self.put(BAR0 + 4 * index, &address.to_le_bytes());
        self.allow(BAR0 + 4 * index, &(!(size - 1)).to_le_bytes());
        self.allow(COMMAND, &[0x06, 0x04]);
    }

    /// Wires interrupt pin INTA; `line` is what firmware would note in the interrupt line register.
    pub fn add_interrupt(&mut self, line: u8) {
        self.registers[INTERRUPT_PIN] = 1;
        self.registers[0x3c] = line;
        self.writable[0x3c] = 0xff;
    }

    /// Adds a capability at `at`: `body` is all of it, with the link to the next one left 0.
    pub fn add_capability(&mut self, at: u8, body: &[u8]) {
        let mut last = CAPABILITIES;
        while self.registers[last] != 0 {
            last = usize::from(self.registers[last]) + 1;
        }
        self.registers[last] = at;
        self.registers[STATUS] |= 0x10;
        self.put(usize::from(at), body);
    }

    /// Reads `size` bytes at `at`.
    pub fn read(&self, at: usize, size: u8) -> u32 {
        (0..usize::from(size)).fold(0, |value, i| {
            value | u32::from(self.registers.get(at + i).copied().unwrap_or(0xff)) << (8 * i)
        })
    }

    /// Writes the low `size` bytes of `value` at `at`, as far as they are writable.
    pub fn write(&mut self, at: usize, size: u8, value: u32) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate().take(usize::from(size)) {
            let Some(register) = self.registers.get_mut(at + i) else { return };
            let mask = self.writable[at + i];
            *register = *register & !mask | byte & mask;
        }
    }

    /// Offset into BAR `index` of an address, if the function decodes it there.
    pub fn bar_offset(&self, index: usize, size: u32, gpa: u64) -> Option<u64> {
        let base = u64::from(self.read(BAR0 + 4 * index, 4) & !0xf);
        let hit = self.registers[COMMAND] & COMMAND_MEMORY != 0
            && gpa >= base
            && gpa < base + u64::from(size);
        hit.then(|| gpa - base)
    }

    /// True if the function may assert its interrupt pin.
    pub const fn intx_allowed(&self) -> bool {
        self.registers[COMMAND + 1] & COMMAND_INTX_OFF == 0
    }

    /// The state to save.
    pub const fn save(&self) -> ConfigSpaceState {
        let Self { registers, writable: _ } = self;
        ConfigSpaceState { registers: *registers }
    }

    /// Takes a saved state back.
    pub const fn restore(&mut self, state: &ConfigSpaceState) {
        let ConfigSpaceState { registers } = state;
        self.registers = *registers;
    }
}

/// Slot and register that a configuration address names; `None`: disabled, or nothing can be there.
pub const fn decode_address(address: u32) -> Option<(u8, usize)> {
    let (bus, device, function) = (address >> 16 & 0xff, address >> 11 & 0x1f, address >> 8 & 7);
    if address >> 31 == 0 || bus != 0 || function != 0 {
        return None;
    }
    Some((device as u8, (address & 0xfc) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_sized_and_moved() {
        let mut space = ConfigSpace::host_bridge();
        space.add_bar(0, 0xe001_0000, 0x4000);
        assert_eq!(space.read(0x10, 4), 0xe001_0000);
        space.write(0x10, 4, u32::MAX);
        assert_eq!(space.read(0x10, 4), 0xffff_c000);
        space.write(0x10, 4, 0xe123_4000);
        assert_eq!(space.bar_offset(0, 0x4000, 0xe123_4010), None, "decoding is off");
        space.write(COMMAND, 2, 0x0406);
        assert_eq!(space.bar_offset(0, 0x4000, 0xe123_4010), Some(0x10));
        assert_eq!(space.bar_offset(0, 0x4000, 0xe123_8000), None);
        assert!(!space.intx_allowed());
        assert_eq!(space.read(0, 4), 0x0008_1b36);
    }

    #[test]
    fn capabilities_are_linked() {
        let mut space = ConfigSpace::host_bridge();
        space.add_capability(0x40, &[0x11, 0, 1, 0]);
        space.add_capability(0x50, &[0x09, 0, 16, 1]);
        assert_eq!(space.read(CAPABILITIES, 1), 0x40);
        assert_eq!(space.read(0x40, 4), 0x0001_5011);
        assert_eq!(space.read(0x50, 4), 0x0110_0009);
        assert_eq!(space.read(STATUS, 2) & 0x10, 0x10);
    }

    #[test]
    fn addresses_name_slots() {
        assert_eq!(decode_address(0x8000_0000), Some((0, 0)));
        assert_eq!(decode_address(0x8000_1044), Some((2, 0x44)));
        assert_eq!(decode_address(0x0000_1044), None);
        assert_eq!(decode_address(0x8001_0000), None);
        assert_eq!(decode_address(0x8000_0100), None);
    }
}
