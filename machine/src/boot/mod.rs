//! Puts a kernel, its initrd and its command line into guest memory by the Linux x86 64-bit boot
//! protocol (Documentation/arch/x86/boot.rst), and says with which registers it starts.
//!
//! Where things lie: the GDT at 0x500, boot_params at 0x7000, the stack below 0x9000, page tables at
//! 0x9000 to 0xefff, the command line at 0x2_0000, ACPI tables (not ours) at 0xe_0000 to 0xf_ffff, the
//! kernel where it prefers to be, the initrd as high as it may.

mod bzimage;
mod elf;
mod params;
mod tables;

#[cfg(test)]
mod tests;

pub use tables::{BOOT_CS, BOOT_DS};

use ft_pair_cpu::ram::{GuestRam, HOLE_START, PAGE};
use ft_pair_cpu::state::{CpuState, RSI, RSP, Table};
use linux_loader::loader::bootparam::setup_header;

/// Where boot_params lies.
pub const BOOT_PARAMS: u64 = 0x7000;
/// First byte after the boot stack.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Where the command line lies.
pub const CMDLINE: u64 = 0x2_0000;
/// Bytes for the command line, its final zero included.
pub const CMDLINE_ROOM: u64 = 0x1_0000;
/// First byte of the area that is left to ACPI tables.
pub const ACPI_AREA: u64 = 0xe_0000;
/// First byte after it, where kernels may begin.
pub const HIGH_RAM: u64 = 0x10_0000;
/// First byte of the extended BIOS data area, reserved although there is none.
pub const EBDA: u64 = 0x9_fc00;

/// The guest cannot be booted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Neither bzImage nor ELF.
    #[error("the kernel is neither a bzImage nor an x86-64 ELF vmlinux")]
    NotAKernel,
    /// A boot protocol without what is needed.
    #[error(
        "the kernel speaks boot protocol {}.{:02}; 2.12 or later is needed (Linux 3.8, 2013)",
        .version >> 8, .version & 0xff
    )]
    TooOld {
        /// Major and minor version, a byte each.
        version: u16,
    },
    /// A kernel for 32-bit machines.
    #[error("the kernel has no 64-bit entry point; an x86-64 kernel is needed")]
    No64Bit,
    /// The kernel contradicts itself.
    #[error("the kernel is damaged: {0}")]
    Damaged(&'static str),
    /// Guest memory is too small.
    #[error(
        "{} MiB of guest memory are too little: kernel and initrd alone need {} MiB; use --mem with \
         at least that", .have >> 20, .needed.div_ceil(1 << 20)
    )]
    TooLittleMemory {
        /// Bytes that kernel and initrd need.
        needed: u64,
        /// Bytes that there are below 3 GiB.
        have: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("the kernel command line has {len} bytes; this kernel takes {max}")]
    CmdlineTooLong {
        /// Bytes that it has.
        len: usize,
        /// Bytes that the kernel takes.
        max: usize,
    },
    /// A zero byte would end the command line early.
    #[error("the kernel command line contains a zero byte")]
    CmdlineZero,
}

/// What is to be booted.
#[derive(Debug, Clone, Copy)]
pub struct BootImage<'a> {
    /// bzImage or ELF vmlinux.
    pub kernel: &'a [u8],
    /// Initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Guest physical address of the ACPI root pointer; 0 if there is none.
    pub rsdp: u64,
}

/// Registers at the kernel's first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootRegisters {
    /// Entry point.
    pub rip: u64,
    /// Address of boot_params.
    pub rsi: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Identity-mapping page tables of the low 4 GiB.
    pub cr3: u64,
    /// Address of the GDT.
    pub gdt_base: u64,
    /// Offset of the GDT's last byte.
    pub gdt_limit: u16,
}

impl BootRegisters {
    /// Sets up a CPU after reset: long mode, CPL 0, flat segments, interrupts off.
    pub fn apply(&self, state: &mut CpuState) {
        state.enter_long_mode(self.cr3, self.rip, BOOT_CS, BOOT_DS);
        state.regs[RSI] = self.rsi;
        state.regs[RSP] = self.rsp;
        state.gdtr = Table { base: self.gdt_base, limit: self.gdt_limit };
        // No interrupt descriptors: the kernel loads its own before it takes any.
        state.idtr = Table { base: 0, limit: 0 };
    }
}

/// A kernel, checked and laid out: what `load` is about to write.
#[derive(Debug)]
struct Kernel<'a> {
    /// `(address, bytes)`; what lies between stays zero.
    pieces: Vec<(u64, &'a [u8])>,
    /// First byte after all that the kernel uses before it reads the memory map.
    end: u64,
    entry: u64,
    header: setup_header,
    /// Last byte that the initrd may have.
    initrd_max: u64,
    cmdline_max: usize,
}

/// Writes everything into guest memory, which has to be all zero (a machine after power-on).
///
/// # Errors
/// When the kernel is none that can be booted, or memory is too small; memory may be partly written then.
pub fn load(ram: &GuestRam, image: &BootImage<'_>) -> Result<BootRegisters, BootError> {
    let kernel = parse(image.kernel)?;
    let room = kernel.cmdline_max.min(CMDLINE_ROOM as usize - 1);
    if image.cmdline.len() > room {
        return Err(BootError::CmdlineTooLong { len: image.cmdline.len(), max: room });
    }
    if image.cmdline.contains('\0') {
        return Err(BootError::CmdlineZero);
    }
    let low_end = ram.len().min(HOLE_START);
    let initrd_len = image.initrd.map_or(0, |bytes| bytes.len() as u64);
    let initrd_at = place_initrd(&kernel, initrd_len, low_end)?;

    for (at, bytes) in &kernel.pieces {
        write(ram, *at, bytes)?;
    }
    if let Some(initrd) = image.initrd {
        write(ram, initrd_at, initrd)?;
    }
    // The final zero is there: memory is zero.
    write(ram, CMDLINE, image.cmdline.as_bytes())?;
    let initrd = image.initrd.map(|_| (initrd_at, initrd_len));
    let params = params::build(ram, kernel.header, initrd, image.rsdp);
    write(ram, BOOT_PARAMS, &params)?;
    let gdt_limit = tables::write_gdt(ram)?;
    tables::write_page_tables(ram)?;
    Ok(BootRegisters {
        rip: kernel.entry,
        rsi: BOOT_PARAMS,
        rsp: BOOT_STACK,
        cr3: tables::PML4,
        gdt_base: tables::GDT,
        gdt_limit,
    })
}

/// Bytes of guest memory that a kernel with this initrd needs at the least.
///
/// # Errors
/// When the kernel is none that can be booted.
pub fn memory_needed(kernel: &[u8], initrd_len: u64) -> Result<u64, BootError> {
    Ok(needed(&parse(kernel)?, initrd_len))
}

fn parse(bytes: &[u8]) -> Result<Kernel<'_>, BootError> {
    match bytes {
        [0x7f, b'E', b'L', b'F', ..] => elf::parse(bytes),
        _ => bzimage::parse(bytes),
    }
}

const fn needed(kernel: &Kernel<'_>, initrd_len: u64) -> u64 {
    kernel.end.next_multiple_of(PAGE) + initrd_len.next_multiple_of(PAGE)
}

/// As high as it may lie, on a page of its own.
fn place_initrd(kernel: &Kernel<'_>, len: u64, low_end: u64) -> Result<u64, BootError> {
    let short = BootError::TooLittleMemory { needed: needed(kernel, len), have: low_end };
    if needed(kernel, len) > low_end {
        return Err(short);
    }
    let limit = low_end.min(kernel.initrd_max.saturating_add(1));
    let at = limit.checked_sub(len).map(|at| at / PAGE * PAGE);
    at.filter(|at| *at >= kernel.end || len == 0).ok_or(short)
}

fn write(ram: &GuestRam, at: u64, bytes: &[u8]) -> Result<(), BootError> {
    if bytes.is_empty() || ram.write(at, bytes) {
        return Ok(());
    }
    let needed = at.saturating_add(bytes.len() as u64);
    Err(BootError::TooLittleMemory { needed, have: ram.len().min(HOLE_START) })
}
