//! Guest time follows the host's clock: when to log a new clock anchor, and with what rate.
//!
//! Guest time is a function of the position between anchors. The Master measures how fast the guest
//! retires instructions and corrects the rate, so that a lag is slewed; it jumps forward only when an
//! idle guest wakes up; it never goes backwards. Few anchors are logged: only where the drift matters.

use std::time::{Duration, Instant};

/// How far guest time may drift from the host's before it is corrected.
const TOLERANCE_NS: i64 = 2_000_000;
/// How far it may drift before an idle wake-up jumps.
const JUMP_NS: i64 = 1_000_000;
/// At least this much running time lies between two corrections.
const INTERVAL: Duration = Duration::from_millis(20);
/// A lag is made up for over this time.
const SLEW_NS: f64 = 200e6;
/// The rate stays within these bounds, nanoseconds an instruction.
const RATE_BOUNDS: (f64, f64) = (0.02, 2000.0);

/// A clock anchor to apply and log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Guest time here, nanoseconds.
    pub time_ns: u64,
    /// Nanoseconds per retired instruction, 32.32 fixed point.
    pub rate: u64,
}

/// Keeps guest time near host time.
#[derive(Debug)]
pub struct Pacer {
    /// Host instant and guest time that correspond.
    origin: (Instant, u64),
    /// Where the present measurement began: host instant, retired instructions.
    window: (Instant, u64),
    /// Smoothed nanoseconds of host time an instruction takes.
    cost: f64,
}

impl Pacer {
    /// Begins with guest time `time_ns` corresponding to `now`, at a rate.
    pub fn new(now: Instant, time_ns: u64, retired: u64, rate: u64) -> Self {
        Self { origin: (now, time_ns), window: (now, retired), cost: from_fixed(rate) }
    }

    /// What guest time should be at a host instant.
    pub fn target(&self, now: Instant) -> u64 {
        self.origin.1 + now.saturating_duration_since(self.origin.0).as_nanos() as u64
    }

    /// Smoothed nanoseconds that an instruction takes.
    pub const fn cost(&self) -> f64 {
        self.cost
    }

    /// The host instant at which guest time should be `time_ns`.
    pub fn instant_of(&self, time_ns: u64) -> Instant {
        self.origin.0 + Duration::from_nanos(time_ns.saturating_sub(self.origin.1))
    }

    /// While the guest runs: a correction, if one is due. `rate` is the present one.
    pub fn running(
        &mut self,
        now: Instant,
        guest_ns: u64,
        retired: u64,
        rate: u64,
    ) -> Option<Anchor> {
        let elapsed = now.saturating_duration_since(self.window.0);
        let instructions = retired.saturating_sub(self.window.1);
        if elapsed < INTERVAL || instructions == 0 {
            return None;
        }
        let cost = elapsed.as_nanos() as f64 / instructions as f64;
        self.cost = 0.5 * self.cost + 0.5 * cost;
        self.window = (now, retired);
        let lag = self.target(now) as i64 - guest_ns as i64;
        if lag.abs() < TOLERANCE_NS {
            return None;
        }
        let wanted = self.cost * (1.0 + lag as f64 / SLEW_NS).clamp(0.25, 2.0);
        let rate_now = from_fixed(rate);
        if (wanted - rate_now).abs() < 0.03 * rate_now {
            return None;
        }
        Some(Anchor { time_ns: guest_ns, rate: to_fixed(wanted) })
    }

    /// The guest wakes up from idling at guest time `guest_ns` (a timer's deadline, or now): jumps if
    /// guest time lags.
    pub fn woken(&mut self, now: Instant, guest_ns: u64, retired: u64) -> Option<Anchor> {
        self.window = (now, retired);
        let target = self.target(now);
        let lag = target as i64 - guest_ns as i64;
        (lag > JUMP_NS).then(|| Anchor { time_ns: target, rate: to_fixed(self.cost) })
    }

    /// The guest stood (a synchronisation, a repair): the time does not count as execution.
    pub fn stood(&mut self, now: Instant, retired: u64) {
        self.window = (now, retired);
    }
}

fn from_fixed(rate: u64) -> f64 {
    rate as f64 / (1u64 << 32) as f64
}

fn to_fixed(ns: f64) -> u64 {
    (ns.clamp(RATE_BOUNDS.0, RATE_BOUNDS.1) * (1u64 << 32) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_time_converges_to_host_time_and_few_anchors_are_needed() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 0, 0, to_fixed(10.0));
        let (mut retired, mut guest_ns, mut rate, mut anchors) = (0u64, 0f64, to_fixed(10.0), 0);
        for ms in 1..=5000u64 {
            let now = start + Duration::from_millis(ms);
            retired += 50_000;
            guest_ns += 50_000.0 * from_fixed(rate);
            if let Some(anchor) = pacer.running(now, guest_ns as u64, retired, rate) {
                rate = anchor.rate;
                anchors += 1;
            }
        }
        let lag = 5e9 - guest_ns;
        assert!(lag.abs() < 5e6, "lag {lag} ns after 5 s");
        assert!(anchors < 40, "{anchors} anchors in 5 s of steady work");
    }

    #[test]
    fn a_wake_up_jumps_forward_only() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 1000, 0, to_fixed(10.0));
        let now = start + Duration::from_millis(50);
        let anchor = pacer.woken(now, 2000, 0).expect("50 ms behind");
        assert_eq!(anchor.time_ns, 50_001_000);
        assert_eq!(pacer.woken(now, 60_000_000, 0), None, "ahead: waits, never goes back");
    }
}
