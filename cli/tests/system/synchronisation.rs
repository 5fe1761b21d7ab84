//! Sides die while they are synchronised, and the Slave while all is well.

use super::guest::{Folder, alone, assert_monotonic, assert_on_disk, assert_whole, signal_process};
use super::{ledger, up};
use rustix::process::Signal;

/// The guest goes on without its Slave; a Slave that is not in sync never goes live.
fn deaths_around_a_synchronisation(active: &str) {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&["--active", active]));
    guest.until_ledger();
    guest.until_protected();
    assert!(!guest.errors().contains("unprotected"), "{}", guest.errors());

    let dead = guest.kill("slave");
    guest.until("it says so", 30, |guest| guest.errors().contains("unprotected"));
    guest.until_more_lines(10);
    // Once more, while the next one is synchronised: frozen first, so that it cannot be quicker.
    let next = guest.until_new_slave(dead);
    signal_process(next, Signal::STOP);
    signal_process(next, Signal::KILL);
    guest.until_more_lines(10);
    guest.until_protected();
    assert_ne!(guest.status()["slave"]["pid"], next);
    assert!(guest.events("failover").is_empty());
    // The one after it has everything.
    guest.kill("master");
    guest.until_more_lines(10);
    guest.until_protected();
    assert_eq!(guest.events("failover").len(), 1);

    let dead = guest.kill("slave");
    let next = guest.until_new_slave(dead);
    signal_process(next, Signal::STOP);
    let in_sync = guest.status()["protected"] == true;
    guest.kill("master");
    signal_process(next, Signal::CONT);
    if in_sync {
        // Quicker than the freeze: then it may go live, and loses nothing.
        guest.until_more_lines(10);
        assert_whole(&guest.ledger(), 1, "console's");
        assert!(guest.down().success(), "{}", guest.errors());
        return;
    }
    assert_eq!(guest.ended(60).code(), Some(1), "{}", guest.errors());
    assert!(guest.errors().contains("the guest is lost"), "{}", guest.errors());
    assert!(guest.errors().contains("boots it again"), "a way out: {}", guest.errors());
    assert_eq!(guest.events("failover").len(), 1, "it was not in sync");
    let released = guest.ledger();
    assert_whole(&released, 1, "console's");
    assert_monotonic(&released);
    let disk = folder.ledger_after_recovery();
    assert_whole(&disk, 1, "disk's");
    assert_on_disk(&released, &disk);
    drop(guest);
    folder.assert_tidy();
}

#[test]
fn sides_die_around_a_synchronisation_under_replay() {
    deaths_around_a_synchronisation("replay");
}

#[test]
fn sides_die_around_a_synchronisation_under_the_passive_baseline() {
    deaths_around_a_synchronisation("off");
}
