//! The Master is lost, or a person wants this side: whether and from where it goes live.

use super::{Handover, SlaveAction, SlaveProtocol, Stage};
use crate::Epoch;
use crate::protocol::ask::Question;
use crate::protocol::{ControlToMaster, QuietReason, StopReason, WitnessReply, WitnessRequest};

impl SlaveProtocol {
    pub(super) fn lose_master(&mut self) {
        if self.master_lost {
            return;
        }
        match self.stage {
            Stage::Joining | Stage::Syncing => {
                if self.settings.mutations.no_in_sync_check && self.promotable_by_mistake() {
                    return;
                }
                self.stop(StopReason::LostBeforeSynced);
            }
            Stage::Following => {
                self.master_lost = true;
                self.begin_promotion();
            }
            Stage::Diverged { first } => {
                self.master_lost = true;
                if self.settings.mutations.diverged_promotes {
                    self.expected.clear();
                    self.begin_promotion();
                } else {
                    self.quiet(first);
                }
            }
            // All of the repair is here: it is completed, then this side is verified again.
            Stage::Staging { .. } => self.master_lost = true,
            Stage::Draining | Stage::Claiming => self.master_lost = true,
            Stage::Live | Stage::Quiet | Stage::Stopped => {}
        }
    }

    /// A deliberate fault: what a Slave without the check would do with half of a machine.
    fn promotable_by_mistake(&mut self) -> bool {
        let Some(mark) = self.expected.front().copied() else { return false };
        self.committed = Some(mark);
        self.master_lost = true;
        self.claim();
        true
    }

    pub(super) fn begin_promotion(&mut self) {
        if self.settings.active.commits_state() {
            self.claim();
        } else {
            self.stage = Stage::Draining;
            self.out.push(SlaveAction::FinishLog);
        }
    }

    /// All log is executed and every epoch's end in it compared. Only then the witness is asked: a side
    /// that finds itself diverged must not take the generation from a Master that may live.
    pub(super) fn log_finished(&mut self) {
        if self.stage == Stage::Draining {
            assert!(
                self.expected.is_empty(),
                "the end of the log comes after all epochs that ended before it"
            );
            self.claim();
        }
    }

    fn claim(&mut self) {
        self.stage = Stage::Claiming;
        let request =
            WitnessRequest::Claim { generation: self.generation.next(), by: self.process };
        if self.settings.mutations.no_witness {
            return self.go_live();
        }
        self.question = Some(Question { request, asked_us: self.now_us });
        self.out.push(SlaveAction::AskWitness(request));
    }

    pub(super) fn witness(&mut self, reply: WitnessReply) {
        if !self.question.is_some_and(|question| question.answered_by(&reply)) {
            return;
        }
        self.question = None;
        if reply.granted { self.go_live() } else { self.stop(StopReason::Fenced) }
    }

    fn go_live(&mut self) {
        assert!(self.stage == Stage::Claiming, "a side goes live once, after it won a generation");
        let Some(committed) = self.committed else {
            unreachable!("a side that is not synchronised does not claim")
        };
        let generation = self.generation.next();
        self.send(ControlToMaster::Promoted { generation });
        let (position, inputs_taken) = match self.log_end {
            Some(end) if !self.settings.active.commits_state() => end,
            _ => (committed.position, committed.inputs_taken),
        };
        let (position, inputs_taken) = if position < committed.position {
            (committed.position, committed.inputs_taken)
        } else {
            (position, inputs_taken)
        };
        assert!(
            self.held.front().is_none_or(|held| held.epoch == self.accepted.next()),
            "all committed output that the sink may miss is here"
        );
        self.stage = Stage::Live;
        self.out.push(SlaveAction::GoLive(Handover {
            process: self.process,
            generation,
            epoch: committed.epoch,
            position,
            inputs_taken,
            accepted: self.accepted,
            held: std::mem::take(&mut self.held).into(),
            durable: self.durable,
        }));
    }

    pub(super) fn quiet(&mut self, first: Epoch) {
        self.stage = Stage::Quiet;
        self.out.push(SlaveAction::ReportProtected(false));
        self.out.push(SlaveAction::Quiet(QuietReason::Diverged { first }));
    }

    /// A person's wish. From here on the Master counts as lost: nothing more is acknowledged to it.
    pub(super) fn failover(&mut self) {
        if self.stage == Stage::Following && self.in_sync && !self.master_lost {
            self.master_lost = true;
            self.begin_promotion();
        } else if !self.master_lost {
            self.out.push(SlaveAction::FailoverRefused);
        }
    }
}
