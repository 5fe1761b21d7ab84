//! The witness: a test-and-set record of who is live.
//!
//! It decides which side survives the loss of the other. A request may arrive twice, late, or its reply
//! may be lost: asking again gives the same answer and changes nothing.

use super::{Mutations, Process};
use crate::Generation;
use serde::{Deserialize, Serialize};

/// What the witness keeps. On one machine it lives in the supervising process; across machines the same
/// record is kept in etcd or in a file on shared storage, changed by compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WitnessRecord {
    /// The newest generation that was granted; 0 is "none yet".
    pub generation: Generation,
    /// Who is live in it.
    pub owner: Option<Process>,
    /// Who is in sync with the owner, if anybody. It alone, beside the owner, may win the next generation.
    pub in_sync: Option<Process>,
}

/// A question to the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WitnessRequest {
    /// Make `by` the owner of `generation`, with nobody in sync.
    Claim {
        /// The generation after the one in which `by` was Master or Slave.
        generation: Generation,
        /// Who asks.
        by: Process,
    },
    /// Note that `peer` is in sync with `by`.
    SetInSync {
        /// The generation that `by` owns.
        generation: Generation,
        /// Who asks.
        by: Process,
        /// Its Slave.
        peer: Process,
    },
}

/// The witness's answer. It repeats the question, so that late answers are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessReply {
    /// What was asked.
    pub request: WitnessRequest,
    /// Whether the record now says so. False is final: the record only moves on.
    pub granted: bool,
    /// The record after the request.
    pub record: WitnessRecord,
}

/// The record and its rules.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    record: WitnessRecord,
    mutations: Mutations,
}

impl Witness {
    /// A witness for a new pair.
    pub fn new() -> Self {
        Self::default()
    }

    /// A witness that goes on from a stored record.
    pub fn from_record(record: WitnessRecord) -> Self {
        Self { record, mutations: Mutations::NONE }
    }

    #[doc(hidden)]
    pub fn with_mutations(mutations: Mutations) -> Self {
        Self { record: WitnessRecord::default(), mutations }
    }

    /// What the witness knows.
    pub fn record(&self) -> WitnessRecord {
        self.record
    }

    /// Answers a question, changing the record where the rules allow.
    pub fn ask(&mut self, request: WitnessRequest) -> WitnessReply {
        let before = self.record;
        let granted = match request {
            WitnessRequest::Claim { generation, by } => self.claim(generation, by),
            WitnessRequest::SetInSync { generation, by, peer } => {
                self.set_in_sync(generation, by, peer)
            }
        };
        assert!(
            self.record.generation == before.generation
                || self.record.generation == before.generation.next(),
            "generations are granted one by one, never taken back"
        );
        assert!(
            self.record.generation != before.generation || self.record.owner == before.owner,
            "a generation has one owner"
        );
        WitnessReply { request, granted, record: self.record }
    }

    fn claim(&mut self, generation: Generation, by: Process) -> bool {
        let record = &mut self.record;
        if record.generation == generation {
            return record.owner == Some(by);
        }
        let entitled = record.owner.is_none()
            || record.owner == Some(by)
            || record.in_sync == Some(by)
            || self.mutations.no_in_sync_check;
        if record.generation.next() != generation || !entitled {
            return false;
        }
        *record = WitnessRecord { generation, owner: Some(by), in_sync: None };
        true
    }

    fn set_in_sync(&mut self, generation: Generation, by: Process, peer: Process) -> bool {
        let record = &mut self.record;
        if record.generation != generation || record.owner != Some(by) {
            return false;
        }
        if record.in_sync.is_some_and(|known| known != peer) {
            return false;
        }
        record.in_sync = Some(peer);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::Incarnation;
    use super::*;
    use crate::Side;

    const A: Process = Process { side: Side::A, incarnation: Incarnation(1) };
    const B: Process = Process { side: Side::B, incarnation: Incarnation(2) };

    fn claim(witness: &mut Witness, generation: u64, by: Process) -> bool {
        witness.ask(WitnessRequest::Claim { generation: Generation(generation), by }).granted
    }

    fn in_sync(witness: &mut Witness, generation: u64, by: Process, peer: Process) -> bool {
        let generation = Generation(generation);
        witness.ask(WitnessRequest::SetInSync { generation, by, peer }).granted
    }

    #[test]
    fn one_winner_per_generation_and_retries_are_harmless() {
        let mut witness = Witness::new();
        assert!(claim(&mut witness, 1, A));
        assert!(!claim(&mut witness, 1, B));
        assert!(!claim(&mut witness, 2, B), "a Slave that is not in sync wins nothing");
        assert!(in_sync(&mut witness, 1, A, B));
        assert!(claim(&mut witness, 1, A), "asked again");
        assert_eq!(witness.record().in_sync, Some(B), "asking again changes nothing");
        assert!(claim(&mut witness, 2, B));
        assert!(!claim(&mut witness, 2, A));
        assert!(!in_sync(&mut witness, 1, A, B), "late, of an older generation");
        assert!(!claim(&mut witness, 3, A), "the old Master is not in sync");
        assert!(claim(&mut witness, 2, B));
    }
}
