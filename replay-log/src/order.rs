//! The order that the records of a log keep, checked alike when writing and when reading.

use crate::Record;
use ft_pair_shared::{Epoch, Position};

/// Why a record may not follow the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The position lies before that of the record before.
    #[error("position {next} does not lie after {last}: positions only grow")]
    Position {
        /// Position of the record before.
        last: Position,
        /// Position of the refused record.
        next: Position,
    },
    /// The epoch ended already.
    #[error("epoch {next} does not come after epoch {last}: epochs only grow, from 1")]
    Epoch {
        /// The epoch that ended last, 0 for none.
        last: u64,
        /// The refused one.
        next: u64,
    },
    /// Something follows the end of the recording.
    #[error("a record follows the End record at {end}")]
    Ended {
        /// Position of the End record.
        end: Position,
    },
}

/// What has been in the log so far, as far as the order of the next record depends on it.
///
/// An input takes its position: whatever follows lies after it. The end of an epoch and a flush of the TLB
/// take none: an input may follow at the same position.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order {
    last: Option<Position>,
    taken: bool,
    epoch: Epoch,
    ended: bool,
}

impl Order {
    /// The order after a record at `last`, `epoch` having ended. Whether that record took its position
    /// is not known; an equal position is let pass.
    pub(crate) fn resume(last: Position, epoch: Epoch) -> Self {
        Self { last: Some(last), epoch, ..Self::default() }
    }

    /// Position of the last record.
    pub(crate) fn last(&self) -> Option<Position> {
        self.last
    }

    /// The epoch that ended last, 0 for none.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// True after the End record.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Says whether `record` may come next.
    pub(crate) fn check(&self, record: &Record) -> Result<(), OrderError> {
        let next = record.position();
        if let Some(last) = self.last {
            if self.ended {
                return Err(OrderError::Ended { end: last });
            }
            if next < last || (self.taken && next == last) {
                return Err(OrderError::Position { last, next });
            }
        }
        match record {
            Record::EpochEnd { epoch, .. } if *epoch <= self.epoch => {
                Err(OrderError::Epoch { last: self.epoch.0, next: epoch.0 })
            }
            _ => Ok(()),
        }
    }

    /// Notes that `record`, which [`Self::check`] let pass, came next.
    pub(crate) fn push(&mut self, record: &Record) {
        self.last = Some(record.position());
        self.taken = matches!(record, Record::Input { .. });
        match record {
            Record::Input { .. } | Record::TlbFlush { .. } => {}
            Record::EpochEnd { epoch, .. } => self.epoch = *epoch,
            Record::End { .. } => self.ended = true,
        }
    }
}
