//! The event stream (`--events FILE`): what the dashboard, `stats` and the experiments read.

use crate::account::Bytes;
use crate::{Epoch, Generation, Position, Stream};
use serde::{Deserialize, Serialize};

/// One event. `t_ms` is added by the supervisor when it writes the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The guest starts.
    Boot {
        /// Where kernel and command line were found.
        found_by: String,
        /// Guest memory, bytes.
        memory: u64,
    },
    /// An epoch was committed (or ended, while unprotected).
    Epoch {
        /// Which.
        epoch: Epoch,
        /// Where it ended.
        position: Position,
        /// Pages dirtied in it.
        dirty_pages: u64,
        /// Pages that differed on the Slave.
        diverged_pages: u64,
        /// Bytes between the sides since the last event, per class.
        bytes: Bytes,
        /// How long the guest stood for it, microseconds.
        pause_us: u64,
        /// From its end to its commit, microseconds; 0 while unprotected.
        commit_us: u64,
        /// How far the Slave trailed at the commit, microseconds; 0 while unprotected.
        lag_us: u64,
    },
    /// Output left the pair.
    Output {
        /// Which stream.
        stream: Stream,
        /// Number of the first byte.
        seq: u64,
        /// How many bytes.
        bytes: u64,
        /// From its epoch's end to its release, microseconds.
        held_us: u64,
    },
    /// A Slave went live.
    Failover {
        /// From the loss of the Master to its detection, where known, milliseconds.
        detect_ms: Milliseconds,
        /// From the loss to the guest executing live, milliseconds.
        live_ms: Milliseconds,
        /// From where.
        from_position: Position,
        /// The generation won.
        generation: Generation,
    },
    /// A Slave was synchronised.
    Resync {
        /// Bytes sent for it.
        bytes: u64,
        /// From its welcome to being protected, milliseconds.
        took_ms: u64,
        /// How long the guest stood at its end, microseconds.
        pause_us: u64,
    },
    /// The pair ended.
    Exit {
        /// Why.
        reason: String,
    },
}

/// Milliseconds with microsecond resolution, written as a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Milliseconds(pub u64);

impl Serialize for Milliseconds {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.0 as f64 / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        f64::deserialize(d).map(|ms| Self((ms * 1000.0).round() as u64))
    }
}
