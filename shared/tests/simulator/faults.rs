//! What goes wrong.

use crate::process::{Event, Id, Role};
use crate::world::{MS, World};
use ft_pair_shared::protocol::{Active, SlaveEvent};

impl World {
    fn slave_of_live(&self) -> Option<Id> {
        let session = &self.sessions[self.procs[self.live].session?];
        (session.master == self.live && self.procs[session.slave].alive).then_some(session.slave)
    }

    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        let live = self.live;
        let slave = self.slave_of_live();
        let session = self.procs[live].session;
        match self.rng.range(0, 11) {
            0 | 1 => {
                if self.may_lose_live() {
                    self.crash(live);
                }
            }
            2 => slave.into_iter().for_each(|slave| self.crash(slave)),
            3 | 4 => {
                let victim = if self.rng.percent(60) { Some(live) } else { slave };
                let freeze = self.rng.percent(50) || !self.may_lose_live();
                if let Some(victim) = victim {
                    let count = self.procs[victim].acts_done + self.rng.range(1, 60);
                    self.ambush = Some((victim, count, freeze));
                }
            }
            5 => {
                let time = self.rng.range(50, 600) * MS;
                let victim = if self.rng.percent(60) { live } else { slave.unwrap_or(live) };
                self.freeze(victim, time);
            }
            6 => {
                let lossy = self.rng.percent(50);
                if let Some(session) = session {
                    self.note("the connections break");
                    self.cut(session, lossy);
                }
            }
            7 => {
                let time = self.rng.range(20, 500) * MS;
                if let Some(session) = session {
                    self.note(format!("the connections stall for {} ms", time / MS));
                    self.sessions[session].stalled_until = self.now + time;
                }
            }
            8 => {
                let time = self.rng.range(20, 400) * MS;
                self.note(format!("the witness is away for {} ms", time / MS));
                self.witness_away_until = self.now + time;
            }
            9 | 10 => {
                if let Some(slave) = slave
                    && self.procs[slave].synced
                    && self.settings.active == Active::Replay
                    && matches!(self.procs[slave].role, Role::Slave(_))
                {
                    self.note(format!("the guest of {slave} diverges"));
                    self.procs[slave].guest.corrupt(&mut self.history);
                    self.procs[slave].diverged = true;
                    if self.rng.percent(40) {
                        let count = self.procs[live].acts_done + self.rng.range(1, 30);
                        self.ambush = Some((live, count, false));
                    }
                }
            }
            _ => {
                if let Some(slave) = slave {
                    self.note(format!("a person wants {slave} to be live"));
                    self.at(self.now, Event::Slave(slave, SlaveEvent::Failover));
                }
            }
        }
    }

    /// Most runs keep somebody to go on with; some do not.
    fn may_lose_live(&mut self) -> bool {
        self.witness.record().in_sync.is_some() || self.rng.percent(10)
    }

    pub fn calm_down(&mut self) {
        self.note("faults end");
        self.calm = true;
        self.calm_at = self.now;
        self.calm_outputs = self.ledger.world.len();
        self.calm_inputs = self.typed.len() as u64;
        self.witness_away_until = 0;
        self.ambush = None;
        for session in &mut self.sessions {
            session.stalled_until = session.stalled_until.min(self.now);
        }
        for id in 0..self.procs.len() {
            self.procs[id].frozen_until = 0;
            self.thaw(id);
        }
    }
}
