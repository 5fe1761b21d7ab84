//! Each side's own copy of the guest's disk.
//!
//! What the guest writes goes to a journal in memory ([`journal`]), which reads consult first. Once the pair
//! has committed an epoch, a writer thread brings its writes to the copy's file, in order, with a barrier
//! (fdatasync) at each of the guest's flushes ([`overlay`]). So whatever a power cut leaves of the
//! unsynced writes, the file is what the guest's disk was after some flush, plus writes that no flush
//! covered: what a real disk with a write cache may leave.
//!
//! [`copies`] says which copy may be used, [`transfer`] makes copies and compares them.

pub mod copies;
pub mod file;
pub mod journal;
pub mod metadata;
pub mod overlay;
pub(crate) mod sparse;
pub mod transfer;

#[cfg(test)]
mod power_loss;
#[cfg(test)]
mod tests;

pub use copies::{CopyChoice, CopyPaths, choose};
pub use file::{DiskFile, RealFile};
pub use journal::{DiskOp, EpochWrites};
pub use metadata::{CopyMeta, CopyState, MetaError};
pub use overlay::{DiskControl, DiskEvent, DiskFault, OverlayDisk};
pub use transfer::{SectorRange, finalise, make_copy, resync, resync_compare};
