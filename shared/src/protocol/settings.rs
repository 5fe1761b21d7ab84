//! What a user can set about a pair, as far as the protocol needs to know.

use serde::{Deserialize, Serialize};

/// What the Slave executes while the Master is live (`--active`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Active {
    /// Nothing: each epoch's state is sent in full and applied to the Slave's image.
    Off,
    /// The same inputs, at about the same time. A commit carries state and output as with `Off`.
    Inputs,
    /// The Master's log, at the exact positions: digests are compared, only what diverges is sent.
    Replay,
}

impl Active {
    /// True where an epoch is committed by its state and output bytes, not by an equal digest.
    pub const fn commits_state(self) -> bool {
        !matches!(self, Self::Replay)
    }
}

/// Settings of the protocol. Both sides of a pair use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What the Slave executes.
    pub active: Active,
    /// How often each side says that it lives, microseconds.
    pub heartbeat_us: u64,
    /// How long a peer may be silent before it counts as lost, microseconds.
    pub silence_us: u64,
    /// How long to wait for the witness before asking again, microseconds.
    pub witness_retry_us: u64,
    /// How many ended epochs may wait for their release before the guest pauses.
    pub window: u64,
    /// A synchronisation round that leaves at most this much to send is followed by the final one.
    pub sync_enough_bytes: u64,
    /// How many rounds a synchronisation has at most before the final one.
    pub sync_rounds: u32,
    /// Deliberate faults, for the simulator to catch. None in a real pair.
    #[doc(hidden)]
    #[serde(skip)]
    pub mutations: Mutations,
}

impl Settings {
    /// The defaults for a setting of `--active`.
    pub const fn new(active: Active) -> Self {
        Self {
            active,
            heartbeat_us: 100_000,
            silence_us: 1_000_000,
            witness_retry_us: 200_000,
            window: 8,
            sync_enough_bytes: 4 << 20,
            sync_rounds: 10,
            mutations: Mutations::NONE,
        }
    }
}

/// Faults that a test puts into the protocol to see the simulator catch them.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mutations {
    /// Output is released when its epoch ends, committed or not.
    pub no_commit_check: bool,
    /// The Slave acknowledges an epoch before it is staged and checked.
    pub early_ack: bool,
    /// The sink takes output of any generation.
    pub no_fencing: bool,
    /// The sink takes output that it has had.
    pub no_deduplication: bool,
    /// A Slave that is not in sync may win a generation.
    pub no_in_sync_check: bool,
    /// Nobody asks the witness: each side grants itself what it wants.
    pub no_witness: bool,
    /// Flushes are not waited for before output is released.
    pub no_flush_check: bool,
    /// A Slave that found itself diverged goes live all the same.
    pub diverged_promotes: bool,
    /// Output that was committed but perhaps not released is forgotten at a promotion.
    pub forget_committed_output: bool,
    /// A Master goes protected without the witness's word.
    pub no_in_sync_confirmation: bool,
    /// A Master ends as soon as its guest is off, whatever is still to be released.
    pub finish_early: bool,
}

impl Mutations {
    /// No fault.
    pub const NONE: Self = Self {
        no_commit_check: false,
        early_ack: false,
        no_fencing: false,
        no_deduplication: false,
        no_in_sync_check: false,
        no_witness: false,
        no_flush_check: false,
        diverged_promotes: false,
        forget_committed_output: false,
        no_in_sync_confirmation: false,
        finish_early: false,
    };
}
