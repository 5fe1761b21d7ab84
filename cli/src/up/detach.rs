//! `up -d`: a supervisor in the background.

use crate::failure;
use crate::program;
use crate::terminal;
use anyhow::Context as _;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

/// Starts the same command in the background and waits until its pair is up.
pub fn start() -> anyhow::Result<ExitCode> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(program::path()?)
        .arg0("ft-pair")
        .args(std::env::args_os().skip(1))
        .arg("--background")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the supervisor")?;
    for line in BufReader::new(ours).lines() {
        let Ok(line) = line else { break };
        let said: Value =
            serde_json::from_str(&line).context("the supervisor's word is damaged")?;
        if said["ready"] == true {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(text) = said["say"].as_str() {
            terminal::line(&format!("ft-pair: {text}"));
        }
        if let Some(text) = said["failed"].as_str() {
            terminal::line(&format!("ft-pair: {text}"));
            let code = said["code"].as_u64().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(failure::FAILED)));
        }
    }
    anyhow::bail!("the supervisor, process {}, ended before the guest was up", child.id())
}

/// In the background: leaves the terminal's session; gives the connection to the starter.
pub fn become_background() -> anyhow::Result<UnixStream> {
    // Fails only for the leader of a process group, which a started process is not.
    let _ = rustix::process::setsid();
    let starter = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(UnixStream::from(starter))
}
