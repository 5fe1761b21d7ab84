//! The MC146818 real-time clock at 70h/71h, interrupt 8.
//!
//! Its time is the wall clock of the configuration plus guest time, plus what the guest has set. Seconds
//! change at whole seconds of guest time. Alarm and update interrupts work; the periodic one (which Linux
//! replaces by a timer of its own) and UIP (an update takes no time) do not exist.

use crate::saved_fields;

/// Index port; the data port follows.
pub const RTC_PORT: u16 = 0x70;
/// Pin of the I/O APIC.
pub const RTC_PIN: u32 = 8;

const SECOND: u64 = 1_000_000_000;
const DAY: i64 = 86_400;

const REG_SECONDS_ALARM: u8 = 1;
const REG_MINUTES_ALARM: u8 = 3;
const REG_HOURS_ALARM: u8 = 5;
const REG_A: u8 = 0xa;
const REG_B: u8 = 0xb;
const REG_C: u8 = 0xc;
const REG_D: u8 = 0xd;
/// Where the FADT says that the century is.
pub const REG_CENTURY: u8 = 0x32;

const B_SET: u8 = 0x80;
const B_ALARM: u8 = 0x20;
const B_UPDATE: u8 = 0x10;
const B_BINARY: u8 = 4;
const B_24H: u8 = 2;
const C_IRQ: u8 = 0x80;
const C_ALARM: u8 = 0x20;
const C_UPDATE: u8 = 0x10;

/// The clock and its CMOS memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtc {
    /// Wall-clock time at guest time 0 as the guest sees it, seconds since 1970.
    base: i64,
    index: u8,
    cmos: [u8; 128],
    /// Time-of-day registers while B.SET freezes them, in the order of [`Rtc::TIME_REGISTERS`].
    frozen: Option<[u8; 8]>,
    /// Interrupt flags of register C.
    flags: u8,
    /// Whole seconds of guest time up to which flags have been raised.
    seen: u64,
}
saved_fields!(Rtc { base, index, cmos, frozen, flags, seen });

/// Days since 1970 of a date (proleptic Gregorian; after Howard Hinnant's days_from_civil).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + (month <= 2) as i64, month, doy - (153 * mp + 2) / 5 + 1)
}

impl Rtc {
    /// Version of the saved bytes.
    pub const VERSION: u32 = 1;

    /// Seconds, minutes, hours, day of the week, day, month, year, century.
    const TIME_REGISTERS: [u8; 8] = [0, 2, 4, 6, 7, 8, 9, REG_CENTURY];

    /// A clock that shows `wall_clock` (seconds since 1970) at guest time 0.
    pub const fn new(wall_clock: i64) -> Self {
        let mut cmos = [0; 128];
        cmos[REG_A as usize] = 0x26;
        cmos[REG_B as usize] = B_24H;
        Self { base: wall_clock, index: 0, cmos, frozen: None, flags: 0, seen: 0 }
    }

    const fn b(&self) -> u8 {
        self.cmos[REG_B as usize]
    }

    const fn to_register(&self, value: i64) -> u8 {
        let value = value as u8;
        if self.b() & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    const fn value_of(&self, register: u8) -> i64 {
        if self.b() & B_BINARY != 0 {
            register as i64
        } else {
            (register >> 4) as i64 * 10 + (register & 0xf) as i64
        }
    }

    const fn hour_to_register(&self, hour: i64) -> u8 {
        if self.b() & B_24H != 0 {
            return self.to_register(hour);
        }
        let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        self.to_register(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    const fn hour_of(&self, register: u8) -> i64 {
        if self.b() & B_24H != 0 {
            return self.value_of(register);
        }
        self.value_of(register & 0x7f) % 12 + if register & 0x80 != 0 { 12 } else { 0 }
    }

    fn time_registers(&self, now_ns: u64) -> [u8; 8] {
        let time = self.base + (now_ns / SECOND) as i64;
        let (day_number, second) = (time.div_euclid(DAY), time.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(day_number);
        [
            self.to_register(second % 60),
            self.to_register(second / 60 % 60),
            self.hour_to_register(second / 3600),
            self.to_register((day_number + 4).rem_euclid(7) + 1),
            self.to_register(day),
            self.to_register(month),
            self.to_register(year % 100),
            self.to_register(year / 100),
        ]
    }

    fn set_time(&mut self, registers: [u8; 8], now_ns: u64) {
        let [second, minute, hour, _, day, month, year, century] = registers;
        let year = self.value_of(century) * 100 + self.value_of(year);
        let days = days_from_civil(year, self.value_of(month).clamp(1, 12), self.value_of(day));
        let time = days * DAY
            + self.hour_of(hour) * 3600
            + self.value_of(minute) * 60
            + self.value_of(second);
        self.base = time - (now_ns / SECOND) as i64;
    }

    /// Seconds from now to the next one that matches the alarm; registers from C0h on match anything.
    fn seconds_to_alarm(&self, now_ns: u64) -> u64 {
        let alarm = |register: u8| self.cmos[usize::from(register)];
        let (s, m, h) =
            (alarm(REG_SECONDS_ALARM), alarm(REG_MINUTES_ALARM), alarm(REG_HOURS_ALARM));
        let now = (self.base + (now_ns / SECOND) as i64).rem_euclid(DAY);
        (1..=DAY)
            .find(|delta| {
                let t = (now + delta) % DAY;
                (s >= 0xc0 || self.value_of(s) == t % 60)
                    && (m >= 0xc0 || self.value_of(m) == t / 60 % 60)
                    && (h & 0xc0 == 0xc0 || self.hour_of(h) == t / 3600)
            })
            .unwrap_or(DAY) as u64
    }

    /// Guest time of the next interrupt, if one is enabled.
    pub fn deadline(&self) -> Option<u64> {
        let seen_ns = self.seen * SECOND;
        if self.frozen.is_some() {
            None
        } else if self.b() & B_UPDATE != 0 && self.flags & C_UPDATE == 0 {
            Some(seen_ns + SECOND)
        } else if self.b() & B_ALARM != 0 && self.flags & C_ALARM == 0 {
            Some(seen_ns + self.seconds_to_alarm(seen_ns) * SECOND)
        } else {
            None
        }
    }

    /// Raises the flags of the seconds that have begun.
    pub fn advance(&mut self, now_ns: u64) {
        let second = now_ns / SECOND;
        if second <= self.seen {
            return;
        }
        if self.frozen.is_none() {
            self.flags |= C_UPDATE;
            let wanted = self.b() & B_ALARM != 0 && self.flags & C_ALARM == 0;
            if wanted && second - self.seen >= self.seconds_to_alarm(self.seen * SECOND) {
                self.flags |= C_ALARM;
            }
        }
        self.seen = second;
    }

    /// Level of the interrupt line.
    pub const fn line(&self) -> bool {
        self.flags & self.b() & (C_ALARM | C_UPDATE) != 0
    }

    /// Reads the index or the data port.
    pub fn read(&mut self, port: u16, now_ns: u64) -> u8 {
        if port == RTC_PORT {
            return 0xff; // The index is write-only.
        }
        self.advance(now_ns);
        match self.index {
            REG_C => {
                let line = if self.line() { C_IRQ } else { 0 };
                std::mem::take(&mut self.flags) | line
            }
            REG_D => 0x80, // The battery is good.
            index => match Self::TIME_REGISTERS.iter().position(|r| *r == index) {
                Some(i) => self.frozen.unwrap_or_else(|| self.time_registers(now_ns))[i],
                None => self.cmos[usize::from(index)],
            },
        }
    }

    /// Writes the index or the data port.
    pub fn write(&mut self, port: u16, value: u8, now_ns: u64) {
        if port == RTC_PORT {
            self.index = value & 0x7f;
            return;
        }
        self.advance(now_ns);
        match self.index {
            REG_A => self.cmos[usize::from(REG_A)] = value & 0x7f,
            REG_B => {
                // The mode bits decide how the registers read, so take the time before they change.
                let frozen = self.frozen.take().unwrap_or_else(|| self.time_registers(now_ns));
                let was_set = self.b() & B_SET != 0;
                self.cmos[usize::from(REG_B)] = value;
                match (was_set, value & B_SET != 0) {
                    (_, true) => self.frozen = Some(frozen),
                    (true, false) => self.set_time(frozen, now_ns),
                    (false, false) => {}
                }
            }
            REG_C | REG_D => {}
            index => match Self::TIME_REGISTERS.iter().position(|r| *r == index) {
                Some(i) => {
                    let mut registers = self.frozen.unwrap_or_else(|| self.time_registers(now_ns));
                    registers[i] = value;
                    if self.frozen.is_some() {
                        self.frozen = Some(registers);
                    } else {
                        self.set_time(registers, now_ns);
                    }
                }
                None => self.cmos[usize::from(index)] = value,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    fn get(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
        rtc.write(0x70, index, now);
        rtc.read(0x71, now)
    }

    fn put(rtc: &mut Rtc, index: u8, value: u8, now: u64) {
        rtc.write(0x70, index, now);
        rtc.write(0x71, value, now);
    }

    /// 2024-02-29 23:59:58, a Thursday.
    const LEAP: i64 = 1_709_251_198;

    #[test]
    fn the_date_follows_guest_time() {
        let mut rtc = Rtc::new(LEAP);
        let date = |rtc: &mut Rtc, now| Rtc::TIME_REGISTERS.map(|r| get(rtc, r, now));
        assert_eq!(date(&mut rtc, 0), [0x58, 0x59, 0x23, 5, 0x29, 2, 0x24, 0x20]);
        assert_eq!(date(&mut rtc, 2 * SECOND), [0, 0, 0, 6, 1, 3, 0x24, 0x20]);
    }

    #[test]
    fn the_guest_can_set_it() {
        let mut rtc = Rtc::new(LEAP);
        put(&mut rtc, REG_B, B_SET | B_24H, SECOND);
        for (r, v) in
            Rtc::TIME_REGISTERS.into_iter().zip([0x30, 0x15, 0x08, 1, 0x01, 0x12, 0x99, 0x19])
        {
            put(&mut rtc, r, v, SECOND);
        }
        assert_eq!(get(&mut rtc, 0, 9 * SECOND), 0x30, "frozen while SET");
        put(&mut rtc, REG_B, B_24H, 10 * SECOND);
        assert_eq!(get(&mut rtc, 0, 15 * SECOND), 0x35);
        assert_eq!(get(&mut rtc, 9, 15 * SECOND), 0x99);
        assert_eq!(days_from_civil(2024, 2, 29), LEAP / DAY);
        assert_eq!(civil_from_days(LEAP / DAY), (2024, 2, 29));
    }

    #[test]
    fn twelve_hours_and_binary() {
        let mut rtc = Rtc::new(LEAP);
        put(&mut rtc, REG_B, B_BINARY, 0);
        assert_eq!(get(&mut rtc, 4, 0), 0x80 | 11);
        assert_eq!(get(&mut rtc, 4, 2 * SECOND), 12);
        assert_eq!(get(&mut rtc, 2, 0), 59);
    }

    #[test]
    fn the_alarm_rings_at_its_second() {
        let mut rtc = Rtc::new(LEAP);
        put(&mut rtc, REG_SECONDS_ALARM, 0x05, 0);
        put(&mut rtc, REG_MINUTES_ALARM, 0x00, 0);
        put(&mut rtc, REG_HOURS_ALARM, 0x00, 0);
        put(&mut rtc, REG_B, B_24H | B_ALARM, 0);
        assert_eq!(rtc.deadline(), Some(7 * SECOND));
        rtc.advance(7 * SECOND - 1);
        assert!(!rtc.line());
        rtc.advance(7 * SECOND);
        assert!(rtc.line());
        assert_eq!(get(&mut rtc, REG_C, 7 * SECOND), C_IRQ | C_ALARM | C_UPDATE);
        assert!(!rtc.line());
    }

    #[test]
    fn state_comes_back() {
        let mut rtc = Rtc::new(LEAP);
        put(&mut rtc, REG_B, B_SET | B_24H | B_UPDATE, SECOND);
        put(&mut rtc, 0x50, 7, 2 * SECOND);
        assert_eq!(from_bytes(&to_bytes(&rtc)), Ok(rtc));
    }
}
