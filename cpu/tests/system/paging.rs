//! Page faults and their codes, accessed and dirty bits, the TLB.

use crate::guest::*;
use ft_pair_cpu::state::{CR0_WP, CR4_PGE, CR4_SMAP, CR4_SMEP, EFER_NXE, RAX, RBX, RCX, RIP};

/// MOV RAX, [abs32].
fn read(at: u64) -> Vec<u8> {
    [&[0x48, 0x8b, 0x04, 0x25][..], &(at as u32).to_le_bytes()].concat()
}

/// MOV [abs32], RAX.
fn write(at: u64) -> Vec<u8> {
    [&[0x48, 0x89, 0x04, 0x25][..], &(at as u32).to_le_bytes()].concat()
}

/// INVLPG [abs32].
fn invlpg(at: u64) -> Vec<u8> {
    [&[0x0f, 0x01, 0x3c, 0x25][..], &(at as u32).to_le_bytes()].concat()
}

/// JMP to an absolute address from RBX.
const JMP_RBX: [u8; 2] = [0xff, 0xe3];
const HLT: [u8; 1] = [0xf4];

#[track_caller]
fn page_fault(guest: &mut Guest, address: u64, code: u64) {
    let rip = guest.state().rip();
    let frame = guest.expect(14);
    assert_eq!(frame.code, Some(code), "error code");
    assert_eq!(guest.state().cr2, address);
    assert_eq!(frame.rip, rip);
    assert_ne!(frame.rflags & 1 << 16, 0, "RF is set in the image of a fault");
}

#[test]
fn pages_that_are_not_present() {
    for (code, wanted) in [(read(DATA), 0), (write(DATA), 2)] {
        let mut guest = Guest::new(&code);
        guest.write64(Guest::pte(DATA), DATA | W);
        page_fault(&mut guest, DATA, wanted);
    }
    for (code, wanted) in [(read(USER_DATA), 4), (write(USER_DATA), 6)] {
        let mut guest = Guest::user(&code);
        guest.write64(Guest::pte(USER_DATA), 0);
        page_fault(&mut guest, USER_DATA, wanted);
    }
    // Not present at a higher level.
    let mut guest = Guest::new(&read(0x40_0000));
    page_fault(&mut guest, 0x40_0000, 0);
}

#[test]
fn write_protection_follows_wp() {
    let mut guest = Guest::new(&write(DATA));
    guest.write64(Guest::pte(DATA), DATA | P);
    page_fault(&mut guest, DATA, 3);

    let mut guest = Guest::new(&[write(DATA), HLT.to_vec()].concat());
    guest.write64(Guest::pte(DATA), DATA | P);
    guest.state().cr0 &= !CR0_WP;
    guest.expect_halt();

    let mut guest = Guest::user(&write(USER_DATA));
    guest.write64(Guest::pte(USER_DATA), USER_DATA | P | U);
    page_fault(&mut guest, USER_DATA, 7);

    // One level without W is enough.
    let alias = 0x40_0000 + DATA;
    let mut guest = Guest::new(&write(alias));
    guest.write64(PD + 16, PT | P | U);
    page_fault(&mut guest, alias, 3);
}

#[test]
fn user_code_does_not_reach_supervisor_pages() {
    page_fault(&mut Guest::user(&read(DATA)), DATA, 5);
    page_fault(&mut Guest::user(&write(DATA)), DATA, 7);
    let mut guest = Guest::user(&JMP_RBX);
    guest.state().regs[RBX] = DATA;
    let frame = guest.expect(14);
    assert_eq!((frame.code, frame.rip), (Some(0x15), DATA));
}

#[test]
fn execution_is_denied_by_nx_and_smep() {
    let mut guest = Guest::new(&JMP_RBX);
    guest.state().regs[RBX] = DATA;
    guest.write64(Guest::pte(DATA), DATA | P | NX);
    assert_eq!(guest.expect(14).code, Some(0x11));

    let mut guest = Guest::new(&JMP_RBX);
    guest.state().regs[RBX] = USER_CODE;
    guest.state().cr4 |= CR4_SMEP;
    assert_eq!(guest.expect(14).code, Some(0x11));

    let mut guest = Guest::new(&JMP_RBX);
    guest.state().regs[RBX] = USER_CODE;
    guest.bytes(USER_CODE, &HLT);
    guest.expect_halt();

    // Without EFER.NXE the bit is reserved.
    let mut guest = Guest::new(&read(DATA));
    guest.write64(Guest::pte(DATA), DATA | P | NX);
    guest.state().efer &= !EFER_NXE;
    page_fault(&mut guest, DATA, 9);
}

#[test]
fn reserved_bits() {
    for bit in [40, 45, 51] {
        let mut guest = Guest::new(&read(DATA));
        guest.write64(Guest::pte(DATA), DATA | P | 1 << bit);
        page_fault(&mut guest, DATA, 9);
    }
    let mut guest = Guest::new(&write(0x20_0000));
    guest.write64(PD + 8, 0x20_0000 | P | W | PS | 1 << 13);
    page_fault(&mut guest, 0x20_0000, 0xb);
    let mut guest = Guest::new(&read(0x4000_0000));
    guest.write64(PDPT + 8, P | W | PS | 1 << 29);
    page_fault(&mut guest, 0x4000_0000, 9);
    let mut guest = Guest::new(&read(1 << 39));
    guest.bytes(CODE, &[0x48, 0x8b, 0x03]);
    guest.state().regs[RBX] = 1 << 39;
    guest.write64(PML4 + 8, PDPT | P | PS);
    page_fault(&mut guest, 1 << 39, 9);
    // A table outside RAM reads as all ones.
    let mut guest = Guest::new(&read(0x60_0000));
    guest.write64(PD + 24, 0x8000_0000 | P | W);
    page_fault(&mut guest, 0x60_0000, 9);
}

#[test]
fn smap_and_ac() {
    for (code, wanted) in [(read(USER_DATA), 1), (write(USER_DATA), 3)] {
        let mut guest = Guest::new(&code);
        guest.state().cr4 |= CR4_SMAP;
        page_fault(&mut guest, USER_DATA, wanted);
    }
    let stac = [0x0f, 0x01, 0xcb];
    let clac = [0x0f, 0x01, 0xca];
    let code = [&stac[..], &read(USER_DATA), &write(USER_DATA), &clac, &read(USER_DATA)].concat();
    let mut guest = Guest::new(&code);
    guest.state().cr4 |= CR4_SMAP;
    let frame = guest.expect(14);
    assert_eq!((frame.code, frame.rip), (Some(1), CODE + 3 + 8 + 8 + 3));
}

#[test]
fn accessed_and_dirty_bits() {
    let mut guest =
        Guest::new(&[read(DATA), write(DATA), read(0x20_0000), write(0x20_0000)].concat());
    guest.step(1);
    for entry in [PML4, PDPT, PD] {
        assert_eq!(guest.read64(entry) & (A | D), A);
    }
    assert_eq!(guest.read64(Guest::pte(DATA)) & (A | D), A);
    guest.step(1);
    assert_eq!(guest.read64(Guest::pte(DATA)) & (A | D), A | D);
    guest.step(1);
    assert_eq!(guest.read64(PD + 8) & (A | D), A);
    guest.step(1);
    assert_eq!(guest.read64(PD + 8) & (A | D), A | D);
    assert_eq!(guest.read64(PD) & D, 0, "only the last level has a dirty bit");
    guest.ram.take_dirty();
    guest.write64(Guest::pte(DATA), DATA | P | W);
    guest.ram.take_dirty();
    guest.cpu.dirty_marks_cleared();
    guest.cpu.flush_tlb();
    guest.state().regs[RIP] = CODE;
    guest.step(1);
    assert_eq!(guest.ram.take_dirty(), [4], "an update of a page table dirties its page");
}

#[test]
fn a_failed_access_leaves_the_bits() {
    let mut guest = Guest::new(&write(DATA));
    guest.write64(Guest::pte(DATA), DATA | P);
    guest.expect(14);
    assert_eq!(guest.read64(Guest::pte(DATA)), DATA | P);
}

/// MOV RBX, RAX and MOV RCX, RAX.
const RBX_RAX: [u8; 3] = [0x48, 0x89, 0xc3];
const RCX_RAX: [u8; 3] = [0x48, 0x89, 0xc1];

#[test]
fn stale_translations_last_until_invlpg() {
    let other = DATA + 0x1000;
    let code = [&read(DATA)[..], &read(DATA), &RBX_RAX, &invlpg(DATA), &read(DATA), &HLT].concat();
    let mut guest = Guest::new(&code);
    guest.write64(DATA, 1);
    guest.write64(other, 2);
    guest.step(1);
    guest.write64(Guest::pte(DATA), other | P | W);
    guest.expect_halt();
    assert_eq!((guest.state().regs[RBX], guest.state().regs[RAX]), (1, 2));
}

#[test]
fn invlpg_of_one_address_drops_a_large_page() {
    let code = [&read(0x20_0000)[..], &invlpg(0x3f_f000), &read(0x20_0000), &HLT].concat();
    let mut guest = Guest::new(&code);
    guest.write64(0x20_0000, 1);
    guest.write64(0x40_0000, 2);
    guest.step(1);
    guest.write64(PD + 8, 0x40_0000 | P | W | PS);
    guest.expect_halt();
    assert_eq!(guest.state().regs[RAX], 2);
}

#[test]
fn global_pages_survive_a_load_of_cr3() {
    // MOV RDX, CR3; MOV CR3, RDX
    let reload = [0x0f, 0x20, 0xda, 0x0f, 0x22, 0xda];
    // MOV RDX, CR4; XOR DL, 0x80; MOV CR4, RDX
    let toggle = [0x0f, 0x20, 0xe2, 0x80, 0xf2, 0x80, 0x0f, 0x22, 0xe2];
    let other = DATA + 0x1000;
    let code =
        [&read(DATA)[..], &reload, &read(DATA), &RBX_RAX, &toggle, &read(DATA), &RCX_RAX, &HLT]
            .concat();
    for global in [false, true] {
        let mut guest = Guest::new(&code);
        guest.state().cr4 |= CR4_PGE;
        let bits = P | W | if global { G } else { 0 };
        guest.write64(DATA, 1);
        guest.write64(other, 2);
        guest.write64(Guest::pte(DATA), DATA | bits);
        guest.step(1);
        guest.write64(Guest::pte(DATA), other | bits);
        guest.expect_halt();
        assert_eq!(guest.state().regs[RBX], if global { 1 } else { 2 });
        assert_eq!(guest.state().regs[RCX], 2);
    }
}

#[test]
fn a_gigabyte_page_maps_all_of_it() {
    let mut guest = Guest::new(&[read(0x4000_0000 + USER_DATA + 8), HLT.to_vec()].concat());
    guest.write64(USER_DATA + 8, 77);
    guest.expect_halt();
    assert_eq!(guest.state().regs[RAX], 77);
}

#[test]
fn non_canonical_addresses() {
    // MOV RAX, [RBX]
    let mut guest = Guest::new(&[0x48, 0x8b, 0x03]);
    guest.state().regs[RBX] = 1 << 47;
    assert_eq!(guest.expect(13).code, Some(0));
    // PUSH RAX with a bad stack; the handler gets a good one by IST.
    let mut guest = Guest::new(&[0x50]);
    guest.set_gate(12, 0x8e, 1);
    guest.state().regs[ft_pair_cpu::state::RSP] = 1 << 47 | 16;
    assert_eq!(guest.expect(12).code, Some(0));
}

#[test]
fn a_store_across_pages_is_all_or_nothing() {
    let mut guest = Guest::new(&write(DATA + 0xffc));
    guest.state().regs[RAX] = u64::MAX;
    guest.write64(Guest::pte(DATA + 0x1000), 0);
    let frame = guest.expect(14);
    assert_eq!((frame.code, guest.state().cr2), (Some(2), DATA + 0x1000));
    assert_eq!(guest.read64(DATA + 0xff8), 0);
}

#[test]
fn an_instruction_fetch_across_pages_faults_at_the_second() {
    let mut guest = Guest::new(&JMP_RBX);
    guest.state().regs[RBX] = DATA + 0xffe;
    guest.bytes(DATA + 0xffe, &[0x48, 0x8b]);
    guest.write64(Guest::pte(DATA + 0x1000), 0);
    let frame = guest.expect(14);
    assert_eq!((frame.code, frame.rip), (Some(0x10), DATA + 0xffe));
    assert_eq!(guest.state().cr2, DATA + 0x1000);
}

#[test]
fn a_fault_forgets_the_translation_that_failed() {
    // Read (fills the TLB read-only), then write: faults; the page is then mapped elsewhere, writable.
    let code = [read(DATA), write(DATA)].concat();
    let mut guest = Guest::new(&code);
    guest.write64(DATA, 5);
    guest.write64(Guest::pte(DATA), DATA | P);
    guest.expect(14);
    let other = DATA + 0x1000;
    guest.write64(other, 6);
    guest.write64(Guest::pte(DATA), other | P | W);
    guest.state().regs[RIP] = CODE;
    guest.state().halted = false;
    guest.step(1);
    assert_eq!(guest.state().regs[RAX], 6);
}
