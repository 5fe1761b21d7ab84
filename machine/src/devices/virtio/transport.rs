//! The modern virtio-pci transport (virtio 1.2 section 4.1).

use super::super::interrupt::Message;
use super::super::msix::{self, Msix};
use super::super::pci::{ConfigSpace, ConfigSpaceState, Identity};
use super::{AdvanceError, VirtioDevice};
use crate::block_device::DiskError;
use crate::guest_view::GuestView;
use crate::saved_fields;
use crate::state::{Reader, Saved, StateError};
use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// BAR 0: common configuration, ISR, device configuration, notifications, a page each.
const BAR0_LEN: u32 = 0x4000;
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// BAR 1: MSI-X.
const MSIX_BAR: u8 = 1;
/// Where each function's two BARs lie apart.
const BAR_STRIDE: u32 = 0x1_0000;

const CAP_MSIX: u8 = 0x40;
const CAP_COMMON: u8 = 0x50;
const CAP_NOTIFY: u8 = 0x60;
const CAP_ISR: u8 = 0x74;
const CAP_DEVICE: u8 = 0x84;
const CAP_WINDOW: u8 = 0x94;
const WINDOW_DATA: usize = CAP_WINDOW as usize + 16;

const NO_VECTOR: u16 = 0xffff;
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// Registers of the common configuration that are not the queues' own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Common {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queue_vectors: Vec<u16>,
    isr: u8,
}
saved_fields!(Common {
    device_feature_select,
    driver_feature_select,
    driver_features,
    config_vector,
    status,
    queue_select,
    queue_vectors,
    isr,
});

impl Common {
    fn new(queues: usize) -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queue_vectors: vec![NO_VECTOR; queues],
            isr: 0,
        }
    }
}

saved_fields!(QueueState {
    max_size,
    next_avail,
    next_used,
    event_idx_enabled,
    size,
    ready,
    desc_table,
    avail_ring,
    used_ring,
});

/// A virtio device as a PCI function.
#[derive(Debug)]
pub struct VirtioPci<D> {
    device: D,
    config: ConfigSpace,
    msix: Msix,
    common: Common,
    queues: Vec<Queue>,
}

/// What is saved of the transport and its device.
#[derive(Debug)]
pub struct VirtioPciState<S> {
    config: ConfigSpaceState,
    msix: Msix,
    common: Common,
    queues: Vec<QueueState>,
    device: S,
}

impl<S: Saved> Saved for VirtioPciState<S> {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { config, msix, common, queues, device } = self;
        config.encode(out);
        msix.encode(out);
        common.encode(out);
        queues.encode(out);
        device.encode(out);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            config: Saved::decode(from)?,
            msix: Saved::decode(from)?,
            common: Saved::decode(from)?,
            queues: Saved::decode(from)?,
            device: Saved::decode(from)?,
        })
    }
}

/// Messages that an access or a completion caused.
type Messages = Vec<Message>;

impl<D: VirtioDevice> VirtioPci<D> {
    /// The function in `slot`, its BARs at `bars` + slot * 64 KiB, its pin wired to `line`.
    pub fn new(device: D, slot: u8, bars: u32, line: u8) -> Self {
        let identity = Identity {
            vendor: 0x1af4,
            device: 0x1040 + D::TYPE,
            class: D::CLASS,
            revision: 1,
            subsystem: (0x1af4, 0x40 + D::TYPE),
        };
        let mut config = ConfigSpace::new(identity);
        let base = bars + u32::from(slot) * BAR_STRIDE;
        config.add_bar(0, base, BAR0_LEN);
        config.add_bar(usize::from(MSIX_BAR), base + BAR0_LEN, msix::BAR_LEN);
        config.add_interrupt(line);
        let msix = Msix::new(D::QUEUES.len() as u16 + 1);
        config.add_capability(CAP_MSIX, &msix.capability(MSIX_BAR));
        config.allow(usize::from(CAP_MSIX) + 3, &[0xc0]);
        add_virtio_capabilities(&mut config, device.config().len() as u32);
        let queues = D::QUEUES
            .iter()
            .map(|size| Queue::new(*size).expect("queue sizes are powers of two"))
            .collect();
        let common = Common::new(D::QUEUES.len());
        Self { device, config, msix, common, queues }
    }

    /// The device type behind the transport.
    pub const fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// The device type behind the transport.
    pub const fn device_ref(&self) -> &D {
        &self.device
    }

    /// Level of the interrupt pin.
    pub const fn line(&self) -> bool {
        self.common.isr != 0 && !self.msix.enabled() && self.config.intx_allowed()
    }

    /// Guest time of the next completion.
    pub fn deadline(&self) -> Option<u64> {
        self.device.deadline()
    }

    /// Completes what is due.
    ///
    /// # Errors
    /// When the host could not read the disk; what was due stays so.
    pub fn advance(&mut self, memory: &GuestView, now_ns: u64) -> Result<Messages, DiskError> {
        if self.device.deadline().is_none_or(|due| due > now_ns) {
            return Ok(Vec::new());
        }
        match self.device.advance(&mut self.queues, memory, now_ns) {
            Ok(told) => Ok(told.into_iter().filter_map(|q| self.tell(q, memory)).collect()),
            Err(AdvanceError::Disk(error)) => Err(error),
            Err(AdvanceError::Queue(error)) => Ok(self.broken(&error).into_iter().collect()),
        }
    }

    /// Interrupts the driver for a queue, unless it asked for none.
    fn tell(&mut self, queue: usize, memory: &GuestView) -> Option<Message> {
        let flags: u16 =
            memory.read_obj(GuestAddress(self.queues[queue].avail_ring())).unwrap_or(0);
        if u16::from_le(flags) & VRING_AVAIL_F_NO_INTERRUPT as u16 != 0 {
            return None;
        }
        if self.msix.enabled() {
            return self.msix.signal(self.common.queue_vectors[queue]);
        }
        self.common.isr |= ISR_QUEUE;
        None
    }

    fn broken(&mut self, error: &virtio_queue::Error) -> Option<Message> {
        tracing::debug!(device = D::TYPE, %error, "the guest's virtqueue is broken");
        self.common.status |= VIRTIO_CONFIG_S_NEEDS_RESET as u8;
        if self.common.status & VIRTIO_CONFIG_S_DRIVER_OK as u8 == 0 {
            return None;
        }
        if self.msix.enabled() {
            return self.msix.signal(self.common.config_vector);
        }
        self.common.isr |= ISR_CONFIG;
        None
    }

    fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.common = Common::new(D::QUEUES.len());
    }

    // Configuration space.

    /// Reads configuration space.
    pub fn config_read(&mut self, at: usize, size: u8) -> u32 {
        if (WINDOW_DATA..WINDOW_DATA + 4).contains(&at)
            && let Some((bar, offset, len)) = self.window()
        {
            let value = self.bar_read(bar, offset, len) as u32;
            self.config.allow(WINDOW_DATA, &[0xff; 4]);
            self.config.write(WINDOW_DATA, 4, value);
        }
        self.config.read(at, size)
    }

    /// Writes configuration space.
    pub fn config_write(
        &mut self,
        at: usize,
        size: u8,
        value: u32,
        memory: &GuestView,
        now_ns: u64,
    ) -> Messages {
        self.config.write(at, size, value);
        let control = usize::from(CAP_MSIX) + 2;
        if at < control + 2 && at + usize::from(size) > control {
            return self.msix.set_control(self.config.read(control, 2) as u16);
        }
        if (WINDOW_DATA..WINDOW_DATA + 4).contains(&at)
            && let Some((bar, offset, len)) = self.window()
        {
            let data = u64::from(self.config.read(WINDOW_DATA, len));
            return self.bar_write(bar, offset, len, data, memory, now_ns);
        }
        Vec::new()
    }

    /// The access that the VIRTIO_PCI_CAP_PCI_CFG window is set to.
    fn window(&self) -> Option<(u8, u64, u8)> {
        let at = usize::from(CAP_WINDOW);
        let bar = self.config.read(at + 4, 1) as u8;
        let offset = u64::from(self.config.read(at + 8, 4));
        let len = self.config.read(at + 12, 4) as u8;
        (bar <= MSIX_BAR && matches!(len, 1 | 2 | 4)).then_some((bar, offset, len))
    }

    // Memory.

    /// BAR and offset that an address means, if it is one of this function's.
    pub fn decode(&self, gpa: u64) -> Option<(u8, u64)> {
        let bar = |index: u8, len| {
            self.config.bar_offset(usize::from(index), len, gpa).map(|offset| (index, offset))
        };
        bar(0, BAR0_LEN).or_else(|| bar(MSIX_BAR, msix::BAR_LEN))
    }

    /// Reads `size` bytes of a BAR.
    pub fn bar_read(&mut self, bar: u8, offset: u64, size: u8) -> u64 {
        if bar == MSIX_BAR {
            let low = u64::from(self.msix.read(offset & !3));
            let high = if size == 8 { u64::from(self.msix.read(offset + 4)) } else { 0 };
            return (high << 32 | low) >> (8 * (offset & 3)) & mask(size);
        }
        let bytes = match offset {
            COMMON..ISR => (offset, self.common_bytes().to_vec()),
            ISR..DEVICE => (offset - ISR, vec![std::mem::take(&mut self.common.isr)]),
            DEVICE..NOTIFY => (offset - DEVICE, self.device.config()),
            _ => return 0,
        };
        let (start, bytes) = bytes;
        (0..u64::from(size)).fold(0, |value, i| {
            let byte = bytes.get((start + i) as usize).copied().unwrap_or(0);
            value | u64::from(byte) << (8 * i)
        })
    }

    /// Writes `size` bytes of a BAR.
    pub fn bar_write(
        &mut self,
        bar: u8,
        offset: u64,
        size: u8,
        value: u64,
        memory: &GuestView,
        now_ns: u64,
    ) -> Messages {
        if bar == MSIX_BAR {
            if size < 4 || !offset.is_multiple_of(4) {
                return Vec::new();
            }
            let mut messages: Messages =
                self.msix.write(offset, value as u32).into_iter().collect();
            if size == 8 {
                messages.extend(self.msix.write(offset + 4, (value >> 32) as u32));
            }
            return messages;
        }
        match offset {
            COMMON..ISR if size == 8 => {
                self.common_write(offset, value as u32, memory);
                self.common_write(offset + 4, (value >> 32) as u32, memory);
                Vec::new()
            }
            COMMON..ISR => {
                self.common_write(offset, value as u32, memory);
                Vec::new()
            }
            NOTIFY.. => self.notify(((offset - NOTIFY) / 4) as usize, memory, now_ns),
            _ => Vec::new(),
        }
    }

    fn notify(&mut self, index: usize, memory: &GuestView, now_ns: u64) -> Messages {
        let live = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET;
        if u32::from(self.common.status) & live != VIRTIO_CONFIG_S_DRIVER_OK {
            return Vec::new();
        }
        let Some(queue) = self.queues.get_mut(index).filter(|q| q.ready()) else {
            return Vec::new();
        };
        let told = match self.device.kick(index, queue, memory, now_ns) {
            Ok(true) => self.tell(index, memory),
            Ok(false) => None,
            Err(error) => self.broken(&error),
        };
        told.into_iter().collect()
    }

    fn features(&self) -> u64 {
        FEATURES | self.device.features()
    }

    /// The common configuration structure as it reads now (virtio 1.2 section 4.1.4.3).
    fn common_bytes(&self) -> [u8; 56] {
        let common = &self.common;
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let mut bytes = [0; 56];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &common.device_feature_select.to_le_bytes());
        put(4, &half(self.features(), common.device_feature_select).to_le_bytes());
        put(8, &common.driver_feature_select.to_le_bytes());
        put(12, &half(common.driver_features, common.driver_feature_select).to_le_bytes());
        put(16, &common.config_vector.to_le_bytes());
        put(18, &(self.queues.len() as u16).to_le_bytes());
        put(20, &[common.status, 0]);
        put(22, &common.queue_select.to_le_bytes());
        let index = usize::from(common.queue_select);
        if let Some(queue) = self.queues.get(index) {
            put(24, &queue.size().to_le_bytes());
            put(26, &common.queue_vectors[index].to_le_bytes());
            put(28, &u16::from(queue.ready()).to_le_bytes());
            put(30, &common.queue_select.to_le_bytes());
            put(32, &queue.desc_table().to_le_bytes());
            put(40, &queue.avail_ring().to_le_bytes());
            put(48, &queue.used_ring().to_le_bytes());
        }
        bytes
    }

    fn common_write(&mut self, offset: u64, value: u32, memory: &GuestView) {
        let vectors = self.msix.vectors();
        let vector = if (value as u16) < vectors { value as u16 } else { NO_VECTOR };
        match offset {
            0 => self.common.device_feature_select = value,
            8 => self.common.driver_feature_select = value,
            12 if u32::from(self.common.status) & VIRTIO_CONFIG_S_FEATURES_OK == 0 => {
                let old = self.common.driver_features;
                self.common.driver_features = match self.common.driver_feature_select {
                    0 => old & 0xffff_ffff_0000_0000 | u64::from(value),
                    1 => old & 0xffff_ffff | u64::from(value) << 32,
                    _ => old,
                };
            }
            16 => self.common.config_vector = vector,
            20 => self.set_status(value as u8),
            22 => self.common.queue_select = value as u16,
            _ => self.queue_write(offset, value, vector, memory),
        }
    }

    fn set_status(&mut self, status: u8) {
        if status == 0 {
            return self.reset();
        }
        let mut status = status | self.common.status & VIRTIO_CONFIG_S_NEEDS_RESET as u8;
        let wanted = self.common.driver_features;
        if wanted & !self.features() != 0 || wanted & 1 << VIRTIO_F_VERSION_1 == 0 {
            status &= !(VIRTIO_CONFIG_S_FEATURES_OK as u8);
        }
        self.common.status = status;
    }

    fn queue_write(&mut self, offset: u64, value: u32, vector: u16, memory: &GuestView) {
        let index = usize::from(self.common.queue_select);
        let Some(queue) = self.queues.get_mut(index) else { return };
        if offset == 26 {
            self.common.queue_vectors[index] = vector;
            return;
        }
        if queue.ready() {
            return; // Set up queues change by a reset only.
        }
        match offset {
            24 => queue.set_size(value as u16),
            28 if value as u16 == 1 => {
                queue.set_ready(true);
                if !queue.is_valid(memory) {
                    queue.set_ready(false);
                    self.common.status |= VIRTIO_CONFIG_S_NEEDS_RESET as u8;
                }
            }
            32 => queue.set_desc_table_address(Some(value), None),
            36 => queue.set_desc_table_address(None, Some(value)),
            40 => queue.set_avail_ring_address(Some(value), None),
            44 => queue.set_avail_ring_address(None, Some(value)),
            48 => queue.set_used_ring_address(Some(value), None),
            52 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    // State.

    /// The state to save.
    pub fn save(&self) -> VirtioPciState<D::State> {
        let Self { device, config, msix, common, queues } = self;
        VirtioPciState {
            config: config.save(),
            msix: msix.clone(),
            common: common.clone(),
            queues: queues.iter().map(Queue::state).collect(),
            device: device.save(),
        }
    }

    /// Takes a saved state back.
    ///
    /// # Errors
    /// When it does not fit this function.
    pub fn restore(&mut self, state: VirtioPciState<D::State>) -> Result<(), StateError> {
        let VirtioPciState { config, msix, common, queues, device } = state;
        let fits = queues.len() == D::QUEUES.len()
            && common.queue_vectors.len() == D::QUEUES.len()
            && msix.vectors() == self.msix.vectors();
        if !fits {
            return Err(StateError::Value("the number of virtqueues"));
        }
        self.queues = queues
            .into_iter()
            .map(|q| Queue::try_from(q).map_err(|_| StateError::Value("a virtqueue")))
            .collect::<Result<_, _>>()?;
        self.config.restore(&config);
        self.msix = msix;
        self.common = common;
        self.device.restore(device)
    }
}

const fn mask(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size as u32)) - 1 }
}

/// The five capabilities of virtio 1.2 section 4.1.4.
fn add_virtio_capabilities(config: &mut ConfigSpace, device_len: u32) {
    let capability = |len: u8, kind: u8, offset: u64, length: u32| {
        let mut body = vec![0; usize::from(len)];
        body[0] = 0x09;
        body[2] = len;
        body[3] = kind;
        body[8..12].copy_from_slice(&(offset as u32).to_le_bytes());
        body[12..16].copy_from_slice(&length.to_le_bytes());
        body
    };
    config.add_capability(CAP_COMMON, &capability(16, 1, COMMON, 56));
    let mut notify = capability(20, 2, NOTIFY, 0x1000);
    notify[16] = 4; // Bytes between the queues' notification addresses.
    config.add_capability(CAP_NOTIFY, &notify);
    config.add_capability(CAP_ISR, &capability(16, 3, ISR, 1));
    config.add_capability(CAP_DEVICE, &capability(16, 4, DEVICE, device_len.max(4)));
    config.add_capability(CAP_WINDOW, &capability(20, 5, 0, 0));
    let window = usize::from(CAP_WINDOW);
    config.allow(window + 4, &[0xff]);
    config.allow(window + 8, &[0xff; 12]);
}
