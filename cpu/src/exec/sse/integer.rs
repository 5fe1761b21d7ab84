//! Integer arithmetic, comparison and logic on lanes, MMX and XMM.

use super::Forms;
use super::lanes::*;
use iced_x86::Code;

/// Codes that come as an MMX and an XMM instruction of the same lane-wise function.
macro_rules! both {
    ($code:expr; $($mm:ident $xmm:ident $f:expr;)*) => {
        match $code {
            $(Code::$mm => return Some(mmx!($f)), Code::$xmm => return Some(packed!($f)),)*
            _ => {}
        }
    };
}

pub(super) fn forms(code: Code) -> Option<Forms> {
    both! { code;
        Paddb_mm_mmm64 Paddb_xmm_xmmm128 paddb;
        Paddw_mm_mmm64 Paddw_xmm_xmmm128 paddw;
        Paddd_mm_mmm64 Paddd_xmm_xmmm128 paddd;
        Paddq_mm_mmm64 Paddq_xmm_xmmm128 paddq;
        Psubb_mm_mmm64 Psubb_xmm_xmmm128 psubb;
        Psubw_mm_mmm64 Psubw_xmm_xmmm128 psubw;
        Psubd_mm_mmm64 Psubd_xmm_xmmm128 psubd;
        Psubq_mm_mmm64 Psubq_xmm_xmmm128 psubq;
        Paddsb_mm_mmm64 Paddsb_xmm_xmmm128 paddsb;
        Paddsw_mm_mmm64 Paddsw_xmm_xmmm128 paddsw;
        Paddusb_mm_mmm64 Paddusb_xmm_xmmm128 paddusb;
        Paddusw_mm_mmm64 Paddusw_xmm_xmmm128 paddusw;
        Psubsb_mm_mmm64 Psubsb_xmm_xmmm128 psubsb;
        Psubsw_mm_mmm64 Psubsw_xmm_xmmm128 psubsw;
        Psubusb_mm_mmm64 Psubusb_xmm_xmmm128 psubusb;
        Psubusw_mm_mmm64 Psubusw_xmm_xmmm128 psubusw;
        Pcmpeqb_mm_mmm64 Pcmpeqb_xmm_xmmm128 pcmpeqb;
        Pcmpeqw_mm_mmm64 Pcmpeqw_xmm_xmmm128 pcmpeqw;
        Pcmpeqd_mm_mmm64 Pcmpeqd_xmm_xmmm128 pcmpeqd;
        Pcmpgtb_mm_mmm64 Pcmpgtb_xmm_xmmm128 pcmpgtb;
        Pcmpgtw_mm_mmm64 Pcmpgtw_xmm_xmmm128 pcmpgtw;
        Pcmpgtd_mm_mmm64 Pcmpgtd_xmm_xmmm128 pcmpgtd;
        Pminub_mm_mmm64 Pminub_xmm_xmmm128 pminub;
        Pmaxub_mm_mmm64 Pmaxub_xmm_xmmm128 pmaxub;
        Pminsw_mm_mmm64 Pminsw_xmm_xmmm128 pminsw;
        Pmaxsw_mm_mmm64 Pmaxsw_xmm_xmmm128 pmaxsw;
        Pavgb_mm_mmm64 Pavgb_xmm_xmmm128 pavgb;
        Pavgw_mm_mmm64 Pavgw_xmm_xmmm128 pavgw;
        Pmullw_mm_mmm64 Pmullw_xmm_xmmm128 pmullw;
        Pmulhw_mm_mmm64 Pmulhw_xmm_xmmm128 pmulhw;
        Pmulhuw_mm_mmm64 Pmulhuw_xmm_xmmm128 pmulhuw;
        Pmuludq_mm_mmm64 Pmuludq_xmm_xmmm128 pmuludq;
        Pmaddwd_mm_mmm64 Pmaddwd_xmm_xmmm128 pmaddwd;
        Psadbw_mm_mmm64 Psadbw_xmm_xmmm128 psadbw;
        Pand_mm_mmm64 Pand_xmm_xmmm128 pand;
        Pandn_mm_mmm64 Pandn_xmm_xmmm128 pandn;
        Por_mm_mmm64 Por_xmm_xmmm128 por;
        Pxor_mm_mmm64 Pxor_xmm_xmmm128 pxor;
        Psignb_mm_mmm64 Psignb_xmm_xmmm128 |a, b| zip_i8(a, b, |x, y| x.wrapping_mul(y.signum()));
        Psignw_mm_mmm64 Psignw_xmm_xmmm128 |a, b| zip_i16(a, b, |x, y| x.wrapping_mul(y.signum()));
        Psignd_mm_mmm64 Psignd_xmm_xmmm128 |a, b| zip_i32(a, b, |x, y| x.wrapping_mul(y.signum()));
        Pabsb_mm_mmm64 Pabsb_xmm_xmmm128 |a, b| zip_i8(a, b, |_, y| y.wrapping_abs());
        Pabsw_mm_mmm64 Pabsw_xmm_xmmm128 |a, b| zip_i16(a, b, |_, y| y.wrapping_abs());
        Pabsd_mm_mmm64 Pabsd_xmm_xmmm128 |a, b| zip_i32(a, b, |_, y| y.wrapping_abs());
        Pmulhrsw_mm_mmm64 Pmulhrsw_xmm_xmmm128 |a, b| zip_i16(a, b, mul_round);
        Pmaddubsw_mm_mmm64 Pmaddubsw_xmm_xmmm128 pmaddubsw;
    }
    Some(match code {
        Code::Andps_xmm_xmmm128 | Code::Andpd_xmm_xmmm128 => packed!(pand),
        Code::Andnps_xmm_xmmm128 | Code::Andnpd_xmm_xmmm128 => packed!(pandn),
        Code::Orps_xmm_xmmm128 | Code::Orpd_xmm_xmmm128 => packed!(por),
        Code::Xorps_xmm_xmmm128 | Code::Xorpd_xmm_xmmm128 => packed!(pxor),
        Code::Pminsb_xmm_xmmm128 => packed!(|a, b| zip_i8(a, b, i8::min)),
        Code::Pmaxsb_xmm_xmmm128 => packed!(|a, b| zip_i8(a, b, i8::max)),
        Code::Pminuw_xmm_xmmm128 => packed!(|a, b| zip_u16(a, b, u16::min)),
        Code::Pmaxuw_xmm_xmmm128 => packed!(|a, b| zip_u16(a, b, u16::max)),
        Code::Pminsd_xmm_xmmm128 => packed!(|a, b| zip_i32(a, b, i32::min)),
        Code::Pmaxsd_xmm_xmmm128 => packed!(|a, b| zip_i32(a, b, i32::max)),
        Code::Pminud_xmm_xmmm128 => packed!(|a, b| zip_u32(a, b, u32::min)),
        Code::Pmaxud_xmm_xmmm128 => packed!(|a, b| zip_u32(a, b, u32::max)),
        Code::Pmulld_xmm_xmmm128 => packed!(|a, b| zip_u32(a, b, u32::wrapping_mul)),
        Code::Pmuldq_xmm_xmmm128 => packed!(pmuldq),
        Code::Pcmpeqq_xmm_xmmm128 => packed!(|a, b| compare64(a, b, |x, y| x == y)),
        Code::Pcmpgtq_xmm_xmmm128 => packed!(|a, b| compare64(a, b, |x, y| x > y)),
        Code::Phminposuw_xmm_xmmm128 => packed!(phminposuw),
        Code::Mpsadbw_xmm_xmmm128_imm8 => packed_imm!(mpsadbw),
        _ => return None,
    })
}

/// PMULHRSW: the product's bits 30 to 15, rounded.
const fn mul_round(x: i16, y: i16) -> i16 {
    ((((x as i32 * y as i32) >> 14) + 1) >> 1) as i16
}

/// PMADDUBSW: unsigned times signed bytes, neighbours added with saturation.
fn pmaddubsw(a: u128, b: u128) -> u128 {
    let (a, b) = (to_u8(a), to_u8(b));
    from_i16(std::array::from_fn(|i| {
        let product = |j: usize| i32::from(a[j]) * i32::from(b[j] as i8);
        (product(2 * i) + product(2 * i + 1)).clamp(i16::MIN.into(), i16::MAX.into()) as i16
    }))
}

fn pmuldq(a: u128, b: u128) -> u128 {
    let (a, b) = (to_u32(a), to_u32(b));
    from_u64(std::array::from_fn(|i| {
        (i64::from(a[2 * i] as i32) * i64::from(b[2 * i] as i32)) as u64
    }))
}

fn compare64(a: u128, b: u128, f: impl Fn(i64, i64) -> bool) -> u128 {
    let (a, b) = (to_u64(a), to_u64(b));
    from_u64(std::array::from_fn(|i| if f(a[i] as i64, b[i] as i64) { u64::MAX } else { 0 }))
}

/// PHMINPOSUW: the smallest word and the index where it stands first.
fn phminposuw(_: u128, b: u128) -> u128 {
    let words = to_u16(b);
    let (index, word) = (0u128..).zip(words).min_by_key(|&(_, word)| word).unwrap_or_default();
    u128::from(word) | index << 16
}

/// MPSADBW: sums of absolute differences of one group of four bytes against eight of the other's.
fn mpsadbw(a: u128, b: u128, imm: u8) -> u128 {
    let (a, b) = (to_u8(a), to_u8(b));
    let (at, fixed) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
    from_u16(std::array::from_fn(|i| {
        (0..4).map(|j| u16::from(a[at + i + j].abs_diff(b[fixed + j]))).sum()
    }))
}

/// PHADDW, PHSUBW and so on: `f` on neighbouring words, first of `a`, then of `b`.
pub(super) fn horizontal16(a: u128, b: u128, f: impl Fn(i16, i16) -> i16) -> u128 {
    let (a, b) = (to_i16(a), to_i16(b));
    from_i16(std::array::from_fn(|i| {
        let (v, j) = if i < 4 { (&a, 2 * i) } else { (&b, 2 * i - 8) };
        f(v[j], v[j + 1])
    }))
}

/// PHADDD, PHSUBD.
pub(super) fn horizontal32(a: u128, b: u128, f: impl Fn(u32, u32) -> u32) -> u128 {
    let (a, b) = (to_u32(a), to_u32(b));
    from_u32([f(a[0], a[1]), f(a[2], a[3]), f(b[0], b[1]), f(b[2], b[3])])
}
