//! Recordings replay to the same digests; damaged ones are refused.

use super::guest::{APPEND, Folder, alone};
use serde_json::Value;
use std::time::Duration;

fn record(folder: &Folder, dir: &str, words: &[&str]) {
    let mut guest = folder.start("run", APPEND, &["--record", dir]);
    guest.until("a shell", 180, |guest| guest.console().contains("~# "));
    for (n, word) in words.iter().enumerate() {
        guest.type_text(word);
        std::thread::sleep(Duration::from_millis(37 * (n as u64 % 5)));
    }
    guest.type_text("\nfor i in 1 2 3; do cp -r /etc /root/c$i; sync; done; poweroff\n");
    let status = guest.ended(180);
    assert!(status.success(), "{}", guest.errors());
}

fn replay(folder: &Folder, dir: &str) -> (Option<i32>, String) {
    let output = folder.ft_pair(&["replay", dir]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn two_recordings_of_one_image_both_replay() {
    let _alone = alone();
    let folder = Folder::new();
    record(&folder, "first", &["ec", "ho hel", "lo", "; ls /"]);
    record(&folder, "second", &["id", "; ls /root"]);
    for dir in ["first", "second"] {
        let (code, text) = replay(&folder, dir);
        assert_eq!(code, Some(0), "{dir}: {text}");
        let verified = folder.ft_pair(&["log", "verify", dir]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
    let stat = folder.ft_pair(&["log", "stat", "first", "--json"]);
    let stat: Value = serde_json::from_slice(&stat.stdout).unwrap();
    assert!(stat.is_object());
    let bytes = std::fs::metadata(folder.path("first").join("segment-000000.ftlog"))
        .or_else(|_| std::fs::metadata(folder.path("first").join("segment-000001.ftlog")))
        .unwrap()
        .len();
    assert!(bytes < 1 << 20, "a boot and some work took {bytes} bytes of log, digests included");

    // One flipped bit in the middle: refused with the place, and what was before it replays.
    let segment = std::fs::read_dir(folder.path("first")).unwrap().map(|e| e.unwrap().path());
    let segment = segment.filter(|p| p.extension().is_some_and(|e| e == "ftlog")).min().unwrap();
    let mut damaged = std::fs::read(&segment).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    std::fs::write(&segment, damaged).unwrap();
    let (code, text) = replay(&folder, "first");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("segment"), "the place is named: {text}");
}
