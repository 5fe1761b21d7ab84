//! `ft-pair run`: a guest without a pair, in this process, recorded if wished.

use crate::args::RunArgs;
use crate::console::Hub;
use crate::failure::OrWrongUse;
use crate::guest::{self, Choice};
use crate::recording;
use crate::terminal::{self, Typed};
use crate::up::disks;
use anyhow::Context as _;
use ft_pair_machine::Machine;
use ft_pair_machine::disk::{DiskControl, DiskEvent, OverlayDisk};
use ft_pair_machine::image::GuestSource;
use ft_pair_master::live::{Command, End, Feed, Live, Report, Settings};
use ft_pair_master::recording::Recording;
use ft_pair_shared::{Epoch, Output, PowerEvent, Stream};
use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// Records reach the operating system at least this often.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs a guest until it is off.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let choice = Choice::new(&args.guest);
    choice.check(args.guest.mem)?;
    if let Some(dir) = &args.record {
        recording::check_dir(dir)?;
    }
    let _lock = disks::lock_newest(&choice.image, None)?;
    let typed = if terminal::make_raw()? {
        terminal::read_input(true)
    } else {
        terminal::read_input(false)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut session =
        Session { args, choice, hub: Hub::new(true), input_next: 0, asked: 0, typed, open: true };
    let result = runtime.block_on(session.cycles());
    session.hub.finish();
    terminal::restore();
    // The thread that reads the keyboard ends with the process.
    runtime.shutdown_background();
    result
}

/// What lasts over a guest's power cycles.
struct Session {
    args: RunArgs,
    choice: Choice,
    hub: Hub,
    /// Console bytes that were typed in this power cycle.
    input_next: u64,
    /// How often the user asked for the end.
    asked: u32,
    typed: UnboundedReceiver<Typed>,
    open: bool,
}

/// One power cycle.
struct Cycle {
    commands: std::sync::mpsc::Sender<Command>,
    disk: Option<DiskControl>,
    /// Output that waits for its flush to be durable.
    held: VecDeque<Output>,
    recording: Option<Recording>,
    failed: Option<anyhow::Error>,
}

impl Session {
    fn say(&self, text: &str) {
        if !self.args.guest.quiet {
            terminal::line(&format!("ft-pair: {text}"));
        }
    }

    async fn cycles(&mut self) -> anyhow::Result<ExitCode> {
        loop {
            let source = self.choice.check(self.args.guest.mem)?;
            match self.cycle(&source).await? {
                End::Power(PowerEvent::Off) => {
                    self.say("the guest is off");
                    return Ok(ExitCode::SUCCESS);
                }
                End::Power(PowerEvent::Reboot) if self.args.record.is_some() => {
                    self.say("the guest asked for a reboot: the recording ends here");
                    return Ok(ExitCode::SUCCESS);
                }
                End::Power(PowerEvent::Reboot) => self.say("the guest reboots"),
                End::Power(PowerEvent::Crash) => anyhow::bail!("the guest crashed (triple fault)"),
                End::Quit => anyhow::bail!("the guest was stopped before it was off"),
                End::HostError(error) => anyhow::bail!("the guest cannot go on: {error}"),
            }
        }
    }

    async fn cycle(&mut self, source: &GuestSource) -> anyhow::Result<End> {
        let config = guest::new_config(self.args.guest.mem)?;
        let recording = match &self.args.record {
            Some(dir) => {
                self.say(&format!("recording into {}", dir.display()));
                Some(Recording::new(recording::begin(dir, &config, source)?, FLUSH))
            }
            None => None,
        };
        let (disk, control) = match &source.disk {
            Some(disk) => {
                let overlay = OverlayDisk::open(&disk.path);
                let overlay = overlay.with_context(|| disk.path.display().to_string())?;
                let control = overlay.control();
                (Box::new(overlay) as _, Some(control))
            }
            None => (guest::no_disk(), None),
        };
        let initrd = source.initrd.as_deref();
        let machine = guest::boot(&config, &source.kernel, initrd, &source.cmdline, disk);
        let machine = machine.or_wrong_use()?;
        self.say(&format!("starting: {}; Ctrl-A x powers it off", source.found_by));
        self.input_next = 0;
        self.live(machine, control, recording).await
    }

    async fn live(
        &mut self,
        machine: Machine,
        disk: Option<DiskControl>,
        recording: Option<Recording>,
    ) -> anyhow::Result<End> {
        let (commands, command_input) = std::sync::mpsc::channel();
        let (reports, mut report_input) = unbounded_channel();
        let (durable, mut durable_input) = unbounded_channel();
        if let Some(disk) = &disk {
            disk.subscribe(Box::new(move |event| drop(durable.send(event.clone()))));
        }
        let settings = Settings {
            epoch: Duration::from_millis(25),
            max_dirty_pages: 8192,
            feed: Feed::None,
            record: recording.is_some(),
        };
        let report = Box::new(move |report| drop(reports.send(report)));
        let live =
            Live::new(machine, disk.clone(), settings, Epoch(0), vec![], command_input, report);
        let vcpu = std::thread::Builder::new().name("vcpu".into()).spawn(move || live.run())?;
        let mut cycle = Cycle { commands, disk, held: VecDeque::new(), recording, failed: None };

        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        let mut deadline = None;
        loop {
            let grace = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let asked = self.asked;
            tokio::select! {
                report = report_input.recv() => match report {
                    Some(report) => cycle.report(report),
                    // The thread has ended and everything that it said is here.
                    None => break,
                },
                Some(event) = durable_input.recv() => cycle.disk_event(&event),
                Some(typed) = self.typed.recv(), if self.open => self.typed(typed, &cycle),
                _ = term.recv() => self.ask(&cycle),
                _ = int.recv() => self.ask(&cycle),
                _ = hup.recv() => self.ask(&cycle),
                () = grace => {
                    terminal::line(&format!(
                        "ft-pair: the guest did not power off within {} s: stopped hard",
                        self.args.guest.grace
                    ));
                    deadline = None;
                    drop(cycle.commands.send(Command::Quit));
                }
            }
            if asked == 0 && self.asked == 1 {
                deadline = Some(Instant::now() + Duration::from_secs(self.args.guest.grace));
            }
            cycle.release(&mut self.hub);
        }
        let joined = tokio::task::spawn_blocking(move || vcpu.join()).await?;
        let (machine, end) = joined.map_err(|_| anyhow::anyhow!("the vCPU thread panicked"))?;
        cycle.finish(machine, &mut self.hub).await?;
        Ok(end)
    }

    fn typed(&mut self, typed: Typed, cycle: &Cycle) {
        match typed {
            Typed::Bytes(bytes) => {
                let first = self.input_next;
                self.input_next += bytes.len() as u64;
                drop(cycle.commands.send(Command::Input { first, bytes }));
            }
            Typed::PowerOff => self.ask(cycle),
            Typed::Detach => self.say("only `ft-pair up -d` runs in the background"),
            Typed::End => self.open = false,
        }
    }

    /// The user wants the end: politely, then at once.
    fn ask(&mut self, cycle: &Cycle) {
        self.asked += 1;
        let command = if self.asked == 1 {
            self.say("asking the guest to power off; again stops it at once");
            Command::PowerButton
        } else {
            Command::Quit
        };
        drop(cycle.commands.send(command));
    }
}

impl Cycle {
    fn report(&mut self, report: Report) {
        let noted = self.recording.as_mut().map(|recording| recording.note(&report));
        if let Some(Err(error)) = noted {
            self.recording = None;
            terminal::line(&format!("ft-pair: the recording ends, the guest goes on: {error}"));
            self.failed = Some(anyhow::Error::new(error).context("the recording ended early"));
        }
        if let Report::Epoch { outputs, .. } = report {
            self.held.extend(outputs);
        }
    }

    fn disk_event(&self, event: &DiskEvent) {
        match event {
            DiskEvent::Durable { .. } => {}
            DiskEvent::Failed(fault) => terminal::line(&format!("ft-pair: {fault}; trying again")),
            DiskEvent::Recovered => terminal::line("ft-pair: the disk can be written again"),
            DiskEvent::Stuck { bytes } => {
                terminal::line(&format!(
                    "ft-pair: the guest waits for the disk: {bytes} bytes behind"
                ));
            }
        }
    }

    /// Lets output go whose flush is durable.
    fn release(&mut self, hub: &mut Hub) {
        let durable = self.disk.as_ref().map_or(u64::MAX, DiskControl::durable_flush);
        while let Some(output) = self.held.pop_front_if(|output| output.after_flush <= durable) {
            if output.stream == Stream::Console {
                hub.write(&output.bytes);
            }
        }
    }

    /// The guest has stopped: brings everything to the disk and out.
    async fn finish(mut self, machine: Machine, hub: &mut Hub) -> anyhow::Result<()> {
        let position = machine.position();
        if let Some(disk) = self.disk.clone() {
            let drained =
                tokio::task::spawn_blocking(move || disk.drain(Duration::from_secs(60))).await?;
            if !drained.context("the guest's last writes are lost")? {
                anyhow::bail!("the host's disk is too slow: the guest's last writes are lost");
            }
        }
        drop(machine);
        self.release(hub);
        if let Some(recording) = self.recording.take() {
            recording.finish(position)?;
        }
        self.failed.map_or(Ok(()), Err)
    }
}
