//! From SIGKILL of the Master to the Slave executing live, detection included, with a gibibyte of guest
//! memory touched and being dirtied.

use crate::guest::{Folder, Guest, Setup, append, kill};
use crate::stats::Sample;
use crate::table::Table;
use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(300);
const SEED: u64 = 0xfa11;

/// Events of a pair as they are written, by the host's clock.
struct Events(Receiver<(Instant, Value)>);

impl Events {
    /// Reads a pipe that the pair takes for a file.
    fn read(path: &Path) -> anyhow::Result<Self> {
        mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?;
        let path = path.to_owned();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let Ok(file) = File::open(path) else { return };
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                let at = Instant::now();
                let Ok(value) = serde_json::from_str(&line) else { continue };
                if sender.send((at, value)).is_err() {
                    return;
                }
            }
        });
        Ok(Self(receiver))
    }

    fn next(&self, kind: &str) -> anyhow::Result<(Instant, Value)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (at, event) =
                self.0.recv_timeout(left).with_context(|| format!("no event `{kind}`"))?;
            if event["event"] == kind {
                return Ok((at, event));
            }
        }
    }
}

#[derive(Debug, Default)]
struct Times {
    live: Vec<f64>,
    output: Vec<f64>,
}

fn kills(setup: &Setup, active: &str, count: usize, span: u32) -> anyhow::Result<Times> {
    let folder = Folder::new(setup)?;
    let events = Events::read(&folder.path("events"))?;
    let memory = format!("{}M", span + 256);
    let append = append(&format!("touch={span}:50"));
    let mut command = folder.ft_pair(&["up", "guest.img", "--name", "bench", "--events", "events"]);
    command.args(["--mem", &memory, "--active", active, "--append", &append]);
    let mut guest = Guest::start(&mut command)?;
    guest.line("memdirty filled", PATIENCE)?;
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(SEED);
    let mut times = Times::default();
    for _ in 0..count {
        events.next("resync")?;
        std::thread::sleep(Duration::from_millis(random.random_range(500..2000)));
        let status = folder.ask(&["status", "bench", "--json"])?;
        let master = status["master"]["pid"].as_u64().context("a Master runs")?;
        let killed = Instant::now();
        kill(master)?;
        let (at, _) = events.next("failover")?;
        times.live.push(at.duration_since(killed).as_secs_f64() * 1e3);
        // The guest counts aloud: the first line since it is live.
        guest.drain();
        let output = guest.line("tick ", PATIENCE)?;
        times.output.push(output.duration_since(killed).as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Kills Masters under both settings.
pub fn measure(setup: &Setup, count: usize, quick: bool) -> anyhow::Result<Table> {
    let span = if quick { 256 } else { 1024 };
    let columns =
        ["active", "kills", "live median ms", "p90 ms", "max ms", "next output median ms"];
    let title = format!("Failover with {span} MiB touched, from SIGKILL");
    let mut table = Table::new(title, &columns);
    for active in ["replay", "off"] {
        let Times { live, output } = kills(setup, active, count, span)?;
        let (live, output) = (Sample::new(live), Sample::new(output));
        table.row(vec![
            json!(active),
            json!(count),
            json!(live.median()),
            json!(live.quantile(0.9)),
            json!(live.max()),
            json!(output.median()),
        ]);
    }
    table.note(
        "Live: the Slave executes as the Master, detection included (to be under 50 ms at the median). \
         Next output: a line that the guest had not put out before the kill, every 10 ms of its time.",
    );
    Ok(table)
}
