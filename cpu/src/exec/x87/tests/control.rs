//! Control instructions, pending exceptions and faults.

use super::super::ext::Ext;
use super::native::Model;
use crate::state::{CR0_EM, CR0_MP, CR0_TS, RAX};
use crate::{Cpu, Trap};
use iced_x86::{Decoder, DecoderOptions};

fn execute(cpu: &mut Cpu, bytes: &[u8]) -> Result<(), Trap> {
    let ins = Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode();
    let op = super::super::select(&ins).expect("an x87 instruction");
    (op.exec)(cpu, &op)
}

fn cpu() -> Cpu {
    let mut cpu = Model::new().cpu;
    cpu.state.regs[RAX] = 0x2000;
    cpu
}

const FLD1: [u8; 2] = [0xd9, 0xe8];
const FLDZ: [u8; 2] = [0xd9, 0xee];
const FLDPI: [u8; 2] = [0xd9, 0xeb];
const FDIVP: [u8; 2] = [0xde, 0xf9];
const WAIT: [u8; 1] = [0x9b];
const FNSTSW_AX: [u8; 2] = [0xdf, 0xe0];
const FNCLEX: [u8; 2] = [0xdb, 0xe2];
const FNSAVE: [u8; 2] = [0xdd, 0x30];
const FRSTOR: [u8; 2] = [0xdd, 0x20];
const FNSTENV: [u8; 2] = [0xd9, 0x30];
const FLDENV: [u8; 2] = [0xd9, 0x20];

#[test]
fn an_unmasked_exception_waits_for_the_next_instruction() {
    let mut cpu = cpu();
    cpu.state.x87.control = 0x37b;
    for code in [FLD1, FLDZ, FDIVP] {
        execute(&mut cpu, &code).expect("nothing pending before");
    }
    assert_eq!(cpu.state.x87.status & 0x80ff, 0x8084);
    assert_eq!(cpu.state.x87.tags.count_ones(), 2, "nothing popped");
    let before = cpu.state.x87;
    for code in [&WAIT[..], &FLD1, &[0xd9, 0xd0]] {
        assert_eq!(execute(&mut cpu, code), Err(Trap::MF));
    }
    assert_eq!(cpu.state.x87, before);
    execute(&mut cpu, &FNSTSW_AX).expect("does not wait");
    assert_eq!(cpu.state.regs[RAX] as u16, before.status);
    execute(&mut cpu, &FNCLEX).expect("does not wait");
    execute(&mut cpu, &WAIT).expect("cleared");
    cpu.state.regs[RAX] = 0x2000;
}

#[test]
fn ts_and_em_make_it_unavailable() {
    let mut cpu = cpu();
    for bit in [CR0_TS, CR0_EM] {
        cpu.state.cr0 |= bit;
        for code in [FLD1, FNSTSW_AX, FNSAVE, FNCLEX] {
            assert_eq!(execute(&mut cpu, &code), Err(Trap::NM));
        }
        cpu.state.cr0 &= !bit;
    }
    cpu.state.cr0 |= CR0_TS | CR0_MP;
    assert_eq!(execute(&mut cpu, &WAIT), Err(Trap::NM));
    cpu.state.cr0 &= !CR0_MP;
    assert_eq!(execute(&mut cpu, &WAIT), Ok(()));
}

#[test]
fn save_and_restore() {
    for prefix in [&[][..], &[0x66]] {
        let mut cpu = cpu();
        let with = |code: [u8; 2]| [prefix, &code].concat();
        for code in [FLD1, FLDPI, FLDZ] {
            execute(&mut cpu, &code).expect("room for it");
        }
        cpu.state.x87.control = 0x27e;
        let before = cpu.state.x87;
        execute(&mut cpu, &with(FNSAVE)).expect("RAM");
        assert_eq!(
            (cpu.state.x87.tags, cpu.state.x87.control, cpu.state.x87.status),
            (0, 0x37f, 0)
        );
        let width = if prefix.is_empty() { 4 } else { 2 };
        let tag_word: u16 = cpu.load(0x2000 + 2 * width).expect("RAM");
        assert_eq!(tag_word, 0b00_00_01_11_11_11_11_11, "R7 and R6 valid, R5 zero");
        execute(&mut cpu, &with(FRSTOR)).expect("RAM");
        assert_eq!(cpu.state.x87, before);
        execute(&mut cpu, &with(FNSTENV)).expect("RAM");
        assert_eq!(cpu.state.x87.control, 0x27f, "FNSTENV masks everything");
        cpu.state.x87.tags = 0;
        execute(&mut cpu, &with(FLDENV)).expect("RAM");
        assert_eq!(cpu.state.x87, before);
    }
}

#[test]
fn pointers_follow_instructions_that_compute() {
    let mut cpu = cpu();
    cpu.state.regs[crate::state::RIP] = 0x1002;
    execute(&mut cpu, &[0xd9, 0x00]).expect("RAM");
    assert_eq!((cpu.state.x87.ip, cpu.state.x87.dp), (0x1000, 0x2000));
    cpu.state.regs[crate::state::RIP] = 0x1012;
    execute(&mut cpu, &FLD1).expect("room for it");
    execute(&mut cpu, &FNCLEX).expect("always possible");
    assert_eq!((cpu.state.x87.ip, cpu.state.x87.dp), (0x1010, 0x2000));
}

#[test]
fn a_fault_leaves_the_stack_alone() {
    let mut cpu = cpu();
    execute(&mut cpu, &FLDPI).expect("room for it");
    // Paging with an empty root table: every access faults.
    cpu.state.cr3 = 0x8000;
    cpu.state.cr0 |= crate::state::CR0_PG;
    cpu.state_replaced();
    let before = cpu.state.x87;
    // FSTP m32, m64, m80, FISTP m16, FBSTP, FLD m32, FADD m32, FNSAVE, FNSTENV.
    let codes = [
        [0xd9, 0x18],
        [0xdd, 0x18],
        [0xdb, 0x38],
        [0xdf, 0x18],
        [0xdf, 0x30],
        [0xd9, 0x00],
        [0xd8, 0x00],
        FNSAVE,
        FNSTENV,
    ];
    for code in codes {
        let fault = execute(&mut cpu, &code).expect_err("nothing is mapped");
        assert_eq!(fault.vector(), 14);
        assert_eq!(cpu.state.x87, before, "{code:02x?}");
    }
    assert_ne!(before.mantissa[7], Ext::ZERO.sig);
}
