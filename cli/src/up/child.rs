//! The processes of the two sides.

use crate::program;
use crate::rundir::RunDir;
use crate::side::SideConfig;
use anyhow::Context as _;
use ft_pair_shared::protocol::Process;
use ft_pair_shared::supervision::{self, FromSide, ToSide};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

/// A side that has hung up gets this long to end.
const HUNG_UP: Duration = Duration::from_secs(10);

/// What a side's process does.
#[derive(Debug)]
pub enum ChildEvent {
    /// It said something.
    Said(FromSide),
    /// It ended, and has said all that it will.
    Exited(Option<ExitStatus>),
}

/// A side's process.
#[derive(Debug)]
pub struct Child {
    /// Who it is.
    pub process: Process,
    /// Its process id.
    pub pid: u32,
    to: UnboundedSender<ToSide>,
    kill: Option<oneshot::Sender<()>>,
    /// It lost its generation to the other side, or was told to end.
    pub dismissed: bool,
    /// It said that it cannot go live.
    pub quiet: bool,
}

impl Child {
    /// Starts a side. `role` is the command's name: `ps` shows who is who.
    pub fn start(
        role: &str,
        config: &SideConfig,
        run: &RunDir,
        events: UnboundedSender<(Process, ChildEvent)>,
    ) -> anyhow::Result<Self> {
        let process = config.process;
        let name = format!("side-{}.json", process.incarnation.0);
        let path = run.write(&name, &serde_json::to_vec(config)?)?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = tokio::process::Command::new(program::path()?)
            .arg0("ft-pair")
            .arg(role)
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start `ft-pair {role}`"))?;
        let pid = child.id().context("a new process has an id")?;
        let (to, from) = supervision::link(tokio::net::UnixStream::from_std(ours)?);
        let (kill, killed) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let status = watch(&mut child, process, from, killed, &events).await;
            drop(events.send((process, ChildEvent::Exited(status))));
        });
        Ok(Self { process, pid, to, kill: Some(kill), dismissed: false, quiet: false })
    }

    /// Says something to it. It may have ended; that is told elsewhere.
    pub fn tell(&self, message: ToSide) {
        drop(self.to.send(message));
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            let _ = kill.send(());
        }
    }
}

async fn watch(
    child: &mut tokio::process::Child,
    process: Process,
    mut from: UnboundedReceiver<FromSide>,
    mut killed: oneshot::Receiver<()>,
    events: &UnboundedSender<(Process, ChildEvent)>,
) -> Option<ExitStatus> {
    let mut kill = false;
    loop {
        tokio::select! {
            biased;
            // Also when the other end was dropped: the supervisor ends.
            _ = &mut killed, if !kill => {
                kill = true;
                drop(child.start_kill());
            }
            said = from.recv() => match said {
                Some(said) => drop(events.send((process, ChildEvent::Said(said)))),
                None => break,
            },
        }
    }
    let wait = tokio::time::timeout(HUNG_UP, child.wait()).await;
    match wait {
        Ok(status) => status.ok(),
        Err(_) => {
            drop(child.kill().await);
            child.wait().await.ok()
        }
    }
}
