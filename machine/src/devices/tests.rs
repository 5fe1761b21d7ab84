//! The devices together, driven through the bus as a guest's drivers do.

use super::*;
use crate::block_device::{MemoryDisk, SECTOR};
use ft_pair_cpu::Bus;

const RING: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
/// Nanoseconds of guest time per instruction in the default configuration.
const STEP: u64 = 10;

fn devices(disk: MemoryDisk) -> (Arc<GuestRam>, Devices) {
    let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
    let mut devices = Devices::new(&MachineConfig::default(), &ram, Box::new(disk));
    devices.mmio_write(0, lapic::LAPIC_BASE + 0xf0, 4, 0x1ff);
    (ram, devices)
}

fn config_read(devices: &mut Devices, slot: u32, register: u32) -> u32 {
    devices.io_write(0, 0xcf8, 4, 1 << 31 | slot << 11 | register);
    devices.io_read(0, 0xcfc, 4)
}

fn config_write(devices: &mut Devices, slot: u32, register: u32, value: u32) {
    devices.io_write(0, 0xcf8, 4, 1 << 31 | slot << 11 | register);
    devices.io_write(0, 0xcfc, 4, value);
}

fn redirect(devices: &mut Devices, pin: u32, low: u32) {
    devices.mmio_write(0, ioapic::IOAPIC_BASE, 4, u64::from(0x10 + 2 * pin));
    devices.mmio_write(0, ioapic::IOAPIC_BASE + 0x10, 4, u64::from(low));
}

/// A driver of one virtio function with one queue.
struct Driver {
    bar: u64,
    index: u16,
}

impl Driver {
    /// Negotiates, sets the queue up at [`RING`], points MSI-X vector 0 at `vector`.
    fn start(devices: &mut Devices, slot: u32, vector: Option<u32>) -> Self {
        config_write(devices, slot, 4, 0x0006);
        let bar = u64::from(config_read(devices, slot, 0x10) & !0xf);
        let msix = u64::from(config_read(devices, slot, 0x14) & !0xf);
        if let Some(vector) = vector {
            config_write(devices, slot, 0x40, 1 << 31);
            for (at, value) in [(0, 0xfee0_0000), (4, 0), (8, vector), (12, 0)] {
                devices.mmio_write(0, msix + at, 4, u64::from(value));
            }
        }
        let mut put = |at: u64, size: u8, value: u64| devices.mmio_write(0, bar + at, size, value);
        put(20, 1, 0);
        put(20, 1, 3);
        put(8, 4, 1);
        put(12, 4, 1); // VERSION_1
        put(20, 1, 0xb);
        put(22, 2, 0);
        put(24, 2, 8);
        put(26, 2, 0);
        put(32, 8, RING);
        put(40, 4, RING + 0x100);
        put(44, 4, 0);
        put(48, 8, RING + 0x200);
        put(28, 2, 1);
        put(20, 1, 0xf);
        assert_eq!(devices.mmio_read(0, bar + 20, 1), 0xf, "features and queue are accepted");
        Self { bar, index: 0 }
    }

    /// Makes a chain available and kicks. Each part: address, length, whether the device writes it.
    fn request(
        &mut self,
        ram: &GuestRam,
        devices: &mut Devices,
        now: u64,
        parts: &[(u64, u32, bool)],
    ) {
        for (i, (gpa, len, write)) in parts.iter().enumerate() {
            let more = i + 1 < parts.len();
            let flags = u16::from(more) | u16::from(*write) << 1;
            let mut descriptor = gpa.to_le_bytes().to_vec();
            descriptor.extend(len.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend((i as u16 + 1).to_le_bytes());
            assert!(ram.write(RING + 16 * i as u64, &descriptor));
        }
        assert!(ram.write(RING + 0x104 + 2 * u64::from(self.index % 8), &[0, 0]));
        self.index += 1;
        assert!(ram.write(RING + 0x102, &self.index.to_le_bytes()));
        devices.mmio_write(now, self.bar + 0x3000, 2, 0);
    }
}

fn used(ram: &GuestRam) -> u16 {
    let mut index = [0; 2];
    assert!(ram.read(RING + 0x202, &mut index));
    u16::from_le_bytes(index)
}

fn peek(ram: &GuestRam, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    assert!(ram.read(gpa, &mut bytes));
    bytes
}

fn header(ram: &GuestRam, kind: u32, sector: u64) {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    assert!(ram.write(DATA, &header));
    assert!(ram.write(DATA + 0x800, &[0xee]));
}

#[test]
fn a_bus_scan_finds_the_functions() {
    let (_, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    assert_eq!(config_read(&mut devices, 0, 8) >> 16, 0x0600);
    assert_eq!(config_read(&mut devices, 1, 0), 0x1042_1af4);
    assert_eq!(config_read(&mut devices, 2, 0), 0x1044_1af4);
    assert_eq!(config_read(&mut devices, 3, 0), u32::MAX);
    let mut capability = config_read(&mut devices, 1, 0x34) & 0xff;
    let mut kinds = Vec::new();
    while capability != 0 {
        let word = config_read(&mut devices, 1, capability);
        kinds.push((word & 0xff, if word & 0xff == 9 { word >> 24 } else { 0 }));
        capability = word >> 8 & 0xff;
    }
    assert_eq!(kinds, [(0x11, 0), (9, 1), (9, 2), (9, 3), (9, 4), (9, 5)]);
}

#[test]
fn a_read_completes_at_its_time_and_not_before() {
    let mut image = vec![0; 8 * SECTOR];
    image[2 * SECTOR..3 * SECTOR].fill(0x5a);
    let (ram, mut devices) = devices(MemoryDisk::new(image));
    let mut driver = Driver::start(&mut devices, 1, Some(0x61));
    header(&ram, 0, 2);
    devices.arm(u64::MAX);
    let parts = [(DATA, 16, false), (DATA + 0x200, 512, true), (DATA + 0x800, 1, true)];
    driver.request(&ram, &mut devices, 1000, &parts);
    assert!(devices.take_exit_request(), "the CPU was let run past the completion");
    let due = 1000 * STEP + 50_000;
    assert_eq!(devices.deadline(), Some(due));
    devices.advance(due / STEP - 1);
    assert_eq!(used(&ram), 0);
    devices.advance(due / STEP);
    assert_eq!((used(&ram), devices.deadline()), (1, None));
    assert_eq!(peek(&ram, DATA + 0x200, 512), [0x5a; 512]);
    assert_eq!(peek(&ram, DATA + 0x800, 1), [0]);
    assert_eq!(peek(&ram, RING + 0x208, 4), 513u32.to_le_bytes());
    assert_eq!(devices.acknowledge_interrupt(), Some(0x61));
}

#[test]
fn a_write_is_taken_at_the_kick() {
    let (ram, mut devices) = devices(MemoryDisk::new(vec![0; 8 * SECTOR]));
    let mut driver = Driver::start(&mut devices, 1, Some(0x61));
    header(&ram, 1, 7);
    assert!(ram.write(DATA + 0x200, &[7; 512]));
    let parts = [(DATA, 16, false), (DATA + 0x200, 512, false), (DATA + 0x800, 1, true)];
    driver.request(&ram, &mut devices, 0, &parts);
    assert!(ram.write(DATA + 0x200, &[9; 512]));
    devices.advance(5000);
    assert_eq!(peek(&ram, DATA + 0x800, 1), [0]);
    let mut sector = [0; 512];
    devices.block.device().disk().read(7, &mut sector).unwrap();
    assert_eq!(sector, [7; 512]);
    let writes = devices.block.device().take_writes();
    assert_eq!(writes.ranges, [(7, 1)]);
    assert_ne!(writes.digest, devices.block.device().take_writes().digest);
}

#[test]
fn flushes_are_counted_in_what_is_told_later() {
    let (ram, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    let mut driver = Driver::start(&mut devices, 1, None);
    devices.io_write(0, 0x3f8, 1, u32::from(b'a'));
    header(&ram, 4, 0);
    driver.request(&ram, &mut devices, 0, &[(DATA, 16, false), (DATA + 0x800, 1, true)]);
    devices.io_write(1, 0x3f8, 1, u32::from(b'b'));
    devices.advance(5000);
    devices.io_write(5000, 0x3f8, 1, u32::from(b'c'));
    let outputs = devices.take_outputs();
    let told: Vec<_> = outputs.iter().map(|o| (o.seq, o.bytes.as_slice(), o.after_flush)).collect();
    assert_eq!(told, [(0, &b"ab"[..], 0), (2, &b"c"[..], 1)]);
    assert_eq!(outputs[1].position, Position::at(5000));
}

#[test]
fn bad_requests_fail_and_nothing_else_does() {
    let (ram, mut devices) = devices(MemoryDisk::new(vec![0; 8 * SECTOR]));
    let mut driver = Driver::start(&mut devices, 1, Some(0x61));
    let data = (DATA + 0x200, 512, true);
    let status = (DATA + 0x800, 1, true);
    let mut now = 0;
    let mut ask = |devices: &mut Devices, kind, sector, parts: &[(u64, u32, bool)]| {
        header(&ram, kind, sector);
        driver.request(&ram, devices, now, parts);
        now += 10_000;
        devices.advance(now);
        peek(&ram, DATA + 0x800, 1)[0]
    };
    let header = (DATA, 16, false);
    assert_eq!(ask(&mut devices, 0, 8, &[header, data, status]), 1, "beyond the end");
    assert_eq!(ask(&mut devices, 0, u64::MAX, &[header, data, status]), 1);
    assert_eq!(ask(&mut devices, 77, 0, &[header, data, status]), 2, "unknown type");
    assert_eq!(ask(&mut devices, 0, 0, &[header, (DATA, 100, true), status]), 1, "half a sector");
    let hole = (0xf000_0000, 512, true);
    assert_eq!(ask(&mut devices, 0, 0, &[header, hole, status]), 1, "not RAM");
    assert_eq!(ask(&mut devices, 1, 0, &[header, (0xf000_0000, 512, false), status]), 1);
    assert_eq!(ask(&mut devices, 0, 0, &[header]), 0xee, "no place for a status");
    assert_eq!(used(&ram), 7);
    assert_eq!(ask(&mut devices, 8, 0, &[header, (DATA + 0x200, 20, true), status]), 0);
    assert_eq!(peek(&ram, DATA + 0x200, 20), b"ft-pair-memory-disk\0");
}

#[test]
fn a_host_error_keeps_the_request_in_flight() {
    let mut disk = MemoryDisk::new(vec![0x33; 512]);
    disk.broken = true;
    let (ram, mut devices) = devices(disk);
    let mut driver = Driver::start(&mut devices, 1, Some(0x61));
    header(&ram, 0, 0);
    let parts = [(DATA, 16, false), (DATA + 0x200, 512, true), (DATA + 0x800, 1, true)];
    driver.request(&ram, &mut devices, 0, &parts);
    devices.advance(5000);
    assert!(devices.take_host_error().is_some());
    assert_eq!((used(&ram), devices.deadline()), (0, Some(50_000)));
}

#[test]
fn a_request_in_flight_completes_once_after_a_restore() {
    let image = vec![0x44; 4 * SECTOR];
    let (ram, mut old) = devices(MemoryDisk::new(image.clone()));
    let mut driver = Driver::start(&mut old, 1, Some(0x61));
    header(&ram, 0, 1);
    let parts = [(DATA, 16, false), (DATA + 0x200, 512, true), (DATA + 0x800, 1, true)];
    driver.request(&ram, &mut old, 0, &parts);
    let saved = old.save();
    let disk = Box::new(MemoryDisk::new(image));
    let mut new =
        Devices::new(&MachineConfig { entropy_seed: [9; 32], ..Default::default() }, &ram, disk);
    new.restore(&saved).unwrap();
    assert_eq!(new.save(), saved);
    new.advance(5000);
    new.advance(6000);
    assert_eq!(used(&ram), 1);
    assert_eq!(peek(&ram, DATA + 0x200, 512), [0x44; 512]);
    assert_eq!((new.acknowledge_interrupt(), new.acknowledge_interrupt()), (Some(0x61), None));
}

#[test]
fn without_msi_the_pin_is_used() {
    let (ram, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    let mut driver = Driver::start(&mut devices, 2, None);
    redirect(&mut devices, 18, 0xa071);
    driver.request(&ram, &mut devices, 0, &[(DATA + 0x200, 32, true)]);
    assert_eq!(used(&ram), 1, "entropy needs no time");
    assert_ne!(peek(&ram, DATA + 0x200, 32), [0; 32]);
    assert_eq!(devices.acknowledge_interrupt(), Some(0x71));
    assert_eq!(devices.mmio_read(0, driver.bar + 0x1000, 1), 1);
    devices.mmio_write(0, lapic::LAPIC_BASE + 0xb0, 4, 0);
    assert_eq!(devices.acknowledge_interrupt(), None, "reading ISR has dropped the line");
}

#[test]
fn a_reset_forgets_the_queue() {
    let (ram, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    let mut driver = Driver::start(&mut devices, 1, None);
    header(&ram, 0, 0);
    let parts = [(DATA, 16, false), (DATA + 0x200, 512, true), (DATA + 0x800, 1, true)];
    driver.request(&ram, &mut devices, 0, &parts);
    devices.mmio_write(0, driver.bar + 20, 1, 0);
    assert_eq!((devices.deadline(), devices.mmio_read(0, driver.bar + 28, 2)), (None, 0));
    Driver::start(&mut devices, 1, None);
}

#[test]
fn typed_bytes_interrupt_through_the_io_apic() {
    let (_, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    redirect(&mut devices, serial::SERIAL_PIN, 0x51);
    for (register, value) in [(4, 8), (1, 1)] {
        devices.io_write(0, 0x3f8 + register, 1, value);
    }
    devices.serial.type_bytes(0, b"x");
    devices.update_lines();
    assert_eq!(devices.acknowledge_interrupt(), Some(0x51));
    assert_eq!(devices.io_read(0, 0x3f8, 1), u32::from(b'x'));
}

#[test]
fn the_power_button_raises_the_sci_and_s5_ends() {
    let (_, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    redirect(&mut devices, power::SCI_PIN, 0x8052);
    devices.io_write(0, power::PM1_EVENT + 2, 2, 0x100);
    devices.power.press_button();
    devices.update_lines();
    assert_eq!(devices.acknowledge_interrupt(), Some(0x52));
    devices.io_write(0, power::PM1_EVENT, 2, 0x100);
    devices.mmio_write(0, lapic::LAPIC_BASE + 0xb0, 4, 0);
    assert!(!devices.interrupt_pending());
    devices.arm(u64::MAX);
    devices.io_write(9, power::PM1_CONTROL, 2, 1 << 13 | 5 << 10);
    assert!(devices.take_exit_request());
    assert_eq!(devices.ended(), Some(PowerEvent::Off));
    let outputs = devices.take_outputs();
    assert_eq!((outputs.len(), outputs[0].stream, outputs[0].bytes[0]), (1, Stream::Power, 0));
}

#[test]
fn a_timer_armed_before_the_limit_asks_for_a_stop() {
    let (_, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    devices.mmio_write(0, lapic::LAPIC_BASE + 0x320, 4, 2 << 17 | 0x40);
    devices.arm(10_000);
    assert!(devices.msr_write(5, lapic::MSR_TSC_DEADLINE, 20_000));
    assert!(!devices.take_exit_request());
    assert!(devices.msr_write(5, lapic::MSR_TSC_DEADLINE, 9_999));
    assert!(devices.take_exit_request());
    assert_eq!(devices.tsc(7), 70);
}

#[test]
fn absent_hardware_reads_as_ones() {
    let (_, mut devices) = devices(MemoryDisk::new(vec![0; 512]));
    assert_eq!(devices.io_read(0, 0x2f8, 2), 0xffff);
    assert_eq!(devices.mmio_read(0, 0xd000_0000, 8), u64::MAX);
    assert_eq!(devices.msr_read(0, 0x802), None);
    assert!(!devices.msr_write(0, 0x1234, 0));
}
