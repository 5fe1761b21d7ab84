//! Availability, alignment, unmasked exceptions, state images.

use super::super::fxsave::image;
use super::{DATA, cpu, decode, exec};
use crate::state::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, RSI};
use crate::{Cpu, Trap};
use iced_x86::{Decoder, DecoderOptions};

const ADDSD: &[u8] = &[0xf2, 0x0f, 0x58, 0xc1];
const PXOR: &[u8] = &[0x66, 0x0f, 0xef, 0xc1];
const PXOR_MM: &[u8] = &[0x0f, 0xef, 0xc1];
const DIVPD: &[u8] = &[0x66, 0x0f, 0x5e, 0xc1];
const MULSD: &[u8] = &[0xf2, 0x0f, 0x59, 0xc1];

#[test]
fn control_registers_decide_availability() {
    for (cr0, cr4, sse, mmx) in [
        (0, CR4_OSFXSR, Ok(()), Ok(())),
        (CR0_TS, CR4_OSFXSR, Err(Trap::NM), Err(Trap::NM)),
        (CR0_EM, CR4_OSFXSR, Err(Trap::UD), Err(Trap::UD)),
        (CR0_EM | CR0_TS, CR4_OSFXSR, Err(Trap::UD), Err(Trap::UD)),
        (0, 0, Err(Trap::UD), Ok(())),
        (CR0_TS, 0, Err(Trap::UD), Err(Trap::NM)),
    ] {
        let mut cpu = cpu();
        cpu.state.cr0 = cpu.state.cr0 & !(CR0_TS | CR0_EM) | cr0;
        cpu.state.cr4 = cpu.state.cr4 & !CR4_OSFXSR | cr4;
        for bytes in [PXOR, ADDSD, &[0x0f, 0xae, 0x16]] {
            assert_eq!(exec(&mut cpu, bytes), sse, "cr0 {cr0:#x} cr4 {cr4:#x}");
        }
        assert_eq!(exec(&mut cpu, PXOR_MM), mmx, "cr0 {cr0:#x} cr4 {cr4:#x}");
    }
}

#[test]
fn a_pending_x87_exception_stops_mmx_only() {
    let mut cpu = cpu();
    cpu.state.x87.status = 0x8081;
    let before = cpu.state.x87;
    assert_eq!(exec(&mut cpu, PXOR_MM), Err(Trap::MF));
    assert_eq!(exec(&mut cpu, &[0x0f, 0x77]), Err(Trap::MF));
    assert_eq!(cpu.state.x87, before);
    assert_eq!(exec(&mut cpu, PXOR), Ok(()));
}

#[test]
fn emms_empties_all_registers() {
    let mut cpu = cpu();
    cpu.state.x87.status = 5 << 11;
    assert_eq!(exec(&mut cpu, PXOR_MM), Ok(()));
    assert_eq!((cpu.state.x87.status, cpu.state.x87.tags), (0, 0xff));
    assert_eq!(cpu.state.x87.sign_exponent[0], 0xffff);
    assert_eq!(exec(&mut cpu, &[0x0f, 0x77]), Ok(()));
    assert_eq!(cpu.state.x87.tags, 0);
}

#[test]
fn alignment_is_demanded_where_the_architecture_does() {
    let general: Result<(), Trap> = Err(Trap::GP0);
    for (bytes, expected) in [
        (&[0x66, 0x0f, 0x6f, 0x06][..], general),     // movdqa load
        (&[0x66, 0x0f, 0x7f, 0x06], general),         // movdqa store
        (&[0x0f, 0x2b, 0x06], general),               // movntps
        (&[0x66, 0x0f, 0xef, 0x06], general),         // pxor
        (&[0x0f, 0x58, 0x06], general),               // addps
        (&[0x66, 0x0f, 0x2d, 0x06], general),         // cvtpd2pi
        (&[0x66, 0x0f, 0x38, 0x17, 0x06], general),   // ptest
        (&[0x0f, 0xae, 0x06], general),               // fxsave
        (&[0x0f, 0xae, 0x0e], general),               // fxrstor
        (&[0xf3, 0x0f, 0x6f, 0x06], Ok(())),          // movdqu
        (&[0x0f, 0x11, 0x06], Ok(())),                // movups store
        (&[0xf2, 0x0f, 0xf0, 0x06], Ok(())),          // lddqu
        (&[0xf2, 0x0f, 0x58, 0x06], Ok(())),          // addsd
        (&[0x66, 0x0f, 0x3a, 0x63, 0x06, 0], Ok(())), // pcmpistri
        (&[0x66, 0x0f, 0x38, 0x20, 0x06], Ok(())),    // pmovsxbw
    ] {
        let mut cpu = cpu();
        cpu.state.regs[RSI] = DATA + 8;
        assert_eq!(exec(&mut cpu, bytes), expected, "{:?}", decode(bytes).code());
        cpu.state.regs[RSI] = DATA;
        assert_eq!(exec(&mut cpu, bytes), Ok(()), "{:?}, aligned", decode(bytes).code());
    }
}

fn pair(low: f64, high: f64) -> u128 {
    u128::from(low.to_bits()) | u128::from(high.to_bits()) << 64
}

/// Runs `bytes` on XMM0 and XMM1; gives the outcome and the flags of MXCSR.
fn raise(bytes: &[u8], a: u128, b: u128, mxcsr: u32) -> (Result<u128, Trap>, u32) {
    let mut cpu = cpu();
    cpu.state.mxcsr = mxcsr;
    cpu.state.xmm[0] = a;
    cpu.state.xmm[1] = b;
    let done = exec(&mut cpu, bytes);
    if done.is_err() {
        assert_eq!(cpu.state.xmm[0], a, "the destination is untouched");
    }
    (done.map(|()| cpu.state.xmm[0]), cpu.state.mxcsr & 0x3f)
}

#[test]
fn unmasked_exceptions_are_raised_with_their_flags() {
    let xm = Err(Trap::XM);
    // Invalid in one lane, division by zero in the other, both found before anything is computed; the
    // inexact result of none counts.
    assert_eq!(raise(DIVPD, pair(0.0, 1.0), pair(0.0, 0.0), 0x1f00), (xm, 5));
    assert_eq!(raise(DIVPD, pair(1.0, 1.0), pair(3.0, 0.0), 0x1d80), (xm, 4));
    // Only masked ones occur: the result is written.
    assert_eq!(
        raise(DIVPD, pair(1.0, 4.0), pair(0.0, 2.0), 0x1f00),
        (Ok(pair(f64::INFINITY, 2.0)), 4)
    );
    // Inexact, overflow.
    assert_eq!(raise(DIVPD, pair(1.0, 4.0), pair(3.0, 2.0), 0x0f80), (xm, 0x20));
    assert_eq!(raise(MULSD, pair(1e300, 0.0), pair(1e300, 0.0), 0x1b80), (xm, 0x28));
    // A tiny result that is exact underflows only when that is not masked.
    let tiny = pair(f64::MIN_POSITIVE, 0.0);
    assert_eq!(raise(MULSD, tiny, pair(0.5, 0.0), 0x1780), (xm, 0x10));
    assert_eq!(raise(MULSD, tiny, pair(0.5, 0.0), 0x9780), (xm, 0x10));
    assert_eq!(
        raise(MULSD, tiny, pair(0.5, 0.0), 0x1f80),
        (Ok(pair(f64::MIN_POSITIVE / 2.0, 0.0)), 0)
    );
    // A denormal operand.
    assert_eq!(raise(ADDSD, pair(f64::from_bits(1), 0.0), pair(1.0, 0.0), 0x1e80), (xm, 2));
    // A sticky flag alone raises nothing.
    assert_eq!(raise(ADDSD, pair(1.0, 0.0), pair(2.0, 0.0), 0x003f), (Ok(pair(3.0, 0.0)), 0x3f));
}

#[test]
fn without_osxmmexcpt_they_are_invalid_opcodes() {
    let mut cpu = cpu();
    cpu.state.cr4 &= !CR4_OSXMMEXCPT;
    cpu.state.mxcsr = 0x1f00;
    cpu.state.xmm[0] = pair(0.0, 0.0);
    cpu.state.xmm[1] = pair(0.0, 0.0);
    assert_eq!(exec(&mut cpu, DIVPD), Err(Trap::UD));
}

#[test]
fn reserved_bits_of_mxcsr_are_refused() {
    let mut cpu = cpu();
    cpu.store(DATA, 0x1_0000u32).expect("mapped");
    assert_eq!(exec(&mut cpu, &[0x0f, 0xae, 0x16]), Err(Trap::GP0));
    cpu.store(DATA, 0xffffu32).expect("mapped");
    assert_eq!(exec(&mut cpu, &[0x0f, 0xae, 0x16]), Ok(()));
    assert_eq!(cpu.state.mxcsr, 0xffff);
    cpu.store(DATA + 24, 0x1_1f80u32).expect("mapped");
    let before = image(&cpu.state, true);
    assert_eq!(exec(&mut cpu, &[0x0f, 0xae, 0x0e]), Err(Trap::GP0));
    assert_eq!(image(&cpu.state, true), before, "nothing was restored");
}

fn filled() -> Cpu {
    let mut cpu = cpu();
    let s = &mut cpu.state;
    for i in 0..16 {
        s.xmm[i] = 0x0123_4567_89ab_cdef_0011_2233_4455_6600 + i as u128;
    }
    for i in 0..8 {
        s.x87.mantissa[i] = 0x8000_0000_0000_0000 + i as u64;
        s.x87.sign_exponent[i] = 0x3fff + i as u16;
    }
    s.x87.status = 3 << 11 | 0x4500;
    s.x87.control = 0x27f;
    s.x87.tags = 0x5a;
    s.x87.opcode = 0x123;
    s.x87.ip = 0x1_2345_6789;
    s.x87.dp = 0x2_3456_789a;
    s.mxcsr = 0x9fc0;
    cpu
}

#[test]
fn fxsave_and_fxrstor_are_inverse() {
    let mut cpu = filled();
    let before = cpu.state.clone();
    cpu.store(DATA + 416, 0x77u8).expect("mapped");
    assert_eq!(exec(&mut cpu, &[0x48, 0x0f, 0xae, 0x06]), Ok(()));
    // ST(0) is R3.
    assert_eq!(cpu.load::<u64>(DATA + 32), Ok(0x8000_0000_0000_0003));
    assert_eq!(cpu.load::<u32>(DATA + 28), Ok(0xffff), "MXCSR_MASK");
    assert_eq!(cpu.load::<u8>(DATA + 416), Ok(0x77), "left to software");
    cpu.state.xmm = [0; 16];
    cpu.state.x87 = crate::state::X87::default();
    cpu.state.mxcsr = 0x1f80;
    assert_eq!(exec(&mut cpu, &[0x48, 0x0f, 0xae, 0x0e]), Ok(()));
    assert_eq!(cpu.state.x87, before.x87);
    assert_eq!(cpu.state.xmm, before.xmm);
    assert_eq!(cpu.state.mxcsr, before.mxcsr);
}

#[test]
fn a_fault_in_fxsave_leaves_memory_alone() {
    let mut cpu = filled();
    // The image would cross into a page that is not mapped.
    let at = (DATA | 0xfff) - 0xff;
    cpu.state.regs[RSI] = at;
    assert!(exec(&mut cpu, &[0x0f, 0xae, 0x06]).is_err());
    for i in 0..256 {
        assert_eq!(cpu.load::<u8>(at + i), Ok(0));
    }
}

#[test]
fn a_masked_store_touches_chosen_bytes_only() {
    let mut cpu = cpu();
    let end = DATA | 0xfff;
    cpu.state.regs[crate::state::RDI] = end - 3;
    cpu.state.xmm[0] = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
    cpu.state.xmm[1] = 0x8000_80ff;
    assert_eq!(exec(&mut cpu, &[0x66, 0x0f, 0xf7, 0xc1]), Ok(()), "no fault behind the page");
    assert_eq!(cpu.load::<u32>(end - 3), Ok(0x0300_0100));
    cpu.state.xmm[1] = 0x80_0000_00ff;
    assert!(exec(&mut cpu, &[0x66, 0x0f, 0xf7, 0xc1]).is_err());
    assert_eq!(cpu.load::<u32>(end - 3), Ok(0x0300_0100));
}

#[test]
fn newer_extensions_are_not_selected() {
    for bytes in [
        &[0x66, 0x0f, 0x38, 0xdc, 0xc1][..], // aesenc
        &[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0],  // pclmulqdq
        &[0x0f, 0x38, 0xc8, 0xc1],           // sha1nexte
        &[0xc5, 0xf9, 0xef, 0xc1],           // vpxor
        &[0x66, 0x0f, 0x79, 0xc1],           // extrq
        &[0xf3, 0x0f, 0x2b, 0x06],           // movntss
        &[0x66, 0x0f, 0x38, 0xcf, 0xc1],     // gf2p8mulb
    ] {
        let ins = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
        assert!(super::select(&ins).is_none(), "{:?}", ins.code());
    }
}
