//! Delivery of exceptions and interrupts through the 64-bit IDT (Intel SDM volume 3, section 6.14).

use crate::flags::{IF, NT, RF, TF, VM};
use crate::mmu::is_canonical;
use crate::segment::Descriptor;
use crate::state::{CS, RIP, RSP, SS, Segment};
use crate::{Cpu, Trap};

const DEBUG: u8 = 1;
const DOUBLE_FAULT: u8 = 8;
/// DR6.BS: single step.
const DR6_BS: u64 = 1 << 14;
/// DR7.GD: general detect.
pub const DR7_GD: u64 = 1 << 13;
/// In error codes: the event was not a software interrupt.
const EXT: u32 = 1;
/// In error codes: the index is one of the IDT.
const IDT: u32 = 2;

/// What is being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// An exception of the fault class: RF is set in the pushed image.
    Fault,
    /// An external interrupt, a trap, INT1.
    Event,
    /// INT n, INT3, INTO: the gate's DPL is checked.
    Software,
}

/// SDM table 6-4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
}

const fn class(vector: u8) -> Class {
    match vector {
        0 | 10..=13 => Class::Contributory,
        14 => Class::PageFault,
        _ => Class::Benign,
    }
}

impl Cpu {
    /// Delivers a fault of the instruction at RIP; double and triple faults follow from faults while
    /// delivering (SDM table 6-5). A triple fault sets `shut_down`.
    pub(crate) fn deliver_exception(&mut self, trap: Trap) {
        let mut trap = trap;
        loop {
            let vector = trap.vector();
            let source = if vector == DOUBLE_FAULT { Source::Event } else { Source::Fault };
            let Err(second) = self.enter_handler(vector, trap.code(), source) else { return };
            if vector == DOUBLE_FAULT {
                self.shut_down = true;
                return;
            }
            trap = match (class(vector), class(second.vector())) {
                (Class::Contributory, Class::Contributory)
                | (Class::PageFault, Class::Contributory | Class::PageFault) => {
                    Trap::with_code(DOUBLE_FAULT, 0)
                }
                _ => second,
            };
        }
    }

    /// Delivers an external interrupt.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) {
        self.deliver_event(vector);
    }

    /// Raises #DB with DR6.BS behind a single-stepped instruction. Instruction and trap are one place:
    /// nothing is counted for the delivery.
    pub(crate) fn single_step_trap(&mut self) {
        self.state.dr[6] |= DR6_BS;
        self.deliver_event(DEBUG);
    }

    fn deliver_event(&mut self, vector: u8) {
        if let Err(second) = self.enter_handler(vector, None, Source::Event) {
            self.deliver_exception(second);
        }
    }

    /// INT n, INT3, INTO; RIP is behind the instruction.
    pub(crate) fn software_interrupt(&mut self, vector: u8) -> Result<(), Trap> {
        self.enter_handler(vector, None, Source::Software)
    }

    /// INT1: a #DB that checks no privilege.
    pub(crate) fn icebp(&mut self) -> Result<(), Trap> {
        self.enter_handler(DEBUG, None, Source::Event)
    }

    /// Enters the handler of a vector; on a fault nothing but memory below the new stack pointer has
    /// changed.
    fn enter_handler(&mut self, vector: u8, code: Option<u32>, source: Source) -> Result<(), Trap> {
        let ext = if source == Source::Software { 0 } else { EXT };
        let (gate, target) = self.read_gate(vector, source, ext)?;
        let selector = (gate >> 16) as u16;
        let (segment, cpl) = self.handler_segment(selector, ext)?;
        if !is_canonical(target) {
            return Err(Trap::gp(ext));
        }
        let ist = (gate >> 32) as u32 & 7;
        let rsp = if ist != 0 {
            self.tss_stack(28 + 8 * ist, ext)?
        } else if cpl < self.state.cpl {
            self.tss_stack(4 + 8 * u32::from(cpl), ext)?
        } else {
            self.state.regs[RSP]
        };
        let mut rflags = self.state.flags.rflags();
        if source == Source::Fault {
            rflags |= RF;
        }
        let frame = [
            u64::from(self.state.seg[SS].selector),
            self.state.regs[RSP],
            rflags,
            u64::from(self.state.seg[CS].selector),
            self.state.regs[RIP],
        ];
        let mut sp = rsp & !15;
        for value in frame.into_iter().chain(code.map(u64::from)) {
            sp = sp.wrapping_sub(8);
            if !is_canonical(sp) {
                return Err(Trap::with_code(12, ext));
            }
            if cpl == 3 {
                self.store(sp, value)?;
            } else {
                self.store_system(sp, value)?;
            }
        }

        let s = &mut self.state;
        if cpl < s.cpl {
            s.seg[SS] = Segment { selector: u16::from(cpl), ..Segment::default() };
        }
        s.seg[CS] = segment;
        s.cpl = cpl;
        s.regs[RSP] = sp;
        s.regs[RIP] = target;
        s.flags.other &= !(TF | NT | RF | VM);
        let interrupt_gate = (gate >> 40) & 1 == 0;
        if interrupt_gate {
            s.flags.other &= !IF;
        }
        if vector == DEBUG {
            s.dr[7] &= !DR7_GD;
        }
        s.halted = false;
        self.step = false;
        self.block_stop = true;
        self.update_mode();
        Ok(())
    }

    /// The gate's low half and its target offset.
    fn read_gate(&mut self, vector: u8, source: Source, ext: u32) -> Result<(u64, u64), Trap> {
        let code = u32::from(vector) << 3 | IDT | ext;
        let at = u64::from(vector) * 16;
        if at + 15 > u64::from(self.state.idtr.limit) {
            return Err(Trap::gp(code));
        }
        let base = self.state.idtr.base.wrapping_add(at);
        let low: u64 = self.load_system(base)?;
        let high: u64 = self.load_system(base.wrapping_add(8))?;
        let kind = (low >> 40) & 0x1f;
        let dpl = (low >> 45) as u8 & 3;
        let present = low >> 47 & 1 != 0;
        if !matches!(kind, 0xe | 0xf) || source == Source::Software && dpl < self.state.cpl {
            return Err(Trap::gp(code));
        }
        if !present {
            return Err(Trap::with_code(11, code));
        }
        Ok((low, low & 0xffff | (low >> 48) << 16 | high << 32))
    }

    /// The code segment of a handler and the privilege it runs with.
    fn handler_segment(&mut self, selector: u16, ext: u32) -> Result<(Segment, u8), Trap> {
        if selector & !3 == 0 {
            return Err(Trap::gp(ext));
        }
        let code = u32::from(selector & !3) | ext;
        let Some((at, descriptor)) = self.read_descriptor(selector)? else {
            return Err(Trap::gp(code));
        };
        let cpl = self.state.cpl;
        if !descriptor.is_code()
            || descriptor.dpl() > cpl
            || !descriptor.is_long()
            || descriptor.is_big()
        {
            return Err(Trap::gp(code));
        }
        if !descriptor.is_present() {
            return Err(Trap::with_code(11, code));
        }
        let new = if descriptor.is_conforming() { cpl } else { descriptor.dpl() };
        let descriptor: Descriptor = self.mark_accessed(at, descriptor)?;
        Ok((descriptor.segment(selector & !3 | u16::from(new)), new))
    }

    /// A stack pointer out of the 64-bit TSS.
    pub(crate) fn tss_stack(&mut self, offset: u32, ext: u32) -> Result<u64, Trap> {
        let tr = self.state.tr;
        if offset + 7 > tr.limit {
            return Err(Trap::with_code(10, u32::from(tr.selector & !3) | ext));
        }
        self.load_system(tr.base.wrapping_add(u64::from(offset)))
    }
}
