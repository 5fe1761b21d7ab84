//! Taking over what the Master sends: synchronisation, and epochs of a Slave that does not execute.

use super::{Follow, Report};
use ft_pair_machine::MachineState;
use ft_pair_machine::disk::DiskControl;
use ft_pair_machine::epoch_digest::{BLOCK_SECTORS, scrub_disk, scrubbed_blocks};
use ft_pair_shared::bulk::{Item, Items, PAGE, dirty_list};
use ft_pair_shared::digest;
use ft_pair_shared::protocol::{EpochMark, RootDigest};
use ft_pair_shared::{Epoch, Position, page_digests};
use std::collections::HashMap;

/// A transfer that is here but not applied.
#[derive(Debug)]
pub(super) struct Staged {
    pub epoch: Epoch,
    pub chunks: Vec<Vec<u8>>,
    /// Digests of the pages in it.
    pages: HashMap<u32, [u8; 32]>,
}

/// What a payload's sectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sectors {
    /// Content of a copy that nobody reads yet.
    Content,
    /// What replaces sectors that differ.
    Repair,
    /// What the guest did, in its order.
    Guest,
}

/// What a payload says beside pages and sectors.
#[derive(Debug, Default)]
struct Summary {
    state: [u8; 32],
    disk: [u8; 32],
    dirty: Vec<u32>,
    /// Digests of the pages in the payload.
    pages: HashMap<u32, [u8; 32]>,
}

fn summary(chunks: &[Vec<u8>]) -> Result<Summary, String> {
    let mut sum = Summary::default();
    let mut pages: Vec<(u32, &[u8; PAGE])> = Vec::new();
    for item in chunks.iter().flat_map(|chunk| Items::new(chunk)) {
        match item.map_err(|e| e.to_string())? {
            Item::State(bytes) => sum.state = digest::bytes(bytes),
            Item::DiskDigest(digest) => sum.disk = *digest,
            Item::DirtyList(bytes) => sum.dirty = dirty_list(bytes),
            Item::ZeroPage(page) => pages.push((page, &[0; PAGE])),
            Item::Page(page, bytes) => pages.push((page, bytes)),
            _ => {}
        }
    }
    let content: Vec<_> = pages.iter().map(|(_, bytes)| *bytes).collect();
    let digests = page_digests::of_pages(&content);
    sum.pages = pages.iter().map(|(page, _)| *page).zip(digests).collect();
    Ok(sum)
}

impl Follow {
    /// Writes pages and sectors of a payload into the machine, and restores its state if one is there.
    pub(super) fn fill(&mut self, chunks: &[Vec<u8>], sectors: Sectors) -> Result<(), String> {
        for item in chunks.iter().flat_map(|chunk| Items::new(chunk)) {
            match item.map_err(|e| e.to_string())? {
                Item::ZeroPage(page) => self.put_page(page, &[0; PAGE])?,
                Item::Page(page, bytes) => self.put_page(page, bytes)?,
                Item::DiskWrite(sector, bytes) => self.put_sectors(sector, bytes, sectors)?,
                Item::DiskFlush(number) => self.flush(number)?,
                Item::State(bytes) => {
                    let state = MachineState::from_bytes(bytes).map_err(|e| e.to_string())?;
                    self.machine.restore(&state).map_err(|e| e.to_string())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn flush(&self, number: u64) -> Result<(), String> {
        let here = self.disk.as_ref().map(DiskControl::apply_flush);
        if here == Some(number) {
            return Ok(());
        }
        Err(format!("the Master's guest flushed for time {number}, here that is {here:?}"))
    }

    fn put_sectors(&self, sector: u64, bytes: &[u8], how: Sectors) -> Result<(), String> {
        let Some(disk) = &self.disk else {
            return Err("sectors were sent, but no disk is here".into());
        };
        let end = sector.checked_add(bytes.len() as u64 / 512);
        if !bytes.len().is_multiple_of(512) || end.is_none_or(|end| end > disk.sectors()) {
            return Err(format!("sector {sector} was sent, but the disk has {}", disk.sectors()));
        }
        match how {
            Sectors::Repair => disk.repair(sector, bytes),
            Sectors::Guest => disk.apply_op(sector, bytes),
            Sectors::Content => {
                let error = |e| format!("cannot write the disk copy: {e}");
                disk.fill(sector, bytes).map_err(error)?;
            }
        }
        Ok(())
    }

    fn put_page(&mut self, page: u32, bytes: &[u8; PAGE]) -> Result<(), String> {
        let ram = self.machine.ram();
        if page >= ram.pages() {
            return Err(format!("page {page} was sent, but memory has {} pages", ram.pages()));
        }
        // A page of zeros over a page of zeros would only cost the host memory.
        if ram.page(page) != bytes {
            ram.write(ram.page_gpa(page), bytes);
        }
        Ok(())
    }

    /// The digest that the machine has once `sum`'s payload is applied.
    fn digest_with(&self, sum: &Summary) -> RootDigest {
        let mut root = digest::Root::new(&sum.state, &sum.disk);
        for page in &sum.dirty {
            let staged = self.staged.iter().rev().find_map(|staged| staged.pages.get(page));
            let known = sum.pages.get(page).or(staged).copied();
            let here = || digest::page(self.machine.ram().page(*page));
            root.page(*page, &known.unwrap_or_else(here));
        }
        root.finish()
    }

    pub(super) fn stage_final(
        &mut self,
        mark: &EpochMark,
        chunks: &[Vec<u8>],
    ) -> Result<(), String> {
        let sum = summary(chunks)?;
        let digest = self.digest_with(&sum);
        self.fill(chunks, Sectors::Content)?;
        self.mark_disk(mark.epoch);
        self.commit_disk(mark.epoch)?;
        self.begin_at(mark.position)?;
        (self.report)(Report::Staged { epoch: mark.epoch, digest });
        Ok(())
    }

    /// The machine stands at `position` and follows from there.
    fn begin_at(&mut self, position: Position) -> Result<(), String> {
        let here = self.machine.position();
        if here != position {
            return Err(format!("the state sent stands at {here}, its epoch ended at {position}"));
        }
        self.machine.take_dirty();
        self.machine.take_dirty_long();
        self.machine.take_disk_writes();
        self.machine.take_outputs();
        self.outputs.clear();
        self.last_input = None;
        self.replaying = true;
        self.horizon = self.horizon.max(position);
        self.lost = None;
        Ok(())
    }

    pub(super) fn stage_epoch(
        &mut self,
        mark: &EpochMark,
        chunks: Vec<Vec<u8>>,
    ) -> Result<(), String> {
        let sum = summary(&chunks)?;
        let digest = self.digest_with(&sum);
        self.staged.push_back(Staged { epoch: mark.epoch, chunks, pages: sum.pages });
        (self.report)(Report::Staged { epoch: mark.epoch, digest });
        Ok(())
    }

    /// What was staged for this epoch; epochs are applied in the order in which they were staged.
    fn take_staged(&mut self, epoch: Epoch) -> Result<Staged, String> {
        let staged = self.staged.pop_front().filter(|staged| staged.epoch == epoch);
        staged.ok_or_else(|| format!("{epoch:?} is to be applied but not staged"))
    }

    pub(super) fn apply_epoch(&mut self, epoch: Epoch) -> Result<(), String> {
        let staged = self.take_staged(epoch)?;
        self.fill(&staged.chunks, Sectors::Guest)?;
        self.check_scrub(epoch, &staged.chunks)?;
        self.machine.take_outputs();
        self.machine.take_dirty();
        self.machine.take_dirty_long();
        self.machine.take_disk_writes();
        self.mark_disk(epoch);
        self.commit_disk(epoch)?;
        Ok(())
    }

    /// Compares the disk's scrubbed window, now that the epoch is applied. Without an execution of its own
    /// this side cannot repair what differs: it is replaced.
    fn check_scrub(&self, epoch: Epoch, chunks: &[Vec<u8>]) -> Result<(), String> {
        let mut items = chunks.iter().flat_map(|chunk| Items::new(chunk));
        let theirs = items.find_map(|item| match item {
            Ok(Item::DiskScrub(digest)) => Some(*digest),
            _ => None,
        });
        let (Some(theirs), Some(disk)) = (theirs, &self.disk) else { return Ok(()) };
        let ours = scrub_disk(epoch, disk).map_err(|e| e.to_string())?;
        if ours == theirs {
            return Ok(());
        }
        let blocks = scrubbed_blocks(epoch, disk.sectors());
        Err(format!(
            "the disk copy differs from the Master's in sectors {} to {}: it is made anew",
            blocks.start * BLOCK_SECTORS,
            blocks.end * BLOCK_SECTORS
        ))
    }

    pub(super) fn stage_repair(
        &mut self,
        mark: &EpochMark,
        chunks: Vec<Vec<u8>>,
    ) -> Result<(), String> {
        let sum = summary(&chunks)?;
        let digest = self.digest_with(&sum);
        self.staged.push_back(Staged { epoch: mark.epoch, chunks, pages: sum.pages });
        (self.report)(Report::Staged { epoch: mark.epoch, digest });
        Ok(())
    }

    pub(super) fn apply_repair(&mut self, epoch: Epoch) -> Result<(), String> {
        let staged = self.take_staged(epoch)?;
        if let Some(disk) = &self.disk {
            // What this execution wrote since the last verified epoch may be wrong, in data or in place;
            // the repair holds the Master's content of every block that either side wrote.
            disk.discard_after(disk.committed()).map_err(|e| e.to_string())?;
        }
        self.fill(&staged.chunks, Sectors::Repair)?;
        let here = self.machine.position();
        self.begin_at(here)?;
        self.restart_after_repair(here);
        self.mark_disk(epoch);
        self.commit_disk(epoch)?;
        self.dirtied.forget_until(epoch);
        Ok(())
    }

    /// Records up to the repaired position are in the repaired state already.
    fn restart_after_repair(&mut self, here: Position) {
        self.log.retain(|record| record.position() >= here);
    }
}
