//! bzImage: the setup header says all.

use super::{BootError, HIGH_RAM, Kernel};
use linux_loader::loader::bootparam::{XLF_KERNEL_64, setup_header};
use vm_memory::ByteValued;

/// Where the setup header begins in the file.
const HEADER: usize = 0x1f1;
/// Where the 64-bit entry point lies in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;

pub(super) fn parse(file: &[u8]) -> Result<Kernel<'_>, BootError> {
    if file.get(0x202..0x206) != Some(b"HdrS") {
        return Err(BootError::NotAKernel);
    }
    let mut header = setup_header::default();
    // The byte at 0x201 is a jump's distance, which is where the header ends in this kernel's version.
    let end = 0x202 + usize::from(file[0x201]);
    let len = end.saturating_sub(HEADER).min(size_of::<setup_header>());
    let bytes =
        file.get(HEADER..HEADER + len).ok_or(BootError::Damaged("its header is cut off"))?;
    header.as_mut_slice()[..len].copy_from_slice(bytes);

    let version = header.version;
    if version < 0x20c {
        return Err(BootError::TooOld { version });
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::No64Bit);
    }
    // 0 stands for 4, for the sake of very old kernels.
    let sectors = match header.setup_sects {
        0 => 4,
        n => usize::from(n),
    };
    let code = file
        .get((sectors + 1) * 512..)
        .filter(|code| code.len() as u64 > ENTRY_64)
        .ok_or(BootError::Damaged("its code is cut off"))?;
    if u64::from(header.syssize) * 16 > (code.len() as u64).next_multiple_of(16) {
        return Err(BootError::Damaged("the file is shorter than its header says"));
    }
    let at = header.pref_address;
    let room = u64::from(header.init_size).max(code.len() as u64);
    let end = at.checked_add(room).filter(|_| at >= HIGH_RAM);
    Ok(Kernel {
        pieces: vec![(at, code)],
        end: end.ok_or(BootError::Damaged("its load address is none"))?,
        entry: at + ENTRY_64,
        initrd_max: u64::from(header.initrd_addr_max),
        cmdline_max: header.cmdline_size as usize,
        header,
    })
}
