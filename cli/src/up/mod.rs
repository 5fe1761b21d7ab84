//! `ft-pair up`: supervises a pair. It holds what neither side may hold alone: the witness, the sink, the
//! console, and the choice of disk copies.

mod ask;
mod child;
mod detach;
pub mod disks;
mod events;
mod pair;
mod report;
mod sides;

use crate::args::UpArgs;
use crate::console::Hub;
use crate::control::{self, Ask};
use crate::failure::{self, OrWrongUse, wrong_use};
use crate::guest::Choice;
use crate::recording;
use crate::rundir::{self, RunDir};
use crate::terminal::{self, Typed};
use anyhow::Context as _;
use events::Events;
use ft_pair_machine::image::GuestSource;
use ft_pair_shared::PowerEvent;
use ft_pair_shared::telemetry::Event;
use pair::{End, Pair};
use report::Reporter;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// What people want of a running pair.
#[derive(Debug)]
pub enum Request {
    /// A question over the control socket, and where its answer goes.
    Ask(Ask, oneshot::Sender<Value>),
    /// For the guest.
    Typed(Vec<u8>),
    /// Power off; again: end at once.
    PowerOff,
    /// Ctrl-A d.
    Detach,
}

/// Runs a pair until its guest is off.
pub fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    refuse_what_is_not_there(&args)?;
    if let Some(dir) = &args.record {
        recording::check_dir(dir)?;
    }
    if args.detach && !args.background {
        return detach::start();
    }
    let reporter = if args.background {
        Reporter::background(args.guest.quiet, detach::become_background()?)
    } else {
        Reporter::foreground(args.guest.quiet)
    };
    let result = supervise(&args, &reporter);
    if args.background
        && let Err(error) = &result
    {
        reporter.failed(&format!("{error:#}"), failure::code(error));
    }
    result
}

fn refuse_what_is_not_there(args: &UpArgs) -> anyhow::Result<()> {
    if args.slave.is_some() {
        return Err(wrong_use(
            "a Slave on another machine is not there yet: leave --slave out, and both sides run here",
        ));
    }
    Ok(())
}

/// What lasts over a guest's power cycles.
pub struct Supervisor<'a> {
    args: &'a UpArgs,
    choice: Choice,
    name: String,
    run: RunDir,
    reporter: Reporter,
    hub: Rc<RefCell<Hub>>,
    events: Events,
    requests: UnboundedReceiver<Request>,
    /// Questions that are answered when the pair has ended.
    waiting: Vec<oneshot::Sender<Value>>,
    /// How often the end was asked for.
    asked: u32,
    /// Names the processes of all power cycles.
    incarnations: u64,
    /// Why the recording does not have the whole run.
    recording_failed: Option<String>,
}

fn supervise(args: &UpArgs, reporter: &Reporter) -> anyhow::Result<ExitCode> {
    let choice = Choice::new(&args.guest);
    choice.check(args.guest.mem)?;
    let name = args.name.clone().unwrap_or_else(|| rundir::name_from(&args.guest.image));
    rundir::check_name(&name)?;
    let _lock = disks::lock_newest(&choice.image, args.slave_disk.as_deref())?;
    // A newer copy may have taken the image's place.
    let source = choice.check(args.guest.mem)?;
    let events = match &args.events {
        Some(path) => {
            let file = std::fs::File::create(path);
            Some(file.with_context(|| path.display().to_string()).or_wrong_use()?)
        }
        None => None,
    };
    let run = RunDir::create(&name)?;
    let raw = !args.background && terminal::make_raw()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let hub = Rc::new(RefCell::new(Hub::new(!args.background)));
    let result = local.block_on(&runtime, async {
        let (sender, requests) = unbounded_channel();
        control::serve(&run.socket(), Rc::clone(&hub), sender.clone())?;
        listen_to_signals(args.background, &sender)?;
        if !args.background {
            tokio::task::spawn_local(listen_to_keys(raw, sender));
        }
        let mut supervisor = Supervisor {
            args,
            choice,
            name,
            run,
            reporter: reporter.clone(),
            hub: Rc::clone(&hub),
            events: Events::new(events),
            requests,
            waiting: Vec::new(),
            asked: 0,
            incarnations: 0,
            recording_failed: None,
        };
        let result = supervisor.cycles(source).await;
        supervisor.end(&result).await;
        result
    });
    terminal::restore();
    // The thread that reads the keyboard ends with the process.
    runtime.shutdown_background();
    result
}

fn listen_to_signals(background: bool, requests: &UnboundedSender<Request>) -> anyhow::Result<()> {
    let mut off = vec![SignalKind::terminate()];
    // A closed terminal does not end a protected guest: its hangup is taken and forgotten.
    let mut ignored = vec![SignalKind::hangup()];
    if background { &mut ignored } else { &mut off }.push(SignalKind::interrupt());
    for (kinds, counts) in [(off, true), (ignored, false)] {
        for kind in kinds {
            let mut signal = signal(kind)?;
            let requests = requests.clone();
            tokio::task::spawn_local(async move {
                while signal.recv().await.is_some() {
                    if counts && requests.send(Request::PowerOff).is_err() {
                        return;
                    }
                }
            });
        }
    }
    Ok(())
}

async fn listen_to_keys(raw: bool, requests: UnboundedSender<Request>) {
    let mut typed = terminal::read_input(raw);
    while let Some(typed) = typed.recv().await {
        let request = match typed {
            Typed::Bytes(bytes) => Request::Typed(bytes),
            Typed::PowerOff => Request::PowerOff,
            Typed::Detach => Request::Detach,
            Typed::End => return,
        };
        if requests.send(request).is_err() {
            return;
        }
    }
}

impl Supervisor<'_> {
    async fn cycles(&mut self, mut source: GuestSource) -> anyhow::Result<ExitCode> {
        loop {
            self.reporter.status(&format!(
                "starting {}: {}; {} of memory{}",
                self.name,
                source.found_by,
                crate::size::show(self.args.guest.mem),
                if self.args.background { "" } else { "; Ctrl-A x powers it off" },
            ));
            let found_by = source.found_by.clone();
            self.events.note(&Event::Boot { found_by, memory: self.args.guest.mem }, &[]);
            let end = Pair::begin(self, &source)?.run().await?;
            match end {
                End::Power(PowerEvent::Off) => {
                    self.reporter.status("the guest is off");
                    return self.recorded();
                }
                End::Power(PowerEvent::Reboot) if self.args.record.is_some() => {
                    self.reporter.status("the guest asked for a reboot: the recording ends here");
                    return self.recorded();
                }
                End::Power(PowerEvent::Reboot) => self.reporter.status("the guest reboots"),
                End::Power(PowerEvent::Crash) => anyhow::bail!("the guest crashed (triple fault)"),
                End::Stopped(why) | End::Lost(why) => anyhow::bail!("{why}"),
            }
            self.events.new_cycle();
            source = self.choice.check(self.args.guest.mem)?;
        }
    }

    /// The guest has ended well; whether its recording has, too.
    fn recorded(&self) -> anyhow::Result<ExitCode> {
        match &self.recording_failed {
            None => Ok(ExitCode::SUCCESS),
            Some(why) => anyhow::bail!("the recording ended early: {why}"),
        }
    }

    /// Tells everybody who waits that the pair has ended.
    async fn end(mut self, result: &anyhow::Result<ExitCode>) {
        let reason = match result {
            Ok(_) => "the guest is off".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        self.events.note(&Event::Exit { reason: reason.clone() }, &[]);
        let Self { waiting, hub, run, .. } = self;
        drop(run);
        let waited = !waiting.is_empty();
        for reply in waiting {
            drop(reply.send(json!({ "off": result.is_ok(), "reason": reason })));
        }
        hub.borrow_mut().finish();
        if waited {
            // The answers are written by other tasks.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
