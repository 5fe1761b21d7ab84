//! What protection costs: the same work under `run` and under `up`, beside a process of the guest that
//! dirties memory at a steady rate.

use crate::guest::{Folder, Guest, Setup, append};
use crate::stats::Sample;
use crate::table::Table;
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(600);
/// Megabytes a second.
pub const RATES: [u32; 5] = [0, 20, 50, 100, 200];

/// Seconds of the work at each rate, in one boot.
fn once(
    setup: &Setup,
    protected: Option<&str>,
    rates: &[u32],
    work: u32,
) -> anyhow::Result<Vec<f64>> {
    let folder = Folder::new(setup)?;
    // A pause first: the pair is in sync when it is over.
    let loads = rates.iter().map(|rate| format!("dirty={rate},xorshift={work}"));
    let append = append(&format!("idle=8,{}", loads.collect::<Vec<_>>().join(",")));
    let common = ["guest.img", "--mem", "256M", "--append", append.as_str()];
    let mut command = match protected {
        None => folder.ft_pair(&["run"]),
        Some(active) => folder.ft_pair(&["up", "--name", "bench", "--active", active]),
    };
    let mut guest = Guest::start(command.args(common))?;
    guest.workload("idle", PATIENCE)?;
    if protected.is_some() {
        let status = folder.ask(&["status", "bench", "--json"])?;
        anyhow::ensure!(status["protected"] == true, "not in sync when the work began: {status}");
    }
    rates.iter().map(|_| guest.workload("xorshift", PATIENCE)).collect()
}

/// Runs them in turn.
pub fn measure(setup: &Setup, rounds: usize, quick: bool, rates: &[u32]) -> anyhow::Result<Table> {
    let work = if quick { 40 } else { 200 };
    const KINDS: [Option<&str>; 3] = [None, Some("replay"), Some("off")];
    // By kind, then rate.
    let mut seconds = [(); KINDS.len()].map(|()| vec![Vec::new(); rates.len()]);
    for _ in 0..rounds {
        for (kind, seconds) in KINDS.into_iter().zip(&mut seconds) {
            for (one, seconds) in once(setup, kind, rates, work)?.into_iter().zip(seconds) {
                seconds.push(one);
            }
        }
    }
    let columns =
        ["dirtied MB/s", "run s", "up replay s", "up off s", "replay slowdown %", "off slowdown %"];
    let mut table = Table::new("Slowdown of a protected guest", &columns);
    for (i, rate) in rates.iter().enumerate() {
        let median = |kind: usize| Sample::new(seconds[kind][i].clone()).median();
        let [run, replay, off] = [0, 1, 2].map(median);
        let slowdown = |up: f64| (up / run - 1.0) * 100.0;
        let cells = [run, replay, off, slowdown(replay), slowdown(off)].map(|v| json!(v));
        table.row(std::iter::once(json!(rate)).chain(cells).collect());
    }
    table.note(format!(
        "A loop of {work} million rounds (13 instructions each) beside `memdirty`; medians of {rounds}. \
         To be at most 15 % up to 100 MB/s on two cores."
    ));
    Ok(table)
}
