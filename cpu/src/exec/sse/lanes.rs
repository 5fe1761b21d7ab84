//! Views of a 128-bit value as a vector register of the host and as arrays of lanes, and the integer
//! functions of lanes that the host computes.
#![allow(unsafe_code)]
// Reason: the safe ways between `u128` and `__m128i` go through general registers. Obligation: both sides of
// each transmute are plain 16-byte data in which every bit pattern is valid; lane 0 is the lowest since
// x86 is little-endian. Intrinsics used are of SSE2, which is part of x86-64, and take values only.

use std::arch::x86_64::*;
use std::mem::transmute;

macro_rules! views {
    ($($(#[$doc:meta])* $to:ident $from:ident $t:ty;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub const fn $to(value: u128) -> $t {
            // SAFETY: see the module's head.
            unsafe { transmute(value) }
        }

        /// The inverse.
        #[inline(always)]
        pub const fn $from(value: $t) -> u128 {
            // SAFETY: see the module's head.
            unsafe { transmute(value) }
        }
    )*};
}

views! {
    /// As an integer vector.
    to_m from_m __m128i;
    /// As signed bytes.
    to_i8 from_i8 [i8; 16];
    /// As words.
    to_u16 from_u16 [u16; 8];
    /// As signed words.
    to_i16 from_i16 [i16; 8];
    /// As doublewords.
    to_u32 from_u32 [u32; 4];
    /// As signed doublewords.
    to_i32 from_i32 [i32; 4];
    /// As quadwords.
    to_u64 from_u64 [u64; 2];
    /// As signed quadwords.
    to_i64 from_i64 [i64; 2];
}

/// As bytes.
#[inline(always)]
pub const fn to_u8(value: u128) -> [u8; 16] {
    value.to_le_bytes()
}

/// The inverse.
#[inline(always)]
pub const fn from_u8(value: [u8; 16]) -> u128 {
    u128::from_le_bytes(value)
}

/// Functions that apply another one lane by lane.
macro_rules! zips {
    ($($name:ident $to:ident $from:ident $t:ty;)*) => {$(
        /// Applies `f` to each pair of lanes.
        #[inline(always)]
        pub fn $name(a: u128, b: u128, f: impl Fn($t, $t) -> $t) -> u128 {
            let (a, b) = ($to(a), $to(b));
            $from(std::array::from_fn(|i| f(a[i], b[i])))
        }
    )*};
}

zips! {
    zip_i8 to_i8 from_i8 i8;
    zip_u16 to_u16 from_u16 u16;
    zip_i16 to_i16 from_i16 i16;
    zip_u32 to_u32 from_u32 u32;
    zip_i32 to_i32 from_i32 i32;
}

/// Functions that one SSE2 instruction of the host computes.
macro_rules! by_host {
    ($($name:ident $intrinsic:ident)*) => {$(
        #[doc = concat!("What `", stringify!($name), "` computes.")]
        #[inline(always)]
        pub fn $name(a: u128, b: u128) -> u128 {
            // SAFETY: every x86-64 host has SSE2; the intrinsic works on values only.
            from_m(unsafe { $intrinsic(to_m(a), to_m(b)) })
        }
    )*};
}

by_host! {
    paddb _mm_add_epi8 paddw _mm_add_epi16 paddd _mm_add_epi32 paddq _mm_add_epi64
    psubb _mm_sub_epi8 psubw _mm_sub_epi16 psubd _mm_sub_epi32 psubq _mm_sub_epi64
    paddsb _mm_adds_epi8 paddsw _mm_adds_epi16 paddusb _mm_adds_epu8 paddusw _mm_adds_epu16
    psubsb _mm_subs_epi8 psubsw _mm_subs_epi16 psubusb _mm_subs_epu8 psubusw _mm_subs_epu16
    pcmpeqb _mm_cmpeq_epi8 pcmpeqw _mm_cmpeq_epi16 pcmpeqd _mm_cmpeq_epi32
    pcmpgtb _mm_cmpgt_epi8 pcmpgtw _mm_cmpgt_epi16 pcmpgtd _mm_cmpgt_epi32
    pminub _mm_min_epu8 pmaxub _mm_max_epu8 pminsw _mm_min_epi16 pmaxsw _mm_max_epi16
    pavgb _mm_avg_epu8 pavgw _mm_avg_epu16
    pmullw _mm_mullo_epi16 pmulhw _mm_mulhi_epi16 pmulhuw _mm_mulhi_epu16
    pmuludq _mm_mul_epu32 pmaddwd _mm_madd_epi16 psadbw _mm_sad_epu8
    pand _mm_and_si128 pandn _mm_andnot_si128 por _mm_or_si128 pxor _mm_xor_si128
    punpcklbw _mm_unpacklo_epi8 punpcklwd _mm_unpacklo_epi16
    punpckldq _mm_unpacklo_epi32 punpcklqdq _mm_unpacklo_epi64
    punpckhbw _mm_unpackhi_epi8 punpckhwd _mm_unpackhi_epi16
    punpckhdq _mm_unpackhi_epi32 punpckhqdq _mm_unpackhi_epi64
    packsswb _mm_packs_epi16 packuswb _mm_packus_epi16 packssdw _mm_packs_epi32
    psllw _mm_sll_epi16 pslld _mm_sll_epi32 psllq _mm_sll_epi64
    psrlw _mm_srl_epi16 psrld _mm_srl_epi32 psrlq _mm_srl_epi64
    psraw _mm_sra_epi16 psrad _mm_sra_epi32
}

/// The sign bits of the bytes, the lowest first.
#[inline(always)]
pub fn byte_signs(a: u128) -> u32 {
    // SAFETY: every x86-64 host has SSE2; the intrinsic works on values only.
    unsafe { _mm_movemask_epi8(to_m(a)) as u32 }
}
