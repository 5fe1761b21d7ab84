//! Whole-system tests: the real command, the real Debian kernel, kills at the worst moments.
//!
//! They assert facts, never timings, and end only what they started. They run one at a time.
//! `FT_SOAK_SECONDS` sets how long the soak works.

mod busy;
mod command;
mod failover;
mod faults;
mod frozen;
mod guest;
mod printk;
mod recording;
mod seed;
mod synchronisation;
mod typing;

use guest::APPEND;

/// The command line of a guest that writes its ledger.
fn ledger() -> String {
    format!("{APPEND} ft.ledger")
}

/// Arguments of `up` for every test, and more.
fn up<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["--name", "pair", "--events", "events"].iter().chain(more).copied().collect()
}
