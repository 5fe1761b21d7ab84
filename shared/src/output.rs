//! What a guest tells the world: held until the epoch that produced it is committed.

use crate::Position;
use serde::{Deserialize, Serialize};

/// A numbered stream of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Bytes of the serial console.
    Console,
    /// Power-off and reboot.
    Power,
}

/// The end of a guest's power cycle, as the guest asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerEvent {
    /// ACPI S5.
    Off,
    /// Reset control or keyboard controller.
    Reboot,
    /// Triple fault.
    Crash,
}

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Which stream.
    pub stream: Stream,
    /// Console: number of the first byte in the stream, from 0. Power: number of the event.
    pub seq: u64,
    /// Where the guest produced it.
    pub position: Position,
    /// Console: the bytes. Power: one byte, the [`PowerEvent`]'s discriminant.
    pub bytes: Vec<u8>,
    /// Number of disk flushes that the guest had seen complete before it produced this: the output
    /// may be released only when the disk copies have made the writes before that flush durable.
    pub after_flush: u64,
}
