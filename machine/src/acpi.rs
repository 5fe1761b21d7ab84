//! The firmware tables by which a stock kernel finds everything: ACPI 6, full hardware model.
//!
//! They lie in the BIOS area below 1 MiB, where the boot code's memory map must keep them reserved.

use crate::devices::{INTERRUPTING_SLOTS, ioapic, lapic, pci, power, rtc, serial};
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package,
    PackageBuilder, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, facs::FACS};
use ft_pair_cpu::GuestRam;

/// Where the tables begin.
pub const TABLES: u64 = 0xe_0000;
/// Where the area that they may use ends.
pub const TABLES_END: u64 = 0xf_0000;

const OEM: [u8; 6] = *b"FTPAIR";
const OEM_TABLE: [u8; 8] = *b"FTPAIR  ";
const REVISION: u32 = 1;

const RESET_VALUE: u8 = 6;
/// There are legacy devices, no VGA, no keyboard controller.
const BOOT_ARCH: u16 = 1 | 1 << 2;
/// A dual 8259 is there as well.
const PCAT_COMPAT: u32 = 1;
/// Interrupt source override: active high, level triggered.
const HIGH_LEVEL: u16 = 0b1101;

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    table.to_aml_bytes(&mut out);
    out
}

/// Writes all tables into guest memory and returns where the root pointer is.
///
/// # Panics
/// If RAM does not reach up to 1 MiB, or the tables outgrow their area.
pub fn install(ram: &GuestRam) -> u64 {
    // The root pointer comes first, but is known last.
    let rsdp = TABLES;
    let mut next = rsdp + Rsdp::len() as u64;
    let mut place = |table: &[u8]| {
        let at = next.next_multiple_of(64);
        next = at + table.len() as u64;
        assert!(next <= TABLES_END, "the tables fit their area");
        assert!(ram.write(at, table), "RAM reaches up to 1 MiB");
        at
    };
    let facs = place(&bytes(&FACS::new()));
    let dsdt = place(dsdt().as_slice());
    let fadt = place(&fadt(facs as u32, dsdt as u32));
    let madt = place(madt().as_slice());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = place(&bytes(&xsdt));
    assert!(ram.write(rsdp, &bytes(&Rsdp::new(OEM, xsdt))), "RAM reaches up to 1 MiB");
    rsdp
}

const fn port(address: u16, bits: u8, access: AccessSize) -> (GasSpace, u8, u8, AccessSize, u64) {
    (GasSpace::SystemIo, bits, 0, access, address as u64)
}

fn gas((space, bits, offset, access, address): (GasSpace, u8, u8, AccessSize, u64)) -> GAS {
    GAS::new(space, bits, offset, access, address)
}

fn fadt(facs: u32, dsdt: u32) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, REVISION)
        .firmware_ctrl_32(facs)
        .dsdt_32(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton) // No fixed sleep button; the fixed power button is there.
        .flag(Flags::FixRtc) // The RTC wakes nobody through the fixed registers.
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.sci_int = (power::SCI_PIN as u16).into();
    fadt.pm1a_evt_blk = u32::from(power::PM1_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(power::PM1_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(power::PM_TIMER).into();
    fadt.pm_tmr_len = 4;
    // No C2 or C3: latencies beyond what the specification takes for "supported".
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    fadt.century = rtc::REG_CENTURY;
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = gas(port(power::RESET_CONTROL, 8, AccessSize::ByteAccess));
    fadt.reset_value = RESET_VALUE;
    fadt.x_pm1a_evt_blk = gas(port(power::PM1_EVENT, 32, AccessSize::WordAccess));
    fadt.x_pm1a_cnt_blk = gas(port(power::PM1_CONTROL, 16, AccessSize::WordAccess));
    fadt.x_pm_tmr_blk = gas(port(power::PM_TIMER, 32, AccessSize::DwordAccess));
    bytes(&fadt.finalize())
}

fn madt() -> Sdt {
    let mut madt = Sdt::new(*b"APIC", 44, 4, OEM, OEM_TABLE, REVISION);
    madt.write_u32(36, lapic::LAPIC_BASE as u32);
    madt.write_u32(40, PCAT_COMPAT);
    madt.append_slice(&bytes(&ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled)));
    madt.append_slice(&bytes(&IoApic::new(0, ioapic::IOAPIC_BASE as u32, 0)));
    // Interrupt source override: ISA interrupt 9 is the SCI on pin 9, level triggered.
    let sci = power::SCI_PIN as u8;
    let flags = HIGH_LEVEL.to_le_bytes();
    madt.append_slice(&[2, 10, 0, sci, sci, 0, 0, 0, flags[0], flags[1]]);
    madt
}

fn dsdt() -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, REVISION);
    let s5 = power::S5_TYPE;
    let sleep = Package::new(vec![&s5, &s5, &0u8, &0u8]);
    dsdt.append_slice(&bytes(&Name::new(Path::new("_S5_"), &sleep)));
    dsdt.append_slice(&processor());
    dsdt.append_slice(&root_bridge());
    dsdt.append_slice(&isa_device("COM1", "PNP0501", serial::SERIAL_BASE, 8, serial::SERIAL_PIN));
    dsdt.append_slice(&isa_device("RTC0", "PNP0B00", rtc::RTC_PORT, 2, rtc::RTC_PIN));
    dsdt
}

fn in_system_bus(device: &Device<'_>) -> Vec<u8> {
    bytes(&Scope::new(Path::new("_SB_"), vec![device]))
}

fn processor() -> Vec<u8> {
    let hid = Name::new(Path::new("_HID"), &"ACPI0007");
    let uid = Name::new(Path::new("_UID"), &0u8);
    in_system_bus(&Device::new(Path::new("CPU0"), vec![&hid, &uid]))
}

fn isa_device(name: &str, hid: &str, base: u16, ports: u8, pin: u32) -> Vec<u8> {
    let hid = Name::new(Path::new("_HID"), &EISAName::new(hid));
    let uid = Name::new(Path::new("_UID"), &0u8);
    let io = IO::new(base, base, 1, ports);
    let interrupt = Interrupt::new(true, true, false, false, pin);
    let resources = ResourceTemplate::new(vec![&io, &interrupt]);
    let crs = Name::new(Path::new("_CRS"), &resources);
    in_system_bus(&Device::new(Path::new(name), vec![&hid, &uid, &crs]))
}

fn root_bridge() -> Vec<u8> {
    let hid = Name::new(Path::new("_HID"), &EISAName::new("PNP0A03"));
    let uid = Name::new(Path::new("_UID"), &0u8);
    let bbn = Name::new(Path::new("_BBN"), &0u8);
    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let config_ports = IO::new(pci::CONFIG_ADDRESS, pci::CONFIG_ADDRESS, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, pci::CONFIG_ADDRESS - 1, None);
    let high_ports = AddressSpace::new_io(pci::CONFIG_DATA + 4, 0xffffu16, None);
    let (start, end) = pci::MMIO_WINDOW;
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let memory = AddressSpace::new_memory(cacheable, true, start, end, None);
    let resources =
        ResourceTemplate::new(vec![&buses, &config_ports, &low_ports, &high_ports, &memory]);
    let crs = Name::new(Path::new("_CRS"), &resources);
    let mut routes = PackageBuilder::new();
    for slot in INTERRUPTING_SLOTS {
        let address = u32::from(slot) << 16 | 0xffff;
        let pin = pci::INTX_PIN + u32::from(slot);
        routes.add_element(&Package::new(vec![&address, &0u8, &0u8, &pin]));
    }
    let prt = Name::new(Path::new("_PRT"), &routes);
    in_system_bus(&Device::new(Path::new("PCI0"), vec![&hid, &uid, &bbn, &crs, &prt]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ram: &GuestRam, at: u64) -> Vec<u8> {
        let mut header = [0; 8];
        assert!(ram.read(at, &mut header));
        let len = u32::from_le_bytes(header[4..].try_into().unwrap());
        let mut table = vec![0; len as usize];
        assert!(ram.read(at, &mut table));
        table
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn dword(table: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(table[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_tables_lead_to_each_other() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let mut rsdp = [0; 36];
        assert!(ram.read(install(&ram), &mut rsdp));
        assert_eq!(
            (&rsdp[..8], rsdp[15], sum(&rsdp[..20]), sum(&rsdp)),
            (&b"RSD PTR "[..], 2, 0, 0)
        );
        let xsdt = table(&ram, u64::from(dword(&rsdp, 24)));
        assert_eq!((&xsdt[..4], sum(&xsdt), xsdt.len()), (&b"XSDT"[..], 0, 36 + 16));
        let fadt = table(&ram, u64::from(dword(&xsdt, 36)));
        assert_eq!((&fadt[..4], sum(&fadt), fadt.len()), (&b"FACP"[..], 0, 276));
        assert_eq!((dword(&fadt, 56), dword(&fadt, 64), dword(&fadt, 76)), (0x600, 0x604, 0x608));
        assert_eq!(dword(&fadt, 112) & 1 << 20, 0, "not hardware-reduced");
        assert_eq!(dword(&fadt, 36) % 64, 0, "the FACS is aligned");
        let dsdt = table(&ram, u64::from(dword(&fadt, 40)));
        assert_eq!((&dsdt[..4], sum(&dsdt)), (&b"DSDT"[..], 0));
        let madt = table(&ram, u64::from(dword(&xsdt, 44)));
        assert_eq!((&madt[..4], sum(&madt), madt.len()), (&b"APIC"[..], 0, 44 + 8 + 12 + 10));
        assert_eq!((dword(&madt, 36), madt[madt.len() - 2]), (0xfee0_0000, 0xd));
    }
}
