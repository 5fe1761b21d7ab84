//! The driver of the live side: runs the guest and carries out the protocol's actions.

use crate::guest::Power;
use crate::process::{Event, Id, Message, Role};
use crate::world::{Data, MS, World};
use ft_pair_shared::Position;
use ft_pair_shared::protocol::{Bulk, Control, EpochSummary, MasterAction, MasterEvent, Payload};

impl World {
    pub fn do_master(&mut self, id: Id, action: MasterAction) {
        match action {
            MasterAction::SendControl(Control::ToSlave(message)) => {
                self.send(id, Message::ControlToSlave(message));
            }
            MasterAction::SendBulk(Bulk::ToSlave(message)) => {
                self.send(id, Message::BulkToSlave(message));
            }
            MasterAction::SendControl(_) | MasterAction::SendBulk(_) => {
                panic!("a Master speaks to its Slave")
            }
            MasterAction::DropSlave(slave) => {
                if let Some(session) = self.procs[id].session {
                    let known = self.procs[self.sessions[session].slave].name.incarnation;
                    if known == slave {
                        self.cut(session, false);
                    }
                }
            }
            MasterAction::PauseGuest { ticket } => {
                let proc = &mut self.procs[id];
                proc.pause = Some(ticket);
                if proc.guest.power == Power::Off {
                    // Its thread has ended: nobody answers.
                    return;
                }
                if !proc.mid_epoch && proc.any_epoch {
                    proc.at_rest = true;
                    self.later(0, MS, Event::Master(id, MasterEvent::GuestPaused { ticket }));
                }
            }
            MasterAction::ResumeGuest => {
                self.procs[id].pause = None;
                self.procs[id].at_rest = false;
                self.start_guest(id);
            }
            MasterAction::Release { generation, epoch, outputs } => {
                // In order: the way to the sink is one connection.
                let offer = Event::Offer { by: id, generation, epoch, outputs };
                self.offer_sink(id, offer);
            }
            MasterAction::InputsCovered { generation, count } => {
                self.offer_sink(id, Event::Covered { by: id, generation, count });
            }
            MasterAction::AskWitness(request) => {
                self.later(100, 5 * MS, Event::AskWitness(id, request));
            }
            MasterAction::CollectSyncRound { slave, .. } => {
                let payload = self.store(Data::Nothing);
                let left_bytes = self.rng.range(0, 3000);
                let ready = MasterEvent::SyncRoundReady { slave, payload, left_bytes };
                self.later(100, 10 * MS, Event::Master(id, ready));
            }
            MasterAction::CollectSyncFinal { slave, at } => {
                self.at_rest_at(id, at.position);
                let payload = self.snapshot(id);
                let ready = MasterEvent::SyncFinalReady { slave, payload };
                self.later(100, 5 * MS, Event::Master(id, ready));
            }
            MasterAction::CollectRepair { slave, at, .. } => {
                self.at_rest_at(id, at.position);
                let payload = self.snapshot(id);
                let ready = MasterEvent::RepairReady { slave, payload };
                self.later(100, 5 * MS, Event::Master(id, ready));
            }
            MasterAction::Granted(generation) => {
                self.note(format!("{id} is live in {generation:?}"));
                self.ledger.goes_live(self.procs[id].name, generation);
            }
            MasterAction::ReportProtected(_) => {}
            MasterAction::Stop(reason) => {
                self.note(format!("{id} stops: {reason:?}"));
                self.ledger.master_stopped(self.procs[id].name, reason);
                self.crash(id);
            }
        }
    }

    /// One connection to the supervisor: in order, at the speed of a local socket.
    fn offer_sink(&mut self, id: Id, event: Event) {
        let delay = self.rng.range(10, 3 * MS);
        let at = (self.now + delay).max(self.procs[id].sink_last + 1);
        self.procs[id].sink_last = at;
        self.at(at, event);
    }

    fn at_rest_at(&self, id: Id, position: Position) {
        let proc = &self.procs[id];
        assert!(proc.at_rest, "states are collected while the guest stands");
        assert_eq!(proc.guest.position(), position);
    }

    fn snapshot(&mut self, id: Id) -> Payload {
        let guest = self.procs[id].guest;
        let torn = !self.calm && self.rng.percent(1);
        self.store(Data::State { guest, torn })
    }

    pub fn start_guest(&mut self, id: Id) {
        if !self.procs[id].running {
            self.procs[id].running = true;
            self.later(50, 4 * MS, Event::Run(id));
        }
    }

    pub fn run_guest(&mut self, id: Id) {
        self.procs[id].running = false;
        if self.procs[id].at_rest || self.procs[id].finished {
            return;
        }
        let steps = self.rng.range(2, 10);
        let before = self.procs[id].guest.flushes;
        for _ in 0..steps {
            let proc = &mut self.procs[id];
            if proc.guest.power == Power::On
                && let Some((number, value)) = proc.typed.pop_front()
            {
                assert_eq!(number, proc.guest.inputs, "input is taken in order");
                proc.records.push((proc.guest.steps, value));
                proc.guest.take(value, &mut self.history);
            }
            let proc = &mut self.procs[id];
            proc.outputs.extend(proc.guest.step());
        }
        let proc = &mut self.procs[id];
        proc.mid_epoch = true;
        let guest = proc.guest;
        if guest.flushes > before {
            self.later(100, 10 * MS, Event::Durable(id, guest.flushes));
        }
        let records = std::mem::take(&mut self.procs[id].records);
        let payload = self.store(Data::Log { records, end: guest.steps });
        let end = guest.position();
        self.master_event(id, MasterEvent::Log { end, inputs_taken: guest.inputs, payload });
        if guest.power == Power::Off {
            self.end_epoch(id);
            self.procs[id].finished = true;
            return self.master_event(id, MasterEvent::Finish);
        }
        if self.procs[id].pause.is_some() || self.rng.percent(50) {
            self.end_epoch(id);
        }
        if let Some(ticket) = self.procs[id].pause {
            self.procs[id].at_rest = true;
            self.master_event(id, MasterEvent::GuestPaused { ticket });
        } else {
            self.start_guest(id);
        }
    }

    fn end_epoch(&mut self, id: Id) {
        let state = self.snapshot(id);
        let proc = &mut self.procs[id];
        proc.epoch = proc.epoch.next();
        proc.mid_epoch = false;
        proc.any_epoch = true;
        let summary = EpochSummary {
            epoch: proc.epoch,
            position: proc.guest.position(),
            digest: proc.guest.digest(),
            outputs: std::mem::take(&mut proc.outputs),
            inputs_taken: proc.guest.inputs,
            state,
        };
        self.master_event(id, MasterEvent::EpochEnded(summary));
    }

    pub fn give_input(&mut self, id: Id, number: u64, value: u8) {
        let proc = &mut self.procs[id];
        if matches!(proc.role, Role::Master(_))
            && number == proc.guest.inputs + proc.typed.len() as u64
        {
            proc.typed.push_back((number, value));
        }
    }
}
