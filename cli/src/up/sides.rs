//! Starting the sides, and what their deaths mean.

use super::child::Child;
use super::pair::Pair;
use crate::side::{Role, SideConfig};
use ft_pair_shared::Side;
use ft_pair_shared::protocol::{Incarnation, Process, Settings};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::time::Instant;

/// After so many Slaves in a row that never protected the guest a person should hear of it.
const WORTH_A_WORD: u32 = 5;
/// The longest time between attempts.
const SELDOM: Duration = Duration::from_secs(30);

impl Pair<'_, '_> {
    pub(super) fn start(&mut self, side: Side, role: &str, what: Role) -> anyhow::Result<()> {
        self.sup.incarnations += 1;
        let incarnation = Incarnation(self.sup.incarnations);
        let copies = self.copies.as_ref();
        let config = SideConfig {
            supervisor: std::process::id(),
            process: Process { side, incarnation },
            protocol: Settings::new(self.sup.args.active.into()),
            epoch_ms: self.sup.args.epoch,
            machine: self.machine.clone(),
            disk: copies.and_then(|copies| copies.of(side)).map(Into::into),
            record: self.recording.clone(),
            agreement: self.agreement.clone(),
            role: what,
        };
        let child = Child::start(role, &config, &self.sup.run, self.child_sender.clone())?;
        self.children.push(child);
        Ok(())
    }

    /// Starts a Slave for the live side, if there is none.
    pub(super) fn start_slave(&mut self) {
        let Some(live) = self.live else { return };
        if self.end.is_some() || self.children.len() != 1 || self.preparing.is_some() {
            return;
        }
        let side = live.process.side.other();
        let Some(copies) = &mut self.copies else { return self.copy_is_ready(Ok(())) };
        match copies.new_copy(side) {
            // The host's disk may be slow, and the guest's output goes through this thread.
            Ok(make) => self.preparing = Some(tokio::task::spawn_blocking(make)),
            Err(error) => self.copy_is_ready(Err(error)),
        }
    }

    /// The Slave's copy was made, or not.
    pub(super) fn copy_is_ready(&mut self, made: anyhow::Result<()>) {
        let Some(live) = self.live else { return };
        if self.end.is_some() || self.children.len() != 1 {
            return;
        }
        let role = Role::Follow { control: live.control, bulk: live.bulk };
        let started = made.and_then(|()| self.start(live.process.side.other(), "slave", role));
        if let Err(error) = started {
            self.notice = Some(format!("{error:#}"));
            self.slave_failed();
        }
    }

    /// A Slave did not come so far as to protect the guest: tries again, ever less often.
    fn slave_failed(&mut self) {
        self.failures += 1;
        let wait = Duration::from_millis(500) * (1 << self.failures.min(7)) / 2;
        self.respawn = Some(Instant::now() + wait.min(SELDOM));
        if self.failures == WORTH_A_WORD {
            let why = self.notice.as_deref().unwrap_or("it says no reason");
            self.sup.reporter.warn(&format!(
                "no Slave could be brought in sync in {WORTH_A_WORD} attempts ({why}): the guest runs \
                 unprotected, and it is tried again now and then"
            ));
        }
    }

    /// True for the side that is live, was it last, or is about to be the first.
    pub(super) fn is_master(&self, process: Process) -> bool {
        let last = self.live.map(|live| live.process).or(self.witness.record().owner);
        last.is_none_or(|last| last == process)
    }

    /// How people know a process.
    pub(super) fn name_of(&self, process: Process) -> String {
        let child = self.children.iter().find(|child| child.process == process);
        let pid = child.map_or_else(|| "?".to_owned(), |child| child.pid.to_string());
        let role = if self.is_master(process) { "Master" } else { "Slave" };
        format!("the {role} (process {pid})")
    }

    pub(super) fn exited(&mut self, process: Process, status: Option<ExitStatus>) {
        let name = self.name_of(process);
        let Some(at) = self.children.iter().position(|child| child.process == process) else {
            return;
        };
        let child = self.children.remove(at);
        if self.end.is_some() {
            return;
        }
        let how = describe(status);
        if self.is_master(process) {
            self.live = None;
            self.protected = false;
            self.master_died = Some(Instant::now());
            let text =
                if child.dismissed { "was replaced".to_owned() } else { format!("died ({how})") };
            self.sup.reporter.status(&format!("{name} {text}"));
        } else {
            let was_protected = std::mem::take(&mut self.protected);
            let text = if child.dismissed {
                format!("the former peer (process {}) ended", child.pid)
            } else if was_protected {
                format!("unprotected: {name} ended ({how}); the guest goes on without one")
            } else {
                format!("{name} ended ({how})")
            };
            self.sup.reporter.status(&text);
            if was_protected || child.dismissed {
                self.failures = 0;
                self.respawn = Some(Instant::now() + Duration::from_millis(200));
            } else {
                self.slave_failed();
            }
        }
        if self.children.iter().all(|child| child.quiet || child.dismissed) {
            let why = self.notice.take().map_or(String::new(), |notice| format!(" ({notice})"));
            self.lost(format!(
                "no side is left: the guest is lost{why}; its disk is as it was synced last, `ft-pair up` \
                 boots it again"
            ));
        }
    }
}

fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("killed by signal {signal}"),
        _ => "nobody knows how".to_owned(),
    }
}
