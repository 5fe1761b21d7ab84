//! One process of the simulated pair: a state machine of the protocol, a guest and a disk copy.

use crate::guest::Guest;
use ft_pair_shared::protocol::{
    BulkToMaster, BulkToSlave, ControlToMaster, ControlToSlave, Envelope, EpochMark, MasterAction,
    MasterEvent, MasterProtocol, Payload, Process, SlaveAction, SlaveEvent, SlaveProtocol,
};
use ft_pair_shared::{Epoch, Generation, Output};
use std::collections::VecDeque;

pub type Id = usize;

pub enum Role {
    Master(Box<MasterProtocol>),
    Slave(Box<SlaveProtocol>),
}

/// An action computed, not carried out yet.
#[derive(Debug, Clone)]
pub enum Act {
    Master(MasterAction),
    Slave(SlaveAction),
}

/// Work of a Slave's driver, done one after the other.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    Pages(u32),
    Final(EpochMark, Payload),
    Epoch(EpochMark, Payload),
    Replay(Payload),
    Verify(EpochMark),
    Digests(EpochMark),
    Repair(EpochMark, Payload),
    Finish,
}

#[derive(Debug, Clone)]
pub enum Message {
    ControlToSlave(Envelope<ControlToSlave>),
    ControlToMaster(Envelope<ControlToMaster>),
    BulkToSlave(Envelope<BulkToSlave>),
    BulkToMaster(Envelope<BulkToMaster>),
}

#[derive(Debug, Clone)]
pub enum Event {
    /// Carry out the next action of a process.
    Act(Id),
    Tick(Id),
    Run(Id),
    Work(Id),
    Master(Id, MasterEvent),
    Slave(Id, SlaveEvent),
    Input(Id, u64, u8),
    Deliver {
        session: usize,
        channel: usize,
    },
    /// The end of a session reaches one of its ends.
    Reset {
        session: usize,
        to: Id,
    },
    Durable(Id, u64),
    Thaw(Id),
    AskWitness(Id, ft_pair_shared::protocol::WitnessRequest),
    Offer {
        by: Id,
        generation: Generation,
        epoch: Epoch,
        outputs: Vec<Output>,
    },
    Covered {
        by: Id,
        generation: Generation,
        count: u64,
    },
    Type,
    Supervise,
    Spawn,
    Fault,
    Calm,
}

impl Event {
    /// The process that cannot see this while it is frozen.
    pub fn process(&self) -> Option<Id> {
        match *self {
            Self::Act(id)
            | Self::Tick(id)
            | Self::Run(id)
            | Self::Work(id)
            | Self::Master(id, _)
            | Self::Slave(id, _)
            | Self::Input(id, ..)
            | Self::Reset { to: id, .. } => Some(id),
            _ => None,
        }
    }
}

pub struct Proc {
    pub name: Process,
    pub alive: bool,
    pub frozen_until: u64,
    pub backlog: Vec<Event>,
    pub role: Role,
    pub acts: VecDeque<Act>,
    pub acts_done: u64,
    pub tick_at: Option<u64>,
    /// What the process would find of an earlier life is in `guest` of a fresh one: `synced` is false.
    pub guest: Guest,
    pub synced: bool,
    pub disk_durable: u64,
    pub session: Option<usize>,
    /// The checkers' knowledge: up to which step this side holds a verified state or its log.
    pub secured: u64,
    pub diverged: bool,
    // The Master's driver.
    pub running: bool,
    pub mid_epoch: bool,
    pub any_epoch: bool,
    pub pause: Option<u64>,
    pub at_rest: bool,
    /// The guest is off, and the protocol was told.
    pub finished: bool,
    pub epoch: Epoch,
    pub outputs: Vec<Output>,
    pub typed: VecDeque<(u64, u8)>,
    pub records: Vec<(u64, u8)>,
    // The Slave's driver.
    pub tasks: VecDeque<Task>,
    pub working: bool,
    /// States staged, in the order in which they are applied.
    pub applying: VecDeque<Guest>,
    /// Up to which step the log is here.
    pub log_end: u64,
    pub mismatch_seen: bool,
    pub sink_last: u64,
}

impl Proc {
    pub fn new(name: Process, role: Role, guest: Guest) -> Self {
        Self {
            name,
            alive: true,
            frozen_until: 0,
            backlog: Vec::new(),
            role,
            acts: VecDeque::new(),
            acts_done: 0,
            tick_at: None,
            guest,
            synced: false,
            disk_durable: 0,
            session: None,
            secured: 0,
            diverged: false,
            running: false,
            mid_epoch: false,
            any_epoch: false,
            pause: None,
            at_rest: false,
            finished: false,
            epoch: Epoch(0),
            outputs: Vec::new(),
            typed: VecDeque::new(),
            records: Vec::new(),
            tasks: VecDeque::new(),
            working: false,
            applying: VecDeque::new(),
            log_end: 0,
            mismatch_seen: false,
            sink_last: 0,
        }
    }

    pub fn is_master(&self) -> bool {
        matches!(self.role, Role::Master(_))
    }
}
