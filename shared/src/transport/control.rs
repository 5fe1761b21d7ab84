//! The control connection: Cap'n Proto RPC, each side a `Peer` to the other.

use super::count::{Counted, Counter};
use super::{LinkError, PROTOCOL_VERSION, convert};
use crate::protocol::{Control, Incarnation};
use crate::schema::pair_capnp::{greeting, peer};
use capnp_rpc::{RpcSystem, rpc_twoparty_capnp, twoparty};
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

/// What both sides must have alike, opaque here; equal bytes fit.
pub type Agreement = Vec<u8>;

/// How a side introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Name, version and build of the program: the same on both sides.
    pub program: String,
    /// See [`Agreement`].
    pub agreement: Agreement,
    /// Its life.
    pub incarnation: Incarnation,
}

/// What comes out of a control connection.
#[derive(Debug)]
pub enum ControlEvent {
    /// A message, with the bytes of log that it carries.
    Message(Control, Vec<u8>),
}

struct PeerServer {
    own: Greeting,
    events: mpsc::UnboundedSender<ControlEvent>,
}

fn write_greeting(mut b: greeting::Builder<'_>, g: &Greeting) {
    b.set_protocol_version(PROTOCOL_VERSION);
    b.set_program(&g.program);
    b.set_agreement(&g.agreement);
    b.set_incarnation(g.incarnation.0);
}

fn read_greeting(r: greeting::Reader<'_>) -> capnp::Result<Greeting> {
    let program = r.get_program()?.to_str()?.to_owned();
    let version = r.get_protocol_version();
    if version != PROTOCOL_VERSION {
        return Err(capnp::Error::failed(format!(
            "the peer ({program}) speaks version {version} of the pair's protocol, this side \
             {PROTOCOL_VERSION}: run the same version on both sides"
        )));
    }
    let incarnation = Incarnation(r.get_incarnation());
    Ok(Greeting { program, agreement: r.get_agreement()?.to_vec(), incarnation })
}

/// Both sides must execute alike: only the same build is sure to.
fn check(own: &Greeting, theirs: &Greeting) -> capnp::Result<()> {
    if own.program != theirs.program {
        return Err(capnp::Error::failed(format!(
            "this side is {}, the peer {}: run the same build on both sides",
            own.program, theirs.program
        )));
    }
    if own.agreement == theirs.agreement {
        return Ok(());
    }
    Err(capnp::Error::failed(format!(
        "the sides do not fit: here {}, there {}: start both with the same image and settings",
        String::from_utf8_lossy(&own.agreement),
        String::from_utf8_lossy(&theirs.agreement),
    )))
}

impl peer::Server for PeerServer {
    async fn greet(
        self: Rc<Self>,
        params: peer::GreetParams,
        mut results: peer::GreetResults,
    ) -> capnp::Result<()> {
        let theirs = read_greeting(params.get()?.get_hello()?)?;
        check(&self.own, &theirs)?;
        write_greeting(results.get().init_reply(), &self.own);
        Ok(())
    }

    async fn deliver(
        self: Rc<Self>,
        params: peer::DeliverParams,
        _: peer::DeliverResults,
    ) -> capnp::Result<()> {
        let (control, log) = convert::get(params.get()?.get_message()?)?;
        self.events
            .send(ControlEvent::Message(control, log))
            .map_err(|_| capnp::Error::disconnected("this side has left".into()))
    }
}

/// This side's end of a control connection. Lives on a `LocalSet`.
pub struct ControlEnd {
    peer: peer::Client,
    disconnector: capnp_rpc::Disconnector<rpc_twoparty_capnp::Side>,
    /// Resolves when the connection is over.
    closed: tokio::task::JoinHandle<()>,
}

impl ControlEnd {
    /// Runs the RPC system over a connection; `server` on the accepting side. Messages go to `events`.
    pub fn new(
        stream: TcpStream,
        server: bool,
        own: Greeting,
        counter: &Counter,
        events: mpsc::UnboundedSender<ControlEvent>,
    ) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let side = if server {
            rpc_twoparty_capnp::Side::Server
        } else {
            rpc_twoparty_capnp::Side::Client
        };
        let network = twoparty::VatNetwork::new(
            futures_util::io::BufReader::new(Counted::new(reader, counter.clone()).compat()),
            futures_util::io::BufWriter::new(Counted::new(writer, counter.clone()).compat_write()),
            side,
            capnp::message::ReaderOptions::default(),
        );
        let own: peer::Client = capnp_rpc::new_client(PeerServer { own, events });
        let mut system = RpcSystem::new(Box::new(network), Some(own.client));
        let other = if server {
            rpc_twoparty_capnp::Side::Client
        } else {
            rpc_twoparty_capnp::Side::Server
        };
        let peer: peer::Client = system.bootstrap(other);
        let disconnector = system.get_disconnector();
        let closed = tokio::task::spawn_local(async move {
            let _ = system.await;
        });
        Ok(Self { peer, disconnector, closed })
    }

    /// Introduces this side and learns who the other is.
    ///
    /// # Errors
    /// When versions or agreements do not fit, or the connection broke.
    pub async fn greet(&self, own: &Greeting) -> Result<Greeting, LinkError> {
        let mut request = self.peer.greet_request();
        write_greeting(request.get().init_hello(), own);
        let reply = request.send().promise.await?;
        let theirs = read_greeting(reply.get()?.get_reply()?)?;
        check(own, &theirs)?;
        Ok(theirs)
    }

    /// Sends a message; a broken connection shows in [`Self::closed`].
    pub fn send(&self, control: &Control, log: &[u8]) {
        let mut request = self.peer.deliver_request();
        convert::put(request.get().init_message(), control, log);
        let sent = request.send().promise;
        tokio::task::spawn_local(async move {
            let _ = sent.await;
        });
    }

    /// Waits until the connection is over.
    pub async fn closed(&mut self) {
        let _ = (&mut self.closed).await;
    }

    /// Closes the connection.
    pub async fn close(self) {
        let _ = self.disconnector.await;
        self.closed.abort();
    }
}
