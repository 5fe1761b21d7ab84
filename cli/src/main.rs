//! The command `ft-pair`: parses, supervises, prints; the logic of the pair is in the other crates.

mod args;
mod attach;
mod client;
mod console;
mod control;
mod failure;
mod guest;
mod image;
mod log;
mod program;
mod recording;
mod replay;
mod run;
mod rundir;
mod side;
mod size;
mod terminal;
mod up;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FT_PAIR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(color)
        .with_writer(std::io::stderr)
        .init();
    terminal::restore_on_panic();
    let result = dispatch(Cli::parse().command);
    terminal::restore();
    result.unwrap_or_else(|error| failure::report(&error))
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::up(args),
        Command::Run(args) => run::run(args),
        Command::Replay(args) => replay::replay(&args),
        Command::Log(args) => log::log(&args),
        Command::Status(target) => client::status(&target),
        Command::Stats(target) => client::stats(&target),
        Command::Failover(target) => client::failover(&target),
        Command::Down(target) => client::down(&target),
        Command::Console(args) => attach::console(&args),
        Command::Inject(args) => client::inject(&args),
        Command::Image(args) => image::image(&args),
        Command::Master(args) => side::master(&args),
        Command::Slave(args) => side::slave(&args),
    }
}
