//! Every form of every instruction here against the host, with random operands; rules that the host
//! cannot show (unmasked exceptions, availability, alignment) as tables.

mod native;
mod rules;

use super::fxsave::{image, set_image};
use super::{GROUPS, select};
use crate::flags::ARITH;
use crate::op::Op;
use crate::ram::PAGE;
use crate::state::{RAX, RDI, RDX, RSI};
use crate::tlb::{Tlb, TlbEntry};
use crate::{Cpu, GuestRam, Trap};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use native::Frame;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where the memory operand lies in the emulated CPU.
const DATA: u64 = 0x10_0040;

/// A CPU in 64-bit mode whose only mapped page holds [`DATA`].
fn cpu() -> Cpu {
    let ram = Arc::new(GuestRam::new(PAGE).expect("a page of memory"));
    let mut cpu = Cpu::new(ram.clone());
    cpu.state.enter_long_mode(0, 0, 8, 16);
    cpu.state_replaced();
    let page = DATA & !(PAGE - 1);
    cpu.tlb.data[Tlb::data_index(page)] = TlbEntry {
        page,
        host: ram.host_addr(0).expect("RAM") as usize,
        gpa: 0,
        perms: 0x1ff,
        global: false,
        size_log2: 12,
    };
    cpu.state.regs[RSI] = DATA;
    cpu.state.regs[RDI] = DATA;
    cpu
}

fn decode(bytes: &[u8]) -> Instruction {
    Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode()
}

fn op(bytes: &[u8]) -> Op {
    let ins = decode(bytes);
    select(&ins).unwrap_or_else(|| panic!("{:?} {bytes:02x?} is not selected", ins.code()))
}

fn exec(cpu: &mut Cpu, bytes: &[u8]) -> Result<(), Trap> {
    let op = op(bytes);
    (op.exec)(cpu, &op)
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn f32(&mut self) -> u32 {
        const SPECIAL: [u32; 12] = [
            0,
            1,
            0x007f_ffff,
            0x0080_0000,
            0x3f80_0000,
            0x3f00_0000,
            0x4f00_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_1234,
            0x7fff_ffff,
        ];
        let sign = (self.next() as u32) & 0x8000_0000;
        sign | match self.below(4) {
            0 => SPECIAL[self.below(12) as usize],
            1 => (self.next() as u32) & 0x7fff_ffff,
            2 => (self.below(2000) as f32 / 8.0).to_bits(),
            // Around an exponent, so that sums cancel and round.
            _ => 0x3e00_0000 + (self.next() as u32 & 0x03ff_ffff),
        }
    }

    fn f64(&mut self) -> u64 {
        const SPECIAL: [u64; 14] = [
            0,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x3ff0_0000_0000_0000,
            0x3fe0_0000_0000_0000,
            0x41df_ffff_ffe0_0000,
            0x43e0_0000_0000_0000,
            0x380f_ffff_ffff_ffff,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0x7ff8_0000_0000_1234,
            0x7fff_ffff_ffff_ffff,
        ];
        let sign = self.next() & 1 << 63;
        sign | match self.below(4) {
            0 => SPECIAL[self.below(14) as usize],
            1 => self.next() & !(1 << 63),
            2 => (self.below(2000) as f64 / 8.0).to_bits(),
            _ => 0x3fc0_0000_0000_0000 + (self.next() & 0x007f_ffff_ffff_ffff),
        }
    }

    fn u128(&mut self) -> u128 {
        let pair = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
        match self.below(6) {
            0 | 1 => {
                let mut lane = || u64::from(self.f32());
                pair(lane() | lane() << 32, lane() | lane() << 32)
            }
            2 | 3 => pair(self.f64(), self.f64()),
            // Few byte values: equal lanes, zeros, all ones.
            4 => u128::from_le_bytes(std::array::from_fn(|_| {
                [0, 1, 2, 0x7f, 0x80, 0xff, b'a', b'b'][self.below(8) as usize]
            })),
            _ => pair(self.next(), self.next()),
        }
    }

    fn register(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(40).wrapping_sub(20),
            1 => self.next() & 0xffff_ffff,
            2 => self.f64(),
            _ => self.next(),
        }
    }

    fn mxcsr(&mut self) -> u32 {
        match self.below(3) {
            0 => 0x1fa0,
            1 => 0x1f80,
            // All masked; any rounding, flushing, flags.
            _ => self.next() as u32 & 0xe07f | 0x1f80,
        }
    }

    fn frame(&mut self) -> Frame {
        let mut frame = Frame::new();
        frame.fx[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        frame.fx[2..4].copy_from_slice(&((self.below(8) as u16) << 11).to_le_bytes());
        frame.fx[4] = self.next() as u8;
        frame.fx[24..28].copy_from_slice(&self.mxcsr().to_le_bytes());
        for i in 0..8 {
            let at = 32 + 16 * i;
            frame.fx[at..at + 8].copy_from_slice(&(self.u128() as u64).to_le_bytes());
            frame.fx[at + 8..at + 10].copy_from_slice(&(self.next() as u16).to_le_bytes());
        }
        for i in 0..16 {
            let at = 160 + 16 * i;
            frame.fx[at..at + 16].copy_from_slice(&self.u128().to_le_bytes());
        }
        // A count of a shift, a length: small numbers.
        if self.below(2) == 0 {
            frame.fx[176..184].copy_from_slice(&self.below(70).to_le_bytes());
            frame.fx[48..56].copy_from_slice(&self.below(70).to_le_bytes());
        }
        if self.below(4) == 0 {
            // The source equals the destination.
            frame.fx.copy_within(160..176, 176);
        }
        frame.regs = std::array::from_fn(|_| self.register());
        frame.flags = 2 | self.next() & ARITH;
        for chunk in frame.memory.chunks_exact_mut(16) {
            chunk.copy_from_slice(&self.u128().to_le_bytes());
        }
        frame
    }
}

fn used(frame: &Frame) -> [u8; 416] {
    frame.fx[..416].try_into().expect("416 bytes")
}

/// DPPS and DPPD: which of several NaNs comes out depends on the order of the additions, in which Intel's
/// processors differ from AMD's. Where both results are NaNs in a lane of XMM0 to XMM15, ours stands for both.
fn same_nans_of_dot_products(bytes: &[u8], ours: &[u8; 416], theirs: &mut [u8; 416]) {
    let size = match decode(bytes).mnemonic() {
        Mnemonic::Dpps => 4,
        Mnemonic::Dppd => 8,
        _ => return,
    };
    let is_nan = |lane: &[u8]| match *lane {
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]).is_nan(),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]).is_nan(),
        _ => false,
    };
    for at in (160..416).step_by(size) {
        let lane = at..at + size;
        if is_nan(&ours[lane.clone()]) && is_nan(&theirs[lane.clone()]) {
            theirs[lane.clone()].copy_from_slice(&ours[lane]);
        }
    }
}

/// Runs `bytes` on both; says where they differ.
fn compare(
    cpu: &mut Cpu,
    code: &native::Code,
    bytes: &[u8],
    mut frame: Frame,
) -> Result<(), String> {
    if enters_mmx_on_some(bytes) {
        // Then both end with the state that the use of MMX leaves.
        frame.fx[2..5].copy_from_slice(&[0, 0, 0xff]);
    }
    set_image(&mut cpu.state, &used(&frame), true, 16);
    cpu.state.regs[RAX..=RDX].copy_from_slice(&frame.regs);
    cpu.state.flags.set_arith(frame.flags);
    for (i, byte) in frame.memory.iter().enumerate() {
        cpu.store(DATA + i as u64, *byte).expect("the page is mapped");
    }
    let before = frame.clone();
    let done = exec(cpu, bytes);
    code.run(bytes, &mut frame);
    let (ours, mut theirs) = (image(&cpu.state, true), used(&frame));
    if !crate::model_follows_this_host() {
        same_nans_of_dot_products(bytes, &ours, &mut theirs);
    }
    let memory: [u8; 64] =
        std::array::from_fn(|i| cpu.load(DATA + i as u64).expect("the page is mapped"));
    let lane = |image: &[u8; 416], at: usize| {
        u128::from_le_bytes(image[at..at + 16].try_into().expect("16 bytes"))
    };
    // Last instruction, its operand and opcode (bytes 6 to 23) are not compared, nor MXCSR_MASK.
    let same = done == Ok(())
        && ours[..6] == theirs[..6]
        && ours[24..28] == theirs[24..28]
        && ours[32..] == theirs[32..]
        && cpu.state.regs[RAX..=RDX] == frame.regs
        && cpu.state.flags.arith() == frame.flags & ARITH
        && memory == frame.memory;
    if same {
        return Ok(());
    }
    let mut report = format!("{:?} {bytes:02x?}: {done:?}", decode(bytes).code());
    for at in (0..416).step_by(16).filter(|at| *at != 16) {
        if lane(&ours, at) != lane(&theirs, at) {
            report += &format!("\n  image {at}: {:032x}", lane(&ours, at));
            report += &format!("\n    host: {:032x}", lane(&theirs, at));
            report += &format!("\n  before: {:032x}", lane(&used(&before), at));
        }
    }
    report += &format!("\n  mm1 {:032x}", lane(&used(&before), 48));
    report += &format!("\n  xmm1 {:032x}", lane(&used(&before), 176));
    report += &format!("\n  mxcsr before {:02x?}", &before.fx[24..26]);
    report += &format!(", after {:02x?}, host {:02x?}", &ours[24..26], &theirs[24..26]);
    report += &format!("\n  registers {:x?}, host {:x?}", &cpu.state.regs[RAX..=RDX], frame.regs);
    report += &format!("\n  flags {:x}, host {:x}", cpu.state.flags.arith(), frame.flags & ARITH);
    report += &format!("\n  memory {memory:02x?}\n    host {:02x?}", frame.memory);
    Err(report)
}

/// All encodings worth running: prefix, REX.W, map, opcode, ModRM of register and memory forms.
fn encodings() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let prefixes: [&[u8]; 4] = [&[], &[0x66], &[0xf3], &[0xf2]];
    let maps: [&[u8]; 3] = [&[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    for prefix in prefixes {
        for rex in [&[][..], &[0x48]] {
            for map in maps {
                for opcode in 0..=0xffu8 {
                    if map.len() == 1 && matches!(opcode, 0x38 | 0x3a) {
                        continue;
                    }
                    // 0F 71 to 73 have the shift in the register field.
                    let group = map.len() == 1 && matches!(opcode, 0x71..=0x73);
                    for reg in 0..if group { 8 } else { 3 } {
                        for modrm in [0xc1 | reg << 3, 0x06 | reg << 3] {
                            let head = [prefix, rex, map, &[opcode, modrm]].concat();
                            all.push(head);
                        }
                    }
                }
            }
        }
    }
    all
}

/// Not defined by the architecture, or their memory operand is a state image.
fn model_defined(code: Code) -> bool {
    matches!(
        code,
        Code::Rcpps_xmm_xmmm128
            | Code::Rcpss_xmm_xmmm32
            | Code::Rsqrtps_xmm_xmmm128
            | Code::Rsqrtss_xmm_xmmm32
            | Code::Fxsave_m512byte
            | Code::Fxsave64_m512byte
            | Code::Fxrstor_m512byte
            | Code::Fxrstor64_m512byte
            | Code::Ldmxcsr_m32
    )
}

/// CVTPI2PS from memory: the manuals differ on whether it is a use of MMX, and so do hosts. Ours is.
fn enters_mmx_on_some(bytes: &[u8]) -> bool {
    let ins = decode(bytes);
    ins.code() == Code::Cvtpi2ps_xmm_mmm64 && ins.memory_base() != Register::None
}

#[test]
fn every_form_does_what_the_host_does() {
    assert!(is_x86_feature_detected!("sse4.2"), "the oracle needs a host of x86-64-v2");
    let mut random = Random(0x5eed);
    let mut cpu = cpu();
    let code = native::Code::new();
    let mut seen = BTreeSet::new();
    let mut failures = Vec::new();
    for head in encodings() {
        let mut bytes = [head.as_slice(), &[0; 4]].concat();
        let ins = decode(&bytes);
        if ins.is_invalid() || model_defined(ins.code()) || select(&ins).is_none() {
            continue;
        }
        let has_imm = ins.len() == head.len() + 1;
        bytes.truncate(ins.len());
        seen.insert(ins.code() as u32);
        for _ in 0..if has_imm { 250 } else { 80 } {
            if has_imm {
                let imm = random.next() as u8;
                bytes[head.len()] = if random.below(4) == 0 { imm } else { imm & 0x7f };
            }
            if let Err(report) = compare(&mut cpu, &code, &bytes, random.frame()) {
                failures.push(report);
                break;
            }
        }
    }
    for bytes in OTHERS {
        seen.insert(decode(bytes).code() as u32);
        failures.extend(compare(&mut cpu, &code, bytes, random.frame()).err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let missed: Vec<Code> = Code::values()
        .filter(|code| GROUPS.iter().any(|group| group(*code).is_some()))
        .filter(|code| !model_defined(*code) && !seen.contains(&(*code as u32)))
        .collect();
    assert!(missed.is_empty(), "not covered: {missed:?}");
}

/// STMXCSR; REX.R and REX.B: XMM8 and up, MMX ignores them.
const OTHERS: [&[u8]; 5] = [
    &[0x0f, 0xae, 0x1e],
    &[0x66, 0x45, 0x0f, 0xef, 0xc1],
    &[0xf2, 0x45, 0x0f, 0x58, 0xca],
    &[0x45, 0x0f, 0xef, 0xc1],
    &[0x66, 0x41, 0x0f, 0x71, 0xf1, 3],
];
