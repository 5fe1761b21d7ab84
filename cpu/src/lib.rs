//! A deterministic software x86-64 CPU with exact retired-instruction counts.
//!
//! [`Cpu`] decodes guest code into blocks ([`block`]), executes them by fuel ([`run`]) and reaches guest
//! memory through a software TLB ([`tlb`], [`mem`]). Instruction semantics live in `exec`, one file a
//! class. The architectural state is plain data ([`state::CpuState`]).

pub mod bus;
pub mod exec;
pub mod flags;
pub mod jit;
pub mod op;
pub mod ram;
pub mod state;
pub mod tlb;

mod block;
mod cpuid;
mod exception;
mod frame;
mod mem;
mod mmu;
mod msr;
mod run;
mod segment;
mod trap;

pub use bus::Bus;
pub use cpuid::model_follows_this_host;
pub use frame::StateBox;
pub use mem::Value;
pub use ram::GuestRam;
pub use run::{Exit, REP_CHUNKS_PER_RUN};
pub use state::CpuState;
pub use trap::Trap;

use state::{CR4_SMAP, CR4_SMEP};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;

/// What executes guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// Handlers in Rust, one instruction after the other: runs on every host.
    #[default]
    Interpreter,
    /// Hot blocks as host code; see [`jit`]. Not fit for use yet: docs/todo.md says where it goes wrong.
    Translator,
}

/// One CPU. All of its state lives here; several can exist in one process.
pub struct Cpu {
    /// The architectural state. Whoever changes it from outside calls [`Cpu::state_replaced`].
    pub state: StateBox,
    tlb: tlb::Tlb,
    blocks: block::BlockCache,
    /// The translator, if code runs translated.
    jit: Option<Box<jit::Jit>>,
    ram: Arc<GuestRam>,
    bus: Option<NonNull<dyn Bus>>,
    /// Perm bits that a read, a write, a fetch needs at the current privilege.
    read_need: u16,
    write_need: u16,
    fetch_need: u16,
    /// An interrupt is deliverable as far as the APIC is concerned.
    irq: bool,
    /// The running block has to end behind the current instruction.
    block_stop: bool,
    /// The current instruction is single-stepped: #DB follows unless it enters a handler itself.
    step: bool,
    exit_requested: bool,
    shut_down: bool,
    /// Invalid or unsupported opcodes met, by what they were, with how often.
    pub undefined: BTreeMap<String, u64>,
}

// SAFETY: `bus` is only set inside `run`; between runs the CPU holds no pointer into anything foreign,
// and the reference-counted blocks never leave it.
#[allow(unsafe_code)]
unsafe impl Send for Cpu {}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cpu").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Cpu {
    /// A CPU after reset, on the given memory.
    pub fn new(ram: Arc<GuestRam>) -> Self {
        let mut cpu = Self {
            state: StateBox::default(),
            tlb: tlb::Tlb::default(),
            blocks: block::BlockCache::default(),
            jit: None,
            ram,
            bus: None,
            read_need: 0,
            write_need: 0,
            fetch_need: 0,
            irq: false,
            block_stop: false,
            step: false,
            exit_requested: false,
            shut_down: false,
            undefined: BTreeMap::new(),
        };
        cpu.state_replaced();
        cpu
    }

    /// Chooses what executes the code from here on. Both are to give the same results at the same
    /// positions.
    ///
    /// # Errors
    /// Where this host cannot run translated code; then it is interpreted.
    pub fn set_engine(&mut self, engine: Engine) -> Result<(), jit::Unsupported> {
        self.jit = None;
        self.state_replaced();
        if engine == Engine::Translator {
            self.jit = Some(Box::new(jit::Jit::new()?));
        }
        Ok(())
    }

    /// What executes the code.
    pub fn engine(&self) -> Engine {
        if self.jit.is_some() { Engine::Translator } else { Engine::Interpreter }
    }

    /// How often a block is interpreted before it is translated: 1 translates everything (for tests).
    pub fn translate_after(&mut self, executions: u32) {
        if let Some(jit) = &mut self.jit {
            jit.translate_after(executions);
        }
    }

    /// Counters of the translator, if code runs translated.
    pub fn translator_statistics(&self) -> Option<jit::Statistics> {
        self.jit.as_ref().map(|jit| jit.statistics())
    }

    /// The state was set from outside (boot, restore): cached translations and code are void.
    pub fn state_replaced(&mut self) {
        self.flush_tlb();
        self.blocks.clear();
        if let Some(jit) = &mut self.jit {
            jit.clear();
        }
        for page in 0..self.ram.pages() {
            self.ram.clear_code(page);
        }
        self.shut_down = false;
        self.update_mode();
    }

    /// Empties the TLB, as a snapshot or a repair does on both sides at the same position.
    pub fn flush_tlb(&mut self) {
        self.tlb.flush_all();
    }

    /// Forgets translations that are not global (MOV to CR3).
    pub(crate) fn flush_tlb_non_global(&mut self) {
        self.tlb.flush_non_global();
    }

    /// Forgets the translation of one address (INVLPG).
    pub(crate) fn flush_tlb_page(&mut self, va: u64) {
        self.tlb.flush_page(va);
    }

    /// The dirty marks of RAM were taken: the next store to each page has to be noticed again.
    pub fn dirty_marks_cleared(&mut self) {
        self.tlb.clear_quiet();
    }

    /// Recomputes what follows from CPL, CR4 and EFLAGS.AC. Handlers that change one of them call this.
    pub(crate) fn update_mode(&mut self) {
        let smap = self.state.cr4 & CR4_SMAP != 0 && !self.state.flags.has(flags::AC);
        (self.read_need, self.write_need, self.fetch_need) = match (self.state.cpl, smap) {
            (3, _) => (tlb::R_U, tlb::W_U, tlb::X_U),
            (_, true) => (tlb::R_SMAP, tlb::W_SMAP, tlb::X_S),
            (_, false) => (tlb::R_S, tlb::W_S, tlb::X_S),
        };
    }

    fn system_read_need(&self) -> u16 {
        if self.state.cr4 & CR4_SMAP != 0 { tlb::R_SMAP } else { tlb::R_S }
    }

    fn system_write_need(&self) -> u16 {
        if self.state.cr4 & CR4_SMAP != 0 { tlb::W_SMAP } else { tlb::W_S }
    }

    /// True if the supervisor may not execute user pages.
    fn smep(&self) -> bool {
        self.state.cr4 & CR4_SMEP != 0
    }
}
