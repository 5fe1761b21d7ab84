//! The cache of decoded blocks, keyed by guest physical address and mode.

use crate::jit::{Mode, PAGE_AT};
use crate::op::{CHAINS, ENDS_BLOCK, Op};
use crate::ram::PAGE;
use crate::tlb::{Access, Tlb, TlbEntry};
use crate::{Cpu, Trap, exec};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic};
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

/// Instructions a block holds at most.
const MAX_OPS: usize = 64;
/// Slots of the direct-mapped cache.
const SLOTS: usize = 1 << 15;

/// Straight-line code from one physical page, decoded.
#[derive(Debug)]
pub struct Block {
    /// Guest physical address and mode; see [`key`].
    key: u64,
    /// Page index of the page it lies in.
    page: u32,
    /// The instructions.
    pub ops: Box<[Op]>,
    /// The next block may follow at once; see [`CHAINS`].
    pub chains: bool,
    /// How often it was asked for while it had no unit.
    heat: Cell<u32>,
    /// Its translation, if that is settled: the translator's generation, the mode, and the unit's index, or
    /// none if it is better interpreted.
    unit: Cell<Option<(u32, Mode, Option<u32>)>>,
}

impl Block {
    fn new(key: u64, page: u32, ops: Vec<Op>) -> Self {
        let last = ops.last().expect("a block holds an instruction");
        let chains = last.flags & (ENDS_BLOCK | CHAINS) != ENDS_BLOCK;
        let (heat, unit) = (Cell::new(0), Cell::new(None));
        Self { key, page, ops: ops.into_boxed_slice(), chains, heat, unit }
    }

    /// Physical address and mode in one word.
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// Index of the page that it lies in.
    pub const fn page(&self) -> u32 {
        self.page
    }

    /// False for an instruction that crosses pages: it is decoded anew each time.
    pub const fn is_cached(&self) -> bool {
        self.key != u64::MAX
    }

    /// The unit, if the translator has decided in this generation and mode: none within if it is better
    /// interpreted.
    #[inline]
    pub fn unit(&self, generation: u32, mode: Mode) -> Option<Option<u32>> {
        let (of, under, unit) = self.unit.get()?;
        (of == generation && under == mode).then_some(unit)
    }

    /// Notes the translator's decision.
    pub fn set_unit(&self, generation: u32, mode: Mode, unit: Option<u32>) {
        self.unit.set(Some((generation, mode, unit)));
    }

    /// Forgets it.
    pub fn forget_unit(&self) {
        self.unit.set(None);
    }

    /// Counts an execution; true from the `hot`th on.
    #[inline]
    pub fn warm_up(&self, hot: u32) -> bool {
        let heat = self.heat.get() + 1;
        self.heat.set(heat);
        heat >= hot
    }
}

/// The cache.
#[derive(Debug)]
pub struct BlockCache {
    slots: Vec<Option<Rc<Block>>>,
    by_page: HashMap<u32, Vec<u32>>,
}

impl Default for BlockCache {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS], by_page: HashMap::new() }
    }
}

/// Physical address and mode (bits: 0 for 64-bit, 1 for 32-bit, 2 for 16-bit code) in one word.
const fn key(gpa: u64, mode: u64) -> u64 {
    gpa << 2 | mode
}

const fn slot(key: u64) -> usize {
    let k = key >> 2;
    ((k ^ (k >> 15)) as usize ^ (key as usize & 3) << 13) % SLOTS
}

impl BlockCache {
    #[inline(always)]
    fn get(&self, key: u64) -> Option<&Rc<Block>> {
        self.slots[slot(key)].as_ref().filter(|b| b.key == key)
    }

    fn insert(&mut self, block: Rc<Block>) {
        let at = slot(block.key);
        let list = self.by_page.entry(block.page).or_default();
        if !list.contains(&(at as u32)) {
            list.push(at as u32);
        }
        self.slots[at] = Some(block);
    }

    fn remove_page(&mut self, page: u32) {
        for at in self.by_page.remove(&page).unwrap_or_default() {
            let slot = &mut self.slots[at as usize];
            if slot.as_ref().is_some_and(|b| b.page == page) {
                *slot = None;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Decoder options: what CPUID hides executes as on a CPU that never had it.
const OPTIONS: u32 = DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD;

impl Cpu {
    /// Mode bits of the current code segment: 0, 1, 2 for 64, 32, 16 bits.
    #[inline(always)]
    fn code_mode(&self) -> u64 {
        let attr = self.state.seg[crate::state::CS].attr;
        if attr & (1 << 13) != 0 {
            0
        } else if attr & (1 << 14) != 0 {
            1
        } else {
            2
        }
    }

    fn fetch_entry(&mut self, va: u64) -> Result<TlbEntry, Trap> {
        let i = Tlb::fetch_index(va);
        let e = self.tlb.fetch[i];
        if e.page == va & !(PAGE - 1) && e.perms & self.fetch_need != 0 {
            return Ok(e);
        }
        let t = self.page_walk(va, Access::Fetch, self.fetch_need)?;
        let entry = TlbEntry {
            page: va & !(PAGE - 1),
            host: self.ram.host_addr(t.gpa).map_or(0, |p| p as usize),
            gpa: t.gpa,
            perms: t.perms,
            global: t.global,
            size_log2: t.size_log2,
        };
        if t.size_log2 > 12 {
            self.tlb.note_large();
        }
        if e.page != TlbEntry::INVALID {
            self.tlb.changes.targets();
        }
        self.tlb.fetch[i] = entry;
        Ok(entry)
    }

    /// Linear address of the next instruction.
    fn code_address(&self) -> Result<u64, Trap> {
        let rip = self.state.rip();
        if !self.legacy_mode() {
            return Ok(rip);
        }
        let cs = &self.state.seg[crate::state::CS];
        if rip > u64::from(cs.limit) {
            return Err(Trap::GP0);
        }
        Ok(u64::from((cs.base as u32).wrapping_add(rip as u32)))
    }

    /// The decoded block at RIP, from the cache or made now.
    #[inline(always)]
    pub(crate) fn block_at_rip(&mut self) -> Result<Rc<Block>, Trap> {
        let va = self.code_address()?;
        let e = self.fetch_entry(va)?;
        let mode = self.code_mode();
        if let Some(block) = self.blocks.get(key(e.gpa | va & (PAGE - 1), mode)) {
            return Ok(block.clone());
        }
        self.decode_block(va, e, mode)
    }

    #[cold]
    fn decode_block(&mut self, va: u64, e: TlbEntry, mode: u64) -> Result<Rc<Block>, Trap> {
        let Some(page) = self.ram.page_index(e.gpa) else {
            // Code in device memory: no real guest does that; it reads as an invalid opcode.
            return Err(Trap::UD);
        };
        let offset = (va & (PAGE - 1)) as usize;
        let bytes = self.ram.page(page)[offset..].to_vec();
        let bitness = [64, 32, 16][mode as usize];
        let mut ops = decode_run(&bytes, bitness, self.state.rip());
        if ops.is_empty() {
            let op = self.decode_across(va, &bytes, bitness)?;
            return Ok(Rc::new(Block::new(u64::MAX, page, vec![op])));
        }
        ops.truncate(MAX_OPS);
        let block = Rc::new(Block::new(key(e.gpa | offset as u64, mode), page, ops));
        if self.ram.mark_code(page) {
            self.tlb.clear_quiet_page(e.gpa);
        }
        self.blocks.insert(block.clone());
        Ok(block)
    }

    /// The instructions of a cached block once more, as if their page lay at [`PAGE_AT`].
    pub(crate) fn instructions_of(&self, block: &Block) -> Vec<Instruction> {
        let offset = (block.key >> 2) % PAGE;
        let bytes = &self.ram.page(block.page)[offset as usize..];
        let mut decoder = Decoder::with_ip(64, bytes, PAGE_AT + offset, OPTIONS);
        let decoded = block.ops.iter().map(|_| {
            let mut ins = decoder.decode();
            let end = decoder.position();
            let begin = end - ins.len();
            exchange_not_pause(&mut ins, &bytes[begin..end]);
            ins
        });
        decoded.collect()
    }

    /// Decodes one instruction whose bytes may go on in the next page. Not cached: two pages would have
    /// to be watched.
    fn decode_across(&mut self, va: u64, head: &[u8], bitness: u32) -> Result<Op, Trap> {
        let mut bytes = head[..head.len().min(15)].to_vec();
        let in_page = bytes.len();
        let mut decoder = Decoder::with_ip(bitness, &bytes, self.state.rip(), OPTIONS);
        let mut ins = decoder.decode();
        if ins.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes && in_page < 15 {
            let next = self.fetch_entry(va.wrapping_add(in_page as u64))?;
            let page = self.ram.page_index(next.gpa).ok_or(Trap::UD)?;
            bytes.extend_from_slice(&self.ram.page(page)[..15 - in_page]);
            ins = Decoder::with_ip(bitness, &bytes, self.state.rip(), OPTIONS).decode();
        }
        if ins.is_invalid() {
            // Longer than 15 bytes is #GP, anything else #UD.
            let too_long = bytes.len() >= 15
                && Decoder::with_ip(bitness, &bytes, 0, OPTIONS).max_position() >= 15
                && bytes[..14].iter().all(|b| is_prefix(*b, bitness));
            return Err(if too_long { Trap::GP0 } else { Trap::UD });
        }
        let len = ins.len();
        exchange_not_pause(&mut ins, &bytes[..len]);
        let mut op = exec::select(&ins);
        op.flags |= ENDS_BLOCK;
        Ok(op)
    }

    /// Blocks decoded from a page are void: its bytes have changed. The running block ends behind the
    /// current instruction.
    pub(crate) fn invalidate_code(&mut self, page: u32) {
        self.blocks.remove_page(page);
        if let Some(jit) = &mut self.jit {
            jit.drop_page(page);
            self.tlb.changes.targets();
        }
        self.ram.clear_code(page);
        self.block_stop = true;
    }
}

/// F3 makes PAUSE of 90, but with REX.B that is an exchange with R8, and F3 means nothing; the decoder says
/// PAUSE all the same.
fn exchange_not_pause(ins: &mut Instruction, bytes: &[u8]) {
    let [before @ .., rex, 0x90] = bytes else { return };
    if ins.mnemonic() != Mnemonic::Pause || rex & 0xf1 != 0x41 {
        return;
    }
    let plain: Vec<u8> =
        before.iter().filter(|byte| **byte != 0xf3).copied().chain([*rex, 0x90]).collect();
    let exchange = Decoder::with_ip(64, &plain, ins.ip(), OPTIONS).decode();
    let (len, next) = (ins.len(), ins.next_ip());
    *ins = exchange;
    ins.set_len(len);
    ins.set_next_ip(next);
}

const fn is_prefix(byte: u8, bitness: u32) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3)
        || bitness == 64 && byte & 0xf0 == 0x40
}

/// Decodes as many instructions as a block holds; none if the first does not lie whole in `bytes` or
/// is invalid.
fn decode_run(bytes: &[u8], bitness: u32, rip: u64) -> Vec<Op> {
    let mut decoder = Decoder::with_ip(bitness, bytes, rip, OPTIONS);
    let mut ins = Instruction::default();
    let mut ops = Vec::new();
    while ops.len() < MAX_OPS && decoder.can_decode() {
        decoder.decode_out(&mut ins);
        if ins.is_invalid() {
            break;
        }
        let end = decoder.position();
        let begin = end - ins.len();
        exchange_not_pause(&mut ins, &bytes[begin..end]);
        let op = exec::select(&ins);
        ops.push(op);
        if op.flags & ENDS_BLOCK != 0 {
            break;
        }
    }
    ops
}
