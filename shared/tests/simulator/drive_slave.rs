//! The driver of the side that could take over: stages, replays, goes live.

use crate::process::{Event, Id, Message, Role, Task};
use crate::world::{Data, MS, World};
use ft_pair_shared::protocol::{
    Bulk, Control, EpochMark, Handover, MasterProtocol, Payload, RootDigest, SlaveAction,
    SlaveEvent,
};

impl World {
    pub fn do_slave(&mut self, id: Id, action: SlaveAction) {
        match action {
            SlaveAction::SendControl(Control::ToMaster(message)) => {
                self.send(id, Message::ControlToMaster(message));
            }
            SlaveAction::SendBulk(Bulk::ToMaster(message)) => {
                self.send(id, Message::BulkToMaster(message));
            }
            SlaveAction::SendControl(_) | SlaveAction::SendBulk(_) => {
                panic!("a Slave speaks to its Master")
            }
            SlaveAction::AskWitness(request) => {
                self.later(100, 5 * MS, Event::AskWitness(id, request));
            }
            SlaveAction::StageSyncPages { round, .. } => self.task(id, Task::Pages(round)),
            SlaveAction::StageFinal { mark, payload } => self.task(id, Task::Final(mark, payload)),
            SlaveAction::StageEpoch { mark, payload } => self.task(id, Task::Epoch(mark, payload)),
            SlaveAction::StageSpeculative { .. } => {}
            SlaveAction::ReplayLog { payload, .. } => {
                if !self.procs[id].diverged {
                    let Data::Log { end, .. } = self.data[payload.handle as usize] else {
                        panic!()
                    };
                    self.procs[id].log_end = end;
                }
                self.task(id, Task::Replay(payload));
            }
            SlaveAction::Verify { mark } => self.task(id, Task::Verify(mark)),
            SlaveAction::CollectRepairDigests { at, .. } => self.task(id, Task::Digests(at)),
            SlaveAction::StageRepair { mark, payload } => {
                self.task(id, Task::Repair(mark, payload));
            }
            SlaveAction::ApplyEpoch { .. } | SlaveAction::ApplyRepair { .. } => {
                let repair = matches!(action, SlaveAction::ApplyRepair { .. });
                let proc = &mut self.procs[id];
                proc.guest = proc.applying.pop_front().expect("only what was staged is applied");
                proc.secured = proc.guest.steps;
                if repair {
                    self.ledger.coverage.repairs += 1;
                    proc.outputs.clear();
                    proc.diverged = false;
                    proc.mismatch_seen = false;
                }
                let flushes = proc.guest.flushes;
                self.later(100, 10 * MS, Event::Durable(id, flushes));
            }
            SlaveAction::FinishLog => self.task(id, Task::Finish),
            SlaveAction::GoLive(handover) => self.go_live(id, handover),
            SlaveAction::Quiet(reason) => {
                self.note(format!("{id} stays quiet: {reason:?}"));
                self.ledger.coverage.quiet += 1;
                assert!(self.procs[id].diverged, "only a diverged side stays quiet");
                self.crash(id);
            }
            SlaveAction::FailoverRefused | SlaveAction::ReportProtected(_) => {}
            SlaveAction::Stop(reason) => {
                self.note(format!("{id} stops: {reason:?}"));
                self.check_slave_stop(id, reason);
                self.crash(id);
            }
        }
    }

    fn task(&mut self, id: Id, task: Task) {
        self.procs[id].tasks.push_back(task);
        if !self.procs[id].working {
            self.procs[id].working = true;
            self.later(10, 2 * MS, Event::Work(id));
        }
    }

    /// One piece of work is done.
    pub fn work(&mut self, id: Id) {
        self.procs[id].working = false;
        let Some(task) = self.procs[id].tasks.pop_front() else { return };
        if !self.procs[id].tasks.is_empty() {
            self.procs[id].working = true;
            let slow = if self.rng.percent(5) { 20 * MS } else { 2 * MS };
            self.later(10, slow, Event::Work(id));
        }
        match task {
            Task::Pages(round) => self.slave_event(id, SlaveEvent::SyncPagesStaged { round }),
            Task::Final(mark, payload) => {
                if let Some(digest) = self.stage(id, mark, payload) {
                    let proc = &mut self.procs[id];
                    proc.guest = proc.applying.pop_front().expect("just staged");
                    proc.secured = proc.guest.steps;
                    proc.synced = true;
                    proc.outputs.clear();
                    let flushes = proc.guest.flushes;
                    self.later(100, 10 * MS, Event::Durable(id, flushes));
                    self.slave_event(id, SlaveEvent::Staged { epoch: mark.epoch, digest });
                }
            }
            Task::Epoch(mark, payload) | Task::Repair(mark, payload) => {
                if let Some(digest) = self.stage(id, mark, payload) {
                    self.slave_event(id, SlaveEvent::Staged { epoch: mark.epoch, digest });
                }
            }
            Task::Replay(payload) => self.replay(id, payload),
            Task::Verify(mark) => self.verify(id, mark),
            Task::Digests(mark) => {
                assert_eq!(self.procs[id].guest.position(), mark.position);
                let payload = self.store(Data::Nothing);
                let ready = SlaveEvent::RepairDigestsReady { at: mark.epoch, payload };
                self.slave_event(id, ready);
            }
            Task::Finish => self.slave_event(id, SlaveEvent::LogFinished),
        }
    }

    /// Puts a state beside the image; a torn one has another digest, and the protocol has to see it.
    fn stage(&mut self, id: Id, mark: EpochMark, payload: Payload) -> Option<RootDigest> {
        let Data::State { guest, torn } = self.data[payload.handle as usize] else { panic!() };
        assert_eq!(guest.position(), mark.position);
        if torn {
            let digest = RootDigest([0xee; 32]);
            self.ledger.coverage.torn += 1;
            self.note("a torn transfer");
            self.slave_event(id, SlaveEvent::Staged { epoch: mark.epoch, digest });
            return None;
        }
        self.procs[id].applying.push_back(guest);
        Some(guest.digest())
    }

    fn replay(&mut self, id: Id, payload: Payload) {
        let Data::Log { records, end } = &self.data[payload.handle as usize] else { panic!() };
        let proc = &mut self.procs[id];
        let mut records = records.iter().copied().peekable();
        assert!(proc.guest.steps <= *end, "the log goes on where the machine stands");
        while proc.guest.steps < *end {
            while let Some((_, value)) = records.next_if(|(step, _)| *step == proc.guest.steps) {
                proc.guest.take(value, &mut self.history);
            }
            proc.outputs.extend(proc.guest.step());
        }
        assert!(records.next().is_none(), "every input of the log is taken");
    }

    fn verify(&mut self, id: Id, mark: EpochMark) {
        let proc = &mut self.procs[id];
        assert_eq!(proc.guest.position(), mark.position);
        let outputs = std::mem::take(&mut proc.outputs);
        let digest = proc.guest.digest();
        if digest != mark.digest {
            proc.mismatch_seen = true;
        } else if !proc.mismatch_seen {
            proc.secured = proc.guest.steps;
            let flushes = proc.guest.flushes;
            self.later(100, 10 * MS, Event::Durable(id, flushes));
        }
        self.slave_event(id, SlaveEvent::Replayed { epoch: mark.epoch, digest, outputs });
    }

    fn go_live(&mut self, id: Id, handover: Handover) {
        self.note(format!("{id} goes live: {handover:?}"));
        self.check_promotion(id, &handover);
        let (now, settings) = (self.now, self.settings);
        let proc = &mut self.procs[id];
        proc.tasks.clear();
        proc.epoch = handover.epoch;
        proc.session = None;
        proc.mid_epoch = true;
        proc.any_epoch = false;
        proc.role = Role::Master(Box::new(MasterProtocol::promoted(settings, handover, now)));
        let flushes = proc.guest.flushes;
        self.later(100, 10 * MS, Event::Durable(id, flushes));
        self.route_input(id);
        self.start_guest(id);
        self.arm(id);
    }
}
