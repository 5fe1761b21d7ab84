//! The differential test without an end: new seeds until it is stopped.
//!
//! `cargo run --release -p ft-pair-cpu --example differential -- [--seed N]`: with `--seed` the first seed,
//! the following ones count up from it.

#[path = "../tests/differential/harness/mod.rs"]
mod harness;

use harness::engines::Engines;
use harness::{Session, env_number};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

const CASES: u64 = 500_000;

fn first_seed() -> Result<u64, String> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
            Ok(now.as_nanos() as u64 & 0xffff_ffff)
        }
        (Some("--seed"), Some(seed)) => seed.parse().map_err(|e| format!("--seed {seed}: {e}")),
        _ => Err("usage: differential [--seed N]".to_owned()),
    }
}

fn main() -> ExitCode {
    let mut seed = match first_seed() {
        Ok(seed) => seed,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let cases = env_number("FT_DIFF_CASES").unwrap_or(CASES);
    loop {
        let mut session = Session::new(seed);
        session.run(0, cases);
        println!("seed {seed}: {}", session.summary());
        if !session.mismatches().is_empty() {
            println!("{}", session.mismatches().join("\n"));
            return ExitCode::FAILURE;
        }
        if cases >= CASES {
            session.assert_coverage();
        }
        let mut engines = Engines::new(seed);
        let differences = engines.run(0, cases);
        println!("seed {seed}: {cases} blocks in both engines, {} entries", engines.entries());
        if !differences.is_empty() {
            println!("{}", differences.join("\n"));
            return ExitCode::FAILURE;
        }
        seed += 1;
    }
}
