//! The bulk connection: chunks of payloads, and the messages that name them, in order.
//!
//! A frame is `kind u8, handle u64, length u32, crc32c u32` (little-endian) and its bytes. Chunks come
//! before the message that names their handle, so that sending can begin before all is collected.

use super::LinkError;
use super::count::{Counted, Counter};
use crate::protocol::Bulk;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const CHUNK: u8 = 1;
const MESSAGE: u8 = 2;
const FILL: u8 = 3;
const HEAD: usize = 17;
/// The longest frame that is accepted.
const MAX_FRAME: usize = 256 << 20;

/// What the bulk connection carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkFrame {
    /// Part of a payload.
    Chunk {
        /// The sender's name for the payload.
        handle: u64,
        /// Encoded items.
        bytes: Vec<u8>,
    },
    /// Part of a synchronisation round: applied as it comes, so that neither side holds a whole round.
    Fill {
        /// Encoded items.
        bytes: Vec<u8>,
    },
    /// A message of the protocol; its payload's chunks came before.
    Message(Bulk),
}

/// The sending half.
#[derive(Debug)]
pub struct BulkWriter(Counted<OwnedWriteHalf>);

/// The receiving half.
#[derive(Debug)]
pub struct BulkReader(BufReader<Counted<OwnedReadHalf>>);

impl BulkWriter {
    /// Takes the half of a connection.
    pub fn new(half: OwnedWriteHalf, counter: Counter) -> Self {
        Self(Counted::new(half, counter))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn send(&mut self, frame: &BulkFrame) -> Result<(), LinkError> {
        let message;
        let (kind, handle, bytes) = match frame {
            BulkFrame::Chunk { handle, bytes } => (CHUNK, *handle, bytes),
            BulkFrame::Fill { bytes } => (FILL, 0, bytes),
            BulkFrame::Message(bulk) => {
                message = postcard::to_stdvec(bulk)
                    .map_err(|_| LinkError::Malformed { what: "bulk message" })?;
                (MESSAGE, 0, &message)
            }
        };
        let mut head = [0; HEAD];
        head[0] = kind;
        head[1..9].copy_from_slice(&handle.to_le_bytes());
        head[9..13].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[13..].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
        self.0.write_all(&head).await?;
        self.0.write_all(bytes).await?;
        Ok(())
    }
}

impl BulkReader {
    /// Takes the half of a connection.
    pub fn new(half: OwnedReadHalf, counter: Counter) -> Self {
        Self(BufReader::with_capacity(1 << 16, Counted::new(half, counter)))
    }

    /// Receives the next frame.
    ///
    /// # Errors
    /// When the connection broke, or what came is no frame.
    pub async fn receive(&mut self) -> Result<BulkFrame, LinkError> {
        let mut head = [0; HEAD];
        self.0.read_exact(&mut head).await?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let handle = u64::from(word(1)) | u64::from(word(5)) << 32;
        let len = word(9) as usize;
        if len > MAX_FRAME {
            return Err(LinkError::Malformed { what: "bulk frame" });
        }
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).await?;
        if crc32c::crc32c(&bytes) != word(13) {
            return Err(LinkError::Malformed { what: "bulk frame (checksum)" });
        }
        match head[0] {
            CHUNK => Ok(BulkFrame::Chunk { handle, bytes }),
            FILL => Ok(BulkFrame::Fill { bytes }),
            MESSAGE => postcard::from_bytes(&bytes)
                .map(BulkFrame::Message)
                .map_err(|_| LinkError::Malformed { what: "bulk message" }),
            _ => Err(LinkError::Malformed { what: "bulk frame" }),
        }
    }
}
