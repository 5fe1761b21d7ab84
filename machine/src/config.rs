//! What a machine is made from: the same configuration, disk and inputs give the same execution.

use crate::clock::rate_from_ns;
use serde::{Deserialize, Serialize};

/// The parts of a machine that are chosen before it is switched on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Guest memory in bytes, a whole number of pages.
    pub memory: u64,
    /// Wall-clock time at power-on, seconds since 1970: what the real-time clock starts from.
    pub wall_clock: i64,
    /// Seed of the entropy device's generator.
    pub entropy_seed: [u8; 32],
    /// Nanoseconds per retired instruction until the first clock anchor, in 32.32 fixed point.
    pub rate: u64,
    /// Guest time that a disk request takes, nanoseconds.
    pub disk_latency_ns: u64,
}

impl Default for MachineConfig {
    /// 1 GiB; 100 million instructions a second of guest time; a disk that takes 50 us; a wall clock and
    /// a seed that say that nobody has chosen them.
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            wall_clock: 0,
            entropy_seed: [0; 32],
            rate: rate_from_ns(10),
            disk_latency_ns: 50_000,
        }
    }
}
