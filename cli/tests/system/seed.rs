//! Random numbers from a fixed seed: a test types the same on every run.

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// Lower-case letters and digits.
    pub fn word(&mut self, len: u64) -> String {
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
        (0..len).map(|_| char::from(letters[self.below(letters.len() as u64) as usize])).collect()
    }
}
