//! The Slave: replays, digests, applies repairs, goes live.
//!
//! [`follow`] is the vCPU thread, [`driver`] carries out what the pair's protocol asks for, [`replay`] executes
//! recordings.

pub mod driver;
pub mod follow;
pub mod replay;
