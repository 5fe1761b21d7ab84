//! What the Slave's vCPU thread is told and what it tells.

use ft_pair_shared::protocol::{EpochMark, RootDigest};
use ft_pair_shared::supervision::Fault;
use ft_pair_shared::{Epoch, Output, Position};
use tokio::sync::OwnedSemaphorePermit;

/// Told to the thread.
#[derive(Debug)]
pub enum Command {
    /// Pages and sectors of a synchronisation round: applied as they come, nothing runs yet.
    Fill {
        /// Encoded items.
        chunk: Vec<u8>,
        /// Given back once they are applied: the room that they took on the way.
        room: OwnedSemaphorePermit,
    },
    /// All of a synchronisation round is here.
    SyncPages {
        /// The round.
        round: u32,
        /// What of it did not come as [`Command::Fill`].
        chunks: Vec<Vec<u8>>,
    },
    /// The last part of a synchronisation.
    StageFinal {
        /// The end of the epoch that it stands at.
        mark: EpochMark,
        /// The payload.
        chunks: Vec<Vec<u8>>,
    },
    /// An epoch's state (`off`).
    StageEpoch {
        /// Its end.
        mark: EpochMark,
        /// The payload.
        chunks: Vec<Vec<u8>>,
    },
    /// Apply the staged epoch.
    ApplyEpoch {
        /// Which.
        epoch: Epoch,
    },
    /// A piece of log.
    Log {
        /// The horizon.
        end: Position,
        /// Encoded records.
        chunks: Vec<Vec<u8>>,
    },
    /// Compare here.
    Verify {
        /// The end of an epoch.
        mark: EpochMark,
    },
    /// Execute to the mark, then tell the digests of what was dirtied since the epoch `since`.
    CollectRepairDigests {
        /// Verified.
        since: Epoch,
        /// Where to stand.
        at: EpochMark,
    },
    /// A repair.
    StageRepair {
        /// The end of the last repaired epoch.
        mark: EpochMark,
        /// The payload.
        chunks: Vec<Vec<u8>>,
    },
    /// Apply the staged repair.
    ApplyRepair {
        /// The last repaired epoch.
        epoch: Epoch,
    },
    /// All epochs up to this one are verified and committed.
    Committed(Epoch),
    /// Execute to the end of the log.
    FinishLog,
    /// Inject a fault.
    Inject(Fault),
    /// Hand the machine over to go live.
    GoLive,
    /// End.
    Quit,
}

/// Told by the thread.
#[derive(Debug)]
pub enum Report {
    /// Answer to [`Command::SyncPages`].
    SyncPagesStaged {
        /// The round.
        round: u32,
    },
    /// Answer to the `Stage` commands.
    Staged {
        /// The epoch.
        epoch: Epoch,
        /// The digest that the machine has with it.
        digest: RootDigest,
    },
    /// Answer to [`Command::Verify`].
    Replayed {
        /// The epoch.
        epoch: Epoch,
        /// The digest here.
        digest: RootDigest,
        /// What the guest put out here in it.
        outputs: Vec<Output>,
    },
    /// Answer to [`Command::CollectRepairDigests`].
    RepairDigests {
        /// The end of the epoch at which they were taken.
        at: Epoch,
        /// The payload.
        chunk: Vec<u8>,
    },
    /// Answer to [`Command::FinishLog`].
    LogFinished,
    /// The thread cannot go on.
    Failed(String),
}
