//! Delivery: stacks, gates, nested faults, traps, interrupts.

use crate::guest::*;
use ft_pair_cpu::Exit;
use ft_pair_cpu::flags::{IF, RF, TF};
use ft_pair_cpu::state::{RAX, RBX, RIP, RSP, SS};

const UD2: [u8; 2] = [0x0f, 0x0b];

#[test]
fn a_fault_in_the_supervisor_keeps_its_stack() {
    let mut guest = Guest::new(&UD2);
    guest.state().regs[RSP] = STACK - 3;
    let frame = guest.expect(6);
    assert_eq!(guest.state().regs[RSP], STACK - 16 - 40, "aligned to 16 before the frame");
    assert_eq!(
        frame,
        Frame {
            code: None,
            rip: CODE,
            cs: KERNEL_CS.into(),
            rflags: RF | 2,
            rsp: STACK - 3,
            ss: KERNEL_DS.into()
        }
    );
    assert_eq!(guest.state().retired, 2, "the delivery and the HLT");
}

#[test]
fn a_fault_in_user_code_switches_to_rsp0() {
    let mut guest = Guest::user(&[0xf4]);
    let frame = guest.expect(13);
    assert_eq!(guest.state().regs[RSP], STACK0 - 48);
    assert_eq!(frame.code, Some(0));
    assert_eq!((frame.cs, frame.ss, frame.rsp), (USER_CS.into(), USER_DS.into(), USER_STACK));
    let s = guest.state();
    assert_eq!((s.cpl, s.seg[SS].selector, s.flags.other & IF), (0, 0, 0));
}

#[test]
fn an_ist_stack_is_used_at_any_privilege() {
    for mut guest in [Guest::new(&UD2), Guest::user(&UD2)] {
        guest.set_gate(6, 0x8e, 1);
        guest.expect(6);
        assert_eq!(guest.state().regs[RSP], STACK_IST1 - 40);
    }
}

#[test]
fn trap_gates_keep_if() {
    let mut guest = Guest::user(&[0xcd, 0x40]);
    guest.set_gate(0x40, 0xef, 0);
    let frame = guest.expect(0x40);
    assert_eq!(frame.rip, USER_CODE + 2);
    assert_eq!(frame.rflags & RF, 0);
    assert!(guest.state().flags.has(IF));
}

#[test]
fn software_interrupts_check_the_gate() {
    let mut guest = Guest::user(&[0xcd, 0x40]);
    let frame = guest.expect(13);
    assert_eq!((frame.code, frame.rip), (Some(0x40 * 8 + 2), USER_CODE));
    // INT3 and INT n beyond the table.
    let mut guest = Guest::user(&[0xcc]);
    assert_eq!(guest.expect(13).code, Some(3 * 8 + 2));
    let mut guest = Guest::user(&[0xcc]);
    guest.set_gate(3, 0xee, 0);
    assert_eq!(guest.expect(3).rip, USER_CODE + 1);
    let mut guest = Guest::new(&[0xcd, 0x80]);
    guest.state().idtr.limit = 0x7ff;
    assert_eq!(guest.expect(13).code, Some(0x80 * 8 + 2));
    // INT1 checks no privilege.
    let mut guest = Guest::user(&[0xf1]);
    assert_eq!(guest.expect(1).rip, USER_CODE + 1);
}

#[test]
fn gates_that_are_wrong() {
    // Not present: #NP; for an exception the EXT bit is set.
    let mut guest = Guest::new(&UD2);
    guest.set_gate(6, 0x0e, 0);
    assert_eq!(guest.expect(11).code, Some(6 * 8 + 3));
    // Not an interrupt or trap gate.
    let mut guest = Guest::new(&UD2);
    guest.set_gate(6, 0x85, 0);
    assert_eq!(guest.expect(13).code, Some(6 * 8 + 3));
    // A handler in a data segment, or in 32-bit code.
    for selector in [KERNEL_DS, USER_CS32 & !3] {
        let mut guest = Guest::new(&UD2);
        guest.bytes(IDT + 6 * 16 + 2, &selector.to_le_bytes());
        assert_eq!(guest.expect(13).code, Some(u64::from(selector) | 1));
    }
}

#[test]
fn contributory_faults_make_a_double_fault() {
    // HLT in user mode: #GP, whose gate is not present: #NP, so #DF.
    let mut guest = Guest::user(&[0xf4]);
    guest.set_gate(13, 0x0e, 0);
    guest.set_gate(8, 0x8e, 1);
    let frame = guest.expect(8);
    assert_eq!((frame.code, frame.rip), (Some(0), USER_CODE));
    // #PF with its gate not present.
    let mut guest = Guest::user(&[0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0x70]);
    guest.set_gate(14, 0x0e, 0);
    assert_eq!(guest.expect(8).code, Some(0));
}

#[test]
fn a_page_fault_while_delivering() {
    // #GP, then #PF pushing its frame: handled as #PF.
    let mut guest = Guest::new(&[0x48, 0x8b, 0x03]);
    guest.state().regs[RBX] = 1 << 63;
    guest.state().regs[RSP] = DATA + 0x1000;
    guest.write64(Guest::pte(DATA), 0);
    guest.set_gate(14, 0x8e, 1);
    let frame = guest.expect(14);
    assert_eq!((frame.code, frame.rip), (Some(2), CODE));
    assert_eq!(guest.state().cr2, DATA + 0xff8);
    // #PF, then #PF: double fault, on a stack that works.
    let mut guest = Guest::new(&[0x50]);
    guest.state().regs[RSP] = DATA + 0x1000;
    guest.write64(Guest::pte(DATA), 0);
    guest.set_gate(8, 0x8e, 1);
    assert_eq!(guest.expect(8).rip, CODE);
    // And on one that does not: the CPU shuts down.
    guest = Guest::new(&[0x50]);
    guest.state().regs[RSP] = DATA + 0x1000;
    guest.write64(Guest::pte(DATA), 0);
    assert_eq!(guest.run(), Exit::Shutdown);
    assert_eq!(guest.run(), Exit::Shutdown);
}

#[test]
fn no_idt_is_a_triple_fault() {
    let mut guest = Guest::new(&UD2);
    guest.state().idtr.limit = 0;
    assert_eq!(guest.run(), Exit::Shutdown);
}

#[test]
fn a_stack_outside_the_tss_is_invalid() {
    let mut guest = Guest::user(&UD2);
    guest.state().tr.limit = 3;
    guest.set_gate(10, 0x8e, 0);
    // #TS for RSP0, then again for the handler of #TS: a double fault, a third: shutdown.
    assert_eq!(guest.run(), Exit::Shutdown);
}

#[test]
fn single_stepping() {
    // NOP; NOP with TF set: the trap comes behind the first.
    let mut guest = Guest::new(&[0x90, 0x90]);
    guest.state().flags.other |= TF;
    let frame = guest.expect(1);
    assert_eq!(frame.rip, CODE + 1);
    assert_ne!(frame.rflags & TF, 0);
    assert_eq!(frame.rflags & RF, 0);
    assert!(!guest.state().flags.has(TF));
    assert_ne!(guest.state().dr[6] & 1 << 14, 0);
    // POPFQ that sets TF: the trap comes behind the instruction after it.
    let mut guest = Guest::new(&[0x68, 0x02, 0x01, 0, 0, 0x9d, 0x90, 0x90]);
    assert_eq!(guest.expect(1).rip, CODE + 7);
    // POPFQ that clears it is still followed by a trap.
    let mut guest = Guest::new(&[0x9d]);
    guest.state().flags.other |= TF;
    guest.write64(STACK, 2);
    let frame = guest.expect(1);
    assert_eq!((frame.rip, frame.rflags & TF), (CODE + 1, 0));
    // INT n: no trap, the handler runs with TF clear.
    let mut guest = Guest::new(&[0xcd, 0x40]);
    guest.state().flags.other |= TF;
    assert_ne!(guest.expect(0x40).rflags & TF, 0);
    // MOV SS holds the trap off until behind the next instruction.
    let mut guest = Guest::new(&[0x8e, 0xd0, 0x90]);
    guest.state().regs[RAX] = KERNEL_DS.into();
    guest.state().flags.other |= TF;
    assert_eq!(guest.expect(1).rip, CODE + 3);
}

#[test]
fn sti_holds_interrupts_off_for_one_instruction() {
    // STI; NOP; NOP
    let mut guest = Guest::new(&[0xfb, 0x90, 0x90]);
    guest.machine.interrupts.push_back(0x40);
    assert_eq!(guest.expect(0x40).rip, CODE + 2);
    // With IF set already there is no shadow.
    let mut guest = Guest::new(&[0x90, 0xfb, 0x90]);
    guest.state().flags.other |= IF;
    guest.machine.interrupts.push_back(0x40);
    assert_eq!(guest.expect(0x40).rip, CODE);
    // The shadow survives a stop of the run loop.
    let mut guest = Guest::new(&[0xfb, 0x90, 0x90]);
    guest.step(1);
    guest.machine.interrupts.push_back(0x40);
    assert_eq!(guest.expect(0x40).rip, CODE + 2);
}

#[test]
fn mov_ss_holds_interrupts_off_for_one_instruction() {
    // OUT 0x80, AL (raises vector AL) with interrupts off; STI; MOV SS, EBX; NOP; NOP
    let mut guest = Guest::new(&[0xe6, 0x80, 0xfb, 0x8e, 0xd3, 0x90, 0x90]);
    guest.state().regs[RAX] = 0x40;
    guest.state().regs[RBX] = KERNEL_DS.into();
    assert_eq!(guest.expect(0x40).rip, CODE + 6);
}

#[test]
fn hlt_waits_for_an_interrupt() {
    // STI; HLT
    let mut guest = Guest::new(&[0xfb, 0xf4]);
    assert_eq!(guest.run(), Exit::Halted);
    assert_eq!(guest.state().rip(), CODE + 2);
    assert_eq!(guest.run(), Exit::Halted);
    assert_eq!(guest.state().retired, 2);
    guest.machine.interrupts.push_back(0x55);
    assert_eq!(guest.expect(0x55).rip, CODE + 2);
    // STI; HLT with the interrupt already pending: taken behind HLT.
    let mut guest = Guest::new(&[0xfb, 0xf4]);
    guest.machine.interrupts.push_back(0x55);
    assert_eq!(guest.expect(0x55).rip, CODE + 2);
}

#[test]
fn an_interrupt_comes_at_once_behind_the_port_that_raised_it() {
    let mut guest = Guest::user(&[0xe6, 0x80, 0x90, 0x90]);
    guest.state().flags.other |= 3 << 12;
    guest.state().regs[RAX] = 0x44;
    let frame = guest.expect(0x44);
    assert_eq!((frame.rip, frame.cs), (USER_CODE + 2, USER_CS.into()));
}

#[test]
fn returning_with_iretq() {
    // The handler of #UD becomes: ADD QWORD [RSP], 2; IRETQ
    let mut guest = Guest::user(&[0x0f, 0x0b, 0xf4]);
    guest.bytes(HANDLERS + 6 * 16, &[0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf]);
    assert_eq!(guest.expect(13).rip, USER_CODE + 2);
    let mut guest = Guest::new(&[0x0f, 0x0b, 0xf4]);
    guest.bytes(HANDLERS + 6 * 16, &[0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf]);
    guest.expect_halt();
    assert_eq!(guest.state().regs[RIP], CODE + 3);
    assert_eq!(guest.state().regs[RSP], STACK);
}
