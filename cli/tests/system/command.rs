//! The command as a user meets it: status, stats, failover, down, signals, exit codes.

use super::guest::{APPEND, Folder, alone};
use super::up;
use serde_json::Value;
use std::process::Output;

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_running_pair_is_asked_and_told() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", APPEND, &up(&[]));
    guest.until_shell();
    guest.until_protected();

    let status = json(&folder.ft_pair(&["status", "pair", "--json"]));
    assert_eq!(status["name"], "pair");
    assert_eq!(status["protected"], true);
    assert_eq!(status["generation"], 1);
    assert_eq!(status["active"], "replay");
    assert_eq!(status["mem"], 256 << 20);
    assert!(status["epoch"].as_u64().unwrap() > 0 && status["uptime_s"].as_f64().unwrap() > 0.0);
    assert!(status["image"].as_str().unwrap().ends_with("guest.img"));
    let mut pids = ["master", "slave"].map(|side| status[side]["pid"].as_u64().unwrap()).to_vec();
    assert_ne!(status["master"]["side"], status["slave"]["side"]);
    pids.push(status["supervisor"].as_u64().unwrap());
    pids.sort_unstable();
    let mut found = folder.processes();
    found.sort_unstable();
    assert_eq!(found, pids, "the pair's processes, and who is who");
    let people = folder.ft_pair(&["status"]);
    assert!(String::from_utf8_lossy(&people.stdout).contains("protected   yes"));
    let stats = json(&folder.ft_pair(&["stats", "pair", "--json"]));
    assert_eq!(stats["resyncs"], 1);
    assert_eq!(stats["diverged_pages"], 0);

    let second = folder.ft_pair(&["up", "guest.img", "--name", "other", "--mem", "256M"]);
    assert_eq!(second.status.code(), Some(2), "an image in use is refused");
    assert_eq!(folder.ft_pair(&["status", "nobody"]).status.code(), Some(2));

    // Ctrl-C is the guest's. Its terminal drops what was typed and not yet read, so wait for each answer.
    guest.type_text("echo asleep-$((6 * 7)); sleep 1000\n");
    guest.until("the guest sleeps", 60, |guest| guest.console().contains("asleep-42"));
    let prompts = guest.console().matches("~# ").count();
    guest.type_text("\u{3}");
    guest.until("a prompt", 60, |guest| guest.console().matches("~# ").count() > prompts);
    guest.type_text("echo back-$((6 * 7))\n");
    guest.until("the shell again", 60, |guest| guest.console().contains("back-42"));

    let slave = guest.status()["slave"]["pid"].clone();
    let failover = json(&folder.ft_pair(&["failover", "pair", "--json"]));
    assert_eq!(failover["generation"], 2);
    let status = guest.status();
    assert_eq!((&status["master"]["pid"], &status["generation"]), (&slave, &Value::from(2)));
    guest.until_protected();
    guest.type_text("echo still-$((6 * 7))\n");
    guest.until("the shell still", 60, |guest| guest.console().contains("still-42"));

    let down = json(&folder.ft_pair(&["down", "pair", "--json"]));
    assert_eq!(down["off"], true);
    assert_eq!(guest.ended(60).code(), Some(0), "{}", guest.errors());
    assert_eq!(guest.events("exit").len(), 1);
    drop(guest);
    assert_eq!(folder.ft_pair(&["status", "pair"]).status.code(), Some(2), "nobody to ask");
    assert_eq!(folder.ft_pair(&["down", "pair"]).status.code(), Some(2));
    folder.fsck();
    folder.assert_tidy();
}

#[test]
fn a_second_signal_stops_at_once_and_fails() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", APPEND, &up(&[]));
    guest.until("the kernel", 60, |guest| guest.console().contains("Linux version"));
    guest.terminate();
    guest.until("it asks the guest", 30, |guest| guest.errors().contains("power off"));
    guest.terminate();
    assert_eq!(guest.ended(60).code(), Some(1), "{}", guest.errors());
    assert!(guest.errors().contains("stopped at once"), "{}", guest.errors());
    drop(guest);
    folder.assert_tidy();
}

/// The command's file is replaced while a pair runs: new Slaves are still of the build that began.
#[test]
fn an_upgrade_of_the_command_leaves_a_running_pair_alone() {
    let _alone = alone();
    let folder = Folder::new();
    let program = folder.copy_of_program();
    let mut guest = folder.start_program(&program, "up", APPEND, &up(&[]));
    guest.until_shell();
    guest.until_protected();
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "#!/bin/sh\nexit 3\n").unwrap();
    let dead = guest.kill("slave");
    guest.until_new_slave(dead);
    guest.until_protected();
    guest.kill("master");
    guest.until("the Slave is live", 60, |guest| guest.events("failover").len() == 1);
    guest.until_protected();
    let status = guest.status();
    let said = status["said"].as_array().unwrap();
    assert!(said.iter().any(|line| line["text"].as_str().unwrap().contains("live")), "{status}");
    assert!(guest.down().success(), "{}", guest.errors());
    drop(guest);
    std::fs::remove_file(&program).unwrap();
    folder.assert_tidy();
}

/// In the background, attached to and left again.
#[test]
fn a_pair_in_the_background_has_a_console_for_whoever_attaches() {
    let _alone = alone();
    let folder = Folder::new();
    let args = ["up", "-d", "guest.img", "--name", "pair", "--mem", "256M", "--append", APPEND];
    let output = folder.ft_pair(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("protected"), "it returns once the guest is protected: {said}");

    let mut console = folder.attach("pair");
    console.until("a shell", 180, |guest| guest.console().contains("~# "));
    console.type_text("echo attached-$((6 * 7))\n");
    console.until("an answer", 60, |guest| guest.console().contains("attached-42"));
    // The client goes without a word; the guest stays.
    drop(console);
    let status = json(&folder.ft_pair(&["status", "pair", "--json"]));
    assert_eq!(status["protected"], true);
    let mut console = folder.attach("pair");
    console.until("the past", 60, |guest| guest.console().contains("attached-42"));
    console.type_text("echo again-$((6 * 7))\n");
    console.until("an answer", 60, |guest| guest.console().contains("again-42"));
    drop(console);

    let down = json(&folder.ft_pair(&["down", "pair", "--json"]));
    assert_eq!(down["off"], true);
    // It has answered before it ends.
    folder.until_nobody();
    folder.fsck();
    folder.assert_tidy();
}

/// A reboot is a new power cycle of the same pair.
#[test]
fn a_guest_that_reboots_is_protected_again_and_keeps_its_disk() {
    let _alone = alone();
    let folder = Folder::new();
    std::fs::create_dir(folder.path("copies")).unwrap();
    let mut guest = folder.start("up", APPEND, &up(&["--slave-disk", "copies"]));
    guest.until_shell();
    guest.until_protected();
    assert!(folder.path("copies").read_dir().unwrap().count() > 0, "the Slave's copy is there");
    guest.type_text("echo kept > /root/kept; sync; reboot\n");
    guest.until("the second boot", 180, |guest| {
        guest.console().matches("Linux version").count() == 2
    });
    guest.until_protected();
    guest.until("its shell", 180, |guest| guest.console().matches("login: root").count() == 2);
    guest.kill("master");
    guest.until("the Slave is live", 60, |guest| guest.events("failover").len() == 1);
    guest.type_text("echo it-is-$(cat /root/kept)\n");
    guest.until("the file", 60, |guest| guest.console().contains("it-is-kept"));
    assert!(guest.down().success(), "{}", guest.errors());
    assert!(guest.errors().contains("the guest reboots"), "{}", guest.errors());
    drop(guest);
    assert_eq!(folder.path("copies").read_dir().unwrap().count(), 0, "no copy is left");
    std::fs::remove_dir(folder.path("copies")).unwrap();
    folder.fsck();
    folder.assert_tidy();
}
