//! Which of a pair's disk copies is the newest.

use super::WitnessRecord;
use crate::{Epoch, Generation, PairId, Side};
use serde::{Deserialize, Serialize};

/// What each disk copy carries about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLabel {
    /// The pair that the copy belongs to.
    pub pair: PairId,
    /// Whose copy it is.
    pub side: Side,
    /// The generation in which it was last written.
    pub generation: Generation,
    /// The last committed epoch that it contains.
    pub epoch: Epoch,
    /// False while a synchronisation fills it: then it is not a state of the guest at all.
    pub complete: bool,
}

/// Why no copy can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyRefusal {
    /// No copy of the newest generation is here.
    #[error(
        "no complete disk copy of generation {newest:?} is here, only older ones: bring the copy of \
         the side that was live last"
    )]
    OnlyOld {
        /// The generation that was live last.
        newest: Generation,
    },
    /// Copies of different pairs were named.
    #[error("the disk copies belong to different pairs: name copies of one pair")]
    DifferentPairs,
}

/// Chooses the copy to start from when no process of the pair lives: one of the newest generation that the
/// witness granted, whose side was live in it or in sync with who was; the one with the later epoch.
pub fn newest_copy(copies: &[DiskLabel], record: WitnessRecord) -> Result<DiskLabel, CopyRefusal> {
    if copies.windows(2).any(|two| two[0].pair != two[1].pair) {
        return Err(CopyRefusal::DifferentPairs);
    }
    let current = |side: Side| {
        [record.owner, record.in_sync].into_iter().flatten().any(|process| process.side == side)
    };
    copies
        .iter()
        .filter(|copy| copy.complete && copy.generation == record.generation && current(copy.side))
        .max_by_key(|copy| copy.epoch)
        .copied()
        .ok_or(CopyRefusal::OnlyOld { newest: record.generation })
}

#[cfg(test)]
mod tests {
    use super::super::{Incarnation, Process};
    use super::*;

    fn label(side: Side, generation: u64, epoch: u64, complete: bool) -> DiskLabel {
        let (generation, epoch) = (Generation(generation), Epoch(epoch));
        DiskLabel { pair: PairId([7; 16]), side, generation, epoch, complete }
    }

    #[test]
    fn an_old_or_half_filled_copy_is_never_the_newest() {
        let process = |side| Process { side, incarnation: Incarnation(1) };
        let owner = Some(process(Side::B));
        let mut record = WitnessRecord { generation: Generation(2), owner, in_sync: None };
        let old = label(Side::A, 1, 90, true);
        let live = label(Side::B, 2, 80, true);
        assert_eq!(newest_copy(&[old, live], record), Ok(live));
        assert!(newest_copy(&[old], record).is_err());
        let filling = label(Side::A, 2, 99, false);
        assert_eq!(newest_copy(&[filling, live], record), Ok(live));
        let dropped = label(Side::A, 2, 99, true);
        assert_eq!(newest_copy(&[dropped, live], record), Ok(live));
        record.in_sync = Some(process(Side::A));
        assert_eq!(newest_copy(&[dropped, live], record), Ok(dropped));
    }
}
