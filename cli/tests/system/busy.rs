//! A Slave attaches to a guest that has been busy for a minute.

use super::guest::{APPEND, Folder, alone};
use super::up;
use std::time::Duration;

fn attaches(active: &str, rate: u32) {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", APPEND, &up(&["--mem", "1280M", "--active", active]));
    guest.until_shell();
    // Touches a gibibyte, most of it within the minute.
    guest.type_text(&format!("memdirty {rate} 1000 1 1024 & sleep 60; echo MINUTE-$((6 * 7))\n"));
    guest.until("a busy minute", 600, |guest| guest.console().contains("MINUTE-42"));
    guest.until_protected();
    let before = guest.events("resync").len();
    let dead = guest.kill("slave");
    guest.until_new_slave(dead);
    guest.until("in sync", 300, |guest| guest.events("resync").len() > before);
    guest.until_protected();
    let resync = guest.events("resync").pop().unwrap();
    // A figure for the reader; `ft-pair-bench sync` measures it.
    println!("--active {active}, {rate} MB/s: {resync}");
    let memory = 700 << 20;
    assert!(resync["bytes"].as_u64().unwrap() > memory, "all that the guest touched: {resync}");

    // The new Slave has all of it: the work goes on there.
    guest.kill("master");
    guest.until("the Slave is live", 60, |guest| guest.events("failover").len() == 1);
    guest.type_text("jobs; kill %1; wait; echo GONE-$((6 * 7))\n");
    guest.until("the work's end", 120, |guest| guest.console().contains("GONE-42"));
    assert!(guest.console().contains("Running"), "{}", guest.console());
    std::thread::sleep(Duration::from_millis(100));
    assert!(guest.down().success(), "{}", guest.errors());
    folder.fsck();
}

#[test]
fn a_slave_attaches_to_a_busy_guest_under_replay() {
    attaches("replay", 40);
}

#[test]
fn a_slave_attaches_to_a_busy_guest_under_the_passive_baseline() {
    attaches("off", 40);
}
