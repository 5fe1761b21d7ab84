//! `ft-pair master` and `ft-pair slave`: one side of a pair, started by the supervisor.
//!
//! Standard input is the socket to the supervisor. The side has a session of its own, so that a closed
//! terminal does not reach it, and is killed when its supervisor ends.

use crate::args::{SideArgs, SlaveArgs};
use crate::failure::{FAILED, wrong_use};
use crate::guest::{self, Choice};
use crate::program;
use anyhow::{Context as _, bail};
use ft_pair_machine::disk::{DiskControl, OverlayDisk};
use ft_pair_machine::{BlockDevice, Machine, MachineConfig};
use ft_pair_master::driver::{self as master_driver, MasterConfig, Start};
use ft_pair_master::live::{self, Feed};
use ft_pair_shared::protocol::{Process, Settings, StopReason};
use ft_pair_shared::supervision::{self, FromSide, ToSide};
use ft_pair_shared::transport::Greeting;
use ft_pair_slave::driver::{self as slave_driver, SlaveConfig, SlaveEnd};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// Pages dirtied after which an epoch ends early.
const MAX_DIRTY_PAGES: usize = 8192;
/// What is still to be said to the supervisor gets this long at the end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a side needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct SideConfig {
    /// The supervisor's process.
    pub supervisor: u32,
    /// Who this is.
    pub process: Process,
    /// The protocol's settings.
    pub protocol: Settings,
    /// Milliseconds of an epoch.
    pub epoch_ms: u64,
    /// The machine.
    pub machine: MachineConfig,
    /// This side's disk copy.
    pub disk: Option<PathBuf>,
    /// The recording that whoever is live goes on with.
    pub record: Option<PathBuf>,
    /// What both sides must have alike.
    pub agreement: String,
    /// What to do first.
    pub role: Role,
}

/// What a side does first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Boots the guest.
    Boot(Choice),
    /// Follows the Master at these addresses.
    Follow {
        /// Control connections.
        control: SocketAddr,
        /// Bulk connections.
        bulk: SocketAddr,
    },
}

/// `ft-pair master`
pub fn master(args: &SideArgs) -> anyhow::Result<ExitCode> {
    run(&args.config)
}

/// `ft-pair slave`
pub fn slave(args: &SlaveArgs) -> anyhow::Result<ExitCode> {
    match (&args.listen, &args.config) {
        (None, Some(config)) => run(config),
        (Some(_), _) => Err(wrong_use(
            "a Slave on another machine is not there yet: `ft-pair up GUEST.IMG` runs both sides on \
             this machine",
        )),
        (None, None) => Err(wrong_use(
            "`ft-pair slave` is started by `ft-pair up`; --listen, for another machine, is not there yet",
        )),
    }
}

fn run(config: &Path) -> anyhow::Result<ExitCode> {
    let shown = config.display().to_string();
    let bytes = std::fs::read(config).with_context(|| shown.clone())?;
    let config: SideConfig = serde_json::from_slice(&bytes).with_context(|| shown)?;
    // Fails only for the leader of a process group, which a started process is not.
    let _ = rustix::process::setsid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
    if parent != Some(config.supervisor) {
        bail!("the supervisor has ended: start the pair again with `ft-pair up`");
    }
    let link = std::io::stdin().as_fd().try_clone_to_owned()?;
    let link = std::os::unix::net::UnixStream::from(link);
    link.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let reason = local.block_on(&runtime, async {
        let (to, from) = supervision::link(tokio::net::UnixStream::from_std(link)?);
        let reason = side(config, to.clone(), from).await;
        if let Err(error) = &reason {
            drop(to.send(FromSide::Notice { text: format!("{error:#}") }));
        }
        tokio::time::sleep(LAST_WORDS).await;
        reason
    });
    runtime.shutdown_background();
    match reason {
        Ok(StopReason::Finished | StopReason::Fenced) => Ok(ExitCode::SUCCESS),
        // The supervisor has been told why.
        Ok(_) | Err(_) => Ok(ExitCode::from(FAILED)),
    }
}

async fn side(
    config: SideConfig,
    to: UnboundedSender<FromSide>,
    from: UnboundedReceiver<ToSide>,
) -> anyhow::Result<StopReason> {
    let hello =
        FromSide::Hello { pid: std::process::id(), incarnation: config.process.incarnation };
    drop(to.send(hello));
    // Not at a promotion: nothing that takes time is done there.
    let greeting = greeting(&config)?;
    match &config.role {
        Role::Boot(choice) => {
            let source = choice.open()?;
            let (disk, control) = open_disk(config.disk.as_deref())?;
            let initrd = source.initrd.as_deref();
            let machine =
                guest::boot(&config.machine, &source.kernel, initrd, &source.cmdline, disk)?;
            drop(source);
            let start = Start::First { machine, disk: control };
            master_driver::run(master_config(&config, greeting), start, to, from).await
        }
        Role::Follow { control, bulk } => {
            let follow = SlaveConfig {
                protocol: config.protocol,
                process: config.process,
                greeting: greeting.clone(),
                control: *control,
                bulk: *bulk,
            };
            let (device, disk) = open_disk(config.disk.as_deref())?;
            let machine = Machine::new(&config.machine, device)?;
            match slave_driver::run(follow, machine, disk, to.clone(), from).await? {
                SlaveEnd::Live {
                    handover,
                    machine,
                    disk,
                    outputs,
                    last_input,
                    lost,
                    heard,
                    from,
                } => {
                    let start = Start::Promoted {
                        machine,
                        disk,
                        outputs,
                        last_input,
                        handover,
                        lost,
                        heard,
                    };
                    master_driver::run(master_config(&config, greeting), start, to, from).await
                }
                SlaveEnd::Stopped(reason) => Ok(reason),
            }
        }
    }
}

fn open_disk(path: Option<&Path>) -> anyhow::Result<(Box<dyn BlockDevice>, Option<DiskControl>)> {
    let Some(path) = path else { return Ok((guest::no_disk(), None)) };
    let disk = OverlayDisk::open(path).with_context(|| path.display().to_string())?;
    let control = disk.control();
    Ok((Box::new(disk), Some(control)))
}

fn greeting(config: &SideConfig) -> anyhow::Result<Greeting> {
    Ok(Greeting {
        program: program::name_of_build()?,
        agreement: config.agreement.clone().into_bytes(),
        incarnation: config.process.incarnation,
    })
}

fn master_config(config: &SideConfig, greeting: Greeting) -> MasterConfig {
    let feed = if config.protocol.active.commits_state() { Feed::State } else { Feed::Log };
    MasterConfig {
        protocol: config.protocol,
        live: live::Settings {
            epoch: Duration::from_millis(config.epoch_ms),
            max_dirty_pages: MAX_DIRTY_PAGES,
            feed,
            record: config.record.is_some(),
        },
        process: config.process,
        greeting,
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        record: config.record.clone(),
    }
}
