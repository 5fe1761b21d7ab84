//! `ft-pair status`, `stats`, `failover`, `down`, `inject`: one question over the control socket.

use crate::args::{FaultArg, InjectArgs, Target};
use crate::control::Ask;
use crate::failure::FAILED;
use crate::rundir;
use crate::size;
use anyhow::{Context as _, bail};
use ft_pair_shared::supervision::Fault;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;

/// Asks a pair; gives its name and the answer. An answer with `error` is an error.
pub fn ask(name: Option<&str>, ask: &Ask) -> anyhow::Result<(String, Value)> {
    let (name, stream) = rundir::connect(name)?;
    let mut line = serde_json::to_string(ask)?;
    line.push('\n');
    let gone = || format!("the pair `{name}` ended without an answer");
    (&stream).write_all(line.as_bytes()).with_context(gone)?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer).with_context(gone)?;
    if answer.is_empty() {
        bail!("the pair `{name}` ended without an answer");
    }
    let answer: Value = serde_json::from_str(&answer).context("the pair's answer is damaged")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("{error}");
    }
    Ok((name, answer))
}

/// `ft-pair status`
pub fn status(target: &Target) -> anyhow::Result<ExitCode> {
    let (_, answer) = ask(target.name.as_deref(), &Ask::Status)?;
    if target.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let side = |role: &str| match answer[role]["pid"].as_u64() {
        Some(pid) => {
            format!("process {pid}, side {}", answer[role]["side"].as_str().unwrap_or("?"))
        }
        None => "none".to_owned(),
    };
    println!("{:<12}{}", "name", answer["name"].as_str().unwrap_or("?"));
    println!("{:<12}{}", "image", answer["image"].as_str().unwrap_or("?"));
    let protected = answer["protected"] == true;
    println!("{:<12}{}", "protected", if protected { "yes" } else { "no" });
    println!("{:<12}{}", "Master", side("master"));
    println!("{:<12}{}", "Slave", side("slave"));
    println!("{:<12}{}", "generation", answer["generation"]);
    println!("{:<12}{}", "epoch", answer["epoch"]);
    println!("{:<12}{} s", "up for", answer["uptime_s"].as_f64().unwrap_or(0.0).round());
    println!("{:<12}{}", "active", answer["active"].as_str().unwrap_or("?"));
    println!("{:<12}{}", "memory", size::show(answer["mem"].as_u64().unwrap_or(0)));
    if let Some(dir) = answer["recording"].as_str() {
        println!("{:<12}{dir}", "recording");
    }
    for said in answer["said"].as_array().into_iter().flatten() {
        let ago = said["ago_s"].as_f64().unwrap_or(0.0);
        println!("{:<12}{}", format!("{ago:.0} s ago"), said["text"].as_str().unwrap_or(""));
    }
    Ok(ExitCode::SUCCESS)
}

/// `ft-pair stats`
pub fn stats(target: &Target) -> anyhow::Result<ExitCode> {
    let (_, answer) = ask(target.name.as_deref(), &Ask::Stats)?;
    if target.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    print_tree("", &answer);
    Ok(ExitCode::SUCCESS)
}

/// Prints nested values, one a line.
fn print_tree(prefix: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace(['_', '-'], " ");
                let name = if prefix.is_empty() { key } else { format!("{prefix}, {key}") };
                print_tree(&name, value);
            }
        }
        Value::Array(items) if items.is_empty() => println!("{prefix:<36}none"),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                print_tree(&format!("{prefix} {}", i + 1), item);
            }
        }
        Value::String(text) => println!("{prefix:<36}{text}"),
        other => println!("{prefix:<36}{other}"),
    }
}

/// `ft-pair failover`
pub fn failover(target: &Target) -> anyhow::Result<ExitCode> {
    let (name, answer) = ask(target.name.as_deref(), &Ask::Failover)?;
    if target.json {
        println!("{answer}");
    } else {
        println!("{name}: the Slave is live, generation {}", answer["generation"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// `ft-pair down`
pub fn down(target: &Target) -> anyhow::Result<ExitCode> {
    let (name, answer) = ask(target.name.as_deref(), &Ask::Down)?;
    if target.json {
        println!("{answer}");
    } else {
        println!("{name}: {}", answer["reason"].as_str().unwrap_or("ended"));
    }
    let off = answer["off"] == true;
    Ok(if off { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// `ft-pair inject`
pub fn inject(args: &InjectArgs) -> anyhow::Result<ExitCode> {
    let fault = match args.fault {
        FaultArg::DirtyMemory => Fault::DirtyMemory,
        FaultArg::Memory { gpa } => Fault::Memory { gpa },
        FaultArg::Register => Fault::Register,
        FaultArg::Device => Fault::Device,
        FaultArg::Sector { sector } => Fault::Sector { sector },
    };
    ask(Some(&args.name), &Ask::Inject { fault })?;
    Ok(ExitCode::SUCCESS)
}
