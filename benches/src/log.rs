//! Sizes of logs by what the guest did, and replay against the recording's own execution.

use crate::guest::{Folder, Guest, Setup, append};
use crate::table::Table;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(900);

/// What a recording showed.
struct Recorded {
    record_s: f64,
    replay_s: f64,
    stat: Value,
}

fn record(setup: &Setup, words: &str) -> anyhow::Result<Recorded> {
    let folder = Folder::new(setup)?;
    let append = append(words);
    let args = ["run", "guest.img", "--mem", "256M", "--record", "log", "--append", &append];
    let mut guest = Guest::start(&mut folder.ft_pair(&args))?;
    // The image is copied before the guest starts.
    let began = guest.line("Linux version", PATIENCE)?;
    guest.ended(PATIENCE)?;
    let record_s = began.elapsed().as_secs_f64();
    drop(guest);
    let replay = folder.ask(&["replay", "log", "--json"])?;
    anyhow::ensure!(replay["result"] == "equal", "the recording does not replay: {replay}");
    let stat = folder.ask(&["log", "stat", "log", "--json"])?;
    Ok(Recorded { record_s, replay_s: replay["seconds"].as_f64().unwrap_or(f64::NAN), stat })
}

/// Records a boot, and boots with work; the work's own share is the difference.
pub fn measure(setup: &Setup, quick: bool) -> anyhow::Result<Table> {
    let columns = [
        "recording",
        "M instructions",
        "guest s",
        "inputs B",
        "inputs B/M instr",
        "inputs B/guest s",
        "digests B",
        "record s",
        "replay s",
        "replay / record",
    ];
    let mut table = Table::new("Logs", &columns);
    let cpu = if quick { "xorshift=40" } else { "xorshift=400" };
    let idle = if quick { "idle=20" } else { "idle=60" };
    let began = Instant::now();
    let boot = record(setup, "idle=0")?;
    let of = |name: &str, recorded: &Recorded, base: Option<&Recorded>| {
        let less = |get: &dyn Fn(&Recorded) -> f64| get(recorded) - base.map_or(0.0, get);
        let number = |r: &Recorded, path: &str| r.stat.pointer(path).and_then(Value::as_f64);
        let get =
            |path: &'static str| less(&move |r: &Recorded| number(r, path).unwrap_or(f64::NAN));
        let (instructions, seconds) = (get("/instructions") / 1e6, get("/guest_ns") / 1e9);
        let (inputs, digests) = (get("/inputs/bytes"), get("/epochs/bytes"));
        let (recording, replaying) = (less(&|r| r.record_s), less(&|r| r.replay_s));
        let cells = [
            instructions,
            seconds,
            inputs,
            inputs / instructions,
            inputs / seconds,
            digests,
            recording,
            replaying,
            replaying / recording,
        ];
        std::iter::once(json!(name)).chain(cells.map(|v| json!(v))).collect::<Vec<_>>()
    };
    table.row(of("boot and power-off", &boot, None));
    table.row(of("the integer loop alone", &record(setup, &format!("idle=0,{cpu}"))?, Some(&boot)));
    table.row(of("idle alone", &record(setup, idle)?, Some(&boot)));
    table.note(
        "Limits: a boot's inputs under 1 MB, CPU-bound work under 10 B a million instructions, idle \
         under 1 KB a second, replay at most 1.1 times the recording's execution, idle replayed at once.",
    );
    table.note(format!("All of it took {:.0} s.", began.elapsed().as_secs_f64()));
    Ok(table)
}
