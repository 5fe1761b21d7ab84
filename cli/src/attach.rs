//! `ft-pair console`: attaches to the console of a running pair.

use crate::args::ConsoleArgs;
use crate::client;
use crate::control::Ask;
use crate::rundir;
use crate::terminal::{self, Typed};
use anyhow::Context as _;
use std::io::Write as _;
use std::process::ExitCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Attaches until the guest ends or the user detaches.
pub fn console(args: &ConsoleArgs) -> anyhow::Result<ExitCode> {
    let (name, stream) = rundir::connect(args.name.as_deref())?;
    stream.set_nonblocking(true)?;
    let raw = terminal::make_raw()?;
    if raw {
        terminal::line(&format!("ft-pair: attached to {name}; Ctrl-A d detaches"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(attached(stream, &name, raw));
    terminal::restore();
    runtime.shutdown_background();
    terminal::line(&format!("ft-pair: {}", result?));
    Ok(ExitCode::SUCCESS)
}

async fn attached(
    stream: std::os::unix::net::UnixStream,
    name: &str,
    escapes: bool,
) -> anyhow::Result<String> {
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let mut ask = serde_json::to_string(&Ask::Console)?;
    ask.push('\n');
    stream.write_all(ask.as_bytes()).await.context("the pair has ended")?;
    // The answer's line comes before the console's bytes.
    while stream.read_u8().await.context("the pair has ended")? != b'\n' {}
    let mut typed = terminal::read_input(escapes);
    let mut open = true;
    let mut buf = [0; 4096];
    loop {
        tokio::select! {
            read = stream.read(&mut buf) => match read {
                Ok(n @ 1..) => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(&buf[..n]).and_then(|()| out.flush())?;
                }
                _ => return Ok(format!("{name} has ended")),
            },
            Some(typed) = typed.recv(), if open => match typed {
                Typed::Bytes(bytes) => stream.write_all(&bytes).await.context("the pair has ended")?,
                Typed::Detach => return Ok(format!("detached; {name} goes on")),
                Typed::PowerOff => drop(client::ask(Some(name), &Ask::PowerOff)?),
                Typed::End => open = false,
            },
        }
    }
}
