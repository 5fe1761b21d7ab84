//! The GDT and the page tables that the kernel starts with; it replaces both early.

use super::BootError;
use ft_pair_cpu::ram::GuestRam;

/// Selector of the code segment (__BOOT_CS).
pub const BOOT_CS: u16 = 0x10;
/// Selector of the data segments (__BOOT_DS).
pub const BOOT_DS: u16 = 0x18;

/// Where the GDT lies.
pub(super) const GDT: u64 = 0x500;
/// Where the top-level page table lies; one table of the next level and four of the last follow.
pub(super) const PML4: u64 = 0x9000;
const PDPT: u64 = PML4 + 0x1000;
const PD: u64 = PDPT + 0x1000;

/// Present, writable.
const TABLE: u64 = 3;
/// Present, writable, 2 MiB.
const LARGE: u64 = 0x83;

/// Null, unused, 64-bit code, data, and a busy TSS as KVM wants one.
const DESCRIPTORS: [u64; 5] =
    [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff];

/// Writes the GDT; returns its limit.
pub(super) fn write_gdt(ram: &GuestRam) -> Result<u16, BootError> {
    let bytes: Vec<u8> = DESCRIPTORS.iter().flat_map(|d| d.to_le_bytes()).collect();
    super::write(ram, GDT, &bytes)?;
    Ok(bytes.len() as u16 - 1)
}

/// Maps the low 4 GiB onto themselves.
pub(super) fn write_page_tables(ram: &GuestRam) -> Result<(), BootError> {
    super::write(ram, PML4, &(PDPT | TABLE).to_le_bytes())?;
    for gib in 0..4_u64 {
        let pd = PD + gib * 0x1000;
        super::write(ram, PDPT + gib * 8, &(pd | TABLE).to_le_bytes())?;
        let entries = (0..512_u64).map(|i| (gib << 30) | (i << 21) | LARGE);
        let bytes: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
        super::write(ram, pd, &bytes)?;
    }
    Ok(())
}
