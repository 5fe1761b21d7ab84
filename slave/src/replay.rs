//! Executes a recorded log from its start and compares the digest at every epoch's end.

use ft_pair_machine::disk::{DiskControl, DiskFile};
use ft_pair_machine::{Machine, Stop};
use ft_pair_replay_log::{ReadError, Reader, Record};
use ft_pair_shared::protocol::RootDigest;
use ft_pair_shared::{Epoch, Position};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

#[cfg(test)]
mod tests;

/// At most so many instructions are executed between two looks at the progress.
const STRETCH: u64 = 20_000_000;

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Epochs whose digest was equal.
    pub epochs: u64,
    /// Where the machine stands.
    pub position: Position,
    /// The end of the last epoch whose digest was equal.
    pub verified: Position,
}

/// How a replay ended.
#[derive(Debug)]
pub enum Outcome {
    /// All digests were equal, to the end of the log or to where it was asked to go.
    Equal(Progress),
    /// This execution is not the recorded one.
    Diverged {
        /// How far it was equal.
        progress: Progress,
        /// Where that was noticed.
        at: Position,
        /// What was noticed.
        why: String,
    },
    /// The log stops or is refused; what was before was equal.
    BadLog {
        /// How far that went.
        progress: Progress,
        /// What is wrong with the log.
        error: ReadError,
    },
}

struct Replay<'a> {
    machine: Machine,
    disk: Option<DiskControl>,
    progress: Progress,
    watch: &'a mut dyn FnMut(&Progress),
}

/// Executes the log from its start, with a machine as it was when the recording began.
pub fn replay(
    mut machine: Machine,
    disk: Option<DiskControl>,
    reader: Reader,
    until: Option<Position>,
    watch: &mut dyn FnMut(&Progress),
) -> Outcome {
    // The live execution forgets what booting dirtied, too.
    machine.take_dirty();
    let mut replay = Replay { machine, disk, progress: Progress::default(), watch };
    let outcome = replay.records(reader, until);
    (replay.watch)(&replay.progress);
    outcome
}

impl Replay<'_> {
    fn records(&mut self, reader: Reader, until: Option<Position>) -> Outcome {
        for record in reader {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Outcome::BadLog { progress: self.progress, error },
            };
            let beyond = until.filter(|until| record.position() > *until);
            if let Err(why) = self.go_to(beyond.unwrap_or_else(|| record.position())) {
                return self.diverged(why);
            }
            if beyond.is_some() {
                break;
            }
            match record {
                Record::Input { input, .. } => self.machine.apply(&input),
                Record::EpochEnd { epoch, digest, .. } => {
                    if let Err(why) = self.compare(epoch, RootDigest(digest)) {
                        return self.diverged(why);
                    }
                }
                Record::TlbFlush { .. } => self.machine.flush_tlb(),
                Record::End { .. } => break,
            }
        }
        self.progress.position = self.machine.position();
        Outcome::Equal(self.progress)
    }

    fn diverged(&self, why: String) -> Outcome {
        Outcome::Diverged { progress: self.progress, at: self.machine.position(), why }
    }

    /// Executes to a position, idle wake-ups included.
    fn go_to(&mut self, target: Position) -> Result<(), String> {
        loop {
            let here = self.machine.position();
            if here == target {
                return Ok(());
            }
            if here > target {
                return Err(format!("passed position {target}, where the recording has an entry"));
            }
            if here.same_boundary(target) {
                // Only waking up from idling moves a position within its boundary.
                self.wake(target)?;
                continue;
            }
            let bounded = if target.retired > here.retired + STRETCH {
                Position::at(here.retired + STRETCH)
            } else {
                target
            };
            match self.machine.run(bounded) {
                Stop::Limit => {}
                Stop::Idle { .. } if self.machine.position() == target => {}
                Stop::Idle { .. } => self.wake(target)?,
                Stop::Power(event) if self.machine.position() < target => {
                    return Err(format!("the guest ended ({event:?}), the recording goes on"));
                }
                Stop::Power(_) => {}
                Stop::HostError(error) => return Err(error.to_string()),
            }
            // What is said on the console is not looked at here, and not kept.
            self.machine.take_outputs();
            self.progress.position = self.machine.position();
            (self.watch)(&self.progress);
        }
    }

    fn wake(&mut self, target: Position) -> Result<(), String> {
        // Only the run loop knows whether a halted guest has anything to wake it.
        match self.machine.run(self.machine.position()) {
            Stop::Power(event) => {
                return Err(format!(
                    "the guest ended ({event:?}), the recording goes on to {target}"
                ));
            }
            Stop::HostError(error) => return Err(error.to_string()),
            Stop::Limit | Stop::Idle { .. } => {}
        }
        if !self.machine.is_idle() {
            return Err(format!(
                "the guest executes where it idled in the recording, before {target}"
            ));
        }
        if self.machine.idle_deadline().is_none() {
            return Err(format!("the guest halts for ever, the recording goes on to {target}"));
        }
        self.machine.idle_to_deadline();
        Ok(())
    }

    fn compare(&mut self, epoch: Epoch, recorded: RootDigest) -> Result<(), String> {
        let dirty = self.machine.take_dirty();
        let disk = self.machine.take_disk_writes();
        let disk_copy = self.disk.as_ref();
        let digest = self.machine.epoch_digest(epoch, &dirty, &disk, disk_copy);
        let digest = digest.map_err(|error| error.to_string())?;
        if digest.root != recorded {
            return Err(format!(
                "the digest of epoch {} differs ({} dirty pages here)",
                epoch.0,
                dirty.len()
            ));
        }
        self.progress.epochs += 1;
        self.progress.position = self.machine.position();
        self.progress.verified = self.progress.position;
        (self.watch)(&self.progress);
        Ok(())
    }
}

/// A disk's start that is never written: what the guest writes is kept in memory.
#[derive(Debug)]
pub struct Scratch {
    base: File,
    len: u64,
    written: Mutex<HashMap<u64, Box<[u8; Self::SECTOR]>>>,
}

impl Scratch {
    const SECTOR: usize = 512;

    /// Opens the start.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        let base = File::open(path)?;
        let len = base.metadata()?.len();
        Ok(Self { base, len, written: Mutex::default() })
    }

    /// Capacity in sectors.
    pub const fn sectors(&self) -> u64 {
        self.len.div_ceil(Self::SECTOR as u64)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Box<[u8; Self::SECTOR]>>> {
        self.written.lock().expect("nobody panics while holding a scratch disk")
    }
}

impl DiskFile for Scratch {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // An image need not end with a whole sector; what is missing of the last reads as zeros.
        let there = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        buf[there..].fill(0);
        self.base.read_exact_at(&mut buf[..there], offset)?;
        let written = self.lock();
        let first = offset / Self::SECTOR as u64;
        for (i, out) in buf.chunks_exact_mut(Self::SECTOR).enumerate() {
            if let Some(bytes) = written.get(&(first + i as u64)) {
                out.copy_from_slice(&bytes[..]);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.lock();
        let first = offset / Self::SECTOR as u64;
        for (i, bytes) in data.as_chunks::<{ Self::SECTOR }>().0.iter().enumerate() {
            written.insert(first + i as u64, Box::new(*bytes));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
