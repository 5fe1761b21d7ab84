//! Interrupt messages: what travels from the I/O APIC, an MSI or an IPI to the local APICs.

/// How a message is delivered (SDM volume 3, 11.6.1). SMI and ExtINT do not exist here; INIT and
/// start-up concern CPUs that are not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To every destination named.
    Fixed,
    /// To one of them.
    LowestPriority,
    /// Anything that the one CPU does not take.
    Ignored,
}

/// One interrupt message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Vector.
    pub vector: u8,
    /// Delivery mode.
    pub delivery: Delivery,
    /// Destination is a logical one.
    pub logical: bool,
    /// Destination, 8 bits wide from an I/O APIC or MSI, up to 32 from an x2APIC.
    pub destination: u32,
    /// Level triggered: the local APIC reports its EOI back to the I/O APIC.
    pub level: bool,
}

impl Delivery {
    /// From the three-bit field of ICR, redirection entries and MSI data.
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            _ => Self::Ignored,
        }
    }
}

impl Message {
    /// The message that a write of `data` to `address` in the MSI window means (SDM volume 3, 11.11).
    /// Edge triggered always: a level MSI needs a deassert that no PCI function sends.
    pub const fn from_msi(address: u64, data: u32) -> Self {
        Self {
            vector: data as u8,
            delivery: Delivery::from_bits(data >> 8),
            logical: address & 4 != 0,
            destination: (address >> 12) as u32 & 0xff,
            level: false,
        }
    }
}
