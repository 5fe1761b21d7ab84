//! Operations as the x87 defines them on values: NaN rules, denormal operands, the response to masked
//! exceptions and the biased results of unmasked ones. No CPU state but the control word.

use super::ext::{BIAS, Class, DE, Ext, IE, OE, PE, Rounded, UE, ZE, to_integer};
use super::soft::{self, Binary, Round};
use std::cmp::Ordering;

/// A result with what it sets in the status word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Res {
    /// The result.
    pub value: Ext,
    /// Exceptions.
    pub flags: u16,
    /// C1: the magnitude was rounded up.
    pub up: bool,
}

impl Res {
    /// A result that raises nothing.
    pub const fn exact(value: Ext) -> Self {
        Self { value, flags: 0, up: false }
    }

    /// A result with exceptions.
    pub const fn with(value: Ext, flags: u16) -> Self {
        Self { value, flags, up: false }
    }

    /// The result of an invalid operation.
    pub const INVALID: Self = Self::with(Ext::INDEFINITE, IE);
}

/// The control word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control(pub u16);

impl Control {
    /// Its RC field.
    pub const fn round(self) -> Round {
        match self.0 >> 10 & 3 {
            0 => Round::Nearest,
            1 => Round::Down,
            2 => Round::Up,
            _ => Round::Zero,
        }
    }

    /// Its PC field, as SoftFloat names precisions. The reserved value means 64 bits of significand.
    const fn precision(self) -> u8 {
        match self.0 >> 8 & 3 {
            0 => 32,
            2 => 64,
            _ => 80,
        }
    }

    /// Those of `flags` that are not masked.
    pub const fn unmasked(self, flags: u16) -> u16 {
        flags & !self.0 & 0x3f
    }
}

/// Exponents of unmasked over- and underflow results are off by this (SDM volume 1, section 8.5.4).
const WRAP: i32 = 0x6000;

/// What decides the result of two operands before any arithmetic: unsupported encodings and NaNs.
pub fn special(a: Ext, b: Ext) -> Option<Res> {
    let (ca, cb) = (a.class(), b.class());
    if ca == Class::Unsupported || cb == Class::Unsupported {
        return Some(Res::INVALID);
    }
    let flags = if ca == Class::Signaling || cb == Class::Signaling { IE } else { 0 };
    let value = match (a.is_nan(), b.is_nan()) {
        (false, false) => return None,
        (true, false) => a,
        (false, true) => b,
        (true, true) => match (ca, cb) {
            (Class::Signaling, Class::Quiet) => b,
            (Class::Quiet, Class::Signaling) => a,
            _ if a.sig != b.sig => {
                if a.sig > b.sig {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a.negative() {
                    b
                } else {
                    a
                }
            }
        },
    };
    Some(Res::with(value.quiet(), flags))
}

/// [`special`] for one operand.
pub fn special1(a: Ext) -> Option<Res> {
    match a.class() {
        Class::Unsupported => Some(Res::INVALID),
        Class::Signaling => Some(Res::with(a.quiet(), IE)),
        Class::Quiet => Some(Res::exact(a)),
        _ => None,
    }
}

/// DE if one of the operands is denormal.
pub fn denormal(a: Ext, b: Ext) -> u16 {
    if a.class() == Class::Denormal || b.class() == Class::Denormal { DE } else { 0 }
}

/// Rounds by `f`, and once more towards zero to see whether the magnitude grew.
fn rounded(round: Round, f: impl Fn(Round) -> (Ext, u16)) -> Res {
    let (value, flags) = f(round);
    let up = flags & PE != 0 && round != Round::Zero && f(Round::Zero).0 != value;
    Res { value, flags, up }
}

/// `a op b` with the exponents of the operands moved so that the result's moves by `by` (±0x6000).
fn wrapped(op: Binary, a: Ext, b: Ext, by: i32, control: Control) -> Res {
    let (move_a, move_b) = match op {
        Binary::Add | Binary::Sub => (by, by),
        Binary::Mul => (by / 2, by / 2),
        Binary::Div => (by / 2, -by / 2),
    };
    let shifted = |x: Ext, by: i32| {
        if x.sig == 0 {
            return x;
        }
        let (e, sig) = x.normalized();
        Ext { sig, se: x.se & 0x8000 | (e + by).clamp(1, 0x7ffe) as u16 }
    };
    let (a, b) = (shifted(a, move_a), shifted(b, move_b));
    rounded(control.round(), |round| soft::binary(op, a, b, round, control.precision()))
}

/// True for a nonzero number below the normal range.
const fn tiny(value: Ext) -> bool {
    value.exponent() == 0 && value.sig != 0
}

/// FADD, FSUB, FMUL, FDIV. `more` is DE if an operand was denormal in the format it came in.
pub fn arithmetic(op: Binary, a: Ext, b: Ext, more: u16, control: Control) -> Res {
    if let Some(res) = special(a, b) {
        return res;
    }
    let denormal = denormal(a, b) | more;
    let (a, b) = (a.canonical(), b.canonical());
    let mut res =
        rounded(control.round(), |round| soft::binary(op, a, b, round, control.precision()));
    if res.flags & (IE | ZE) != 0 {
        return res;
    }
    if res.flags & OE != 0 && control.unmasked(OE) != 0 {
        res = wrapped(op, a, b, -WRAP, control);
        res.flags |= OE;
    } else if control.unmasked(UE) != 0 && (res.flags & UE != 0 || tiny(res.value)) {
        res = wrapped(op, a, b, WRAP, control);
        res.flags |= UE;
    }
    res.flags |= denormal;
    res
}

/// FSQRT.
pub fn square_root(a: Ext, control: Control) -> Res {
    if let Some(res) = special1(a) {
        return res;
    }
    let mut res =
        rounded(control.round(), |round| soft::sqrt(a.canonical(), round, control.precision()));
    if res.flags & IE == 0 {
        res.flags |= denormal(a, a);
    }
    res
}

/// FRNDINT.
pub fn round_to_integer(a: Ext, control: Control) -> Res {
    if let Some(res) = special1(a) {
        return res;
    }
    let flags = denormal(a, a);
    if a.class() == Class::Infinity {
        return Res::exact(a);
    }
    let r = to_integer(a, control.round());
    match r.magnitude {
        Some(m) if r.inexact => {
            Res { value: Ext::pack(a.negative(), BIAS + 63, m), flags: flags | PE, up: r.up }
        }
        _ => Res::with(a, flags),
    }
}

/// The greatest exponent that FSCALE has to tell apart.
const FAR: i32 = 0x10000;

/// FSCALE: `a` times two to the truncated `b`.
pub fn scale(a: Ext, b: Ext, control: Control) -> Res {
    if let Some(res) = special(a, b) {
        return res;
    }
    let flags = denormal(a, b);
    let (ca, cb) = (a.class(), b.class());
    if cb == Class::Infinity {
        return match (b.negative(), ca) {
            (false, Class::Zero) | (true, Class::Infinity) => Res::INVALID,
            (false, _) => Res::with(Ext::infinity(a.negative()), flags),
            (true, _) => Res::with(Ext::zero(a.negative()), flags),
        };
    }
    if matches!(ca, Class::Zero | Class::Infinity) {
        return Res::with(a, flags);
    }
    let by = match to_integer(b, Round::Zero).magnitude {
        Some(m) => m.min(FAR as u64) as i32,
        None => FAR,
    };
    let by = if b.negative() { -by } else { by };
    if by == 0 && control.unmasked(UE) == 0 {
        return Res::with(a.canonical(), flags);
    }
    let (e, sig) = a.normalized();
    let mut res = at_exponent(a.negative(), e + by, sig, control);
    res.flags |= flags;
    res
}

/// The number of that sign, biased exponent and significand (integer bit set), rounded to 64 bits if it is
/// below the normal range; over- and underflow as for any operation.
fn at_exponent(negative: bool, e: i32, sig: u64, control: Control) -> Res {
    let sign = u16::from(negative) << 15;
    if (1..=0x7ffe).contains(&e) {
        return Res::exact(Ext { sig, se: sign | e as u16 });
    }
    let (flag, by) = if e > 0 { (OE, -WRAP) } else { (UE, WRAP) };
    if control.unmasked(flag) != 0 && (1..=0x7ffe).contains(&(e + by)) {
        return Res::with(Ext { sig, se: sign | (e + by) as u16 }, flag);
    }
    if control.unmasked(flag) != 0 {
        let value = if e > 0 { Ext::infinity(negative) } else { Ext::zero(negative) };
        return Res { value, flags: flag | PE, up: e > 0 };
    }
    // A product by a power of two rounds as it should.
    let (factor, rest) = if e > 0 { (0x7ffe, 0x7ffe) } else { (1, (e + BIAS - 1).max(1)) };
    let a = Ext { sig, se: sign | rest as u16 };
    let b = Ext { sig: 1 << 63, se: factor };
    rounded(control.round(), |round| soft::binary(Binary::Mul, a, b, round, 80))
}

/// FXTRACT: exponent and significand.
pub fn extract(a: Ext) -> (Res, Ext) {
    if let Some(res) = special1(a) {
        return (res, res.value);
    }
    match a.class() {
        Class::Zero => (Res::with(Ext::infinity(true), ZE), a),
        Class::Infinity => (Res::exact(Ext::infinity(false)), a),
        _ => {
            let (e, sig) = a.normalized();
            let significand = Ext { sig, se: a.se & 0x8000 | BIAS as u16 };
            (Res::with(Ext::from_int(i64::from(e - BIAS)), denormal(a, a)), significand)
        }
    }
}

/// How two operands compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// In that order.
    Ordered(Ordering),
    /// One is a NaN or invalid.
    Unordered,
}

/// FCOM, or with `quiet` FUCOM; and the exceptions. `more` as in [`arithmetic`].
pub fn compare(a: Ext, b: Ext, quiet: bool, more: u16) -> (Relation, u16) {
    match special(a, b) {
        Some(res) => (Relation::Unordered, if quiet { res.flags } else { IE }),
        None => (Relation::Ordered(a.compare(b)), denormal(a, b) | more),
    }
}

/// The quotient's low bits if the reduction is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotient {
    /// Complete.
    Bits(u8),
    /// Nothing was divided.
    None,
    /// To be continued (C2).
    Partial,
}

/// FPREM, or with `nearest` FPREM1.
pub fn remainder(a: Ext, b: Ext, nearest: bool, control: Control) -> (Res, Quotient) {
    let whole = Quotient::Bits(0);
    if let Some(res) = special(a, b) {
        return (res, Quotient::None);
    }
    let (ca, cb) = (a.class(), b.class());
    if ca == Class::Infinity || cb == Class::Zero {
        return (Res::INVALID, Quotient::None);
    }
    let flags = denormal(a, b);
    if ca == Class::Zero {
        return (Res::with(a, flags), whole);
    }
    let (ea, sa) = a.normalized();
    if cb == Class::Infinity {
        return (finish_remainder(a.negative(), ea, sa, flags, control), whole);
    }
    let (eb, sb) = b.normalized();
    let distance = ea - eb;
    if distance >= 64 {
        let by = distance & 31 | 32;
        let rest = ((u128::from(sa) << by) % u128::from(sb)) as u64;
        let res = finish_remainder(a.negative(), ea - by, rest, flags, control);
        return (res, Quotient::Partial);
    }
    if distance < -1 || distance < 0 && !nearest {
        return (finish_remainder(a.negative(), ea, sa, flags, control), whole);
    }
    if distance < 0 {
        // b/2 <= |a| < b: the nearest multiple is 0 or b.
        if sa <= sb {
            return (finish_remainder(a.negative(), ea, sa, flags, control), whole);
        }
        let rest = (2 * u128::from(sb) - u128::from(sa)) as u64;
        let res = finish_remainder(!a.negative(), ea, rest, flags, control);
        return (res, Quotient::Bits(1));
    }
    let dividend = u128::from(sa) << distance;
    let mut quotient = (dividend / u128::from(sb)) as u8;
    let mut rest = (dividend % u128::from(sb)) as u64;
    let mut negative = a.negative();
    if nearest && (rest > sb - rest || rest == sb - rest && quotient & 1 != 0) {
        rest = sb - rest;
        quotient = quotient.wrapping_add(1);
        negative = !negative;
    }
    if rest == 0 {
        negative = a.negative();
    }
    (finish_remainder(negative, eb, rest, flags, control), Quotient::Bits(quotient & 7))
}

fn finish_remainder(negative: bool, e: i32, sig: u64, flags: u16, control: Control) -> Res {
    if sig == 0 {
        return Res::with(Ext::zero(negative), flags);
    }
    let shift = sig.leading_zeros();
    let mut res = at_exponent(negative, e - shift as i32, sig << shift, control);
    res.flags |= flags;
    res
}

/// FIST(P), FISTTP to `bits` bits: the integer in two's complement, exceptions, C1.
pub fn to_int(a: Ext, bits: u32, round: Round) -> (u64, u16, bool) {
    let indefinite = (1u64 << (bits - 1), IE, false);
    if !matches!(a.class(), Class::Zero | Class::Denormal | Class::Normal) {
        return indefinite;
    }
    let Rounded { magnitude, inexact, up } = to_integer(a, round);
    let most = (1u64 << (bits - 1)) - u64::from(!a.negative());
    match magnitude {
        Some(m) if m <= most => {
            let value = if a.negative() { m.wrapping_neg() } else { m };
            (value, if inexact { PE } else { 0 }, up)
        }
        _ => indefinite,
    }
}

/// FBSTP: the packed decimal, exceptions, C1.
pub fn to_bcd(a: Ext, round: Round) -> (u128, u16, bool) {
    let indefinite = (BCD_INDEFINITE, IE, false);
    if !matches!(a.class(), Class::Zero | Class::Denormal | Class::Normal) {
        return indefinite;
    }
    let Rounded { magnitude, inexact, up } = to_integer(a, round);
    let Some(mut m) = magnitude.filter(|&m| m < 1_000_000_000_000_000_000) else {
        return indefinite;
    };
    let mut value = u128::from(a.negative()) << 79;
    for digit in 0..18 {
        value |= u128::from(m % 10) << (4 * digit);
        m /= 10;
    }
    (value, if inexact { PE } else { 0 }, up)
}

/// The packed decimal indefinite.
pub const BCD_INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// FBLD. Nibbles above 9, which the manual leaves undefined, count as what they are.
pub fn from_bcd(bits: u128) -> Ext {
    let mut value = 0u64;
    for digit in (0..18).rev() {
        value = value * 10 + (bits >> (4 * digit) & 15) as u64;
    }
    Ext::pack(bits >> 79 & 1 != 0, BIAS + 63, value)
}

/// FST m32: the value, exceptions, C1.
pub fn to_f32(a: Ext, control: Control) -> (u32, u16, bool) {
    if a.class() == Class::Unsupported {
        return (0xffc0_0000, IE, false);
    }
    let (value, mut flags) = soft::to_f32(a.canonical(), control.round());
    let up = flags & PE != 0 && soft::to_f32(a.canonical(), Round::Zero).0 != value;
    flags |= signaling(a);
    if control.unmasked(UE) != 0 && value & 0x7f80_0000 == 0 && value << 1 != 0 {
        flags |= UE;
    }
    (value, flags, up)
}

/// FST m64, likewise.
pub fn to_f64(a: Ext, control: Control) -> (u64, u16, bool) {
    if a.class() == Class::Unsupported {
        return (0xfff8_0000_0000_0000, IE, false);
    }
    let (value, mut flags) = soft::to_f64(a.canonical(), control.round());
    let up = flags & PE != 0 && soft::to_f64(a.canonical(), Round::Zero).0 != value;
    flags |= signaling(a);
    if control.unmasked(UE) != 0 && value >> 52 & 0x7ff == 0 && value << 1 != 0 {
        flags |= UE;
    }
    (value, flags, up)
}

fn signaling(a: Ext) -> u16 {
    if a.class() == Class::Signaling { IE } else { 0 }
}
