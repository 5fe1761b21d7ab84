//! `ft-pair-bench`: the figures that the project promises, measured on real guests.
//!
//! What is compared is run in turn, in the same run, on the same image and kernel; medians and ratios are
//! printed. docs/performance.md holds the figures and says what they are worth.

mod failover;
mod guest;
mod host;
mod log;
mod qemu;
mod slowdown;
mod stats;
mod sync;
mod table;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use guest::Setup;
use std::path::PathBuf;

/// Benchmarks of ft-pair on real guests.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Bench,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Measurements of each kind [default: 5, failovers 20; quick: 1, failovers 5]
    #[arg(long, global = true)]
    rounds: Option<usize>,
    /// Fewer and shorter
    #[arg(long, global = true)]
    quick: bool,
    /// JSON, one object a table
    #[arg(long, global = true)]
    json: bool,
    /// The command to measure; default: beside this one
    #[arg(long, global = true, value_name = "FILE")]
    ft_pair: Option<PathBuf>,
    /// The guest image (`make image`)
    #[arg(long, global = true, value_name = "FILE", default_value = "var/images/base.img")]
    image: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
enum Bench {
    /// The software CPU against QEMU's translator: boot, loops, digests, copies, fork and exec
    Qemu {
        /// Only these workloads, separated by commas
        #[arg(long)]
        only: Option<String>,
    },
    /// A pair against an unprotected guest, at several rates of dirtied memory
    Slowdown {
        /// Megabytes dirtied a second
        #[arg(long, value_delimiter = ',', default_values_t = slowdown::RATES)]
        rates: Vec<u32>,
    },
    /// From SIGKILL to the Slave executing live, with a gibibyte touched
    Failover,
    /// Sizes of logs, and the speed of replay
    Log,
    /// Synchronisation of a new Slave with a busy gibibyte
    Sync,
    /// All of them
    All,
}

fn main() -> anyhow::Result<()> {
    let Cli { command, common } = Cli::parse();
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("ft-pair"));
    let ft_pair = common.ft_pair.clone().or_else(beside).context("where is ft-pair?")?;
    anyhow::ensure!(ft_pair.exists(), "{}: build it: make build", ft_pair.display());
    let image = std::fs::canonicalize(&common.image)
        .with_context(|| format!("{}: make it: make image", common.image.display()))?;
    let setup = Setup { ft_pair: std::fs::canonicalize(ft_pair)?, image };
    if !common.json {
        println!("{}", host::describe());
    }
    let rounds = common.rounds.unwrap_or(if common.quick { 1 } else { 5 });
    let kills = common.rounds.unwrap_or(if common.quick { 5 } else { 20 });
    let all = matches!(command, Bench::All);
    if all || matches!(command, Bench::Qemu { .. }) {
        let only = match &command {
            Bench::Qemu { only } => only.clone(),
            _ => None,
        };
        qemu::compare(&setup, rounds, common.quick, only.as_deref())?.print(common.json);
    }
    if all || matches!(command, Bench::Slowdown { .. }) {
        let rates = match &command {
            Bench::Slowdown { rates } => rates.clone(),
            _ => slowdown::RATES.to_vec(),
        };
        slowdown::measure(&setup, rounds, common.quick, &rates)?.print(common.json);
    }
    if all || matches!(command, Bench::Failover) {
        failover::measure(&setup, kills, common.quick)?.print(common.json);
    }
    if all || matches!(command, Bench::Log) {
        log::measure(&setup, common.quick)?.print(common.json);
    }
    if all || matches!(command, Bench::Sync) {
        sync::measure(&setup, rounds, common.quick)?.print(common.json);
    }
    Ok(())
}
