//! A guest process under measurement: `ft-pair` or QEMU, its console stamped line by line by the host's
//! clock.

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Where the measured programs and the guest's image are.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The command `ft-pair`.
    pub ft_pair: PathBuf,
    /// The guest image; never written to.
    pub image: PathBuf,
}

/// A directory with a private copy of the image.
#[derive(Debug)]
pub struct Folder {
    dir: tempfile::TempDir,
    ft_pair: PathBuf,
}

impl Folder {
    /// Copies the image.
    pub fn new(setup: &Setup) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("ft-pair-bench-").tempdir()?;
        let copy = dir.path().join("guest.img");
        ft_pair_machine::disk::make_copy(&setup.image, &copy, &mut |_, _| ())
            .with_context(|| format!("cannot copy {}", setup.image.display()))?;
        Ok(Self { dir, ft_pair: setup.ft_pair.clone() })
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command `ft-pair` with arguments, to be run here.
    pub fn ft_pair(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.ft_pair);
        command.args(args).current_dir(self.dir.path());
        command.env("XDG_RUNTIME_DIR", self.dir.path()).env("TMPDIR", self.dir.path());
        command
    }

    /// Runs `ft-pair` to its end; its standard output as JSON.
    pub fn ask(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let Output { status, stdout, stderr } = self.ft_pair(args).output()?;
        ensure!(status.success(), "ft-pair {args:?}: {}", String::from_utf8_lossy(&stderr));
        Ok(serde_json::from_slice(&stdout)?)
    }
}

/// The kernel command line for a list of the guest's benchmark words.
pub fn append(words: &str) -> String {
    format!("root=/dev/vda rootfstype=ext4 rw console=ttyS0 ft.exec=bench,{words} ft.poweroff")
}

/// A running guest; killed when it goes out of scope.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    lines: Receiver<(Instant, String)>,
    /// The last lines, for a failure's message.
    last: VecDeque<String>,
    /// When the process was started.
    pub began: Instant,
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Guest {
    /// Starts it.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("cannot start {}", Path::new(command.get_program()).display())
            })?;
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::with_capacity(1, stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send((Instant::now(), text)).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines, last: VecDeque::new(), began })
    }

    /// Waits for a line with this in it; when it came.
    pub fn line(&mut self, part: &str, within: Duration) -> anyhow::Result<Instant> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((at, line)) => {
                    let found = line.contains(part);
                    if self.last.len() == 10 {
                        self.last.pop_front();
                    }
                    self.last.push_back(line);
                    if found {
                        return Ok(at);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no `{part}` on the console within {within:?}; last: {:#?}", self.last)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the guest ended before `{part}`; last: {:#?}", self.last)
                }
            }
        }
    }

    /// Forgets the lines that are here.
    pub fn drain(&mut self) {
        while self.lines.try_recv().is_ok() {}
    }

    /// Seconds between a workload's begin and its end.
    pub fn workload(&mut self, name: &str, within: Duration) -> anyhow::Result<f64> {
        let begin = self.line(&format!("bench begin {name}"), within)?;
        let end = self.line(&format!("bench end {name}"), within)?;
        Ok(end.duration_since(begin).as_secs_f64())
    }

    /// Waits for the process to end by itself; seconds since its start.
    pub fn ended(&mut self, within: Duration) -> anyhow::Result<f64> {
        let until = Instant::now() + within;
        loop {
            // Its console must not fill up.
            self.drain();
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the guest's process failed: {status}");
                return Ok(self.began.elapsed().as_secs_f64());
            }
            ensure!(Instant::now() < until, "the guest does not end within {within:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Kills a process that one of ours started.
pub fn kill(pid: u64) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    Ok(kill_process(pid, Signal::KILL)?)
}
