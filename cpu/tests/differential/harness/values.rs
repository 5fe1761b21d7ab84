//! Random values that are likely to matter.

use super::case::{CODE, DATA, DATA_LEN};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// A generator with the few shapes of draw that are needed.
pub struct Draw(pub ChaCha8Rng);

impl Draw {
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.0.next_u32()) * u128::from(n)) >> 32) as u64
    }

    pub fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// An integer: small, at the edge of a width, near a power of two, an address, or anything.
    pub fn integer(&mut self) -> u64 {
        const EDGES: &[u64] = &[
            0,
            1,
            2,
            u64::MAX,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            i64::MAX as u64,
            i64::MIN as u64,
        ];
        match self.below(12) {
            0..=2 => self.pick(EDGES),
            3 => (1 << self.below(64)) - self.below(2),
            4 => self.below(256),
            5 => self.below(256).wrapping_neg(),
            6 => CODE + self.below(4096),
            7 => DATA + self.below(DATA_LEN as u64),
            8 => u64::from(self.single()) << 32 | u64::from(self.single()),
            9 => self.double(),
            _ => self.u64(),
        }
    }

    /// The bits of a single.
    pub fn single(&mut self) -> u32 {
        const SPECIAL: &[u32] = &[
            0,
            1,
            0x007f_ffff,
            0x0080_0000,
            0x3f80_0000,
            0x3f7f_ffff,
            0x4000_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7fc0_0000,
            0x7f80_0001,
            0x7fff_ffff,
            0x4f00_0000,
            0x5f00_0000,
            0x4b00_0001,
            0x3f00_0000,
        ];
        let sign = (self.u64() as u32) << 31;
        match self.below(8) {
            0..=2 => sign | self.pick(SPECIAL),
            3 => sign | self.u64() as u32 & 0x007f_ffff,
            // Of a magnitude that conversions to integers can take, or that a sum can cancel.
            4..=5 => sign | (118 + self.below(48) as u32) << 23 | self.u64() as u32 & 0x007f_ffff,
            6 => (self.below(1000) as f32 / 4.0).to_bits() | sign,
            _ => self.u64() as u32,
        }
    }

    /// The bits of a double.
    pub fn double(&mut self) -> u64 {
        const SPECIAL: &[u64] = &[
            0,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x3ff0_0000_0000_0000,
            0x3fef_ffff_ffff_ffff,
            0x4000_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0x7fff_ffff_ffff_ffff,
            0x41e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0x47ef_ffff_f000_0000,
            0x3810_0000_0000_0000,
            0x36a0_0000_0000_0000,
            0x3fe0_0000_0000_0000,
        ];
        let sign = self.u64() << 63;
        let fraction = self.u64() >> 12;
        match self.below(8) {
            0..=2 => sign | self.pick(SPECIAL),
            3 => sign | fraction,
            4..=5 => sign | (1013 + self.below(80)) << 52 | fraction,
            6 => (self.below(1000) as f64 / 4.0).to_bits() | sign,
            _ => self.u64(),
        }
    }

    /// The bits of a double-extended value, invalid encodings included.
    pub fn extended(&mut self) -> u128 {
        const SPECIAL: &[(u16, u64)] = &[
            (0, 0),
            (0, 1),
            (0, 0x7fff_ffff_ffff_ffff),
            (0, 0x8000_0000_0000_0000),
            (1, 0x8000_0000_0000_0000),
            (0x3fff, 0x8000_0000_0000_0000),
            (0x3ffe, 0xffff_ffff_ffff_ffff),
            (0x4000, 0x8000_0000_0000_0000),
            (0x7ffe, 0xffff_ffff_ffff_ffff),
            (0x7fff, 0x8000_0000_0000_0000),
            (0x7fff, 0xc000_0000_0000_0000),
            (0x7fff, 0x8000_0000_0000_0001),
            (0x7fff, 0xffff_ffff_ffff_ffff),
            (0x7fff, 0),
            (0x7fff, 1),
            (0x3fff, 1),
            (0x403e, 0x8000_0000_0000_0000),
            (0x401e, 0x8000_0000_0000_0000),
            (0x400e, 0x8000_0000_0000_0000),
        ];
        const INTEGER_BIT: u64 = 1 << 63;
        let (exponent, mantissa) = match self.below(8) {
            0..=2 => self.pick(SPECIAL),
            3 => (0x3fff - 20 + self.below(100) as u16, self.u64() | INTEGER_BIT),
            4 => (0x3fff - 5 + self.below(12) as u16, (self.u64() << 40) | INTEGER_BIT),
            5 => (0x3fff - 1080 + self.below(2160) as u16, self.u64() | INTEGER_BIT),
            6 => (self.u64() as u16 & 0x7fff, self.u64() | INTEGER_BIT),
            _ => (self.u64() as u16 & 0x7fff, self.u64()),
        };
        let sign = u128::from(self.u64() & 1) << 79;
        sign | u128::from(exponent) << 64 | u128::from(mantissa)
    }

    /// An XMM register or 16 bytes of memory.
    pub fn vector(&mut self) -> u128 {
        match self.below(4) {
            0 => (0..4).fold(0, |v, _| v << 32 | u128::from(self.single())),
            1 => u128::from(self.double()) << 64 | u128::from(self.double()),
            2 => u128::from(self.integer()) << 64 | u128::from(self.integer()),
            _ => u128::from(self.u64()) << 64 | u128::from(self.u64()),
        }
    }

    /// Ten packed decimal bytes.
    pub fn decimal(&mut self) -> u128 {
        let digits = (0..18).fold(0, |v, _| v << 4 | u128::from(self.below(10)));
        digits | u128::from(self.below(2) * 0x80) << 72
    }
}
