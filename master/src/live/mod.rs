//! The guest executes live, on a thread of its own: paced to the host's clock, taking inputs at positions
//! that it records, ending epochs. It knows nothing of connections: it is told and it tells.

mod collect;
mod epoch;
mod message;
#[cfg(test)]
mod tests;

pub use message::{Chunk, Command, EpochFigures, Feed, Report};

use crate::pace::{Anchor, Pacer};
use ft_pair_machine::disk::DiskControl;
use ft_pair_machine::{Machine, Stop};
use ft_pair_replay_log::Record;
use ft_pair_shared::{Epoch, Input, Output, Position, PowerEvent};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// How long a slice of execution takes, roughly: the longest that an input waits.
const SLICE: Duration = Duration::from_micros(500);
/// How often the horizon is told while the guest runs: the Slave is this much behind at an epoch's end, and
/// each message takes time from both executions where cores are scarce.
const HORIZON: Duration = Duration::from_millis(5);
/// With so many epochs not yet committed the Slave counts as behind.
const BEHIND: usize = 2;

/// Settings of the live execution.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// An epoch ends after this time.
    pub epoch: Duration,
    /// Or when so many pages are dirty.
    pub max_dirty_pages: usize,
    /// What is fed once a Slave has the final part of its synchronisation.
    pub feed: Feed,
    /// Tell all inputs and digest every epoch, for a recording.
    pub record: bool,
}

/// Why the live execution ended.
#[derive(Debug)]
pub enum End {
    /// It was told to.
    Quit,
    /// The guest is off.
    Power(PowerEvent),
    /// The host failed it.
    HostError(String),
}

/// The live execution.
pub struct Live {
    machine: Machine,
    disk: Option<DiskControl>,
    settings: Settings,
    commands: Receiver<Command>,
    report: Box<dyn FnMut(Report) + Send>,
    pacer: Pacer,
    feed: Feed,
    /// Root digests are wanted.
    digesting: bool,
    records: Vec<Record>,
    told: Instant,
    epoch: epoch::EpochState,
    collect: collect::CollectState,
    standing: bool,
    /// Inputs that came while the guest stands: it takes them when it goes on.
    later: Vec<Command>,
}

/// What to do after commands were taken.
enum Next {
    Run,
    Quit,
}

impl Live {
    /// Takes a machine that is ready to run. `last_epoch` is the last epoch that ended in its life;
    /// `outputs` what it put out since.
    pub fn new(
        mut machine: Machine,
        disk: Option<DiskControl>,
        settings: Settings,
        last_epoch: Epoch,
        outputs: Vec<Output>,
        commands: Receiver<Command>,
        report: Box<dyn FnMut(Report) + Send>,
    ) -> Self {
        let now = Instant::now();
        let position = machine.position();
        let pacer = Pacer::new(now, machine.time_ns(), position.retired, machine.rate());
        if last_epoch == Epoch(0) {
            // What booting dirtied is no epoch's. A machine that goes live is in the middle of one.
            machine.take_dirty();
        }
        let inputs_taken = machine.console_input_next();
        if let Some(disk) = &disk {
            disk.set_unprotected(true);
        }
        Self {
            machine,
            disk,
            settings,
            commands,
            report,
            pacer,
            feed: Feed::None,
            digesting: settings.record,
            records: Vec::new(),
            told: now,
            epoch: epoch::EpochState::new(last_epoch, position, outputs, inputs_taken, now),
            collect: collect::CollectState::default(),
            standing: false,
            later: Vec::new(),
        }
    }

    /// Runs the guest until its end or a command's. Gives the machine back.
    pub fn run(mut self) -> (Machine, End) {
        let end = self.run_inner();
        if let End::Quit = end {
            self.tell_horizon();
        }
        (self.machine, end)
    }

    fn run_inner(&mut self) -> End {
        loop {
            if let Next::Quit = self.take_commands() {
                return End::Quit;
            }
            self.collect_some();
            match self.slice() {
                Stop::Limit => self.after_slice(),
                Stop::Idle { deadline } => {
                    if let Next::Quit = self.idle(deadline) {
                        return End::Quit;
                    }
                }
                Stop::Power(event) => {
                    self.end_epoch();
                    (self.report)(Report::Power(event));
                    return End::Power(event);
                }
                Stop::HostError(error) => {
                    let text = error.to_string();
                    (self.report)(Report::HostError(text.clone()));
                    return End::HostError(text);
                }
            }
        }
    }

    fn slice(&mut self) -> Stop {
        let per_slice = SLICE.as_nanos() as f64 / self.pacer.cost().max(0.1);
        let retired = self.machine.position().retired + (per_slice as u64).clamp(1000, 2_000_000);
        self.machine.run(Position::at(retired))
    }

    fn after_slice(&mut self) {
        let now = Instant::now();
        let (guest_ns, retired) = (self.machine.time_ns(), self.machine.position().retired);
        let rate = self.machine.rate();
        if let Some(anchor) = self.pacer.running(now, guest_ns, retired, rate) {
            self.set_clock(anchor);
        }
        // A Slave that is behind has enough to do: the next epoch's end tells it more.
        if now.duration_since(self.told) >= HORIZON && self.epoch.uncommitted.len() < BEHIND {
            self.tell_horizon();
        }
        if self.epoch_due(now) {
            self.end_epoch();
        }
    }

    /// The guest has halted: waits for a timer's deadline, a command, or the end of the epoch.
    fn idle(&mut self, deadline: Option<u64>) -> Next {
        self.epoch.outputs.extend(self.machine.take_outputs());
        if !self.epoch.outputs.is_empty() {
            self.end_epoch();
        }
        self.tell_horizon();
        if self.collect.can_go_on() {
            // The time is better spent on the synchronisation than on waiting.
            return self.wake_if_due(deadline, Instant::now());
        }
        let wake = deadline.map(|ns| self.pacer.instant_of(ns));
        let epoch_end = self.epoch_open().then(|| self.epoch.began + self.settings.epoch);
        let until = [wake, epoch_end].into_iter().flatten().min();
        match self.wait(until) {
            Some(command) => {
                if let Next::Quit = self.command(command) {
                    return Next::Quit;
                }
            }
            None => {
                if epoch_end.is_some_and(|end| Instant::now() >= end) {
                    self.end_epoch();
                }
            }
        }
        self.wake_if_due(deadline, Instant::now())
    }

    fn wake_if_due(&mut self, deadline: Option<u64>, now: Instant) -> Next {
        // An input may have woken the guest, or changed the clock.
        let Some(ns) = deadline else { return Next::Run };
        if self.standing || !self.machine.is_idle() || self.pacer.target(now) < ns {
            return Next::Run;
        }
        self.machine.idle_to_deadline();
        let retired = self.machine.position().retired;
        if let Some(anchor) = self.pacer.woken(now, self.machine.time_ns(), retired) {
            self.set_clock(anchor);
        }
        Next::Run
    }

    /// Waits for a command; `None` when the time is over.
    fn wait(&self, until: Option<Instant>) -> Option<Command> {
        let timeout = until
            .map_or(Duration::from_secs(3600), |t| t.saturating_duration_since(Instant::now()));
        match self.commands.recv_timeout(timeout) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Command::Quit),
        }
    }

    fn take_commands(&mut self) -> Next {
        loop {
            let command = if self.standing && !self.collect.can_go_on() {
                self.commands.recv().unwrap_or(Command::Quit)
            } else {
                match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) if self.standing => {
                        self.collect_some();
                        continue;
                    }
                    Err(TryRecvError::Empty) => return Next::Run,
                    Err(TryRecvError::Disconnected) => Command::Quit,
                }
            };
            if let Next::Quit = self.command(command) {
                return Next::Quit;
            }
        }
    }

    fn command(&mut self, command: Command) -> Next {
        match command {
            Command::Input { .. } | Command::PowerButton if self.standing => {
                self.later.push(command)
            }
            Command::Input { first, bytes } => self.console(first, bytes),
            Command::PowerButton => self.input(Input::PowerButton),
            Command::Pause { ticket } => self.pause(ticket),
            Command::Resume => self.resume(),
            Command::StopFeeding => self.stop_feeding(),
            Command::SyncRound { slave, round } => self.begin_round(slave, round),
            Command::PartSent { slave } => self.collect.part_sent(slave),
            Command::SyncFinal { slave, at } => self.send_final(slave, &at),
            Command::Repair { slave, digests } => self.send_repair(slave, &digests),
            Command::Committed(epoch) => self.epoch.forget_until(epoch),
            Command::Quit => return Next::Quit,
        }
        Next::Run
    }

    fn console(&mut self, first: u64, bytes: Vec<u8>) {
        if self.machine.is_idle() {
            let (now, retired) = (Instant::now(), self.machine.position().retired);
            if let Some(anchor) = self.pacer.woken(now, self.machine.time_ns(), retired) {
                self.set_clock(anchor);
            }
        }
        self.epoch.inputs_taken = self.epoch.inputs_taken.max(first + bytes.len() as u64);
        self.input(Input::Console { first, bytes });
    }

    fn set_clock(&mut self, anchor: Anchor) {
        let time_ns = anchor.time_ns.max(self.machine.time_ns());
        self.input(Input::Clock { time_ns, rate: anchor.rate });
    }

    /// Applies an input here and records it.
    fn input(&mut self, input: Input) {
        let position = self.machine.position();
        self.machine.apply(&input);
        if self.feed == Feed::Log || self.settings.record {
            self.records.push(Record::Input { position, input });
        }
    }

    /// Hands over the records so far, and with them the promise that nothing else happens before here.
    fn tell_horizon(&mut self) {
        self.told = Instant::now();
        let for_slave = self.feed == Feed::Log;
        if !for_slave && self.records.is_empty() {
            return;
        }
        (self.report)(Report::Log {
            for_slave,
            end: self.machine.position(),
            inputs_taken: self.epoch.inputs_taken,
            records: std::mem::take(&mut self.records),
        });
    }

    fn pause(&mut self, ticket: u64) {
        self.digesting = true;
        self.end_epoch();
        self.standing = true;
        (self.report)(Report::Paused { ticket });
    }

    fn resume(&mut self) {
        self.standing = false;
        self.pacer.stood(Instant::now(), self.machine.position().retired);
        for input in std::mem::take(&mut self.later) {
            self.command(input);
        }
    }

    fn stop_feeding(&mut self) {
        self.feed = Feed::None;
        if !self.settings.record {
            self.records.clear();
        }
        self.digesting = self.settings.record;
        self.collect = collect::CollectState::default();
        if let Some(disk) = &self.disk {
            disk.keep_ops(false);
        }
        self.epoch.forget_until(Epoch(u64::MAX));
    }
}
