//! Digests of the machine: what both sides of a pair compare at the end of an epoch.
//!
//! The root digest is blake3 over, in this order:
//! 1. the domain `ft-pair root 1\n`;
//! 2. the bytes of [`crate::state::MachineState`]: number of sections, then each with name, version,
//!    length and bytes (CPU, position, devices);
//! 3. the digest of the disk writes since the last epoch;
//! 4. the number of pages (u64), then for each page, ascending: its index (u32) and the blake3 digest of
//!    its 4096 bytes.
//!
//! All integers are little endian. Per-page digests are computed alike when a mismatch is resolved.

use crate::devices::virtio::DiskWrites;
use crate::machine::Machine;
use ft_pair_cpu::GuestRam;

/// A blake3 digest.
pub type Digest = [u8; 32];

const DOMAIN: &[u8] = b"ft-pair root 1\n";

/// Digest of one page.
pub fn page_digest(ram: &GuestRam, page: u32) -> Digest {
    *blake3::hash(ram.page(page)).as_bytes()
}

impl Machine {
    /// The root digest over CPU, devices, `pages` (ascending) and the epoch's disk writes.
    pub fn root_digest(&self, pages: &[u32], writes: &DiskWrites) -> Digest {
        assert!(pages.is_sorted_by(|a, b| a < b), "pages are ascending, each once");
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN);
        self.state().digest_into(&mut hasher);
        hasher.update(&writes.digest);
        hasher.update(&(pages.len() as u64).to_le_bytes());
        for page in pages {
            hasher.update(&page.to_le_bytes());
            hasher.update(&page_digest(self.ram(), *page));
        }
        *hasher.finalize().as_bytes()
    }

    /// Digest of CPU and devices alone.
    pub fn state_digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        self.state().digest_into(&mut hasher);
        *hasher.finalize().as_bytes()
    }
}
