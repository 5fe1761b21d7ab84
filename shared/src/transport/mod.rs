//! The connections between Master and Slave: Cap'n Proto RPC for control, framed bulk data beside it.
//!
//! Both run over TCP with TCP_NODELAY. Both count every byte that they carry. They know the protocol's
//! messages, not its rules.

pub mod bulk;
pub mod control;
mod convert;
mod count;

pub use bulk::{BulkFrame, BulkReader, BulkWriter};
pub use control::{Agreement, ControlEnd, ControlEvent, Greeting};
pub use count::Counter;

/// Version of everything that the two sides say to each other.
pub const PROTOCOL_VERSION: u32 = 4;

/// A connection to the peer failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed or was closed.
    #[error("the connection to the peer broke: {0}")]
    Io(#[from] std::io::Error),
    /// Cap'n Proto failed, or the peer refused.
    #[error("the control connection failed: {0}")]
    Rpc(#[from] capnp::Error),
    /// The peer sent what nobody understands.
    #[error("the peer sent a malformed {what}: run the same version on both sides")]
    Malformed {
        /// What it should have been.
        what: &'static str,
    },
}
