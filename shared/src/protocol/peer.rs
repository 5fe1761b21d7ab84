//! Does the peer live? Heartbeats out, silence in.

use super::Settings;

/// When the peer was last heard and last spoken to.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerClock {
    heard_us: u64,
    beat_us: u64,
}

impl PeerClock {
    pub fn new(now_us: u64) -> Self {
        Self { heard_us: now_us, beat_us: now_us }
    }

    pub fn heard(&mut self, now_us: u64) {
        self.heard_us = self.heard_us.max(now_us);
    }

    /// This side itself was not run for a while. What the peer said meanwhile may still wait to be
    /// read, so its silence proves nothing yet: it gets half of the time again.
    pub fn starved(&mut self, now_us: u64, settings: &Settings) {
        self.heard_us = self.heard_us.max(now_us.saturating_sub(settings.silence_us / 2));
    }

    pub fn silent(&self, now_us: u64, settings: &Settings) -> bool {
        now_us >= self.heard_us + settings.silence_us
    }

    /// True once per heartbeat interval.
    pub fn beat_due(&mut self, now_us: u64, settings: &Settings) -> bool {
        let due = now_us >= self.beat_us + settings.heartbeat_us;
        if due {
            self.beat_us = now_us;
        }
        due
    }

    pub fn deadline(&self, settings: &Settings) -> u64 {
        (self.heard_us + settings.silence_us).min(self.beat_us + settings.heartbeat_us)
    }
}

/// Notices that this side was not run although it had asked to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnClock {
    ran_us: u64,
}

impl OwnClock {
    pub fn new(now_us: u64) -> Self {
        Self { ran_us: now_us }
    }

    /// Notes that this side runs now; true if it should have run long before.
    pub fn run(&mut self, now_us: u64, settings: &Settings) -> bool {
        let starved = now_us.saturating_sub(self.ran_us) > settings.silence_us / 2;
        self.ran_us = self.ran_us.max(now_us);
        starved
    }
}
