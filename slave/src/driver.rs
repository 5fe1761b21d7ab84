//! Runs the Slave's protocol over real connections: between the vCPU thread, the Master and the
//! supervisor.

use crate::follow::{Command, End, Follow, Left, Report};
use anyhow::Context as _;
use ft_pair_machine::Machine;
use ft_pair_machine::disk::{DiskControl, DiskEvent};
use ft_pair_shared::protocol::{
    Bulk, BulkToSlave, Control, ControlToMaster, ControlToSlave, Envelope, Handover, Payload,
    Process, Settings, SlaveAction, SlaveEvent, SlaveProtocol, StopReason,
};
use ft_pair_shared::supervision::{FromSide, ToSide};
use ft_pair_shared::transport::{
    BulkFrame, BulkReader, BulkWriter, ControlEnd, ControlEvent, Counter, Greeting,
};
use ft_pair_shared::{Output, Position};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a Slave needs to know.
#[derive(Debug, Clone)]
pub struct SlaveConfig {
    /// The protocol's settings.
    pub protocol: Settings,
    /// Who this is.
    pub process: Process,
    /// How it introduces itself.
    pub greeting: Greeting,
    /// The Master's control address.
    pub control: SocketAddr,
    /// The Master's bulk address.
    pub bulk: SocketAddr,
}

/// How a Slave ended.
#[allow(clippy::large_enum_variant)] // One value in the life of a process.
pub enum SlaveEnd {
    /// It goes live: the Master's driver takes over with this.
    Live {
        /// The protocol's terms.
        handover: Handover,
        /// The machine.
        machine: Machine,
        /// Its disk.
        disk: Option<DiskControl>,
        /// What the guest put out since the handover's epoch.
        outputs: Vec<Output>,
        /// The last input that it executed by itself.
        last_input: Option<Position>,
        /// When the loss of the Master was noticed.
        lost: Instant,
        /// When the Master was heard last.
        heard: Instant,
        /// The supervisor's further messages.
        from: UnboundedReceiver<ToSide>,
    },
    /// It ends.
    Stopped(StopReason),
}

/// Parts of synchronisation rounds that are here and not yet applied, each up to 2 MiB.
const FILLS_WAITING: usize = 8;

/// What comes from the Master.
enum LinkEvent {
    Control(Control, Vec<u8>),
    Fill(Vec<u8>, OwnedSemaphorePermit),
    Bulk(Envelope<BulkToSlave>, Vec<Vec<u8>>),
    Closed,
}

struct Driver {
    protocol: SlaveProtocol,
    origin: Instant,
    control: ControlEnd,
    bulk: UnboundedSender<BulkFrame>,
    commands: mpsc::Sender<Command>,
    to: UnboundedSender<FromSide>,
    payloads: HashMap<u64, Vec<Vec<u8>>>,
    next_handle: u64,
    replays: bool,
    lost: Option<Instant>,
    heard: Instant,
    end: Option<Decision>,
}

enum Decision {
    GoLive(Handover),
    Stop(StopReason),
}

/// Runs a Slave until it goes live or ends, on a `LocalSet`.
///
/// # Errors
/// When the Master cannot be reached, turns this side away, or the vCPU thread died.
pub async fn run(
    config: SlaveConfig,
    machine: Machine,
    disk: Option<DiskControl>,
    to: UnboundedSender<FromSide>,
    mut from: UnboundedReceiver<ToSide>,
) -> anyhow::Result<SlaveEnd> {
    let (control, bulk, mut link_input) = connect(&config).await?;
    let (commands, command_input) = mpsc::channel();
    let (reports, mut report_input) = unbounded_channel();
    let (durable, mut durable_input) = unbounded_channel();
    if let Some(disk) = &disk {
        disk.subscribe(Box::new(move |event| drop(durable.send(event.clone()))));
    }
    let report = Box::new(move |report| drop(reports.send(report)));
    let follow = Follow::new(machine, disk.clone(), command_input, report);
    let vcpu = std::thread::Builder::new().name("vcpu".into()).spawn(move || follow.run())?;
    let origin = Instant::now();
    let mut driver = Driver {
        protocol: SlaveProtocol::new(config.protocol, config.process, 0),
        origin,
        control,
        bulk,
        commands,
        to,
        payloads: HashMap::new(),
        next_handle: 1,
        replays: !config.protocol.active.commits_state(),
        lost: None,
        heard: origin,
        end: None,
    };
    driver.event(SlaveEvent::Tick);
    while driver.end.is_none() {
        let tick = driver.protocol.deadline().map(|us| origin + Duration::from_micros(us));
        let tick =
            tokio::time::sleep_until(tick.unwrap_or(origin + Duration::from_secs(1 << 30)).into());
        tokio::select! {
            biased;
            Some(event) = link_input.recv() => driver.link_event(event),
            report = report_input.recv() => match report {
                Some(report) => driver.report(report),
                None => break,
            },
            Some(event) = durable_input.recv() => driver.disk_event(&event),
            message = from.recv() => match message {
                Some(message) => driver.told(message),
                None => break,
            },
            () = tick => driver.event(SlaveEvent::Tick),
        }
    }
    let decision = driver.end.take();
    let command = match &decision {
        Some(Decision::GoLive(_)) => Command::GoLive,
        _ => Command::Quit,
    };
    let _ = driver.commands.send(command);
    let joined = tokio::task::spawn_blocking(move || vcpu.join()).await?;
    let left = joined.map_err(|_| anyhow::anyhow!("the vCPU thread panicked"))?;
    let Left { machine, outputs, last_input, end } = left;
    let lost = driver.lost.unwrap_or_else(Instant::now);
    let heard = driver.heard;
    tokio::task::spawn_local(driver.control.close());
    match decision {
        Some(Decision::GoLive(handover)) if end == End::GoLive => {
            Ok(SlaveEnd::Live { handover, machine, disk, outputs, last_input, lost, heard, from })
        }
        Some(Decision::Stop(reason)) => {
            let _ = driver.to.send(FromSide::Stopped { reason });
            Ok(SlaveEnd::Stopped(reason))
        }
        _ => {
            let _ = driver.to.send(FromSide::Stopped { reason: StopReason::Failed });
            Ok(SlaveEnd::Stopped(StopReason::Failed))
        }
    }
}

type Connections = (ControlEnd, UnboundedSender<BulkFrame>, UnboundedReceiver<LinkEvent>);

async fn connect(config: &SlaveConfig) -> anyhow::Result<Connections> {
    let (events, input) = unbounded_channel();
    let (control_events, control_input) = unbounded_channel();
    let counter = Counter::default();
    let unreachable = || format!("cannot reach the Master at {}", config.control);
    let stream = TcpStream::connect(config.control).await.with_context(unreachable)?;
    let control =
        ControlEnd::new(stream, false, config.greeting.clone(), &counter, control_events)?;
    control.greet(&config.greeting).await.context("the Master turned this side away")?;
    let mut stream = TcpStream::connect(config.bulk).await.with_context(unreachable)?;
    stream.set_nodelay(true)?;
    stream.write_all(&config.process.incarnation.0.to_le_bytes()).await?;
    let (reader, writer) = stream.into_split();
    let (bulk, frames) = unbounded_channel();
    tokio::task::spawn_local(pump_control(control_input, events.clone()));
    tokio::task::spawn_local(pump_bulk(BulkReader::new(reader, counter.clone()), events));
    tokio::task::spawn_local(write_bulk(BulkWriter::new(writer, counter), frames));
    Ok((control, bulk, input))
}

async fn pump_control(
    mut receiver: UnboundedReceiver<ControlEvent>,
    events: UnboundedSender<LinkEvent>,
) {
    while let Some(ControlEvent::Message(control, log)) = receiver.recv().await {
        let _ = events.send(LinkEvent::Control(control, log));
    }
    let _ = events.send(LinkEvent::Closed);
}

async fn pump_bulk(mut reader: BulkReader, events: UnboundedSender<LinkEvent>) {
    let mut chunks: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    let room = Arc::new(Semaphore::new(FILLS_WAITING));
    loop {
        match reader.receive().await {
            Ok(BulkFrame::Fill { bytes }) => {
                // Waiting here is what slows the Master down.
                let Ok(room) = Arc::clone(&room).acquire_owned().await else { break };
                let _ = events.send(LinkEvent::Fill(bytes, room));
            }
            Ok(BulkFrame::Chunk { handle, bytes }) => chunks.entry(handle).or_default().push(bytes),
            Ok(BulkFrame::Message(Bulk::ToSlave(envelope))) => {
                let handle = payload_of(&envelope.body).handle;
                let parts = chunks.remove(&handle).unwrap_or_default();
                let _ = events.send(LinkEvent::Bulk(envelope, parts));
            }
            Ok(BulkFrame::Message(_)) => {}
            Err(error) => {
                tracing::debug!("bulk connection: {error}");
                break;
            }
        }
    }
    let _ = events.send(LinkEvent::Closed);
}

async fn write_bulk(mut writer: BulkWriter, mut frames: UnboundedReceiver<BulkFrame>) {
    while let Some(frame) = frames.recv().await {
        if writer.send(&frame).await.is_err() {
            break;
        }
    }
}

const fn payload_of(body: &BulkToSlave) -> &Payload {
    match body {
        BulkToSlave::SyncPages { payload, .. }
        | BulkToSlave::SyncFinal { payload, .. }
        | BulkToSlave::EpochState { payload, .. }
        | BulkToSlave::Speculative { payload }
        | BulkToSlave::RepairData { payload, .. } => payload,
    }
}

const fn payload_of_mut(body: &mut BulkToSlave) -> &mut Payload {
    match body {
        BulkToSlave::SyncPages { payload, .. }
        | BulkToSlave::SyncFinal { payload, .. }
        | BulkToSlave::EpochState { payload, .. }
        | BulkToSlave::Speculative { payload }
        | BulkToSlave::RepairData { payload, .. } => payload,
    }
}

impl Driver {
    fn event(&mut self, event: SlaveEvent) {
        let now_us = self.origin.elapsed().as_micros() as u64;
        for action in self.protocol.handle(now_us, event) {
            self.act(action);
        }
    }

    fn keep(&mut self, chunks: Vec<Vec<u8>>) -> u64 {
        self.next_handle += 1;
        self.payloads.insert(self.next_handle, chunks);
        self.next_handle
    }

    fn chunks(&mut self, payload: Payload) -> Vec<Vec<u8>> {
        self.payloads.remove(&payload.handle).unwrap_or_default()
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Control(Control::ToSlave(mut envelope), log) => {
                self.heard = Instant::now();
                if let ControlToSlave::Log { payload, .. } = &mut envelope.body {
                    payload.handle = self.keep(vec![log]);
                }
                self.event(SlaveEvent::Control(envelope));
            }
            LinkEvent::Control(Control::ToMaster(_), _) => {}
            LinkEvent::Fill(chunk, room) => {
                self.heard = Instant::now();
                drop(self.commands.send(Command::Fill { chunk, room }));
            }
            LinkEvent::Bulk(mut envelope, chunks) => {
                self.heard = Instant::now();
                payload_of_mut(&mut envelope.body).handle = self.keep(chunks);
                self.event(SlaveEvent::Bulk(envelope));
            }
            LinkEvent::Closed => {
                self.lost.get_or_insert_with(Instant::now);
                self.event(SlaveEvent::Disconnected);
            }
        }
    }

    fn disk_event(&mut self, event: &DiskEvent) {
        match event {
            DiskEvent::Durable { flush } => self.event(SlaveEvent::DurableUpTo(*flush)),
            // A host I/O error on the Slave drops the Slave, never the guest.
            DiskEvent::Failed(fault) => {
                let _ = self.to.send(FromSide::Notice { text: fault.to_string() });
                self.event(SlaveEvent::Failed);
            }
            DiskEvent::Recovered | DiskEvent::Stuck { .. } => {}
        }
    }

    fn told(&mut self, message: ToSide) {
        match message {
            ToSide::Witness { reply } => self.event(SlaveEvent::Witness(reply)),
            ToSide::Failover => self.event(SlaveEvent::Failover),
            ToSide::Inject { fault } => drop(self.commands.send(Command::Inject(fault))),
            ToSide::Quit => self.end = Some(Decision::Stop(StopReason::Failed)),
            ToSide::Input { .. }
            | ToSide::PowerButton
            | ToSide::Accepted { .. }
            | ToSide::Refused { .. } => {}
        }
    }

    fn report(&mut self, report: Report) {
        let event = match report {
            Report::SyncPagesStaged { round } => SlaveEvent::SyncPagesStaged { round },
            Report::Staged { epoch, digest } => SlaveEvent::Staged { epoch, digest },
            Report::Replayed { epoch, digest, outputs } => {
                SlaveEvent::Replayed { epoch, digest, outputs }
            }
            Report::RepairDigests { at, chunk } => {
                let bytes = chunk.len() as u64;
                let payload = Payload { handle: self.keep(vec![chunk]), bytes };
                SlaveEvent::RepairDigestsReady { at, payload }
            }
            Report::LogFinished => SlaveEvent::LogFinished,
            Report::Failed(text) => {
                let _ = self.to.send(FromSide::Notice { text });
                SlaveEvent::Failed
            }
        };
        self.event(event);
    }

    fn act(&mut self, action: SlaveAction) {
        let command = match action {
            SlaveAction::SendControl(control) => return self.send_control(&control),
            SlaveAction::SendBulk(bulk) => return self.send_bulk(bulk),
            SlaveAction::AskWitness(request) => {
                self.lost.get_or_insert_with(Instant::now);
                return drop(self.to.send(FromSide::Witness { request }));
            }
            SlaveAction::StageSyncPages { round, payload } => {
                Command::SyncPages { round, chunks: self.chunks(payload) }
            }
            SlaveAction::StageFinal { mark, payload } => {
                Command::StageFinal { mark, chunks: self.chunks(payload) }
            }
            SlaveAction::StageEpoch { mark, payload } => {
                Command::StageEpoch { mark, chunks: self.chunks(payload) }
            }
            // Not spoken of by any Master yet: nothing to keep.
            SlaveAction::StageSpeculative { payload } => return drop(self.chunks(payload)),
            SlaveAction::ApplyEpoch { epoch } => Command::ApplyEpoch { epoch },
            SlaveAction::ReplayLog { end, payload, .. } => {
                Command::Log { end, chunks: self.chunks(payload) }
            }
            SlaveAction::Verify { mark } => Command::Verify { mark },
            SlaveAction::CollectRepairDigests { since, at } => {
                Command::CollectRepairDigests { since, at }
            }
            SlaveAction::StageRepair { mark, payload } => {
                Command::StageRepair { mark, chunks: self.chunks(payload) }
            }
            SlaveAction::ApplyRepair { epoch } => Command::ApplyRepair { epoch },
            SlaveAction::FinishLog => {
                self.lost.get_or_insert_with(Instant::now);
                Command::FinishLog
            }
            SlaveAction::GoLive(handover) => {
                self.end = Some(Decision::GoLive(handover));
                return;
            }
            SlaveAction::Quiet(reason) => return drop(self.to.send(FromSide::Quiet { reason })),
            SlaveAction::FailoverRefused => return drop(self.to.send(FromSide::FailoverRefused)),
            SlaveAction::ReportProtected(_) => return,
            SlaveAction::Stop(reason) => {
                self.end = Some(Decision::Stop(reason));
                return;
            }
        };
        let _ = self.commands.send(command);
    }

    fn send_control(&self, control: &Control) {
        if let Control::ToMaster(envelope) = control
            && let ControlToMaster::EpochAck { epoch, .. } = &envelope.body
            && self.replays
        {
            let _ = self.commands.send(Command::Committed(*epoch));
        }
        self.control.send(control, &[]);
    }

    fn send_bulk(&mut self, bulk: Bulk) {
        if let Bulk::ToMaster(envelope) = &bulk {
            let ft_pair_shared::protocol::BulkToMaster::RepairDigests { payload, .. } =
                &envelope.body;
            let handle = payload.handle;
            for bytes in self.payloads.remove(&handle).unwrap_or_default() {
                let _ = self.bulk.send(BulkFrame::Chunk { handle, bytes });
            }
        }
        let _ = self.bulk.send(BulkFrame::Message(bulk));
    }
}
