//! Output commit: which epochs are committed, which may be released, when the guest has to wait.

use super::{MasterAction, MasterProtocol, Stage};
use crate::Epoch;
use crate::protocol::{ControlToSlave, StopReason};

impl MasterProtocol {
    /// Brings commits, releases, the guest's pause and the report in line with the stage.
    pub(super) fn settle(&mut self) {
        if self.stage == Stage::Stopped {
            return;
        }
        self.commit();
        self.release();
        self.finish();
        if self.stage == Stage::Stopped {
            return;
        }
        self.pause_or_resume();
        let protected = self.protected();
        if self.stage != Stage::Claiming && self.reported != Some(protected) {
            self.reported = Some(protected);
            self.out.push(MasterAction::ReportProtected(protected));
        }
    }

    /// The last epoch before which no side will ever go live again.
    fn commit(&mut self) {
        let frontier = match self.stage {
            Stage::Unprotected | Stage::Rounds { .. } | Stage::Halting => self.ended,
            Stage::Protected | Stage::Diverged { .. } | Stage::Repairing { .. } => {
                self.link.map_or(self.committed, |link| link.acked)
            }
            Stage::Collecting { .. }
            | Stage::Final { .. }
            | Stage::Confirming
            | Stage::Claiming
            | Stage::Stopped => self.committed,
        };
        let frontier = if self.settings.mutations.no_commit_check && self.generation.0 > 0 {
            self.ended
        } else {
            frontier
        };
        assert!(frontier >= self.committed, "a committed epoch stays committed");
        assert!(frontier <= self.ended, "only an ended epoch is committed");
        self.committed = frontier;
        let covered = self.held.iter().take_while(|held| held.epoch <= frontier).last();
        let count = covered.map_or(0, |held| held.inputs_taken);
        if count > self.inputs_covered {
            self.inputs_covered = count;
            self.out.push(MasterAction::InputsCovered { generation: self.generation, count });
        }
    }

    /// The flush up to which the disk copies that count are durable; nothing while nothing may leave.
    fn durable_limit(&self) -> Option<u64> {
        let both = || self.link.map(|link| link.durable.min(self.durable));
        match self.stage {
            Stage::Unprotected
            | Stage::Rounds { .. }
            | Stage::Halting
            | Stage::Collecting { .. }
            | Stage::Final { .. } => Some(self.durable),
            Stage::Protected | Stage::Diverged { .. } | Stage::Repairing { .. } => both(),
            Stage::Claiming | Stage::Confirming | Stage::Stopped => None,
        }
    }

    fn release(&mut self) {
        let Some(durable) = self.durable_limit() else { return };
        let from = self.held.iter().position(|held| held.epoch > self.released);
        let Some(from) = from else { return };
        for held in self.held.iter().skip(from) {
            let durable = held.flush_needed <= durable || self.settings.mutations.no_flush_check;
            if held.epoch > self.committed || !durable {
                break;
            }
            assert!(held.epoch == self.released.next(), "output is released once and in order");
            self.released = held.epoch;
            self.out.push(MasterAction::Release {
                generation: self.generation,
                epoch: held.epoch,
                outputs: held.outputs.clone(),
            });
        }
    }

    pub(super) fn output_accepted(&mut self, epoch: Epoch) {
        assert!(epoch <= self.released, "the sink has only what was released");
        self.accepted = self.accepted.max(epoch);
        while self.held.front().is_some_and(|held| held.epoch <= self.accepted) {
            self.held.pop_front();
        }
    }

    fn finish(&mut self) {
        let out = self.accepted == self.ended || self.settings.mutations.finish_early;
        if self.finishing && out && self.stage != Stage::Claiming {
            self.send_control(ControlToSlave::Goodbye);
            self.stop(StopReason::Finished);
        }
    }

    fn pause_or_resume(&mut self) {
        let standing = matches!(
            self.stage,
            Stage::Collecting { .. } | Stage::Diverged { .. } | Stage::Repairing { .. }
        ) || (self.stage == Stage::Halting && self.last.is_some());
        let full = self.ended.0 - self.released.0 >= self.settings.window;
        let want = standing || full || self.finishing;
        if want && !self.pause.asked {
            self.pause.ticket += 1;
            self.pause.asked = true;
            self.out.push(MasterAction::PauseGuest { ticket: self.pause.ticket });
        } else if !want && self.pause.asked {
            self.pause.asked = false;
            self.pause.at_rest = false;
            self.out.push(MasterAction::ResumeGuest);
        }
    }
}
