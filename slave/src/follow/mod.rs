//! The guest on the Slave, on a thread of its own: filled by a synchronisation, then replaying the
//! Master's log up to the horizon, or holding the image of the last commit.

mod message;
mod repair;
mod stage;
#[cfg(test)]
mod tests;

pub use message::{Command, Report};

use ft_pair_machine::disk::DiskControl;
use ft_pair_machine::epoch_digest::written_blocks;
use ft_pair_machine::{Machine, Stop};
use ft_pair_replay_log::{Decoder, Record};
use ft_pair_shared::bulk::{Item, Items};
use ft_pair_shared::protocol::{EpochMark, RootDigest};
use ft_pair_shared::supervision::Fault;
use ft_pair_shared::{Epoch, Output, Position};
use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

/// Why the thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Told to.
    Quit,
    /// The machine goes live.
    GoLive,
    /// It cannot go on; a report said why.
    Failed,
}

/// Instructions executed before commands are looked at again.
const SLICE: u64 = 200_000;
/// A digest that no machine has: what a side reports that cannot reach a position.
const UNREACHABLE: RootDigest = RootDigest([0xff; 32]);

/// What the thread leaves behind.
pub struct Left {
    /// The machine.
    pub machine: Machine,
    /// What it put out since the last verified epoch.
    pub outputs: Vec<Output>,
    /// The last input of the log that it took; `None` if there was none since its state was sent.
    pub last_input: Option<Position>,
    /// Why the thread ended.
    pub end: End,
}

/// What waits to happen at a position.
#[derive(Debug)]
enum Waiting {
    Verify(EpochMark),
    CollectRepair { since: Epoch, at: EpochMark },
}

impl Waiting {
    const fn position(&self) -> Position {
        match self {
            Self::Verify(mark) | Self::CollectRepair { at: mark, .. } => mark.position,
        }
    }
}

/// The following side's execution.
pub struct Follow {
    machine: Machine,
    disk: Option<DiskControl>,
    commands: Receiver<Command>,
    report: Box<dyn FnMut(Report) + Send>,
    /// True once the machine is whole and replays.
    replaying: bool,
    decoder: Decoder,
    log: VecDeque<Record>,
    horizon: Position,
    waiting: VecDeque<Waiting>,
    finishing: bool,
    /// This execution left the Master's: it stands until it is repaired.
    lost: Option<String>,
    outputs: Vec<Output>,
    last_input: Option<Position>,
    /// [`ft_pair_shared::supervision::Fault::DirtyMemory`] waits for a dirty page.
    fault_waits: bool,
    dirtied: repair::Dirtied,
    staged: VecDeque<stage::Staged>,
}

impl Follow {
    /// Takes a machine of the right configuration, to be filled.
    pub fn new(
        machine: Machine,
        disk: Option<DiskControl>,
        commands: Receiver<Command>,
        report: Box<dyn FnMut(Report) + Send>,
    ) -> Self {
        Self {
            machine,
            disk,
            commands,
            report,
            replaying: false,
            decoder: Decoder::new(),
            log: VecDeque::new(),
            horizon: Position::ZERO,
            waiting: VecDeque::new(),
            finishing: false,
            lost: None,
            outputs: Vec::new(),
            last_input: None,
            fault_waits: false,
            dirtied: repair::Dirtied::default(),
            staged: VecDeque::new(),
        }
    }

    /// Runs until told to end.
    pub fn run(mut self) -> Left {
        let end = loop {
            let command = if self.can_execute() {
                self.commands.try_recv().ok()
            } else {
                Some(self.commands.recv().unwrap_or(Command::Quit))
            };
            let Some(command) = command else {
                self.execute();
                continue;
            };
            match self.command(command) {
                Ok(None) => self.settle(),
                Ok(Some(end)) => break end,
                Err(error) => {
                    (self.report)(Report::Failed(error));
                    break End::Failed;
                }
            }
        };
        self.outputs.extend(self.machine.take_outputs());
        let Self { machine, outputs, last_input, .. } = self;
        Left { machine, outputs, last_input, end }
    }

    fn command(&mut self, command: Command) -> Result<Option<End>, String> {
        match command {
            Command::Fill { chunk, room } => {
                self.fill(&[chunk], stage::Sectors::Content)?;
                drop(room);
            }
            Command::SyncPages { round, chunks } => {
                self.fill(&chunks, stage::Sectors::Content)?;
                self.sync_filled()?;
                (self.report)(Report::SyncPagesStaged { round });
            }
            Command::StageFinal { mark, chunks } => self.stage_final(&mark, &chunks)?,
            Command::StageEpoch { mark, chunks } => self.stage_epoch(&mark, chunks)?,
            Command::ApplyEpoch { epoch } => self.apply_epoch(epoch)?,
            Command::Log { end, chunks } => self.append_log(end, &chunks)?,
            Command::Verify { mark } => self.waiting.push_back(Waiting::Verify(mark)),
            Command::CollectRepairDigests { since, at } => {
                self.waiting.retain(|waiting| !matches!(waiting, Waiting::Verify(_)));
                self.waiting.push_back(Waiting::CollectRepair { since, at });
            }
            Command::StageRepair { mark, chunks } => self.stage_repair(&mark, chunks)?,
            Command::ApplyRepair { epoch } => self.apply_repair(epoch)?,
            Command::Committed(epoch) => {
                self.dirtied.forget_until(epoch);
                self.commit_disk(epoch)?;
            }
            Command::FinishLog => self.finishing = true,
            Command::Inject(fault) => self.inject(fault),
            Command::GoLive => return Ok(Some(End::GoLive)),
            Command::Quit => return Ok(Some(End::Quit)),
        }
        Ok(None)
    }

    fn mark_disk(&self, epoch: Epoch) {
        if let Some(disk) = &self.disk {
            disk.mark_epoch(epoch);
        }
    }

    fn commit_disk(&self, epoch: Epoch) -> Result<(), String> {
        self.disk.as_ref().map_or(Ok(()), |disk| disk.commit(epoch).map_err(|e| e.to_string()))
    }

    fn sync_filled(&self) -> Result<(), String> {
        let error = |e| format!("cannot sync the disk copy: {e}");
        self.disk.as_ref().map_or(Ok(()), |disk| disk.sync_filled().map_err(error))
    }

    fn append_log(&mut self, end: Position, chunks: &[Vec<u8>]) -> Result<(), String> {
        for item in chunks.iter().flat_map(|chunk| Items::new(chunk)) {
            let Item::Log(mut bytes) = item.map_err(|e| e.to_string())? else { continue };
            while !bytes.is_empty() {
                self.log.push_back(self.decoder.decode(&mut bytes).map_err(|e| e.to_string())?);
            }
        }
        assert!(end >= self.horizon, "the horizon only grows");
        self.horizon = end;
        Ok(())
    }

    /// The place up to which execution may go now: the next thing that happens, else the horizon.
    fn limit(&self) -> Position {
        let record = self.log.front().map(Record::position);
        let waiting = self.waiting.front().map(Waiting::position);
        [record, waiting].into_iter().flatten().fold(self.horizon, Position::min)
    }

    fn can_execute(&self) -> bool {
        self.replaying && self.lost.is_none() && self.machine.position() < self.limit()
    }

    /// Executes for a bounded time towards the limit.
    fn execute(&mut self) {
        let (here, limit) = (self.machine.position(), self.limit());
        if here.same_boundary(limit) {
            // No input explains the difference: the Master's guest woke up from idling here.
            self.wake();
        } else {
            self.execute_to(limit.min(Position::at(here.retired + SLICE)));
        }
        if self.fault_waits && self.machine.ram().some_dirty_page().is_some() {
            self.fault_waits = false;
            self.inject(Fault::DirtyMemory);
        }
        self.settle();
    }

    fn execute_to(&mut self, limit: Position) {
        match self.machine.run(limit) {
            Stop::Limit => {}
            Stop::Idle { .. } => self.wake(),
            Stop::Power(event) => {
                if self.machine.position() < self.limit() {
                    self.lose(&format!("powers off ({event:?}) where the Master goes on"));
                }
            }
            Stop::HostError(error) => self.lose(&error.to_string()),
        }
    }

    /// The derived idle wake-up; the Master's horizon lies behind it.
    fn wake(&mut self) {
        if self.machine.position() >= self.limit() {
            return;
        }
        if !self.machine.is_idle() {
            self.lose("executes where the Master is idle");
        } else if self.machine.idle_deadline().is_none() {
            self.lose("waits for ever where the Master goes on");
        } else {
            self.machine.idle_to_deadline();
        }
    }

    fn lose(&mut self, why: &str) {
        tracing::warn!(position = %self.machine.position(), "diverged: this execution {why}");
        self.lost = Some(why.to_owned());
    }

    /// Everything that happens at the place reached: inputs, comparisons, the end of the log.
    fn settle(&mut self) {
        if !self.replaying {
            return;
        }
        loop {
            let here = self.machine.position();
            let lost = self.lost.is_some();
            if let Some(waiting) = self.waiting.front()
                && (lost || waiting.position() <= here)
                && self.log.front().is_none_or(|r| lost || r.position() >= waiting.position())
            {
                let waiting = self.waiting.pop_front().expect("there is a front");
                self.happen(waiting);
                continue;
            }
            if lost {
                break;
            }
            match self.log.front() {
                Some(record) if record.position() == here => self.take_record(),
                Some(record) if record.position() < here => self.lose("passed an input's position"),
                _ => break,
            }
        }
        let done = self.machine.position() >= self.horizon && self.log.is_empty();
        if self.finishing && (done || self.lost.is_some()) {
            self.finishing = false;
            (self.report)(Report::LogFinished);
        }
    }

    fn take_record(&mut self) {
        if let Some(Record::Input { position, input }) = self.log.pop_front() {
            self.machine.apply(&input);
            self.last_input = Some(position);
        }
    }

    fn happen(&mut self, waiting: Waiting) {
        match waiting {
            Waiting::Verify(mark) => self.verify(&mark),
            Waiting::CollectRepair { since, at } => self.tell_repair_digests(since, &at),
        }
    }

    fn verify(&mut self, mark: &EpochMark) {
        let dirty = self.machine.take_dirty();
        let disk = self.machine.take_disk_writes();
        self.mark_disk(mark.epoch);
        let reached = self.machine.position() == mark.position;
        let digest = match self.machine.epoch_digest(mark.epoch, &dirty, &disk, self.disk.as_ref())
        {
            Ok(digest) if reached => digest.root,
            Ok(_) => UNREACHABLE,
            Err(error) => return (self.report)(Report::Failed(error.to_string())),
        };
        self.dirtied.note(mark.epoch, dirty, written_blocks(&disk));
        self.outputs.extend(self.machine.take_outputs());
        let outputs = std::mem::take(&mut self.outputs);
        (self.report)(Report::Replayed { epoch: mark.epoch, digest, outputs });
    }
}
