//! Virtio devices (virtio 1.2) behind modern virtio-pci functions.
//!
//! A [`VirtioDevice`] is the device type: it takes requests at a kick and finishes them at a guest time
//! of its own choosing. [`VirtioPci`] is the transport around it: registers, queues, interrupts.
//! Everything happens on the vCPU thread, at a position.

mod block;
mod entropy;
mod transport;

pub use block::{Block, DiskWrites};
pub use entropy::Entropy;
pub use transport::VirtioPci;

use crate::block_device::DiskError;
use crate::guest_view::GuestView;
use crate::state::{Saved, StateError};
use virtio_queue::Queue;

/// What a device type does behind its transport.
pub trait VirtioDevice: Send {
    /// What is saved of it.
    type State: Saved;
    /// Version of the saved bytes, those of the transport included.
    const VERSION: u32;
    /// Device type number (virtio 1.2 section 5).
    const TYPE: u16;
    /// PCI class code of the function.
    const CLASS: u32;
    /// Maximum size of each queue.
    const QUEUES: &'static [u16];

    /// Feature bits offered beside those of the transport.
    fn features(&self) -> u64;

    /// The device configuration, from offset 0.
    fn config(&self) -> Vec<u8>;

    /// The driver has made buffers available in a queue. True: buffers were used, tell the driver.
    ///
    /// # Errors
    /// When the queue is broken; the device then needs a reset.
    fn kick(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestView,
        now_ns: u64,
    ) -> Result<bool, virtio_queue::Error>;

    /// Guest time at which the next request in flight completes.
    fn deadline(&self) -> Option<u64> {
        None
    }

    /// Completes what is due; names the queues whose driver is to be told.
    ///
    /// # Errors
    /// When a queue is broken, or the host failed.
    fn advance(
        &mut self,
        _queues: &mut [Queue],
        _memory: &GuestView,
        _now_ns: u64,
    ) -> Result<Vec<usize>, AdvanceError> {
        Ok(Vec::new())
    }

    /// The driver resets the device: requests in flight are forgotten.
    fn reset(&mut self);

    /// The state to save.
    fn save(&self) -> Self::State;

    /// Takes a saved state back.
    ///
    /// # Errors
    /// When it is not a possible one.
    fn restore(&mut self, state: Self::State) -> Result<(), StateError>;
}

/// A completion did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// The guest's queue is broken.
    #[error(transparent)]
    Queue(#[from] virtio_queue::Error),
    /// The host could not read the disk; the request stays in flight.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
