//! `ft-pair replay`: executes a recording again and compares every digest.

use crate::args::ReplayArgs;
use crate::failure::{FAILED, OrWrongUse, wrong_use};
use crate::guest;
use crate::recording::{DISK, Recipe};
use anyhow::Context as _;
use ft_pair_machine::disk::OverlayDisk;
use ft_pair_replay_log::Reader;
use ft_pair_shared::Position;
use ft_pair_slave::replay::{Outcome, Progress, Scratch, replay as execute};
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Parses a position: `RETIRED`, `RETIRED+REP` or `RETIRED+REP.SEQ`.
pub fn parse_position(text: &str) -> Result<Position, String> {
    let parse = || {
        let (retired, rest) = text.split_once('+').unwrap_or((text, "0"));
        let (rep, seq) = rest.split_once('.').unwrap_or((rest, "0"));
        Some(Position {
            retired: retired.parse().ok()?,
            rep: rep.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    };
    parse().ok_or_else(|| format!("`{text}` is no position: write it like 1000000 or 1000000+0.2"))
}

/// Executes a recording.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let dir = &args.dir;
    if !dir.is_dir() {
        let shown = dir.display();
        return Err(wrong_use(format!("{shown} is no directory: name one made by `run --record`")));
    }
    let reader = Reader::open(dir).or_wrong_use()?;
    let header = reader.header().clone();
    let recipe = Recipe::from_header(&header, dir).or_wrong_use()?;
    let files = recipe.check(&header, dir).or_wrong_use()?;
    let (disk, control) = if recipe.disk {
        let scratch = Scratch::open(&dir.join(DISK))?;
        let sectors = scratch.sectors();
        let overlay = OverlayDisk::with_file(Box::new(scratch), "replay".into(), sectors, 1 << 30)?;
        let control = overlay.control();
        control.set_unprotected(true);
        (Box::new(overlay) as _, Some(control))
    } else {
        (guest::no_disk(), None)
    };
    let initrd = files.initrd.as_deref();
    let machine = guest::boot(&recipe.machine, &files.kernel, initrd, &recipe.cmdline, disk)
        .context("the recorded machine cannot be made again")?;

    let began = Instant::now();
    let mut shown = None::<Instant>;
    let show = !args.quiet && !args.json && std::io::stderr().is_terminal();
    let outcome = execute(machine, control, reader, args.until, &mut |progress: &Progress| {
        if show && shown.is_none_or(|at| at.elapsed() >= Duration::from_millis(300)) {
            shown = Some(Instant::now());
            eprint!("\rreplayed {} epochs, to {} ", progress.epochs, progress.position);
        }
    });
    if show {
        eprintln!();
    }
    finish(args, &outcome, began.elapsed())
}

fn finish(args: &ReplayArgs, outcome: &Outcome, took: Duration) -> anyhow::Result<ExitCode> {
    let (result, progress) = match outcome {
        Outcome::Equal(progress) => ("equal", progress),
        Outcome::Diverged { progress, .. } => ("diverged", progress),
        Outcome::BadLog { progress, .. } => ("bad-log", progress),
    };
    let text = match outcome {
        Outcome::Equal(_) => "every digest is equal".to_owned(),
        Outcome::Diverged { at, why, .. } => format!(
            "diverged at {at}: {why}; the last equal digest is that of position {}",
            progress.verified
        ),
        Outcome::BadLog { error, .. } => format!("the log is bad: {error}"),
    };
    if args.json {
        let value = json!({
            "result": result,
            "epochs": progress.epochs,
            "position": progress.position.to_string(),
            "verified": progress.verified.to_string(),
            "seconds": took.as_secs_f64(),
            "detail": text,
        });
        println!("{value}");
    } else {
        println!(
            "{} epochs, to position {}, in {:.1} s: {text}",
            progress.epochs,
            progress.position,
            took.as_secs_f64()
        );
    }
    let good = matches!(outcome, Outcome::Equal(_));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_printed() {
        let position = Position { retired: 12, rep: 3, seq: 4 };
        assert_eq!(parse_position(&position.to_string()), Ok(position));
        assert_eq!(parse_position("99"), Ok(Position::at(99)));
        assert!(parse_position("x").is_err());
    }
}
