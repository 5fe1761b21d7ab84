//! Bad input: a clear error that names the thing and the way out, exit code 2, nothing changed.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

fn ft_pair(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ft-pair"))
        .args(args)
        .current_dir(dir)
        .env("XDG_RUNTIME_DIR", dir)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the command runs")
}

/// Runs the command and expects a refusal with these words.
fn refused(dir: &Path, args: &[&str], words: &[&str]) {
    let names = |dir: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names(dir);
    let output = ft_pair(dir, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    assert!(output.stdout.is_empty(), "{args:?}: errors go to standard error");
    for word in words {
        assert!(errors.contains(word), "{args:?}: `{word}` is not in: {errors}");
    }
    assert_eq!(names(dir), before, "{args:?}: nothing is left behind");
}

fn both(dir: &Path, image: &str, more: &[&str], words: &[&str]) {
    for command in ["up", "run"] {
        let args: Vec<&str> = [command, image].into_iter().chain(more.iter().copied()).collect();
        refused(dir, &args, words);
    }
}

/// A bzImage as far as its header tells.
fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 0x8000];
    bytes[0x1f1] = 4;
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x201] = 0x6a;
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    bytes[0x211] = 1;
    bytes[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
    bytes[0x234] = 1;
    bytes[0x236..0x238].copy_from_slice(&1u16.to_le_bytes());
    bytes[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    bytes[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    bytes[0x260..0x264].copy_from_slice(&(64u32 << 20).to_le_bytes());
    bytes
}

#[test]
fn images_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    both(dir, "none.img", &[], &["none.img", "no such file"]);
    fs::create_dir(dir.join("folder")).unwrap();
    both(dir, "folder", &[], &["folder", "is a directory"]);
    File::create(dir.join("empty.img")).unwrap();
    both(dir, "empty.img", &[], &["empty.img", "is empty"]);
    fs::write(dir.join("text.img"), "no disk at all\n".repeat(100)).unwrap();
    both(dir, "text.img", &[], &["text.img", "--kernel"]);
    fs::write(dir.join("disk.qcow2"), [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 1024]].concat())
        .unwrap();
    both(dir, "disk.qcow2", &[], &["qemu-img convert"]);
}

#[test]
fn an_unknown_filesystem_and_a_filesystem_without_a_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // The magic of XFS.
    let mut xfs = vec![0; 1 << 20];
    xfs[..4].copy_from_slice(b"XFSB");
    fs::write(dir.join("xfs.img"), xfs).unwrap();
    both(dir, "xfs.img", &[], &["xfs.img", "ext4"]);
    let mke2fs = ["mke2fs", "/sbin/mke2fs", "/usr/sbin/mke2fs"].into_iter().any(|program| {
        let image = dir.join("bare.img");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let args = ["-q", "-F", "-t", "ext4"];
        Command::new(program).args(args).arg(&image).status().is_ok_and(|s| s.success())
    });
    assert!(mke2fs, "mke2fs makes the image for this test: run `make deps`");
    both(dir, "bare.img", &[], &["no kernel in bare.img", "looked for", "--kernel"]);
    let image = fs::read(dir.join("bare.img")).unwrap();
    fs::write(dir.join("cut.img"), &image[..3 << 20]).unwrap();
    both(dir, "cut.img", &[], &["cut.img", "truncated"]);
}

#[test]
fn too_little_memory_and_other_wrong_options() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("vmlinuz"), kernel()).unwrap();
    both(dir, "vmlinuz", &["--mem", "16M"], &["--mem", "too little"]);
    both(dir, "vmlinuz", &["--mem", "512"], &["512M"]);
    both(dir, "vmlinuz", &["--kernel", "nowhere"], &["nowhere", "no such file"]);
    fs::write(dir.join("note"), "x").unwrap();
    both(dir, "vmlinuz", &["--kernel", "note"], &["note", "no x86-64 Linux kernel"]);
    refused(dir, &["up", "vmlinuz", "--name", "a/b"], &["a/b", "no name for a pair"]);
    refused(dir, &["up", "vmlinuz", "--epoch", "0"], &["--epoch"]);
    refused(dir, &["up", "vmlinuz", "--active", "maybe"], &["off", "replay"]);
    refused(dir, &["up", "vmlinuz", "--events", "no/such/dir/file"], &["no/such/dir/file"]);
    refused(dir, &["up", "vmlinuz", "--slave", "host:1"], &["not there yet"]);
    refused(dir, &["slave", "--listen", "0.0.0.0:1"], &["not there yet"]);
    both(dir, "vmlinuz", &["--record", "note"], &["note", "not a directory"]);
    both(dir, "vmlinuz", &["--record", "."], &["not empty", "new directory"]);
    refused(dir, &["up", "-d", "vmlinuz", "--record", "."], &["not empty", "new directory"]);
}

#[test]
fn an_image_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let image = dir.join("vmlinuz");
    fs::write(&image, kernel()).unwrap();
    let file = File::open(&image).unwrap();
    file.try_lock().unwrap();
    both(dir, "vmlinuz", &[], &["vmlinuz", "is in use"]);
}

#[test]
fn pairs_and_recordings_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for command in ["status", "stats", "failover", "down", "console"] {
        refused(dir, &[command], &["no pair runs"]);
        refused(dir, &[command, "web"], &["no pair named `web`"]);
    }
    refused(dir, &["inject", "web", "register"], &["no pair named `web`"]);
    refused(dir, &["replay", "log"], &["log", "no directory"]);
    refused(dir, &["log", "stat", "log"], &["log", "no directory"]);
    fs::create_dir(dir.join("void")).unwrap();
    refused(dir, &["replay", "void"], &["void"]);
    refused(dir, &["log", "verify", "void"], &["void"]);
    refused(dir, &["image", "nosuch"], &["nosuch", "base"]);
    refused(dir, &["nonsense"], &["nonsense"]);
}
