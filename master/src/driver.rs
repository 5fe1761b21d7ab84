//! Runs the Master's protocol over real connections: between the vCPU thread, the Slaves' links and the
//! supervisor.

use crate::live::{self, Chunk, Command, End, EpochFigures, Live, Report};
use crate::recording::Recording;
use crate::slave_link::{Ledger, LinkEvent, SlaveLinks};
use anyhow::Context as _;
use ft_pair_machine::Machine;
use ft_pair_machine::disk::{DiskControl, DiskEvent};
use ft_pair_replay_log::{Encoder, Stand};
use ft_pair_shared::account::{Bytes, Class};
use ft_pair_shared::bulk::{ChunkWriter, Item};
use ft_pair_shared::protocol::{
    Bulk, BulkToSlave, Control, ControlToMaster, ControlToSlave, EpochSummary, Handover,
    Incarnation, MasterAction, MasterEvent, MasterProtocol, Payload, Process, Settings, StopReason,
};
use ft_pair_shared::supervision::{FromSide, ToSide};
use ft_pair_shared::telemetry::{Event, Milliseconds};
use ft_pair_shared::transport::{BulkFrame, Greeting};
use ft_pair_shared::{Epoch, Generation, Output, Position};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long the end of a Master waits for the host's disk.
const DRAIN: Duration = Duration::from_secs(30);

/// What a Master needs to know.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// The protocol's settings.
    pub protocol: Settings,
    /// The live execution's settings.
    pub live: live::Settings,
    /// Who this is.
    pub process: Process,
    /// How it introduces itself to Slaves.
    pub greeting: Greeting,
    /// Where it listens for Slaves.
    pub host: IpAddr,
    /// The recording of the guest's whole life, if it is wanted: it exists, and this side goes on with it.
    pub record: Option<PathBuf>,
}

/// From where the guest goes on.
pub enum Start {
    /// A machine whose kernel is loaded.
    First {
        /// It.
        machine: Machine,
        /// Its disk.
        disk: Option<DiskControl>,
    },
    /// A Slave that goes live.
    Promoted {
        /// Its machine.
        machine: Machine,
        /// Its disk.
        disk: Option<DiskControl>,
        /// What the guest put out since the handover's epoch.
        outputs: Vec<Output>,
        /// The last input that this side executed by itself.
        last_input: Option<Position>,
        /// The protocol's terms.
        handover: Handover,
        /// When the loss of the Master was noticed.
        lost: Instant,
        /// When the Master was heard last.
        heard: Instant,
    },
}

/// An epoch whose commit is awaited.
#[derive(Debug)]
struct Ended {
    epoch: Epoch,
    position: Position,
    figures: EpochFigures,
    at: Instant,
}

/// A synchronisation under way, for its event.
#[derive(Debug)]
struct Sync {
    began: Instant,
    bytes: u64,
    paused: Option<Instant>,
    pause_us: u64,
}

/// A transfer under way from the vCPU thread to a Slave.
#[derive(Debug)]
struct Collecting {
    slave: Incarnation,
    /// Its name, and its bytes so far.
    payload: Payload,
    /// A round of a synchronisation: its parts go into the Slave's machine as they come.
    round: bool,
}

struct Driver {
    protocol: MasterProtocol,
    origin: Instant,
    links: SlaveLinks,
    commands: mpsc::Sender<Command>,
    to: UnboundedSender<FromSide>,
    encoder: Encoder,
    /// Chunks by handle, until their message is sent.
    payloads: HashMap<u64, Vec<Vec<u8>>>,
    next_handle: u64,
    /// The transfer that the vCPU thread is collecting.
    collecting: Option<Collecting>,
    feeding: bool,
    ledger: Ledger,
    ended: VecDeque<Ended>,
    ended_at: VecDeque<(Epoch, Instant)>,
    diverged_pages: u64,
    sync: Option<Sync>,
    inputs_taken: u64,
    /// The guest is off: the vCPU thread has nothing more to say.
    powered_off: bool,
    stop: Option<StopReason>,
}

/// Runs a Master until its end, on a `LocalSet`.
///
/// # Errors
/// When it cannot listen, or the vCPU thread died.
pub async fn run(
    config: MasterConfig,
    start: Start,
    to: UnboundedSender<FromSide>,
    mut from: UnboundedReceiver<ToSide>,
) -> anyhow::Result<StopReason> {
    let (link_events, mut link_input) = unbounded_channel();
    let links = SlaveLinks::bind(config.host, config.greeting.clone(), link_events).await;
    let links = links.with_context(|| format!("cannot listen for a Slave on {}", config.host))?;
    let (commands, command_input) = mpsc::channel();
    let (reports, mut report_input) = unbounded_channel();
    let (durable, mut durable_input) = unbounded_channel();
    let origin = Instant::now();
    let (protocol, machine, disk, last_epoch, outputs, last_input) = match start {
        Start::First { machine, disk } => (
            MasterProtocol::first(config.protocol, config.process, 0),
            machine,
            disk,
            Epoch(0),
            vec![],
            None,
        ),
        Start::Promoted { machine, disk, outputs, last_input, handover, lost, heard } => {
            announce(&to, &handover, lost, heard);
            let epoch = handover.epoch;
            let protocol = MasterProtocol::promoted(config.protocol, handover, 0);
            (protocol, machine, disk, epoch, outputs, last_input)
        }
    };
    if let Some(disk) = &disk {
        let _ = durable.send(DiskEvent::Durable { flush: disk.durable_flush() });
        disk.subscribe(Box::new(move |event| drop(durable.send(event.clone()))));
    }
    let inputs_taken = machine.console_input_next();
    let control = disk.clone();
    let stand = Stand { position: machine.position(), epoch: last_epoch, last_input };
    let recording = config.record.as_deref().map(|dir| Recording::resume(dir, stand));
    let report = reporting(reports, recording, to.clone());
    let live = Live::new(machine, disk, config.live, last_epoch, outputs, command_input, report);
    let vcpu = std::thread::Builder::new().name("vcpu".into()).spawn(move || live.run())?;
    let mut driver = Driver {
        protocol,
        origin,
        links,
        commands,
        to,
        encoder: Encoder::new(),
        payloads: HashMap::new(),
        next_handle: 1,
        collecting: None,
        feeding: false,
        ledger: Ledger::default(),
        ended: VecDeque::new(),
        ended_at: VecDeque::new(),
        diverged_pages: 0,
        sync: None,
        inputs_taken,
        powered_off: false,
        stop: None,
    };
    driver.event(MasterEvent::Tick);
    while driver.stop.is_none() {
        let tick = driver.protocol.deadline().map(|us| origin + Duration::from_micros(us));
        let tick =
            tokio::time::sleep_until(tick.unwrap_or(origin + Duration::from_secs(1 << 30)).into());
        tokio::select! {
            biased;
            Some(event) = link_input.recv() => driver.link_event(event),
            report = report_input.recv(), if !driver.powered_off => match report {
                Some(report) => driver.report(report),
                None => break,
            },
            Some(event) = durable_input.recv() => driver.disk_event(&event),
            message = from.recv() => match message {
                Some(message) => driver.told(message),
                None => break,
            },
            () = driver.links.accept() => {}
            () = tick => driver.event(MasterEvent::Tick),
        }
    }
    let _ = driver.commands.send(Command::Quit);
    let ended = tokio::task::spawn_blocking(move || vcpu.join()).await?;
    let (machine, end) = ended.map_err(|_| anyhow::anyhow!("the vCPU thread panicked"))?;
    if let Some(disk) = control {
        settle_disk(disk, &driver.to).await?;
    }
    drop(machine);
    if let End::HostError(error) = &end {
        let _ = driver.to.send(FromSide::Notice { text: error.clone() });
    }
    let reason = driver.stop.unwrap_or(StopReason::Failed);
    let _ = driver.to.send(FromSide::Stopped { reason });
    Ok(reason)
}

/// What the vCPU thread tells goes into the recording first, then to the driver.
fn reporting(
    reports: UnboundedSender<Report>,
    mut recording: Option<Recording>,
    to: UnboundedSender<FromSide>,
) -> Box<dyn FnMut(Report) + Send> {
    Box::new(move |report| {
        if let Some(Err(error)) = recording.as_mut().map(|recording| recording.note(&report)) {
            recording = None;
            let _ = to.send(FromSide::RecordingEnded { why: error.to_string() });
        }
        drop(reports.send(report));
    })
}

/// Makes everything that the guest wrote durable, as far as the host lets us.
async fn settle_disk(disk: DiskControl, to: &UnboundedSender<FromSide>) -> anyhow::Result<()> {
    match tokio::task::spawn_blocking(move || disk.drain(DRAIN)).await? {
        Ok(true) => {}
        Ok(false) => {
            let text = format!("the host's disk did not take all writes within {DRAIN:?}");
            let _ = to.send(FromSide::Notice { text });
        }
        Err(fault) => drop(to.send(FromSide::Notice { text: fault.to_string() })),
    }
    Ok(())
}

fn announce(to: &UnboundedSender<FromSide>, handover: &Handover, lost: Instant, heard: Instant) {
    let us = |since: Instant| Milliseconds(since.elapsed().as_micros() as u64);
    let detect = lost.saturating_duration_since(heard).as_micros() as u64;
    let _ = to.send(FromSide::Event {
        event: Event::Failover {
            detect_ms: Milliseconds(detect),
            live_ms: us(heard),
            from_position: handover.position,
            generation: handover.generation,
        },
    });
}

impl Driver {
    fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// Gives an event to the protocol and does what it asks for.
    fn event(&mut self, event: MasterEvent) {
        let actions = self.protocol.handle(self.now_us(), event);
        for action in actions {
            self.act(action);
        }
        let feeds = self.protocol.feeds_slave();
        if self.feeding && !feeds {
            let _ = self.commands.send(Command::StopFeeding);
        }
        self.feeding = feeds;
    }

    fn handle(&mut self) -> u64 {
        self.next_handle += 1;
        self.next_handle
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Control(envelope) => {
                let committed = match &envelope.body {
                    ControlToMaster::EpochAck { epoch, .. }
                    | ControlToMaster::RepairStaged { epoch, .. } => Some(*epoch),
                    _ => None,
                };
                if matches!(envelope.body, ControlToMaster::Hello { .. })
                    && !self.links.has(envelope.slave)
                {
                    // Its bulk connection is not here yet; it says Hello again.
                    return;
                }
                self.event(MasterEvent::Control(envelope));
                if let Some(epoch) = committed {
                    let _ = self.commands.send(Command::Committed(epoch));
                    self.committed(epoch);
                }
            }
            LinkEvent::Bulk(mut envelope, chunks) => {
                let handle = self.handle();
                let ft_pair_shared::protocol::BulkToMaster::RepairDigests { payload, .. } =
                    &mut envelope.body;
                payload.handle = handle;
                let mut counted = Bytes::default();
                counted.add(Class::Digest, chunks.iter().map(|c| c.len() as u64).sum());
                self.ledger.add(&counted);
                self.payloads.insert(handle, chunks);
                self.event(MasterEvent::Bulk(envelope));
            }
            LinkEvent::FillSent(slave) => drop(self.commands.send(Command::PartSent { slave })),
            LinkEvent::Closed(slave) => {
                self.links.drop_slave(slave);
                self.event(MasterEvent::Disconnected(slave));
            }
        }
    }

    fn disk_event(&mut self, event: &DiskEvent) {
        match event {
            DiskEvent::Durable { flush } => self.event(MasterEvent::DurableUpTo(*flush)),
            DiskEvent::Failed(fault) => self.notice(fault.to_string()),
            DiskEvent::Recovered => self.notice("the disk copy can be written again".into()),
            DiskEvent::Stuck { bytes } => {
                self.notice(format!("the guest waits for the host's disk: {bytes} bytes behind"));
            }
        }
    }

    fn notice(&self, text: String) {
        let _ = self.to.send(FromSide::Notice { text });
    }

    fn told(&mut self, message: ToSide) {
        match message {
            ToSide::Input { first, bytes } => {
                let _ = self.commands.send(Command::Input { first, bytes });
            }
            ToSide::PowerButton => drop(self.commands.send(Command::PowerButton)),
            ToSide::Witness { reply } => self.event(MasterEvent::Witness(reply)),
            ToSide::Accepted { epoch } => self.event(MasterEvent::Accepted(epoch)),
            ToSide::Refused { generation } => self.event(MasterEvent::SinkRefused(generation)),
            ToSide::Failover | ToSide::Inject { .. } => {}
            ToSide::Quit => self.stop = Some(StopReason::Failed),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Log { end, inputs_taken, records, for_slave } => {
                self.inputs_taken = inputs_taken;
                if !for_slave || !self.feeding {
                    return;
                }
                let mut bytes = Vec::new();
                for record in &records {
                    self.encoder.encode(record, &mut bytes);
                }
                let payload = Payload { handle: self.handle(), bytes: bytes.len() as u64 };
                self.payloads.insert(payload.handle, vec![bytes]);
                self.event(MasterEvent::Log { end, inputs_taken, payload });
                self.payloads.remove(&payload.handle);
            }
            Report::Epoch { epoch, position, digest, outputs, inputs_taken, state, figures } => {
                self.inputs_taken = inputs_taken;
                let state = self.keep_state(state);
                self.ended_at.push_back((epoch, Instant::now()));
                self.ended.push_back(Ended { epoch, position, figures, at: Instant::now() });
                let summary =
                    EpochSummary { epoch, position, digest, outputs, inputs_taken, state };
                self.event(MasterEvent::EpochEnded(summary));
                self.payloads.remove(&state.handle);
                if !self.feeding {
                    self.unprotected_epoch(epoch);
                }
            }
            Report::TlbFlushed { .. } => {}
            Report::Paused { ticket } => {
                if let Some(sync) = &mut self.sync {
                    sync.paused = Some(Instant::now());
                }
                self.event(MasterEvent::GuestPaused { ticket });
            }
            Report::Part(chunk) => self.part(chunk),
            Report::RoundDone { slave, left_bytes } => {
                let payload = self.collected(slave);
                self.event(MasterEvent::SyncRoundReady { slave, payload, left_bytes });
            }
            Report::FinalDone { slave } => {
                self.encoder = Encoder::new();
                let payload = self.collected(slave);
                self.event(MasterEvent::SyncFinalReady { slave, payload });
            }
            Report::RepairDone { slave, diverged_pages } => {
                self.diverged_pages += diverged_pages;
                let payload = self.collected(slave);
                self.event(MasterEvent::RepairReady { slave, payload });
            }
            Report::Power(_) => {
                self.powered_off = true;
                self.event(MasterEvent::Finish);
            }
            Report::HostError(error) => {
                self.notice(error);
                self.stop = Some(StopReason::Failed);
            }
        }
    }

    fn keep_state(&mut self, state: Option<Chunk>) -> Payload {
        let Some(chunk) = state else { return Payload::default() };
        let payload = Payload { handle: self.handle(), bytes: chunk.bytes.len() as u64 };
        self.ledger.add(&chunk.counted);
        self.payloads.insert(payload.handle, vec![chunk.bytes]);
        payload
    }

    /// A part of a transfer: sent at once, its message follows.
    fn part(&mut self, chunk: Chunk) {
        let Some(Collecting { slave, payload, round }) = &mut self.collecting else { return };
        payload.bytes += chunk.bytes.len() as u64;
        if let Some(sync) = &mut self.sync {
            sync.bytes += chunk.bytes.len() as u64;
        }
        self.ledger.add(&chunk.counted);
        let frame = match round {
            true => BulkFrame::Fill { bytes: chunk.bytes },
            false => BulkFrame::Chunk { handle: payload.handle, bytes: chunk.bytes },
        };
        self.links.send_bulk(*slave, frame);
    }

    fn collected(&mut self, slave: Incarnation) -> Payload {
        match self.collecting.take() {
            Some(collecting) if collecting.slave == slave => collecting.payload,
            _ => Payload::default(),
        }
    }

    fn collect_for(&mut self, slave: Incarnation, round: bool) {
        let payload = Payload { handle: self.handle(), bytes: 0 };
        self.collecting = Some(Collecting { slave, payload, round });
    }

    fn act(&mut self, action: MasterAction) {
        match action {
            MasterAction::SendControl(control) => self.send_control(&control),
            MasterAction::SendBulk(bulk) => self.send_bulk(bulk),
            MasterAction::DropSlave(slave) => {
                self.links.drop_slave(slave);
                self.sync = None;
                if self.collecting.take().is_some() {
                    let _ = self.commands.send(Command::StopFeeding);
                }
            }
            MasterAction::PauseGuest { ticket } => {
                drop(self.commands.send(Command::Pause { ticket }))
            }
            MasterAction::ResumeGuest => {
                if let Some(sync) = &mut self.sync
                    && let Some(paused) = sync.paused.take()
                {
                    sync.pause_us += paused.elapsed().as_micros() as u64;
                }
                let _ = self.commands.send(Command::Resume);
            }
            MasterAction::Release { generation, epoch, outputs } => {
                self.release(generation, epoch, outputs);
            }
            MasterAction::InputsCovered { generation, count } => {
                let _ = self.to.send(FromSide::InputsCovered { generation, count });
            }
            MasterAction::AskWitness(request) => drop(self.to.send(FromSide::Witness { request })),
            MasterAction::CollectSyncRound { slave, round } => {
                if round == 1 {
                    let began = Instant::now();
                    self.sync = Some(Sync { began, bytes: 0, paused: None, pause_us: 0 });
                }
                self.collect_for(slave, true);
                let _ = self.commands.send(Command::SyncRound { slave, round });
            }
            MasterAction::CollectSyncFinal { slave, at } => {
                self.collect_for(slave, false);
                let _ = self.commands.send(Command::SyncFinal { slave, at });
            }
            MasterAction::CollectRepair { slave, digests, .. } => {
                self.collect_for(slave, false);
                let digests = self.payloads.remove(&digests.handle).unwrap_or_default();
                let _ = self.commands.send(Command::Repair { slave, digests });
            }
            MasterAction::Granted(generation) => self.granted(generation),
            MasterAction::ReportProtected(protected) => self.protected(protected),
            MasterAction::Stop(reason) => self.stop = Some(reason),
        }
    }

    fn send_control(&mut self, control: &Control) {
        let Control::ToSlave(envelope) = control else { return };
        let log = match &envelope.body {
            ControlToSlave::Log { payload, .. } => {
                self.payloads.get(&payload.handle).and_then(|chunks| chunks.first())
            }
            _ => None,
        };
        let mut counted = Bytes::default();
        let log = log.map_or(&[][..], Vec::as_slice);
        counted.add(Class::Log, log.len() as u64);
        let mut item = ChunkWriter::default();
        if !log.is_empty() {
            item.put(Item::Log(log));
        }
        let (bytes, _) = item.finish();
        self.links.send_control(control, &bytes);
        self.ledger.add(&counted);
    }

    fn send_bulk(&mut self, bulk: Bulk) {
        let Bulk::ToSlave(envelope) = &bulk else { return };
        let payload = match &envelope.body {
            BulkToSlave::SyncPages { payload, .. }
            | BulkToSlave::SyncFinal { payload, .. }
            | BulkToSlave::EpochState { payload, .. }
            | BulkToSlave::Speculative { payload }
            | BulkToSlave::RepairData { payload, .. } => *payload,
        };
        if let BulkToSlave::EpochState { outputs, .. } = &envelope.body {
            let mut counted = Bytes::default();
            counted.add(Class::Output, outputs.iter().map(|o| o.bytes.len() as u64).sum());
            self.ledger.add(&counted);
        }
        let slave = envelope.slave;
        for bytes in self.payloads.remove(&payload.handle).unwrap_or_default() {
            self.links.send_bulk(slave, BulkFrame::Chunk { handle: payload.handle, bytes });
        }
        self.links.send_bulk(slave, BulkFrame::Message(bulk));
    }

    fn release(&mut self, generation: Generation, epoch: Epoch, outputs: Vec<Output>) {
        while self.ended_at.front().is_some_and(|(e, _)| *e < epoch) {
            self.ended_at.pop_front();
        }
        let held = self.ended_at.front().filter(|(e, _)| *e == epoch).map(|(_, at)| at.elapsed());
        let held_us = held.unwrap_or_default().as_micros() as u64;
        for output in &outputs {
            let event = Event::Output {
                stream: output.stream,
                seq: output.seq,
                bytes: output.bytes.len() as u64,
                held_us,
            };
            let _ = self.to.send(FromSide::Event { event });
        }
        let _ = self.to.send(FromSide::Release { generation, epoch, outputs });
    }

    fn granted(&self, generation: Generation) {
        let Ok((control, bulk)) = self.links.addresses() else { return };
        let inputs_taken = self.inputs_taken;
        let _ = self.to.send(FromSide::Live { generation, control, bulk, inputs_taken });
    }

    fn protected(&mut self, protected: bool) {
        if protected && let Some(sync) = self.sync.take() {
            let event = Event::Resync {
                bytes: sync.bytes,
                took_ms: sync.began.elapsed().as_millis() as u64,
                pause_us: sync.pause_us,
            };
            let _ = self.to.send(FromSide::Event { event });
        }
        let _ = self.to.send(FromSide::Protected { protected });
    }

    fn unprotected_epoch(&mut self, epoch: Epoch) {
        while self.ended.front().is_some_and(|ended| ended.epoch <= epoch) {
            let ended = self.ended.pop_front().expect("there is a front");
            self.epoch_event(&ended, 0);
        }
    }

    fn committed(&mut self, epoch: Epoch) {
        while self.ended.front().is_some_and(|ended| ended.epoch <= epoch) {
            let ended = self.ended.pop_front().expect("there is a front");
            let commit_us = ended.at.elapsed().as_micros() as u64;
            self.epoch_event(&ended, commit_us);
        }
    }

    fn epoch_event(&mut self, ended: &Ended, commit_us: u64) {
        let event = Event::Epoch {
            epoch: ended.epoch,
            position: ended.position,
            dirty_pages: ended.figures.dirty_pages,
            diverged_pages: std::mem::take(&mut self.diverged_pages),
            bytes: self.ledger.take(self.links.bytes()),
            pause_us: ended.figures.pause_us,
            commit_us,
            lag_us: commit_us,
        };
        let _ = self.to.send(FromSide::Event { event });
    }
}
