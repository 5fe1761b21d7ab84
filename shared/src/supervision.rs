//! What a supervising process (`ft-pair up`) and the process of one side say to each other, one JSON
//! object a line over a private socket pair.
//!
//! The supervisor holds the witness and the sink; a side asks and offers, the supervisor answers.

use crate::protocol::{Incarnation, QuietReason, StopReason, WitnessReply, WitnessRequest};
use crate::telemetry::Event;
use crate::{Epoch, Generation, Output};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Supervisor to side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToSide {
    /// Console input for the live side. `first` numbers the first byte in the input stream.
    Input {
        /// Number of the first byte.
        first: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Press the power button.
    PowerButton,
    /// The witness's answer.
    Witness {
        /// What it is.
        reply: WitnessReply,
    },
    /// The sink has the output of all epochs up to this one.
    Accepted {
        /// The last of them.
        epoch: Epoch,
    },
    /// The sink refused output as of an older generation.
    Refused {
        /// The generation that was offered.
        generation: Generation,
    },
    /// A person wants the Slave to be live.
    Failover,
    /// Injects a fault, for tests: see `ft-pair slave`'s hidden help.
    Inject {
        /// What to flip.
        fault: Fault,
    },
    /// End at once; the guest is lost with this side.
    Quit,
}

/// A fault to inject into a side's copy of the guest, past all tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Flips a byte of guest memory, in a page of the running epoch's dirty set if there is one.
    DirtyMemory,
    /// Flips a byte of guest memory at this guest physical address.
    Memory {
        /// Guest physical address.
        gpa: u64,
    },
    /// Flips a bit of a callee-saved general register.
    Register,
    /// Changes a device's state (the serial port's scratch register).
    Device,
    /// Flips a byte of this disk sector.
    Sector {
        /// The sector.
        sector: u64,
    },
}

/// Side to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromSide {
    /// This process runs.
    Hello {
        /// Its process id.
        pid: u32,
        /// Its life.
        incarnation: Incarnation,
    },
    /// This side is live in a generation and takes Slaves at these addresses.
    Live {
        /// The generation.
        generation: Generation,
        /// Control connections.
        control: SocketAddr,
        /// Bulk connections.
        bulk: SocketAddr,
        /// How many input bytes the guest has taken: what comes after them is wanted again.
        inputs_taken: u64,
    },
    /// A question to the witness.
    Witness {
        /// What it is.
        request: WitnessRequest,
    },
    /// Output to release.
    Release {
        /// In whose name.
        generation: Generation,
        /// The epoch.
        epoch: Epoch,
        /// The output.
        outputs: Vec<Output>,
    },
    /// A commit covers so many input bytes.
    InputsCovered {
        /// In whose name.
        generation: Generation,
        /// How many.
        count: u64,
    },
    /// Whether a Slave could take over.
    Protected {
        /// That.
        protected: bool,
    },
    /// This side cannot go live and does nothing any more.
    Quiet {
        /// Why.
        reason: QuietReason,
    },
    /// This side ends.
    Stopped {
        /// Why.
        reason: StopReason,
    },
    /// The recording could not be written any more: it ends there, the guest goes on.
    RecordingEnded {
        /// Why.
        why: String,
    },
    /// A person's failover was refused.
    FailoverRefused,
    /// Something a person should read.
    Notice {
        /// The text.
        text: String,
    },
    /// A statistic.
    Event {
        /// It.
        event: Event,
    },
}

/// Carries messages over one end of the socket pair: what is sent on the first goes out, what comes in
/// arrives on the second, which ends when the other process does. Lives on a tokio runtime.
pub fn link<Out, In>(
    stream: tokio::net::UnixStream,
) -> (tokio::sync::mpsc::UnboundedSender<Out>, tokio::sync::mpsc::UnboundedReceiver<In>)
where
    Out: Serialize + Send + 'static,
    In: for<'de> Deserialize<'de> + Send + 'static,
{
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let (reader, mut writer) = stream.into_split();
    let (out, mut outgoing) = tokio::sync::mpsc::unbounded_channel::<Out>();
    let (incoming, input) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            let mut line = serde_json::to_vec(&message).expect("messages have string keys only");
            line.push(b'\n');
            if writer.write_all(&line).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(message) = serde_json::from_str(&line) else { break };
            if incoming.send(message).is_err() {
                break;
            }
        }
    });
    (out, input)
}
