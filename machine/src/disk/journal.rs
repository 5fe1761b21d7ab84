//! The writes that are not in the copy's file yet: ordered, divided by the guest's flushes and by epochs.
//! No I/O, no threads.

use crate::block_device::SECTOR;
use ft_pair_shared::Epoch;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Something that the guest did to its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// It wrote whole sectors.
    Write {
        /// First sector.
        sector: u64,
        /// The sectors' bytes.
        data: Arc<[u8]>,
    },
    /// It flushed; flushes are numbered from 1.
    Flush(u64),
}

/// What one epoch wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EpochWrites {
    /// blake3 over the epoch's writes and flushes in order.
    pub digest: [u8; 32],
    /// Number of writes.
    pub writes: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// There is no end of this epoch in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk journal knows no end of epoch {0}", .epoch.0)]
pub struct UnknownEpoch {
    /// The epoch.
    pub epoch: Epoch,
}

#[derive(Debug)]
enum Op {
    Write { sector: u64, data: Arc<[u8]> },
    Flush(u64),
}

/// Versions of a sector in the journal, by sequence number, ascending.
#[derive(Debug)]
struct Versions {
    newest: u64,
    older: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    epoch: Epoch,
    /// Sequence number of the first entry after the epoch.
    end: u64,
    flushes: u64,
}

/// Consecutive writes that may go to the file together, before one sync.
#[derive(Debug)]
pub(super) struct Batch {
    pub writes: Vec<(u64, Arc<[u8]>)>,
    end: u64,
    /// The flush that this batch completes.
    flush: Option<u64>,
}

/// The journal.
#[derive(Debug)]
pub(super) struct Journal {
    ops: VecDeque<Op>,
    /// Sequence number of `ops[0]`.
    first: u64,
    index: HashMap<u64, Versions>,
    /// Ends of uncommitted epochs.
    marks: VecDeque<Mark>,
    committed: Mark,
    /// Entries before this sequence number may go to the file.
    released: u64,
    /// Everything is released as it comes: there is no peer to wait for.
    unprotected: bool,
    flushes: u64,
    released_flushes: u64,
    durable: u64,
    bytes: u64,
    released_bytes: u64,
    hasher: blake3::Hasher,
    writes: EpochWrites,
    /// What the guest does, for a peer that does not execute; `None` while there is no such peer.
    kept: Option<Vec<DiskOp>>,
}

impl Journal {
    pub fn new() -> Self {
        Self {
            ops: VecDeque::new(),
            first: 0,
            index: HashMap::new(),
            marks: VecDeque::new(),
            committed: Mark::default(),
            released: 0,
            unprotected: false,
            flushes: 0,
            released_flushes: 0,
            durable: 0,
            bytes: 0,
            released_bytes: 0,
            hasher: blake3::Hasher::new(),
            writes: EpochWrites::default(),
            kept: None,
        }
    }

    /// Begins to keep what the guest does, or stops.
    pub fn keep_ops(&mut self, on: bool) {
        self.kept = on.then(Vec::new);
    }

    /// What the guest did since the last call, in order.
    pub fn take_ops(&mut self) -> Vec<DiskOp> {
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn end(&self) -> u64 {
        self.first + self.ops.len() as u64
    }

    fn op(&self, seq: u64) -> &Op {
        &self.ops[(seq - self.first) as usize]
    }

    /// The guest writes; counts towards the epoch's digest.
    pub fn write(&mut self, sector: u64, data: &[u8]) {
        self.hasher.update(&sector.to_le_bytes());
        self.hasher.update(&(data.len() as u64).to_le_bytes());
        self.hasher.update(data);
        self.writes.writes += 1;
        self.writes.bytes += data.len() as u64;
        self.repair(sector, data);
        if let (Some(kept), Some(Op::Write { data, .. })) = (&mut self.kept, self.ops.back()) {
            kept.push(DiskOp::Write { sector, data: Arc::clone(data) });
        }
    }

    /// A write that is not the guest's own.
    pub fn repair(&mut self, sector: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let seq = self.end();
        for s in sector..sector + (data.len() / SECTOR) as u64 {
            self.index
                .entry(s)
                .and_modify(|v| {
                    v.older.push_back(v.newest);
                    v.newest = seq;
                })
                .or_insert_with(|| Versions { newest: seq, older: VecDeque::new() });
        }
        self.bytes += data.len() as u64;
        self.ops.push_back(Op::Write { sector, data: data.into() });
        self.release_if_unprotected();
    }

    pub fn flush(&mut self) -> u64 {
        self.flushes += 1;
        self.hasher.update(b"flush");
        if let Some(kept) = &mut self.kept {
            kept.push(DiskOp::Flush(self.flushes));
        }
        self.ops.push_back(Op::Flush(self.flushes));
        self.release_if_unprotected();
        self.flushes
    }

    /// Sets the number of flushes of a restored guest. They count as durable after the next sync, which
    /// comes when what is pending here has been committed and written.
    pub fn resume_flushes(&mut self, completed: u64) {
        if completed == self.flushes {
            return;
        }
        self.flushes = completed;
        self.durable = self.durable.min(completed.saturating_sub(1));
        let nothing_pending = self.ops.is_empty();
        self.ops.push_back(Op::Flush(completed));
        if nothing_pending {
            self.released_flushes = completed;
            self.durable = completed.saturating_sub(1);
            self.released = self.end();
            self.committed = Mark { end: self.released, flushes: completed, ..self.committed };
        } else {
            self.release_if_unprotected();
        }
    }

    pub const fn flushes(&self) -> u64 {
        self.flushes
    }

    pub const fn durable(&self) -> u64 {
        self.durable
    }

    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub const fn released_bytes(&self) -> u64 {
        self.released_bytes
    }

    pub const fn committed(&self) -> Epoch {
        self.committed.epoch
    }

    /// The newest bytes of a sector, if they are here.
    pub fn sector(&self, sector: u64) -> Option<&[u8]> {
        let seq = self.index.get(&sector)?.newest;
        let Op::Write { sector: from, data } = self.op(seq) else {
            unreachable!("the index names writes")
        };
        let at = (sector - from) as usize * SECTOR;
        Some(&data[at..at + SECTOR])
    }

    /// Changes the newest bytes of a sector in place; false if they are not here.
    pub fn alter(&mut self, sector: u64, bytes: &[u8]) -> bool {
        let Some(seq) = self.index.get(&sector).map(|v| v.newest) else { return false };
        let Op::Write { sector: from, data } = &mut self.ops[(seq - self.first) as usize] else {
            unreachable!("the index names writes")
        };
        let at = (sector - *from) as usize * SECTOR;
        let mut altered = data.to_vec();
        altered[at..at + SECTOR].copy_from_slice(bytes);
        *data = altered.into();
        true
    }

    /// Ends an epoch here.
    pub fn mark_epoch(&mut self, epoch: Epoch) -> EpochWrites {
        let last = self.marks.back().unwrap_or(&self.committed).epoch;
        assert!(epoch > last, "epochs end in order: {epoch:?} after {last:?}");
        self.marks.push_back(Mark { epoch, end: self.end(), flushes: self.flushes });
        let digest = *self.hasher.finalize().as_bytes();
        self.hasher.reset();
        EpochWrites { digest, ..std::mem::take(&mut self.writes) }
    }

    /// What is up to the end of this epoch may go to the file.
    pub fn commit(&mut self, epoch: Epoch) -> Result<(), UnknownEpoch> {
        if epoch <= self.committed.epoch {
            return Ok(());
        }
        let at = self.marks.iter().position(|m| m.epoch == epoch).ok_or(UnknownEpoch { epoch })?;
        self.committed = self.marks[at];
        self.marks.drain(..=at);
        self.release(self.committed.end);
        Ok(())
    }

    /// Forgets what came after the end of this epoch.
    pub fn discard_after(&mut self, epoch: Epoch) -> Result<(), UnknownEpoch> {
        let mark = if epoch == self.committed.epoch {
            self.committed
        } else {
            *self.marks.iter().find(|m| m.epoch == epoch).ok_or(UnknownEpoch { epoch })?
        };
        assert!(mark.end >= self.released, "a write that may be in the file is never discarded");
        while self.end() > mark.end {
            let seq = self.end() - 1;
            if let Some(Op::Write { sector, data }) = self.ops.pop_back() {
                self.bytes -= data.len() as u64;
                for s in sector..sector + (data.len() / SECTOR) as u64 {
                    let v = self.index.get_mut(&s).expect("every pending sector is in the index");
                    assert_eq!(v.newest, seq, "the last entry is the newest version");
                    match v.older.pop_back() {
                        Some(older) => v.newest = older,
                        None => drop(self.index.remove(&s)),
                    }
                }
            }
        }
        self.marks.retain(|m| m.epoch <= epoch);
        self.flushes = mark.flushes;
        self.hasher.reset();
        self.writes = EpochWrites::default();
        Ok(())
    }

    /// Without a peer every write may go to the file at once; with one, what is there already stays so.
    pub fn set_unprotected(&mut self, unprotected: bool) {
        self.unprotected = unprotected;
        self.release_if_unprotected();
    }

    fn release_if_unprotected(&mut self) {
        if self.unprotected {
            self.release(self.end());
        }
    }

    fn release(&mut self, to: u64) {
        for seq in self.released.max(self.first)..to {
            match self.op(seq) {
                Op::Write { data, .. } => self.released_bytes += data.len() as u64,
                Op::Flush(n) => self.released_flushes = *n,
            }
        }
        self.released = self.released.max(to);
    }

    /// True if some flush waits for its writes to become durable.
    pub const fn flush_waits(&self) -> bool {
        self.released_flushes > self.durable
    }

    /// True if nothing that may go to the file is left.
    pub const fn is_drained(&self) -> bool {
        self.released <= self.first
    }

    /// The next writes for the file: up to a flush, at most about `limit` bytes.
    pub fn batch(&self, limit: u64) -> Option<Batch> {
        let mut batch = Batch { writes: Vec::new(), end: self.first, flush: None };
        let mut bytes = 0;
        while batch.end < self.released {
            match self.op(batch.end) {
                Op::Flush(n) => batch.flush = Some(*n),
                Op::Write { .. } if batch.flush.is_some() || bytes >= limit => break,
                Op::Write { sector, data } => {
                    bytes += data.len() as u64;
                    batch.writes.push((*sector, Arc::clone(data)));
                }
            }
            batch.end += 1;
        }
        (batch.end > self.first).then_some(batch)
    }

    /// A batch is in the file and synced.
    pub fn retire(&mut self, batch: &Batch) {
        while self.first < batch.end {
            let seq = self.first;
            let op = self.ops.pop_front().expect("a batch is a part of the journal");
            self.first += 1;
            let Op::Write { sector, data } = op else { continue };
            self.bytes -= data.len() as u64;
            self.released_bytes -= data.len() as u64;
            for s in sector..sector + (data.len() / SECTOR) as u64 {
                let v = self.index.get_mut(&s).expect("every pending sector is in the index");
                match v.older.pop_front() {
                    Some(oldest) => assert_eq!(oldest, seq, "versions retire in order"),
                    None => drop(self.index.remove(&s)),
                }
            }
        }
        if let Some(n) = batch.flush {
            assert!(n >= self.durable, "flushes become durable in order");
            self.durable = n;
        }
    }
}
