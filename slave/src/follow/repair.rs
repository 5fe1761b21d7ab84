//! The Slave's part in a repair, and faults injected to show that repairs work.

use super::{Follow, Report};
use ft_pair_machine::epoch_digest::{BLOCK_SECTORS, block_digest, scrubbed_blocks, written_blocks};
use ft_pair_shared::Epoch;
use ft_pair_shared::bulk::{ChunkWriter, Item};
use ft_pair_shared::digest;
use ft_pair_shared::protocol::EpochMark;
use ft_pair_shared::scrub;
use ft_pair_shared::supervision::Fault;
use std::collections::{BTreeSet, VecDeque};

/// What was dirtied here in epochs that are not verified yet.
#[derive(Debug, Default)]
pub(super) struct Dirtied(VecDeque<(Epoch, Vec<u32>, Vec<u64>)>);

impl Dirtied {
    pub fn note(&mut self, epoch: Epoch, pages: Vec<u32>, blocks: Vec<u64>) {
        self.0.push_back((epoch, pages, blocks));
    }

    pub fn forget_until(&mut self, epoch: Epoch) {
        self.0.retain(|(e, _, _)| *e > epoch);
    }
}

impl Follow {
    /// Digests of every page, and the numbers of every disk block, dirtied since the last verified epoch.
    pub(super) fn tell_repair_digests(&mut self, since: Epoch, at: &EpochMark) {
        self.dirtied.forget_until(since);
        let here = self.machine.take_dirty();
        let disk = self.machine.take_disk_writes();
        self.dirtied.note(at.epoch, here, written_blocks(&disk));
        let mut pages = BTreeSet::new();
        let mut blocks = BTreeSet::new();
        for (_, p, b) in &self.dirtied.0 {
            pages.extend(p.iter().copied());
            blocks.extend(b.iter().copied());
        }
        let scrubbed = self.scrubbed(since, at.epoch, &mut pages);
        let mut chunk = ChunkWriter::default();
        for page in pages {
            chunk.put(Item::PageDigest(page, &digest::page(self.machine.ram().page(page))));
        }
        for block in scrubbed.difference(&blocks) {
            let Some(disk) = &self.disk else { break };
            match block_digest(*block, disk) {
                Ok(digest) => chunk.put(Item::BlockDigest(*block, &digest)),
                Err(error) => return (self.report)(Report::Failed(error.to_string())),
            }
        }
        // What this side wrote since is discarded before the repair: all of it is asked for.
        for block in blocks {
            chunk.put(Item::DiskWrite(block * BLOCK_SECTORS, &[]));
        }
        let (chunk, _) = chunk.finish();
        (self.report)(Report::RepairDigests { at: at.epoch, chunk });
    }

    /// What the scrub looked at in the epochs to repair: that may be what differed. Adds the pages, gives
    /// the disk's blocks.
    fn scrubbed(&self, since: Epoch, at: Epoch, pages: &mut BTreeSet<u32>) -> BTreeSet<u64> {
        let total = self.machine.ram().pages();
        let sectors = self.disk.as_ref().map_or(0, |disk| disk.sectors());
        let mut blocks = BTreeSet::new();
        for epoch in (since.0 + 1..=at.0).map(Epoch) {
            pages.extend(scrub::pages(epoch, &[], total));
            blocks.extend(scrubbed_blocks(epoch, sectors));
        }
        blocks
    }

    /// Flips something past all tracking.
    pub(super) fn inject(&mut self, fault: Fault) {
        let ram = std::sync::Arc::clone(self.machine.ram());
        let ram = &*ram;
        match fault {
            Fault::Memory { gpa } => flip(ram, gpa),
            Fault::DirtyMemory => match ram.some_dirty_page() {
                Some(page) => flip(ram, ram.page_gpa(page) + 123),
                // Between two epochs nothing is dirty: as soon as something is.
                None => return self.fault_waits = true,
            },
            Fault::Register => self.machine.change_cpu(|cpu| cpu.regs[15] ^= 1 << 17),
            Fault::Device => self.flip_device(),
            Fault::Sector { sector } => self.flip_sector(sector),
        }
        tracing::warn!(?fault, "fault injected");
    }

    /// Flips the last byte of the real-time clock's state (a byte of its battery-backed memory).
    fn flip_device(&mut self) {
        let mut state = self.machine.state();
        if let Some(section) = state.sections.iter_mut().find(|section| section.id == "rtc")
            && let Some(last) = section.bytes.last_mut()
        {
            *last ^= 1;
        }
        if let Err(error) = self.machine.restore(&state) {
            tracing::warn!("no fault injected: {error}");
        }
    }

    fn flip_sector(&self, sector: u64) {
        let mut bytes = [0; 512];
        let Some(disk) = &self.disk else { return };
        if disk.read(sector, &mut bytes).is_ok() {
            bytes[100] ^= 0x40;
            if let Err(error) = disk.inject_fault(sector, &bytes) {
                tracing::warn!("no fault injected: {error}");
            }
        }
    }
}

fn flip(ram: &ft_pair_cpu::GuestRam, gpa: u64) {
    let mut byte = [0];
    if ram.read(gpa, &mut byte) {
        ram.write_untracked(gpa, &[byte[0] ^ 0x40]);
    }
}
