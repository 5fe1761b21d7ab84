//! The transcendental functions of our CPU model.
//!
//! The manuals only bound their error, and real CPUs differ. Here each is computed in the 128-bit format by a
//! fixed sequence of correctly rounded operations and then rounded as RC says, always to 64 bits of
//! significand. The error in the 128-bit format is a few of its units, so results are within 0.501 ulp to nearest.
//! Directed rounding starts from the 128-bit value: where that is exact, as 1 for the cosine of a tiny
//! number, nothing is moved.
//! The choices within what the manuals leave open:
//! - FSIN, FCOS, FSINCOS, FPTAN reduce their argument by the true π.
//! - F2XM1 of an operand outside -1 to 1 gives the operand back and raises nothing.
//! - FYL2XP1 is computed for every operand above -1; below it is an invalid operation, at -1 as FYL2X of 0.
//! - An inexact result always raises PE, and UE if it is below the normal range; an exact one does not. C1 says
//!   whether the magnitude was rounded up. FSINCOS takes C1 from the sine.
//! - Unmasked underflow gives the result with the bias of 0x6000; unmasked overflow gives infinity or the
//!   greatest number, as if masked.

use super::calc::{Control, Res, denormal, special, special1};
use super::ext::{BIAS, Class, Ext, IE, OE, PE, UE, ZE};
use super::soft::{Quad, Round};

/// Biased exponent from which on the trigonometric functions leave the operand as it is (|x| >= 2^63).
pub const TOO_FAR: i32 = BIAS + 63;
/// Below this biased exponent sin(x), tan(x), atan(x) are x in the 128-bit format.
const NEGLIGIBLE: i32 = BIAS - 60;

const PI: Quad = Quad::from_bits(0x4000_921f_b544_42d1, 0x8469_898c_c517_01b8);
const PI_2: Quad = PI.with_exponent(BIAS);
const PI_4: Quad = PI.with_exponent(BIAS - 1);
const PI_3_4: Quad = Quad::from_bits(0x4000_2d97_c7f3_321d, 0x234f_2729_93d1_414a);
const LN_2: Quad = Quad::from_bits(0x3ffe_62e4_2fef_a39e, 0xf357_93c7_6730_07e6);
const LOG2_E: Quad = Quad::from_bits(0x3fff_7154_7652_b82f, 0xe177_7d0f_fda0_d23a);
/// √2, about: where the logarithm's range is split.
const SQRT_2: Quad = Quad::from_bits(0x3fff_6a09_e667_f3bc, 0);
/// √2 - 1 = tan(π/8), about.
const TAN_PI_8: Quad = Quad::from_bits(0x3ffd_a827_999f_cef3, 0);
const ONE: Quad = Quad::from_bits(0x3fff_0000_0000_0000, 0);

/// 2/π in units of 2^-384, least significant word first.
const TWO_OVER_PI: [u64; 6] = [
    0x0649_2eea_09d1_921c,
    0xb724_6e3a_424d_d2e0,
    0xfe51_63ab_debb_c561,
    0xdb62_9599_3c43_9041,
    0xfc27_57d1_f534_ddc0,
    0xa2f9_836e_4e44_1529,
];

/// The result from its value in the 128-bit format. `inexact`: that value is rounded already.
fn finish(value: Quad, inexact: bool, more: u16, control: Control) -> Res {
    let round = control.round();
    let (mut result, mut flags) = value.to_ext(round);
    let mut up = round != Round::Zero && value.to_ext(Round::Zero).0 != result;
    flags |= more;
    if inexact {
        flags |= PE;
    }
    if result.exponent() == 0 && result.sig != 0 {
        let unmasked = control.unmasked(UE) != 0;
        if flags & PE != 0 || unmasked {
            flags |= UE;
        }
        if unmasked && value.exponent() != 0 {
            let wrapped = value.with_exponent(value.exponent() + 0x6000);
            result = wrapped.to_ext(round).0;
            up = round != Round::Zero && wrapped.to_ext(Round::Zero).0 != result;
        }
    }
    Res { value: result, flags, up }
}

/// F2XM1: 2^a - 1.
pub fn exp2_minus_1(a: Ext, control: Control) -> Res {
    if let Some(res) = special1(a) {
        return res;
    }
    match a.class() {
        Class::Zero => return Res::exact(a),
        Class::Infinity => {
            return Res::exact(if a.negative() { Ext::ONE.negated() } else { a });
        }
        _ => {}
    }
    if a.exponent() >= BIAS {
        // 2^-1 - 1 is -1/2, 2^1 - 1 is 1.
        let minus_one = a == Ext::ONE.negated();
        return Res::exact(if minus_one { Ext { se: 0xbffe, ..a } } else { a });
    }
    let x = Quad::from_ext(a) * LN_2;
    let mut sum = ONE;
    for n in (2..=30).rev() {
        sum = ONE + x * sum / Quad::from_int(n);
    }
    finish(x * sum, true, denormal(a, a), control)
}

/// atanh(t) / t for |t| below 0.18, or with `alternate` atan(t) / t for |t| below 0.2.
fn arctangent_series(square: Quad, alternate: bool) -> Quad {
    let mut sum = Quad::from_int(0);
    for n in (0..=27).rev() {
        let term = ONE / Quad::from_int(2 * n + 1);
        let rest = square * sum;
        sum = if alternate { term - rest } else { term + rest };
    }
    sum
}

/// ln((1 + t) / (1 - t)) / ln 2.
fn log2_of_ratio(t: Quad) -> Quad {
    let twice = t + t;
    twice * arctangent_series(t * t, false) * LOG2_E
}

/// The base-2 logarithm of a normal positive number, and whether it is exact.
fn log2(x: Quad) -> (Quad, bool) {
    let mut e = x.exponent() - BIAS;
    let mut m = x.with_exponent(BIAS);
    if SQRT_2.smaller(m) {
        m = x.with_exponent(BIAS - 1);
        e += 1;
    }
    let t = (m - ONE) / (m + ONE);
    let exponent = Quad::from_int(i64::from(e));
    if t.is_zero() { (exponent, true) } else { (exponent + log2_of_ratio(t), false) }
}

/// The product with a logarithm.
fn times(y: Ext, log: Quad, exact: bool, more: u16, control: Control) -> Res {
    let (product, flags) = Quad::from_ext(y).mul_flags(log, control.round());
    finish(product, !exact, more | flags & (OE | PE), control)
}

/// ±infinity times or zero times a logarithm of the given sign, `None` for others.
fn product_special(y: Ext, log_negative: bool) -> Option<Res> {
    let negative = y.negative() != log_negative;
    match y.class() {
        Class::Infinity => Some(Res::exact(Ext::infinity(negative))),
        Class::Zero => Some(Res::exact(Ext::zero(negative))),
        _ => None,
    }
}

/// y times the logarithm of zero.
fn log_of_zero(y: Ext, more: u16) -> Res {
    let value = Ext::infinity(!y.negative());
    match y.class() {
        Class::Zero => Res::INVALID,
        Class::Infinity => Res::with(value, more),
        _ => Res::with(value, ZE),
    }
}

/// y times the logarithm of infinity.
fn log_of_infinity(y: Ext, more: u16) -> Res {
    if y.class() == Class::Zero {
        Res::INVALID
    } else {
        Res::with(Ext::infinity(y.negative()), more)
    }
}

/// FYL2X: y · log2(x).
pub fn y_log2_x(x: Ext, y: Ext, control: Control) -> Res {
    if let Some(res) = special(x, y) {
        return res;
    }
    let more = denormal(x, y);
    match x.class() {
        Class::Zero => return log_of_zero(y, more),
        _ if x.negative() => return Res::INVALID,
        Class::Infinity => return log_of_infinity(y, more),
        _ => {}
    }
    if x == Ext::ONE {
        return match y.class() {
            Class::Infinity => Res::INVALID,
            _ => Res::with(Ext::zero(y.negative()), more),
        };
    }
    if let Some(res) = product_special(y, x.exponent() < BIAS) {
        return Res { flags: res.flags | more, ..res };
    }
    let (log, exact) = log2(Quad::from_ext(x.canonical()));
    times(y, log, exact, more, control)
}

/// FYL2XP1: y · log2(x + 1).
pub fn y_log2_x_plus_1(x: Ext, y: Ext, control: Control) -> Res {
    if let Some(res) = special(x, y) {
        return res;
    }
    let more = denormal(x, y);
    if x.class() == Class::Zero {
        return match y.class() {
            Class::Infinity => Res::INVALID,
            _ => Res::with(Ext::zero(x.negative() != y.negative()), more),
        };
    }
    if x == Ext::ONE.negated() {
        return log_of_zero(y, more);
    }
    if x.negative() && x.exponent() >= BIAS {
        return Res::INVALID;
    }
    if x.class() == Class::Infinity {
        return log_of_infinity(y, more);
    }
    if let Some(res) = product_special(y, x.negative()) {
        return Res { flags: res.flags | more, ..res };
    }
    let q = Quad::from_ext(x.canonical());
    let (log, exact) = if x.exponent() < BIAS - 1 {
        (log2_of_ratio(q / (Quad::from_int(2) + q)), false)
    } else {
        log2(ONE + q)
    };
    times(y, log, exact, more, control)
}

/// The arctangent of a number from 0 to 1.
fn arctangent_unit(q: Quad) -> Quad {
    if q.exponent() < NEGLIGIBLE {
        return q;
    }
    let (t, base) =
        if TAN_PI_8.smaller(q) { ((q - ONE) / (q + ONE), PI_4) } else { (q, Quad::from_int(0)) };
    let half = t / (ONE + (ONE + t * t).sqrt());
    base + (half + half) * arctangent_series(half * half, true)
}

/// FPATAN: the angle of the point (x, y).
pub fn arctangent(x: Ext, y: Ext, control: Control) -> Res {
    if let Some(res) = special(x, y) {
        return res;
    }
    let more = denormal(x, y);
    let angle = |value: Quad| finish(value.negate_if(y.negative()), true, more, control);
    match (x.class(), y.class()) {
        (Class::Infinity, Class::Infinity) => angle(if x.negative() { PI_3_4 } else { PI_4 }),
        (Class::Infinity, _) | (_, Class::Zero) => {
            if x.negative() {
                angle(PI)
            } else {
                Res::with(Ext::zero(y.negative()), more)
            }
        }
        (Class::Zero, _) | (_, Class::Infinity) => angle(PI_2),
        _ => {
            let (qx, qy) =
                (Quad::from_ext(x.canonical()).abs(), Quad::from_ext(y.canonical()).abs());
            let first = if qx.smaller(qy) {
                PI_2 - arctangent_unit(qx / qy)
            } else {
                arctangent_unit(qy.div_flags(qx, Round::Nearest).0)
            };
            angle(if x.negative() { PI - first } else { first })
        }
    }
}

/// A number below 2^63 in magnitude as n·π/2 + r: n modulo 4 of its magnitude, and |r| <= π/4, likewise for the
/// magnitude.
fn reduce(a: Ext) -> (u64, Quad) {
    let q = Quad::from_ext(a.canonical()).abs();
    if q.smaller(PI_4) {
        return (0, q);
    }
    // |a| = sig · 2^(e - BIAS - 63), which is sig · 2^-64 · 2^shift with shift from 0 to 63. The product with
    // 2/π, in units of 2^-448 after the shift, has its integer part in word 7.
    let (e, sig) = a.normalized();
    let shift = (e - BIAS + 1) as u32;
    let mut product = [0u64; 8];
    let mut carry = 0u128;
    for (word, factor) in product.iter_mut().zip(TWO_OVER_PI) {
        let sum = u128::from(sig) * u128::from(factor) + carry;
        *word = sum as u64;
        carry = sum >> 64;
    }
    product[6] = carry as u64;
    if shift != 0 {
        for i in (0..8).rev() {
            let low = if i == 0 { 0 } else { product[i - 1] >> (64 - shift) };
            product[i] = product[i] << shift | low;
        }
    }
    let mut n = product[7];
    let fraction = &mut product[..7];
    let above_half = fraction[6] >> 63 != 0;
    if above_half {
        n = n.wrapping_add(1);
        // 1 - fraction: the two's complement.
        let mut carry = true;
        for word in fraction.iter_mut() {
            let (value, overflow) = (!*word).overflowing_add(u64::from(carry));
            *word = value;
            carry = overflow;
        }
    }
    // The leading 128 bits; of a 64-bit number's distance to a multiple of π/2 not more than 70 are zero.
    let top = fraction.iter().rposition(|&word| word != 0).expect("π is irrational");
    let zeros = fraction[top].leading_zeros();
    let word = |i: usize| if i <= top { fraction[top - i] } else { 0 };
    let normal = |i: usize| {
        if zeros == 0 { word(i) } else { word(i) << zeros | word(i + 1) >> (64 - zeros) }
    };
    // The value of the first word, with its top bit set, is below 1 by this many bits.
    let below = (6 - top as i32) * 64 + zeros as i32;
    let part = |sig: u64, lower: i32| Quad::from_ext(Ext::pack(false, BIAS - 1 - lower, sig));
    let rest = (part(normal(0), below) + part(normal(1), below + 64)) * PI_2;
    (n & 3, rest.negate_if(above_half))
}

/// sin(r) for |r| <= π/4.
fn sine_kernel(r: Quad) -> Quad {
    let square = r * r;
    let mut sum = ONE;
    for n in (1..=16).rev() {
        sum = ONE - square * sum / Quad::from_int(2 * n * (2 * n + 1));
    }
    r * sum
}

/// cos(r), likewise.
fn cosine_kernel(r: Quad) -> Quad {
    let square = r * r;
    let mut sum = ONE;
    for n in (1..=16).rev() {
        sum = ONE - square * sum / Quad::from_int((2 * n - 1) * 2 * n);
    }
    sum
}

/// What all trigonometric functions do with operands that are no numbers.
fn trigonometric_special(a: Ext) -> Option<Res> {
    special1(a).or_else(|| (a.class() == Class::Infinity).then_some(Res::with(Ext::INDEFINITE, IE)))
}

/// FSIN.
pub fn sine(a: Ext, control: Control) -> Res {
    if let Some(res) = trigonometric_special(a) {
        return res;
    }
    if a.class() == Class::Zero {
        return Res::exact(a);
    }
    let (n, r) = reduce(a);
    let value = match n {
        _ if r.exponent() < NEGLIGIBLE && n == 0 => r,
        0 | 2 => sine_kernel(r),
        _ => cosine_kernel(r),
    };
    finish(value.negate_if((n >= 2) != a.negative()), true, denormal(a, a), control)
}

/// FCOS.
pub fn cosine(a: Ext, control: Control) -> Res {
    if let Some(res) = trigonometric_special(a) {
        return res;
    }
    if a.class() == Class::Zero {
        return Res::exact(Ext::ONE);
    }
    let (n, r) = reduce(a);
    let value = if n & 1 == 0 { cosine_kernel(r) } else { sine_kernel(r) };
    finish(value.negate_if(n == 1 || n == 2), true, denormal(a, a), control)
}

/// FPTAN.
pub fn tangent(a: Ext, control: Control) -> Res {
    if let Some(res) = trigonometric_special(a) {
        return res;
    }
    if a.class() == Class::Zero {
        return Res::exact(a);
    }
    let (n, r) = reduce(a);
    let value = if r.exponent() < NEGLIGIBLE && n == 0 {
        r
    } else {
        let (sine, cosine) = (sine_kernel(r), cosine_kernel(r));
        if n & 1 == 0 { sine / cosine } else { (cosine / sine).negate_if(true) }
    };
    finish(value.negate_if(a.negative()), true, denormal(a, a), control)
}
