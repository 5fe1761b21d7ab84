//! RFLAGS. The six arithmetic flags are kept in a lazy form that costs a few operations to write and is
//! decoded only where somebody reads it.

/// Carry.
pub const CF: u64 = 1;
/// Parity.
pub const PF: u64 = 1 << 2;
/// Auxiliary carry.
pub const AF: u64 = 1 << 4;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Sign.
pub const SF: u64 = 1 << 7;
/// Trap (single step).
pub const TF: u64 = 1 << 8;
/// Interrupt enable.
pub const IF: u64 = 1 << 9;
/// Direction.
pub const DF: u64 = 1 << 10;
/// Overflow.
pub const OF: u64 = 1 << 11;
/// I/O privilege level.
pub const IOPL: u64 = 3 << 12;
/// Nested task.
pub const NT: u64 = 1 << 14;
/// Resume.
pub const RF: u64 = 1 << 16;
/// Virtual 8086 mode.
pub const VM: u64 = 1 << 17;
/// Alignment check; with SMAP: access to user pages allowed.
pub const AC: u64 = 1 << 18;
/// Identification.
pub const ID: u64 = 1 << 21;
/// The six arithmetic flags.
pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;
/// Every flag that can be set.
pub const ALL: u64 = ARITH | TF | IF | DF | IOPL | NT | RF | AC | ID;

/// RFLAGS, arithmetic part lazy:
/// ZF is `zero == 0`; SF is bit 63 of `sign_parity`, PF the parity of its low byte; CF is bit 63 of
/// `carry`, OF bit 63 xor bit 62, AF bit 3.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Flags {
    zero: u64,
    sign_parity: u64,
    carry: u64,
    /// The flags that are not arithmetic, in their architectural places (bit 1 is left out).
    pub other: u64,
}

impl Default for Flags {
    fn default() -> Self {
        Self::from_rflags(2)
    }
}

impl PartialEq for Flags {
    fn eq(&self, rhs: &Self) -> bool {
        self.rflags() == rhs.rflags()
    }
}

impl Eq for Flags {}

const fn sign_extend(value: u64, bits: u32) -> u64 {
    (((value << (64 - bits)) as i64) >> (64 - bits)) as u64
}

impl Flags {
    /// From an RFLAGS image; bits outside [`ALL`] are dropped.
    pub const fn from_rflags(rflags: u64) -> Self {
        let mut flags = Self { zero: 0, sign_parity: 0, carry: 0, other: rflags & ALL & !ARITH };
        flags.set_arith(rflags);
        flags
    }

    /// The RFLAGS image, reserved bit 1 set.
    pub const fn rflags(&self) -> u64 {
        self.other | self.arith() | 2
    }

    /// The six arithmetic flags in their architectural places.
    pub const fn arith(&self) -> u64 {
        (self.cf() as u64)
            | (self.pf() as u64) << 2
            | (self.af() as u64) << 4
            | (self.zf() as u64) << 6
            | (self.sf() as u64) << 7
            | (self.of() as u64) << 11
    }

    /// Sets all six arithmetic flags from their architectural places.
    pub const fn set_arith(&mut self, rflags: u64) {
        let cf = rflags & 1;
        let of = (rflags >> 11) & 1;
        self.zero = (rflags & ZF == 0) as u64;
        self.sign_parity = (rflags & SF) << 56 | (rflags & PF == 0) as u64;
        self.carry = cf << 63 | (cf ^ of) << 62 | (rflags & AF) >> 1;
    }

    /// Sets the arithmetic flags in `mask` from `rflags`, leaves the others.
    pub const fn set_some(&mut self, mask: u64, rflags: u64) {
        self.set_arith(self.arith() & !mask | rflags & mask);
    }

    /// Carry.
    #[inline(always)]
    pub const fn cf(&self) -> bool {
        self.carry >> 63 != 0
    }

    /// Zero.
    #[inline(always)]
    pub const fn zf(&self) -> bool {
        self.zero == 0
    }

    /// Sign.
    #[inline(always)]
    pub const fn sf(&self) -> bool {
        self.sign_parity >> 63 != 0
    }

    /// Overflow.
    #[inline(always)]
    pub const fn of(&self) -> bool {
        (self.carry ^ (self.carry << 1)) >> 63 != 0
    }

    /// Parity.
    #[inline(always)]
    pub const fn pf(&self) -> bool {
        (self.sign_parity as u8).count_ones() & 1 == 0
    }

    /// Auxiliary carry.
    #[inline(always)]
    pub const fn af(&self) -> bool {
        self.carry & 8 != 0
    }

    /// Sets CF alone.
    #[inline(always)]
    pub const fn set_cf(&mut self, cf: bool) {
        let of = self.of();
        let cf = cf as u64;
        self.carry = (self.carry & 8) | cf << 63 | (cf ^ of as u64) << 62;
    }

    /// Sets ZF alone.
    #[inline(always)]
    pub const fn set_zf(&mut self, zf: bool) {
        self.zero = !zf as u64;
    }

    /// Sets CF and OF, leaves the others (rotates, multiplications).
    #[inline(always)]
    pub const fn set_cf_of(&mut self, cf: bool, of: bool) {
        let cf = cf as u64;
        self.carry = (self.carry & 8) | cf << 63 | (cf ^ of as u64) << 62;
    }

    /// After a shift: CF and OF as given, AF set (the manual leaves it open; AMD's Zen sets it).
    #[inline(always)]
    pub const fn set_shift(&mut self, result: u64, bits: u32, cf: bool, of: bool) {
        self.set_szp(result, bits);
        let cf = cf as u64;
        self.carry = 8 | cf << 63 | (cf ^ of as u64) << 62;
    }

    /// The result of an operation on `bits` bits (8, 16, 32, 64) decides ZF, SF and PF.
    #[inline(always)]
    pub const fn set_szp(&mut self, result: u64, bits: u32) {
        let r = sign_extend(result, bits);
        self.zero = r;
        self.sign_parity = r;
    }

    /// After AND, OR, XOR, TEST: CF and OF cleared; AF cleared (the manual leaves it open).
    #[inline(always)]
    pub const fn set_logic(&mut self, result: u64, bits: u32) {
        self.set_szp(result, bits);
        self.carry = 0;
    }

    #[inline(always)]
    const fn set_carries(&mut self, carries: u64, bits: u32) {
        self.carry = (carries << (64 - bits)) & (3 << 62) | carries & 8;
    }

    /// After `result = a + b (+ carry in)`.
    #[inline(always)]
    pub const fn set_add(&mut self, a: u64, b: u64, result: u64, bits: u32) {
        self.set_szp(result, bits);
        self.set_carries((a & b) | ((a | b) & !result), bits);
    }

    /// After `result = a - b (- carry in)`.
    #[inline(always)]
    pub const fn set_sub(&mut self, a: u64, b: u64, result: u64, bits: u32) {
        self.set_szp(result, bits);
        self.set_carries((!a & b) | ((!a | b) & result), bits);
    }

    /// After INC: like `a + 1`, CF kept.
    #[inline(always)]
    pub const fn set_inc(&mut self, a: u64, result: u64, bits: u32) {
        let cf = self.cf();
        self.set_add(a, 1, result, bits);
        self.set_cf(cf);
    }

    /// After DEC: like `a - 1`, CF kept.
    #[inline(always)]
    pub const fn set_dec(&mut self, a: u64, result: u64, bits: u32) {
        let cf = self.cf();
        self.set_sub(a, 1, result, bits);
        self.set_cf(cf);
    }

    /// Condition `cc` (0 to 15) as Jcc, SETcc and CMOVcc encode it.
    #[inline(always)]
    pub const fn condition(&self, cc: u8) -> bool {
        let value = match cc >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        value != (cc & 1 != 0)
    }

    /// One of the other flags.
    #[inline(always)]
    pub const fn has(&self, flag: u64) -> bool {
        self.other & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arithmetic_combination_survives() {
        for bits in 0..64u64 {
            let image = (bits & 1)
                | (bits >> 1 & 1) << 2
                | (bits >> 2 & 1) << 4
                | (bits >> 3 & 1) << 6
                | (bits >> 4 & 1) << 7
                | (bits >> 5 & 1) << 11;
            assert_eq!(Flags::from_rflags(image).arith(), image);
        }
    }

    #[test]
    fn add_and_sub_of_bytes_match_arithmetic() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let mut f = Flags::default();
                let r = a.wrapping_add(b);
                f.set_add(a.into(), b.into(), r.into(), 8);
                assert_eq!(f.cf(), a.checked_add(b).is_none());
                assert_eq!(f.of(), (a as i8).checked_add(b as i8).is_none());
                assert_eq!(f.af(), (a & 15) + (b & 15) > 15);
                assert_eq!((f.zf(), f.sf()), (r == 0, r >= 128));
                let r = a.wrapping_sub(b);
                f.set_sub(a.into(), b.into(), r.into(), 8);
                assert_eq!(f.cf(), a < b);
                assert_eq!(f.of(), (a as i8).checked_sub(b as i8).is_none());
                assert_eq!(f.af(), a & 15 < b & 15);
                assert_eq!(f.pf(), r.count_ones() % 2 == 0);
            }
        }
    }
}
