//! What the machine asks of the storage behind virtio-blk.

/// Bytes of a sector, the unit of every address and length here (virtio 1.2 section 5.2).
pub const SECTOR: usize = 512;

/// The host could not deliver what the guest's disk holds.
#[derive(Debug, thiserror::Error)]
#[error("cannot read sector {sector} of the guest's disk ({context}): {source}")]
pub struct DiskError {
    /// First sector of the read that failed.
    pub sector: u64,
    /// The file or device that was read.
    pub context: String,
    /// What the host said.
    pub source: std::io::Error,
}

/// One copy of the guest's disk.
///
/// Called on the vCPU thread only, at positions that the guest's execution determines; what it returns
/// may depend on nothing but the writes that it has had. A host error must not reach the guest, so
/// writes and flushes have no way to fail here: an implementation keeps what it could not store yet and
/// reports the trouble to whoever owns it.
pub trait BlockDevice: Send {
    /// Capacity in sectors.
    fn sectors(&self) -> u64;

    /// Reads whole sectors from `sector` on; they lie within the capacity.
    ///
    /// # Errors
    /// When the host cannot read. The machine stops with the request still in flight and asks again
    /// when it is run again; the guest sees nothing of it.
    fn read(&mut self, sector: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Writes whole sectors from `sector` on; they lie within the capacity.
    fn write(&mut self, sector: u64, data: &[u8]);

    /// The guest has flushed: every write before this call belongs to the barrier whose number is
    /// returned, counted from 1. The guest sees the flush complete at once; durability is enforced where
    /// output is released ([`ft_pair_shared::Output::after_flush`]).
    fn flush(&mut self) -> u64;

    /// Goes on counting flushes after `completed`: the machine was restored from a state whose guest has
    /// seen that many. Called before anything else on a restored machine.
    fn resume_flushes(&mut self, completed: u64);

    /// The disk's serial number as virtio-blk's GET_ID gives it, padded with zeros.
    fn id(&self) -> [u8; 20];
}

/// A disk in host memory, for tests.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
    flushes: u64,
    /// While set, reads fail as if the host could not read.
    pub broken: bool,
}

impl MemoryDisk {
    /// A disk with these bytes, padded to whole sectors.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        Self { bytes, flushes: 0, broken: false }
    }

    /// What the disk holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn range(&self, sector: u64, len: usize) -> std::ops::Range<usize> {
        let start = sector as usize * SECTOR;
        assert!(
            len.is_multiple_of(SECTOR) && start + len <= self.bytes.len(),
            "a request covers whole sectors within the capacity"
        );
        start..start + len
    }
}

impl BlockDevice for MemoryDisk {
    fn sectors(&self) -> u64 {
        (self.bytes.len() / SECTOR) as u64
    }

    fn read(&mut self, sector: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        if self.broken {
            let source = std::io::Error::other("broken on purpose");
            return Err(DiskError { sector, context: "memory".into(), source });
        }
        let range = self.range(sector, buf.len());
        buf.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, sector: u64, data: &[u8]) {
        let range = self.range(sector, data.len());
        self.bytes[range].copy_from_slice(data);
    }

    fn flush(&mut self) -> u64 {
        self.flushes += 1;
        self.flushes
    }

    fn resume_flushes(&mut self, completed: u64) {
        self.flushes = completed;
    }

    fn id(&self) -> [u8; 20] {
        *b"ft-pair-memory-disk\0"
    }
}
