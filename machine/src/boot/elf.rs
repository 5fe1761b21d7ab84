//! ELF vmlinux: the kernel as it is linked, not compressed. Its entry point is 64-bit code that takes
//! boot_params in RSI as a bzImage's does.

use super::{BootError, HIGH_RAM, Kernel};
use linux_loader::loader::bootparam::setup_header;

/// Program header type of what is loaded.
const PT_LOAD: u32 = 1;
/// Longest command line, as every x86 kernel has it (COMMAND_LINE_SIZE).
const CMDLINE_MAX: usize = 2047;

pub(super) fn parse(file: &[u8]) -> Result<Kernel<'_>, BootError> {
    const CUT: BootError = BootError::Damaged("its program headers are cut off");
    // Class 64-bit, little endian, machine x86-64.
    if file.get(4..6) != Some(&[2, 1]) || half(file, 18) != Some(62) {
        return Err(BootError::NotAKernel);
    }
    let entry = word(file, 24).ok_or(CUT)?;
    let table = word(file, 32).ok_or(CUT)?;
    let size = u64::from(half(file, 54).ok_or(CUT)?);
    let count = u64::from(half(file, 56).ok_or(CUT)?);
    let mut pieces = Vec::new();
    let mut end = 0;
    for i in 0..count {
        let at = table.checked_add(i * size).and_then(|at| usize::try_from(at).ok()).ok_or(CUT)?;
        let header = file.get(at..).filter(|rest| rest.len() >= 56).ok_or(CUT)?;
        if header[..4] != PT_LOAD.to_le_bytes() {
            continue;
        }
        let field = |at| word(header, at).ok_or(CUT);
        let (offset, paddr, in_file, in_memory) = (field(8)?, field(24)?, field(32)?, field(40)?);
        let bytes = offset
            .checked_add(in_file)
            .and_then(|to| file.get(usize::try_from(offset).ok()?..usize::try_from(to).ok()?))
            .ok_or(BootError::Damaged("a segment reaches past the end of the file"))?;
        let last = paddr.checked_add(in_memory.max(in_file));
        end = end.max(last.ok_or(BootError::Damaged("a segment's address is none"))?);
        if paddr < HIGH_RAM {
            return Err(BootError::Damaged("a segment lies below 1 MiB"));
        }
        pieces.push((paddr, bytes));
    }
    if pieces.is_empty() || !(HIGH_RAM..end).contains(&entry) {
        return Err(BootError::Damaged("its entry point lies outside of it"));
    }
    // What a bzImage's header would say.
    let header = setup_header {
        boot_flag: 0xaa55,
        header: 0x5372_6448,
        version: 0x20c,
        kernel_alignment: 0x20_0000,
        initrd_addr_max: 0x7fff_ffff,
        cmdline_size: CMDLINE_MAX as u32,
        ..setup_header::default()
    };
    Ok(Kernel { pieces, end, entry, header, initrd_max: 0x7fff_ffff, cmdline_max: CMDLINE_MAX })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
