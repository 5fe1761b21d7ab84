//! Faults that an instruction raises instead of retiring.

use std::num::NonZeroU64;

/// An exception, packed into a word so that `Result<(), Trap>` fits a register.
/// The faulting address of #PF is in CR2 already when the trap is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap(NonZeroU64);

const PRESENT: u64 = 1 << 63;
const HAS_CODE: u64 = 1 << 62;

impl Trap {
    /// An exception without an error code.
    pub const fn new(vector: u8) -> Self {
        Self(NonZeroU64::new(PRESENT | vector as u64).expect("the present bit is set"))
    }

    /// An exception with an error code.
    pub const fn with_code(vector: u8, code: u32) -> Self {
        let word = PRESENT | HAS_CODE | (code as u64) << 8 | vector as u64;
        Self(NonZeroU64::new(word).expect("the present bit is set"))
    }

    /// Vector 0 to 31.
    pub const fn vector(self) -> u8 {
        self.0.get() as u8
    }

    /// The error code, for those exceptions that push one.
    pub const fn code(self) -> Option<u32> {
        if self.0.get() & HAS_CODE != 0 { Some((self.0.get() >> 8) as u32) } else { None }
    }

    /// Divide error.
    pub const DE: Self = Self::new(0);
    /// Debug.
    pub const DB: Self = Self::new(1);
    /// Invalid opcode.
    pub const UD: Self = Self::new(6);
    /// Device not available.
    pub const NM: Self = Self::new(7);
    /// General protection with error code 0.
    pub const GP0: Self = Self::with_code(13, 0);
    /// Stack fault with error code 0.
    pub const SS0: Self = Self::with_code(12, 0);
    /// x87 floating-point error.
    pub const MF: Self = Self::new(16);
    /// Alignment check.
    pub const AC0: Self = Self::with_code(17, 0);
    /// SIMD floating-point exception.
    pub const XM: Self = Self::new(19);

    /// General protection about a selector (or 0).
    pub const fn gp(code: u32) -> Self {
        Self::with_code(13, code)
    }

    /// Page fault; CR2 has been set.
    pub const fn pf(code: u32) -> Self {
        Self::with_code(14, code)
    }
}
