//! The guest's disk: journal in front, the copy's file behind, a thread that writes between them.

use super::file::{DiskFile, RealFile};
use super::journal::{DiskOp, EpochWrites, Journal, UnknownEpoch};
use crate::block_device::{BlockDevice, DiskError, SECTOR};
use ft_pair_shared::Epoch;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Committed bytes in memory beyond which the guest's writes wait for the writer.
pub const DEFAULT_LIMIT: u64 = 256 << 20;
/// Committed bytes without a flush after which they are written all the same.
const WRITE_BEHIND: u64 = 8 << 20;
/// Bytes between two syncs of the writer at most, about.
const BATCH: u64 = 16 << 20;
/// Committed writes without a flush are written after this time all the same.
const AGE: Duration = Duration::from_secs(1);
/// Time between attempts after the host failed.
const RETRY: Duration = Duration::from_millis(500);
/// The guest waiting this long for the writer is worth a word.
const STUCK: Duration = Duration::from_secs(5);
/// Sectors that are remembered as changed together.
const GRANULE: u64 = 128;

/// The host could not write or sync the copy's file. Nothing is lost: the data stay in memory and the
/// writer tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} the disk copy {file}: {detail}")]
pub struct DiskFault {
    /// "write" or "sync".
    pub action: &'static str,
    /// The copy.
    pub file: String,
    /// What the host said.
    pub detail: String,
}

/// What the disk tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskEvent {
    /// All writes before this flush are durable in this copy.
    Durable {
        /// Number of the flush.
        flush: u64,
    },
    /// The host failed; the writer keeps trying.
    Failed(DiskFault),
    /// The host works again.
    Recovered,
    /// The guest has been waiting for the writer for some seconds.
    Stuck {
        /// Committed bytes that wait.
        bytes: u64,
    },
}

/// Called from the writer thread, or the one that waits; it must not call back into the disk.
pub type Listener = Box<dyn Fn(&DiskEvent) + Send + Sync>;

struct State {
    journal: Journal,
    fault: Option<DiskFault>,
    stop: bool,
    /// Somebody waits for everything to be written.
    draining: u32,
    /// When the oldest committed write without a flush was seen.
    waiting_since: Option<Instant>,
    dirty: Option<BTreeSet<u64>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    file: Box<dyn DiskFile>,
    name: String,
    sectors: u64,
    limit: u64,
    listeners: Mutex<Vec<Listener>>,
}

/// A handle on a disk for everybody but the vCPU.
#[derive(Clone)]
pub struct DiskControl(Arc<Shared>);

/// The guest's disk. Dropping it stops the writer after what it is at; see [`DiskControl::drain`].
pub struct OverlayDisk {
    control: DiskControl,
    writer: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for DiskControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskControl").field("file", &self.0.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OverlayDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayDisk").field("file", &self.control.0.name).finish_non_exhaustive()
    }
}

impl OverlayDisk {
    /// Opens a copy. Nothing that the guest writes reaches the file before it is committed.
    ///
    /// # Errors
    /// When the file cannot be opened for reading and writing.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = RealFile::open(path)?;
        let sectors = file.len().div_ceil(SECTOR as u64);
        let name = path.display().to_string();
        Self::with_file(Box::new(file), name, sectors, DEFAULT_LIMIT)
    }

    /// A disk on any file, with a limit of its own for committed bytes in memory.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn with_file(
        file: Box<dyn DiskFile>,
        name: String,
        sectors: u64,
        limit: u64,
    ) -> std::io::Result<Self> {
        let state = State {
            journal: Journal::new(),
            fault: None,
            stop: false,
            draining: 0,
            waiting_since: None,
            dirty: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            file,
            name,
            sectors,
            limit,
            listeners: Mutex::default(),
        });
        let control = DiskControl(shared);
        let writer = control.clone();
        let writer = std::thread::Builder::new()
            .name("disk-writer".to_owned())
            .spawn(move || writer.run_writer())?;
        Ok(Self { control, writer: Some(writer) })
    }

    /// A handle for other threads.
    pub fn control(&self) -> DiskControl {
        self.control.clone()
    }
}

impl Drop for OverlayDisk {
    fn drop(&mut self) {
        // Also when a thread panicked with the state in hand: a second panic here would hide the first.
        self.control.0.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.control.0.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed by its thread; there is nobody to tell here.
            drop(writer.join());
        }
    }
}

impl BlockDevice for OverlayDisk {
    fn sectors(&self) -> u64 {
        self.control.0.sectors
    }

    fn read(&mut self, sector: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.control.read(sector, buf)
    }

    fn write(&mut self, sector: u64, data: &[u8]) {
        self.control.0.check_range(sector, data.len());
        let mut state = self.control.wait_for_room();
        state.note_dirty(sector, data.len());
        state.journal.write(sector, data);
        self.control.0.wake_if_ready(&state);
    }

    fn flush(&mut self) -> u64 {
        let mut state = self.control.lock();
        let n = state.journal.flush();
        self.control.0.wake_if_ready(&state);
        n
    }

    fn resume_flushes(&mut self, completed: u64) {
        self.control.lock().journal.resume_flushes(completed);
        self.control.0.changed.notify_all();
    }

    fn id(&self) -> [u8; 20] {
        // The same in both copies, or the guest could tell them apart.
        *b"ft-pair-disk-0\0\0\0\0\0\0"
    }
}

impl State {
    fn note_dirty(&mut self, sector: u64, len: usize) {
        if let (Some(dirty), true) = (&mut self.dirty, len > 0) {
            let last = sector + (len / SECTOR) as u64 - 1;
            dirty.extend(sector / GRANULE..=last / GRANULE);
        }
    }
}

impl Shared {
    fn check_range(&self, sector: u64, len: usize) {
        assert!(
            len.is_multiple_of(SECTOR)
                && sector.checked_add((len / SECTOR) as u64).is_some_and(|end| end <= self.sectors),
            "a request covers whole sectors within the capacity"
        );
    }

    fn wake_if_ready(&self, state: &State) {
        if !state.journal.is_drained() {
            self.changed.notify_all();
        }
    }

    fn tell(&self, event: &DiskEvent) {
        for listener in self.listeners.lock().expect("listeners do not panic").iter() {
            listener(event);
        }
    }

    /// Writes and syncs one batch.
    fn apply(&self, writes: &[(u64, Arc<[u8]>)]) -> Result<(), DiskFault> {
        let fault = |action| {
            let file = self.name.clone();
            move |e: std::io::Error| DiskFault { action, file, detail: e.to_string() }
        };
        for (sector, data) in writes {
            self.file.write_at(sector * SECTOR as u64, data).map_err(fault("write"))?;
        }
        self.file.sync().map_err(fault("sync"))
    }
}

impl DiskControl {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics while holding the disk's state")
    }

    /// Blocks the guest while the writer is far behind with what is committed. What is not committed does
    /// not count (only a commit lets it go), nor does the guest wait for a host that fails: its owner has
    /// been told and decides.
    fn wait_for_room(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let mut told = false;
        while state.journal.released_bytes() >= self.0.limit && state.fault.is_none() {
            let (next, timeout) =
                self.0.changed.wait_timeout(state, STUCK).expect("nobody panics holding the state");
            state = next;
            if timeout.timed_out() && !told {
                told = true;
                let bytes = state.journal.released_bytes();
                drop(state);
                self.0.tell(&DiskEvent::Stuck { bytes });
                state = self.lock();
            }
        }
        state
    }

    /// Reads as the guest would: the journal's bytes where it has them, else the file's.
    ///
    /// # Errors
    /// When the host cannot read the file.
    pub fn read(&self, sector: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.0.check_range(sector, buf.len());
        let mut missing: Vec<(usize, usize)> = Vec::new();
        {
            let state = self.lock();
            for (i, out) in buf.chunks_exact_mut(SECTOR).enumerate() {
                match state.journal.sector(sector + i as u64) {
                    Some(bytes) => out.copy_from_slice(bytes),
                    None => match missing.last_mut() {
                        Some((_, end)) if *end == i => *end = i + 1,
                        _ => missing.push((i, i + 1)),
                    },
                }
            }
        }
        // What is not in the journal now is in the file already: only the vCPU's thread adds to the
        // journal, and an entry leaves it after it is in the file.
        for (from, to) in missing {
            let at = sector + from as u64;
            let out = &mut buf[from * SECTOR..to * SECTOR];
            self.0.file.read_at(at * SECTOR as u64, out).map_err(|source| DiskError {
                sector: at,
                context: self.0.name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Capacity in sectors.
    pub fn sectors(&self) -> u64 {
        self.0.sectors
    }

    /// Ends an epoch at this point of the journal; says what it wrote.
    pub fn mark_epoch(&self, epoch: Epoch) -> EpochWrites {
        self.lock().journal.mark_epoch(epoch)
    }

    /// Writes up to the end of this epoch may go to the file. An epoch that was committed before is fine.
    ///
    /// # Errors
    /// When no end of this epoch was marked.
    pub fn commit(&self, epoch: Epoch) -> Result<(), UnknownEpoch> {
        let mut state = self.lock();
        state.journal.commit(epoch)?;
        self.0.wake_if_ready(&state);
        Ok(())
    }

    /// Rolls back to the end of this epoch.
    ///
    /// # Errors
    /// When no end of this epoch is known.
    pub fn discard_after(&self, epoch: Epoch) -> Result<(), UnknownEpoch> {
        self.lock().journal.discard_after(epoch)
    }

    /// The last committed epoch.
    pub fn committed(&self) -> Epoch {
        self.lock().journal.committed()
    }

    /// With no peer to wait for, every write is committed as it comes.
    pub fn set_unprotected(&self, unprotected: bool) {
        let mut state = self.lock();
        state.journal.set_unprotected(unprotected);
        self.0.wake_if_ready(&state);
    }

    /// All writes before this flush are durable in this copy.
    pub fn durable_flush(&self) -> u64 {
        self.lock().journal.durable()
    }

    /// Flushes of the guest so far.
    pub fn flushes(&self) -> u64 {
        self.lock().journal.flushes()
    }

    /// Bytes in memory that are not in the file yet.
    pub fn pending_bytes(&self) -> u64 {
        self.lock().journal.bytes()
    }

    /// What the host failed at last, while that lasts.
    pub fn fault(&self) -> Option<DiskFault> {
        self.lock().fault.clone()
    }

    /// Adds somebody to be told of events, in the thread where they happen.
    pub fn subscribe(&self, listener: Listener) {
        self.0.listeners.lock().expect("listeners do not panic").push(listener);
    }

    /// Waits until a flush is durable; false if it is not in time.
    ///
    /// # Errors
    /// When the host fails meanwhile.
    pub fn wait_durable(&self, flush: u64, timeout: Duration) -> Result<bool, DiskFault> {
        self.wait(timeout, |journal| journal.durable() >= flush)
    }

    /// Waits until everything that is committed is durable; false if it is not in time. What is not
    /// committed stays in memory.
    ///
    /// # Errors
    /// When the host fails meanwhile.
    pub fn drain(&self, timeout: Duration) -> Result<bool, DiskFault> {
        self.lock().draining += 1;
        self.0.changed.notify_all();
        let result = self.wait(timeout, Journal::is_drained);
        self.lock().draining -= 1;
        result
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&Journal) -> bool) -> Result<bool, DiskFault> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if done(&state.journal) {
                return Ok(true);
            }
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            state = self.0.changed.wait_timeout(state, left).expect("no panic with the state").0;
        }
    }

    /// Replaces sectors that diverged; goes to the file with the current epoch but is no write of the guest.
    pub fn repair(&self, sector: u64, data: &[u8]) {
        self.0.check_range(sector, data.len());
        let mut state = self.lock();
        state.note_dirty(sector, data.len());
        state.journal.repair(sector, data);
        self.0.wake_if_ready(&state);
    }

    /// Writes to a copy that a synchronisation fills: straight to the file, since nothing reads it yet and
    /// no crash may find it complete. The next flush that becomes durable covers it.
    ///
    /// # Errors
    /// When the host cannot.
    pub fn fill(&self, sector: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.check_range(sector, data.len());
        let pending = self.lock().journal.bytes() > 0;
        if pending {
            self.repair(sector, data);
            return Ok(());
        }
        self.0.file.write_at(sector * SECTOR as u64, data)
    }

    /// Makes durable what [`Self::fill`] wrote, so that the first flush after a synchronisation does not
    /// have to wait for the whole copy.
    ///
    /// # Errors
    /// When the host cannot.
    pub fn sync_filled(&self) -> std::io::Result<()> {
        self.0.file.sync()
    }

    /// Changes a sector behind the back of journal and digests: an injected fault.
    ///
    /// # Errors
    /// When the host cannot.
    pub fn inject_fault(&self, sector: u64, data: &[u8; SECTOR]) -> std::io::Result<()> {
        self.0.check_range(sector, SECTOR);
        if self.lock().journal.alter(sector, data) {
            return Ok(());
        }
        self.0.file.write_at(sector * SECTOR as u64, data)
    }

    /// Starts to keep what the guest does (anew), for a peer that does not execute, or stops.
    pub fn keep_ops(&self, on: bool) {
        self.lock().journal.keep_ops(on);
    }

    /// What the guest did since the last call, in order; nothing unless it is kept.
    pub fn take_ops(&self) -> Vec<DiskOp> {
        self.lock().journal.take_ops()
    }

    /// Does what a peer's guest did: writes and flushes keep their order on the way to the file.
    pub fn apply_op(&self, sector: u64, data: &[u8]) {
        self.0.check_range(sector, data.len());
        let mut state = self.lock();
        state.note_dirty(sector, data.len());
        state.journal.write(sector, data);
        self.0.wake_if_ready(&state);
    }

    /// Flushes as a peer's guest did; gives the flush's number.
    pub fn apply_flush(&self) -> u64 {
        let mut state = self.lock();
        let number = state.journal.flush();
        self.0.wake_if_ready(&state);
        number
    }

    /// Starts to remember which sectors change (anew), or stops.
    pub fn track_changes(&self, on: bool) {
        self.lock().dirty = on.then(BTreeSet::new);
    }

    /// Ranges `(first sector, sectors)` changed since the last call, ascending, rounded to some kilobytes.
    pub fn take_changes(&self) -> Vec<(u64, u64)> {
        let mut state = self.lock();
        let Some(dirty) = &mut state.dirty else { return Vec::new() };
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for granule in std::mem::take(dirty) {
            let first = granule * GRANULE;
            let count = GRANULE.min(self.0.sectors - first);
            match ranges.last_mut() {
                Some((from, n)) if *from + *n == first => *n += count,
                _ => ranges.push((first, count)),
            }
        }
        ranges
    }

    /// blake3 of sectors as the guest would read them. The caller holds the machine.
    ///
    /// # Errors
    /// When the host cannot read the file.
    pub fn digest_range(&self, first: u64, count: u64) -> Result<[u8; 32], DiskError> {
        let mut hasher = blake3::Hasher::new();
        let mut buf = vec![0; SECTOR * GRANULE as usize];
        let mut at = first;
        while at < first + count {
            let n = GRANULE.min(first + count - at) as usize * SECTOR;
            self.read(at, &mut buf[..n])?;
            hasher.update(&buf[..n]);
            at += GRANULE;
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// The writer thread.
    fn run_writer(&self) {
        let mut state = self.lock();
        loop {
            if state.stop {
                return;
            }
            match state.next_step() {
                Step::Wait(time) => {
                    state = self.0.changed.wait_timeout(state, time).expect("no panic").0;
                }
                Step::Write => {
                    let batch = state.journal.batch(BATCH).expect("there is something to write");
                    state.waiting_since = None;
                    drop(state);
                    let result = self.0.apply(&batch.writes);
                    state = self.lock();
                    let event = match result {
                        Ok(()) => {
                            state.journal.retire(&batch);
                            let recovered = state.fault.take().is_some();
                            recovered.then_some(DiskEvent::Recovered)
                        }
                        Err(fault) => {
                            let news = state.fault.as_ref() != Some(&fault);
                            state.fault = Some(fault.clone());
                            news.then_some(DiskEvent::Failed(fault))
                        }
                    };
                    let failed = state.fault.is_some();
                    let flush = state.journal.durable();
                    drop(state);
                    self.0.changed.notify_all();
                    if let Some(event) = event {
                        self.0.tell(&event);
                    }
                    if !failed {
                        self.0.tell(&DiskEvent::Durable { flush });
                    }
                    state = self.lock();
                    if failed {
                        state = self.pause(state);
                    }
                }
            }
        }
    }

    /// Waits before the next attempt, unless the disk is dropped.
    fn pause<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let until = Instant::now() + RETRY;
        while !state.stop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).expect("no panic").0;
        }
        state
    }
}

enum Step {
    Write,
    Wait(Duration),
}

impl State {
    fn next_step(&mut self) -> Step {
        const FOREVER: Duration = Duration::from_secs(3600);
        if self.journal.is_drained() {
            return Step::Wait(FOREVER);
        }
        let urgent = self.journal.flush_waits()
            || self.draining > 0
            || self.journal.released_bytes() >= WRITE_BEHIND;
        if urgent {
            return Step::Write;
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        match AGE.saturating_sub(since.elapsed()) {
            Duration::ZERO => Step::Write,
            left => Step::Wait(left),
        }
    }
}
