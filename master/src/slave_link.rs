//! Connections of Slaves to this Master: a control and a bulk connection make one link.

use ft_pair_shared::account::Bytes;
use ft_pair_shared::protocol::{BulkToMaster, Control, ControlToMaster, Envelope, Incarnation};
use ft_pair_shared::transport::{
    BulkFrame, BulkReader, BulkWriter, ControlEnd, ControlEvent, Counter, Greeting,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What comes from Slaves.
#[derive(Debug)]
pub enum LinkEvent {
    /// A control message.
    Control(Envelope<ControlToMaster>),
    /// A bulk message with its payload's chunks.
    Bulk(Envelope<BulkToMaster>, Vec<Vec<u8>>),
    /// The system took a part of a synchronisation round.
    FillSent(Incarnation),
    /// Either connection is over.
    Closed(Incarnation),
}

enum Arrival {
    Control(Incarnation, Half),
    Bulk(Incarnation, TcpStream),
}

/// A control connection that waits for its bulk connection.
struct Half {
    end: ControlEnd,
    receiver: UnboundedReceiver<ControlEvent>,
    counter: Counter,
}

struct Link {
    control: ControlEnd,
    bulk: UnboundedSender<BulkFrame>,
    counters: [Counter; 2],
}

impl Link {
    fn bytes(&self) -> u64 {
        self.counters.iter().map(Counter::get).sum()
    }
}

/// Listens for Slaves and keeps their links.
pub struct SlaveLinks {
    own: Greeting,
    control: TcpListener,
    bulk: TcpListener,
    arrivals: (UnboundedSender<Arrival>, UnboundedReceiver<Arrival>),
    half_control: HashMap<Incarnation, Half>,
    half_bulk: HashMap<Incarnation, TcpStream>,
    links: HashMap<Incarnation, Link>,
    events: UnboundedSender<LinkEvent>,
    closed_bytes: u64,
}

impl SlaveLinks {
    /// Binds both listeners on `host` (ports of the system's choice).
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn bind(
        host: std::net::IpAddr,
        own: Greeting,
        events: UnboundedSender<LinkEvent>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            own,
            control: TcpListener::bind((host, 0)).await?,
            bulk: TcpListener::bind((host, 0)).await?,
            arrivals: unbounded_channel(),
            half_control: HashMap::new(),
            half_bulk: HashMap::new(),
            links: HashMap::new(),
            events,
            closed_bytes: 0,
        })
    }

    /// Where Slaves connect: control, bulk.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.control.local_addr()?, self.bulk.local_addr()?))
    }

    /// Takes in connections; returns when something arrived. Safe to cancel.
    pub async fn accept(&mut self) {
        tokio::select! {
            Ok((stream, _)) = self.control.accept() => self.greet(stream),
            Ok((stream, _)) = self.bulk.accept() => self.name_bulk(stream),
            Some(arrival) = self.arrivals.1.recv() => self.arrived(arrival),
        }
    }

    fn greet(&self, stream: TcpStream) {
        let (own, arrivals) = (self.own.clone(), self.arrivals.0.clone());
        tokio::task::spawn_local(async move {
            let (events, receiver) = unbounded_channel();
            let counter = Counter::default();
            let Ok(end) = ControlEnd::new(stream, true, own.clone(), &counter, events) else {
                return;
            };
            match end.greet(&own).await {
                Ok(theirs) => {
                    let half = Half { end, receiver, counter };
                    let _ = arrivals.send(Arrival::Control(theirs.incarnation, half));
                }
                Err(error) => tracing::warn!("a Slave was turned away: {error}"),
            }
        });
    }

    /// The first eight bytes of a bulk connection name the Slave.
    fn name_bulk(&self, mut stream: TcpStream) {
        let arrivals = self.arrivals.0.clone();
        tokio::task::spawn_local(async move {
            let _ = stream.set_nodelay(true);
            let mut name = [0; 8];
            if stream.read_exact(&mut name).await.is_ok() {
                let incarnation = Incarnation(u64::from_le_bytes(name));
                let _ = arrivals.send(Arrival::Bulk(incarnation, stream));
            }
        });
    }

    fn arrived(&mut self, arrival: Arrival) {
        let incarnation = match arrival {
            Arrival::Control(incarnation, half) => {
                self.half_control.insert(incarnation, half);
                incarnation
            }
            Arrival::Bulk(incarnation, stream) => {
                self.half_bulk.insert(incarnation, stream);
                incarnation
            }
        };
        if !self.half_bulk.contains_key(&incarnation) {
            return;
        }
        let Some(half) = self.half_control.remove(&incarnation) else { return };
        let stream = self.half_bulk.remove(&incarnation).expect("checked above");
        self.join(incarnation, half, stream);
    }

    fn join(&mut self, incarnation: Incarnation, half: Half, stream: TcpStream) {
        let Half { end: control, receiver, counter: control_counter } = half;
        let counter = Counter::default();
        let (reader, writer) = stream.into_split();
        let (bulk, frames) = unbounded_channel();
        let reader = BulkReader::new(reader, counter.clone());
        tokio::task::spawn_local(pump_control(incarnation, receiver, self.events.clone()));
        tokio::task::spawn_local(pump_bulk(incarnation, reader, self.events.clone()));
        let writer = BulkWriter::new(writer, counter.clone());
        tokio::task::spawn_local(write_bulk(incarnation, writer, frames, self.events.clone()));
        let counters = [control_counter, counter];
        self.links.insert(incarnation, Link { control, bulk, counters });
    }

    /// Sends a control message; nothing happens if that Slave is gone.
    pub fn send_control(&self, control: &Control, log: &[u8]) {
        let Control::ToSlave(envelope) = control else { return };
        if let Some(link) = self.links.get(&envelope.slave) {
            link.control.send(control, log);
        }
    }

    /// Sends a bulk frame.
    pub fn send_bulk(&self, slave: Incarnation, frame: BulkFrame) {
        if let Some(link) = self.links.get(&slave) {
            let _ = link.bulk.send(frame);
        }
    }

    /// True if both connections of this Slave are here.
    pub fn has(&self, slave: Incarnation) -> bool {
        self.links.contains_key(&slave)
    }

    /// Closes the link to a Slave.
    pub fn drop_slave(&mut self, slave: Incarnation) {
        if let Some(link) = self.links.remove(&slave) {
            self.closed_bytes += link.bytes();
            tokio::task::spawn_local(link.control.close());
        }
    }

    /// Bytes on all connections so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.closed_bytes + self.links.values().map(Link::bytes).sum::<u64>()
    }
}

async fn pump_control(
    slave: Incarnation,
    mut receiver: UnboundedReceiver<ControlEvent>,
    events: UnboundedSender<LinkEvent>,
) {
    while let Some(ControlEvent::Message(control, _)) = receiver.recv().await {
        if let Control::ToMaster(envelope) = control {
            let _ = events.send(LinkEvent::Control(envelope));
        }
    }
    let _ = events.send(LinkEvent::Closed(slave));
}

async fn pump_bulk(slave: Incarnation, mut reader: BulkReader, events: UnboundedSender<LinkEvent>) {
    let mut chunks: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    loop {
        match reader.receive().await {
            Ok(BulkFrame::Chunk { handle, bytes }) => chunks.entry(handle).or_default().push(bytes),
            Ok(BulkFrame::Message(ft_pair_shared::protocol::Bulk::ToMaster(envelope))) => {
                let BulkToMaster::RepairDigests { payload, .. } = &envelope.body;
                let parts = chunks.remove(&payload.handle).unwrap_or_default();
                let _ = events.send(LinkEvent::Bulk(envelope, parts));
            }
            Ok(BulkFrame::Message(_) | BulkFrame::Fill { .. }) => {}
            Err(error) => {
                tracing::debug!("bulk connection: {error}");
                break;
            }
        }
    }
    let _ = events.send(LinkEvent::Closed(slave));
}

async fn write_bulk(
    slave: Incarnation,
    mut writer: BulkWriter,
    mut frames: UnboundedReceiver<BulkFrame>,
    events: UnboundedSender<LinkEvent>,
) {
    while let Some(frame) = frames.recv().await {
        if writer.send(&frame).await.is_err() {
            break;
        }
        if matches!(frame, BulkFrame::Fill { .. }) {
            let _ = events.send(LinkEvent::FillSent(slave));
        }
    }
}

/// What was counted per class so far, against what the connections carried.
#[derive(Debug, Default)]
pub struct Ledger {
    since_event: Bytes,
    counted: u64,
    carried: u64,
}

impl Ledger {
    /// Counts bytes of a class.
    pub fn add(&mut self, bytes: &Bytes) {
        self.since_event.merge(bytes);
        self.counted += bytes.total();
    }

    /// All bytes since the last call; what the connections carried beyond the counted is control.
    pub fn take(&mut self, carried: u64) -> Bytes {
        let mut bytes = std::mem::take(&mut self.since_event);
        let extra = carried.saturating_sub(self.carried).saturating_sub(self.counted);
        bytes.control += extra;
        self.carried = carried;
        self.counted = 0;
        bytes
    }
}
