//! Segment registers, descriptor tables, far control flow.

use crate::guest::*;
use ft_pair_cpu::state::{CS, DS, ES, FS, RAX, RBX, RCX, RSP, SS};

/// MOV DS, EAX / MOV SS, EAX / MOV FS, EAX
const MOV_DS: [u8; 2] = [0x8e, 0xd8];
const MOV_SS: [u8; 2] = [0x8e, 0xd0];
const MOV_FS: [u8; 2] = [0x8e, 0xe0];

fn with_selector(code: &[u8], selector: u16) -> Guest {
    let mut guest = Guest::new(&[code, &[0xf4]].concat());
    guest.state().regs[RAX] = selector.into();
    guest
}

#[test]
fn loading_data_segments() {
    let mut guest = with_selector(&MOV_DS, SPARE | 3);
    // Data, DPL 3, not yet accessed.
    guest.write64(GDT + u64::from(SPARE), flat(0xf2, 0xc));
    guest.expect_halt();
    assert_eq!(guest.state().seg[DS].selector, SPARE | 3);
    assert_eq!(guest.read64(GDT + u64::from(SPARE)), flat(0xf3, 0xc), "accessed");

    // A null selector gives an unusable segment with base 0.
    let mut guest = with_selector(&MOV_FS, 3);
    guest.state().seg[FS].base = 7;
    guest.expect_halt();
    let fs = guest.state().seg[FS];
    assert_eq!((fs.selector, fs.base, fs.attr), (3, 0, 0));

    // Beyond the table, in a table that is not there, a system descriptor, not enough privilege.
    for selector in [0x100, 0x0c, TSS_SELECTOR, KERNEL_DS | 3] {
        let mut guest = with_selector(&MOV_DS, selector);
        let frame = guest.expect(13);
        assert_eq!(frame.code, Some(u64::from(selector & !3)), "{selector:#x}");
        assert_eq!(guest.state().seg[DS].selector, KERNEL_DS);
    }
    let mut guest = with_selector(&MOV_DS, SPARE);
    guest.write64(GDT + u64::from(SPARE), flat(0x13, 0xc));
    assert_eq!(guest.expect(11).code, Some(SPARE.into()));
    // MOV CS does not exist.
    with_selector(&[0x8e, 0xc8], KERNEL_CS).expect(6);
}

#[test]
fn loading_the_stack_segment() {
    let mut guest = with_selector(&MOV_SS, 0);
    guest.expect_halt();
    assert_eq!(guest.state().seg[SS].selector, 0);
    assert_eq!(with_selector(&MOV_SS, USER_DS).expect(13).code, Some(0x20));
    assert_eq!(with_selector(&MOV_SS, KERNEL_CS).expect(13).code, Some(8));
    let mut guest = with_selector(&MOV_SS, SPARE);
    guest.write64(GDT + u64::from(SPARE), flat(0x13, 0xc));
    assert_eq!(guest.expect(12).code, Some(SPARE.into()));
    let mut guest = Guest::user(&MOV_SS);
    guest.state().regs[RAX] = 3;
    assert_eq!(guest.expect(13).code, Some(0), "no null SS at CPL 3");
}

#[test]
fn push_and_pop_of_segment_registers() {
    // PUSH FS; POP GS; HLT
    let mut guest = Guest::new(&[0x0f, 0xa0, 0x0f, 0xa9, 0xf4]);
    guest.expect_halt();
    assert_eq!(guest.state().regs[RSP], STACK);
    assert_eq!(guest.read64(STACK - 8), KERNEL_DS.into());
    // In 32-bit code: PUSH DS; POP ES; INT3
    let mut guest = Guest::compat(&[0x1e, 0x07, 0xcc]);
    guest.set_gate(3, 0xee, 0);
    assert_eq!(guest.expect(3).rsp, USER_STACK);
    assert_eq!(guest.state().seg[ES].selector, USER_DS);
}

#[test]
fn descriptor_table_registers() {
    // LGDT [RAX]; SGDT [RBX]; LIDT [RAX]; SIDT [RBX+16]; HLT
    let mut guest = Guest::new(&[
        0x0f, 0x01, 0x10, 0x0f, 0x01, 0x03, 0x0f, 0x01, 0x18, 0x0f, 0x01, 0x4b, 0x10, 0xf4,
    ]);
    guest.bytes(DATA, &[0x34, 0x12, 0xef, 0xbe, 0xad, 0xde, 0xff, 0xff, 0xff, 0xff]);
    guest.state().regs[RAX] = DATA;
    guest.state().regs[RBX] = DATA + 0x100;
    guest.expect_halt();
    let s = guest.state();
    assert_eq!((s.gdtr.base, s.gdtr.limit), (0xffff_ffff_dead_beef, 0x1234));
    assert_eq!(s.gdtr, s.idtr);
    assert_eq!(guest.read64(DATA + 0x100), guest.read64(DATA));
    assert_eq!(guest.read64(DATA + 0x112), 0xffff_ffff_dead_beef);
}

#[test]
fn task_register_and_ldt() {
    // LTR AX; STR EBX; HLT
    let mut guest = with_selector(&[0x0f, 0x00, 0xd8, 0x0f, 0x00, 0xcb], TSS_SELECTOR);
    guest.write64(GDT + 0x30, 0x67 | TSS << 16 | 0x89 << 40);
    guest.write64(GDT + 0x38, 0xffff_8000);
    guest.expect_halt();
    let s = guest.state();
    assert_eq!((s.regs[RBX], s.tr.attr, s.tr.limit), (TSS_SELECTOR.into(), 0x8b, 0x67));
    assert_eq!(s.tr.base, 0xffff_8000_0000_0000 | TSS);
    assert_eq!(guest.read64(GDT + 0x30) >> 40 & 0xff, 0x8b, "busy");
    // A busy one is refused.
    let mut guest = with_selector(&[0x0f, 0x00, 0xd8], TSS_SELECTOR);
    assert_eq!(guest.expect(13).code, Some(TSS_SELECTOR.into()));
    // LLDT AX; MOV DS, ECX through the LDT.
    let mut guest = with_selector(&[0x0f, 0x00, 0xd0, 0x8e, 0xd9], SPARE);
    guest.write64(GDT + u64::from(SPARE), 0x0f | DATA << 16 | 0x82 << 40);
    guest.write64(DATA + 8, flat(0x93, 0xc));
    guest.state().regs[RCX] = 0x0c;
    guest.expect_halt();
    assert_eq!(guest.state().seg[DS].selector, 0x0c);
}

#[test]
fn far_returns_and_jumps() {
    // RETFQ to user code.
    let mut guest = Guest::new(&[0x48, 0xca, 8, 0]);
    for (i, v) in [USER_CODE, USER_CS.into(), 0, USER_STACK, USER_DS.into()].iter().enumerate() {
        guest.write64(STACK + 8 * i as u64, *v);
    }
    guest.step(1);
    let s = guest.state();
    assert_eq!((s.rip(), s.cpl, s.regs[RSP]), (USER_CODE, 3, USER_STACK + 8));
    assert_eq!((s.seg[CS].selector, s.seg[SS].selector), (USER_CS, USER_DS));
    assert_eq!((s.seg[DS].selector, s.seg[DS].attr), (0, 0), "inner data segments become null");

    // JMP FAR [RAX] (m16:32) within the supervisor.
    let mut guest = Guest::new(&[0xff, 0x28]);
    guest.bytes(DATA, &[0, 0, 7, 0, KERNEL_CS as u8, 0]);
    guest.bytes(DATA + 0x10, &[0xf4]);
    guest.state().regs[RAX] = DATA;
    guest.step(1);
    assert_eq!(guest.state().rip(), DATA);

    // CALL FAR [RAX] (m16:64) to the wrong privilege.
    let mut guest = Guest::new(&[0x48, 0xff, 0x18]);
    guest.bytes(DATA + 8, &USER_CS.to_le_bytes());
    guest.state().regs[RAX] = DATA;
    assert_eq!(guest.expect(13).code, Some(0x28));
}

#[test]
fn far_jumps_between_32_and_64_bit_user_code() {
    // 32-bit: JMP 0x2b:USER_CODE+0x10; there, in 64-bit code: INC EAX with REX.W; INT3
    let mut guest = Guest::compat(&[0xea, 0x10, 0, 0x10, 0, USER_CS as u8, 0]);
    guest.bytes(USER_CODE + 0x10, &[0x48, 0xff, 0xc0, 0xcc]);
    guest.set_gate(3, 0xee, 0);
    guest.state().regs[RAX] = 0xffff_ffff;
    let frame = guest.expect(3);
    assert_eq!((frame.cs, guest.state().regs[RAX]), (USER_CS.into(), 1 << 32));
}

#[test]
fn a_call_gate_leads_inward_and_retf_back() {
    // User: CALL FAR [RAX]; INT3. Supervisor: RETFQ.
    let mut guest = Guest::user(&[0xff, 0x18, 0xcc]);
    guest.bytes(CODE, &[0x48, 0xcb]);
    guest.set_gate(3, 0xee, 0);
    let gate = CODE & 0xffff | u64::from(KERNEL_CS) << 16 | 0xec << 40 | (CODE >> 16) << 48;
    guest.write64(GDT + u64::from(SPARE), gate);
    guest.bytes(USER_DATA, &[0, 0, 0, 0, SPARE as u8, 0]);
    guest.state().regs[RAX] = USER_DATA;
    guest.step(1);
    let s = guest.state();
    assert_eq!((s.rip(), s.cpl, s.regs[RSP]), (CODE, 0, STACK0 - 32));
    assert_eq!(s.seg[SS].selector, 0);
    let frame = guest.expect(3);
    assert_eq!((frame.rip, frame.rsp, frame.ss), (USER_CODE + 3, USER_STACK, USER_DS.into()));
}

#[test]
fn looking_at_descriptors() {
    // LAR EBX, EAX; LSL ECX, EAX; HLT
    let code = [0x0f, 0x02, 0xd8, 0x0f, 0x03, 0xc8];
    let mut guest = with_selector(&code, KERNEL_CS);
    guest.expect_halt();
    let s = guest.state();
    assert_eq!((s.regs[RBX], s.regs[RCX]), (0x00af_9b00, 0xffff_ffff));
    assert!(s.flags.zf());
    let mut guest = with_selector(&code, 0);
    guest.state().regs[RBX] = 5;
    guest.expect_halt();
    assert_eq!(guest.state().regs[RBX], 5);
    assert!(!guest.state().flags.zf());
    // VERR AX, VERW AX
    for (code, selector, wanted) in [
        ([0x0f, 0x00, 0xe0], KERNEL_CS, true),
        ([0x0f, 0x00, 0xe8], KERNEL_CS, false),
        ([0x0f, 0x00, 0xe8], KERNEL_DS, true),
        ([0x0f, 0x00, 0xe8], KERNEL_DS | 3, false),
        ([0x0f, 0x00, 0xe0], TSS_SELECTOR, false),
    ] {
        let mut guest = with_selector(&code, selector);
        guest.expect_halt();
        assert_eq!(guest.state().flags.zf(), wanted, "{code:x?} {selector:#x}");
    }
}

#[test]
fn segment_limits_hold_in_32_bit_code() {
    // MOV EAX, [0x1000]
    let mut guest = Guest::compat(&[0xa1, 0, 0x10, 0, 0]);
    guest.state().seg[DS].limit = 0x1002;
    assert_eq!(guest.expect(13).code, Some(0));
    let mut guest = Guest::compat(&[0xa1, 0, 0, 0, 0]);
    guest.state().seg[DS].attr = 0;
    assert_eq!(guest.expect(13).code, Some(0));
}
