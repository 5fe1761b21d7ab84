//! The end of an epoch on the live side.

use super::{Chunk, EpochFigures, Feed, Live, Report};
use ft_pair_machine::DiskWrites;
use ft_pair_machine::disk::{DiskControl, DiskOp};
use ft_pair_machine::epoch_digest::{EpochDigest, written_blocks};
use ft_pair_shared::bulk::{ChunkWriter, Item};
use ft_pair_shared::protocol::RootDigest;
use ft_pair_shared::{Epoch, Output, Position};
use std::collections::VecDeque;
use std::time::Instant;

/// What one epoch dirtied, kept until it is committed.
#[derive(Debug)]
pub(super) struct Dirtied {
    pub epoch: Epoch,
    pub pages: Vec<u32>,
    pub blocks: Vec<u64>,
}

/// The running epoch and what is kept of those before.
#[derive(Debug)]
pub(super) struct EpochState {
    /// The last epoch that ended.
    pub last: Epoch,
    /// Where it ended.
    pub ended_at: Position,
    pub began: Instant,
    pub outputs: Vec<Output>,
    pub inputs_taken: u64,
    pub uncommitted: VecDeque<Dirtied>,
    /// Pages and disk part of the last epoch's digest, for the final part of a synchronisation.
    pub last_pages: Vec<u32>,
    pub last_disk: [u8; 32],
}

impl EpochState {
    pub fn new(
        last: Epoch,
        at: Position,
        outputs: Vec<Output>,
        inputs_taken: u64,
        now: Instant,
    ) -> Self {
        Self {
            last,
            ended_at: at,
            began: now,
            outputs,
            inputs_taken,
            uncommitted: VecDeque::new(),
            last_pages: Vec::new(),
            last_disk: [0; 32],
        }
    }

    pub fn forget_until(&mut self, epoch: Epoch) {
        while self.uncommitted.front().is_some_and(|dirtied| dirtied.epoch <= epoch) {
            self.uncommitted.pop_front();
        }
    }
}

impl Live {
    /// True if anything happened since the last epoch's end.
    pub(super) fn epoch_open(&self) -> bool {
        self.machine.position() != self.epoch.ended_at || !self.epoch.outputs.is_empty()
    }

    pub(super) fn epoch_due(&self, now: Instant) -> bool {
        now.duration_since(self.epoch.began) >= self.settings.epoch
            || self.machine.ram().dirty_count() >= self.settings.max_dirty_pages
    }

    /// Ends the running epoch here and reports it.
    pub(super) fn end_epoch(&mut self) {
        let begin = Instant::now();
        self.tell_horizon();
        self.epoch.outputs.extend(self.machine.take_outputs());
        let position = self.machine.position();
        let dirty = self.machine.take_dirty();
        let epoch = self.epoch.last.next();
        let disk = self.machine.take_disk_writes();
        let digest = self.epoch_digest(epoch, &dirty, &disk);
        let root = digest.root;
        let state = (self.feed == Feed::State).then(|| self.state_chunk(&dirty, &digest));
        let dirty_pages = dirty.len() as u64;
        self.keep(epoch, dirty, &disk, digest);
        self.epoch.last = epoch;
        self.epoch.ended_at = position;
        let now = Instant::now();
        self.epoch.began = now;
        let pause_us = now.duration_since(begin).as_micros() as u64;
        (self.report)(Report::Epoch {
            epoch,
            position,
            digest: root,
            outputs: std::mem::take(&mut self.epoch.outputs),
            inputs_taken: self.epoch.inputs_taken,
            state,
            figures: EpochFigures { dirty_pages, pause_us },
        });
    }

    /// The epoch's digest; without anybody to compare it, one of zeros.
    fn epoch_digest(&mut self, epoch: Epoch, dirty: &[u32], disk: &DiskWrites) -> EpochDigest {
        let nothing = EpochDigest {
            root: RootDigest([0; 32]),
            pages: dirty.to_vec(),
            disk: disk.digest,
            scrubbed: [0; 32],
        };
        if !self.digesting {
            return nothing;
        }
        match self.machine.epoch_digest(epoch, dirty, disk, self.disk.as_ref()) {
            Ok(digest) => digest,
            Err(error) => {
                (self.report)(Report::HostError(error.to_string()));
                nothing
            }
        }
    }

    /// Everything that the epoch changed, for a Slave that does not execute.
    fn state_chunk(&mut self, dirty: &[u32], digest: &EpochDigest) -> Chunk {
        let mut chunk = ChunkWriter::default();
        // In the guest's order, so that the copy is at every moment one that the guest's own disk could be.
        for op in self.disk.as_ref().map(DiskControl::take_ops).unwrap_or_default() {
            match op {
                DiskOp::Write { sector, data } => chunk.put(Item::DiskWrite(sector, &data)),
                DiskOp::Flush(number) => chunk.put(Item::DiskFlush(number)),
            }
        }
        chunk.put(Item::State(&self.save()));
        chunk.put(Item::DiskDigest(&digest.disk));
        chunk.put(Item::DiskScrub(&digest.scrubbed));
        chunk.put_dirty_list(&digest.pages);
        for page in dirty {
            chunk.put_page(*page, self.machine.ram().page(*page));
        }
        let (bytes, counted) = chunk.finish();
        Chunk { bytes, counted }
    }

    fn keep(&mut self, epoch: Epoch, dirty: Vec<u32>, disk: &DiskWrites, digest: EpochDigest) {
        let blocks = written_blocks(disk);
        self.collect.note_blocks(&blocks);
        self.epoch.last_disk = digest.disk;
        self.epoch.last_pages = digest.pages;
        if self.feed == Feed::Log {
            self.epoch.uncommitted.push_back(Dirtied { epoch, pages: dirty, blocks });
        }
    }
}
