//! The Master dies, again and again; the supervisor dies.

use super::guest::{Folder, alone, assert_monotonic, assert_on_disk, assert_whole};
use super::{ledger, up};

/// Kills the Master `kills` times, each time once the guest is protected again, and checks the ledger on
/// console and disk; then boots the image again.
fn masters_die(active: &str, kills: u64) {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&["--active", active]));
    guest.until_ledger();
    let mut sides = Vec::new();
    for _ in 0..kills {
        guest.until_protected();
        guest.until_more_lines(10);
        sides.push(guest.status()["master"]["side"].as_str().unwrap().to_owned());
        guest.kill("master");
        guest.until_more_lines(10);
    }
    assert!(sides.windows(2).all(|two| two[0] != two[1]), "they alternate: {sides:?}");
    guest.until_protected();
    assert_eq!(guest.status()["generation"], kills + 1);
    let down = folder.ft_pair(&["down", "pair"]);
    assert_eq!(down.status.code(), Some(0), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(guest.ended(60).code(), Some(0), "{}", guest.errors());

    let released = guest.ledger();
    assert_whole(&released, 1, "console's");
    assert_monotonic(&released);
    let disk = folder.disk_ledger();
    assert_whole(&disk, 1, "disk's");
    assert_on_disk(&released, &disk);
    assert_eq!(guest.console().matches("Linux version").count(), 1, "one boot");
    assert_eq!(guest.events("failover").len() as u64, kills);
    assert!(guest.events("epoch").iter().all(|event| event["diverged_pages"] == 0));
    folder.fsck();
    drop(guest);
    folder.assert_tidy();

    let mut again = folder.start("up", &ledger(), &up(&["--active", active]));
    again.until_ledger();
    assert!(again.down().success(), "{}", again.errors());
    assert_whole(&again.ledger(), disk.len() as u64 + 1, "second boot's");
    let both = folder.disk_ledger();
    assert_whole(&both, 1, "disk's");
    assert_on_disk(&disk, &both);
    folder.fsck();
}

#[test]
fn three_masters_die_under_replay() {
    masters_die("replay", 3);
}

#[test]
fn three_masters_die_under_the_passive_baseline() {
    masters_die("off", 3);
}

/// The supervisor dies while the copy, not the image, is the guest's newest disk.
#[test]
fn a_dead_supervisor_takes_both_sides_along_and_the_newest_copy_boots() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&[]));
    guest.until_ledger();
    guest.until_protected();
    guest.kill("master");
    guest.until_more_lines(10);
    let pids = folder.processes();
    assert!(pids.len() >= 2, "a supervisor and a side at least: {pids:?}");
    guest.kill_supervisor();
    guest.until("both sides ended", 30, |_| folder.processes().is_empty());
    let released = guest.ledger();
    assert_whole(&released, 1, "console's");
    drop(guest);

    let mut again = folder.start("up", &ledger(), &up(&[]));
    again.until_ledger();
    assert!(again.down().success(), "{}", again.errors());
    let disk = folder.disk_ledger();
    assert_whole(&disk, 1, "disk's");
    assert_on_disk(&released, &disk);
    assert!(again.ledger()[0].number > released.len() as u64);
    folder.fsck();
    drop(again);
    folder.assert_tidy();
}
