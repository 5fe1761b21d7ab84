//! The Master's Slave: its messages, its loss, and what the witness says about it.

use super::{Link, MasterAction, MasterProtocol, Stage};
use crate::Epoch;
use crate::protocol::ask::Question;
use crate::protocol::peer::PeerClock;
use crate::protocol::{
    BulkToMaster, ControlToMaster, ControlToSlave, Envelope, Incarnation, Process, StopReason,
    WitnessReply, WitnessRequest,
};

impl MasterProtocol {
    pub(super) fn is_slave(&self, slave: Incarnation) -> bool {
        self.link.is_some_and(|link| link.process.incarnation == slave)
    }

    /// Timers: heartbeats, the peer's silence, a witness that does not answer.
    pub(super) fn watch(&mut self) {
        let (now_us, settings) = (self.now_us, self.settings);
        if let Some(link) = &mut self.link {
            if link.clock.silent(now_us, &settings) {
                self.lose_slave();
            } else if link.clock.beat_due(now_us, &settings) {
                let accepted = self.accepted;
                self.send_control(ControlToSlave::Heartbeat { accepted });
            }
        }
        if let Some(question) = &mut self.question
            && now_us >= question.asked_us + settings.witness_retry_us
        {
            question.asked_us = now_us;
            let request = question.request;
            self.out.push(MasterAction::AskWitness(request));
        }
    }

    pub(super) fn control(&mut self, message: Envelope<ControlToMaster>) {
        if let ControlToMaster::Hello { process } = message.body {
            return self.hello(process);
        }
        if !self.is_slave(message.slave) || message.generation != self.generation {
            return;
        }
        if let Some(link) = &mut self.link {
            link.clock.heard(self.now_us);
        }
        match message.body {
            ControlToMaster::Hello { .. } => unreachable!("handled above"),
            ControlToMaster::Heartbeat { durable } => self.slave_durable(durable),
            ControlToMaster::SyncStaged { round } => self.sync_staged(round),
            ControlToMaster::Synced { epoch, durable } => self.synced(epoch, durable),
            ControlToMaster::EpochAck { epoch, durable } => {
                if matches!(self.stage, Stage::Final { .. } | Stage::Confirming | Stage::Protected)
                {
                    self.acked(epoch, durable);
                } else {
                    self.lose_slave();
                }
            }
            ControlToMaster::Mismatch { epoch } => self.mismatch(epoch),
            ControlToMaster::RepairStaged { epoch, durable } => self.repaired(epoch, durable),
            ControlToMaster::Promoted { generation } => {
                if generation > self.generation {
                    self.stop(StopReason::Fenced);
                }
            }
            ControlToMaster::Leaving => self.lose_slave(),
        }
    }

    pub(super) fn bulk(&mut self, message: Envelope<BulkToMaster>) {
        if !self.is_slave(message.slave) || message.generation != self.generation {
            return;
        }
        if let Some(link) = &mut self.link {
            link.clock.heard(self.now_us);
        }
        let BulkToMaster::RepairDigests { at, payload } = message.body;
        self.repair_digests(at, payload);
    }

    fn hello(&mut self, process: Process) {
        let known = process == self.process || self.dropped == Some(process.incarnation);
        if self.stage != Stage::Unprotected || known || self.finishing {
            return;
        }
        assert!(self.link.is_none(), "an unprotected Master without synchronisation has no Slave");
        let clock = PeerClock::new(self.now_us);
        self.link = Some(Link { process, clock, acked: Epoch(0), durable: 0 });
        self.log_pieces = 0;
        self.send_control(ControlToSlave::Welcome);
        self.begin_rounds(process.incarnation);
    }

    /// A commit by the Slave. What it claims beyond what ended, or takes back, is a broken Slave.
    pub(super) fn acked(&mut self, epoch: Epoch, durable: u64) {
        let ended = self.ended;
        let Some(link) = &mut self.link else { return };
        if epoch > ended || epoch < link.acked {
            return self.lose_slave();
        }
        link.acked = epoch;
        self.slave_durable(durable);
    }

    pub(super) fn slave_durable(&mut self, durable: u64) {
        if let Some(link) = &mut self.link {
            link.durable = link.durable.max(durable);
        }
    }

    /// The Slave is gone. If the witness may already count on it, it may be going live: the next
    /// generation has to be won before anything uncommitted leaves.
    pub(super) fn lose_slave(&mut self) {
        let Some(link) = self.link.take() else { return };
        self.dropped = Some(link.process.incarnation);
        self.out.push(MasterAction::DropSlave(link.process.incarnation));
        match self.stage {
            Stage::Rounds { .. }
            | Stage::Halting
            | Stage::Collecting { .. }
            | Stage::Final { .. } => self.stage = Stage::Unprotected,
            Stage::Confirming
            | Stage::Protected
            | Stage::Diverged { .. }
            | Stage::Repairing { .. } => self.claim(),
            Stage::Claiming | Stage::Unprotected | Stage::Stopped => {
                unreachable!("a Slave is linked only from synchronisation on")
            }
        }
    }

    pub(super) fn claim(&mut self) {
        self.stage = Stage::Claiming;
        if self.reported == Some(true) {
            self.reported = Some(false);
            self.out.push(MasterAction::ReportProtected(false));
        }
        let generation = self.generation.next();
        if self.settings.mutations.no_witness && self.generation.0 > 0 {
            self.generation = generation;
            self.stage = Stage::Unprotected;
            return;
        }
        self.ask(WitnessRequest::Claim { generation, by: self.process });
    }

    pub(super) fn ask(&mut self, request: WitnessRequest) {
        self.question = Some(Question { request, asked_us: self.now_us });
        self.out.push(MasterAction::AskWitness(request));
    }

    pub(super) fn witness(&mut self, reply: WitnessReply) {
        if !self.question.is_some_and(|question| question.answered_by(&reply)) {
            return;
        }
        self.question = None;
        if !reply.granted {
            return self.stop(StopReason::Fenced);
        }
        match reply.request {
            WitnessRequest::Claim { generation, .. } => {
                assert!(generation == self.generation.next(), "generations are won one by one");
                self.generation = generation;
                self.stage = Stage::Unprotected;
                self.out.push(MasterAction::Granted(generation));
                // What was offered in the old generation and is still under way will be refused.
                self.released = self.accepted;
                self.inputs_covered = 0;
            }
            WitnessRequest::SetInSync { .. } => self.confirmed(),
        }
    }
}
