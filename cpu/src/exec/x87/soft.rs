//! Berkeley SoftFloat: the correctly rounded operations behind the x87 unit.
#![allow(unsafe_code)]
// Reason: SoftFloat is a C library; its rounding mode, precision and flags are thread-local variables.
// Obligation: every function here sets the mode and clears the flags before its one operation and reads
// the flags behind it, on the same thread. The C functions take and give plain values, touch no memory
// but those variables and accept any bit pattern.

use super::ext::{DE, Ext, IE, OE, PE, UE, ZE};
use softfloat_sys as sf;

/// Rounding as the RC field of the control word has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// Towards zero.
    Zero,
}

impl Round {
    const fn mode(self) -> u8 {
        match self {
            Self::Nearest => sf::softfloat_round_near_even,
            Self::Down => sf::softfloat_round_min,
            Self::Up => sf::softfloat_round_max,
            Self::Zero => sf::softfloat_round_minMag,
        }
    }
}

/// The two-operand operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a × b
    Mul,
    /// a / b
    Div,
}

const fn raw(a: Ext) -> sf::extFloat80_t {
    sf::extFloat80_t { signif: a.sig, signExp: a.se }
}

const fn cooked(a: sf::extFloat80_t) -> Ext {
    Ext { sig: a.signif, se: a.signExp }
}

/// Runs one operation. `precision` is 32, 64 or 80: the format whose significand is used.
#[inline(always)]
fn run<R>(round: Round, precision: u8, f: impl FnOnce() -> R) -> (R, u16) {
    // SAFETY: see the module's head.
    unsafe {
        sf::softfloat_detectTininess_write_helper(sf::softfloat_tininess_afterRounding);
        sf::softfloat_roundingMode_write_helper(round.mode());
        sf::extF80_roundingPrecision_write_helper(precision);
        sf::softfloat_exceptionFlags_write_helper(0);
    }
    let result = f();
    // SAFETY: see the module's head.
    let flags = unsafe { sf::softfloat_exceptionFlags_read_helper() };
    let map = [
        (sf::softfloat_flag_inexact, PE),
        (sf::softfloat_flag_underflow, UE),
        (sf::softfloat_flag_overflow, OE),
        (sf::softfloat_flag_infinite, ZE),
        (sf::softfloat_flag_invalid, IE),
    ];
    let flags = map.iter().filter(|(bit, _)| flags & bit != 0).fold(0, |all, (_, x)| all | x);
    debug_assert_eq!(flags & DE, 0, "SoftFloat knows no denormal exception");
    (result, flags)
}

/// `a op b`, with the exceptions in the bits of the status word.
pub fn binary(op: Binary, a: Ext, b: Ext, round: Round, precision: u8) -> (Ext, u16) {
    let (a, b) = (raw(a), raw(b));
    let f = match op {
        Binary::Add => sf::extF80_add,
        Binary::Sub => sf::extF80_sub,
        Binary::Mul => sf::extF80_mul,
        Binary::Div => sf::extF80_div,
    };
    // SAFETY: see the module's head.
    let (result, flags) = run(round, precision, || unsafe { f(a, b) });
    (cooked(result), flags)
}

/// The square root.
pub fn sqrt(a: Ext, round: Round, precision: u8) -> (Ext, u16) {
    // SAFETY: see the module's head.
    let (result, flags) = run(round, precision, || unsafe { sf::extF80_sqrt(raw(a)) });
    (cooked(result), flags)
}

/// To the 32-bit format.
pub fn to_f32(a: Ext, round: Round) -> (u32, u16) {
    // SAFETY: see the module's head.
    let (result, flags) = run(round, 80, || unsafe { sf::extF80_to_f32(raw(a)) });
    (result.v, flags)
}

/// To the 64-bit format.
pub fn to_f64(a: Ext, round: Round) -> (u64, u16) {
    // SAFETY: see the module's head.
    let (result, flags) = run(round, 80, || unsafe { sf::extF80_to_f64(raw(a)) });
    (result.v, flags)
}

/// A number of the 128-bit format (113 bits of significand): what the transcendental functions are computed
/// in, always rounding to nearest.
#[derive(Clone, Copy)]
pub struct Quad(sf::float128_t);

impl std::fmt::Debug for Quad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quad({:016x}_{:016x})", self.0.v[1], self.0.v[0])
    }
}

impl Quad {
    /// From the two halves of its encoding.
    pub const fn from_bits(high: u64, low: u64) -> Self {
        Self(sf::float128_t { v: [low, high] })
    }

    /// Exactly.
    pub fn from_ext(a: Ext) -> Self {
        // SAFETY: see the module's head.
        Self(run(Round::Nearest, 80, || unsafe { sf::extF80_to_f128(raw(a)) }).0)
    }

    /// Exactly.
    pub fn from_int(a: i64) -> Self {
        // SAFETY: see the module's head.
        Self(run(Round::Nearest, 80, || unsafe { sf::i64_to_f128(a) }).0)
    }

    /// Rounded to the extended format.
    pub fn to_ext(self, round: Round) -> (Ext, u16) {
        // SAFETY: see the module's head.
        let (result, flags) = run(round, 80, || unsafe { sf::f128_to_extF80(self.0) });
        (cooked(result), flags)
    }

    fn op(
        self,
        b: Self,
        round: Round,
        f: unsafe extern "C" fn(sf::float128_t, sf::float128_t) -> sf::float128_t,
    ) -> (Self, u16) {
        // SAFETY: see the module's head.
        let (result, flags) = run(round, 80, || unsafe { f(self.0, b.0) });
        (Self(result), flags)
    }

    /// Product under a rounding mode, with its exceptions.
    pub fn mul_flags(self, b: Self, round: Round) -> (Self, u16) {
        self.op(b, round, sf::f128_mul)
    }

    /// Quotient under a rounding mode, with its exceptions.
    pub fn div_flags(self, b: Self, round: Round) -> (Self, u16) {
        self.op(b, round, sf::f128_div)
    }

    /// Square root.
    pub fn sqrt(self) -> Self {
        // SAFETY: see the module's head.
        Self(run(Round::Nearest, 80, || unsafe { sf::f128_sqrt(self.0) }).0)
    }

    /// True for both zeros.
    pub const fn is_zero(self) -> bool {
        self.0.v[1] << 1 | self.0.v[0] == 0
    }

    /// The biased exponent.
    pub const fn exponent(self) -> i32 {
        (self.0.v[1] >> 48) as i32 & 0x7fff
    }

    /// The same significand with another biased exponent.
    pub const fn with_exponent(self, exponent: i32) -> Self {
        let high = self.0.v[1] & !(0x7fff << 48) | (exponent as u64 & 0x7fff) << 48;
        Self(sf::float128_t { v: [self.0.v[0], high] })
    }

    /// `|self| < |b|`, for numbers.
    pub const fn smaller(self, b: Self) -> bool {
        let (x, y) = (self.0.v[1] & !(1 << 63), b.0.v[1] & !(1 << 63));
        x < y || x == y && self.0.v[0] < b.0.v[0]
    }

    /// The absolute value.
    pub const fn abs(self) -> Self {
        Self(sf::float128_t { v: [self.0.v[0], self.0.v[1] & !(1 << 63)] })
    }

    /// With the sign turned if `negate`.
    pub const fn negate_if(self, negate: bool) -> Self {
        Self(sf::float128_t { v: [self.0.v[0], self.0.v[1] ^ (negate as u64) << 63] })
    }
}

impl std::ops::Add for Quad {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        self.op(b, Round::Nearest, sf::f128_add).0
    }
}

impl std::ops::Sub for Quad {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        self.op(b, Round::Nearest, sf::f128_sub).0
    }
}

impl std::ops::Mul for Quad {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        self.op(b, Round::Nearest, sf::f128_mul).0
    }
}

impl std::ops::Div for Quad {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        self.op(b, Round::Nearest, sf::f128_div).0
    }
}
