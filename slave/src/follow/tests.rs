//! What the Slave's thread makes of a transfer, without a Master.

use super::{Command, End, Follow, Report};
use ft_pair_machine::{Machine, MachineConfig, MemoryDisk};
use ft_pair_shared::Epoch;
use ft_pair_shared::bulk::{ChunkWriter, Item};
use ft_pair_shared::protocol::{EpochMark, RootDigest};
use std::sync::mpsc;

fn machine() -> Machine {
    let config = MachineConfig { memory: 4 << 20, ..MachineConfig::default() };
    Machine::new(&config, Box::new(MemoryDisk::new(vec![0; 4096]))).unwrap()
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
    let (to, from) = mpsc::channel();
    let (told, reports) = mpsc::channel();
    for command in commands {
        to.send(command).unwrap();
    }
    to.send(Command::Quit).unwrap();
    let report = Box::new(move |report| told.send(report).unwrap());
    let (machine, _, end) = Follow::new(machine(), None, from, report).run();
    (reports.try_iter().collect(), end, machine)
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
