//! Injected faults are found and repaired; without them nothing ever differs.

use super::guest::{APPEND, Folder, Guest, alone, assert_on_disk, assert_whole};
use super::seed::Random;
use super::{ledger, up};
use serde_json::Value;
use std::time::{Duration, Instant};

fn diverged(guest: &Guest<'_>) -> u64 {
    guest.events("epoch").iter().map(|event| event["diverged_pages"].as_u64().unwrap()).sum()
}

/// Injects a fault until it is found. The guest may overwrite what was flipped before the epoch ends: then
/// nothing differs, and there is nothing to find.
pub fn inject_until_found(folder: &Folder, guest: &mut Guest<'_>, fault: &[&str], patience: u64) {
    let repairs = |guest: &Guest<'_>| guest.errors().matches("ft-pair: protected").count();
    let before = repairs(guest);
    let args: Vec<&str> = ["inject", "pair"].iter().chain(fault).copied().collect();
    let mut next = Instant::now();
    guest.until(&format!("{fault:?} found and repaired"), 180, |guest| {
        if repairs(guest) > before {
            return true;
        }
        if next.elapsed() > Duration::ZERO {
            let output = folder.ft_pair(&args);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            next = Instant::now() + Duration::from_secs(patience);
        }
        false
    });
    guest.until_protected();
}

#[test]
fn faults_are_found_repaired_and_forgotten() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&[]));
    guest.until_ledger();
    guest.until_protected();
    let slave = guest.status()["slave"]["pid"].clone();
    assert_eq!(diverged(&guest), 0, "nothing differs before");
    inject_until_found(&folder, &mut guest, &["dirty-memory"], 3);
    assert!(diverged(&guest) > 0, "a page was sent");
    inject_until_found(&folder, &mut guest, &["register"], 3);
    inject_until_found(&folder, &mut guest, &["device"], 3);
    // The scrub comes round to these.
    inject_until_found(&folder, &mut guest, &["memory", "0x8000000"], 80);
    inject_until_found(&folder, &mut guest, &["sector", "20000"], 80);
    assert!((1..100).contains(&diverged(&guest)), "only what diverged: {}", diverged(&guest));
    assert_eq!(guest.status()["slave"]["pid"], slave, "repaired, not replaced");
    let stats = folder.ft_pair(&["stats", "pair", "--json"]);
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert!(stats["diverged_pages"].as_u64().unwrap() > 0, "{stats}");

    guest.kill("master");
    guest.until_more_lines(10);
    assert!(guest.down().success(), "{}", guest.errors());
    assert_eq!(guest.events("failover").len(), 1);
    let (released, disk) = (guest.ledger(), folder.disk_ledger());
    assert_whole(&released, 1, "console's");
    assert_whole(&disk, 1, "disk's");
    assert_on_disk(&released, &disk);
    folder.fsck();
}

/// Without an execution of its own the Slave has nothing to mend its copy with: it is made anew.
#[test]
fn a_corrupted_copy_is_replaced_under_the_passive_baseline() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&["--active", "off"]));
    guest.until_ledger();
    for (i, fault) in [["memory", "0x8000000"], ["sector", "20000"]].iter().enumerate() {
        guest.until_protected();
        let slave = guest.status()["slave"]["pid"].as_u64().unwrap();
        let output = folder.ft_pair(&["inject", "pair", fault[0], fault[1]]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The scrub comes round to it.
        guest.until("another Slave in sync", 240, |g| g.events("resync").len() == i + 2);
        assert_ne!(guest.status()["slave"]["pid"], slave);
    }
    assert!(guest.errors().contains("the disk copy differs"), "{}", guest.errors());
    guest.until_protected();
    guest.kill("master");
    guest.until_more_lines(10);
    assert!(guest.down().success(), "{}", guest.errors());
    let (released, disk) = (guest.ledger(), folder.disk_ledger());
    assert_whole(&released, 1, "console's");
    assert_whole(&disk, 1, "disk's");
    assert_on_disk(&released, &disk);
    folder.fsck();
}

/// Injects until the pair says that something differs; returns at once then, with the repair under way.
fn inject_until_noticed(folder: &Folder, guest: &Guest<'_>) {
    let before = guest.errors().len();
    for _ in 0..60 {
        let output = folder.ft_pair(&["inject", "pair", "dirty-memory"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let injected = Instant::now();
        while injected.elapsed() < Duration::from_secs(1) {
            if guest.errors().len() > before {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    panic!("no fault was noticed: {}", guest.errors());
}

/// A side dies while a repair is collected, staged or applied, or just after it.
#[test]
fn sides_die_around_repairs() {
    let _alone = alone();
    let mut random = Random::new(0x5eed_0005);
    let (mut survived, mut lost) = (0, 0);
    for _ in 0..2 {
        let folder = Folder::new();
        let mut guest = folder.start("up", &ledger(), &up(&[]));
        guest.until_ledger();
        let mut ended = false;
        for who in ["slave", "master", "slave", "master", "master"] {
            guest.until_protected();
            let before = guest.events("failover").len();
            inject_until_noticed(&folder, &guest);
            std::thread::sleep(Duration::from_millis(random.below(12)));
            let dead = guest.kill(who);
            if who == "slave" {
                guest.until_new_slave(dead);
                guest.until_more_lines(5);
                assert_eq!(guest.events("failover").len(), before, "{}", guest.errors());
                continue;
            }
            // A Slave that has seen a difference, and is not yet repaired, must not go live.
            guest.until("the Slave is live, or says why not", 30, |guest| {
                ended = guest.has_ended();
                ended || guest.events("failover").len() > before
            });
            if ended {
                break;
            }
            survived += 1;
            guest.until_more_lines(5);
        }
        if ended {
            lost += 1;
            assert!(guest.errors().contains("does not go live"), "{}", guest.errors());
            let (released, disk) = (guest.ledger(), folder.ledger_after_recovery());
            assert_whole(&released, 1, "console's");
            assert_on_disk(&released, &disk);
            continue;
        }
        assert!(guest.down().success(), "{}", guest.errors());
        let (released, disk) = (guest.ledger(), folder.disk_ledger());
        assert_whole(&released, 1, "console's");
        assert_whole(&disk, 1, "disk's");
        assert_on_disk(&released, &disk);
        folder.fsck();
        drop(guest);
        folder.assert_tidy();
    }
    println!("the Slave went live {survived} times, and refused to {lost} times");
}

#[test]
fn a_boot_and_a_minute_of_mixed_work_diverge_nowhere() {
    let _alone = alone();
    let folder = Folder::new();
    let seconds = std::env::var("FT_SOAK_SECONDS").ok().and_then(|s| s.parse().ok());
    let seconds: u64 = seconds.unwrap_or(45);
    let append = format!("{APPEND} ft.exec=mixed,{seconds} ft.poweroff");
    let mut guest = folder.start("up", &append, &up(&[]));
    let status = guest.ended(seconds * 3 + 240);
    assert!(status.success(), "{}", guest.errors());
    assert!(guest.console().contains("ft.exec done 0"), "{}", guest.console());
    assert_eq!(diverged(&guest), 0);
    assert_eq!(guest.events("resync").len(), 1, "one synchronisation, at the start");
    assert!(guest.events("failover").is_empty());

    // Epochs are told of once committed: none is left out, and since the synchronisation the Slave has
    // acknowledged every one.
    let epochs = guest.events("epoch");
    assert!(epochs.len() > 100, "{} epochs", epochs.len());
    let numbers: Vec<u64> = epochs.iter().map(|event| event["epoch"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
    let synced = guest.events("resync")[0]["t_ms"].as_f64().unwrap();
    let alone = epochs.iter().filter(|e| e["t_ms"].as_f64().unwrap() > synced);
    let alone = alone.filter(|e| e["commit_us"] == 0).count();
    assert_eq!(alone, 0, "epochs without the Slave's acknowledgement");
    drop(guest);
    folder.fsck();
    folder.assert_tidy();
}
