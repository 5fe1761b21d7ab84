//! The Master: runs the guest live, records inputs, ends epochs, repairs the Slave.
//!
//! [`live`] is the vCPU thread, [`driver`] carries out what the pair's protocol asks for, [`slave_link`]
//! keeps the connections, [`pace`] keeps guest time near the host's, [`recording`] keeps the log.

pub mod driver;
pub mod live;
pub mod pace;
pub mod recording;
pub mod slave_link;
