//! Digests of many pages at once.
//!
//! A page is four chunks of blake3, and hashed alone it fills a quarter of a wide vector unit. Sixteen
//! pages side by side fill it: the same chunk of each, then their parents, then their roots. The digests are
//! blake3's own, at half the time a page.
//!
//! This uses blake3's `platform` module, which is public for benchmarks and promises nothing: the crate's
//! version is pinned, and the tests compare with `blake3::hash`. See
//! docs/decisions/0006-pages-are-digested-side-by-side.md.

use crate::bulk::PAGE;
use blake3::IncrementCounter;
use blake3::platform::Platform;

/// Pages side by side.
const LANES: usize = 16;
const CHUNK: usize = 1024;
/// Two chaining values.
const PARENT_BLOCK: usize = 64;

/// The key of plain hashing: the first words of SHA-256's initial state (blake3 specification, 2.2).
const KEY: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
// Domain flags (2.1).
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;

/// Chaining values or digests of up to [`LANES`] pages.
type Values = [[u8; 32]; LANES];

/// The blake3 digest of each page, in order.
pub fn of_pages(pages: &[&[u8; PAGE]]) -> Vec<[u8; 32]> {
    let platform = Platform::detect();
    let mut digests = Vec::with_capacity(pages.len());
    for group in pages.chunks(LANES) {
        digests.extend_from_slice(&of_group(platform, group)[..group.len()]);
    }
    digests
}

fn of_group(platform: Platform, pages: &[&[u8; PAGE]]) -> Values {
    let [a, b, c, d] = std::array::from_fn(|number| chunks(platform, pages, number));
    let left = parents(platform, &a, &b, pages.len(), PARENT);
    let right = parents(platform, &c, &d, pages.len(), PARENT);
    parents(platform, &left, &right, pages.len(), PARENT | ROOT)
}

/// Chaining values of chunk `number` of each page.
fn chunks(platform: Platform, pages: &[&[u8; PAGE]], number: usize) -> Values {
    let inputs: [&[u8; CHUNK]; LANES] = std::array::from_fn(|lane| {
        // Lanes beyond the last page are not looked at.
        let page = pages[lane.min(pages.len() - 1)];
        page.as_chunks().0[number..].first().expect("a page has its chunks")
    });
    let mut values = Values::default();
    platform.hash_many(
        &inputs[..pages.len()],
        &KEY,
        number as u64,
        IncrementCounter::No,
        0,
        CHUNK_START,
        CHUNK_END,
        &mut values.as_flattened_mut()[..pages.len() * 32],
    );
    values
}

/// Chaining values of the parents of two values each; with [`ROOT`] the digests.
fn parents(platform: Platform, left: &Values, right: &Values, pages: usize, flags: u8) -> Values {
    let mut blocks = [[0; PARENT_BLOCK]; LANES];
    for (block, (left, right)) in blocks.iter_mut().zip(left.iter().zip(right)) {
        block[..32].copy_from_slice(left);
        block[32..].copy_from_slice(right);
    }
    let inputs: [&[u8; PARENT_BLOCK]; LANES] = std::array::from_fn(|lane| &blocks[lane]);
    let mut values = Values::default();
    platform.hash_many(
        &inputs[..pages],
        &KEY,
        0,
        IncrementCounter::No,
        flags,
        0,
        0,
        &mut values.as_flattened_mut()[..pages * 32],
    );
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that differ in every byte that could matter.
    fn pages(count: usize) -> Vec<[u8; PAGE]> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..count).map(|_| std::array::from_fn(|_| byte())).collect()
    }

    #[test]
    fn they_are_blake3s_own_for_every_number_of_pages() {
        let mut pages = pages(35);
        pages[3] = [0; PAGE];
        for count in 0..=pages.len() {
            let some: Vec<&[u8; PAGE]> = pages[..count].iter().collect();
            let single: Vec<[u8; 32]> =
                some.iter().map(|page| *blake3::hash(*page).as_bytes()).collect();
            assert_eq!(of_pages(&some), single, "{count} pages");
        }
    }
}
