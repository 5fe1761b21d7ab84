//! The simulated world: time, connections, the supervisor with sink and witness, and the processes.

use crate::check::{Coverage, Ledger};
use crate::guest::{BUTTON, Guest, History, Power};
use crate::process::{Act, Event, Id, Message, Proc, Role};
use crate::rng::Rng;
use ft_pair_shared::protocol::{
    Active, Incarnation, MasterEvent, MasterProtocol, Mutations, Payload, Process, Settings, Sink,
    SinkError, SlaveEvent, SlaveProtocol, Witness,
};
use ft_pair_shared::{Epoch, Generation, Input, Output, Side};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

pub const MS: u64 = 1_000;
const MOST_PROCESSES: usize = 40;

/// Something bulk: a log piece or a state.
pub enum Data {
    Nothing,
    Log { records: Vec<(u64, u8)>, end: u64 },
    State { guest: Guest, torn: bool },
}

pub struct Session {
    pub master: Id,
    pub slave: Id,
    pub open: bool,
    /// Messages that were under way when the session ended are lost.
    pub lossy: bool,
    pub stalled_until: u64,
    /// The last delivery per direction and connection: each is in order.
    last: [u64; 4],
    under_way: [VecDeque<Message>; 4],
}

struct Due {
    at: u64,
    order: u64,
    event: Event,
}
impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub trace: bool,
    pub settings: Settings,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub procs: Vec<Proc>,
    pub sessions: Vec<Session>,
    pub data: Vec<Data>,
    pub history: History,
    pub witness: Witness,
    pub witness_away_until: u64,
    pub sink: Sink,
    pub typed: Vec<u8>,
    /// When somebody presses the power button; in some runs nobody does.
    pub button: Button,
    pub live: Id,
    pub ledger: Ledger,
    pub calm: bool,
    pub spawning: bool,
    /// Crash or freeze this process when it has carried out so many actions.
    pub ambush: Option<(Id, u64, bool)>,
    pub finished: Option<Outcome>,
    pub calm_at: u64,
    pub calm_outputs: usize,
    pub calm_inputs: u64,
}

/// The power button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    Never,
    At(u64),
    Pressed,
}

impl Button {
    pub fn pressed(self) -> bool {
        self == Self::Pressed
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Protected again, output flows.
    Recovered,
    /// The guest powered off, and everybody ended.
    Off,
    /// No side could go live: both died, or the only one was not in sync or diverged.
    Lost,
}

/// Runs one seed; panics where a promise is broken.
pub fn run(seed: u64, mutations: Mutations, trace: bool) -> (Outcome, Coverage) {
    let mut world = World::new(seed, mutations, trace);
    while world.finished.is_none() {
        let Reverse(due) = world.queue.pop().expect("the supervisor always has a next event");
        assert!(due.at >= world.now);
        world.now = due.at;
        world.dispatch(due.event);
    }
    world.check_end();
    (world.finished.unwrap(), world.ledger.coverage)
}

impl World {
    fn new(seed: u64, mutations: Mutations, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let active = if rng.percent(50) { Active::Replay } else { Active::Off };
        let settings = Settings {
            heartbeat_us: 20 * MS,
            silence_us: 200 * MS,
            witness_retry_us: 30 * MS,
            window: rng.range(2, 8),
            sync_enough_bytes: 1000,
            sync_rounds: 4,
            mutations,
            ..Settings::new(active)
        };
        let mut world = Self {
            now: 0,
            rng,
            trace,
            settings,
            queue: BinaryHeap::new(),
            order: 0,
            procs: Vec::new(),
            sessions: Vec::new(),
            data: vec![Data::Nothing],
            history: History::new(),
            witness: Witness::with_mutations(mutations),
            witness_away_until: 0,
            sink: Sink::with_mutations(mutations),
            typed: Vec::new(),
            button: Button::Never,
            live: 0,
            ledger: Ledger::default(),
            calm: false,
            spawning: false,
            ambush: None,
            finished: None,
            calm_at: 0,
            calm_outputs: 0,
            calm_inputs: 0,
        };
        let name = Process { side: Side::A, incarnation: Incarnation(1) };
        let master = MasterProtocol::first(world.settings, name, 0);
        let mut first = Proc::new(name, Role::Master(Box::new(master)), Guest::power_on());
        first.synced = true;
        world.procs.push(first);
        world.note(format!("setting {active:?}, window {}", settings.window));
        world.at(0, Event::Tick(0));
        world.start_guest(0);
        world.at(5 * MS, Event::Type);
        world.at(10 * MS, Event::Supervise);
        let faults = world.rng.range(0, 6);
        let calm_at = world.rng.range(400, 1200) * MS;
        for _ in 0..faults {
            let at = world.rng.range(20 * MS, calm_at);
            world.at(at, Event::Fault);
        }
        world.at(calm_at, Event::Calm);
        if world.rng.percent(30) {
            // Amid the faults or after them.
            let at = world.rng.range(calm_at / 2, calm_at + 200 * MS);
            world.button = Button::At(at);
        }
        world
    }

    pub fn note(&self, text: impl AsRef<str>) {
        if self.trace {
            println!("{:>9.3} ms  {}", self.now as f64 / 1000.0, text.as_ref());
        }
    }

    pub fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), order: self.order, event }));
    }

    /// After a random delay in microseconds.
    pub fn later(&mut self, low: u64, high: u64, event: Event) {
        let delay = self.rng.range(low, high);
        self.at(self.now + delay, event);
    }

    pub fn store(&mut self, data: Data) -> Payload {
        self.data.push(data);
        Payload { handle: self.data.len() as u64 - 1, bytes: 100 }
    }

    fn dispatch(&mut self, event: Event) {
        if let Some(id) = event.process() {
            if !self.procs[id].alive {
                return;
            }
            if self.procs[id].frozen_until > 0 {
                self.procs[id].backlog.push(event);
                return;
            }
        }
        match event {
            Event::Act(id) => self.act(id),
            Event::Tick(id) => self.tick(id),
            Event::Run(id) => self.run_guest(id),
            Event::Work(id) => self.work(id),
            Event::Master(id, event) => self.master_event(id, event),
            Event::Slave(id, event) => self.slave_event(id, event),
            Event::Input(id, number, value) => self.give_input(id, number, value),
            Event::Deliver { session, channel } => self.deliver(session, channel),
            Event::Reset { session, to } => self.reset(session, to),
            Event::Durable(id, flush) => self.durable(id, flush),
            Event::Thaw(id) => self.thaw(id),
            Event::AskWitness(id, request) => self.answer(id, request),
            Event::Offer { by, generation, epoch, outputs } => {
                self.offer(by, generation, epoch, &outputs);
            }
            Event::Covered { by, generation, count } => {
                if by == self.live || generation >= self.sink.generation() {
                    let _ = self.sink.covered(generation, count);
                }
            }
            Event::Type => self.type_something(),
            Event::Supervise => self.supervise(),
            Event::Spawn => self.spawn(),
            Event::Fault => self.fault(),
            Event::Calm => self.calm_down(),
        }
    }

    // Processes and their state machines.

    pub fn master_event(&mut self, id: Id, event: MasterEvent) {
        let now = self.now;
        if self.trace && event != MasterEvent::Tick {
            self.note(format!("M{id} <- {event:?}"));
        }
        let Role::Master(master) = &mut self.procs[id].role else { return };
        let acts = master.handle(now, event);
        self.computed(id, acts.into_iter().map(Act::Master).collect());
    }

    pub fn slave_event(&mut self, id: Id, event: SlaveEvent) {
        let now = self.now;
        if self.trace && event != SlaveEvent::Tick {
            self.note(format!("S{id} <- {event:?}"));
        }
        let Role::Slave(slave) = &mut self.procs[id].role else { return };
        let acts = slave.handle(now, event);
        self.computed(id, acts.into_iter().map(Act::Slave).collect());
    }

    fn computed(&mut self, id: Id, acts: Vec<Act>) {
        for act in &acts {
            self.check_computed(id, act);
        }
        let idle = self.procs[id].acts.is_empty();
        let any = !acts.is_empty();
        self.procs[id].acts.extend(acts);
        if idle && any {
            self.later(0, 200, Event::Act(id));
        }
        self.arm(id);
    }

    fn act(&mut self, id: Id) {
        if let Some((who, count, freeze)) = self.ambush
            && who == id
            && self.procs[id].acts_done >= count
        {
            self.ambush = None;
            self.note(format!("ambush of {id} before {:?}", self.procs[id].acts.front()));
            if freeze {
                let time = self.rng.range(50, 500) * MS;
                self.freeze(id, time);
                return self.at(self.now, Event::Act(id));
            }
            return self.crash(id);
        }
        let Some(act) = self.procs[id].acts.pop_front() else { return };
        self.procs[id].acts_done += 1;
        if !self.procs[id].acts.is_empty() {
            let slow = if self.rng.percent(5) { 3 * MS } else { 20 };
            self.later(0, slow, Event::Act(id));
        }
        if self.trace {
            self.note(format!("{id} does {act:?}"));
        }
        match act {
            Act::Master(action) => self.do_master(id, action),
            Act::Slave(action) => self.do_slave(id, action),
        }
    }

    pub fn arm(&mut self, id: Id) {
        let deadline = match &self.procs[id].role {
            Role::Master(master) => master.deadline(),
            Role::Slave(slave) => slave.deadline(),
        };
        let Some(deadline) = deadline else { return };
        if self.procs[id].tick_at.is_none_or(|at| deadline < at) {
            self.procs[id].tick_at = Some(deadline.max(self.now));
            self.at(deadline, Event::Tick(id));
        }
    }

    fn tick(&mut self, id: Id) {
        if self.procs[id].tick_at.is_some_and(|at| at > self.now) {
            return;
        }
        self.procs[id].tick_at = None;
        if self.procs[id].is_master() {
            self.master_event(id, MasterEvent::Tick);
        } else {
            self.slave_event(id, SlaveEvent::Tick);
        }
    }

    pub fn crash(&mut self, id: Id) {
        if !self.procs[id].alive {
            return;
        }
        self.note(format!("{id} ends"));
        self.procs[id].alive = false;
        self.ledger.coverage.died_syncing += u64::from(!self.procs[id].synced);
        if let Some(session) = self.procs[id].session {
            let lossy = self.rng.percent(50);
            self.cut(session, lossy);
        }
    }

    pub fn freeze(&mut self, id: Id, time: u64) {
        self.note(format!("{id} freezes for {} ms", time / MS));
        let until = self.now + time;
        self.procs[id].frozen_until = self.procs[id].frozen_until.max(until);
        let until = self.procs[id].frozen_until;
        self.at(until, Event::Thaw(id));
    }

    pub fn thaw(&mut self, id: Id) {
        if self.procs[id].frozen_until > self.now || !self.procs[id].alive {
            return;
        }
        self.procs[id].frozen_until = 0;
        for event in std::mem::take(&mut self.procs[id].backlog) {
            self.dispatch(event);
        }
    }

    // Connections.

    pub fn connect(&mut self, master: Id, slave: Id) {
        let session = Session {
            master,
            slave,
            open: true,
            lossy: false,
            stalled_until: 0,
            last: [0; 4],
            under_way: Default::default(),
        };
        self.sessions.push(session);
        let number = self.sessions.len() - 1;
        self.procs[master].session = Some(number);
        self.procs[slave].session = Some(number);
    }

    pub fn send(&mut self, by: Id, message: Message) {
        let Some(number) = self.procs[by].session else { return };
        let (low, high) = match message {
            Message::ControlToSlave(_) | Message::ControlToMaster(_) => (50, 2 * MS),
            Message::BulkToSlave(_) | Message::BulkToMaster(_) => (50, 8 * MS),
        };
        let delay = self.rng.range(low, high);
        let session = &mut self.sessions[number];
        if !session.open {
            return;
        }
        let channel = channel(&message);
        let last = &mut session.last[channel];
        *last = (self.now.max(session.stalled_until) + delay).max(*last + 1);
        let at = *last;
        session.under_way[channel].push_back(message);
        self.at(at, Event::Deliver { session: number, channel });
    }

    fn deliver(&mut self, number: usize, channel: usize) {
        let session = &mut self.sessions[number];
        if session.lossy {
            return;
        }
        if session.stalled_until > self.now {
            let at = session.stalled_until;
            return self.at(at, Event::Deliver { session: number, channel });
        }
        let Some(message) = session.under_way[channel].pop_front() else { return };
        let (master, slave) = (session.master, session.slave);
        self.dispatch(match message {
            Message::ControlToSlave(m) => Event::Slave(slave, SlaveEvent::Control(m)),
            Message::BulkToSlave(m) => Event::Slave(slave, SlaveEvent::Bulk(m)),
            Message::ControlToMaster(m) => Event::Master(master, MasterEvent::Control(m)),
            Message::BulkToMaster(m) => Event::Master(master, MasterEvent::Bulk(m)),
        });
    }

    /// Ends a session; both ends see it, after what is still delivered.
    pub fn cut(&mut self, number: usize, lossy: bool) {
        let session = &mut self.sessions[number];
        if !session.open {
            return;
        }
        session.open = false;
        session.lossy = lossy;
        let (master, slave, last) = (session.master, session.slave, session.last);
        for (to, channels) in [(slave, [0, 1]), (master, [2, 3])] {
            let after = channels.map(|channel| last[channel]).into_iter().max().unwrap_or(0);
            let delay = self.rng.range(10, 5 * MS);
            self.at(after.max(self.now) + delay, Event::Reset { session: number, to });
        }
    }

    fn reset(&mut self, number: usize, to: Id) {
        let session = &self.sessions[number];
        let channels = if session.slave == to { [0, 1] } else { [2, 3] };
        if !session.lossy && channels.iter().any(|c| !session.under_way[*c].is_empty()) {
            return self.at(self.now + MS, Event::Reset { session: number, to });
        }
        let slave = self.procs[session.slave].name.incarnation;
        if session.slave == to {
            self.slave_event(to, SlaveEvent::Disconnected);
        } else {
            self.master_event(to, MasterEvent::Disconnected(slave));
        }
    }

    fn durable(&mut self, id: Id, flush: u64) {
        if !self.procs[id].alive {
            return;
        }
        self.procs[id].disk_durable = self.procs[id].disk_durable.max(flush);
        let event = if self.procs[id].is_master() {
            Event::Master(id, MasterEvent::DurableUpTo(flush))
        } else {
            Event::Slave(id, SlaveEvent::DurableUpTo(flush))
        };
        self.later(0, MS, event);
    }

    // The supervisor.

    fn answer(&mut self, id: Id, request: ft_pair_shared::protocol::WitnessRequest) {
        if self.witness_away_until > self.now {
            return;
        }
        let before = self.witness.record();
        let reply = self.witness.ask(request);
        if !reply.granted {
            self.ledger.refused(before, request);
        }
        self.note(format!("witness to {id}: {reply:?}"));
        self.ledger.witness_said(reply.record);
        self.sink.granted(reply.record.generation);
        let twice = self.rng.percent(if self.calm { 0 } else { 10 });
        if twice {
            self.later(MS, 300 * MS, Event::AskWitness(id, request));
        }
        let lost = self.rng.percent(if self.calm { 0 } else { 15 });
        if lost {
            return self.note("the reply is lost");
        }
        let event = if self.procs[id].is_master() {
            Event::Master(id, MasterEvent::Witness(reply))
        } else {
            Event::Slave(id, SlaveEvent::Witness(reply))
        };
        self.later(100, 5 * MS, event);
    }

    fn offer(&mut self, by: Id, generation: Generation, epoch: Epoch, outputs: &[Output]) {
        match self.sink.take(generation, outputs) {
            Ok(new) => {
                self.ledger.coverage.output_again += u64::from(new.len() < outputs.len());
                self.ledger.left(self.procs[by].name, generation, &new);
                if self.typed.last() == Some(&BUTTON) && self.procs[by].guest.power == Power::Off {
                    let all = self.procs[by].guest.outputs == self.ledger.world.len() as u64;
                    self.ledger.coverage.powered_off += u64::from(all && !self.ledger.off);
                    self.ledger.off |= all;
                }
                self.later(50, 3 * MS, Event::Master(by, MasterEvent::Accepted(epoch)));
            }
            Err(SinkError::OldGeneration { .. }) => {
                self.ledger.coverage.refused_output += 1;
                self.note(format!("the sink refuses output of {generation:?} by {by}"));
                self.later(50, 3 * MS, Event::Master(by, MasterEvent::SinkRefused(generation)));
            }
            Err(error @ SinkError::Gap { .. }) => panic!("output was lost: {error}"),
        }
    }

    fn type_something(&mut self) {
        let value = match self.button {
            Button::At(at) if at <= self.now => {
                self.note("the power button");
                self.button = Button::Pressed;
                BUTTON
            }
            // Nothing is typed to a guest that goes off.
            Button::Pressed => return,
            _ => (self.rng.next() as u8).max(BUTTON + 1),
        };
        self.typed.push(value);
        let Input::Console { first, bytes } = self.sink.input(vec![value]) else { unreachable!() };
        assert_eq!((first, &bytes[..]), (self.typed.len() as u64 - 1, &[value][..]));
        let live = self.live;
        self.later(50, 2 * MS, Event::Input(live, first, value));
        self.later(10 * MS, 60 * MS, Event::Type);
    }

    /// A side says that it is live from here on.
    pub fn route_input(&mut self, id: Id) {
        self.live = id;
        let taken = self.procs[id].guest.inputs;
        for input in self.sink.input_after(taken) {
            let Input::Console { first, bytes } = input else { unreachable!() };
            for (at, value) in bytes.into_iter().enumerate() {
                self.at(self.now, Event::Input(id, first + at as u64, value));
            }
        }
    }

    fn supervise(&mut self) {
        self.later(10 * MS, 20 * MS, Event::Supervise);
        self.check_now();
        let live = &self.procs[self.live];
        let paired = live.session.is_some_and(|number| {
            let session = &self.sessions[number];
            session.open && self.procs[session.slave].alive && session.master == self.live
        });
        let full = self.procs.len() >= MOST_PROCESSES;
        let off = self.ledger.off;
        if live.alive && live.is_master() && !paired && !self.spawning && !full && !off {
            self.spawning = true;
            self.later(5 * MS, 80 * MS, Event::Spawn);
        }
    }

    /// Starts a Slave beside the live side, on the disk of whatever ran there last.
    fn spawn(&mut self) {
        self.spawning = false;
        let live = self.live;
        if !self.procs[live].alive || !self.procs[live].is_master() || self.ledger.off {
            return;
        }
        let side = self.procs[live].name.side.other();
        let id = self.procs.len();
        let name = Process { side, incarnation: Incarnation(id as u64 + 1) };
        let old = self.procs.iter().rev().find(|proc| proc.name.side == side);
        let old = old.map_or(Guest::power_on(), |proc| proc.guest);
        let slave = SlaveProtocol::new(self.settings, name, self.now);
        self.procs.push(Proc::new(name, Role::Slave(Box::new(slave)), old));
        self.note(format!("{id} is started as Slave of {live}"));
        self.connect(live, id);
        self.arm(id);
    }
}

fn channel(message: &Message) -> usize {
    match message {
        Message::ControlToSlave(_) => 0,
        Message::BulkToSlave(_) => 1,
        Message::ControlToMaster(_) => 2,
        Message::BulkToMaster(_) => 3,
    }
}
