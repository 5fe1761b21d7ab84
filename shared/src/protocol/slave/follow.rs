//! Following the Master: synchronisation, commits, mismatch and repair.

use super::{SlaveAction, SlaveProtocol, Stage};
use crate::protocol::{ControlToMaster, EpochMark, HeldEpoch, Payload, RootDigest, StopReason};
use crate::{Epoch, Output, Position};

impl SlaveProtocol {
    pub(super) fn final_arrived(
        &mut self,
        mark: EpochMark,
        held: Vec<HeldEpoch>,
        payload: Payload,
    ) {
        if self.stage != Stage::Syncing || !self.expected.iter().all(|m| m.epoch > mark.epoch) {
            return self.fail_transfer();
        }
        let first = held.first().map_or(mark.epoch.0, |held| held.epoch.0 - 1);
        self.accepted = Epoch(first);
        // Ends of later epochs may have overtaken the machine on the control connection.
        self.expected.push_front(mark);
        self.held = held.into();
        self.out.push(SlaveAction::StageFinal { mark, payload });
    }

    pub(super) fn epoch_arrived(
        &mut self,
        mark: EpochMark,
        outputs: Vec<Output>,
        payload: Payload,
    ) {
        self.expect(mark);
        let EpochMark { epoch, flush_needed, inputs_taken, .. } = mark;
        self.arriving.push_back(HeldEpoch { epoch, outputs, flush_needed, inputs_taken });
        self.out.push(SlaveAction::StageEpoch { mark, payload });
        if self.settings.mutations.early_ack && self.stage == Stage::Following {
            self.send(ControlToMaster::EpochAck { epoch, durable: self.durable });
        }
    }

    pub(super) fn log(&mut self, piece: u64, end: Position, inputs_taken: u64, payload: Payload) {
        assert!(piece == self.log_pieces + 1, "the log of a session has no holes");
        self.log_pieces = piece;
        assert!(
            self.log_end.is_none_or(|(had, taken)| had <= end && taken <= inputs_taken),
            "the horizon only grows"
        );
        self.log_end = Some((end, inputs_taken));
        self.follow(SlaveAction::ReplayLog { piece, end, payload });
    }

    pub(super) fn epoch_end(&mut self, mark: EpochMark) {
        self.expect(mark);
        self.follow(SlaveAction::Verify { mark });
        if self.settings.mutations.early_ack && self.stage == Stage::Following {
            self.send(ControlToMaster::EpochAck { epoch: mark.epoch, durable: self.durable });
        }
    }

    fn expect(&mut self, mark: EpochMark) {
        let before = self.expected.back().or(self.committed.as_ref());
        assert!(
            before.is_none_or(|before| mark.epoch == before.epoch.next()),
            "epochs arrive one after the other"
        );
        self.expected.push_back(mark);
    }

    /// Hands log and marks on once there is a machine to replay them on.
    fn follow(&mut self, action: SlaveAction) {
        if self.stage == Stage::Syncing {
            self.early.push(action);
        } else {
            self.out.push(action);
        }
    }

    /// Something arrived in full and was checked against the digest that it would give.
    pub(super) fn staged(&mut self, epoch: Epoch, digest: RootDigest) {
        match self.stage {
            Stage::Syncing => self.final_staged(epoch, digest),
            Stage::Staging { at, .. } => self.repair_staged(at, epoch, digest),
            Stage::Following if self.settings.active.commits_state() => {
                self.epoch_staged(epoch, digest);
            }
            _ => {}
        }
    }

    fn final_staged(&mut self, epoch: Epoch, digest: RootDigest) {
        let Some(mark) = self.expected.pop_front() else { return self.fail_transfer() };
        if (mark.epoch, mark.digest) != (epoch, digest) {
            return self.fail_transfer();
        }
        self.committed = Some(mark);
        self.stage = Stage::Following;
        self.log_end.get_or_insert((mark.position, mark.inputs_taken));
        self.send(ControlToMaster::Synced { epoch, durable: self.durable });
        let early = std::mem::take(&mut self.early);
        self.out.extend(early);
    }

    fn epoch_staged(&mut self, epoch: Epoch, digest: RootDigest) {
        let (Some(mark), Some(held)) = (self.expected.pop_front(), self.arriving.pop_front())
        else {
            return self.fail_transfer();
        };
        if (mark.epoch, mark.digest, held.epoch) != (epoch, digest, epoch) {
            return self.fail_transfer();
        }
        self.commit(mark, held);
        self.out.push(SlaveAction::ApplyEpoch { epoch });
        self.send(ControlToMaster::EpochAck { epoch, durable: self.durable });
    }

    /// `replay`: the guest here reached the end of an epoch.
    pub(super) fn replayed(&mut self, epoch: Epoch, digest: RootDigest, outputs: Vec<Output>) {
        let following = matches!(self.stage, Stage::Following | Stage::Draining);
        let Some(&mark) = self.expected.front() else { return };
        if !following || epoch < mark.epoch {
            return;
        }
        assert!(epoch == mark.epoch, "epochs are verified one after the other");
        assert!(self.log_pieces >= mark.log_pieces, "an epoch is verified with all of its log");
        if mark.digest != digest {
            return self.diverged(epoch);
        }
        self.expected.pop_front();
        let EpochMark { flush_needed, inputs_taken, .. } = mark;
        self.commit(mark, HeldEpoch { epoch, outputs, flush_needed, inputs_taken });
        if !self.master_lost {
            self.send(ControlToMaster::EpochAck { epoch, durable: self.durable });
        }
    }

    fn commit(&mut self, mark: EpochMark, held: HeldEpoch) {
        assert!(
            self.committed.is_some_and(
                |before| mark.epoch == before.epoch.next() && before.position <= mark.position
            ),
            "a committed epoch follows the one committed before"
        );
        self.committed = Some(mark);
        self.held.push_back(held);
    }

    fn diverged(&mut self, first: Epoch) {
        if self.settings.mutations.diverged_promotes && self.master_lost {
            self.expected.clear();
            return;
        }
        self.stage = Stage::Diverged { first };
        if self.master_lost {
            return self.quiet(first);
        }
        self.send(ControlToMaster::Mismatch { epoch: first });
    }

    pub(super) fn repair_requested(&mut self, at: EpochMark) {
        let Some(committed) = self.committed else { return };
        if matches!(self.stage, Stage::Diverged { .. }) {
            assert!(self.log_pieces >= at.log_pieces, "a repair starts with all of the log");
            let since = committed.epoch;
            self.out.push(SlaveAction::CollectRepairDigests { since, at });
        }
    }

    pub(super) fn repair_arrived(
        &mut self,
        mark: EpochMark,
        held: Vec<HeldEpoch>,
        payload: Payload,
    ) {
        let Stage::Diverged { first } = self.stage else { return };
        self.arriving = held.into();
        self.stage = Stage::Staging { first, at: mark };
        self.out.push(SlaveAction::StageRepair { mark, payload });
    }

    fn repair_staged(&mut self, at: EpochMark, epoch: Epoch, digest: RootDigest) {
        if (at.epoch, at.digest) != (epoch, digest) {
            return self.fail_transfer();
        }
        assert!(
            self.expected.iter().all(|mark| mark.epoch <= epoch),
            "the guest stood at the repaired epoch's end until the repair was done"
        );
        self.expected.clear();
        self.committed = Some(at);
        self.held.append(&mut self.arriving);
        self.out.push(SlaveAction::ApplyRepair { epoch });
        self.stage = Stage::Following;
        if self.master_lost {
            self.begin_promotion();
        } else {
            self.send(ControlToMaster::RepairStaged { epoch, durable: self.durable });
        }
    }

    pub(super) fn output_accepted(&mut self, accepted: Epoch) {
        if matches!(self.stage, Stage::Syncing) {
            return;
        }
        self.accepted = self.accepted.max(accepted);
        while self.held.front().is_some_and(|held| held.epoch <= self.accepted) {
            self.held.pop_front();
        }
    }

    fn fail_transfer(&mut self) {
        if !self.master_lost {
            self.send(ControlToMaster::Leaving);
        }
        self.stop(StopReason::BadTransfer);
    }
}
