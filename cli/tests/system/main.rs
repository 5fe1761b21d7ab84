//! Whole-system tests: the real command, the real Debian kernel, kills at the worst moments.
//!
//! They assert facts, never timings, and end only what they started.

mod guest;
mod recording;

use guest::{APPEND, Folder, alone, assert_whole, ledger_numbers, process_lives};
use std::time::Duration;

fn ledger() -> String {
    format!("{APPEND} ft.ledger")
}

const UP: &[&str] = &["--name", "pair", "--events", "events"];

fn up<'a>(more: &[&'a str]) -> Vec<&'a str> {
    UP.iter().chain(more).copied().collect()
}

/// Kills the Master `kills` times, each time once the guest is protected again, and checks the ledger.
fn masters_die(active: &str, kills: u64) {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&["--active", active]));
    guest.until("the first ledger lines", 180, |guest| guest.ledger().len() > 5);
    for _ in 0..kills {
        guest.until_protected();
        guest.until_more_lines(10);
        guest.kill("master");
        guest.until_more_lines(10);
    }
    guest.until_protected();
    assert_eq!(guest.status()["generation"], kills + 1);
    let status = guest.down();
    assert!(status.success(), "{}", guest.errors());
    let numbers = guest.ledger();
    assert_whole(&numbers, "console's");
    let disk = ledger_numbers(&folder.disk_ledger());
    assert_whole(&disk, "disk's");
    assert!(disk.len() >= numbers.len(), "every released line is on the disk");
    assert_eq!(guest.console().matches("Linux version").count(), 1, "one boot");
    assert_eq!(guest.events("failover").len() as u64, kills);
    assert!(guest.events("epoch").iter().all(|event| event["diverged_pages"] == 0));
    folder.fsck();
    drop(guest);
    let names = folder.names();
    assert!(
        names.iter().all(|n| n == "guest.img" || n.ends_with("txt") || n == "events"),
        "{names:?}"
    );

    let mut again = folder.start("up", &ledger(), &up(&[]));
    again.until("the ledger goes on", 180, |guest| !guest.ledger().is_empty());
    assert!(again.ledger()[0] > numbers.len() as u64, "the guest found every released line");
}

#[test]
fn three_masters_die_under_replay() {
    masters_die("replay", 3);
}

#[test]
fn three_masters_die_under_the_passive_baseline() {
    masters_die("off", 3);
}

#[test]
fn the_guest_goes_on_without_its_slave_and_the_supervisor_takes_both_along() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&[]));
    guest.until("the first ledger lines", 180, |guest| guest.ledger().len() > 5);
    guest.until_protected();
    let dead = guest.kill("slave");
    guest.until_more_lines(20);
    guest.until("a new Slave", 60, |guest| {
        let slave = &guest.status()["slave"]["pid"];
        slave.is_number() && *slave != dead
    });
    // A Slave that dies while it is synchronised takes nothing along either.
    guest.kill("slave");
    guest.until_more_lines(10);
    guest.until_protected();
    assert!(guest.errors().contains("ended"), "{}", guest.errors());
    assert_whole(&guest.ledger(), "console's");
    let pids = ["master", "slave"].map(|side| guest.status()[side]["pid"].as_u64().unwrap());
    guest.kill_supervisor();
    guest.until("both sides ended", 30, |_| pids.iter().all(|pid| !process_lives(*pid)));
}

#[test]
fn a_slave_that_is_not_in_sync_never_goes_live() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&[]));
    guest.until("the first ledger lines", 180, |guest| guest.ledger().len() > 5);
    guest.until_protected();
    let dead = guest.kill("slave");
    guest.until("a new Slave begins", 60, |guest| {
        let slave = &guest.status()["slave"]["pid"];
        slave.is_number() && *slave != dead
    });
    let synchronised = guest.events("resync").len();
    guest.kill("master");
    guest.until("the end, or a Slave that goes live", 60, |guest| {
        guest.has_ended() || !guest.events("failover").is_empty()
    });
    if !guest.events("failover").is_empty() {
        // Quicker than the kill: then it was in sync, and said so.
        assert!(guest.events("resync").len() > synchronised, "{}", guest.errors());
        return;
    }
    let status = guest.ended(60);
    assert_eq!(status.code(), Some(1), "{}", guest.errors());
    assert!(guest.errors().contains("lost"), "{}", guest.errors());
}

#[test]
fn faults_are_found_repaired_and_forgotten() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&[]));
    guest.until("the first ledger lines", 180, |guest| guest.ledger().len() > 5);
    guest.until_protected();
    let repairs = |guest: &guest::Guest<'_>| guest.errors().matches("ft-pair: protected").count();
    for fault in [&["dirty-memory"][..], &["register"], &["device"], &["sector", "20000"]] {
        let before = repairs(&guest);
        let args: Vec<&str> = ["inject", "pair"].iter().chain(fault).copied().collect();
        let output = folder.ft_pair(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The sector is found by the scrub, within 1024 epochs.
        guest.until(&format!("{fault:?} found"), 180, |guest| repairs(guest) > before);
        guest.until_protected();
    }
    let diverged: u64 =
        guest.events("epoch").iter().map(|event| event["diverged_pages"].as_u64().unwrap()).sum();
    assert!((1..100).contains(&diverged), "only what diverged was sent: {diverged} pages");
    guest.kill("master");
    guest.until_more_lines(10);
    assert!(guest.down().success(), "{}", guest.errors());
    assert_whole(&guest.ledger(), "console's");
    assert_whole(&ledger_numbers(&folder.disk_ledger()), "disk's");
    folder.fsck();
}

#[test]
fn typing_during_a_failover_loses_and_doubles_nothing() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", APPEND, &up(&[]));
    guest.until("a shell", 180, |guest| guest.console().contains("~# "));
    guest.until_protected();
    guest.type_text("stty -echo; cat > /root/typed; sync; echo; cat /root/typed; echo THE-END\n");
    std::thread::sleep(Duration::from_secs(1));
    let mut typed = String::new();
    for n in 0..60 {
        let line = format!("line {n} of what is typed\n");
        guest.type_text(&line);
        typed.push_str(&line);
        if n == 30 {
            guest.kill("master");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    guest.type_text("\u{4}");
    guest.until("the guest's answer", 60, |guest| guest.console().contains("\nTHE-END"));
    let console = guest.console().replace('\r', "");
    assert!(console.contains(&format!("\n{typed}THE-END")), "{console}");
    assert!(guest.down().success(), "{}", guest.errors());
}

#[test]
fn a_minute_of_mixed_work_diverges_nowhere() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &format!("{APPEND} ft.exec=mixed ft.poweroff"), &up(&[]));
    let seconds = std::env::var("FT_SOAK_SECONDS").ok().and_then(|s| s.parse().ok());
    let seconds = seconds.unwrap_or(60);
    let begin = std::time::Instant::now();
    guest.until("the work, or its time", seconds + 30, |guest| {
        begin.elapsed() > Duration::from_secs(seconds) || !guest.events("exit").is_empty()
    });
    let epochs = guest.events("epoch");
    assert!(epochs.len() > 100, "{} epochs", epochs.len());
    assert!(epochs.iter().all(|event| event["diverged_pages"] == 0));
    assert!(guest.events("resync").len() == 1, "one synchronisation, at the start");
}
