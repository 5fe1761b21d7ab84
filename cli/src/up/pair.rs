//! One power cycle of a protected guest: what the sides say, and what the supervisor makes of it.

use super::child::{Child, ChildEvent};
use super::disks::{self, Copies};
use super::{Request, Supervisor};
use crate::guest;
use crate::recording;
use crate::side::Role;
use anyhow::Context as _;
use ft_pair_machine::MachineConfig;
use ft_pair_machine::image::GuestSource;
use ft_pair_shared::protocol::{Process, QuietReason, Sink, SinkError, Witness, WitnessRequest};
use ft_pair_shared::supervision::{FromSide, ToSide};
use ft_pair_shared::telemetry::Event;
use ft_pair_shared::{Epoch, Generation, Input, Output, PairId, PowerEvent, Side, Stream};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long the guest gets to notice a press of the power button.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

/// After a clean end a side gets this long for the rest of its disk.
const END_WELL: Duration = Duration::from_secs(60);
/// After any other end.
const END_SOON: Duration = Duration::from_secs(3);
/// What follows a kill.
const END_KILLED: Duration = Duration::from_secs(15);

/// How a power cycle ended.
#[derive(Debug)]
pub enum End {
    /// As the guest wanted.
    Power(PowerEvent),
    /// A person wanted it, and the guest did not do it.
    Stopped(String),
    /// Nobody is left who could go on.
    Lost(String),
}

/// The side that is live.
#[derive(Debug, Clone, Copy)]
pub(super) struct LiveSide {
    pub process: Process,
    pub generation: Generation,
    pub control: SocketAddr,
    pub bulk: SocketAddr,
}

/// A pair in one power cycle.
pub struct Pair<'s, 'a> {
    pub(super) sup: &'s mut Supervisor<'a>,
    pub(super) machine: MachineConfig,
    pub(super) agreement: String,
    pub(super) witness: Witness,
    sink: Sink,
    pub(super) copies: Option<Copies>,
    /// Where the run is recorded, absolute.
    pub(super) recording: Option<PathBuf>,
    pub(super) children: Vec<Child>,
    pub(super) child_sender: UnboundedSender<(Process, ChildEvent)>,
    child_events: UnboundedReceiver<(Process, ChildEvent)>,
    /// The side that said last that it is live.
    pub(super) live: Option<LiveSide>,
    pub(super) protected: bool,
    pub(super) end: Option<End>,
    /// The power button is to be pressed on whoever is live.
    power_wanted: bool,
    grace: Option<Instant>,
    /// When to press the power button again: a guest that still boots takes no notice.
    press: Option<Instant>,
    pub(super) respawn: Option<Instant>,
    /// The disk copy of the next Slave is being made.
    pub(super) preparing: Option<JoinHandle<anyhow::Result<()>>>,
    /// Slaves in a row that never protected the guest.
    pub(super) failures: u32,
    pub(super) notice: Option<String>,
    pub(super) master_died: Option<Instant>,
    pub(super) failover_reply: Option<oneshot::Sender<Value>>,
    /// Output that standard output has yet to take.
    held: VecDeque<(Process, Epoch)>,
    moved: Arc<Notify>,
}

impl<'s, 'a> Pair<'s, 'a> {
    /// Prepares the copies and starts the Master.
    pub fn begin(sup: &'s mut Supervisor<'a>, source: &GuestSource) -> anyhow::Result<Self> {
        let machine = guest::new_config(sup.args.guest.mem)?;
        let id = PairId(uuid::Uuid::new_v4().into_bytes());
        let recording = begin_recording(sup, &machine, source)?;
        let copies = match &source.disk {
            Some(disk) => {
                let paths = disks::paths(&disk.path, sup.args.slave_disk.as_deref())?;
                Some(Copies::begin(paths, id)?)
            }
            None => None,
        };
        let agreement = json!({
            "pair": id.to_string(),
            "memory": machine.memory,
            "disk": copies.as_ref().map(Copies::len),
            "active": sup.args.active.name(),
        });
        let (child_sender, child_events) = unbounded_channel();
        let moved = sup.hub.borrow().moved();
        let mut pair = Self {
            machine,
            agreement: agreement.to_string(),
            witness: Witness::new(),
            sink: Sink::new(),
            copies,
            recording,
            children: Vec::new(),
            child_sender,
            child_events,
            live: None,
            protected: false,
            end: None,
            power_wanted: false,
            grace: None,
            press: None,
            respawn: None,
            preparing: None,
            failures: 0,
            notice: None,
            master_died: None,
            failover_reply: None,
            held: VecDeque::new(),
            moved,
            sup,
        };
        let choice = pair.sup.choice.clone();
        pair.start(Side::A, "master", Role::Boot(choice))?;
        Ok(pair)
    }

    /// Runs until the power cycle ends; nothing of it is left then.
    pub async fn run(mut self) -> anyhow::Result<End> {
        let moved = Arc::clone(&self.moved);
        let end = loop {
            if let Some(end) = self.end.take() {
                break end;
            }
            let timer = [self.grace, self.press, self.respawn].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some((process, event)) = self.child_events.recv() => self.child_event(process, event),
                Some(request) = self.sup.requests.recv() => self.request(request),
                () = moved.notified() => self.accept_held(),
                made = prepared(&mut self.preparing) => self.copy_is_ready(made),
                () = sleep_until(timer) => self.timers(),
            }
        };
        self.finish(&end).await?;
        Ok(end)
    }

    /// The side that is not live.
    pub(super) fn slave(&self) -> Option<&Child> {
        self.children.iter().find(|child| !self.is_master(child.process))
    }

    pub(super) fn child(&mut self, process: Process) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.process == process)
    }

    /// The live side, if the witness agrees.
    pub(super) fn live_child(&mut self) -> Option<&mut Child> {
        let owner = self.witness.record().owner;
        let live = self.live.map(|live| live.process).filter(|live| Some(*live) == owner)?;
        self.child(live)
    }

    fn tell(&mut self, process: Process, message: ToSide) {
        if let Some(child) = self.child(process) {
            child.tell(message);
        }
    }

    pub(super) fn lost(&mut self, why: impl Into<String>) {
        self.end.get_or_insert(End::Lost(why.into()));
    }

    fn child_event(&mut self, process: Process, event: ChildEvent) {
        match event {
            ChildEvent::Said(said) => self.said(process, said),
            ChildEvent::Exited(status) => self.exited(process, status),
        }
    }

    fn said(&mut self, process: Process, said: FromSide) {
        match said {
            FromSide::Hello { pid, incarnation } => {
                tracing::debug!(pid, ?incarnation, "a side runs");
            }
            FromSide::Live { generation, control, bulk, inputs_taken } => {
                let live = LiveSide { process, generation, control, bulk };
                self.now_live(live, inputs_taken);
            }
            FromSide::Witness { request } => self.asked_witness(process, request),
            FromSide::Release { generation, epoch, outputs } => {
                self.release(process, generation, epoch, &outputs);
            }
            FromSide::InputsCovered { generation, count } => {
                // Of an older generation: its side is being told elsewhere.
                let _ = self.sink.covered(generation, count);
            }
            FromSide::Protected { protected } => self.protection(process, protected),
            FromSide::Quiet { reason } => self.quiet(process, reason),
            FromSide::Stopped { reason } => tracing::info!(?process, ?reason, "a side stops"),
            FromSide::RecordingEnded { why } => self.recording_ended(why),
            FromSide::FailoverRefused => {
                if let Some(reply) = self.failover_reply.take() {
                    let text =
                        "the Slave is not in sync with the Master: wait until it is protected";
                    drop(reply.send(crate::control::refusal(text)));
                }
            }
            FromSide::Notice { text } => {
                let who = self.name_of(process);
                self.sup.reporter.status(&format!("{who}: {text}"));
                self.notice = Some(text);
            }
            FromSide::Event { event } => self.event(&event),
        }
    }

    fn recording_ended(&mut self, why: String) {
        if self.recording.take().is_some() {
            let text = format!("the recording ends, the guest goes on: {why}");
            self.sup.reporter.warn(&text);
            self.sup.recording_failed = Some(why);
        }
    }

    fn event(&mut self, event: &Event) {
        let mut more = Vec::new();
        if let Event::Failover { live_ms, generation, .. } = event {
            let ms = live_ms.0 as f64 / 1000.0;
            self.sup.reporter.status(&format!(
                "the Slave is live, {ms:.1} ms after the Master was last heard (generation {})",
                generation.0
            ));
            if let Some(died) = self.master_died {
                more.push(("noticed_ms_ago", json!(died.elapsed().as_micros() as f64 / 1000.0)));
            }
        }
        self.sup.events.note(event, &more);
    }

    fn now_live(&mut self, live: LiveSide, inputs_taken: u64) {
        if live.generation < self.witness.record().generation {
            return;
        }
        let before = self.live.replace(live).map(|live| live.process);
        for input in self.sink.input_after(inputs_taken) {
            if let Input::Console { first, bytes } = input {
                self.tell(live.process, ToSide::Input { first, bytes });
            }
        }
        if before == Some(live.process) {
            return;
        }
        self.master_died = None;
        if self.power_wanted {
            self.tell(live.process, ToSide::PowerButton);
        }
        if let Some(reply) = self.failover_reply.take() {
            drop(reply.send(json!({ "ok": true, "generation": live.generation.0 })));
        }
        if self.children.len() == 1 {
            self.respawn = Some(Instant::now());
        }
    }

    fn asked_witness(&mut self, process: Process, request: WitnessRequest) {
        let (WitnessRequest::Claim { by, .. } | WitnessRequest::SetInSync { by, .. }) = request;
        if by != process {
            tracing::warn!(?process, ?by, "a side asked the witness in another's name");
            return;
        }
        let before = self.witness.record();
        let reply = self.witness.ask(request);
        let changed = before != reply.record;
        self.sink.granted(reply.record.generation);
        self.tell(process, ToSide::Witness { reply });
        if !changed {
            return;
        }
        let epoch = self.sup.events.epoch();
        match request {
            WitnessRequest::Claim { generation, by } => {
                // Its first output is taken after this returns, so after the copy says so.
                if let Some(copies) = &mut self.copies {
                    copies.granted(generation, by.side, epoch);
                }
                self.protected = false;
                for out in [before.owner, before.in_sync].into_iter().flatten() {
                    if out != by {
                        self.dismiss(out);
                    }
                }
            }
            WitnessRequest::SetInSync { peer, .. } => {
                if let Some(copies) = &mut self.copies {
                    copies.in_sync(peer.side, epoch);
                }
            }
        }
    }

    /// The other side won the generation: whatever keeps this one, it ends.
    fn dismiss(&mut self, process: Process) {
        if let Some(child) = self.child(process) {
            child.dismissed = true;
            child.kill();
        }
    }

    fn release(
        &mut self,
        process: Process,
        generation: Generation,
        epoch: Epoch,
        outputs: &[Output],
    ) {
        match self.sink.take(generation, outputs) {
            Ok(new) => {
                for output in &new {
                    match output.stream {
                        Stream::Console => self.sup.hub.borrow_mut().write(&output.bytes),
                        Stream::Power => self.power(output),
                    }
                }
                self.held.push_back((process, epoch));
                self.accept_held();
            }
            Err(SinkError::OldGeneration { offered, .. }) => {
                self.tell(process, ToSide::Refused { generation: offered });
            }
            Err(gap @ SinkError::Gap { .. }) => self.lost(gap.to_string()),
        }
    }

    /// Tells the sides what the sink has, unless standard output is far behind.
    fn accept_held(&mut self) {
        while !self.sup.hub.borrow().behind() {
            let Some((process, epoch)) = self.held.pop_front() else { return };
            self.tell(process, ToSide::Accepted { epoch });
        }
    }

    fn power(&mut self, output: &Output) {
        let event = match output.bytes.first() {
            Some(1) => PowerEvent::Reboot,
            Some(2) => PowerEvent::Crash,
            _ => PowerEvent::Off,
        };
        self.end.get_or_insert(End::Power(event));
    }

    fn protection(&mut self, process: Process, protected: bool) {
        if self.live.map(|live| live.process) != Some(process) || self.protected == protected {
            return;
        }
        self.protected = protected;
        if protected {
            self.failures = 0;
            let pid = |child: Option<&Child>| child.map_or("?".into(), |c| c.pid.to_string());
            let master = self.children.iter().find(|child| child.process == process);
            let text = format!(
                "protected: Master is process {}, Slave {}",
                pid(master),
                pid(self.slave())
            );
            self.sup.reporter.status(&text);
            self.sup.reporter.ready();
        } else {
            self.sup.reporter.status("unprotected: the guest goes on without a Slave");
        }
    }

    fn quiet(&mut self, process: Process, reason: QuietReason) {
        let QuietReason::Diverged { first } = reason;
        if let Some(child) = self.child(process) {
            child.quiet = true;
        }
        let text = format!(
            "the Master is gone, and the Slave differs from it since epoch {}: it does not go live",
            first.0
        );
        self.sup.reporter.warn(&text);
        self.lost(text);
    }

    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::Ask(ask, reply) => self.answer(ask, reply),
            Request::Typed(bytes) => {
                if let (Input::Console { first, bytes }, Some(live)) =
                    (self.sink.input(bytes), self.live_child())
                {
                    live.tell(ToSide::Input { first, bytes });
                }
            }
            Request::PowerOff => self.ask_for_end(),
            Request::Detach => self.sup.reporter.status(
                "this pair runs in the foreground; `ft-pair up -d` runs one in the background",
            ),
        }
    }

    /// Politely, then at once.
    pub(super) fn ask_for_end(&mut self) {
        self.sup.asked += 1;
        if self.sup.asked > 1 {
            let text = "stopped at once, before the guest was off";
            self.end.get_or_insert(End::Stopped(text.into()));
            return;
        }
        self.sup.reporter.status("asking the guest to power off; again stops it at once");
        self.power_wanted = true;
        self.grace = Some(Instant::now() + Duration::from_secs(self.sup.args.guest.grace));
        self.press_button();
    }

    fn press_button(&mut self) {
        self.press = Some(Instant::now() + PRESS_AGAIN);
        if let Some(live) = self.live_child() {
            live.tell(ToSide::PowerButton);
        }
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if self.press.is_some_and(|at| now >= at) {
            self.press_button();
        }
        if self.grace.is_some_and(|at| now >= at) {
            self.grace = None;
            let grace = self.sup.args.guest.grace;
            let text = format!("the guest did not power off within {grace} s: stopped hard");
            self.end.get_or_insert(End::Stopped(text));
        }
        if self.respawn.is_some_and(|at| now >= at) {
            self.respawn = None;
            self.start_slave();
        }
    }

    /// Ends both sides and settles the copies.
    async fn finish(&mut self, end: &End) -> anyhow::Result<()> {
        let well = matches!(end, End::Power(_));
        while let Some((process, epoch)) = self.held.pop_front() {
            self.tell(process, ToSide::Accepted { epoch });
        }
        if !well {
            self.children.iter().for_each(|child| child.tell(ToSide::Quit));
        }
        let mut until = Instant::now() + if well { END_WELL } else { END_SOON };
        let mut killed = false;
        while !self.children.is_empty() {
            tokio::select! {
                Some((process, event)) = self.child_events.recv() => {
                    if let ChildEvent::Exited(_) = event {
                        self.children.retain(|child| child.process != process);
                        // With one gone the other has nothing to wait for.
                        self.children.iter().for_each(|child| child.tell(ToSide::Quit));
                        until = until.min(Instant::now() + END_SOON);
                    }
                }
                Some(request) = self.sup.requests.recv() => match request {
                    Request::PowerOff => until = Instant::now(),
                    Request::Ask(crate::control::Ask::Down, reply) => self.sup.waiting.push(reply),
                    _ => {}
                },
                () = tokio::time::sleep_until(until) => {
                    if killed {
                        anyhow::bail!("a side cannot be killed: its disk copy is left as it is");
                    }
                    killed = true;
                    until = Instant::now() + END_KILLED;
                    self.children.iter_mut().for_each(Child::kill);
                }
            }
        }
        if let Some(preparing) = self.preparing.take() {
            // Its copy is not needed any more, but has to be there to be removed.
            drop(preparing.await);
        }
        // A guest that was lost leaves a recording without an end.
        if let (false, Some(dir)) = (matches!(end, End::Lost(_)), self.recording.take())
            && let Err(error) = recording::end(&dir)
        {
            self.sup.recording_failed = Some(format!("{error:#}"));
        }
        let live = self.witness.record().owner.map(|owner| owner.side);
        if let Some(copies) = self.copies.take() {
            copies.end(live, self.sup.events.epoch())?;
        }
        Ok(())
    }
}

/// Keeps what the guest starts from, before anything else of it exists.
fn begin_recording(
    sup: &Supervisor<'_>,
    machine: &MachineConfig,
    source: &GuestSource,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(dir) = &sup.args.record else { return Ok(None) };
    sup.reporter.status(&format!("recording into {}", dir.display()));
    // The sides go on with it, one after the other.
    drop(recording::begin(dir, machine, source)?);
    Ok(Some(std::path::absolute(dir)?))
}

/// Waits for the copy that is being made; for ever, if none is.
async fn prepared(preparing: &mut Option<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    let Some(handle) = preparing else { return std::future::pending().await };
    let made = handle.await;
    *preparing = None;
    made.context("the disk copy was not made")?
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
