//! MSI-X (PCI 3.0 section 6.8.2): the vector table, the pending bits, the control word.

use super::interrupt::Message;
use crate::saved_fields;

/// Offset of the pending bits in the BAR that holds the table.
pub const PBA_OFFSET: u32 = 0x800;
/// Length of that BAR.
pub const BAR_LEN: u32 = 0x1000;

const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;

/// The vectors of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msix {
    control: u16,
    /// Address low, address high, data, vector control.
    table: Vec<[u32; 4]>,
    pending: u64,
}
saved_fields!(Msix { control, table, pending });

impl Msix {
    /// `vectors` vectors, all masked.
    pub fn new(vectors: u16) -> Self {
        assert!((1..=64).contains(&vectors));
        Self { control: 0, table: vec![[0, 0, 0, 1]; usize::from(vectors)], pending: 0 }
    }

    /// The capability: identifier, control word, table and pending bits in BAR `bar`.
    pub fn capability(&self, bar: u8) -> [u8; 12] {
        let mut body = [0; 12];
        body[0] = 0x11;
        body[2..4].copy_from_slice(&(self.table.len() as u16 - 1).to_le_bytes());
        body[4..8].copy_from_slice(&u32::from(bar).to_le_bytes());
        body[8..12].copy_from_slice(&(PBA_OFFSET | u32::from(bar)).to_le_bytes());
        body
    }

    /// Number of vectors.
    pub const fn vectors(&self) -> u16 {
        self.table.len() as u16
    }

    /// True if the function uses MSI-X instead of its interrupt pin.
    pub const fn enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// The control word changed: what waited behind the mask is sent.
    pub fn set_control(&mut self, control: u16) -> Vec<Message> {
        self.control = control & (ENABLE | MASK_ALL);
        (0..self.table.len()).filter_map(|v| self.flush(v)).collect()
    }

    /// Vector `vector` is due.
    pub fn signal(&mut self, vector: u16) -> Option<Message> {
        if vector >= self.vectors() || !self.enabled() {
            return None;
        }
        self.pending |= 1 << vector;
        self.flush(usize::from(vector))
    }

    fn flush(&mut self, vector: usize) -> Option<Message> {
        let [low, high, data, control] = self.table[vector];
        let masked = !self.enabled() || self.control & MASK_ALL != 0 || control & 1 != 0;
        if masked || self.pending & 1 << vector == 0 {
            return None;
        }
        self.pending &= !(1 << vector);
        Some(Message::from_msi(u64::from(high) << 32 | u64::from(low), data))
    }

    /// Reads a dword of the BAR.
    pub fn read(&self, offset: u64) -> u32 {
        let pba = u64::from(PBA_OFFSET);
        if offset == pba {
            self.pending as u32
        } else if offset == pba + 4 {
            (self.pending >> 32) as u32
        } else {
            let entry = self.table.get((offset / 16) as usize);
            entry.map_or(0, |entry| entry[(offset / 4 % 4) as usize])
        }
    }

    /// Writes a dword of the BAR.
    pub fn write(&mut self, offset: u64, value: u32) -> Option<Message> {
        let vector = (offset / 16) as usize;
        let field = (offset / 4 % 4) as usize;
        let entry = self.table.get_mut(vector)?;
        entry[field] = if field == 3 { value & 1 } else { value };
        self.flush(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    #[test]
    fn masked_vectors_wait() {
        let mut msix = Msix::new(2);
        assert_eq!(msix.signal(0), None, "not enabled");
        msix.set_control(ENABLE);
        msix.write(16, 0xfee0_0000);
        msix.write(24, 0x4055);
        assert_eq!(msix.signal(1), None);
        assert_eq!(msix.read(u64::from(PBA_OFFSET)), 2);
        let message = msix.write(28, 0).unwrap();
        assert_eq!((message.vector, message.destination), (0x55, 0));
        assert_eq!(msix.read(u64::from(PBA_OFFSET)), 0);
        assert!(msix.set_control(ENABLE | MASK_ALL).is_empty());
        assert_eq!(msix.signal(1), None);
        assert_eq!(msix.set_control(ENABLE).len(), 1);
        assert_eq!(msix.signal(0xffff), None, "no vector assigned");
        assert_eq!(from_bytes(&to_bytes(&msix)), Ok(msix));
    }
}
