//! The nondeterministic inputs of a guest: all that its execution does not determine by itself.

use serde::{Deserialize, Serialize};

/// One input, applied to the machine at a [`crate::Position`] and recorded there.
///
/// What follows from the position (timer interrupts, completions of disk requests, entropy from the
/// seeded generator, idle wake-ups at a timer's deadline) is derived and has no variant here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From this position on guest time is `time_ns` (nanoseconds since power-on, never less than
    /// what the previous anchor gives here) and advances by `rate / 2^32` nanoseconds per retired
    /// instruction.
    Clock {
        /// Guest time at this position, nanoseconds since power-on.
        time_ns: u64,
        /// Nanoseconds per retired instruction, in 32.32 fixed point.
        rate: u64,
    },
    /// Bytes typed at the console. `first` is the number of the first byte in the console's input
    /// stream, so that input that was delivered again after a promotion is taken once.
    Console {
        /// Number of the first byte in the input stream, from 0.
        first: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Somebody asks the guest to power off (ACPI power button).
    PowerButton,
}
