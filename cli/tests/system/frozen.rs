//! Processes that stand still for a while, and a host that has no time for anybody.

use super::guest::{
    Folder, Guest, alone, assert_monotonic, assert_on_disk, assert_whole, process_lives,
    signal_process,
};
use super::{ledger, up};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than a side may be silent.
const LONG: Duration = Duration::from_secs(3);
/// Shorter.
const SHORT: Duration = Duration::from_millis(300);

fn freeze(pid: u64, time: Duration) {
    signal_process(pid, Signal::STOP);
    std::thread::sleep(time);
    if process_lives(pid) {
        signal_process(pid, Signal::CONT);
    }
}

fn pid(guest: &Guest<'_>, who: &str) -> u64 {
    guest.status()[who]["pid"].as_u64().expect("the side has a process")
}

fn failovers(guest: &Guest<'_>) -> usize {
    guest.events("failover").len()
}

fn ends_well(folder: &Folder, guest: &mut Guest<'_>) {
    assert!(guest.down().success(), "{}", guest.errors());
    let (released, disk) = (guest.ledger(), folder.disk_ledger());
    assert_whole(&released, 1, "console's");
    assert_monotonic(&released);
    assert_whole(&disk, 1, "disk's");
    assert_on_disk(&released, &disk);
    folder.fsck();
}

fn sides_freeze(active: &str) {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&["--active", active]));
    guest.until_ledger();
    guest.until_protected();

    for who in ["master", "slave"] {
        freeze(pid(&guest, who), SHORT);
        guest.until_more_lines(10);
    }
    assert_eq!(failovers(&guest), 0, "a short silence is no death");
    assert_eq!(guest.events("resync").len(), 1);

    // A long one is: the other side goes on, and what thaws can release nothing.
    let frozen = pid(&guest, "master");
    signal_process(frozen, Signal::STOP);
    guest.until("the Slave is live", 30, |guest| failovers(guest) == 1);
    guest.until("the frozen one has ended", 30, |_| !process_lives(frozen));
    guest.until_protected();
    assert_eq!(guest.status()["generation"], 2);

    let frozen = pid(&guest, "slave");
    signal_process(frozen, Signal::STOP);
    guest.until_more_lines(30);
    let next = guest.until_new_slave(frozen);
    assert!(next != frozen && !process_lives(frozen), "a silent Slave is replaced, and ended");
    guest.until_protected();
    assert_eq!(failovers(&guest), 1);

    // The witness says nothing for a while: nobody needs it, then the Slave does.
    let supervisor = guest.status()["supervisor"].as_u64().unwrap();
    freeze(supervisor, LONG);
    guest.until_more_lines(10);
    assert_eq!(failovers(&guest), 1);
    let master = pid(&guest, "master");
    signal_process(supervisor, Signal::STOP);
    signal_process(master, Signal::KILL);
    std::thread::sleep(LONG);
    signal_process(supervisor, Signal::CONT);
    guest.until("the Slave is live", 30, |guest| failovers(guest) == 2);
    guest.until_more_lines(10);
    ends_well(&folder, &mut guest);
    drop(guest);
    folder.assert_tidy();
}

#[test]
fn sides_freeze_under_replay() {
    sides_freeze("replay");
}

#[test]
fn sides_freeze_under_the_passive_baseline() {
    sides_freeze("off");
}

/// Busy threads on every core, several times over.
fn busy(threads: usize, time: Duration) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_starved_host_is_not_a_dead_one() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&[]));
    guest.until_ledger();
    guest.until_protected();
    let lines = guest.ledger().len();
    let cores = std::thread::available_parallelism().unwrap().get();
    busy(cores * 3, Duration::from_secs(60));
    assert!(guest.ledger().len() > lines, "the guest goes on");
    assert_eq!(failovers(&guest), 0, "{}", guest.errors());
    assert_eq!(guest.events("resync").len(), 1, "{}", guest.errors());
    guest.until_protected();
    ends_well(&folder, &mut guest);
}
