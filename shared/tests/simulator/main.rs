//! The pair's protocol under a seeded simulator: two sides, their connections, a supervisor with sink and
//! witness, and everything that can go wrong between them.
//!
//! `FT_SIM_SEED=n` runs one seed with a trace; `FT_SIM_SEEDS=n` sets how many run.

mod check;
mod drive_master;
mod drive_slave;
mod faults;
mod guest;
mod process;
mod rng;
mod world;

use check::Coverage;
use ft_pair_shared::protocol::Mutations;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use world::Outcome;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// A mutation that is caught panics a thousand times: its words are wanted, its backtraces are not.
fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn outcome(seed: u64, mutations: Mutations) -> Result<(Outcome, Coverage), String> {
    silence_expected_panics();
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| world::run(seed, mutations, false)));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("FT_SIM_SEED") {
        println!("{:?}", world::run(seed, Mutations::NONE, true));
        return;
    }
    let seeds = number("FT_SIM_SEEDS").unwrap_or(10_000);
    let next = AtomicU64::new(0);
    let (recovered, lost) = (AtomicU64::new(0), AtomicU64::new(0));
    let coverage = std::sync::Mutex::new(Coverage::default());
    let failed = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    match outcome(seed, Mutations::NONE) {
                        Ok((how, seen)) => {
                            let count = if how == Outcome::Lost { &lost } else { &recovered };
                            count.fetch_add(1, Ordering::Relaxed);
                            coverage.lock().unwrap().add(seen);
                        }
                        Err(text) => failed.lock().unwrap().push((seed, text)),
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    for (seed, text) in failed.iter().take(10) {
        println!("FT_SIM_SEED={seed} fails: {text}");
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds fail", failed.len());
    let (recovered, lost) = (recovered.into_inner(), lost.into_inner());
    let coverage = coverage.into_inner().unwrap();
    println!("{seeds} seeds: {recovered} recovered, {lost} lost their guest; {coverage:?}");
    assert!(lost * 8 < seeds, "few runs end without a side that could go on: {lost} of {seeds}");
    if seeds >= 10_000 {
        assert!(
            coverage.each().iter().all(|times| *times >= 50),
            "everything happens: {coverage:?}"
        );
    }
}

/// The simulator catches this fault within so many seeds.
fn caught(name: &str, mutations: Mutations) {
    const SEEDS: u64 = 2_000;
    let found = (0..SEEDS).find_map(|seed| Some((seed, outcome(seed, mutations).err()?)));
    let (seed, text) = found.unwrap_or_else(|| panic!("{name}: no seed of {SEEDS} shows it"));
    println!("{name}: seed {seed}: {}", text.lines().next().unwrap_or(""));
}

macro_rules! mutations {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            caught(stringify!($name), Mutations { $name: true, ..Mutations::NONE });
        }
    )*};
}

mod catches {
    use super::{Mutations, caught};

    mutations!(
        no_commit_check,
        early_ack,
        no_fencing,
        no_deduplication,
        no_in_sync_check,
        no_witness,
        no_flush_check,
        diverged_promotes,
        forget_committed_output,
        no_in_sync_confirmation,
        finish_early
    );
}
