//! What must hold, checked from the outside: on what the processes hold, not on what they believe.

use crate::guest::{Guest, Happened};
use crate::process::{Act, Id, Role};
use crate::world::{MS, Outcome, World};
use ft_pair_shared::protocol::{
    Handover, MasterAction, Process, StopReason, WitnessRecord, WitnessRequest,
};
use ft_pair_shared::{Generation, Output};
use std::collections::{HashMap, HashSet};

const RECOVERY_US: u64 = 4_000 * MS;

/// How often what is hard to get right has happened: a simulator that never gets there shows nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    pub promotions: u64,
    pub generations: u64,
    pub repairs: u64,
    pub quiet: u64,
    pub refused_output: u64,
    pub output_again: u64,
    pub torn: u64,
    pub powered_off: u64,
    pub died_syncing: u64,
    pub fenced_masters: u64,
}

impl Coverage {
    pub fn add(&mut self, other: Self) {
        self.promotions += other.promotions;
        self.generations += other.generations;
        self.repairs += other.repairs;
        self.quiet += other.quiet;
        self.refused_output += other.refused_output;
        self.output_again += other.output_again;
        self.torn += other.torn;
        self.powered_off += other.powered_off;
        self.died_syncing += other.died_syncing;
        self.fenced_masters += other.fenced_masters;
    }

    pub fn each(&self) -> [u64; 10] {
        [
            self.promotions,
            self.generations,
            self.repairs,
            self.quiet,
            self.refused_output,
            self.output_again,
            self.torn,
            self.powered_off,
            self.died_syncing,
            self.fenced_masters,
        ]
    }
}

/// What the world and the witness have seen.
#[derive(Default)]
pub struct Ledger {
    /// Every byte that left, in order.
    pub world: Vec<u8>,
    pub coverage: Coverage,
    /// The guest's last word is out.
    pub off: bool,
    owners: HashMap<Generation, Process>,
    newest: Generation,
    live: HashMap<Generation, Process>,
    /// Corruption that no digest could show before a promotion: part of the guest from then on.
    undetected: HashSet<usize>,
}

impl Ledger {
    pub fn witness_said(&mut self, record: WitnessRecord) {
        assert!(record.generation >= self.newest, "generations are never taken back");
        self.newest = record.generation;
        self.coverage.generations = record.generation.0;
        if let Some(owner) = record.owner {
            let known = *self.owners.entry(record.generation).or_insert(owner);
            assert_eq!(known, owner, "a generation has one owner");
        }
    }

    /// Who is in sync with the owner, or is the owner, is not refused the next generation.
    pub fn refused(&self, before: WitnessRecord, request: WitnessRequest) {
        if let WitnessRequest::Claim { generation, by } = request {
            let entitled = [before.owner, before.in_sync].contains(&Some(by));
            let next = before.generation.next() == generation;
            assert!(!(entitled && next), "who may win is not turned away");
        }
    }

    pub fn goes_live(&mut self, who: Process, generation: Generation) {
        let first = *self.live.entry(generation).or_insert(who);
        assert_eq!(first, who, "at most one side is live per generation");
        assert_eq!(self.owners.get(&generation), Some(&who), "who is live won its generation");
    }

    pub fn master_stopped(&mut self, who: Process, reason: StopReason) {
        if reason == StopReason::Finished {
            assert!(self.off, "a Master finishes once the guest's last word is out");
            return;
        }
        assert_eq!(reason, StopReason::Fenced, "else it stops only if fenced");
        assert_ne!(
            self.owners.get(&self.newest),
            Some(&who),
            "who won the newest generation is not fenced"
        );
        self.coverage.fenced_masters += 1;
    }

    pub fn left(&mut self, who: Process, generation: Generation, outputs: &[Output]) {
        for output in outputs {
            assert_eq!(generation, self.newest, "a fenced side releases nothing");
            assert_eq!(self.owners.get(&generation), Some(&who), "only who won releases");
            assert_eq!(output.seq, self.world.len() as u64, "output leaves once and in order");
            assert_eq!(output.bytes.len(), 1);
            assert!(!self.off, "nothing comes after the last word");
            self.world.extend(&output.bytes);
        }
    }
}

impl World {
    /// A process has decided to do this: may it?
    pub fn check_computed(&self, id: Id, act: &Act) {
        let record = self.witness.record();
        let name = Some(self.procs[id].name);
        if let Act::Master(MasterAction::ReportProtected(true)) = act {
            assert!(
                record.in_sync.is_some() || record.owner != name,
                "protected is who has a peer that may take over"
            );
        }
        let Act::Master(MasterAction::Release { generation, outputs, .. }) = act else { return };
        if *generation != record.generation || record.owner != name {
            // Of an older generation: the sink has to refuse it. A newer one nobody granted.
            assert!(*generation < record.generation, "a generation is used after it was granted");
            return;
        }
        let peer = record.in_sync.map(|peer| self.find(peer));
        for output in outputs {
            assert!(
                output.after_flush <= self.procs[id].disk_durable,
                "output leaves after its flush is durable"
            );
            let Some(peer) = peer else { continue };
            assert!(
                output.position.retired <= peer.secured,
                "output leaves after the other side holds its epoch"
            );
            assert!(
                output.after_flush <= peer.disk_durable,
                "output leaves after its flush is durable on both sides"
            );
        }
    }

    fn find(&self, name: Process) -> &crate::process::Proc {
        self.procs.iter().find(|proc| proc.name == name).expect("the witness knows processes")
    }

    /// A side goes live: from a state that contradicts nothing that anybody has seen.
    pub fn check_promotion(&mut self, id: Id, handover: &Handover) {
        self.ledger.coverage.promotions += 1;
        let proc = &self.procs[id];
        assert!(proc.synced, "only a side that was synchronised goes live");
        assert_eq!(proc.guest.position(), handover.position, "a side goes live where it says");
        assert_eq!(proc.guest.inputs, handover.inputs_taken);
        assert!(proc.guest.steps >= proc.secured, "a side goes live from its commit or later");
        let (guest, secured, log_end) = (proc.guest, proc.secured, proc.log_end);
        assert!(guest.steps >= log_end, "a side goes live from the end of its log");
        for (node, what) in self.history.path(guest.node) {
            if let Happened::Corruption { step } = what {
                if step >= secured {
                    self.ledger.undetected.insert(node);
                } else {
                    assert!(
                        self.ledger.undetected.contains(&node),
                        "a diverged state is not gone live from"
                    );
                }
            }
        }
        assert!(!self.procs[id].mismatch_seen, "after a mismatch only a repaired state goes live");
        self.check_legal(guest, true);
    }

    /// Executes a history again from power-on and compares everything with what was seen.
    fn check_legal(&self, guest: Guest, all: bool) {
        let mut again = Guest::power_on();
        let mut outputs = Vec::new();
        for (node, what) in self.history.path(guest.node) {
            let (Happened::Input { step, .. } | Happened::Corruption { step }) = what else {
                continue;
            };
            while again.steps < step {
                outputs.extend(again.step().map(|output| output.bytes[0]));
            }
            match what {
                Happened::Input { number, value, .. } => {
                    assert_eq!(number, again.inputs, "inputs are taken in order, none twice");
                    assert_eq!(value, self.typed[number as usize], "inputs are what was typed");
                    again.feel(value);
                }
                _ => {
                    assert!(self.ledger.undetected.contains(&node), "a diverged state is not used");
                    again.hash = crate::rng::mix(again.hash, 0xbad);
                }
            }
        }
        while again.steps < guest.steps {
            outputs.extend(again.step().map(|output| output.bytes[0]));
        }
        again.node = guest.node;
        assert_eq!(again, guest, "the state is a legal execution");
        let world = &self.ledger.world;
        if all {
            assert!(
                outputs.len() >= world.len(),
                "no side goes live before the last released position"
            );
        }
        let both = outputs.len().min(world.len());
        assert_eq!(outputs[..both], world[..both], "nothing that the world saw is contradicted");
    }

    pub fn check_slave_stop(&self, id: Id, reason: StopReason) {
        let record = self.witness.record();
        let name = self.procs[id].name;
        match reason {
            StopReason::Fenced => {
                assert_ne!(record.owner, Some(name), "who won is not turned away");
            }
            StopReason::LostBeforeSynced => {
                assert_ne!(record.in_sync, Some(name), "a side in sync goes live or is fenced");
            }
            StopReason::BadTransfer => {}
            StopReason::Finished => {
                assert!(self.ledger.off, "a Slave is let go once the guest's last word is out");
            }
            StopReason::Failed => panic!("nobody asked {id} to end"),
        }
    }

    /// After the faults: does the pair recover, or is there nobody left to go on?
    pub fn check_now(&mut self) {
        if !self.calm || self.now < self.calm_at + 50 * MS {
            return;
        }
        let record = self.witness.record();
        let alive = |who: Option<Process>| {
            who.and_then(|who| self.procs.iter().position(|proc| proc.name == who && proc.alive))
        };
        let (owner, heir) = (alive(record.owner), alive(record.in_sync));
        let waited = self.now - self.calm_at;
        if self.ledger.off {
            // Everybody ends by itself; a Slave that missed the goodbye goes live, and finds nothing to do.
            if self.procs.iter().all(|proc| !proc.alive) {
                self.finished = Some(Outcome::Off);
            }
            assert!(waited < RECOVERY_US, "after the guest's last word all processes end");
            return;
        }
        if owner.is_none() && heir.is_none() && waited > 600 * MS {
            let live = self.procs.iter().any(|proc| proc.alive && proc.is_master());
            if !live && record.owner.is_some() {
                self.finished = Some(Outcome::Lost);
                return;
            }
        }
        let recovered = !self.button.pressed()
            && owner.is_some_and(|owner| {
                let proc = &self.procs[owner];
                let Role::Master(master) = &proc.role else { return false };
                let slave = heir.is_some_and(|heir| self.procs[heir].session == proc.session);
                let inputs = proc.guest.inputs >= self.calm_inputs;
                slave
                    && inputs
                    && master.protected()
                    && self.ledger.world.len() > self.calm_outputs + 10
            });
        if recovered {
            self.finished = Some(Outcome::Recovered);
        }
        assert!(waited < RECOVERY_US, "after the faults the guest goes on and is protected again");
    }

    pub fn check_end(&self) {
        if self.finished == Some(Outcome::Recovered) {
            let owner = self.witness.record().owner.expect("somebody is live");
            self.check_legal(self.find(owner).guest, true);
        }
    }
}
