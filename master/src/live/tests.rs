//! What the live side collects for a Slave, without one.

use super::{Command, Feed, Live, Report, Settings};
use ft_pair_machine::{Machine, MachineConfig, MemoryDisk};
use ft_pair_shared::Epoch;
use ft_pair_shared::bulk::{Item, Items};
use ft_pair_shared::protocol::Incarnation;
use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

const MEMORY: u64 = 16 << 20;
const PAGES: usize = (MEMORY / 4096) as usize;

fn live() -> (Live, Receiver<Report>) {
    let config = MachineConfig { memory: MEMORY, ..MachineConfig::default() };
    let machine = Machine::new(&config, Box::new(MemoryDisk::new(vec![0; 4096]))).unwrap();
    let settings = Settings {
        epoch: Duration::from_millis(25),
        max_dirty_pages: 1000,
        feed: Feed::Log,
        record: false,
    };
    // Nobody waits for these commands: the test gives them itself.
    let (_, commands) = mpsc::channel();
    let (told, reports) = mpsc::channel();
    let report = Box::new(move |report| told.send(report).unwrap());
    (Live::new(machine, None, settings, Epoch(0), vec![], commands, report), reports)
}

/// Pages in the parts reported, and whether their round is done.
fn collected(reports: &Receiver<Report>) -> (BTreeSet<u32>, bool) {
    let mut pages = BTreeSet::new();
    let mut done = false;
    for report in reports.try_iter() {
        match report {
            Report::Part(chunk) => {
                pages.extend(Items::new(&chunk.bytes).map(|item| match item.unwrap() {
                    Item::ZeroPage(page) | Item::Page(page, _) => page,
                    other => panic!("{other:?} in a round of a machine without a disk"),
                }))
            }
            Report::RoundDone { .. } => done = true,
            other => panic!("{other:?}"),
        }
    }
    (pages, done)
}

#[test]
fn a_round_waits_for_the_connection() {
    let (mut live, reports) = live();
    let slave = Incarnation(2);
    live.command(Command::SyncRound { slave, round: 1 });
    for _ in 0..100 {
        live.collect_some();
    }
    let (first, done) = collected(&reports);
    assert!(!done && first.len() < PAGES, "{} pages without anybody taking them", first.len());
    live.command(Command::PartSent { slave: Incarnation(1) });
    live.collect_some();
    assert_eq!(collected(&reports).0.len(), 0, "another Slave's connection makes no room");

    let mut pages = first;
    for _ in 0..100 {
        live.command(Command::PartSent { slave });
        live.collect_some();
        let (more, done) = collected(&reports);
        pages.extend(more);
        if done {
            assert_eq!(pages.len(), PAGES);
            return;
        }
    }
    panic!("the round never ends");
}

#[test]
fn a_new_slave_is_sent_everything_though_another_died_in_the_middle() {
    let (mut live, reports) = live();
    live.command(Command::SyncRound { slave: Incarnation(2), round: 1 });
    live.collect_some();
    let (some, done) = collected(&reports);
    assert!(!some.is_empty() && !done);

    let slave = Incarnation(3);
    live.command(Command::SyncRound { slave, round: 1 });
    for _ in 0..100 {
        live.collect_some();
        live.command(Command::PartSent { slave });
    }
    let (pages, done) = collected(&reports);
    assert!(done);
    assert_eq!(pages.len(), PAGES);

    assert!(live.machine.ram().write(0x5000, b"written since"));
    live.command(Command::SyncRound { slave, round: 2 });
    live.collect_some();
    assert_eq!(collected(&reports), (BTreeSet::from([5]), true), "the second sends what changed");
}
