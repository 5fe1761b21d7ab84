//! Makes cases: an instruction as bytes, and a state in which it has something to do.

use super::case::{CODE_AT, Case, DATA, DATA_LEN, GS_BASE, Registers, WINDOW, WRITABLE_LEN};
use super::select::{self, Class};
use super::values::Draw;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, MandatoryPrefix, Mnemonic as M,
    OpCodeOperandKind as K, OpCodeTableKind, OpKind, Register,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// Forms of instructions that a full run has to meet, as [`Generated::traits`] names them.
pub const FORMS: &[&str] = &[
    "LOCK",
    "REP",
    "REPNE",
    "GS",
    "32-bit address",
    "RIP-relative",
    "RSP-based",
    "high byte register",
    "memory operand",
    "memory changed",
];

/// A case with what is known about it.
pub struct Generated {
    pub case: Case,
    pub class: Class,
    pub instruction: Instruction,
    /// Linear address of the memory operand, or of the stack's top.
    pub target: u64,
}

/// Makes case after case from one seed.
pub struct Generator {
    seed: u64,
    lists: Vec<(Class, Vec<Code>)>,
}

fn decode(bytes: &[u8]) -> (Instruction, iced_x86::ConstantOffsets) {
    let mut decoder = Decoder::with_ip(64, bytes, CODE_AT, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let offsets = decoder.get_constant_offsets(&instruction);
    (instruction, offsets)
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { seed, lists: select::instructions() }
    }

    /// How many instructions take part.
    pub fn instructions(&self) -> usize {
        self.lists.iter().map(|(_, codes)| codes.len()).sum()
    }

    /// Case `number` of this seed, whatever was generated before.
    pub fn generate(&self, number: u64, background: &[u8; DATA_LEN]) -> Generated {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        let mut d = Draw(rng);
        let mut share = d.below(100) as u32;
        let mut list = &self.lists[0];
        for (entry, (_, percent)) in self.lists.iter().zip(Class::SHARES) {
            list = entry;
            if share < percent {
                break;
            }
            share -= percent;
        }
        loop {
            let code = d.pick(&list.1);
            for _ in 0..40 {
                if let Some(bytes) = encode(&mut d, code) {
                    return Setup::new(&mut d, bytes, background).finish(list.0);
                }
            }
        }
    }
}

/// Bytes of an instruction with random operands, if they decode to it.
fn encode(d: &mut Draw, code: Code) -> Option<[u8; 15]> {
    let info = code.op_code();
    let branch = code.flow_control() != FlowControl::Next;
    let mut bytes = Vec::with_capacity(32);
    if d.percent(8) {
        bytes.push(d.pick(&[0x65, 0x65, 0x65, 0x2e, 0x36, 0x3e, 0x26]));
    }
    if d.percent(7) && !branch {
        bytes.push(0x67);
    }
    if d.percent(20) && info.can_use_lock_prefix() {
        bytes.push(0xf0);
    }
    if select::is_string(code) && d.percent(60) {
        bytes.push(0xf2 + d.below(2) as u8);
    }
    match info.mandatory_prefix() {
        MandatoryPrefix::P66 => bytes.push(0x66),
        MandatoryPrefix::PF3 => bytes.push(0xf3),
        MandatoryPrefix::PF2 => bytes.push(0xf2),
        _ => {}
    }
    let size = info.operand_size();
    // With a branch the prefix means different things to the vendors.
    if size == 16 && !branch && info.mandatory_prefix() == MandatoryPrefix::None {
        bytes.push(0x66);
    }
    if size == 64 || d.percent(45) {
        bytes.push(0x40 | d.u64() as u8 & 0xf);
    }
    match info.table() {
        OpCodeTableKind::Normal => {}
        OpCodeTableKind::T0F => bytes.push(0x0f),
        OpCodeTableKind::T0F38 => bytes.extend([0x0f, 0x38]),
        OpCodeTableKind::T0F3A => bytes.extend([0x0f, 0x3a]),
        _ => return None,
    }
    let opcode = info.op_code();
    if info.op_code_len() == 2 {
        bytes.push((opcode >> 8) as u8);
    }
    let in_opcode = info.op_kinds().iter().any(|k| {
        matches!(k, K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode | K::sti_opcode)
    });
    let register = if in_opcode { d.below(8) as u8 } else { 0 };
    bytes.push(opcode as u8 | register);
    let mut modrm = d.u64() as u8;
    if d.percent(35) {
        modrm |= 0xc0;
    }
    if info.group_index() >= 0 {
        modrm = modrm & 0xc7 | (info.group_index() as u8) << 3;
    }
    if info.rm_group_index() >= 0 {
        modrm = 0xc0 | modrm & 0x38 | info.rm_group_index() as u8;
    }
    bytes.push(modrm);
    while bytes.len() < 15 {
        let byte = if d.percent(30) { d.pick(&[0, 1, 0xff, 0x80, 0x7f, 8]) } else { d.u64() as u8 };
        bytes.push(byte);
    }
    let bytes: [u8; 15] = bytes[..15].try_into().expect("at least 15 bytes were made");
    let (instruction, _) = decode(&bytes);
    let fs = instruction.segment_prefix() == Register::FS;
    // A GS base and an address of 32 bits cannot reach the data by rDI, and where MASKMOV does not reach it,
    // whether bytes that it leaves out fault is left open.
    let unreachable = instruction.op0_kind() == OpKind::MemorySegEDI
        && instruction.segment_prefix() == Register::GS;
    // The stack has to be good there (see `related`), so that it cannot be what the operand needs.
    let by_stack = code == Code::Call_rm64
        && [instruction.memory_base(), instruction.memory_index()]
            .iter()
            .any(|r| r.full_register() == Register::RSP);
    (instruction.code() == code && !fs && !unreachable && !by_stack).then_some(bytes)
}

/// A case in the making.
struct Setup<'a> {
    d: &'a mut Draw,
    bytes: [u8; 15],
    ins: Instruction,
    before: Registers,
    target: u64,
    window_at: u64,
    window: [u8; WINDOW],
}

/// Encoding number of a register as the base or index of an address.
fn number(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

impl<'a> Setup<'a> {
    fn new(d: &'a mut Draw, bytes: [u8; 15], background: &[u8; DATA_LEN]) -> Self {
        let (ins, _) = decode(&bytes);
        let mut setup = Self {
            d,
            bytes,
            ins,
            before: Registers::new(),
            target: 0,
            window_at: 0,
            window: [0; WINDOW],
        };
        setup.registers();
        setup.floating();
        setup.implicit();
        setup.memory_operand();
        setup.window(background);
        setup.related();
        setup
    }

    fn finish(self, class: Class) -> Generated {
        let mut code = [super::case::CODE_FILL; 16];
        let len = self.ins.len();
        code[..len].copy_from_slice(&self.bytes[..len]);
        let repeats = select::is_string(self.ins.code())
            && (self.ins.has_rep_prefix() || self.ins.has_repne_prefix());
        let case = Case {
            before: self.before,
            code,
            repeats: u64::from(repeats),
            window_at: self.window_at,
            window: self.window,
        };
        Generated { case, class, instruction: self.ins, target: self.target }
    }

    /// A linear address in the data, now and then at or across an edge.
    fn place(&mut self) -> u64 {
        let end = DATA + DATA_LEN as u64;
        let middle = DATA + 1024 + self.d.below(4096);
        match self.d.below(40) {
            0..=15 => middle & !15,
            16..=24 => middle & !7,
            25..=32 => middle,
            33 => DATA + 4096 - self.d.below(24),
            34 => DATA + WRITABLE_LEN as u64 - self.d.below(24),
            35 => end - 64 - self.d.below(512),
            36 => end - self.d.below(24),
            37 => DATA.wrapping_sub(self.d.below(24)),
            38 => middle & !63,
            _ => middle & !3,
        }
    }

    fn registers(&mut self) {
        for i in 0..16 {
            self.before.gpr[i] = self.d.integer();
        }
        self.before.gpr[RSP] = match self.d.below(20) {
            0 => self.d.integer(),
            1..=2 => self.place(),
            _ => DATA + 2048 + 8 * self.d.below(256),
        };
        if self.d.percent(50) {
            self.before.gpr[RBP] = self.place();
        }
        const RANDOM_FLAGS: u64 = 0x8d5;
        const DF: u64 = 1 << 10;
        self.before.rflags |= self.d.u64() & RANDOM_FLAGS;
        if self.d.percent(30) {
            self.before.rflags |= DF;
        }
        for i in 0..16 {
            let value = self.d.vector();
            self.before.set_wide(160 + 16 * i, value);
        }
    }

    /// MXCSR and the x87.
    fn floating(&mut self) {
        let mxcsr = match self.d.below(4) {
            0 => 0x1f80,
            1 | 2 => 0x1f80 | self.d.u64() as u32 & 0xe07f,
            _ => self.d.u64() as u32 & 0xffff,
        };
        self.before.fx[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        let control = match self.d.below(4) {
            0 => 0x37f,
            1 | 2 => 0x7f | self.d.u64() as u16 & 0xf00,
            _ => 0x40 | self.d.u64() as u16 & 0xf3f,
        };
        let mut status = self.d.u64() as u16 & 0x7f00;
        if self.d.percent(30) {
            status |= self.d.u64() as u16 & 0x7f;
        }
        let pending = status & !control & 0x3f;
        if pending != 0 && self.d.percent(80) {
            status &= !pending;
        } else if pending != 0 {
            // ES, and B with it.
            status |= 0x8080;
        }
        let tags = match self.d.below(4) {
            0 => 0xff,
            1 => 0,
            _ => self.d.u64() as u8,
        };
        self.before.fx[..2].copy_from_slice(&control.to_le_bytes());
        self.before.fx[2..4].copy_from_slice(&status.to_le_bytes());
        self.before.fx[4] = tags;
        let mut previous = 0;
        for i in 0..8 {
            let mut value = if i > 0 && self.d.percent(15) { previous } else { self.d.extended() };
            if self.d.percent(10) {
                // What MMX instructions leave.
                value |= 0xffff << 64;
            }
            previous = value;
            self.before.set_wide(32 + 16 * i, value);
        }
    }

    /// Registers that the instruction uses without naming them in an address.
    fn implicit(&mut self) {
        self.target = self.before.gpr[RSP];
        let gpr = |s: &mut Self, i: usize, v: u64| s.before.gpr[i] = v;
        let code = self.ins.code();
        if select::is_string(code) {
            let wide = self
                .ins
                .op_kinds()
                .all(|k| !matches!(k, OpKind::MemorySegESI | OpKind::MemoryESEDI));
            let garbage = if wide { 0 } else { self.d.u64() << 32 };
            let (mut from, to) = (self.place(), self.place());
            if self.d.percent(30) {
                from = to.wrapping_add(self.d.below(64)).wrapping_sub(32);
            }
            if self.ins.segment_prefix() == Register::GS {
                from = from.wrapping_sub(GS_BASE);
            }
            let cut = if wide { u64::MAX } else { 0xffff_ffff };
            gpr(self, RSI, from & cut | garbage);
            gpr(self, RDI, to & cut | garbage);
            let count = self.d.below(40);
            gpr(self, RCX, count | garbage);
            self.target = to;
            return;
        }
        match self.ins.mnemonic() {
            M::Maskmovq | M::Maskmovdqu => {
                // Whether bytes that the mask leaves out can fault is the implementation's choice (SDM
                // volume 2, MASKMOVDQU), so that the operand stays where stores are allowed.
                self.target = DATA + 1024 + self.d.below(4096);
                let mut to = self.target;
                if self.ins.segment_prefix() == Register::GS {
                    to = to.wrapping_sub(GS_BASE);
                }
                gpr(self, RDI, to);
            }
            M::Xlatb => {
                self.target = self.place();
                let al = self.before.gpr[RAX] & 0xff;
                let mut to = self.target.wrapping_sub(al);
                if self.ins.segment_prefix() == Register::GS {
                    to = to.wrapping_sub(GS_BASE);
                }
                gpr(self, RBX, to);
            }
            M::Leave => self.target = self.before.gpr[RBP],
            M::Shl
            | M::Sal
            | M::Shr
            | M::Sar
            | M::Rol
            | M::Ror
            | M::Rcl
            | M::Rcr
            | M::Shld
            | M::Shrd => {
                let count = if self.d.percent(50) { self.d.below(36) } else { self.d.below(256) };
                let rest = self.before.gpr[RCX] & !0xff;
                gpr(self, RCX, rest | count);
            }
            M::Loop | M::Loope | M::Loopne | M::Jrcxz | M::Jecxz => {
                let count = self.d.below(3) | self.d.below(2) << 32;
                gpr(self, RCX, count);
            }
            M::Bt | M::Btc | M::Btr | M::Bts if self.ins.op1_kind() == OpKind::Register => {
                let bit = self.d.below(2048).wrapping_sub(1024);
                if let Some(register) = number(self.ins.op1_register())
                    && self.d.percent(80)
                {
                    gpr(self, register, bit);
                }
            }
            M::Div | M::Idiv if self.d.percent(60) => {
                let small = self.d.below(4);
                gpr(self, RDX, small);
                if self.ins.mnemonic() == M::Idiv && self.before.gpr[RAX] >> 63 != 0 {
                    gpr(self, RDX, u64::MAX);
                }
            }
            M::Pcmpestri | M::Pcmpestrm | M::Pcmpestri64 | M::Pcmpestrm64 if self.d.percent(80) => {
                for register in [RAX, RDX] {
                    let len = self.d.below(40).wrapping_sub(20);
                    gpr(self, register, len);
                }
            }
            _ => {}
        }
    }

    /// Makes the memory operand, if there is one, lie where `place` says.
    fn memory_operand(&mut self) {
        if !self.ins.op_kinds().any(|k| k == OpKind::Memory) {
            return;
        }
        let mut target = self.place();
        let aligned =
            matches!(self.ins.mnemonic(), M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64);
        if aligned && self.d.percent(90) {
            target = DATA + 16 * self.d.below(256);
        }
        self.target = target;
        let base = self.ins.memory_base();
        let index = number(self.ins.memory_index());
        let scale = u64::from(self.ins.memory_index_scale());
        let mut offset = target;
        if self.ins.segment_prefix() == Register::GS {
            offset = offset.wrapping_sub(GS_BASE);
        }
        let base = match base {
            Register::RIP | Register::EIP => return self.displacement(offset, true),
            Register::None => {
                if let Some(index) = index {
                    self.before.gpr[index] = self.d.below(1024);
                    offset = offset.wrapping_sub(self.before.gpr[index].wrapping_mul(scale));
                }
                return self.displacement(offset, false);
            }
            register => number(register).expect("a base is RIP or a general register"),
        };
        if let Some(index) = index
            && index != base
            && index != RSP
        {
            self.before.gpr[index] = self.d.integer();
        }
        let displacement = self.ins.memory_displacement64();
        let rest = offset.wrapping_sub(displacement);
        let narrow = self.ins.memory_base().size() == 4;
        let value = match index {
            Some(index) if index == base && narrow => u64::from(rest as u32) / (scale + 1),
            Some(index) if index == base => rest / (scale + 1),
            Some(index) => rest.wrapping_sub(self.before.gpr[index].wrapping_mul(scale)),
            None => rest,
        };
        self.before.gpr[base] =
            if narrow { value & 0xffff_ffff | self.d.u64() << 32 } else { value };
    }

    /// Sets the displacement in the instruction's bytes, which is all the address or all but the index.
    fn displacement(&mut self, offset: u64, relative: bool) {
        let (_, offsets) = decode(&self.bytes);
        let value = if relative { offset.wrapping_sub(self.ins.next_ip()) } else { offset };
        let (at, size) = (offsets.displacement_offset(), offsets.displacement_size());
        self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        self.ins = decode(&self.bytes).0;
    }

    /// The part of memory around the target, filled with values of the kinds that instructions read.
    fn window(&mut self, background: &[u8; DATA_LEN]) {
        let most = (WRITABLE_LEN - WINDOW) as u64;
        self.window_at = self.target.wrapping_sub(DATA + 64).min(most);
        if self.target < DATA + 64 {
            self.window_at = 0;
        }
        let at = self.window_at as usize;
        self.window.copy_from_slice(&background[at..at + WINDOW]);
        let mut fill = (self.target & 7) as usize;
        while fill + 16 <= WINDOW {
            let (value, len): (u128, usize) = match self.d.below(8) {
                0 => (self.d.single().into(), 4),
                1 | 2 => (self.d.double().into(), 8),
                3 | 4 => (self.d.integer().into(), 8),
                5 => (self.d.extended(), 10),
                6 => (self.d.decimal(), 10),
                _ => (self.d.vector(), 16),
            };
            self.window[fill..fill + 16].copy_from_slice(&value.to_le_bytes());
            fill += len;
        }
        // Values of the kind that the instruction reads, at the target itself.
        let (value, len) = match self.ins.memory_size().info().element_type() {
            iced_x86::MemorySize::Float32 => (self.d.single().into(), 4),
            iced_x86::MemorySize::Float64 => (self.d.double().into(), 8),
            iced_x86::MemorySize::Float80 => (self.d.extended(), 10),
            iced_x86::MemorySize::Bcd => (self.d.decimal(), 10),
            _ => (self.d.integer().into(), 8),
        };
        self.patch(0, &u128::to_le_bytes(value)[..len]);
    }

    /// Sets bytes at the target, as far as the window reaches.
    fn patch(&mut self, offset: u64, bytes: &[u8]) {
        let at = (self.target + offset).wrapping_sub(DATA + self.window_at) as usize;
        if at < WINDOW && at + bytes.len() <= WINDOW {
            self.window[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn peek(&self, len: usize) -> u64 {
        let at = self.target.wrapping_sub(DATA + self.window_at) as usize;
        let mut bytes = [0; 8];
        if at < WINDOW && at + len <= WINDOW {
            bytes[..len].copy_from_slice(&self.window[at..at + len]);
        }
        u64::from_le_bytes(bytes)
    }

    /// Values in registers and memory that have to agree for the instruction to take its rarer path, or
    /// that processors disagree about.
    fn related(&mut self) {
        match self.ins.mnemonic() {
            M::Cmpxchg if self.d.percent(50) => self.before.gpr[RAX] = self.peek(8),
            M::Cmpxchg8b if self.d.percent(50) => {
                let value = self.peek(8);
                self.before.gpr[RAX] = value & 0xffff_ffff;
                self.before.gpr[RDX] = value >> 32;
            }
            M::Cmpxchg16b if self.d.percent(50) => {
                let (low, high) = (self.before.gpr[RAX], self.before.gpr[RDX]);
                self.patch(0, &low.to_le_bytes());
                self.patch(8, &high.to_le_bytes());
            }
            // From memory the SDM raises a pending #MF, the APM not.
            M::Cvtpi2ps if self.ins.op1_kind() == OpKind::Memory => {
                const EXCEPTIONS: u16 = 0x80ff;
                let status = self.before.fx_word(2) & !EXCEPTIONS;
                self.before.fx[2..4].copy_from_slice(&status.to_le_bytes());
            }
            // With a bad target and a bad stack at once the SDM's order (target first) is not the APM's.
            M::Call if self.ins.op0_kind() != OpKind::NearBranch64 => {
                let register = self.ins.op0_kind() == OpKind::Register;
                if register && self.ins.op0_register() == Register::RSP {
                    self.before.gpr[RSP] &= 0x7fff_ffff;
                } else {
                    self.before.gpr[RSP] = DATA + 2048;
                }
            }
            // Bit 17 is AMD's misaligned-SSE mode, which our model has not.
            M::Ldmxcsr => self.mxcsr_at(0),
            M::Fxrstor | M::Fxrstor64 => self.mxcsr_at(24),
            _ => {}
        }
    }

    fn mxcsr_at(&mut self, offset: u64) {
        let mask = if self.d.percent(10) { 0xfffd_ffff } else { 0xffff };
        let value = self.d.u64() as u32 & mask;
        self.patch(offset, &value.to_le_bytes());
    }
}

impl Generated {
    /// The forms that this case has; see [`FORMS`].
    pub fn traits(&self) -> Vec<&'static str> {
        let ins = &self.instruction;
        let memory = ins.op_kinds().any(|k| k == OpKind::Memory);
        let high =
            |r: Register| matches!(r, Register::AH | Register::BH | Register::CH | Register::DH);
        let registers = (0..ins.op_count()).filter(|i| ins.op_kind(*i) == OpKind::Register);
        let repeats = self.case.repeats != 0;
        let list = [
            ("LOCK", ins.has_lock_prefix()),
            ("REP", repeats && ins.has_rep_prefix()),
            ("REPNE", repeats && ins.has_repne_prefix()),
            ("GS", ins.segment_prefix() == Register::GS),
            ("32-bit address", memory && ins.memory_base().size() == 4),
            ("RIP-relative", memory && ins.is_ip_rel_memory_operand()),
            ("RSP-based", memory && ins.memory_base() == Register::RSP),
            ("high byte register", registers.into_iter().any(|i| high(ins.op_register(i)))),
            ("memory operand", memory),
        ];
        list.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
    }
}
