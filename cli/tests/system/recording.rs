//! Recordings replay to the same digests; damaged ones are refused.

use super::faults::inject_until_found;
use super::guest::{APPEND, Folder, alone, assert_on_disk, assert_whole};
use super::seed::Random;
use super::{ledger, up};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A boot, commands typed in pieces at random moments, disk traffic, power-off.
fn record(folder: &Folder, dir: &str, seed: u64) {
    let mut random = Random::new(seed);
    let mut guest = folder.start("run", APPEND, &["--record", dir]);
    // Some of it before anybody reads it.
    guest.until("the kernel", 60, |guest| guest.console().contains("Linux version"));
    guest.type_text("# early\n");
    guest.until_shell();
    for _ in 0..8 {
        for piece in ["echo ", &random.word(6), " >> /root/", &random.word(1), "; sync", "\n"] {
            guest.type_text(piece);
            std::thread::sleep(Duration::from_millis(random.below(60)));
        }
    }
    guest.type_text("for i in 1 2 3; do cp -r /etc /root/c$i; sync; done; poweroff\n");
    let status = guest.ended(180);
    assert!(status.success(), "{}", guest.errors());
}

/// Exit code and everything said.
fn said(folder: &Folder, args: &[&str]) -> (Option<i32>, String) {
    let output = folder.ft_pair(args);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn json(folder: &Folder, args: &[&str]) -> Value {
    let output = folder.ft_pair(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn first_segment(folder: &Folder, dir: &str) -> PathBuf {
    folder.path(dir).join("segment-000000.ftlog")
}

/// Checks that the log is refused for what was done to its first segment; puts that back.
fn refused(folder: &Folder, what: &str, damage: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = first_segment(folder, "first");
    let good = fs::read(&path).unwrap();
    fs::write(&path, damage(good.clone())).unwrap();
    for command in ["verify", "show"] {
        let (code, text) = said(folder, &["log", command, "first"]);
        assert_eq!(code, Some(1), "{what}, log {command}: {text}");
        let last = text.lines().rev().take(3).collect::<String>();
        assert!(last.contains("segment 0"), "{what}, log {command}, names the place: {last}");
    }
    fs::write(&path, good).unwrap();
}

#[test]
fn two_recordings_of_one_image_both_replay() {
    let _alone = alone();
    let folder = Folder::new();
    record(&folder, "first", 0x5eed_0003);
    record(&folder, "second", 0x5eed_0004);
    for dir in ["first", "second"] {
        let stat = json(&folder, &["log", "stat", dir, "--json"]);
        assert_eq!(stat["finished"], true);
        assert!(stat["console"]["count"].as_u64().unwrap() > 10, "{stat}");
        assert!(stat["inputs"]["bytes"].as_u64().unwrap() < 1 << 20, "{stat}");
        let (code, text) = said(&folder, &["log", "verify", dir]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("good"), "{text}");

        let replayed = json(&folder, &["replay", dir, "--json"]);
        assert_eq!(replayed["result"], "equal", "{replayed}");
        assert_eq!(replayed["epochs"], stat["epochs"]["count"], "every epoch is compared");
    }

    refused(&folder, "a flipped bit", |mut bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        bytes
    });
    refused(&folder, "cut off", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    let foreign = fs::read(first_segment(&folder, "second")).unwrap();
    refused(&folder, "another recording's segment", |_| foreign);
    let (code, text) = said(&folder, &["log", "verify", "first"]);
    assert_eq!(code, Some(0), "put back, it is good: {text}");

    // What is intact before the damage replays, then the place is named.
    let path = first_segment(&folder, "first");
    let mut bytes = fs::read(&path).unwrap();
    let early = bytes.len() / 4;
    bytes[early] ^= 1;
    fs::write(path, bytes).unwrap();
    let (code, text) = said(&folder, &["replay", "first"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the log is bad") && text.contains("segment"), "{text}");
}

/// Checks that a recording has every epoch of a run, and that executing it again gives every digest.
fn assert_replays(folder: &Folder, dir: &str) -> Value {
    let (code, text) = said(folder, &["log", "verify", dir]);
    assert_eq!(code, Some(0), "{text}");
    let stat = json(folder, &["log", "stat", dir, "--json"]);
    assert_eq!(stat["finished"], true);
    let replayed = json(folder, &["replay", dir, "--json"]);
    assert_eq!(replayed["result"], "equal", "{replayed}");
    assert_eq!(replayed["epochs"], stat["epochs"]["count"], "every epoch is compared");
    let shown = folder.ft_pair(&["log", "show", dir, "--json"]);
    let records = String::from_utf8(shown.stdout).unwrap();
    let epochs = records.lines().filter_map(|line| {
        serde_json::from_str::<Value>(line).unwrap()["EpochEnd"]["epoch"].as_u64()
    });
    let epochs: Vec<u64> = epochs.collect();
    assert_eq!(epochs, (1..=epochs.len() as u64).collect::<Vec<_>>(), "no epoch is missing");
    stat
}

/// Two Masters die while a protected guest is recorded: there is one recording of its whole life.
fn masters_die_recorded(active: &str) {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&["--active", active, "--record", "life"]));
    guest.until_ledger();
    for _ in 0..2 {
        guest.until_protected();
        guest.until_more_lines(10);
        guest.kill("master");
        guest.until_more_lines(10);
    }
    guest.until_protected();
    guest.until_more_lines(5);
    assert!(guest.status()["recording"].as_str().is_some_and(|dir| dir.ends_with("/life")));
    let down = folder.ft_pair(&["down", "pair"]);
    assert_eq!(down.status.code(), Some(0), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(guest.ended(60).code(), Some(0), "{}", guest.errors());
    assert_eq!(guest.events("failover").len(), 2);
    let released = guest.ledger();
    assert_whole(&released, 1, "console's");
    assert_on_disk(&released, &folder.disk_ledger());
    drop(guest);

    let stat = assert_replays(&folder, "life");
    let flushes = stat["tlb_flushes"]["count"].as_u64().unwrap();
    assert!(flushes >= 3, "each of three Slaves was given a state: {stat}");
    assert_eq!(stat["power"]["count"].as_u64().map(|presses| presses > 0), Some(true), "{stat}");
}

#[test]
fn a_pairs_recording_replays_over_two_failovers_under_replay() {
    masters_die_recorded("replay");
}

#[test]
fn a_pairs_recording_replays_over_two_failovers_under_the_passive_baseline() {
    masters_die_recorded("off");
}

/// Typed input, a repair, and a person's failover, in which the former Master is alive and writes.
#[test]
fn a_pairs_recording_replays_over_a_repair_and_a_persons_failover() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", APPEND, &up(&["--record", "life"]));
    let mut random = Random::new(0x5eed_0005);
    guest.until_shell();
    for round in 0..3 {
        guest.until_protected();
        if round == 1 {
            inject_until_found(&folder, &mut guest, &["register"], 3);
        }
        for n in 0..20 {
            guest.type_text(&format!("echo {} >> /root/typed; sync\n", random.word(8)));
            std::thread::sleep(Duration::from_millis(random.below(40)));
            match (n, round) {
                (10, 0) => drop(guest.kill("master")),
                (10, 1) => {
                    let output = folder.ft_pair(&["failover", "pair"]);
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                }
                _ => {}
            }
        }
        let done = format!("echo DONE-$((7 * {}))\n", round + 1);
        guest.type_text(&done);
        let answer = format!("DONE-{}", 7 * (round + 1));
        guest.until("the guest's answer", 60, |guest| guest.console().contains(&answer));
    }
    // Alike for `run` and `up`: a recording is of one power cycle.
    guest.type_text("reboot\n");
    assert_eq!(guest.ended(90).code(), Some(0), "{}", guest.errors());
    assert!(guest.errors().contains("the recording ends here"), "{}", guest.errors());
    assert_eq!(guest.events("failover").len(), 2);
    drop(guest);
    let stat = assert_replays(&folder, "life");
    assert!(stat["console_typed_bytes"].as_u64().unwrap() > 60 * 20, "{stat}");
}

/// A side that cannot go on with the recording leaves it as it is, and the guest goes on.
#[test]
fn a_guest_outlives_its_recording() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", &ledger(), &up(&["--record", "life"]));
    guest.until_ledger();
    guest.until_protected();
    fs::rename(folder.path("life"), folder.path("moved")).unwrap();
    guest.kill("master");
    guest.until("a word about it", 60, |guest| guest.errors().contains("the recording ends"));
    guest.until_protected();
    guest.kill("master");
    guest.until_more_lines(10);
    assert_eq!(guest.status()["recording"], Value::Null);
    let status = guest.down();
    assert_eq!(status.code(), Some(1), "{}", guest.errors());
    assert!(guest.errors().contains("the recording ended early"), "{}", guest.errors());
    let released = guest.ledger();
    assert_whole(&released, 1, "console's");
    assert_on_disk(&released, &folder.disk_ledger());
    drop(guest);

    let (code, text) = said(&folder, &["log", "verify", "moved"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unfinished"), "{text}");
    let replayed = folder.ft_pair(&["replay", "moved", "--json"]);
    let replayed: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!(replayed["result"], "bad-log", "{replayed}");
    assert!(replayed["detail"].as_str().unwrap().contains("without an End"), "{replayed}");
    assert!(replayed["epochs"].as_u64().unwrap() > 100, "what is there replays: {replayed}");
}
