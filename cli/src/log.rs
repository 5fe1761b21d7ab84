//! `ft-pair log`: looks at a recorded log.

use crate::args::{LogArgs, LogCommand, LogDir};
use crate::failure::{FAILED, OrWrongUse, wrong_use};
use ft_pair_replay_log::{self as log_format, ClassStat, Rates, Reader, Record, Stat, Verdict};
use ft_pair_shared::Input;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// Shows, counts or verifies.
pub fn log(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let (LogCommand::Show(dir) | LogCommand::Stat(dir) | LogCommand::Verify(dir)) = &args.command;
    if !dir.dir.is_dir() {
        let shown = dir.dir.display();
        return Err(wrong_use(format!("{shown} is no directory: name one made by `run --record`")));
    }
    match &args.command {
        LogCommand::Show(dir) => show(dir),
        LogCommand::Stat(dir) => stat(dir),
        LogCommand::Verify(dir) => verify(dir),
    }
}

fn show(args: &LogDir) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for record in Reader::open(&args.dir).or_wrong_use()? {
        // A bad record ends the iteration; those before it are good and were printed.
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                drop(out.flush());
                return Err(error.into());
            }
        };
        let written = if args.json {
            serde_json::to_writer(&mut out, &record)
                .map_err(Into::into)
                .and_then(|()| writeln!(out))
        } else {
            writeln!(out, "{}", line(&record))
        };
        if written.is_err() {
            // Whoever reads (a pager) has seen enough.
            return Ok(ExitCode::SUCCESS);
        }
    }
    drop(out.flush());
    Ok(ExitCode::SUCCESS)
}

fn line(record: &Record) -> String {
    let at = record.position();
    match record {
        Record::Input { input: Input::Clock { time_ns, rate }, .. } => {
            let per = *rate as f64 / (1u64 << 32) as f64;
            format!("{at}  clock    {:.6} s, {per:.3} ns an instruction", *time_ns as f64 / 1e9)
        }
        Record::Input { input: Input::Console { first, bytes }, .. } => {
            format!("{at}  console  {first}: {}", bytes.escape_ascii())
        }
        Record::Input { input: Input::PowerButton, .. } => format!("{at}  power button"),
        Record::EpochEnd { epoch, digest, .. } => {
            let digest: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
            format!("{at}  epoch    {} ends, digest {digest}...", epoch.0)
        }
        Record::TlbFlush { .. } => format!("{at}  TLB flushed"),
        Record::End { .. } => format!("{at}  end"),
    }
}

fn stat(args: &LogDir) -> anyhow::Result<ExitCode> {
    let stat = log_format::stat(&args.dir).or_wrong_use()?;
    if args.json {
        println!("{}", serde_json::to_string(&stat)?);
    } else {
        print_stat(&stat);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_stat(stat: &Stat) {
    let class = |name: &str, c: &ClassStat| println!("{name:<16}{:>12}{:>14} B", c.count, c.bytes);
    println!("{:<16}{:>12}{:>16}", "records", "count", "encoded");
    class("clock anchors", &stat.clock);
    class("console input", &stat.console);
    class("power button", &stat.power);
    class("all inputs", &stat.inputs);
    class("epoch digests", &stat.epochs);
    class("TLB flushes", &stat.tlb_flushes);
    println!();
    let rates = |name: &str, r: &Rates| {
        let show = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        println!(
            "{name:<16}{:>12} B a million instructions{:>12} B a second of guest time",
            show(r.bytes_per_million_instructions),
            show(r.bytes_per_guest_second)
        );
    };
    rates("inputs", &stat.input_rates);
    rates("digests", &stat.digest_rates);
    rates("on disk", &stat.file_rates);
    println!();
    println!("{:<16}{:>12}", "instructions", stat.instructions);
    if let Some(ns) = stat.guest_ns {
        println!("{:<16}{:>12.3} s", "guest time", ns as f64 / 1e9);
    }
    println!("{:<16}{:>12} B in {} segments", "log files", stat.file_bytes, stat.segments);
    if !stat.finished {
        println!("the log has no end: it was cut off");
    }
}

fn verify(args: &LogDir) -> anyhow::Result<ExitCode> {
    let report = log_format::verify(&args.dir).or_wrong_use()?;
    let good = report.is_good();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        match &report.verdict {
            Verdict::Good => println!("good: {} records", report.stat.records.count),
            Verdict::Unfinished { place, torn } => println!(
                "unfinished: the log stops at {place} ({torn} bytes of a torn frame); what is before is good"
            ),
            Verdict::Refused { place, fault } => {
                println!("refused at {place}: {fault}; what is before is good");
            }
        }
        println!("index: {:?}", report.index);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
