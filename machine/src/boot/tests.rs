use super::*;
use ft_pair_cpu::ram::HOLE_END;

/// A bzImage with a header like Debian's and recognisable code.
pub(super) fn fake_bzimage(code_len: usize) -> Vec<u8> {
    let mut file = vec![0; 0x400];
    file[0x1f1] = 1; // setup_sects
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    file[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes()); // kernel_alignment
    file[0x236..0x238].copy_from_slice(&1_u16.to_le_bytes()); // XLF_KERNEL_64
    file[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes()); // cmdline_size
    file[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes()); // pref_address
    file[0x260..0x264].copy_from_slice(&0x20_0000_u32.to_le_bytes()); // init_size
    file.extend((0..code_len).map(|i| i as u8));
    file
}

fn image<'a>(kernel: &'a [u8], initrd: Option<&'a [u8]>) -> BootImage<'a> {
    BootImage { kernel, initrd, cmdline: "console=ttyS0 root=/dev/vda", rsdp: 0xe_0000 }
}

fn u32_at(ram: &GuestRam, at: u64) -> u32 {
    let mut bytes = [0; 4];
    assert!(ram.read(at, &mut bytes));
    u32::from_le_bytes(bytes)
}

fn u64_at(ram: &GuestRam, at: u64) -> u64 {
    u64::from(u32_at(ram, at)) | u64::from(u32_at(ram, at + 4)) << 32
}

#[test]
fn a_bzimage_is_laid_out_by_the_protocol() {
    let ram = GuestRam::new(64 << 20).unwrap();
    let kernel = fake_bzimage(0x1000);
    let initrd = vec![7; 5000];
    let regs = load(&ram, &image(&kernel, Some(&initrd))).unwrap();
    assert_eq!(regs.rip, 0x100_0200);
    assert_eq!(u32_at(&ram, 0x100_0200), 0x0302_0100);
    assert_eq!(regs.rsi, BOOT_PARAMS);
    // Fields at the offsets that boot.rst gives.
    assert_eq!(u64_at(&ram, BOOT_PARAMS + 0x70), 0xe_0000);
    assert_eq!(u32_at(&ram, BOOT_PARAMS + 0x202), 0x5372_6448);
    assert_eq!(u32_at(&ram, BOOT_PARAMS + 0x210) & 0xff, 0xff);
    let at = u64::from(u32_at(&ram, BOOT_PARAMS + 0x218));
    assert_eq!(u32_at(&ram, BOOT_PARAMS + 0x21c), 5000);
    assert!(
        at.is_multiple_of(4096) && at + 5000 <= 64 << 20 && at + 3 * 4096 > 64 << 20,
        "{at:#x}"
    );
    assert_eq!(u32_at(&ram, at), 0x0707_0707);
    let mut line = [0; 28];
    assert!(ram.read(u64::from(u32_at(&ram, BOOT_PARAMS + 0x228)), &mut line));
    assert_eq!(&line, b"console=ttyS0 root=/dev/vda\0");
}

#[test]
fn the_memory_map_has_all_ram_and_no_hole() {
    let ram = GuestRam::new(HOLE_START + (1 << 30)).unwrap();
    let map = params::memory_map(&ram);
    assert!(map.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "{map:x?}");
    assert_eq!(map[3], (0x10_0000, HOLE_START - 0x10_0000, 1));
    assert_eq!(map[4], (HOLE_END, 1 << 30, 1));
    load(&ram, &image(&fake_bzimage(0x1000), Some(&[1; 100]))).unwrap();
    assert_eq!(u32_at(&ram, BOOT_PARAMS + 0x1e8) & 0xff, 5);
    assert_eq!(u64_at(&ram, BOOT_PARAMS + 0x2d0 + 4 * 20), HOLE_END);
    assert!(u32_at(&ram, BOOT_PARAMS + 0x218) <= 0x7fff_ffff, "initrd_addr_max holds");
}

#[test]
fn page_tables_map_four_gib_onto_themselves() {
    let ram = GuestRam::new(64 << 20).unwrap();
    let regs = load(&ram, &image(&fake_bzimage(0x1000), None)).unwrap();
    for va in [0_u64, 0x100_0000, 0x8000_0000, 0xffe0_0000] {
        let pml4e = u64_at(&ram, regs.cr3 + (va >> 39) * 8);
        let pdpte = u64_at(&ram, (pml4e & !0xfff) + ((va >> 30) & 511) * 8);
        let pde = u64_at(&ram, (pdpte & !0xfff) + ((va >> 21) & 511) * 8);
        assert_eq!(pde, va | 0x83);
    }
    let mut state = CpuState::default();
    regs.apply(&mut state);
    assert!(state.is_64bit());
    assert_eq!((state.rip(), state.regs[RSI], state.cr3), (regs.rip, BOOT_PARAMS, regs.cr3));
}

#[test]
fn an_elf_kernel_is_loaded_by_segments() {
    let mut file = vec![0; 0x200];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16..20].copy_from_slice(&[2, 0, 62, 0]);
    file[24..32].copy_from_slice(&0x100_0010_u64.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..58].copy_from_slice(&[56, 0, 1, 0]);
    file[64..68].copy_from_slice(&1_u32.to_le_bytes());
    for (at, value) in [(72, 0x100_u64), (88, 0x100_0000), (96, 0x100), (104, 0x5000)] {
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    file[0x110] = 0x90;
    let ram = GuestRam::new(32 << 20).unwrap();
    let regs = load(&ram, &image(&file, None)).unwrap();
    assert_eq!(regs.rip, 0x100_0010);
    assert_eq!(u32_at(&ram, 0x100_0010), 0x90);
    file[96..104].copy_from_slice(&0x1000_u64.to_le_bytes());
    assert!(matches!(load(&ram, &image(&file, None)), Err(BootError::Damaged(_))));
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    let ram = GuestRam::new(8 << 20).unwrap();
    let err = load(&ram, &image(&fake_bzimage(0x1000), Some(&[0; 1 << 20]))).unwrap_err();
    assert_eq!(err, BootError::TooLittleMemory { needed: 19 << 20, have: 8 << 20 });
    assert!(err.to_string().contains("need 19 MiB"), "{err}");
}

#[test]
fn damaged_kernels_are_refused() {
    let ram = GuestRam::new(64 << 20).unwrap();
    let good = fake_bzimage(0x1000);
    for len in 0..good.len() {
        // What is left may still be a kernel if only code is missing; there must be no panic.
        let result = load(&ram, &image(&good[..len], None));
        assert!(result.is_err() || len > 0x600, "{len}");
    }
    let mut old = good.clone();
    old[0x206] = 0x0b;
    assert_eq!(load(&ram, &image(&old, None)), Err(BootError::TooOld { version: 0x20b }));
    let mut narrow = good.clone();
    narrow[0x236] = 0;
    assert_eq!(load(&ram, &image(&narrow, None)), Err(BootError::No64Bit));
    let line = "x".repeat(3000);
    let long = BootImage { cmdline: &line, ..image(&good, None) };
    assert_eq!(load(&ram, &long), Err(BootError::CmdlineTooLong { len: 3000, max: 2047 }));
    // Every header byte, to every extreme.
    for at in 0x1f1..0x280 {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut file = good.clone();
            file[at] = value;
            drop(load(&ram, &image(&file, None)));
        }
    }
}
