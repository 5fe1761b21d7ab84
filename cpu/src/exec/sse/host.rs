//! The host's SSE2 unit, run under a given MXCSR.
//!
//! Every function takes an MXCSR with all exceptions masked and all flags clear, and gives the result with
//! the flags that the operation raised.
#![allow(unsafe_code)]
// Reason: the compiler assumes the default MXCSR everywhere, so the guest's rounding and flushing may only
// be in force inside one asm block. Obligation: each block loads the given MXCSR, executes one SSE2
// instruction on registers, stores the flags and loads the default again; exceptions are masked in
// what it loads, so nothing can be raised on the host; it touches no memory but the two control words.

use super::lanes::{from_m, to_m};
use std::arch::asm;

/// MXCSR as Rust code expects it.
const DEFAULT: u32 = 0x1f80;

/// Instructions `name destination, source` on vector registers.
macro_rules! binary {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), " a, b`: the new `a`, and the flags.")]
        #[inline(always)]
        pub fn $name(a: u128, b: u128, mxcsr: u32) -> (u128, u32) {
            let mut words = [mxcsr, DEFAULT];
            let mut value = to_m(a);
            // SAFETY: see the module's head.
            unsafe {
                asm!(
                    "ldmxcsr [{w}]",
                    concat!(stringify!($name), " {a}, {b}"),
                    "stmxcsr [{w}]",
                    "ldmxcsr [{w} + 4]",
                    a = inout(xmm_reg) value,
                    b = in(xmm_reg) to_m(b),
                    w = in(reg) &raw mut words,
                    options(nostack, preserves_flags)
                );
            }
            (from_m(value), words[0] & 0x3f)
        }
    )*};
}

binary! {
    addps addpd addss addsd subps subpd subss subsd mulps mulpd mulss mulsd divps divpd divss divsd
    minps minpd minss minsd maxps maxpd maxss maxsd sqrtps sqrtpd sqrtss sqrtsd
    cvtps2pd cvtpd2ps cvtss2sd cvtsd2ss cvtdq2ps cvtps2dq cvttps2dq cvtpd2dq cvttpd2dq cvtdq2pd
}

/// Comparisons by a predicate, with an immediate of 0 to 7.
macro_rules! compare {
    ($($name:ident $with:ident)*) => {$(
        #[inline(always)]
        fn $with<const P: u8>(a: u128, b: u128, mxcsr: u32) -> (u128, u32) {
            let mut words = [mxcsr, DEFAULT];
            let mut value = to_m(a);
            // SAFETY: see the module's head.
            unsafe {
                asm!(
                    "ldmxcsr [{w}]",
                    concat!(stringify!($name), " {a}, {b}, {p}"),
                    "stmxcsr [{w}]",
                    "ldmxcsr [{w} + 4]",
                    a = inout(xmm_reg) value,
                    b = in(xmm_reg) to_m(b),
                    p = const P,
                    w = in(reg) &raw mut words,
                    options(nostack, preserves_flags)
                );
            }
            (from_m(value), words[0] & 0x3f)
        }

        #[doc = concat!("`", stringify!($name), " a, b, imm`; only the low three bits of `imm` count.")]
        pub fn $name(a: u128, b: u128, imm: u8, mxcsr: u32) -> (u128, u32) {
            match imm & 7 {
                0 => $with::<0>(a, b, mxcsr),
                1 => $with::<1>(a, b, mxcsr),
                2 => $with::<2>(a, b, mxcsr),
                3 => $with::<3>(a, b, mxcsr),
                4 => $with::<4>(a, b, mxcsr),
                5 => $with::<5>(a, b, mxcsr),
                6 => $with::<6>(a, b, mxcsr),
                _ => $with::<7>(a, b, mxcsr),
            }
        }
    )*};
}

compare! { cmpps cmpps_p cmppd cmppd_p cmpss cmpss_p cmpsd cmpsd_p }

/// Comparisons into EFLAGS: (ZF, PF, CF) as bits 6, 2, 0.
macro_rules! to_flags {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), " a, b`: ZF, PF, CF in their places in EFLAGS.")]
        #[inline(always)]
        pub fn $name(a: u128, b: u128, mxcsr: u32) -> (u64, u32) {
            let mut words = [mxcsr, DEFAULT];
            let (z, p, c): (u8, u8, u8);
            // SAFETY: see the module's head.
            unsafe {
                asm!(
                    "ldmxcsr [{w}]",
                    concat!(stringify!($name), " {a}, {b}"),
                    "setz {z}",
                    "setp {p}",
                    "setc {c}",
                    "stmxcsr [{w}]",
                    "ldmxcsr [{w} + 4]",
                    a = in(xmm_reg) to_m(a),
                    b = in(xmm_reg) to_m(b),
                    z = out(reg_byte) z,
                    p = out(reg_byte) p,
                    c = out(reg_byte) c,
                    w = in(reg) &raw mut words,
                    options(nostack)
                );
            }
            (u64::from(z) << 6 | u64::from(p) << 2 | u64::from(c), words[0] & 0x3f)
        }
    )*};
}

to_flags! { comiss comisd ucomiss ucomisd }

/// Conversions to a general register.
macro_rules! to_integer {
    ($($name:ident $ins:literal $reg:literal;)*) => {$(
        #[doc = concat!("`", $ins, "` into a register of the width that the name says, zero-extended.")]
        #[inline(always)]
        pub fn $name(b: u128, mxcsr: u32) -> (u64, u32) {
            let mut words = [mxcsr, DEFAULT];
            let value: u64;
            // SAFETY: see the module's head.
            unsafe {
                asm!(
                    "ldmxcsr [{w}]",
                    concat!($ins, " {r", $reg, "}, {b}"),
                    "stmxcsr [{w}]",
                    "ldmxcsr [{w} + 4]",
                    r = out(reg) value,
                    b = in(xmm_reg) to_m(b),
                    w = in(reg) &raw mut words,
                    options(nostack, preserves_flags)
                );
            }
            (value, words[0] & 0x3f)
        }
    )*};
}

/// Conversions from a general register.
macro_rules! from_integer {
    ($($name:ident $ins:literal $reg:literal;)*) => {$(
        #[doc = concat!("`", $ins, "` from a register of the width that the name says.")]
        #[inline(always)]
        pub fn $name(a: u128, b: u64, mxcsr: u32) -> (u128, u32) {
            let mut words = [mxcsr, DEFAULT];
            let mut value = to_m(a);
            // SAFETY: see the module's head.
            unsafe {
                asm!(
                    "ldmxcsr [{w}]",
                    concat!($ins, " {a}, {r", $reg, "}"),
                    "stmxcsr [{w}]",
                    "ldmxcsr [{w} + 4]",
                    a = inout(xmm_reg) value,
                    r = in(reg) b,
                    w = in(reg) &raw mut words,
                    options(nostack, preserves_flags)
                );
            }
            (from_m(value), words[0] & 0x3f)
        }
    )*};
}

to_integer! {
    cvtss2si32 "cvtss2si" ":e";
    cvtss2si64 "cvtss2si" ":r";
    cvtsd2si32 "cvtsd2si" ":e";
    cvtsd2si64 "cvtsd2si" ":r";
    cvttss2si32 "cvttss2si" ":e";
    cvttss2si64 "cvttss2si" ":r";
    cvttsd2si32 "cvttsd2si" ":e";
    cvttsd2si64 "cvttsd2si" ":r";
}

from_integer! {
    cvtsi2ss32 "cvtsi2ss" ":e";
    cvtsi2ss64 "cvtsi2ss" ":r";
    cvtsi2sd64 "cvtsi2sd" ":r";
}
