//! virtio-blk (virtio 1.2 section 5.2).
//!
//! What a request writes is taken from guest memory and given to the disk at the kick; its completion,
//! and for a read the data, is delivered a fixed guest time later. A request in flight is part of the
//! saved state, with the guest addresses that it named at the kick, and completes once after a restore.

use super::{AdvanceError, VirtioDevice};
use crate::block_device::{BlockDevice, SECTOR};
use crate::guest_view::GuestView;
use crate::saved_fields;
use crate::state::StateError;
use std::collections::VecDeque;
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_S_IOERR,
    VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

const QUEUE_SIZE: u16 = 256;
/// Data segments of a request: what a queue holds, less header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of a request's header.
const HEADER: usize = 16;

/// A piece of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    gpa: u64,
    len: u32,
}
saved_fields!(Segment { gpa, len });

/// A request between its kick and its completion.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    /// First descriptor of its chain.
    head: u16,
    /// Guest time of its completion.
    due_ns: u64,
    /// Type, as the driver gave it.
    kind: u32,
    sector: u64,
    /// Where the data of a read goes.
    into: Vec<Segment>,
    /// Where the status byte goes.
    status_gpa: u64,
    status: u8,
}
saved_fields!(Request { head, due_ns, kind, sector, into, status_gpa, status });

/// What the guest wrote to its disk since somebody asked last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskWrites {
    /// First sector and number of sectors of each write, in order.
    pub ranges: Vec<(u64, u64)>,
    /// Over sector, length and data of each write, in order.
    pub digest: [u8; 32],
}

/// The disk controller.
pub struct Block {
    disk: Box<dyn BlockDevice>,
    latency_ns: u64,
    in_flight: VecDeque<Request>,
    flushes: u64,
    writes: Vec<(u64, u64)>,
    hasher: blake3::Hasher,
}

/// What is saved of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockState {
    sectors: u64,
    latency_ns: u64,
    in_flight: VecDeque<Request>,
    flushes: u64,
}
saved_fields!(BlockState { sectors, latency_ns, in_flight, flushes });

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Block {
    /// A controller in front of `disk`, whose requests take `latency_ns` of guest time.
    pub fn new(disk: Box<dyn BlockDevice>, latency_ns: u64) -> Self {
        Self {
            disk,
            latency_ns,
            in_flight: VecDeque::new(),
            flushes: 0,
            writes: Vec::new(),
            hasher: blake3::Hasher::new(),
        }
    }

    /// Number of flushes that the guest has seen complete.
    pub const fn flushes(&self) -> u64 {
        self.flushes
    }

    /// What the guest has written since the last call.
    pub fn take_writes(&mut self) -> DiskWrites {
        let digest = *self.hasher.finalize().as_bytes();
        self.hasher.reset();
        DiskWrites { ranges: std::mem::take(&mut self.writes), digest }
    }

    /// The disk behind the controller.
    pub fn disk(&mut self) -> &mut dyn BlockDevice {
        &mut *self.disk
    }

    /// Takes a request from its chain; `None` if there is no place for a status: it is thrown away.
    fn take(
        &mut self,
        head: u16,
        chain: &[Descriptor],
        memory: &GuestView,
        due_ns: u64,
    ) -> Option<Request> {
        let (status, mut into) = split_status(chain)?;
        let mut request = Request {
            head,
            due_ns,
            kind: 0,
            sector: 0,
            into: Vec::new(),
            status_gpa: status,
            status: 0,
        };
        let from: Vec<&Descriptor> = chain.iter().filter(|d| !d.is_write_only()).collect();
        let Some(sent) = gather(&from, memory).filter(|bytes| bytes.len() >= HEADER) else {
            request.status = VIRTIO_BLK_S_IOERR as u8;
            return Some(request);
        };
        let (header, data) = sent.split_at(HEADER);
        request.kind = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        request.sector = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        let outcome = match request.kind {
            VIRTIO_BLK_T_IN => self.in_range(request.sector, total(&into)),
            VIRTIO_BLK_T_OUT => {
                into.clear();
                let fits = self.in_range(request.sector, data.len() as u64);
                if fits {
                    self.write(request.sector, data);
                }
                fits
            }
            VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_GET_ID => true,
            _ => {
                request.status = VIRTIO_BLK_S_UNSUPP as u8;
                return Some(request);
            }
        };
        if outcome {
            request.into = into;
        } else {
            request.status = VIRTIO_BLK_S_IOERR as u8;
        }
        Some(request)
    }

    fn in_range(&self, sector: u64, bytes: u64) -> bool {
        bytes.is_multiple_of(SECTOR as u64)
            && sector
                .checked_add(bytes / SECTOR as u64)
                .is_some_and(|end| end <= self.disk.sectors())
    }

    fn write(&mut self, sector: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.hasher.update(&sector.to_le_bytes());
        self.hasher.update(&(data.len() as u64).to_le_bytes());
        self.hasher.update(data);
        self.writes.push((sector, (data.len() / SECTOR) as u64));
        self.disk.write(sector, data);
    }

    /// Delivers a request's data, if it has any, and says how many bytes.
    fn deliver(
        &mut self,
        request: &Request,
        memory: &GuestView,
    ) -> Result<Delivered, AdvanceError> {
        if u32::from(request.status) != VIRTIO_BLK_S_OK {
            return Ok(Delivered { status: request.status, bytes: 0 });
        }
        let data = match request.kind {
            VIRTIO_BLK_T_IN => {
                let mut data = vec![0; total(&request.into) as usize];
                self.disk.read(request.sector, &mut data)?;
                data
            }
            VIRTIO_BLK_T_GET_ID => self.disk.id().to_vec(),
            VIRTIO_BLK_T_FLUSH => {
                self.flushes += 1;
                let number = self.disk.flush();
                assert_eq!(number, self.flushes, "disk and machine count the same flushes");
                Vec::new()
            }
            _ => Vec::new(),
        };
        let bytes = scatter(&data, &request.into, memory);
        Ok(match bytes {
            Some(bytes) => Delivered { status: VIRTIO_BLK_S_OK as u8, bytes },
            None => Delivered { status: VIRTIO_BLK_S_IOERR as u8, bytes: 0 },
        })
    }
}

struct Delivered {
    status: u8,
    bytes: u32,
}

fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|s| u64::from(s.len)).sum()
}

/// The address of the status byte, the last one that the device may write, and what lies before it.
fn split_status(chain: &[Descriptor]) -> Option<(u64, Vec<Segment>)> {
    let mut into: Vec<Segment> = chain
        .iter()
        .filter(|d| d.is_write_only() && d.len() > 0)
        .map(|d| Segment { gpa: d.addr().0, len: d.len() })
        .collect();
    let last = into.last_mut()?;
    last.len -= 1;
    let status = last.gpa.checked_add(u64::from(last.len))?;
    into.retain(|s| s.len > 0);
    Some((status, into))
}

/// Reads segments into one buffer; `None` if one of them is not in RAM.
fn gather(from: &[&Descriptor], memory: &GuestView) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for descriptor in from {
        let (start, len) = (bytes.len(), descriptor.len() as usize);
        if !in_ram(memory, descriptor.addr().0, len) {
            return None;
        }
        bytes.resize(start + len, 0);
        memory.read_slice(&mut bytes[start..], descriptor.addr()).ok()?;
    }
    Some(bytes)
}

/// Writes as much of a buffer as the segments hold; `None` if one of them is not in RAM.
fn scatter(data: &[u8], into: &[Segment], memory: &GuestView) -> Option<u32> {
    let mut rest = data;
    for Segment { gpa, len } in into {
        let (now, later) = rest.split_at((*len as usize).min(rest.len()));
        if !in_ram(memory, *gpa, now.len()) {
            return None;
        }
        memory.write_slice(now, GuestAddress(*gpa)).ok()?;
        rest = later;
    }
    Some((data.len() - rest.len()) as u32)
}

fn in_ram(memory: &GuestView, gpa: u64, len: usize) -> bool {
    use vm_memory::GuestMemoryBackend;
    len == 0 || GuestMemoryBackend::check_range(memory, GuestAddress(gpa), len)
}

impl VirtioDevice for Block {
    type State = BlockState;
    const VERSION: u32 = 1;
    const TYPE: u16 = 2;
    const CLASS: u32 = 0x01_0000;
    const QUEUES: &'static [u16] = &[QUEUE_SIZE];

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 60];
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS_MAX.to_le_bytes());
        config[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        config
    }

    fn kick(
        &mut self,
        _index: usize,
        queue: &mut Queue,
        memory: &GuestView,
        now_ns: u64,
    ) -> Result<bool, Error> {
        let mut used = false;
        let due_ns = now_ns + self.latency_ns;
        while let Some(chain) = queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let chain: Vec<Descriptor> = chain.collect();
            match self.take(head, &chain, memory, due_ns) {
                Some(request) => self.in_flight.push_back(request),
                None => {
                    queue.add_used(memory, head, 0)?;
                    used = true;
                }
            }
        }
        Ok(used)
    }

    fn deadline(&self) -> Option<u64> {
        self.in_flight.front().map(|request| request.due_ns)
    }

    fn advance(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestView,
        now_ns: u64,
    ) -> Result<Vec<usize>, AdvanceError> {
        let mut told = Vec::new();
        while let Some(request) = self.in_flight.front().filter(|r| r.due_ns <= now_ns).cloned() {
            let Delivered { status, bytes } = self.deliver(&request, memory)?;
            self.in_flight.pop_front();
            // A status byte outside RAM is the guest's own loss.
            let _ = memory.write_slice(&[status], GuestAddress(request.status_gpa));
            queues[0].add_used(memory, request.head, bytes + 1)?;
            told = vec![0];
        }
        Ok(told)
    }

    fn reset(&mut self) {
        self.in_flight.clear();
    }

    fn save(&self) -> BlockState {
        let Self { disk, latency_ns, in_flight, flushes, writes: _, hasher: _ } = self;
        BlockState {
            sectors: disk.sectors(),
            latency_ns: *latency_ns,
            in_flight: in_flight.clone(),
            flushes: *flushes,
        }
    }

    fn restore(&mut self, state: BlockState) -> Result<(), StateError> {
        let BlockState { sectors, latency_ns, in_flight, flushes } = state;
        if sectors != self.disk.sectors() {
            return Err(StateError::Value("the disk's capacity (another image?)"));
        }
        self.latency_ns = latency_ns;
        self.in_flight = in_flight;
        self.flushes = flushes;
        self.writes.clear();
        self.hasher.reset();
        self.disk.resume_flushes(flushes);
        Ok(())
    }
}
