//! Integer operand widths and access to general registers.

use crate::mem::Value;
use crate::op::Exec;
use crate::state::CpuState;

/// An unsigned integer of an operand size: 8, 16, 32 or 64 bits.
pub trait Int: Value + Eq {
    /// Bits.
    const BITS: u32;
    /// Bytes.
    const BYTES: u64 = Self::SIZE as u64;
    /// All bits set, zero-extended.
    const MASK: u64;
    /// Zero-extended.
    fn u(self) -> u64;
    /// Sign-extended.
    fn s(self) -> i64;
    /// The low bits of a word.
    fn cut(word: u64) -> Self;
    /// Reads a general register.
    fn get(state: &CpuState, reg: u8) -> Self;
    /// Writes a general register: 32 bits clear the upper half, 8 and 16 leave the rest.
    fn set(state: &mut CpuState, reg: u8, value: Self);
}

impl Int for u8 {
    const BITS: u32 = 8;
    const MASK: u64 = 0xff;
    #[inline(always)]
    fn u(self) -> u64 {
        self.into()
    }
    #[inline(always)]
    fn s(self) -> i64 {
        (self as i8).into()
    }
    #[inline(always)]
    fn cut(word: u64) -> Self {
        word as Self
    }
    // Numbers from HIGH_BYTE (32) on name bits 8 to 15.
    #[inline(always)]
    fn get(state: &CpuState, reg: u8) -> Self {
        (state.regs[reg as usize & 31] >> ((reg & 32) >> 2)) as Self
    }
    #[inline(always)]
    fn set(state: &mut CpuState, reg: u8, value: Self) {
        let shift = (reg & 32) >> 2;
        let r = &mut state.regs[reg as usize & 31];
        *r = *r & !(0xff << shift) | value.u() << shift;
    }
}

impl Int for u16 {
    const BITS: u32 = 16;
    const MASK: u64 = 0xffff;
    #[inline(always)]
    fn u(self) -> u64 {
        self.into()
    }
    #[inline(always)]
    fn s(self) -> i64 {
        (self as i16).into()
    }
    #[inline(always)]
    fn cut(word: u64) -> Self {
        word as Self
    }
    #[inline(always)]
    fn get(state: &CpuState, reg: u8) -> Self {
        state.regs[reg as usize & 31] as Self
    }
    #[inline(always)]
    fn set(state: &mut CpuState, reg: u8, value: Self) {
        let r = &mut state.regs[reg as usize & 31];
        *r = *r & !0xffff | value.u();
    }
}

impl Int for u32 {
    const BITS: u32 = 32;
    const MASK: u64 = 0xffff_ffff;
    #[inline(always)]
    fn u(self) -> u64 {
        self.into()
    }
    #[inline(always)]
    fn s(self) -> i64 {
        (self as i32).into()
    }
    #[inline(always)]
    fn cut(word: u64) -> Self {
        word as Self
    }
    #[inline(always)]
    fn get(state: &CpuState, reg: u8) -> Self {
        state.regs[reg as usize & 31] as Self
    }
    #[inline(always)]
    fn set(state: &mut CpuState, reg: u8, value: Self) {
        state.regs[reg as usize & 31] = value.u();
    }
}

impl Int for u64 {
    const BITS: u32 = 64;
    const MASK: u64 = Self::MAX;
    #[inline(always)]
    fn u(self) -> u64 {
        self
    }
    #[inline(always)]
    fn s(self) -> i64 {
        self as i64
    }
    #[inline(always)]
    fn cut(word: u64) -> Self {
        word
    }
    #[inline(always)]
    fn get(state: &CpuState, reg: u8) -> Self {
        state.regs[reg as usize & 31]
    }
    #[inline(always)]
    fn set(state: &mut CpuState, reg: u8, value: Self) {
        state.regs[reg as usize & 31] = value;
    }
}

/// A handler generic over the operand width, as one function a width.
#[derive(Clone, Copy)]
pub struct Widths(pub [Exec; 4]);

impl Widths {
    /// The handler for operands of `size` bytes.
    pub const fn of(self, size: u8) -> Exec {
        match size {
            1 => self.0[0],
            2 => self.0[1],
            4 => self.0[2],
            _ => self.0[3],
        }
    }
}

/// The four widths of a generic handler, other type parameters first: `widths!(rr::<Add>)`.
macro_rules! widths {
    ($f:ident $(::<$($p:tt),+>)?) => {
        $crate::exec::int::Widths([
            $f::<$($($p,)+)? u8>,
            $f::<$($($p,)+)? u16>,
            $f::<$($($p,)+)? u32>,
            $f::<$($($p,)+)? u64>,
        ])
    };
}
pub(super) use widths;

/// A handler generic over the condition code (first, const), at a given width: one function a condition.
macro_rules! conditions {
    ($cc:expr, $f:ident $(, $t:ty)*) => {{
        const TABLE: [$crate::op::Exec; 16] = [
            $f::<0 $(, $t)*>, $f::<1 $(, $t)*>, $f::<2 $(, $t)*>, $f::<3 $(, $t)*>,
            $f::<4 $(, $t)*>, $f::<5 $(, $t)*>, $f::<6 $(, $t)*>, $f::<7 $(, $t)*>,
            $f::<8 $(, $t)*>, $f::<9 $(, $t)*>, $f::<10 $(, $t)*>, $f::<11 $(, $t)*>,
            $f::<12 $(, $t)*>, $f::<13 $(, $t)*>, $f::<14 $(, $t)*>, $f::<15 $(, $t)*>,
        ];
        TABLE[usize::from($cc)]
    }};
}
pub(super) use conditions;
