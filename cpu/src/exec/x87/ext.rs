//! The 80-bit format: encodings, classes, and exact conversions from other formats.

use super::soft::Round;

/// Invalid operation, as in the status word.
pub const IE: u16 = 1;
/// Denormal operand.
pub const DE: u16 = 2;
/// Division by zero.
pub const ZE: u16 = 4;
/// Overflow.
pub const OE: u16 = 8;
/// Underflow.
pub const UE: u16 = 16;
/// Precision.
pub const PE: u16 = 32;
/// Stack fault.
pub const SF: u16 = 64;

/// Bias of the exponent.
pub const BIAS: i32 = 0x3fff;
const INTEGER_BIT: u64 = 1 << 63;
const QUIET_BIT: u64 = 1 << 62;

/// An encoding of the double extended format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ext {
    /// Significand with its explicit integer bit.
    pub sig: u64,
    /// Sign and biased exponent.
    pub se: u16,
}

/// What an encoding stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// ±0
    Zero,
    /// A denormal or pseudo-denormal.
    Denormal,
    /// A normal number.
    Normal,
    /// ±infinity
    Infinity,
    /// A quiet NaN.
    Quiet,
    /// A signaling NaN.
    Signaling,
    /// Pseudo-NaN, pseudo-infinity, unnormal: invalid as an operand.
    Unsupported,
}

impl Ext {
    /// The QNaN floating-point indefinite.
    pub const INDEFINITE: Self = Self { sig: INTEGER_BIT | QUIET_BIT, se: 0xffff };
    /// +0
    pub const ZERO: Self = Self { sig: 0, se: 0 };
    /// 1
    pub const ONE: Self = Self { sig: INTEGER_BIT, se: 0x3fff };

    /// ±infinity.
    pub const fn infinity(negative: bool) -> Self {
        Self { sig: INTEGER_BIT, se: 0x7fff | (negative as u16) << 15 }
    }

    /// ±0.
    pub const fn zero(negative: bool) -> Self {
        Self { sig: 0, se: (negative as u16) << 15 }
    }

    /// True if the sign bit is set.
    pub const fn negative(self) -> bool {
        self.se >> 15 != 0
    }

    /// The biased exponent.
    pub const fn exponent(self) -> i32 {
        (self.se & 0x7fff) as i32
    }

    /// What the encoding stands for.
    pub const fn class(self) -> Class {
        match self.se & 0x7fff {
            0 if self.sig == 0 => Class::Zero,
            0 => Class::Denormal,
            _ if self.sig & INTEGER_BIT == 0 => Class::Unsupported,
            0x7fff if self.sig << 1 == 0 => Class::Infinity,
            0x7fff if self.sig & QUIET_BIT != 0 => Class::Quiet,
            0x7fff => Class::Signaling,
            _ => Class::Normal,
        }
    }

    /// True for both kinds of NaN.
    pub const fn is_nan(self) -> bool {
        matches!(self.class(), Class::Quiet | Class::Signaling)
    }

    /// The quiet form of a NaN.
    pub const fn quiet(self) -> Self {
        Self { sig: self.sig | QUIET_BIT, se: self.se }
    }

    /// With the other sign.
    pub const fn negated(self) -> Self {
        Self { sig: self.sig, se: self.se ^ 0x8000 }
    }

    /// A pseudo-denormal in the normal encoding of the same value; others as they are.
    pub const fn canonical(self) -> Self {
        if self.se & 0x7fff == 0 && self.sig & INTEGER_BIT != 0 {
            Self { sig: self.sig, se: self.se | 1 }
        } else {
            self
        }
    }

    /// Exponent (biased, may be below 1) and significand with its integer bit set, of a number not zero.
    pub const fn normalized(self) -> (i32, u64) {
        let e = if self.exponent() == 0 { 1 } else { self.exponent() };
        let shift = self.sig.leading_zeros();
        (e - shift as i32, self.sig << shift)
    }

    /// A number from sign, biased exponent (at most 0x7ffe) and any significand, exactly: the exponent must
    /// allow that.
    pub const fn pack(negative: bool, exponent: i32, sig: u64) -> Self {
        if sig == 0 {
            return Self::zero(negative);
        }
        let shift = sig.leading_zeros() as i32;
        let (e, sig) = (exponent - shift, sig << shift);
        let sign = (negative as u16) << 15;
        if e >= 1 {
            Self { sig, se: sign | e as u16 }
        } else {
            Self { sig: sig >> (1 - e), se: sign }
        }
    }

    /// From an integer.
    pub const fn from_int(value: i64) -> Self {
        Self::pack(value < 0, BIAS + 63, value.unsigned_abs())
    }

    /// From the 32-bit format, a signaling NaN remaining one; and whether it is denormal there.
    pub const fn from_f32(bits: u32) -> (Self, bool) {
        let wide = (bits as u64 & 0x7f_ffff) << 40;
        Self::from_parts(bits >> 31 != 0, (bits >> 23 & 0xff) as i32, wide, 0xff, BIAS - 0x7f)
    }

    /// From the 64-bit format, likewise.
    pub const fn from_f64(bits: u64) -> (Self, bool) {
        let wide = (bits & 0xf_ffff_ffff_ffff) << 11;
        Self::from_parts(bits >> 63 != 0, (bits >> 52 & 0x7ff) as i32, wide, 0x7ff, BIAS - 0x3ff)
    }

    const fn from_parts(neg: bool, e: i32, fraction: u64, max: i32, rebias: i32) -> (Self, bool) {
        let sign = (neg as u16) << 15;
        if e == max {
            (Self { sig: fraction | INTEGER_BIT, se: sign | 0x7fff }, false)
        } else if e != 0 {
            (Self { sig: fraction | INTEGER_BIT, se: sign | (e + rebias) as u16 }, false)
        } else {
            (Self::pack(neg, rebias + 1, fraction), fraction != 0)
        }
    }

    /// `|self| < |b|`, `==`, `>` for numbers and infinities.
    pub fn compare_magnitude(self, b: Self) -> std::cmp::Ordering {
        let key = |x: Self| match x.class() {
            Class::Zero => (i32::MIN, 0),
            Class::Infinity => (i32::MAX, 0),
            _ => x.normalized(),
        };
        key(self).cmp(&key(b))
    }

    /// Order of numbers and infinities.
    pub fn compare(self, b: Self) -> std::cmp::Ordering {
        use std::cmp::Ordering::Equal;
        if self.class() == Class::Zero && b.class() == Class::Zero {
            return Equal;
        }
        match (self.negative(), b.negative()) {
            (false, false) => self.compare_magnitude(b),
            (true, true) => b.compare_magnitude(self),
            (true, false) => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
        }
    }
}

/// A finite number rounded to an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounded {
    /// The magnitude; `None` if it does not fit.
    pub magnitude: Option<u64>,
    /// It was no integer before.
    pub inexact: bool,
    /// The magnitude has grown.
    pub up: bool,
}

/// Rounds a finite number to an integer.
pub const fn to_integer(a: Ext, round: Round) -> Rounded {
    if a.sig == 0 {
        return Rounded { magnitude: Some(0), inexact: false, up: false };
    }
    let (e, sig) = a.normalized();
    let shift = BIAS + 63 - e;
    if shift < 0 {
        return Rounded { magnitude: None, inexact: false, up: false };
    }
    // The integer part, and the fraction as a number of 64 bits whose last bit is sticky.
    let (whole, fraction) = match shift {
        0 => (sig, 0),
        1..=63 => (sig >> shift, sig << (64 - shift)),
        64 => (0, sig),
        _ => (0, 1),
    };
    let half = 1 << 63;
    let up = match round {
        Round::Nearest => fraction > half || fraction == half && whole & 1 != 0,
        Round::Down => a.negative() && fraction != 0,
        Round::Up => !a.negative() && fraction != 0,
        Round::Zero => false,
    };
    Rounded { magnitude: whole.checked_add(up as u64), inexact: fraction != 0, up }
}
