//! What the vCPU thread is told and what it tells.

use ft_pair_replay_log::Record;
use ft_pair_shared::account::Bytes;
use ft_pair_shared::protocol::{EpochMark, Incarnation, RootDigest};
use ft_pair_shared::{Epoch, Output, Position, PowerEvent};

/// What the live execution produces for somebody else, beside its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Nothing.
    None,
    /// The log, and a digest at each epoch's end.
    Log,
    /// The state of each epoch: dirty pages, disk writes, CPU and devices.
    State,
}

/// Told to the vCPU thread.
#[derive(Debug)]
pub enum Command {
    /// Console input; `first` numbers its first byte.
    Input {
        /// Number of the first byte.
        first: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Press the power button.
    PowerButton,
    /// End the epoch, stand still, report with this ticket.
    Pause {
        /// The protocol's number for it.
        ticket: u64,
    },
    /// Run again.
    Resume,
    /// Nobody follows any more: forget what was kept for a Slave.
    StopFeeding,
    /// Send a round of a synchronisation while the guest runs.
    SyncRound {
        /// For which Slave.
        slave: Incarnation,
        /// Counts its rounds, from 1: the first sends everything.
        round: u32,
    },
    /// The connection took a part of a round: there is room for another.
    PartSent {
        /// To which Slave.
        slave: Incarnation,
    },
    /// The guest stands: send the rest, and feed from here on.
    SyncFinal {
        /// For which Slave.
        slave: Incarnation,
        /// The end of the last epoch.
        at: EpochMark,
    },
    /// The guest stands: compare and send what differs.
    Repair {
        /// For which Slave.
        slave: Incarnation,
        /// What the Slave sent: chunks with its digests.
        digests: Vec<Vec<u8>>,
    },
    /// All epochs up to this one are committed: what was kept to repair them can go.
    Committed(Epoch),
    /// End.
    Quit,
}

/// Figures of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EpochFigures {
    /// Pages dirtied in it.
    pub dirty_pages: u64,
    /// How long the guest stood at its end, microseconds.
    pub pause_us: u64,
}

/// Part of a bulk payload, with what its bytes are for.
#[derive(Debug)]
pub struct Chunk {
    /// Encoded items.
    pub bytes: Vec<u8>,
    /// Them, counted.
    pub counted: Bytes,
}

/// Told by the vCPU thread.
#[derive(Debug)]
pub enum Report {
    /// Inputs up to the horizon `end`.
    Log {
        /// There is no further input before this.
        end: Position,
        /// Console bytes the guest has taken.
        inputs_taken: u64,
        /// The inputs.
        records: Vec<Record>,
        /// False: no Slave executes this log, it is for a recording alone.
        for_slave: bool,
    },
    /// The CPU's TLB was emptied, since the machine's state is about to be sent. Told ahead of that state.
    TlbFlushed {
        /// Where the guest stands.
        position: Position,
    },
    /// An epoch ended.
    Epoch {
        /// Which.
        epoch: Epoch,
        /// Where.
        position: Position,
        /// The root digest; all zeros where nobody needs it.
        digest: RootDigest,
        /// What the guest put out in it.
        outputs: Vec<Output>,
        /// Console bytes the guest has taken.
        inputs_taken: u64,
        /// The state, with [`Feed::State`].
        state: Option<Chunk>,
        /// Figures.
        figures: EpochFigures,
    },
    /// The guest stands.
    Paused {
        /// As asked.
        ticket: u64,
    },
    /// A part of what was asked for last: a synchronisation round, its final part, a repair.
    Part(Chunk),
    /// That was all of the round; meanwhile so much got dirty.
    RoundDone {
        /// For which Slave.
        slave: Incarnation,
        /// Bytes.
        left_bytes: u64,
    },
    /// That was all of the final part.
    FinalDone {
        /// For which Slave.
        slave: Incarnation,
    },
    /// That was all of the repair.
    RepairDone {
        /// For which Slave.
        slave: Incarnation,
        /// Pages that differed.
        diverged_pages: u64,
    },
    /// The guest's power cycle ended. Its last epoch was reported before.
    Power(PowerEvent),
    /// The host failed the guest.
    HostError(String),
}
