//! System calls, changes of privilege and mode, I/O permissions, MSRs, CPUID.

use crate::guest::*;
use ft_pair_cpu::Exit;
use ft_pair_cpu::flags::{Flags, IF, TF};
use ft_pair_cpu::state::{
    CR4_FSGSBASE, CR4_TSD, CS, FS, GS, RAX, RBX, RCX, RDI, RDX, RIP, RSI, RSP, SS,
};

const R11: usize = 11;
const STAR: u64 = (0x18 << 48) | (0x08 << 32);
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const SYSRETQ: [u8; 3] = [0x48, 0x0f, 0x07];

#[test]
fn syscall_and_sysret() {
    let mut guest = Guest::user(&[&SYSCALL[..], &[0xf4]].concat());
    guest.bytes(CODE, &SYSRETQ);
    let s = guest.state();
    s.msrs.star = STAR;
    s.msrs.lstar = CODE;
    s.msrs.fmask = IF | TF;
    guest.step(1);
    let s = guest.state();
    assert_eq!((s.rip(), s.cpl, s.regs[RCX]), (CODE, 0, USER_CODE + 2));
    assert_eq!((s.seg[CS].selector, s.seg[SS].selector), (8, 16));
    assert!(!s.flags.has(IF));
    assert_ne!(s.regs[R11] & IF, 0);
    assert_eq!(s.regs[RSP], USER_STACK, "the stack stays");
    guest.step(1);
    let s = guest.state();
    assert_eq!((s.rip(), s.cpl), (USER_CODE + 2, 3));
    assert_eq!((s.seg[CS].selector, s.seg[SS].selector), (USER_CS, USER_DS));
    assert!(s.flags.has(IF));
    assert_eq!(guest.expect(13).rip, USER_CODE + 2);
}

#[test]
fn syscall_masks_the_single_step_trap_and_sysret_sets_it() {
    let mut guest = Guest::user(&SYSCALL);
    guest.bytes(CODE, &SYSRETQ);
    let s = guest.state();
    s.msrs.star = STAR;
    s.msrs.lstar = CODE;
    s.msrs.fmask = TF;
    s.flags.other |= TF;
    // Straight through the system call, #DB behind SYSRET.
    let frame = guest.expect(1);
    assert_eq!((frame.rip, frame.cs), (USER_CODE + 2, USER_CS.into()));
}

#[test]
fn sysret_checks_rcx_and_goes_to_32_bit_code() {
    let mut guest = Guest::new(&SYSRETQ);
    guest.state().regs[RCX] = 1 << 47;
    assert_eq!(guest.expect(13).code, Some(0));
    let mut guest = Guest::new(&SYSRETQ[1..]);
    guest.state().msrs.star = STAR;
    guest.state().regs[RCX] = USER_CODE;
    guest.step(1);
    assert_eq!(guest.state().seg[CS].selector, USER_CS32);
    assert!(!guest.state().is_64bit());
}

#[test]
fn system_calls_from_32_bit_code() {
    // SYSCALL does not exist in compatibility mode on Intel processors; SYSENTER does.
    let mut guest = Guest::compat(&SYSCALL);
    guest.expect(6);
    let mut guest = Guest::compat(&[0x0f, 0x34]);
    // SYSEXIT back.
    guest.bytes(CODE, &[0x0f, 0x35]);
    let s = guest.state();
    s.msrs.sysenter_cs = KERNEL_CS.into();
    s.msrs.sysenter_eip = CODE;
    s.msrs.sysenter_esp = STACK;
    guest.step(1);
    let s = guest.state();
    assert_eq!((s.rip(), s.regs[RSP], s.cpl, s.is_64bit()), (CODE, STACK, 0, true));
    assert!(!s.flags.has(IF));
    s.regs[RDX] = USER_CODE;
    s.regs[RCX] = USER_STACK;
    guest.step(1);
    let s = guest.state();
    assert_eq!((s.rip(), s.regs[RSP], s.cpl, s.is_64bit()), (USER_CODE, USER_STACK, 3, false));
    assert_eq!((s.seg[CS].selector, s.seg[SS].selector), (0x1b, 0x23));
    let mut guest = Guest::compat(&[0x0f, 0x34]);
    assert_eq!(guest.expect(13).code, Some(0), "no SYSENTER_CS");
}

#[test]
fn iretq_to_compatibility_mode() {
    // IRETQ to 32-bit code: INC EAX (a REX prefix in 64-bit code); INT 0x80
    let mut guest = Guest::new(&[0x48, 0xcf]);
    guest.bytes(USER_CODE, &[0x40, 0xcd, 0x80]);
    guest.set_gate(0x80, 0xee, 0);
    let rsp = STACK - 40;
    let image = [USER_CODE, USER_CS32.into(), 0x202, USER_STACK, USER_DS.into()];
    for (i, value) in image.into_iter().enumerate() {
        guest.write64(rsp + 8 * i as u64, value);
    }
    guest.state().regs[RSP] = rsp;
    guest.state().regs[RAX] = 41;
    let frame = guest.expect(0x80);
    assert_eq!(guest.state().regs[RAX], 42);
    assert_eq!((frame.rip, frame.cs), (USER_CODE + 3, USER_CS32.into()));
    assert_eq!((frame.rsp, frame.ss), (USER_STACK, USER_DS.into()));
}

#[test]
fn iretq_checks_what_it_loads() {
    let attempt = |change: fn(&mut [u64; 5])| {
        let mut guest = Guest::new(&[0x48, 0xcf]);
        let mut image = [USER_CODE, USER_CS.into(), 0x202, USER_STACK, USER_DS.into()];
        change(&mut image);
        for (i, value) in image.into_iter().enumerate() {
            guest.write64(STACK - 48 + 8 * i as u64, value);
        }
        guest.state().regs[RSP] = STACK - 48;
        let frame = guest.expect(13);
        assert_eq!((frame.rip, frame.rsp), (CODE, STACK - 48), "nothing has changed");
        frame.code
    };
    assert_eq!(attempt(|i| i[0] = 1 << 47), Some(0));
    assert_eq!(attempt(|i| i[1] = 0), Some(0));
    assert_eq!(attempt(|i| i[1] = KERNEL_DS.into()), Some(KERNEL_DS.into()));
    assert_eq!(attempt(|i| i[1] = 0x28), Some(0x28), "RPL 0 for a DPL 3 segment");
    assert_eq!(attempt(|i| i[4] = 0), Some(0), "no null SS at CPL 3");
    assert_eq!(attempt(|i| i[4] = KERNEL_DS.into()), Some(KERNEL_DS.into()));
    let mut guest = Guest::new(&[0x48, 0xcf]);
    guest.state().flags.other |= 1 << 14;
    assert_eq!(guest.expect(13).code, Some(0), "NT");
}

#[test]
fn user_code_cannot_execute_privileged_instructions() {
    let list: &[&[u8]] = &[
        &[0xf4],
        &[0xfa],
        &[0xfb],
        &[0x0f, 0x20, 0xc0],
        &[0x0f, 0x22, 0xc0],
        &[0x0f, 0x21, 0xc0],
        &[0x0f, 0x30],
        &[0x0f, 0x32],
        &[0x0f, 0x06],
        &[0x0f, 0x09],
        &[0x0f, 0x01, 0x38],
        &[0x0f, 0x01, 0xf8],
        &[0x0f, 0x01, 0x10],
        &[0x0f, 0x00, 0xd8],
        &[0xec],
        &[0xee],
        &[0x48, 0x0f, 0x07],
    ];
    for code in list {
        let mut guest = Guest::user(code);
        let frame = guest.expect(13);
        assert_eq!((frame.code, frame.rip), (Some(0), USER_CODE), "{code:x?}");
    }
    // STAC outside CPL 0 does not exist.
    Guest::user(&[0x0f, 0x01, 0xcb]).expect(6);
}

#[test]
fn leaving_long_mode_is_refused() {
    // MOV RAX, CR0; BTR EAX, 31; MOV CR0, RAX
    let mut guest = Guest::new(&[0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xf0, 31, 0x0f, 0x22, 0xc0]);
    assert_eq!(guest.expect(13).rip, CODE + 7);
    assert_eq!(guest.cpu.undefined.len(), 1);
    // MOV CR4 without PAE, with a feature that CPUID hides.
    for value in [0, 0x20 | 1 << 17, 0x20 | 1 << 12] {
        let mut guest = Guest::new(&[0x0f, 0x22, 0xe0]);
        guest.state().regs[RAX] = value;
        assert_eq!(guest.expect(13).code, Some(0));
    }
}

#[test]
fn the_io_permission_bitmap() {
    // IN AL, DX / IN EAX, DX
    let attempt = |code: &[u8], port: u64, deny: &[u8]| {
        let mut guest = Guest::user(&[code, &[0xcc]].concat());
        guest.set_gate(3, 0xee, 0);
        guest.state().regs[RDX] = port;
        guest.state().tr.limit = 0x68 + 32;
        guest.bytes(TSS + 0x66, &[0x68, 0]);
        guest.bytes(TSS + 0x68, deny);
        guest.run();
        guest.state().rip() == HANDLERS + 3 * 16 + 1
    };
    assert!(attempt(&[0xec], 0x21, &[0; 32]));
    assert!(!attempt(&[0xec], 0x21, &[0, 0, 0, 0, 0b10]));
    assert!(attempt(&[0xec], 0x22, &[0, 0, 0, 0, 0b10]));
    assert!(!attempt(&[0xed], 0x1f, &[0, 0, 0, 0, 0b10]), "32 bits across the byte");
    assert!(attempt(&[0xed], 0x1d, &[0, 0, 0, 0, 0b10]));
    assert!(!attempt(&[0xec], 0x100, &[0; 32]), "beyond the limit");
}

#[test]
fn ports() {
    // OUT 0x10, AL; OUT DX, AX; OUT DX, EAX; IN AL, 0x10; HLT
    let mut guest = Guest::new(&[0xe6, 0x10, 0x66, 0xef, 0xef, 0xe4, 0x10, 0xf4]);
    guest.state().regs[RAX] = 0xffff_ffff_1234_5678;
    guest.state().regs[RDX] = 0x3f8;
    guest.machine.port_value = 8;
    guest.expect_halt();
    assert_eq!(
        guest.machine.port_writes,
        [(0x10, 1, 0x78), (0x3f8, 2, 0x5678), (0x3f8, 4, 0x1234_5678)]
    );
    assert_eq!(guest.state().regs[RAX], 0xffff_ffff_1234_5609);
}

#[test]
fn repeated_string_io() {
    // REP OUTSB; REP INSW; HLT
    let mut guest = Guest::new(&[0xf3, 0x6e, 0xb9, 3, 0, 0, 0, 0x66, 0xf3, 0x6d, 0xf4]);
    guest.bytes(DATA, b"hello");
    let s = guest.state();
    (s.regs[RSI], s.regs[RDI], s.regs[RCX], s.regs[RDX]) = (DATA, DATA + 0x100, 5, 0x10);
    guest.expect_halt();
    let text: Vec<u8> = guest.machine.port_writes.iter().map(|w| w.2 as u8).collect();
    assert_eq!(text, b"hello");
    assert_eq!(guest.read64(DATA + 0x100), 0x0003_0002_0001);
    let s = guest.state();
    assert_eq!((s.regs[RSI], s.regs[RDI], s.regs[RCX], s.retired), (DATA + 5, DATA + 0x106, 0, 4));
    // A fault in the middle leaves what is done.
    let mut guest = Guest::new(&[0xf3, 0x6c]);
    let s = guest.state();
    (s.regs[RDI], s.regs[RCX], s.regs[RDX]) = (DATA + 0xffe, 5, 0x10);
    guest.write64(Guest::pte(DATA + 0x1000), 0);
    assert_eq!(guest.expect(14).rip, CODE);
    assert_eq!(guest.state().regs[RCX], 3);
    assert_eq!(guest.machine.port_value, 2, "no input was lost to the fault");
}

#[test]
fn fs_and_gs_bases() {
    // WRFSBASE RAX; SWAPGS; RDGSBASE RBX; MOV RCX, FS:[8]; HLT
    let code = [
        0xf3, 0x48, 0x0f, 0xae, 0xd0, 0x0f, 0x01, 0xf8, 0xf3, 0x48, 0x0f, 0xae, 0xcb, 0x64, 0x48,
        0x8b, 0x0c, 0x25, 8, 0, 0, 0, 0xf4,
    ];
    let mut guest = Guest::new(&code);
    guest.expect(6);
    let mut guest = Guest::new(&code);
    guest.write64(DATA + 8, 99);
    let s = guest.state();
    s.cr4 |= CR4_FSGSBASE;
    s.regs[RAX] = DATA;
    s.msrs.kernel_gs_base = 0xffff_8000_1234_5678;
    s.seg[GS].base = 5;
    guest.expect_halt();
    let s = guest.state();
    assert_eq!((s.regs[RBX], s.regs[RCX]), (0xffff_8000_1234_5678, 99));
    assert_eq!((s.seg[FS].base, s.msrs.kernel_gs_base), (DATA, 5));
    let mut guest = Guest::new(&code);
    guest.state().cr4 |= CR4_FSGSBASE;
    guest.state().regs[RAX] = 1 << 50;
    assert_eq!(guest.expect(13).code, Some(0));
}

#[test]
fn model_specific_registers() {
    let rdmsr = |msr: u64| {
        let mut guest = Guest::new(&[0x0f, 0x32, 0xf4]);
        guest.state().regs[RCX] = msr;
        guest.run();
        let s = guest.state();
        (s.rip() == CODE + 3).then_some(s.regs[RDX] << 32 | s.regs[RAX])
    };
    assert_eq!(rdmsr(0xc000_0080), Some(0xd01));
    assert_eq!(rdmsr(0x277), Some(0x0007_0406_0007_0406));
    assert_eq!(rdmsr(0x2ff), Some(0xc06));
    assert_eq!(rdmsr(0x10), Some(1000));
    assert_eq!(rdmsr(0x1234), None);

    let wrmsr = |msr: u64, value: u64| {
        let mut guest = Guest::new(&[0x0f, 0x30, 0xf4]);
        let s = guest.state();
        (s.regs[RCX], s.regs[RDX], s.regs[RAX]) = (msr, value >> 32, value & 0xffff_ffff);
        guest.run();
        let accepted = guest.state().rip() == CODE + 3;
        (accepted, guest)
    };
    assert!(wrmsr(0xc000_0080, 0xd00).0);
    assert!(!wrmsr(0xc000_0080, 0xc01).0, "LME stays");
    assert!(!wrmsr(0xc000_0082, 1 << 60).0, "LSTAR is canonical");
    assert!(!wrmsr(0x277, 2).0, "a memory type that does not exist");
    assert!(!wrmsr(0x10a, 0).0, "read-only");
    let (done, guest) = wrmsr(0xc000_0102, 0xffff_ffff_8000_0000);
    assert!(done);
    assert_eq!(guest.cpu.state.msrs.kernel_gs_base, 0xffff_ffff_8000_0000);
    let (done, guest) = wrmsr(0x4321, 0);
    assert!(!done);
    assert_eq!(guest.cpu.undefined.get("wrmsr 0x4321"), Some(&1));
}

#[test]
fn the_tsc_and_its_adjustment() {
    // WRMSR to the TSC, then RDTSC.
    let mut guest = Guest::new(&[0x0f, 0x30, 0x0f, 0x31, 0xf4]);
    let s = guest.state();
    (s.regs[RCX], s.regs[RAX], s.regs[RDX]) = (0x10, 5, 0);
    guest.expect_halt();
    assert_eq!(guest.state().regs[RAX], 6);
    assert_eq!(guest.state().msrs.tsc_adjust, 5u64.wrapping_sub(1000));
    // A deadline is handed to the machine in its own counting.
    let mut guest = Guest::new(&[0x0f, 0x30, 0x0f, 0x32, 0xf4]);
    let s = guest.state();
    s.msrs.tsc_adjust = 100;
    (s.regs[RCX], s.regs[RAX], s.regs[RDX]) = (0x6e0, 5000, 0);
    guest.expect_halt();
    assert_eq!((guest.machine.deadline, guest.state().regs[RAX]), (4900, 5000));
    // CR4.TSD.
    let mut guest = Guest::user(&[0x0f, 0x31]);
    guest.state().cr4 |= CR4_TSD;
    assert_eq!(guest.expect(13).code, Some(0));
}

#[test]
fn cpuid_names_the_model() {
    let leaf = |leaf: u64, subleaf: u64| {
        let mut guest = Guest::user(&[0x0f, 0xa2, 0xf4]);
        guest.state().regs[RAX] = leaf;
        guest.state().regs[RCX] = subleaf;
        guest.expect(13);
        let r = guest.state().regs;
        [r[RAX], r[RBX], r[RCX], r[RDX]].map(|v| u32::try_from(v).unwrap())
    };
    let [max, b, c, d] = leaf(0, 0);
    assert_eq!(max, 0x16);
    assert_eq!([b, d, c].map(u32::to_le_bytes).concat(), b"GenuineIntel");
    let brand: Vec<u8> =
        (2..5).flat_map(|i| leaf(0x8000_0000 + i, 0)).flat_map(u32::to_le_bytes).collect();
    assert!(brand.starts_with(b"ft-pair software CPU\0"));
    let [_, _, c, _] = leaf(1, 0);
    // SSE4.2 and POPCNT, but no XSAVE, AVX, AES, RDRAND, MONITOR, PCID.
    assert_eq!(c & (1 << 20 | 1 << 23), 1 << 20 | 1 << 23);
    assert_eq!(c & (1 << 26 | 1 << 28 | 1 << 25 | 1 << 30 | 1 << 3 | 1 << 17), 0);
    assert_eq!(leaf(0x15, 0), [1, 40, 25_000_000, 0]);
    assert_eq!(leaf(0x8000_0008, 0)[0], 0x3028);
    assert_eq!(leaf(7, 1), [0; 4]);
}

#[test]
fn hidden_instructions_do_not_exist() {
    // XGETBV, MONITOR, RDRAND
    for code in [&[0x0f, 0x01, 0xd0][..], &[0x0f, 0x01, 0xc8], &[0x0f, 0xc7, 0xf0]] {
        let mut guest = Guest::user(code);
        guest.expect(6);
        assert_eq!(guest.cpu.undefined.len(), 1, "{code:x?}");
    }
}

#[test]
fn cr8_is_the_task_priority() {
    // MOV CR8, RAX; MOV RBX, CR8; HLT
    let mut guest = Guest::new(&[0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3, 0xf4]);
    guest.state().regs[RAX] = 9;
    guest.expect_halt();
    assert_eq!((guest.machine.cr8, guest.state().regs[RBX]), (9, 9));
    let mut guest = Guest::new(&[0x44, 0x0f, 0x22, 0xc0]);
    guest.state().regs[RAX] = 16;
    assert_eq!(guest.expect(13).code, Some(0));
}

#[test]
fn debug_registers() {
    // MOV DR7, RAX; MOV RBX, DR7; MOV RCX, DR6; HLT
    let mut guest = Guest::new(&[0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xfb, 0x0f, 0x21, 0xf1, 0xf4]);
    guest.state().regs[RAX] = 0xffff_d801;
    guest.expect_halt();
    assert_eq!((guest.state().regs[RBX], guest.state().regs[RCX]), (0xffff_0401, 0xffff_0ff0));
    // General detect: the access faults, and the handler may use the registers.
    let mut guest = Guest::new(&[0x0f, 0x21, 0xc0]);
    guest.state().dr[7] |= 1 << 13;
    assert_eq!(guest.expect(1).rip, CODE);
    assert_eq!(guest.state().dr[7] & 1 << 13, 0);
    assert_ne!(guest.state().dr[6] & 1 << 13, 0);
}

#[test]
fn popf_in_user_mode_changes_neither_if_nor_iopl() {
    let mut guest = Guest::user(&[0x9d, 0xcc]);
    guest.set_gate(3, 0xee, 0);
    guest.write64(USER_STACK, 0x3002);
    assert_eq!(guest.expect(3).rflags & 0x3200, 0x200);
}

#[test]
fn a_run_stops_exactly_at_its_limit() {
    let mut guest = Guest::user(&[0x90; 32]);
    guest.step(7);
    assert_eq!(guest.state().regs[RIP], USER_CODE + 7);
    guest.state().flags = Flags::from_rflags(2);
    guest.step(3);
    assert_eq!(guest.state().regs[RIP], USER_CODE + 10);
    assert_ne!(guest.run(), Exit::Shutdown);
}
