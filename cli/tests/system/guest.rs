//! A pair under test: the real command on a private copy of the Debian image.

use rustix::process::{Pid, Signal, kill_process};
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

    /// What the guest wrote to its ledger file.
    pub fn disk_ledger(&self) -> Vec<Line> {
        ledger_in(&self.path("guest.img"))
    }

    /// Checks the file system; changes nothing.
    pub fn fsck(&self) {
        let (code, said) = e2fsck("-fn", &self.path("guest.img"));
        assert_eq!(code, Some(0), "{said}");
    }

    /// Recovers the journal on a copy, as mounting would, checks the copy, and gives its ledger.
    pub fn ledger_after_recovery(&self) -> Vec<Line> {
        let copy = self.path("recovered.img");
        ft_pair_machine::disk::make_copy(&self.path("guest.img"), &copy, &mut |_, _| ()).unwrap();
        // Preening mends only what a crash may leave. 1: the journal was recovered, all is well.
        let (code, said) = e2fsck("-fp", &copy);
        assert!(matches!(code, Some(0 | 1)), "{code:?}: {said}");
        let (code, said) = e2fsck("-fn", &copy);
        assert_eq!(code, Some(0), "{said}");
        let ledger = ledger_in(&copy);
        fs::remove_file(copy).unwrap();
        ledger
    }

    /// Nothing is left but the image and what the test itself keeps.
    pub fn assert_tidy(&self) {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let kept = ["guest.img", "console.txt", "errors.txt", "events"];
        assert!(names.iter().all(|name| kept.contains(&name.as_str())), "{names:?}");
        assert_eq!(self.processes(), Vec::<u64>::new(), "no process is left running");
    }

    /// Waits until nothing works here any more.
    pub fn until_nobody(&self) {
        let began = Instant::now();
        while !self.processes().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?} do not end", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes that work in this folder.
    pub fn processes(&self) -> Vec<u64> {
        let here = fs::canonicalize(self.0.path()).unwrap();
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (fs::read_link(entry.path().join("cwd")).ok()? == here).then_some(pid)
        });
        pids.filter(|pid| process_lives(*pid)).collect()
    }

    /// Runs `ft-pair` with arguments here.
    pub fn ft_pair(&self, args: &[&str]) -> std::process::Output {
        Command::new(BINARY)
            .args(args)
            .current_dir(self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("TMPDIR", self.0.path())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts `ft-pair COMMAND guest.img ...` with its console in files.
    pub fn start(&self, command: &str, append: &str, more: &[&str]) -> Guest<'_> {
        self.start_program(Path::new(BINARY), command, append, more)
    }

    /// Attaches to a pair's console; what goes out of scope is the client, not the pair.
    pub fn attach(&self, name: &str) -> Guest<'_> {
        self.start_command(Command::new(BINARY).args(["console", name]))
    }

    /// A copy of the command in this folder.
    pub fn copy_of_program(&self) -> PathBuf {
        let copy = self.path("program");
        fs::copy(BINARY, &copy).unwrap();
        copy
    }

    /// As [`Folder::start`], another file of the command.
    pub fn start_program(
        &self,
        program: &Path,
        command: &str,
        append: &str,
        more: &[&str],
    ) -> Guest<'_> {
        let mut program = Command::new(program);
        program.args([command, "guest.img", "--append", append]);
        program.args(if more.contains(&"--mem") { &[][..] } else { &["--mem", "256M"] });
        self.start_command(program.args(more))
    }

    fn start_command(&self, command: &mut Command) -> Guest<'_> {
        let console = self.path("console.txt");
        let errors = self.path("errors.txt");
        let child = command
            .current_dir(self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("TMPDIR", self.0.path())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(File::create(&console).unwrap())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Guest { folder: self, child, console, errors }
    }
}

impl Drop for Folder {
    /// After a test that failed: nothing that it started stays.
    fn drop(&mut self) {
        self.processes().into_iter().for_each(|pid| signal_process(pid, Signal::KILL));
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
        if std::thread::panicking() {
            eprintln!("--- console\n{}\n--- errors\n{}", self.console(), self.errors());
        }
    }
}

impl Guest<'_> {
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap()).into_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.errors).unwrap()).into_owned()
    }

    /// The ledger lines on the console, in the order in which they came.
    pub fn ledger(&self) -> Vec<Line> {
        ledger_lines(&self.console())
    }

    /// Waits until the guest writes its ledger.
    pub fn until_ledger(&mut self) {
        self.until("the first ledger lines", 180, |guest| guest.ledger().len() > 5);
    }

    /// Waits for a shell that takes input.
    pub fn until_shell(&mut self) {
        self.until("a shell", 180, |guest| guest.console().contains("~# "));
    }

    /// Waits until something holds; fails with all that was said otherwise.
    pub fn until(&mut self, what: &str, seconds: u64, mut holds: impl FnMut(&mut Self) -> bool) {
        let mut until = Instant::now() + Duration::from_secs(seconds);
        while !holds(self) {
            assert!(
                Instant::now() < until,
                "not within {seconds} s: {what}\n--- console\n{}\n--- errors\n{}",
                self.console(),
                self.errors()
            );
            if self.has_ended() {
                // What it leaves behind may take a little longer.
                until = until.min(Instant::now() + Duration::from_secs(20));
            }
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

    /// Sends a signal to a side (`master`, `slave`) by its process id; gives the id.
    pub fn signal(&self, side: &str, signal: Signal) -> u64 {
        let pid = self.status()[side]["pid"].as_u64().expect("the side has a process");
        signal_process(pid, signal);
        pid
    }

    /// Kills a side; gives its process id.
    pub fn kill(&self, side: &str) -> u64 {
        self.signal(side, Signal::KILL)
    }

    /// Waits for a Slave's process other than `former`, which has yet to be synchronised.
    pub fn until_new_slave(&mut self, former: u64) -> u64 {
        let mut pid = 0;
        self.until("a new Slave", 60, |guest| {
            pid = guest.status()["slave"]["pid"].as_u64().unwrap_or(0);
            pid != 0 && pid != former
        });
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

    /// Sends SIGTERM to the supervisor.
    pub fn terminate(&self) {
        signal_process(u64::from(self.child.id()), Signal::TERM);
    }

    /// Asks for a power-off by signal and waits for the end.
    pub fn down(&mut self) -> ExitStatus {
        self.terminate();
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

/// A line of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    /// Hundredths of a second since the guest booted.
    pub uptime: u64,
}

/// The complete `ledger NUMBER up SECONDS.HUNDREDTHS` lines in a text.
pub fn ledger_lines(text: &str) -> Vec<Line> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| {
        let (_, rest) = line.trim_end_matches('\r').split_once("ledger ")?;
        let (number, rest) = rest.split_once(' ')?;
        let (seconds, hundredths) = rest.strip_prefix("up ")?.split_once('.')?;
        let uptime = seconds.parse::<u64>().ok()? * 100 + hundredths.parse::<u64>().ok()?;
        (hundredths.len() == 2).then_some(Line { number: number.parse().ok()?, uptime })
    };
    whole.lines().filter_map(parse).collect()
}

/// The ledger in an image, read without mounting it. Every line of the file must be one of the ledger.
fn ledger_in(image: &Path) -> Vec<Line> {
    let output = Command::new("/sbin/debugfs")
        .args(["-R", "cat /var/ledger.txt"])
        .arg(image)
        .output()
        .expect("debugfs is installed (`make deps`)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = ledger_lines(&text);
    assert_eq!(lines.len(), text.matches('\n').count(), "the disk's ledger is damaged: {text}");
    lines
}

fn e2fsck(how: &str, image: &Path) -> (Option<i32>, String) {
    let output = Command::new("/sbin/e2fsck").arg(how).arg(image).output();
    let output = output.expect("e2fsck is installed (`make deps`)");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Checks that a ledger goes `first`, `first` + 1, ...
pub fn assert_whole(lines: &[Line], first: u64, of: &str) {
    for (i, line) in lines.iter().enumerate() {
        let wanted = first + i as u64;
        assert_eq!(line.number, wanted, "the {of} ledger has a line missing, doubled or moved");
    }
}

/// Checks that the uptime of one boot never falls.
pub fn assert_monotonic(lines: &[Line]) {
    assert!(lines.is_sorted_by_key(|line| line.uptime), "the uptime falls: {lines:?}");
}

/// Checks that every line on the console is on the disk, just so; lines that are not out yet may follow.
pub fn assert_on_disk(console: &[Line], disk: &[Line]) {
    assert!(disk.len() >= console.len(), "the disk lacks lines that the world has seen");
    assert_eq!(&disk[..console.len()], console, "disk and console differ");
}

pub fn signal_process(pid: u64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

pub fn process_lives(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
        && fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}
