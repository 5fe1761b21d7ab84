//! The translator: hot blocks become host code.
//!
//! Guest and host have the same instruction set, so most guest instructions are executed by the host as they
//! are, with other registers and another address ([`rewrite`]). Everything that the translator does not know,
//! and every access that is not a plain one to RAM, is done by the interpreter's handler for that
//! instruction ([`enter`]), so there is one definition of what an instruction means.
//!
//! A *unit* is the translation of one decoded block under one [`Mode`]. It is named by its physical address
//! and does not know where its page is mapped. Each unit pays for its instructions before it begins, so a
//! limit is kept exactly: what is left of the fuel is stepped by the interpreter. Units of one page jump
//! to each other directly; between pages the way leads through the cache of known targets ([`window`]).

// The assembler's macros convert register numbers that may have the right type already.
#![allow(clippy::useless_conversion)]

mod branch;
pub(crate) mod emit;
mod enter;
mod integer;
mod memory;
mod regs;
mod rewrite;
mod shift;
mod stack;
mod support;
mod unit;
mod vector;
pub(crate) mod window;

pub(crate) use enter::Ran;
pub use support::Unsupported;

use crate::block::Block;
use crate::state::{CR0_EM, CR0_PG, CR0_TS, CR4_OSFXSR, CR4_SMAP};
use crate::{Cpu, Trap, flags};
use emit::{Common, Site, Slot};
use memory::CodeMemory;
use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;
use unit::Source;

/// How often a block is interpreted before it is translated.
const HOT: u32 = 12;
/// Bytes of translated code.
const CODE_BYTES: usize = 40 << 20;
/// Most that one unit can take; less than this free, and all code goes.
const UNIT_BYTES: usize = 64 << 10;
/// Bytes of what is kept about units beside their code.
const TABLE_BYTES: usize = 24 << 20;

/// As if at this address lay the page that a unit is translated from.
pub(crate) const PAGE_AT: u64 = 1 << 40;

/// The page of an address.
const fn page_of(address: u64) -> u64 {
    address & !0xfff
}

/// Offset in its page.
const fn offset_of(address: u64) -> i32 {
    (address & 0xfff) as i32
}

/// What translated code takes for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode(u8);

const VIEW: u8 = 3;
const SMAP: u8 = 4;
const VECTORS: u8 = 8;
const FLOATS: u8 = 16;

impl Mode {
    /// Which window on memory: 0 for CPL 3, 1 for the supervisor under SMAP, 2 without.
    pub const fn view(self) -> usize {
        (self.0 & VIEW) as usize
    }

    /// CPL 3.
    pub const fn is_user(self) -> bool {
        self.view() == 0
    }

    /// SSE instructions do not fault.
    pub const fn vectors(self) -> bool {
        self.0 & VECTORS != 0
    }

    /// MXCSR masks every exception.
    pub const fn floats(self) -> bool {
        self.0 & FLOATS != 0
    }

    /// After STAC, where that follows from the mode.
    pub fn with_smap_lifted(self) -> Option<Self> {
        (self.view() == 1).then_some(Self(self.0 & !VIEW | 2))
    }

    /// After CLAC, where that follows from the mode.
    pub fn with_smap_enforced(self) -> Option<Self> {
        (self.view() == 2 && self.0 & SMAP != 0).then_some(Self(self.0 & !VIEW | 1))
    }

    /// What is the same for all views.
    const fn common(self) -> u8 {
        self.0 & !VIEW
    }
}

/// A translated block.
#[derive(Debug)]
struct Unit {
    block: Rc<Block>,
    entry: usize,
    len: u64,
    key: (u64, Mode),
}

/// Counters of the translator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Blocks translated.
    pub units: u64,
    /// Bytes of code made.
    pub code_bytes: u64,
    /// Times that all code was given up because memory was full.
    pub evictions: u64,
    /// Times that translated code was entered.
    pub entries: u64,
    /// Times that translated code called for help.
    pub helps: u64,
    /// Instructions that the interpreter executed for translated code.
    pub interpreted: u64,
}

/// Translated code and what is known of it.
#[derive(Debug)]
pub struct Jit {
    memory: CodeMemory,
    common: Common,
    /// Bytes of the common sequences, which stay.
    kept: usize,
    units: Vec<Unit>,
    sites: Vec<Site>,
    slots: Vec<Slot>,
    by_key: HashMap<(u64, Mode), u32>,
    by_page: HashMap<u32, Vec<u32>>,
    table_bytes: usize,
    hot: u32,
    /// Counts the times that all code was given up, so that a block knows an old unit.
    generation: u32,
    /// The part of the mode that all known targets share.
    targets_for: u8,
    /// The jump that led here and may be patched.
    chain: Option<u32>,
    /// What the interpreter raised while it helped.
    trap: Option<Trap>,
    panic: Option<Box<dyn Any + Send>>,
    /// Calls for help at one position, so that an instruction with two operands that push each other out
    /// of the window is interpreted in the end.
    helped_at: (u64, u32),
    statistics: Statistics,
}

impl Jit {
    /// A translator without code.
    ///
    /// # Errors
    /// Where the host lacks what translated code needs, or refuses executable memory.
    pub fn new() -> Result<Self, Unsupported> {
        support::check()?;
        let mut memory = CodeMemory::new(CODE_BYTES).map_err(Unsupported::Memory)?;
        let (code, common) = emit::common(memory.next());
        memory.append(&code);
        Ok(Self {
            kept: memory.used(),
            memory,
            common,
            units: Vec::new(),
            sites: Vec::new(),
            slots: Vec::new(),
            by_key: HashMap::new(),
            by_page: HashMap::new(),
            table_bytes: 0,
            hot: HOT,
            generation: 1,
            targets_for: 0,
            chain: None,
            trap: None,
            panic: None,
            helped_at: (0, 0),
            statistics: Statistics::default(),
        })
    }

    /// How often a block is interpreted before it is translated.
    pub const fn translate_after(&mut self, executions: u32) {
        self.hot = executions;
    }

    /// Gives up all code. The caller empties the known targets.
    pub fn clear(&mut self) {
        self.memory.truncate(self.kept);
        self.units.clear();
        self.sites.clear();
        self.slots.clear();
        self.by_key.clear();
        self.by_page.clear();
        self.table_bytes = 0;
        self.generation = self.generation.wrapping_add(1).max(1);
        self.chain = None;
    }

    /// The code of a page is void. Its bytes stay until all code goes: some of it may be running.
    pub fn drop_page(&mut self, page: u32) {
        for unit in self.by_page.remove(&page).unwrap_or_default() {
            let unit = &self.units[unit as usize];
            self.by_key.remove(&unit.key);
            unit.block.forget_unit();
        }
        self.chain = None;
    }

    /// Counters since the start.
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }
}

impl Cpu {
    /// What translated code may take for granted now.
    fn mode(&self) -> Mode {
        let s = &*self.state;
        let smap = s.cr4 & CR4_SMAP != 0;
        let mut mode = match (s.cpl, smap && !s.flags.has(flags::AC)) {
            (3, _) => 0,
            (_, true) => 1,
            (_, false) => 2,
        };
        if smap {
            mode |= SMAP;
        }
        if s.cr0 & (CR0_EM | CR0_TS) == 0 && s.cr4 & CR4_OSFXSR != 0 {
            mode |= VECTORS;
        }
        if s.mxcsr & 0x1f80 == 0x1f80 {
            mode |= FLOATS;
        }
        Mode(mode)
    }

    /// True if code may run translated: 64-bit mode with paging, nothing that needs single steps.
    pub(crate) fn translatable(&self) -> bool {
        self.jit.is_some() && self.state.is_64bit() && self.state.cr0 & CR0_PG != 0
    }

    /// The unit of a block, translated now if it is hot. None: interpret it.
    fn unit_of(&mut self, block: &Rc<Block>, mode: Mode) -> Option<u32> {
        let jit = self.jit.as_mut()?;
        if let Some(unit) = block.unit(jit.generation, mode) {
            return unit;
        }
        if !block.warm_up(jit.hot) || !block.is_cached() {
            return None;
        }
        let key = (block.key(), mode);
        if let Some(&unit) = jit.by_key.get(&key) {
            block.set_unit(jit.generation, mode, Some(unit));
            return Some(unit);
        }
        let unit = self.translate(block, mode);
        let generation = self.jit.as_ref()?.generation;
        block.set_unit(generation, mode, unit);
        unit
    }

    fn translate(&mut self, block: &Rc<Block>, mode: Mode) -> Option<u32> {
        let jit = self.jit.as_mut()?;
        if jit.memory.free() < UNIT_BYTES || jit.table_bytes > TABLE_BYTES {
            jit.clear();
            jit.statistics.evictions += 1;
            self.tlb.changes.targets();
        }
        let instructions = self.instructions_of(block);
        let jit = self.jit.as_mut()?;
        let source = Source {
            instructions: &instructions,
            ops: &block.ops,
            unit: jit.units.len() as u32,
            first: (jit.sites.len() as u32, jit.slots.len() as u32),
            mode,
        };
        let code = unit::translate(&source, jit.memory.next(), jit.common);
        if code.translated == 0 || code.bytes.len() > UNIT_BYTES {
            return None;
        }
        let at = jit.memory.append(&code.bytes);
        let key = (block.key(), mode);
        let unit = jit.units.len() as u32;
        jit.table_bytes += size_of_val(&code.sites[..])
            + size_of_val(&code.slots[..])
            + size_of_val(&block.ops[..])
            + size_of::<Unit>()
            + 96;
        jit.sites.extend(code.sites);
        jit.slots.extend(code.slots.iter().map(|slot| Slot { at: at + slot.at }));
        let len = block.ops.len() as u64;
        jit.units.push(Unit { block: block.clone(), entry: at + code.entry, len, key });
        jit.by_key.insert(key, unit);
        jit.by_page.entry(block.page()).or_default().push(unit);
        jit.statistics.units += 1;
        jit.statistics.code_bytes += code.bytes.len() as u64;
        Some(unit)
    }
}
