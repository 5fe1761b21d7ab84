//! What the live side tells and collects, without a Slave.

use super::{Command, Feed, Live, Report, Settings};
use ft_pair_machine::{Machine, MachineConfig, MemoryDisk};
use ft_pair_shared::Epoch;
use ft_pair_shared::bulk::{Item, Items};
use ft_pair_shared::protocol::{EpochMark, Incarnation, RootDigest};
use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

const MEMORY: u64 = 16 << 20;
const PAGES: usize = (MEMORY / 4096) as usize;

fn live() -> (Live, Receiver<Report>) {
    live_from(Epoch(0), Feed::Log, false, |_| ())
}

/// A machine after an epoch in its life; `before` is what happened to it earlier.
fn live_from(
    epoch: Epoch,
    feed: Feed,
    record: bool,
    before: impl FnOnce(&Machine),
) -> (Live, Receiver<Report>) {
    let config = MachineConfig { memory: MEMORY, ..MachineConfig::default() };
    let machine = Machine::new(&config, Box::new(MemoryDisk::new(vec![0; 4096]))).unwrap();
    before(&machine);
    let settings =
        Settings { epoch: Duration::from_millis(25), max_dirty_pages: 1000, feed, record };
    // Nobody waits for these commands: the test gives them itself.
    let (_, commands) = mpsc::channel();
    let (told, reports) = mpsc::channel();
    let report = Box::new(move |report| told.send(report).unwrap());
    (Live::new(machine, None, settings, epoch, vec![], commands, report), reports)
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

fn mark(live: &Live, epoch: Epoch) -> EpochMark {
    EpochMark {
        epoch,
        position: live.machine.position(),
        digest: RootDigest([0; 32]),
        log_pieces: 0,
        inputs_taken: 0,
        flush_needed: 0,
    }
}

/// The names of what was told, in order.
fn told(reports: &Receiver<Report>) -> Vec<&'static str> {
    let name = |report| match report {
        Report::Log { for_slave: true, .. } => "log for the Slave",
        Report::Log { for_slave: false, .. } => "log",
        Report::Epoch { .. } => "epoch",
        Report::TlbFlushed { .. } => "TLB flushed",
        Report::Paused { .. } => "paused",
        Report::Part(_) => "part",
        Report::FinalDone { .. } => "final done",
        other => panic!("{other:?}"),
    };
    reports.try_iter().map(name).collect()
}

#[test]
fn a_guest_that_stands_takes_inputs_when_it_goes_on() {
    let (mut live, reports) = live_from(Epoch(0), Feed::Log, true, |_| ());
    live.command(Command::Pause { ticket: 1 });
    let at = mark(&live, Epoch(1));
    live.command(Command::Input { first: 0, bytes: b"typed".to_vec() });
    live.command(Command::PowerButton);
    assert_eq!(live.machine.position(), at.position, "the guest stands where its epoch ended");
    live.command(Command::SyncFinal { slave: Incarnation(2), at });
    assert!(!told(&reports).iter().any(|name| name.starts_with("log for")), "nothing happened yet");
    live.command(Command::Resume);
    assert_eq!(live.machine.console_input_next(), 5);
    live.tell_horizon();
    let Ok(Report::Log { records, for_slave: true, .. }) = reports.try_recv() else {
        panic!("the Slave is told what the guest took after it stood");
    };
    assert_eq!(records.len(), 2);
}

#[test]
fn a_machine_that_goes_live_is_in_the_middle_of_an_epoch() {
    let write = |machine: &Machine| assert!(machine.ram().write(0x5000, b"as a Slave"));
    for (epoch, covered) in [(Epoch(7), true), (Epoch(0), false)] {
        let (mut live, _reports) = live_from(epoch, Feed::Log, true, write);
        assert_eq!(live.machine.take_dirty().contains(&5), covered, "{epoch:?}");
    }
}

#[test]
fn what_a_recording_needs_is_told_before_a_slave_hears_of_it() {
    for (feed, epoch) in [
        (Feed::Log, &["log for the Slave", "epoch"][..]),
        (Feed::State, &["log", "TLB flushed", "epoch"]),
    ] {
        let (mut live, reports) = live_from(Epoch(0), feed, true, |_| ());
        live.command(Command::PowerButton);
        live.command(Command::Pause { ticket: 1 });
        let at = mark(&live, Epoch(1));
        live.command(Command::SyncFinal { slave: Incarnation(2), at });
        let first = ["log", "epoch", "paused", "TLB flushed", "part", "final done"];
        assert_eq!(told(&reports), first, "{feed:?}");
        live.command(Command::Resume);
        live.command(Command::PowerButton);
        live.end_epoch();
        assert_eq!(told(&reports), epoch, "{feed:?}");
    }
}
