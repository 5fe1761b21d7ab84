//! boot_params, the "zero page".

use super::{ACPI_AREA, CMDLINE, EBDA, HIGH_RAM};
use ft_pair_cpu::ram::GuestRam;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::ByteValued;

/// Usable memory.
const E820_RAM: u32 = 1;
/// Memory to be left alone.
const E820_RESERVED: u32 = 2;
/// "Undefined" boot loader: none of the registered ones.
const LOADER: u8 = 0xff;
/// LOADED_HIGH: the kernel lies above 1 MiB.
const LOADED_HIGH: u8 = 1;

/// The memory map: `(start, length, type)`, ascending.
pub(super) fn memory_map(ram: &GuestRam) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, EBDA, E820_RAM),
        (EBDA, 0xa_0000 - EBDA, E820_RESERVED),
        (ACPI_AREA, HIGH_RAM - ACPI_AREA, E820_RESERVED),
    ];
    for (start, len) in ram.regions() {
        let from = start.max(HIGH_RAM);
        if start + len > from {
            map.push((from, start + len - from, E820_RAM));
        }
    }
    map
}

/// The bytes of boot_params.
pub(super) fn build(
    ram: &GuestRam,
    header: setup_header,
    initrd: Option<(u64, u64)>,
    rsdp: u64,
) -> Vec<u8> {
    let mut params = boot_params { hdr: header, acpi_rsdp_addr: rsdp, ..boot_params::default() };
    params.hdr.type_of_loader = LOADER;
    params.hdr.loadflags |= LOADED_HIGH;
    params.hdr.cmd_line_ptr = CMDLINE as u32;
    if let Some((at, len)) = initrd {
        params.hdr.ramdisk_image = at as u32;
        params.ext_ramdisk_image = (at >> 32) as u32;
        params.hdr.ramdisk_size = len as u32;
        params.ext_ramdisk_size = (len >> 32) as u32;
    }
    let map = memory_map(ram);
    params.e820_entries = map.len() as u8;
    let mut table = params.e820_table;
    for (entry, (addr, size, kind)) in table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr, size, r#type: kind };
    }
    params.e820_table = table;
    params.as_slice().to_vec()
}
