//! The virtual machine: memory, bus, devices, boot, lifecycle, snapshot, CPU backends.

pub mod acpi;
pub mod block_device;
pub mod boot;
pub mod clock;
pub mod config;
pub mod devices;
pub mod digest;
pub mod disk;
pub mod epoch_digest;
pub mod image;
pub mod lockstep;
pub mod machine;
pub mod state;

mod cpu_state;
mod guest_view;

pub use block_device::{BlockDevice, DiskError, MemoryDisk};
pub use config::MachineConfig;
pub use devices::virtio::DiskWrites;
pub use machine::{Machine, MachineError, Stop};
pub use state::{MachineState, StateError};
