//! Guest time as a function of the position.

use crate::saved_fields;

/// Guest time between two anchors: it grows by `rate / 2^32` nanoseconds per retired instruction.
///
/// The time stamp counter of the machine counts these nanoseconds (1 GHz), and every timer is kept as
/// a time, so a new anchor moves the places where timers fire and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualClock {
    /// Retired instructions at the anchor.
    anchor: u64,
    /// Guest time at the anchor, nanoseconds since power-on.
    anchor_ns: u64,
    /// Nanoseconds per retired instruction, in 32.32 fixed point.
    rate: u64,
}
saved_fields!(VirtualClock { anchor, anchor_ns, rate });

/// Nanoseconds per instruction as the clock counts them.
pub const fn rate_from_ns(ns: u32) -> u64 {
    (ns as u64) << 32
}

impl VirtualClock {
    /// A clock that shows 0 at power-on.
    ///
    /// # Panics
    /// If `rate` is 0: time would stand still.
    pub const fn new(rate: u64) -> Self {
        assert!(rate > 0, "guest time advances with the position");
        Self { anchor: 0, anchor_ns: 0, rate }
    }

    /// Guest time when `retired` instructions have retired.
    #[inline]
    pub const fn time_at(&self, retired: u64) -> u64 {
        let steps = retired.saturating_sub(self.anchor);
        self.anchor_ns + ((steps as u128 * self.rate as u128) >> 32) as u64
    }

    /// The first number of retired instructions, at or after the anchor, at which time is `ns` or more.
    /// `u64::MAX` stands for "not in this life".
    pub const fn first_at(&self, ns: u64) -> u64 {
        if ns <= self.anchor_ns {
            return self.anchor;
        }
        let fraction = ((ns - self.anchor_ns) as u128) << 32;
        let steps = fraction.div_ceil(self.rate as u128);
        let retired = self.anchor as u128 + steps;
        if retired > u64::MAX as u128 { u64::MAX } else { retired as u64 }
    }

    /// Sets a new anchor.
    ///
    /// # Panics
    /// If time would go backwards, or stand still from here on.
    pub fn set(&mut self, retired: u64, time_ns: u64, rate: u64) {
        let now = self.time_at(retired);
        assert!(time_ns >= now, "guest time never goes backwards: {time_ns} ns is before {now} ns");
        assert!(rate > 0, "guest time advances with the position");
        *self = Self { anchor: retired, anchor_ns: time_ns, rate };
    }

    /// Nanoseconds per retired instruction, in 32.32 fixed point.
    pub const fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    #[test]
    fn the_first_place_of_a_time_is_exact() {
        for rate in [1, rate_from_ns(1) / 3, rate_from_ns(1), rate_from_ns(10), 12_345_678_901] {
            let mut clock = VirtualClock::new(rate);
            clock.set(1000, 77_777, rate);
            for ns in [77_778, 77_779, 80_000, 1_000_003] {
                let at = clock.first_at(ns);
                assert!(clock.time_at(at) >= ns, "rate {rate}, {ns} ns");
                assert!(clock.time_at(at - 1) < ns, "rate {rate}, {ns} ns");
            }
        }
    }

    #[test]
    fn a_time_that_has_passed_is_now() {
        let mut clock = VirtualClock::new(rate_from_ns(10));
        clock.set(50, 500, rate_from_ns(1));
        assert_eq!(clock.first_at(400), 50);
        assert_eq!(clock.first_at(500), 50);
        assert_eq!(VirtualClock::new(1).first_at(u64::MAX), u64::MAX);
    }

    #[test]
    #[should_panic(expected = "never goes backwards")]
    fn time_never_goes_backwards() {
        let mut clock = VirtualClock::new(rate_from_ns(10));
        clock.set(100, 999, rate_from_ns(10));
    }

    #[test]
    fn state_comes_back() {
        let mut clock = VirtualClock::new(rate_from_ns(10));
        clock.set(100, 2000, 77);
        assert_eq!(from_bytes(&to_bytes(&clock)), Ok(clock));
    }
}
