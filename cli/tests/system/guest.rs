//! A pair under test: the real command on a private copy of the Debian image.

use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The command line that the image needs, without a workload.
pub const APPEND: &str = "root=/dev/vda rootfstype=ext4 rw console=ttyS0";
const BINARY: &str = env!("CARGO_BIN_EXE_ft-pair");

/// Guests are slow on two cores: one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder with a private copy of the image.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ft-pair-system-").tempdir().unwrap();
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../var/images/base.img");
        assert!(image.exists(), "{} is missing: run `make image`", image.display());
        ft_pair_machine::disk::make_copy(&image, &dir.path().join("guest.img"), &mut |_, _| ())
            .unwrap();
        Self(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What the guest wrote to its ledger file, read from the image without mounting it.
    pub fn disk_ledger(&self) -> String {
        let output = Command::new("/sbin/debugfs")
            .args(["-R", "cat /var/ledger.txt"])
            .arg(self.path("guest.img"))
            .output()
            .expect("debugfs is installed (`make deps`)");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Checks the file system; changes nothing.
    pub fn fsck(&self) {
        let image = self.path("guest.img");
        let output = Command::new("/sbin/e2fsck").arg("-fn").arg(image).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    /// Names of all files here.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Runs `ft-pair` with arguments here.
    pub fn ft_pair(&self, args: &[&str]) -> std::process::Output {
        Command::new(BINARY)
            .args(args)
            .current_dir(self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts `ft-pair COMMAND guest.img ...` with its console in files.
    pub fn start(&self, command: &str, append: &str, more: &[&str]) -> Guest<'_> {
        let console = self.path("console.txt");
        let errors = self.path("errors.txt");
        let child = Command::new(BINARY)
            .args([command, "guest.img", "--mem", "256M", "--append", append])
            .args(more)
            .current_dir(self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(File::create(&console).unwrap())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Guest { folder: self, child, console, errors }
    }
}

/// A running `ft-pair up` or `run`. Ended when it goes out of scope.
pub struct Guest<'a> {
    folder: &'a Folder,
    child: Child,
    console: PathBuf,
    errors: PathBuf,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // Its own children end with it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Guest<'_> {
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap()).into_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.errors).unwrap()).into_owned()
    }

    /// Numbers of the ledger lines on the console, in the order in which they came.
    pub fn ledger(&self) -> Vec<u64> {
        ledger_numbers(&self.console())
    }

    /// Waits until something holds; fails with all that was said otherwise.
    pub fn until(&mut self, what: &str, seconds: u64, mut holds: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            assert!(
                begin.elapsed() < Duration::from_secs(seconds),
                "not within {seconds} s: {what}\n--- console\n{}\n--- errors\n{}",
                self.console(),
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn status(&self) -> Value {
        let output = self.folder.ft_pair(&["status", "pair", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    pub fn until_protected(&mut self) {
        self.until("protected", 120, |guest| {
            let status = guest.status();
            status["protected"] == true && status["slave"]["pid"].is_number()
        });
    }

    /// Waits for so many more ledger lines.
    pub fn until_more_lines(&mut self, lines: usize) {
        let wanted = self.ledger().len() + lines;
        self.until("more ledger lines", 120, |guest| guest.ledger().len() >= wanted);
    }

    /// Kills a side (`master`, `slave`) by its process id; gives the id.
    pub fn kill(&self, side: &str) -> u64 {
        let pid = self.status()[side]["pid"].as_u64().expect("the side has a process");
        let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
        pid
    }

    /// Kills the supervisor.
    pub fn kill_supervisor(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn type_text(&mut self, text: &str) {
        let stdin: &mut ChildStdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Asks for a power-off and waits for the end.
    pub fn down(&mut self) -> ExitStatus {
        let raw = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(raw, rustix::process::Signal::TERM).unwrap();
        self.ended(90)
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub fn ended(&mut self, seconds: u64) -> ExitStatus {
        self.until("ended", seconds, Self::has_ended);
        self.child.wait().unwrap()
    }

    /// All events of a kind.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path("events")).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == kind).collect()
    }
}

/// Numbers of the whole `ledger N up T` lines in a text.
pub fn ledger_numbers(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("ledger ")?;
            let (number, rest) = rest.split_once(' ')?;
            rest.starts_with("up ").then(|| number.parse().ok())?
        })
        .collect()
}

/// Checks that numbers go 1, 2, 3, ...
pub fn assert_whole(numbers: &[u64], of: &str) {
    for (i, number) in numbers.iter().enumerate() {
        assert_eq!(*number, i as u64 + 1, "the {of} ledger has a line missing, doubled or moved");
    }
}

pub fn process_lives(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
        && fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}
