//! Into translated code and back, and the help that it calls for.
#![allow(unsafe_code)]
// Reason: control leaves Rust. Obligation: `enter` is called with the entry of a unit that `Jit` holds and a
// frame that outlives the call; the code keeps the System V convention towards both callers; `link.cpu` is
// valid from `enter` to its return, and while code runs nobody but `help` uses it. Code reaches memory
// only through the frame and through window entries that repeat TLB entries of guest RAM.

use super::emit::{Want, reason};
use crate::block::Block;
use crate::frame::{BASE, Frame, pack_flags, unpack_flags};
use crate::mmu::is_canonical;
use crate::op::{CHAINS, ENDS_BLOCK};
use crate::ram::PAGE;
use crate::state::RIP;
use crate::tlb::{Access, QUIET};
use crate::{Cpu, Trap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// Reasons that `help` gives in [`crate::frame::Link::reason`]; the others are in [`reason`].
const HELPED_NEXT: u64 = 3;
const HELPED_STOP: u64 = 4;
const HELPED_TRAP: u64 = 5;

/// Answers in [`crate::frame::Link::answer`].
const AGAIN: u64 = 0;
const DONE: u64 = 1;
const LEAVE: u64 = 2;

/// Calls for help at one position after which the interpreter takes the instruction.
const PATIENCE: u32 = 4;
/// The most that code runs without a look back.
const FUEL_MAX: u64 = 1 << 30;

/// How translated code came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// Nothing ran: the block is to be interpreted.
    Cold,
    /// The next block follows at once.
    Next,
    /// The run loop has to look first.
    Stop,
    /// The instruction at RIP faults.
    Fault(Trap),
}

impl Cpu {
    /// Runs the block at RIP, and those that follow, translated. Stays within `limit` retired instructions.
    pub(crate) fn run_unit(&mut self, block: &Rc<Block>, limit: u64) -> Ran {
        let mode = self.mode();
        let unit = self.unit_of(block, mode);
        let left = limit - self.state.retired;
        let Some(jit) = self.jit.as_mut() else { return Ran::Cold };
        let chain = jit.chain.take();
        let Some(unit) = unit.map(|unit| &jit.units[unit as usize]) else { return Ran::Cold };
        if left < unit.len {
            return Ran::Cold;
        }
        let entry = unit.entry;
        if let Some(slot) = chain {
            jit.memory.patch_jump(jit.slots[slot as usize].at, entry);
        }
        jit.statistics.entries += 1;
        if jit.targets_for != mode.common() {
            jit.targets_for = mode.common();
            self.tlb.changes.targets();
        }
        let (rip, retired) = (self.state.rip(), self.state.retired);
        let fuel = left.min(FUEL_MAX);
        let flags = pack_flags(self.state.flags.arith());
        let cpu: *mut Self = self;
        let link = self.state.link();
        link.follow(&mut self.tlb.changes);
        link.show_target(mode.view(), rip, entry);
        link.page_va = rip & !(PAGE - 1);
        link.flags = flags;
        link.fuel = fuel;
        link.end = retired + fuel;
        link.helper = help as *const () as usize;
        link.cpu = cpu;
        self.enter(entry);
        self.came_back()
    }

    fn enter(&mut self, entry: usize) {
        let Some(jit) = &self.jit else { return };
        // SAFETY: `common.enter` is code of this type, made by `emit::common`.
        let enter = unsafe {
            std::mem::transmute::<usize, unsafe extern "sysv64" fn(usize, *mut u8)>(
                jit.common.enter,
            )
        };
        let frame: *mut Frame = self.state.frame();
        // SAFETY: see the module's head.
        unsafe { enter(entry, frame.cast::<u8>().add(BASE)) };
    }

    fn came_back(&mut self) -> Ran {
        let link = self.state.link();
        let (why, site, flags) = (link.reason, link.site, link.flags);
        let retired = link.end - link.fuel;
        self.state.flags.set_arith(unpack_flags(flags));
        let Some(jit) = self.jit.as_mut() else { return Ran::Next };
        if let Some(panic) = jit.panic.take() {
            resume_unwind(panic);
        }
        match why {
            HELPED_NEXT => return Ran::Next,
            HELPED_STOP => return Ran::Stop,
            HELPED_TRAP => {
                let trap = jit.trap.take().expect("a trap was noted with the reason");
                return Ran::Fault(trap);
            }
            _ => {}
        }
        if why == reason::CHAIN as u64 {
            jit.chain = Some(site as u32);
        }
        self.state.retired = retired;
        Ran::Next
    }

    /// Serves a call for help from the site in the link.
    fn serve(&mut self) {
        let flags = unpack_flags(self.state.link().flags);
        self.state.flags.set_arith(flags);
        let link = self.state.link();
        let (number, va, fuel, end) = (link.site, link.va, link.fuel, link.end);
        let Some(jit) = self.jit.as_mut() else { return };
        let site = jit.sites[number as usize];
        jit.statistics.helps += 1;
        let retired = end - fuel - u64::from(site.rest);
        jit.helped_at =
            if jit.helped_at.0 == retired { (retired, jit.helped_at.1 + 1) } else { (retired, 1) };
        let patient = jit.helped_at.1 <= PATIENCE;
        self.state.retired = retired;
        self.update_mode();
        let shown = patient
            && match site.want {
                Want::Read(size) => self.show(va, size, false, site.mode.view()),
                Want::Write(size) => self.show(va, size, true, site.mode.view()),
                Want::Execute => false,
            };
        let answer = if shown { AGAIN } else { self.execute_for(&site) };
        let flags = pack_flags(self.state.flags.arith());
        let link = self.state.link();
        link.answer = answer;
        link.flags = flags;
        link.follow(&mut self.tlb.changes);
    }

    /// Shows a page of RAM in the window, if the TLB may hold it and the access is a plain one. Does to the
    /// TLB, the page tables and the dirty marks what the access itself would do.
    fn show(&mut self, va: u64, size: u8, write: bool, view: usize) -> bool {
        let inside = va % PAGE + u64::from(size) <= PAGE;
        if !inside || !is_canonical(va) {
            return false;
        }
        let (access, need) =
            if write { (Access::Write, self.write_need) } else { (Access::Read, self.read_need) };
        // A fault is raised again, and reported, by the interpreter.
        let Ok(entry) = self.data_entry(va, access, need) else { return false };
        if entry.host == 0 || self.block_stop {
            return false;
        }
        if write && entry.perms & QUIET == 0 {
            let page = self.ram.page_index(entry.gpa).expect("an entry with a host address is RAM");
            if self.ram.holds_code(page) {
                return false;
            }
            self.stored_to(&entry);
        }
        // What was forgotten on the way goes first: it may be what is shown now.
        let link = self.state.link();
        link.follow(&mut self.tlb.changes);
        link.show_page(view, va, entry.host, write);
        true
    }

    /// Executes the site's instruction as the interpreter does.
    fn execute_for(&mut self, site: &super::emit::Site) -> u64 {
        let Some(jit) = self.jit.as_mut() else { return LEAVE };
        jit.statistics.interpreted += 1;
        let block = jit.units[site.unit as usize].block.clone();
        let op = &block.ops[usize::from(site.index)];
        self.state.regs[RIP] = self.state.link().page_va.wrapping_add(u64::from(site.next));
        self.state.retired += 1;
        let (why, answer) = match (op.exec)(self, op) {
            Err(trap) => {
                self.state.retired -= 1;
                self.state.regs[RIP] = self.state.regs[RIP].wrapping_sub(u64::from(op.len));
                if let Some(jit) = self.jit.as_mut() {
                    jit.trap = Some(trap);
                }
                (HELPED_TRAP, LEAVE)
            }
            Ok(()) if self.block_stop => (HELPED_STOP, LEAVE),
            Ok(()) => match op.flags & (ENDS_BLOCK | CHAINS) {
                0 | CHAINS if self.mode() == site.mode => (HELPED_NEXT, DONE),
                ENDS_BLOCK => (HELPED_STOP, LEAVE),
                _ => (HELPED_NEXT, LEAVE),
            },
        };
        self.state.link().reason = why;
        answer
    }
}

/// What translated code calls.
extern "sysv64" fn help(frame: *mut Frame) {
    // SAFETY: set by `run_unit` before it entered the code that calls.
    let cpu = unsafe { &mut *(*frame).link.cpu };
    let served = catch_unwind(AssertUnwindSafe(|| cpu.serve()));
    if let Err(panic) = served {
        if let Some(jit) = cpu.jit.as_mut() {
            jit.panic = Some(panic);
        }
        let link = cpu.state.link();
        link.reason = HELPED_STOP;
        link.answer = LEAVE;
    }
}
