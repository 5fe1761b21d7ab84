//! What the two sides say to each other.

use crate::{Epoch, Generation, Output, Position, Side};
use serde::{Deserialize, Serialize};

/// Names one process for its whole life. A process that is started again has a new one (random, or
/// counted by the supervisor), so nothing of an earlier life is taken for its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

/// A process of the pair, as the witness knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// On which side it runs.
    pub side: Side,
    /// Which life of that side.
    pub incarnation: Incarnation,
}

/// Digest of the whole machine at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RootDigest(pub [u8; 32]);

/// Bulk data that the protocol moves without looking inside. `handle` names a buffer of the driver at
/// hand: a receiving driver puts its own number there before it gives the message to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Payload {
    /// The driver's name for the data.
    pub handle: u64,
    /// How much of it there is.
    pub bytes: u64,
}

/// The end of an epoch, as both sides must agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochMark {
    /// Which epoch ended.
    pub epoch: Epoch,
    /// Where it ended.
    pub position: Position,
    /// The machine's digest there.
    pub digest: RootDigest,
    /// How many pieces of log belong before this position, counted in this session.
    pub log_pieces: u64,
    /// How many inputs (console bytes) the guest has taken up to here.
    pub inputs_taken: u64,
    /// The flush that must be durable before the epoch's output leaves.
    pub flush_needed: u64,
}

/// An ended epoch's output, kept until the sink has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldEpoch {
    /// Which epoch.
    pub epoch: Epoch,
    /// What it put out, in order.
    pub outputs: Vec<Output>,
    /// The flush that must be durable before the output leaves.
    pub flush_needed: u64,
    /// How many inputs the guest has taken up to the epoch's end.
    pub inputs_taken: u64,
}

/// Every message says which session it belongs to; those of another session are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<B> {
    /// The Master's generation. [`Generation`] 0 in a Slave's [`ControlToMaster::Hello`].
    pub generation: Generation,
    /// The Slave's life.
    pub slave: Incarnation,
    /// What is said.
    pub body: B,
}

/// Control messages from Master to Slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlToSlave {
    /// The Master takes this Slave. Its synchronisation begins.
    Welcome,
    /// I live.
    Heartbeat {
        /// The sink has the output of all epochs up to this one.
        accepted: Epoch,
    },
    /// A piece of the log (`replay`).
    Log {
        /// Counts the pieces of this session, from 1.
        piece: u64,
        /// The horizon: there is no further input up to here.
        end: Position,
        /// How many inputs the guest has taken up to `end`.
        inputs_taken: u64,
        /// The events.
        payload: Payload,
    },
    /// An epoch ended (`replay`): compare digests at its position.
    EpochEnd(EpochMark),
    /// The witness knows that this Slave is in sync: the pair is protected.
    InSync,
    /// The guest stands at the end of epoch `at`: send what a repair of `first..=at` compares.
    RequestRepair {
        /// The first epoch that differed.
        first: Epoch,
        /// Where the Master stands.
        at: EpochMark,
    },
    /// The guest ended, all its output is out: there is nothing to take over.
    Goodbye,
}

/// Bulk messages from Master to Slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkToSlave {
    /// Pages and sectors of a synchronisation round. The guest runs on meanwhile.
    SyncPages {
        /// Counts the rounds, from 1.
        round: u32,
        /// The data.
        payload: Payload,
    },
    /// What is left, at the end of an epoch: with it the Slave has the whole machine.
    SyncFinal {
        /// The end of that epoch.
        mark: EpochMark,
        /// Output that the sink does not have yet.
        held: Vec<HeldEpoch>,
        /// The data.
        payload: Payload,
    },
    /// An epoch's state and output (`off`, `inputs`).
    EpochState {
        /// The end of the epoch.
        mark: EpochMark,
        /// Its output.
        outputs: Vec<Output>,
        /// Its state.
        payload: Payload,
    },
    /// Pages sent before their epoch's end (`--speculate on`), staged and counted only.
    Speculative {
        /// The data.
        payload: Payload,
    },
    /// What a repair of `first..=mark.epoch` changes, and the output of these epochs.
    RepairData {
        /// The first epoch that differed.
        first: Epoch,
        /// The end of the last one.
        mark: EpochMark,
        /// Their output: the Slave's own may be wrong.
        held: Vec<HeldEpoch>,
        /// The data.
        payload: Payload,
    },
}

/// Control messages from Slave to Master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlToMaster {
    /// A process wants to be this Master's Slave. Said again until welcomed.
    Hello {
        /// Who asks.
        process: Process,
    },
    /// I live.
    Heartbeat {
        /// The Slave's disk copy has synced every write before this flush.
        durable: u64,
    },
    /// A synchronisation round arrived and is staged.
    SyncStaged {
        /// Which.
        round: u32,
    },
    /// The whole machine is here and has the stated digest.
    Synced {
        /// At the end of this epoch.
        epoch: Epoch,
        /// See [`ControlToMaster::Heartbeat`].
        durable: u64,
    },
    /// Commit: all epochs up to this one are here, staged and checked.
    EpochAck {
        /// The last of them.
        epoch: Epoch,
        /// See [`ControlToMaster::Heartbeat`].
        durable: u64,
    },
    /// The digest of this epoch differs here (`replay`). The Slave holds nothing later as verified.
    Mismatch {
        /// The first epoch that differs.
        epoch: Epoch,
    },
    /// Commit of all repaired epochs: the repair is here, staged and checked.
    RepairStaged {
        /// The last of them.
        epoch: Epoch,
        /// See [`ControlToMaster::Heartbeat`].
        durable: u64,
    },
    /// The Slave is live in this generation. Whoever hears this is fenced.
    Promoted {
        /// The generation that it won.
        generation: Generation,
    },
    /// The Slave ends and is lost to the pair.
    Leaving,
}

/// Bulk messages from Slave to Master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkToMaster {
    /// Digests of what the Slave dirtied since its last verified epoch.
    RepairDigests {
        /// The end of the epoch at which they were taken.
        at: Epoch,
        /// The digests.
        payload: Payload,
    },
}

/// A message of the control connection, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Master to Slave.
    ToSlave(Envelope<ControlToSlave>),
    /// Slave to Master.
    ToMaster(Envelope<ControlToMaster>),
}

/// A message of the bulk connection, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bulk {
    /// Master to Slave.
    ToSlave(Envelope<BulkToSlave>),
    /// Slave to Master.
    ToMaster(Envelope<BulkToMaster>),
}
