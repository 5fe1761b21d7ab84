//! Unsigned LEB128 with exactly one encoding per value, and zigzag for signed differences.

use crate::codec::CodecError;

/// Appends `value`, 7 bits a byte, least significant first: 1 to 10 bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one value off the front of `input`; refuses longer forms than [`put`] writes.
pub(crate) fn take(input: &mut &[u8]) -> Result<u64, CodecError> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && byte > 1 {
            return Err(CodecError::Varint);
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            if byte == 0 && i > 0 {
                return Err(CodecError::Varint);
            }
            *input = &input[i + 1..];
            return Ok(value);
        }
    }
    Err(CodecError::Truncated)
}

/// The difference `to - from` modulo 2^64, small in magnitude first: 0, -1, 1, -2, ...
pub(crate) const fn zigzag(from: u64, to: u64) -> u64 {
    let delta = to.wrapping_sub(from) as i64;
    ((delta << 1) ^ (delta >> 63)) as u64
}

/// Undoes [`zigzag`]: the `to` whose coded difference from `from` is `code`.
pub(crate) const fn unzigzag(from: u64, code: u64) -> u64 {
    from.wrapping_add((code >> 1) ^ (code & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longer_forms_and_overflow_are_refused() {
        for bad in [&[0x80, 0][..], &[0xff, 0], &[0xff; 10], &[0x80; 11]] {
            assert_eq!(take(&mut &bad[..]), Err(CodecError::Varint), "{bad:x?}");
        }
        assert_eq!(take(&mut &[0x80; 3][..]), Err(CodecError::Truncated));
        assert_eq!(take(&mut &[][..]), Err(CodecError::Truncated));
    }

    proptest! {
        #[test]
        fn values_come_back(shift in 0u32..64, value: u64, from: u64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put(&mut out, value);
            let mut rest = &out[..];
            prop_assert_eq!(take(&mut rest), Ok(value));
            prop_assert!(rest.is_empty() && out.len() <= 10);
            prop_assert_eq!(unzigzag(from, zigzag(from, value)), value);
        }
    }
}
