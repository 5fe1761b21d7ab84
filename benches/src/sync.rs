//! A new Slave for a guest with a busy gibibyte.

use crate::guest::{Folder, Guest, Setup, append, kill};
use crate::stats::Sample;
use crate::table::Table;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(600);
/// Megabytes that the guest dirties a second.
const RATE: u32 = 40;

fn resyncs(folder: &Folder) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path("events")).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == "resync").collect()
}

fn syncs(setup: &Setup, active: &str, count: usize, quick: bool) -> anyhow::Result<Vec<Value>> {
    let folder = Folder::new(setup)?;
    let span = if quick { 256 } else { 1024 };
    let memory = format!("{}M", span + 256);
    let append = append(&format!("touch={span}:{RATE}"));
    let mut command = folder.ft_pair(&["up", "guest.img", "--name", "bench", "--events", "events"]);
    command.args(["--mem", &memory, "--active", active, "--append", &append]);
    let mut guest = Guest::start(&mut command)?;
    guest.line("memdirty filled", PATIENCE)?;
    std::thread::sleep(Duration::from_secs(if quick { 10 } else { 60 }));
    let mut found = Vec::new();
    while found.len() < count {
        let before = resyncs(&folder).len();
        let status = folder.ask(&["status", "bench", "--json"])?;
        kill(status["slave"]["pid"].as_u64().context("a Slave runs")?)?;
        let until = Instant::now() + PATIENCE;
        while resyncs(&folder).len() == before {
            anyhow::ensure!(Instant::now() < until, "no synchronisation within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        found.extend(resyncs(&folder).pop());
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(found)
}

/// Kills the Slave, again and again, and takes the figures of its successors' synchronisations.
pub fn measure(setup: &Setup, rounds: usize, quick: bool) -> anyhow::Result<Table> {
    let columns = ["active", "MB sent", "took ms", "pause median ms", "pause max ms"];
    let title = format!("Synchronisation of a guest that dirties {RATE} MB/s");
    let mut table = Table::new(title, &columns);
    for active in ["replay", "off"] {
        let found = syncs(setup, active, rounds, quick)?;
        let of = |name: &str, scale: f64| {
            Sample::new(found.iter().filter_map(|e| Some(e[name].as_f64()? / scale)).collect())
        };
        let pause = of("pause_us", 1e3);
        table.row(vec![
            json!(active),
            json!(of("bytes", 1e6).median()),
            json!(of("took_ms", 1.0).median()),
            json!(pause.median()),
            json!(pause.max()),
        ]);
    }
    table.note("The pause is to be under 100 ms at 1 GiB after a busy minute.");
    Ok(table)
}
