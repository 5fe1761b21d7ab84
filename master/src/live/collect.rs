//! What a Slave needs to be synchronised or repaired, collected on the live side between slices.

use super::{Chunk, Feed, Live, Report};
use ft_pair_machine::epoch_digest::{BLOCK_SECTORS, block_digest, sectors_of_block};
use ft_pair_shared::bulk::{ChunkWriter, Item, Items};
use ft_pair_shared::digest;
use ft_pair_shared::protocol::{EpochMark, Incarnation};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Pages collected between two slices.
const PAGES_AT_ONCE: usize = 256;
/// Disk blocks collected between two slices.
const BLOCKS_AT_ONCE: usize = 256;
/// Parts of a round that may wait for the connection, each up to 2 MiB.
const PARTS_WAITING: usize = 8;

/// A round under way.
#[derive(Debug)]
struct Round {
    slave: Incarnation,
    pages: VecDeque<u32>,
    blocks: VecDeque<u64>,
    /// Parts that the connection has yet to take.
    waiting: usize,
}

/// What is being collected, and the disk blocks written since the last round began.
#[derive(Debug, Default)]
pub(super) struct CollectState {
    round: Option<Round>,
    /// Blocks written since; `None` before the first round: all count as written.
    blocks: Option<BTreeSet<u64>>,
}

impl CollectState {
    /// True if a part can be collected now.
    pub fn can_go_on(&self) -> bool {
        self.round.as_ref().is_some_and(|round| round.waiting < PARTS_WAITING)
    }

    /// The connection to a Slave took a part.
    pub fn part_sent(&mut self, slave: Incarnation) {
        if let Some(round) = self.round.as_mut().filter(|round| round.slave == slave) {
            // Those of the round before may still be under way when a round begins.
            round.waiting = round.waiting.saturating_sub(1);
        }
    }

    pub fn note_blocks(&mut self, written: &[u64]) {
        if let Some(blocks) = &mut self.blocks {
            blocks.extend(written);
        }
    }
}

impl Live {
    /// Begins a round: everything at first, then what was dirtied since the round before.
    pub(super) fn begin_round(&mut self, slave: Incarnation, round: u32) {
        self.digesting = true;
        if round == 1 {
            // What an earlier Slave was sent does not help this one.
            self.collect = CollectState::default();
        }
        let dirty = self.machine.take_dirty_long();
        let (pages, blocks) = match self.collect.blocks.replace(BTreeSet::new()) {
            None => {
                let sectors = self.disk.as_ref().map_or(0, |disk| disk.sectors());
                let blocks = sectors.div_ceil(BLOCK_SECTORS);
                ((0..self.machine.ram().pages()).collect(), (0..blocks).collect())
            }
            Some(blocks) => (dirty.into(), blocks.into_iter().collect()),
        };
        self.collect.round = Some(Round { slave, pages, blocks, waiting: 0 });
    }

    /// Collects a bounded part of the round under way.
    pub(super) fn collect_some(&mut self) {
        if !self.collect.can_go_on() {
            return;
        }
        let Some(mut round) = self.collect.round.take() else { return };
        let mut chunk = ChunkWriter::default();
        let pages = round.pages.len().min(PAGES_AT_ONCE);
        for page in round.pages.drain(..pages) {
            chunk.put_page(page, self.machine.ram().page(page));
        }
        let blocks = round.blocks.len().min(BLOCKS_AT_ONCE);
        for block in round.blocks.drain(..blocks) {
            self.put_block(&mut chunk, block);
        }
        round.waiting += 1;
        self.part(chunk);
        if round.pages.is_empty() && round.blocks.is_empty() {
            let blocks = self.collect.blocks.as_ref().map_or(0, BTreeSet::len);
            let left = self.machine.ram().dirty_long_count() + blocks;
            (self.report)(Report::RoundDone { slave: round.slave, left_bytes: left as u64 * 4096 });
        } else {
            self.collect.round = Some(round);
        }
    }

    pub(super) fn put_block(&mut self, chunk: &mut ChunkWriter, block: u64) {
        let Some(disk) = &self.disk else { return };
        let (first, sectors) = sectors_of_block(block, disk.sectors());
        let mut bytes = vec![0; sectors as usize * 512];
        match disk.read(first, &mut bytes) {
            Ok(()) => chunk.put(Item::DiskWrite(first, &bytes)),
            Err(error) => (self.report)(Report::HostError(error.to_string())),
        }
    }

    /// Blocks whose digest is another one here.
    fn differing(&mut self, theirs: &BTreeMap<u64, [u8; 32]>) -> Vec<u64> {
        let Some(disk) = &self.disk else { return Vec::new() };
        let blocks = disk.sectors().div_ceil(BLOCK_SECTORS);
        let mut differing = Vec::new();
        for (block, digest) in theirs.iter().filter(|(block, _)| **block < blocks) {
            match block_digest(*block, disk) {
                Ok(ours) if ours == *digest => {}
                Ok(_) => differing.push(*block),
                Err(error) => (self.report)(Report::HostError(error.to_string())),
            }
        }
        differing
    }

    /// The machine's state, for another side.
    pub(super) fn save(&mut self) -> Vec<u8> {
        let state = self.machine.save();
        (self.report)(Report::TlbFlushed { position: self.machine.position() });
        state.to_bytes()
    }

    fn part(&mut self, chunk: ChunkWriter) {
        if !chunk.is_empty() {
            let (bytes, counted) = chunk.finish();
            (self.report)(Report::Part(Chunk { bytes, counted }));
        }
    }

    /// The guest stands at the end of an epoch: what the rounds left over, and the machine's state.
    pub(super) fn send_final(&mut self, slave: Incarnation, at: &EpochMark) {
        assert!(self.standing, "the final part is collected while the guest stands");
        assert!(at.position == self.machine.position(), "the guest stands where its epoch ended");
        assert!(self.records.is_empty(), "all inputs before an epoch's end were told with it");
        let mut chunk = ChunkWriter::default();
        for page in self.machine.take_dirty_long() {
            chunk.put_page(page, self.machine.ram().page(page));
        }
        for block in self.collect.blocks.take().unwrap_or_default() {
            self.put_block(&mut chunk, block);
        }
        chunk.put(Item::State(&self.save()));
        chunk.put(Item::DiskDigest(&self.epoch.last_disk));
        chunk.put_dirty_list(&self.epoch.last_pages);
        self.part(chunk);
        self.collect = CollectState::default();
        self.feed = self.settings.feed;
        if let Some(disk) = &self.disk {
            disk.keep_ops(self.feed == Feed::State);
        }
        (self.report)(Report::FinalDone { slave });
    }

    /// The guest stands: compares the Slave's digests with the own over the union of both dirty sets.
    pub(super) fn send_repair(&mut self, slave: Incarnation, digests: &[Vec<u8>]) {
        assert!(self.standing, "a repair is collected while the guest stands");
        let mut theirs: BTreeMap<u32, [u8; 32]> = BTreeMap::new();
        let mut blocks: BTreeSet<u64> = BTreeSet::new();
        let mut scrubbed: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
        for item in digests.iter().flat_map(|chunk| Items::new(chunk)) {
            match item {
                Ok(Item::PageDigest(page, digest)) => {
                    theirs.insert(page, *digest);
                }
                Ok(Item::DiskWrite(sector, _)) => {
                    blocks.insert(sector / BLOCK_SECTORS);
                }
                Ok(Item::BlockDigest(block, digest)) => {
                    scrubbed.insert(block, *digest);
                }
                _ => {}
            }
        }
        let mut pages: BTreeSet<u32> = theirs.keys().copied().collect();
        for dirtied in &self.epoch.uncommitted {
            pages.extend(&dirtied.pages);
            blocks.extend(&dirtied.blocks);
        }
        let mut chunk = ChunkWriter::default();
        for page in pages {
            let bytes = self.machine.ram().page(page);
            if theirs.get(&page) != Some(&digest::page(bytes)) {
                chunk.put_page(page, bytes);
            }
        }
        let diverged_pages = chunk.pages();
        blocks.extend(self.differing(&scrubbed));
        for block in blocks {
            self.put_block(&mut chunk, block);
        }
        chunk.put(Item::State(&self.save()));
        chunk.put(Item::DiskDigest(&self.epoch.last_disk));
        chunk.put_dirty_list(&self.epoch.last_pages);
        self.part(chunk);
        (self.report)(Report::RepairDone { slave, diverged_pages });
    }
}
