//! One entry of the log.

use ft_pair_shared::{Epoch, Input, Position};
use serde::{Deserialize, Serialize};

/// One entry of the log, at a position of the guest's execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An input that the machine took when it stood at `position`.
    Input {
        /// Where the machine took it; afterwards it stands at [`Position::after_input`].
        position: Position,
        /// What it took.
        input: Input,
    },
    /// An epoch ended. Replay needs no such record; it lets replay check every digest.
    EpochEnd {
        /// The epoch that ended.
        epoch: Epoch,
        /// Where it ended.
        position: Position,
        /// Root digest of the machine there.
        digest: [u8; 32],
    },
    /// The CPU's TLB was emptied here from outside, as saving the machine for another side does. Guests see
    /// what a TLB still holds, so whoever executes the log again empties it at the same position.
    TlbFlush {
        /// Where. A flush takes no position.
        position: Position,
    },
    /// The recording ended here on purpose. A log without it was cut off.
    End {
        /// Where the recording ended.
        position: Position,
    },
}

impl Record {
    /// Where the record lies in the execution.
    pub const fn position(&self) -> Position {
        match self {
            Self::Input { position, .. }
            | Self::EpochEnd { position, .. }
            | Self::TlbFlush { position }
            | Self::End { position } => *position,
        }
    }
}
