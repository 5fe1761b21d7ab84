//! The pair's protocol as state machines without I/O: events go in, actions come out, time is an input.
//!
//! * [`MasterProtocol`] runs beside the guest that is live. It decides when the guest pauses, what goes
//!   to the Slave, when an epoch's output may leave, and what a lost Slave means.
//! * [`SlaveProtocol`] runs beside the guest that could take over. It decides what is committed, and
//!   whether and from where it goes live. Its [`Handover`] starts the next [`MasterProtocol`].
//! * [`Witness`] is the test-and-set record of who is live; [`Sink`] is where output leaves the pair and
//!   console input enters it.
//!
//! A driver owns one of them, calls `handle` for everything that happens and whenever `deadline` has
//! passed, and carries out the returned actions in order. The same code runs under sockets and in the
//! seeded simulator of `shared/tests/simulator`. `docs/protocol.md` has the messages, the states and the
//! argument why this is safe.
//!
//! # Order that the argument needs
//! * Actions of one state machine are carried out in the order in which they were returned.
//! * Each of the two connections (control, bulk) delivers in order; nothing is assumed between the two.
//! * One Slave process has one session: when either connection breaks the session is over for good.

mod ask;
mod disk;
mod master;
mod messages;
mod peer;
mod settings;
mod sink;
mod slave;
mod witness;

pub use disk::{CopyRefusal, DiskLabel, newest_copy};
pub use master::{EpochSummary, MasterAction, MasterEvent, MasterProtocol};
pub use messages::{
    Bulk, BulkToMaster, BulkToSlave, Control, ControlToMaster, ControlToSlave, Envelope, EpochMark,
    HeldEpoch, Incarnation, Payload, Process, RootDigest,
};
pub use settings::{Active, Mutations, Settings};
pub use sink::{Sink, SinkError};
pub use slave::{Handover, SlaveAction, SlaveEvent, SlaveProtocol};
pub use witness::{Witness, WitnessRecord, WitnessReply, WitnessRequest};

use serde::{Deserialize, Serialize};

/// Why a side ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The other side won the generation. This side must not release anything any more.
    Fenced,
    /// The guest ended and all its output is out.
    Finished,
    /// A Slave lost its Master before it was synchronised: it has nothing to go live from.
    LostBeforeSynced,
    /// What arrived does not have the digest that the Master states; a fresh Slave has to be synchronised.
    BadTransfer,
    /// The driver said that this Slave cannot go on (host I/O error, full disk).
    Failed,
}

/// Why a Slave that lost its Master does not go live, though it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuietReason {
    /// Its state was found to differ from the Master's and was not repaired in time.
    Diverged {
        /// The first epoch whose digest differed.
        first: crate::Epoch,
    },
}
