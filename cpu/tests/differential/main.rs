//! Random user-mode instructions, executed natively by the host and by our CPU, compared in full.
//!
//! `FT_DIFF_SEED` and `FT_DIFF_CASES` override the fixed seed and the number of cases, `FT_DIFF_FIRST` the
//! number of the first case (to repeat one that failed).

mod harness;

use harness::engines::Engines;
use harness::{Session, env_number};

/// The seed of the regular run.
const SEED: u64 = 20_260_611;
/// Cases of the regular run.
const CASES: u64 = 220_000;

#[test]
fn random_instructions_match_the_host() {
    let seed = env_number("FT_DIFF_SEED").unwrap_or(SEED);
    let cases = env_number("FT_DIFF_CASES").unwrap_or(CASES);
    let first = env_number("FT_DIFF_FIRST").unwrap_or(0);
    let mut session = Session::new(seed);
    session.run(first, cases);
    println!("{}", session.summary());
    if cases >= CASES {
        session.assert_coverage();
    }
    assert!(
        session.mismatches().is_empty(),
        "{} cases differ from the host; repeat one with FT_DIFF_SEED={seed} FT_DIFF_FIRST=<case> \
         FT_DIFF_CASES=1\n\n{}",
        session.mismatch_count(),
        session.mismatches().join("\n")
    );
}

/// Blocks of the regular run.
const BLOCKS: u64 = 120_000;

#[test]
fn translated_blocks_match_the_interpreter() {
    let seed = env_number("FT_DIFF_SEED").unwrap_or(SEED);
    let blocks = env_number("FT_DIFF_CASES").unwrap_or(BLOCKS);
    let first = env_number("FT_DIFF_FIRST").unwrap_or(0);
    let mut engines = Engines::new(seed);
    let differences = engines.run(first, blocks);
    println!("{blocks} blocks, translated code entered {} times", engines.entries());
    assert!(engines.entries() >= blocks / 2, "most blocks ran translated");
    assert!(
        differences.is_empty(),
        "{} blocks differ; repeat one with FT_DIFF_SEED={seed} FT_DIFF_FIRST=<case> \
         FT_DIFF_CASES=1\n\n{}",
        differences.len(),
        differences[..differences.len().min(40)].join("\n")
    );
}
