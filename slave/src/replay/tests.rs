//! Recordings of small guests.

use super::{Outcome, replay};
use ft_pair_machine::{Machine, MachineConfig, MemoryDisk, Stop};
use ft_pair_replay_log::{Header, Image, Options, Reader, Record, Start, Writer};
use ft_pair_shared::{Epoch, Position};

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const CODE: u64 = 0x5000;

/// Reads 200000h, points its page table entry elsewhere without telling the TLB, and goes on reading:
/// mov eax,[200000h]; mov dword [4000h],11003h; 1: mov eax,[200000h]; mov [6000h],eax; jmp 1b
const READS_A_STALE_PAGE: &[u8] = b"\x8b\x04\x25\x00\x00\x20\x00\
    \xc7\x04\x25\x00\x40\x00\x00\x03\x10\x01\x00\
    \x8b\x04\x25\x00\x00\x20\x00\x89\x04\x25\x00\x60\x00\x00\xeb\xf0";

fn machine() -> Machine {
    let config = MachineConfig { memory: 4 << 20, ..MachineConfig::default() };
    let mut machine = Machine::new(&config, Box::new(MemoryDisk::new(vec![]))).unwrap();
    let entries = [(PML4, PDPT | 3), (PDPT, PD | 3), (PD, 0x83), (PD + 8, PT | 3), (PT, 0x1_0003)];
    for (at, entry) in entries {
        assert!(machine.ram().write(at, &u64::to_le_bytes(entry)));
    }
    assert!(machine.ram().write(0x1_0000, b"page"));
    assert!(machine.ram().write(0x1_1000, b"else"));
    assert!(machine.ram().write(CODE, READS_A_STALE_PAGE));
    machine.change_cpu(|cpu| cpu.enter_long_mode(PML4, CODE, 8, 16));
    machine
}

/// What the guest read last.
fn read(machine: &Machine) -> [u8; 4] {
    let mut bytes = [0; 4];
    assert!(machine.ram().read(0x6000, &mut bytes));
    bytes
}

fn end_epoch(machine: &mut Machine, epoch: u64, at: u64) -> Record {
    assert!(matches!(machine.run(Position::at(at)), Stop::Limit));
    let (dirty, writes) = (machine.take_dirty(), machine.take_disk_writes());
    let digest = machine.epoch_digest(Epoch(epoch), &dirty, &writes, None).unwrap();
    Record::EpochEnd { epoch: Epoch(epoch), position: Position::at(at), digest: digest.root.0 }
}

/// A guest whose state is sent to somebody after its first epoch.
fn recorded() -> Vec<Record> {
    let mut live = machine();
    live.take_dirty();
    let first = end_epoch(&mut live, 1, 100);
    assert_eq!(&read(&live), b"page", "the TLB has what the guest changed");
    live.save();
    let second = end_epoch(&mut live, 2, 200);
    assert_eq!(&read(&live), b"else", "sending the state made the change visible");
    let (flush, end) = (Position::at(100), Position::at(200));
    vec![first, Record::TlbFlush { position: flush }, second, Record::End { position: end }]
}

fn outcome(records: &[Record]) -> Outcome {
    let tmp = tempfile::tempdir().unwrap();
    let header = Header::new(Image { digest: [0; 32], bytes: 0 }, Start::PowerOn, vec![]);
    let mut writer = Writer::create(tmp.path(), &header, Options::default()).unwrap();
    records.iter().for_each(|record| writer.append(record).unwrap());
    writer.finish().unwrap();
    replay(machine(), None, Reader::open(tmp.path()).unwrap(), None, &mut |_| ())
}

#[test]
fn a_replay_flushes_the_tlb_where_the_recorded_machine_did() {
    let records = recorded();
    let equal = outcome(&records);
    assert!(matches!(equal, Outcome::Equal(progress) if progress.epochs == 2), "{equal:?}");

    let forgotten: Vec<Record> =
        records.into_iter().filter(|r| !matches!(r, Record::TlbFlush { .. })).collect();
    let diverged = outcome(&forgotten);
    assert!(
        matches!(diverged, Outcome::Diverged { progress, .. } if progress.epochs == 1),
        "{diverged:?}"
    );
}
