//! What the Slave's thread makes of a transfer, without a Master.

use super::{Command, End, Follow, Report};
use ft_pair_machine::disk::{DiskControl, OverlayDisk};
use ft_pair_machine::epoch_digest::scrub_disk;
use ft_pair_machine::{BlockDevice, Machine, MachineConfig, MemoryDisk};
use ft_pair_shared::Epoch;
use ft_pair_shared::bulk::{ChunkWriter, Item};
use ft_pair_shared::protocol::{EpochMark, RootDigest};
use std::sync::mpsc;

fn machine() -> Machine {
    machine_with(Box::new(MemoryDisk::new(vec![0; SECTORS * 512])))
}

fn machine_with(disk: Box<dyn BlockDevice>) -> Machine {
    let config = MachineConfig { memory: 4 << 20, ..MachineConfig::default() };
    Machine::new(&config, disk).unwrap()
}

/// The final part of a synchronisation from a machine with some memory written, and its digest.
fn transfer(change: impl FnOnce(&mut Vec<u8>)) -> (EpochMark, Vec<u8>) {
    let mut live = machine();
    assert!(live.ram().write(0x5_0000, b"what the guest has written"));
    let dirty = live.take_dirty();
    let writes = live.take_disk_writes();
    let digest = live.epoch_digest(Epoch(1), &dirty, &writes, None).unwrap();
    let mut chunk = ChunkWriter::default();
    chunk.put(Item::State(&live.save().to_bytes()));
    chunk.put(Item::DiskDigest(&digest.disk));
    chunk.put_dirty_list(&digest.pages);
    for page in &dirty {
        chunk.put_page(*page, live.ram().page(*page));
    }
    let (mut bytes, _) = chunk.finish();
    change(&mut bytes);
    let mark = EpochMark {
        epoch: Epoch(1),
        position: live.position(),
        digest: digest.root,
        log_pieces: 0,
        inputs_taken: 0,
        flush_needed: 0,
    };
    (mark, bytes)
}

/// What a following thread says to commands, and how it ends.
fn follow(commands: Vec<Command>) -> (Vec<Report>, End, Machine) {
    follow_on(machine(), None, commands)
}

fn follow_on(
    machine: Machine,
    disk: Option<DiskControl>,
    commands: Vec<Command>,
) -> (Vec<Report>, End, Machine) {
    let (to, from) = mpsc::channel();
    let (told, reports) = mpsc::channel();
    for command in commands {
        to.send(command).unwrap();
    }
    to.send(Command::Quit).unwrap();
    let report = Box::new(move |report| told.send(report).unwrap());
    let left = Follow::new(machine, disk, from, report).run();
    (reports.try_iter().collect(), left.end, left.machine)
}

fn staged(reports: &[Report]) -> Option<RootDigest> {
    reports.iter().find_map(|report| match report {
        Report::Staged { digest, .. } => Some(*digest),
        _ => None,
    })
}

#[test]
fn a_transfer_gives_the_digest_and_the_memory_of_its_sender() {
    let (mark, bytes) = transfer(|_| ());
    let (reports, end, machine) = follow(vec![Command::StageFinal { mark, chunks: vec![bytes] }]);
    assert_eq!(end, End::Quit);
    assert_eq!(staged(&reports), Some(mark.digest));
    let mut there = [0; 26];
    assert!(machine.ram().read(0x5_0000, &mut there));
    assert_eq!(&there, b"what the guest has written");
}

#[test]
fn a_changed_byte_changes_the_digest() {
    let (mark, bytes) = transfer(|bytes| {
        let at = bytes.windows(4).position(|w| w == b"what").unwrap();
        bytes[at] ^= 1;
    });
    let (reports, _, _) = follow(vec![Command::StageFinal { mark, chunks: vec![bytes] }]);
    assert!(staged(&reports).is_some_and(|digest| digest != mark.digest));
}

#[test]
fn a_cut_transfer_fails_the_slave_and_nothing_else() {
    let (mark, bytes) = transfer(|bytes| bytes.truncate(bytes.len() - 7));
    let (reports, end, _) = follow(vec![Command::StageFinal { mark, chunks: vec![bytes] }]);
    assert_eq!(end, End::Failed);
    assert!(matches!(reports.as_slice(), [Report::Failed(why)] if why.contains("malformed")));
}

#[test]
fn an_epoch_is_not_applied_before_it_is_staged() {
    let (_, end, _) = follow(vec![Command::ApplyEpoch { epoch: Epoch(1) }]);
    assert_eq!(end, End::Failed);
}

/// Sectors of the copies in the tests with a disk; the second epoch's scrub covers 1024 to 1535.
const SECTORS: usize = 2048;

/// A copy on a file of its own.
fn copy() -> (OverlayDisk, DiskControl, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy.img");
    std::fs::write(&path, vec![0; SECTORS * 512]).unwrap();
    let disk = OverlayDisk::open(&path).unwrap();
    let control = disk.control();
    (disk, control, dir)
}

/// An epoch in which the guest writes a sector, flushes, and writes it again.
fn epoch_of_writes(master: &DiskControl) -> (EpochMark, Vec<u8>) {
    master.apply_op(1030, &[1; 512]);
    master.apply_flush();
    master.apply_op(1030, &[2; 512]);
    let mut chunk = ChunkWriter::default();
    chunk.put(Item::DiskWrite(1030, &[1; 512]));
    chunk.put(Item::DiskFlush(1));
    chunk.put(Item::DiskWrite(1030, &[2; 512]));
    chunk.put(Item::DiskScrub(&scrub_disk(Epoch(2), master).unwrap()));
    let (first, _) = transfer(|_| ());
    (EpochMark { epoch: Epoch(2), flush_needed: 1, ..first }, chunk.finish().0)
}

fn follow_writes(corrupt: Option<u64>) -> (End, Vec<Report>, DiskControl, tempfile::TempDir) {
    let (_live, master, _dir) = copy();
    let (disk, control, dir) = copy();
    let (first, state) = transfer(|_| ());
    let (mark, chunk) = epoch_of_writes(&master);
    if let Some(sector) = corrupt {
        control.inject_fault(sector, &[9; 512]).unwrap();
    }
    let commands = vec![
        Command::StageFinal { mark: first, chunks: vec![state] },
        Command::StageEpoch { mark, chunks: vec![chunk] },
        Command::ApplyEpoch { epoch: Epoch(2) },
    ];
    let (reports, end, machine) =
        follow_on(machine_with(Box::new(disk)), Some(control.clone()), commands);
    if end == End::Quit {
        let soon = std::time::Duration::from_secs(20);
        assert_eq!(control.drain(soon), Ok(true));
    }
    drop(machine);
    (end, reports, control, dir)
}

#[test]
fn an_epochs_writes_and_flushes_are_done_in_the_guests_order() {
    let (end, _, control, dir) = follow_writes(None);
    assert_eq!(end, End::Quit);
    assert_eq!((control.flushes(), control.durable_flush()), (1, 1));
    let file = std::fs::read(dir.path().join("copy.img")).unwrap();
    assert_eq!(file[1030 * 512..1031 * 512], [2; 512]);
}

#[test]
fn a_corrupted_sector_of_a_copy_that_only_takes_over_is_found_by_the_scrub() {
    let (end, reports, _, _dir) = follow_writes(Some(1500));
    assert_eq!(end, End::Failed);
    let said = reports.iter().find_map(|report| match report {
        Report::Failed(text) => Some(text.as_str()),
        _ => None,
    });
    assert!(said.unwrap().contains("sectors 1024 to 1536"), "{said:?}");
    // Elsewhere it has its turn with another epoch.
    assert_eq!(follow_writes(Some(100)).0, End::Quit);
}
