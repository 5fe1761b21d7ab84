//! The local APIC (SDM volume 3, chapter 11): xAPIC through memory, x2APIC through MSRs.
//!
//! The timer has no clock of its own: it is the guest time at which it fires next. Its input clock is
//! the 25 MHz crystal of CPUID leaf 15h (40 ns a tick); the TSC counts nanoseconds, so a TSC deadline
//! is a guest time too. A timer that runs while its vector is masked expires silently.

use super::interrupt::{Delivery, Message};
use crate::saved_fields;

/// Where the local APIC's registers lie; it cannot be moved.
pub const LAPIC_BASE: u64 = 0xfee0_0000;
/// Length of its register page.
pub const LAPIC_LEN: u64 = 0x1000;
/// IA32_APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The x2APIC registers.
pub const MSR_X2APIC: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

const BASE_BSP: u64 = 1 << 8;
const BASE_EXTD: u64 = 1 << 10;
const BASE_EN: u64 = 1 << 11;
/// Nanoseconds per tick of the timer's input clock.
const TICK_NS: u64 = 40;
const MASKED: u32 = 1 << 16;
const LVT_TIMER: usize = 0;
const LVT_ERROR: usize = 5;
/// Bits that software may set in each LVT: timer, thermal, performance, LINT0, LINT1, error.
const LVT_WRITABLE: [u32; 6] = [0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff];
/// Integrated APIC, six LVT entries, no suppression of EOI broadcasts.
const VERSION: u32 = 0x0005_0014;
const SVR_ENABLED: u32 = 1 << 8;
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
const ESR_RECEIVED_ILLEGAL: u32 = 1 << 6;

/// 256 bits, one a vector.
type Vectors = [u32; 8];

/// What a register access asks of the machine around the APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// An end of interrupt that the I/O APICs have to hear of.
    Eoi(u8),
    /// An inter-processor interrupt.
    Ipi {
        /// The message.
        message: Message,
        /// To whom, if not to the message's destination.
        shorthand: Shorthand,
    },
}

/// The ICR's destination shorthand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shorthand {
    /// Use the destination field.
    None,
    /// The sender.
    Myself,
    /// Everybody.
    All,
    /// Everybody else.
    Others,
}

/// One local APIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapic {
    id: u32,
    base: u64,
    tpr: u32,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: Vectors,
    irr: Vectors,
    tmr: Vectors,
    esr: u32,
    esr_pending: u32,
    icr: u64,
    lvt: [u32; 6],
    initial_count: u32,
    divide: u32,
    /// Guest time at which the count started; `None`: it stands at 0.
    counting_since: Option<u64>,
    /// IA32_TSC_DEADLINE; 0: not armed.
    tsc_deadline: u64,
}
saved_fields!(Lapic {
    id,
    base,
    tpr,
    ldr,
    dfr,
    svr,
    isr,
    irr,
    tmr,
    esr,
    esr_pending,
    icr,
    lvt,
    initial_count,
    divide,
    counting_since,
    tsc_deadline,
});

#[derive(PartialEq, Eq, Clone, Copy)]
enum TimerMode {
    OneShot,
    Periodic,
    Deadline,
    Reserved,
}

fn bit(vectors: &Vectors, vector: u8) -> bool {
    vectors[usize::from(vector / 32)] & (1 << (vector % 32)) != 0
}

fn set_bit(vectors: &mut Vectors, vector: u8) {
    vectors[usize::from(vector / 32)] |= 1 << (vector % 32);
}

fn clear_bit(vectors: &mut Vectors, vector: u8) {
    vectors[usize::from(vector / 32)] &= !(1 << (vector % 32));
}

fn highest(vectors: &Vectors) -> Option<u8> {
    let word = vectors.iter().rposition(|w| *w != 0)?;
    Some((word as u32 * 32 + vectors[word].ilog2()) as u8)
}

impl Lapic {
    /// Version of the saved bytes.
    pub const VERSION: u32 = 1;

    /// The APIC of CPU `id` after reset, enabled in xAPIC mode as firmware leaves it.
    pub const fn new(id: u32) -> Self {
        Self {
            id,
            base: LAPIC_BASE | BASE_EN | if id == 0 { BASE_BSP } else { 0 },
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: [0; 8],
            irr: [0; 8],
            tmr: [0; 8],
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt: [MASKED; 6],
            initial_count: 0,
            divide: 0,
            counting_since: None,
            tsc_deadline: 0,
        }
    }

    /// True if its registers answer in memory.
    pub const fn answers_memory(&self) -> bool {
        self.base & (BASE_EN | BASE_EXTD) == BASE_EN
    }

    const fn x2apic(&self) -> bool {
        self.base & (BASE_EN | BASE_EXTD) == BASE_EN | BASE_EXTD
    }

    /// The highest-priority interrupt that may be delivered now.
    pub fn pending(&self) -> Option<u8> {
        let vector = highest(&self.irr)?;
        (u32::from(vector) & 0xf0 > self.ppr() & 0xf0).then_some(vector)
    }

    /// Takes that interrupt into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        clear_bit(&mut self.irr, vector);
        set_bit(&mut self.isr, vector);
        Some(vector)
    }

    /// True if a message is meant for this APIC.
    pub const fn is_destination(&self, message: &Message) -> bool {
        let Message { destination, logical, .. } = *message;
        if destination == 0xff || destination == u32::MAX {
            return true;
        }
        if !logical {
            return destination == self.id;
        }
        if self.x2apic() {
            let ldr = self.logical_id();
            return ldr >> 16 == destination >> 16 && ldr & destination & 0xffff != 0;
        }
        let ldr = self.ldr >> 24;
        if self.dfr >> 28 == 0xf {
            ldr & destination != 0
        } else {
            ldr >> 4 == destination >> 4 && ldr & destination & 0xf != 0
        }
    }

    /// Accepts an interrupt; a disabled APIC drops it.
    pub fn accept(&mut self, vector: u8, level: bool) {
        if self.base & BASE_EN == 0 || self.svr & SVR_ENABLED == 0 {
            return;
        }
        if vector < 16 {
            self.error(ESR_RECEIVED_ILLEGAL);
            return;
        }
        set_bit(&mut self.irr, vector);
        if level {
            set_bit(&mut self.tmr, vector);
        } else {
            clear_bit(&mut self.tmr, vector);
        }
    }

    fn error(&mut self, bits: u32) {
        self.esr_pending |= bits;
        let lvt = self.lvt[LVT_ERROR];
        if lvt & MASKED == 0 && lvt & 0xff >= 16 {
            set_bit(&mut self.irr, lvt as u8);
        }
    }

    fn ppr(&self) -> u32 {
        let in_service = highest(&self.isr).map_or(0, u32::from) & 0xf0;
        if self.tpr & 0xf0 >= in_service { self.tpr } else { in_service }
    }

    /// CR8.
    pub const fn cr8(&self) -> u8 {
        (self.tpr >> 4) as u8
    }

    /// CR8.
    pub const fn set_cr8(&mut self, value: u8) {
        self.tpr = ((value & 0xf) as u32) << 4;
    }

    const fn logical_id(&self) -> u32 {
        if self.x2apic() { (self.id >> 4) << 16 | 1 << (self.id & 0xf) } else { self.ldr }
    }

    fn eoi(&mut self) -> Effect {
        let Some(vector) = highest(&self.isr) else { return Effect::None };
        clear_bit(&mut self.isr, vector);
        if bit(&self.tmr, vector) { Effect::Eoi(vector) } else { Effect::None }
    }

    // The timer.

    const fn timer_mode(&self) -> TimerMode {
        match self.lvt[LVT_TIMER] >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::Deadline,
            _ => TimerMode::Reserved,
        }
    }

    const fn count_ns(&self) -> u64 {
        let shift = (((self.divide & 3) | (self.divide >> 1 & 4)) + 1) & 7;
        TICK_NS << shift
    }

    const fn period_ns(&self) -> u64 {
        self.initial_count as u64 * self.count_ns()
    }

    /// Guest time at which the timer's interrupt is due, if it can raise one.
    pub const fn deadline(&self) -> Option<u64> {
        if self.lvt[LVT_TIMER] & MASKED != 0 { None } else { self.expiry() }
    }

    const fn expiry(&self) -> Option<u64> {
        match (self.timer_mode(), self.counting_since) {
            (TimerMode::Deadline, _) if self.tsc_deadline != 0 => Some(self.tsc_deadline),
            (TimerMode::OneShot | TimerMode::Periodic, Some(since)) => {
                Some(since.saturating_add(self.period_ns()))
            }
            _ => None,
        }
    }

    /// Lets the timer expire if its time has come.
    pub fn advance(&mut self, now_ns: u64) {
        let Some(expiry) = self.expiry() else { return };
        if now_ns < expiry {
            return;
        }
        match self.timer_mode() {
            TimerMode::Deadline => self.tsc_deadline = 0,
            TimerMode::Periodic => {
                let late = now_ns - expiry;
                self.counting_since = Some(now_ns - late % self.period_ns());
            }
            TimerMode::OneShot | TimerMode::Reserved => self.counting_since = None,
        }
        let lvt = self.lvt[LVT_TIMER];
        if lvt & MASKED == 0 {
            self.accept(lvt as u8, false);
        }
    }

    fn current_count(&self, now_ns: u64) -> u32 {
        match (self.timer_mode(), self.counting_since) {
            (TimerMode::OneShot | TimerMode::Periodic, Some(since)) => {
                let passed = now_ns.saturating_sub(since) / self.count_ns();
                self.initial_count.saturating_sub(passed.min(u64::from(u32::MAX)) as u32)
            }
            _ => 0,
        }
    }

    fn set_lvt(&mut self, index: usize, value: u32) {
        let old_mode = self.timer_mode();
        let mut value = value & LVT_WRITABLE[index];
        if self.svr & SVR_ENABLED == 0 {
            value |= MASKED;
        }
        self.lvt[index] = value;
        if index == LVT_TIMER
            && (old_mode == TimerMode::Deadline) != (self.timer_mode() == TimerMode::Deadline)
        {
            self.counting_since = None;
            self.tsc_deadline = 0;
        }
    }

    // Registers, by their number: offset in memory / 16, MSR - 800h.

    fn read_register(&self, register: u32, now_ns: u64) -> Option<u32> {
        Some(match register {
            0x02 if self.x2apic() => self.id,
            0x02 => self.id << 24,
            0x03 => VERSION,
            0x08 => self.tpr,
            0x09 if !self.x2apic() => 0,
            0x0a => self.ppr(),
            0x0d => self.logical_id(),
            0x0e if !self.x2apic() => self.dfr,
            0x0f => self.svr,
            0x10..=0x17 => self.isr[register as usize - 0x10],
            0x18..=0x1f => self.tmr[register as usize - 0x18],
            0x20..=0x27 => self.irr[register as usize - 0x20],
            0x28 => self.esr,
            0x30 => self.icr as u32,
            0x31 if !self.x2apic() => (self.icr >> 32) as u32,
            0x32..=0x37 => self.lvt[register as usize - 0x32],
            0x38 => self.initial_count,
            0x39 => self.current_count(now_ns),
            0x3e => self.divide,
            _ => return None,
        })
    }

    /// `None`: there is no such register to write.
    fn write_register(&mut self, register: u32, value: u32, now_ns: u64) -> Option<Effect> {
        self.advance(now_ns);
        match register {
            0x02 if !self.x2apic() => {} // The ID is fixed.
            0x08 => self.tpr = value & 0xff,
            0x0b => return Some(self.eoi()),
            0x0d if !self.x2apic() => self.ldr = value & 0xff00_0000,
            0x0e if !self.x2apic() => self.dfr = value | 0x0fff_ffff,
            0x0f => {
                self.svr = value & 0x1ff;
                if self.svr & SVR_ENABLED == 0 {
                    self.lvt.iter_mut().for_each(|lvt| *lvt |= MASKED);
                }
            }
            0x28 => self.esr = std::mem::take(&mut self.esr_pending),
            0x30 => {
                self.icr = self.icr & 0xffff_ffff_0000_0000 | u64::from(value & !(1 << 12));
                return Some(self.send());
            }
            0x31 if !self.x2apic() => {
                self.icr = self.icr & 0xffff_ffff | u64::from(value) << 32;
            }
            0x32..=0x37 => self.set_lvt(register as usize - 0x32, value),
            0x38 if self.timer_mode() == TimerMode::Deadline => {}
            0x38 => {
                self.initial_count = value;
                self.counting_since = (value != 0).then_some(now_ns);
            }
            0x3e => {
                // The count that is left goes on at the new speed.
                let left = u64::from(self.current_count(now_ns));
                self.divide = value & 0xb;
                if self.counting_since.is_some() {
                    let done = u64::from(self.initial_count) - left;
                    self.counting_since = Some(now_ns.saturating_sub(done * self.count_ns()));
                }
            }
            0x3f if self.x2apic() => self.accept(value as u8, false),
            _ => return None,
        }
        Some(Effect::None)
    }

    fn send(&mut self) -> Effect {
        let icr = self.icr;
        let delivery = Delivery::from_bits((icr >> 8) as u32);
        if icr as u8 & 0xf0 == 0 && delivery == Delivery::Fixed {
            self.error(ESR_SEND_ILLEGAL);
            return Effect::None;
        }
        let destination = if self.x2apic() { (icr >> 32) as u32 } else { (icr >> 56) as u32 };
        Effect::Ipi {
            message: Message {
                vector: icr as u8,
                delivery,
                logical: icr & 1 << 11 != 0,
                destination,
                level: false,
            },
            shorthand: match icr >> 18 & 3 {
                0 => Shorthand::None,
                1 => Shorthand::Myself,
                2 => Shorthand::All,
                _ => Shorthand::Others,
            },
        }
    }

    /// Reads a register in memory. Registers are 32 bits wide and 16 bytes apart.
    pub fn mmio_read(&self, offset: u64, now_ns: u64) -> u32 {
        if !offset.is_multiple_of(16) {
            return 0;
        }
        self.read_register((offset / 16) as u32, now_ns).unwrap_or(0)
    }

    /// Writes a register in memory.
    pub fn mmio_write(&mut self, offset: u64, value: u32, now_ns: u64) -> Effect {
        if !offset.is_multiple_of(16) {
            return Effect::None;
        }
        self.write_register((offset / 16) as u32, value, now_ns).unwrap_or_else(|| {
            self.error(1 << 7);
            Effect::None
        })
    }

    /// RDMSR; `None`: #GP.
    pub fn msr_read(&self, msr: u32, now_ns: u64) -> Option<u64> {
        match msr {
            MSR_APIC_BASE => Some(self.base),
            MSR_TSC_DEADLINE => {
                // Expired and not yet looked at reads as disarmed, as after the interrupt.
                let live = self.timer_mode() == TimerMode::Deadline && self.tsc_deadline > now_ns;
                Some(if live { self.tsc_deadline } else { 0 })
            }
            0x830 if self.x2apic() => Some(self.icr),
            0x83f | 0x80b => None,
            _ if MSR_X2APIC.contains(&msr) && self.x2apic() => {
                self.read_register(msr - 0x800, now_ns).map(u64::from)
            }
            _ => None,
        }
    }

    /// WRMSR; `None`: #GP.
    pub fn msr_write(&mut self, msr: u32, value: u64, now_ns: u64) -> Option<Effect> {
        match msr {
            MSR_APIC_BASE => return self.set_base(value).then_some(Effect::None),
            MSR_TSC_DEADLINE => {
                self.advance(now_ns);
                if self.timer_mode() == TimerMode::Deadline {
                    self.tsc_deadline = value;
                }
                return Some(Effect::None);
            }
            _ => {}
        }
        if !MSR_X2APIC.contains(&msr) || !self.x2apic() {
            return None;
        }
        match msr {
            0x830 => {
                self.icr = value & !(1 << 12);
                Some(self.send())
            }
            // EOI and ESR take nothing but 0 (SDM volume 3, 11.12.1.2).
            0x80b | 0x828 if value != 0 => None,
            _ => self.write_register(msr - 0x800, u32::try_from(value).ok()?, now_ns),
        }
    }

    /// The transitions of SDM volume 3, figure 11-27. A base other than the default is refused.
    fn set_base(&mut self, value: u64) -> bool {
        if value & !0xfff != LAPIC_BASE || value & 0x2ff != 0 {
            return false;
        }
        let old = self.base & (BASE_EN | BASE_EXTD);
        let new = value & (BASE_EN | BASE_EXTD);
        let legal = match (old, new) {
            (_, BASE_EXTD) => false,
            (o, n) if o == BASE_EN | BASE_EXTD && n == BASE_EN => false,
            (0, n) if n == BASE_EN | BASE_EXTD => false,
            _ => true,
        };
        if !legal {
            return false;
        }
        if new == 0 && old != 0 {
            *self = Self::new(self.id);
        }
        self.base = LAPIC_BASE | self.base & BASE_BSP | new;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    fn enabled() -> Lapic {
        let mut apic = Lapic::new(0);
        apic.mmio_write(0xf0, 0x1ff, 0);
        apic
    }

    #[test]
    fn priorities_decide_what_is_delivered() {
        let mut apic = enabled();
        apic.accept(0x31, false);
        apic.accept(0x52, false);
        assert_eq!(apic.acknowledge(), Some(0x52));
        assert_eq!(apic.pending(), None, "0x31 waits for 0x52's end");
        assert_eq!(apic.mmio_read(0xa0, 0), 0x50);
        assert_eq!(apic.mmio_write(0xb0, 0, 0), Effect::None);
        assert_eq!(apic.pending(), Some(0x31));
        apic.set_cr8(3);
        assert_eq!(apic.pending(), None);
        assert_eq!((apic.cr8(), apic.mmio_read(0x80, 0)), (3, 0x30));
        apic.set_cr8(2);
        assert_eq!(apic.acknowledge(), Some(0x31));
    }

    #[test]
    fn the_end_of_a_level_interrupt_is_broadcast() {
        let mut apic = enabled();
        apic.accept(0x41, true);
        apic.acknowledge();
        assert_eq!(apic.mmio_write(0xb0, 0, 0), Effect::Eoi(0x41));
    }

    #[test]
    fn a_disabled_apic_drops_and_masks() {
        let mut apic = Lapic::new(0);
        apic.accept(0x41, false);
        assert_eq!(apic.pending(), None);
        apic.mmio_write(0x320, 0x41, 0);
        assert_eq!(apic.mmio_read(0x320, 0), MASKED | 0x41);
    }

    #[test]
    fn one_shot_fires_once() {
        let mut apic = enabled();
        apic.mmio_write(0x3e0, 0b1011, 0); // divide by 1
        apic.mmio_write(0x320, 0x40, 0);
        apic.mmio_write(0x380, 100, 1000);
        assert_eq!(apic.deadline(), Some(1000 + 100 * 40));
        assert_eq!(apic.mmio_read(0x390, 1000 + 40 * 30 + 1), 70);
        apic.advance(4999);
        assert_eq!(apic.pending(), None);
        apic.advance(5000);
        assert_eq!((apic.pending(), apic.deadline()), (Some(0x40), None));
        assert_eq!(apic.mmio_read(0x390, 6000), 0);
    }

    #[test]
    fn periodic_keeps_its_beat() {
        let mut apic = enabled();
        apic.mmio_write(0x3e0, 0b0011, 0); // divide by 16
        apic.mmio_write(0x320, 1 << 17 | 0x40, 0);
        apic.mmio_write(0x380, 10, 0);
        assert_eq!(apic.deadline(), Some(6400));
        apic.advance(6410);
        assert_eq!(apic.deadline(), Some(12_800));
        apic.mmio_write(0x320, MASKED | 1 << 17 | 0x40, 7000);
        assert_eq!(apic.deadline(), None);
        apic.acknowledge();
        apic.mmio_write(0x320, 1 << 17 | 0x40, 20_000);
        assert_eq!(
            (apic.pending(), apic.deadline()),
            (None, Some(25_600)),
            "masked beats are lost"
        );
    }

    #[test]
    fn deadline_mode_is_a_time() {
        let mut apic = enabled();
        assert_eq!(apic.msr_write(MSR_TSC_DEADLINE, 5000, 0), Some(Effect::None));
        assert_eq!(apic.msr_read(MSR_TSC_DEADLINE, 0), Some(0), "ignored in another mode");
        apic.mmio_write(0x320, 2 << 17 | 0x40, 0);
        apic.msr_write(MSR_TSC_DEADLINE, 5000, 0);
        assert_eq!(apic.deadline(), Some(5000));
        assert_eq!(apic.msr_read(MSR_TSC_DEADLINE, 100), Some(5000));
        apic.advance(5000);
        assert_eq!((apic.pending(), apic.deadline()), (Some(0x40), None));
        assert_eq!(apic.msr_read(MSR_TSC_DEADLINE, 5000), Some(0));
    }

    #[test]
    fn x2apic_mode_speaks_msrs() {
        let mut apic = enabled();
        assert_eq!(apic.msr_read(0x802, 0), None);
        assert_eq!(apic.msr_write(MSR_APIC_BASE, LAPIC_BASE | 0x400, 0), None);
        assert!(apic.msr_write(MSR_APIC_BASE, LAPIC_BASE | 0xd00, 0).is_some());
        assert!(!apic.answers_memory());
        assert_eq!(apic.msr_read(0x802, 0), Some(0));
        assert_eq!(apic.msr_read(0x80d, 0), Some(1));
        assert_eq!(apic.msr_write(0x80b, 1, 0), None);
        apic.msr_write(0x83f, 0x77, 0);
        assert_eq!(apic.acknowledge(), Some(0x77));
        let effect = apic.msr_write(0x830, 3 << 32 | 1 << 18 | 0x90, 0);
        assert!(matches!(effect, Some(Effect::Ipi { shorthand: Shorthand::Myself, message })
            if message.vector == 0x90 && message.destination == 3));
        assert_eq!(apic.msr_write(MSR_APIC_BASE, LAPIC_BASE | 0x900, 0), None);
    }

    #[test]
    fn destinations_match() {
        let mut apic = enabled();
        apic.mmio_write(0xd0, 0x0100_0000, 0);
        let to = |logical, destination| Message {
            vector: 0x40,
            delivery: Delivery::Fixed,
            logical,
            destination,
            level: false,
        };
        assert!(apic.is_destination(&to(false, 0)) && apic.is_destination(&to(false, 0xff)));
        assert!(!apic.is_destination(&to(false, 1)));
        assert!(apic.is_destination(&to(true, 0x11)) && !apic.is_destination(&to(true, 0x10)));
    }

    #[test]
    fn state_comes_back() {
        let mut apic = enabled();
        apic.mmio_write(0x320, 2 << 17 | 0x40, 0);
        apic.msr_write(MSR_TSC_DEADLINE, 5000, 0);
        apic.accept(0x31, true);
        apic.acknowledge();
        apic.accept(0x99, false);
        assert_eq!(from_bytes(&to_bytes(&apic)), Ok(apic));
    }
}
