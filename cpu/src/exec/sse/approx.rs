//! RCPPS, RCPSS, RSQRTPS and RSQRTSS. The architecture bounds their error by 1.5 * 2^-12 and leaves the
//! bits open, so hosts differ. Our CPU model: the quotient in double precision, rounded to single, and
//! cut off behind the 12th bit of the fraction. MXCSR has no part in it and no exception is raised.

const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7f80_0000;
const QUIET: u32 = 0x0040_0000;
/// Keeps sign, exponent and 12 bits of the fraction.
const CUT: u32 = 0xffff_f800;
/// The NaN that an invalid operation gives.
const DEFAULT_NAN: u32 = 0xffc0_0000;

const fn is_nan(x: u32) -> bool {
    x & !SIGN > INFINITY
}

/// Zero or denormal: both count as zero.
const fn is_zero(x: u32) -> bool {
    x & INFINITY == 0
}

/// 1 / x. A tiny result is zero.
pub fn reciprocal(x: u32) -> u32 {
    let sign = x & SIGN;
    if is_nan(x) {
        return x | QUIET;
    }
    if is_zero(x) {
        return sign | INFINITY;
    }
    let r = (1.0 / f64::from(f32::from_bits(x))) as f32;
    if is_zero(r.to_bits()) { sign } else { r.to_bits() & CUT }
}

/// 1 / sqrt(x).
pub fn reciprocal_root(x: u32) -> u32 {
    if is_nan(x) {
        return x | QUIET;
    }
    if is_zero(x) {
        return x & SIGN | INFINITY;
    }
    if x & SIGN != 0 {
        return DEFAULT_NAN;
    }
    ((1.0 / f64::from(f32::from_bits(x)).sqrt()) as f32).to_bits() & CUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocals_are_these() {
        for (x, r) in [
            (0x3f80_0000, 0x3f80_0000), // 1
            (0x4000_0000, 0x3f00_0000), // 2
            (0x4040_0000, 0x3eaa_a800), // 3
            (0xc0e0_0000, 0xbe12_4800), // -7
            (0x3dcc_cccd, 0x4120_0000), // 0.1
            (0x7e7f_ffff, 0x0080_0000), // just below 2^126
            (0x7e80_0000, 0x0080_0000), // 2^126
            (0x7e80_0001, 0x0000_0000), // just above: tiny
            (0xff7f_ffff, 0x8000_0000), // -MAX
            (0x0080_0000, 0x7e80_0000), // smallest normal
            (0x0000_0000, 0x7f80_0000),
            (0x807f_ffff, 0xff80_0000), // denormal
            (0x7f80_0000, 0x0000_0000),
            (0xff80_0000, 0x8000_0000),
            (0x7f80_0001, 0x7fc0_0001), // signalling NaN
        ] {
            assert_eq!(reciprocal(x), r, "1 / {x:#x}: {:#x}", reciprocal(x));
        }
    }

    #[test]
    fn reciprocal_roots_are_these() {
        for (x, r) in [
            (0x3f80_0000, 0x3f80_0000), // 1
            (0x4000_0000, 0x3f35_0000), // 2
            (0x4080_0000, 0x3f00_0000), // 4
            (0x40e0_0000, 0x3ec1_8000), // 7
            (0x7f7f_ffff, 0x1f80_0000), // MAX
            (0x0080_0000, 0x5f00_0000), // smallest normal
            (0x0000_0001, 0x7f80_0000), // denormal
            (0x8000_0000, 0xff80_0000),
            (0xbf80_0000, 0xffc0_0000), // -1
            (0x7f80_0000, 0x0000_0000),
            (0xff80_0000, 0xffc0_0000),
            (0xffa0_0000, 0xffe0_0000), // signalling NaN
        ] {
            assert_eq!(reciprocal_root(x), r, "1 / sqrt {x:#x}: {:#x}", reciprocal_root(x));
        }
    }

    #[test]
    fn error_is_within_the_architecture_s_bound() {
        let bound = 1.5 / 4096.0;
        for i in 0..100_000u32 {
            let x = 0x0100_0000 + i * 20_011;
            let value = f64::from(f32::from_bits(x));
            if x < 0x7e00_0000 {
                let r = f64::from(f32::from_bits(reciprocal(x)));
                assert!((r * value - 1.0).abs() <= bound, "{x:#x}");
            }
            if x < 0x7f80_0000 {
                let r = f64::from(f32::from_bits(reciprocal_root(x)));
                assert!((r * value.sqrt() - 1.0).abs() <= bound, "{x:#x}");
            }
        }
    }
}
