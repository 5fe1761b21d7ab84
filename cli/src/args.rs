//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use ft_pair_shared::protocol::Active;
use std::path::PathBuf;

/// Runs an unmodified Linux guest as a pair: when the Master dies, the Slave goes on.
#[derive(Debug, Parser)]
#[command(name = "ft-pair", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  ft-pair image base                    make a small Debian guest, var/images/base.img
  ft-pair up var/images/base.img        run it as a protected pair; Ctrl-A x powers it off
  ft-pair up -d guest.img --name web    the same in the background
  ft-pair status web --json             who is Master, who is Slave, is it protected
  ft-pair console web                   attach to its console; Ctrl-A d detaches
  ft-pair up guest.img --record log     keep the log, across failovers
  ft-pair run guest.img --record log    run it unprotected and keep the log
  ft-pair replay log                    execute the log again, compare every digest")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a guest as a protected pair
    Up(UpArgs),
    /// Run a guest unprotected
    Run(RunArgs),
    /// Execute a recorded log again and verify every digest
    Replay(ReplayArgs),
    /// Look at a recorded log
    Log(LogArgs),
    /// Show who is Master and Slave, and whether the guest is protected
    Status(Target),
    /// Show what the pair has done so far
    Stats(Target),
    /// Make the Slave live now
    Failover(Target),
    /// Power the guest off
    Down(Target),
    /// Attach to a guest's console
    Console(ConsoleArgs),
    /// Make a guest image from Debian packages
    Image(ImageArgs),
    /// Inject a fault into the Slave, to see it repaired
    #[command(hide = true)]
    Inject(InjectArgs),
    /// The process of the side that starts live; started by `up`
    #[command(hide = true)]
    Master(SideArgs),
    /// Be the other side of a pair on another machine
    #[command(hide = true)]
    Slave(SlaveArgs),
}

/// Which guest to boot, and how.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// Disk image (raw: GPT, MBR or a bare filesystem), or a kernel
    #[arg(value_name = "GUEST.IMG")]
    pub image: PathBuf,
    /// Guest memory, like 512M or 1G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = crate::size::parse)]
    pub mem: u64,
    /// The whole kernel command line, instead of the image's
    #[arg(long, value_name = "CMDLINE", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// A kernel on the host, instead of the image's
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// An initrd on the host, instead of the image's
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Seconds that the guest has for powering off before it is stopped hard
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub grace: u64,
    /// No status lines
    #[arg(short, long)]
    pub quiet: bool,
}

/// What the Slave executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActiveArg {
    /// Nothing: each epoch's state is sent in full
    Off,
    /// The Master's log: only digests travel while both agree
    Replay,
}

impl From<ActiveArg> for Active {
    fn from(active: ActiveArg) -> Self {
        match active {
            ActiveArg::Off => Self::Off,
            ActiveArg::Replay => Self::Replay,
        }
    }
}

impl ActiveArg {
    /// As written on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Replay => "replay",
        }
    }
}

/// `ft-pair up`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The console is raw: Ctrl-C goes to the guest.
  Ctrl-A x       power the guest off and leave (again: stop it at once)
  Ctrl-A d       say how to detach
  Ctrl-A Ctrl-A  send Ctrl-A

Examples:
  ft-pair up guest.img
  ft-pair up guest.img --mem 1G --epoch 10 --events events.jsonl
  ft-pair up -d guest.img --name web && ft-pair console web
  ft-pair up guest.img --record log && ft-pair replay log
  ft-pair up vmlinuz --initrd initrd.img --append 'console=ttyS0 quiet'")]
pub struct UpArgs {
    /// The guest.
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Name of the pair; default: from the image's file name
    #[arg(long)]
    pub name: Option<String>,
    /// Run in the background once the guest is protected
    #[arg(short, long)]
    pub detach: bool,
    /// Milliseconds after which an epoch ends
    #[arg(long, value_name = "MS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub epoch: u64,
    /// What the Slave executes meanwhile
    #[arg(long, value_enum, default_value = "replay")]
    pub active: ActiveArg,
    /// Write events there, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Where the Slave's disk copy goes; default: beside the image
    #[arg(long, value_name = "PATH")]
    pub slave_disk: Option<PathBuf>,
    /// Keep the log of the whole run, across failovers, and what the guest started from in this new directory
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// The Slave on another machine (not yet)
    #[arg(long, value_name = "HOST:PORT", hide = true)]
    pub slave: Option<String>,
    /// Set on the supervisor that `-d` starts; its standard input tells the starter how it goes.
    #[arg(long, hide = true)]
    pub background: bool,
}

/// `ft-pair run`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  ft-pair run guest.img
  ft-pair run guest.img --record log && ft-pair replay log")]
pub struct RunArgs {
    /// The guest.
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Keep the log, the start of the disk and the kernel in this new directory
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
}

/// `ft-pair replay`
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The recording
    pub dir: PathBuf,
    /// Stop at this position (instructions, or as `log show` prints it)
    #[arg(long, value_name = "POS", value_parser = crate::replay::parse_position)]
    pub until: Option<ft_pair_shared::Position>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// `ft-pair log`
#[derive(Debug, Args)]
pub struct LogArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: LogCommand,
}

/// `ft-pair log ...`
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print every record
    Show(LogDir),
    /// Count what the log consists of
    Stat(LogDir),
    /// Check every byte
    Verify(LogDir),
}

/// A recording.
#[derive(Debug, Args)]
pub struct LogDir {
    /// The recording
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A running pair.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Name of the pair; may be left out if only one runs
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `ft-pair console`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Ctrl-A d detaches, Ctrl-A x powers the guest off, Ctrl-A Ctrl-A sends Ctrl-A."
)]
pub struct ConsoleArgs {
    /// Name of the pair; may be left out if only one runs
    pub name: Option<String>,
}

/// `ft-pair inject`
#[derive(Debug, Clone, Args)]
pub struct InjectArgs {
    /// Name of the pair
    pub name: String,
    /// What to flip.
    #[command(subcommand)]
    pub fault: FaultArg,
}

/// What to flip on the Slave.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum FaultArg {
    /// A byte in a page of the running epoch's dirty set
    DirtyMemory,
    /// A byte of memory
    Memory {
        /// Guest physical address, decimal or 0x...
        #[arg(value_parser = parse_address)]
        gpa: u64,
    },
    /// A bit of a general register
    Register,
    /// A device's state
    Device,
    /// A byte of a disk sector
    Sector {
        /// Which
        sector: u64,
    },
}

fn parse_address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is no address: write it like 0x100000"))
}

/// `ft-pair image`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ft-pair image list
  ft-pair image base
  ft-pair image base --output guest.img")]
pub struct ImageArgs {
    /// Name of a recipe, or `list`
    pub name: String,
    /// The image's file; default: var/images/NAME.img, kept until the recipe changes
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A process of the pair.
#[derive(Debug, Args)]
pub struct SideArgs {
    /// What it needs to know.
    #[arg(long)]
    pub config: PathBuf,
}

/// `ft-pair slave`
#[derive(Debug, Args)]
pub struct SlaveArgs {
    /// What it needs to know.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Wait for a Master on another machine (not yet)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
