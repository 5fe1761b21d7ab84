//! Runs the instruction tables in `tests/tables/`: one line a case, `bytes | state in | state out`.
//!
//! Bytes are hexadecimal; a case runs them in 64-bit mode at CPL 0 from 0x10000, or with `mode=32` in
//! compatibility mode at CPL 3, until one position is passed (`run=N`: N; `chunks=N`: N chunks of the REP
//! instruction in front). Items of a state: `rax=HEX` (and so on, `rip` too), `f=` with the letters of the
//! flags set out of CPAZSODNI and `t` for AC, `[HEX]=BYTES` for memory, `iopl=N`, `cpl=N` in the input, and
//! in the output `trap=VECTOR` or `trap=VECTOR:CODE`: the exception delivered, everything else being as
//! it was. Registers, flags and memory that the output does not name must be unchanged, RIP must lie
//! behind the bytes. Undefined flags are stated as our model leaves them.
//!
//! Memory: pages from 0x10000 are mapped to themselves; 0x30000 is absent, 0x31000 read-only, 0x32000
//! present. Registers start as 0x0101010101010100 plus their number, RSP as 0x28000.

use ft_pair_cpu::flags::{self, Flags};
use ft_pair_cpu::state::{CS, CpuState, RIP, SS, Segment, Table};
use ft_pair_cpu::{Bus, Cpu, GuestRam, Trap};
use std::collections::BTreeMap;
use std::sync::Arc;

const CODE: u64 = 0x10000;
const STACK: u64 = 0x28000;
/// Interrupt descriptors, the handlers they name (16 bytes each, never executed), GDT, TSS.
const IDT: u64 = 0x5000;
const HANDLERS: u64 = 0x6000;
const GDT: u64 = 0x7000;
const TSS: u64 = 0x7100;
const KERNEL_STACK: u64 = 0x29000;
const REGISTERS: [&str; 17] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip",
];
const FLAGS: [(char, u64); 10] = [
    ('C', flags::CF),
    ('P', flags::PF),
    ('A', flags::AF),
    ('Z', flags::ZF),
    ('S', flags::SF),
    ('O', flags::OF),
    ('D', flags::DF),
    ('N', flags::NT),
    ('I', flags::IF),
    ('t', flags::AC),
];

struct NoDevices;

impl Bus for NoDevices {
    fn io_read(&mut self, _: u64, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn io_write(&mut self, _: u64, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: u64, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: u64, _: u64, _: u8, _: u64) {}
    fn tsc(&mut self, now: u64) -> u64 {
        now
    }
    fn interrupt_pending(&self) -> bool {
        false
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn msr_read(&mut self, _: u64, _: u32) -> Option<u64> {
        None
    }
    fn msr_write(&mut self, _: u64, _: u32, _: u64) -> bool {
        false
    }
    fn cr8(&self) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: u8) {}
}

/// One side of a case.
#[derive(Debug, Default)]
struct Side {
    registers: BTreeMap<usize, u64>,
    flags: Option<u64>,
    memory: Vec<(u64, Vec<u8>)>,
    numbers: BTreeMap<String, u64>,
    trap: Option<(u8, Option<u32>)>,
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("{text:?} is no hexadecimal number"))
}

fn hex_bytes(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "{text:?} holds whole bytes");
    digits.chunks(2).map(|c| hex(&c.iter().collect::<String>()) as u8).collect()
}

impl Side {
    fn parse(text: &str) -> Self {
        let mut side = Self::default();
        for item in text.split_whitespace() {
            let (name, value) = item.split_once('=').unwrap_or_else(|| panic!("{item:?} has no ="));
            if let Some(n) = REGISTERS.iter().position(|r| *r == name) {
                side.registers.insert(n, hex(value));
            } else if let Some(at) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
                side.memory.push((hex(at), hex_bytes(value)));
            } else if name == "f" {
                let bit = |c| {
                    let found = FLAGS.iter().find(|(letter, _)| *letter == c);
                    found.unwrap_or_else(|| panic!("{c:?} names no flag")).1
                };
                side.flags = Some(value.chars().filter(|c| *c != '-').map(bit).sum());
            } else if name == "trap" {
                let (vector, code) = match value.split_once(':') {
                    Some((vector, code)) => (vector, Some(hex(code) as u32)),
                    None => (value, None),
                };
                side.trap = Some((vector.parse().expect("vectors are decimal"), code));
            } else {
                side.numbers.insert(name.to_owned(), value.parse().expect("a decimal number"));
            }
        }
        side
    }
}

fn machine(bytes: &[u8]) -> (Arc<GuestRam>, Cpu) {
    let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
    let put = |at: u64, value: u64| assert!(ram.write(at, &value.to_le_bytes()));
    put(0x1000, 0x2007);
    put(0x2000, 0x3007);
    put(0x3000, 0x4007);
    for page in 0..256 {
        let entry = match page {
            0x30 => 0,
            0x31 => 0x31005,
            _ => page << 12 | 7,
        };
        put(0x4000 + 8 * page, entry);
    }
    for vector in 0..32 {
        let handler = HANDLERS + 16 * vector;
        put(IDT + 16 * vector, handler & 0xffff | 8 << 16 | 0x8e00 << 32);
        put(IDT + 16 * vector + 8, 0);
    }
    // Kernel code, kernel data, 32-bit user code, user data.
    for (n, descriptor) in [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
    ]
    .into_iter()
    .enumerate()
    {
        put(GDT + 8 * n as u64, descriptor);
    }
    put(TSS + 4, KERNEL_STACK);
    assert!(ram.write(CODE, bytes));
    let mut cpu = Cpu::new(ram.clone());
    let mut state = CpuState::default();
    state.enter_long_mode(0x1000, CODE, 8, 16);
    for n in 0..16 {
        state.regs[n] = 0x0101_0101_0101_0100 + n as u64;
    }
    state.regs[4] = STACK;
    state.idtr = Table { base: IDT, limit: 0x1ff };
    state.gdtr = Table { base: GDT, limit: 0x27 };
    state.tr = Segment { base: TSS, limit: 0x67, selector: 0x28, attr: 0x8b };
    *cpu.state = state;
    (ram, cpu)
}

/// RFLAGS without RF, which the delivery of a fault sets in the image it pushes.
fn visible(image: u64) -> u64 {
    image & !flags::RF
}

fn check(bytes: &[u8], input: &Side, output: &Side) -> Result<(), String> {
    let (ram, mut cpu) = machine(bytes);
    if input.numbers.get("mode") == Some(&32) {
        let s = &mut cpu.state;
        s.cpl = 3;
        for n in [0, 2, 3, 4, 5] {
            s.seg[n] = Segment { base: 0, limit: u32::MAX, selector: 0x23, attr: 0xc0f3 };
        }
        s.seg[CS] = Segment { base: 0, limit: u32::MAX, selector: 0x1b, attr: 0xc0fb };
        (0..16).filter(|n| *n != 4).for_each(|n| s.regs[n] = 0x0101_0100 + n as u64);
    }
    if let Some(cpl) = input.numbers.get("cpl") {
        cpu.state.cpl = *cpl as u8;
        cpu.state.seg[CS].attr |= 3 << 5;
        cpu.state.seg[CS].selector = 0x1b;
        cpu.state.seg[SS].attr |= 3 << 5;
    }
    for (n, value) in &input.registers {
        cpu.state.regs[*n] = *value;
    }
    let iopl = input.numbers.get("iopl").copied().unwrap_or(0);
    cpu.state.flags = Flags::from_rflags(input.flags.unwrap_or(0) | iopl << 12);
    for (at, data) in &input.memory {
        assert!(ram.write(*at, data), "{at:#x} lies in RAM");
    }
    let before = (0x10..0x100).map(|page| *ram.page(page)).collect::<Vec<_>>();
    let start = cpu.state.clone();
    cpu.state_replaced();
    let chunks = output.numbers.get("chunks").copied().unwrap_or(0);
    let run = output.numbers.get("run").copied().unwrap_or(u64::from(chunks == 0));
    cpu.run(&mut NoDevices, run, chunks);
    if (cpu.state.retired, cpu.state.rep) != (run, chunks) {
        return Err(format!("position {}:{}", cpu.state.retired, cpu.state.rep));
    }

    let mut problems = Vec::new();
    let mut want = start.regs;
    want[RIP] = CODE + if chunks > 0 { 0 } else { bytes.len() as u64 };
    let mut regs = cpu.state.regs;
    let mut image = cpu.state.flags.rflags();
    let mut ignored = KERNEL_STACK - 64..KERNEL_STACK;
    if let Some((vector, code)) = output.trap {
        want[RIP] = CODE;
        let handler = cpu.state.regs[RIP].wrapping_sub(HANDLERS) / 16;
        if handler != u64::from(vector) {
            problems.push(format!("vector {handler} instead of {vector}"));
        }
        let word = |n: u64| {
            let mut bytes = [0; 8];
            ram.read(cpu.state.regs[4] + 8 * n, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        let skip = u64::from(code.is_some());
        if code.is_some_and(|code| u64::from(code) != word(0)) {
            problems.push(format!("error code {:x}", word(0)));
        }
        ignored = if start.cpl == 0 { cpu.state.regs[4]..STACK } else { ignored };
        (regs[RIP], regs[4], image) = (word(skip), word(skip + 3), word(skip + 2));
    }
    for (n, value) in &output.registers {
        want[*n] = *value;
    }
    for n in (0..17).filter(|n| regs[*n] != want[*n]) {
        problems.push(format!("{} {:x} instead of {:x}", REGISTERS[n], regs[n], want[n]));
    }
    let want_flags = output.flags.map_or(start.flags.rflags(), |f| {
        let iopl = output.numbers.get("iopl").copied().unwrap_or(iopl);
        f | iopl << 12 | 2
    });
    if visible(image) != visible(want_flags) {
        problems.push(format!("flags {:x} instead of {want_flags:x}", visible(image)));
    }
    let mut memory = before;
    for (at, data) in &output.memory {
        for (n, byte) in data.iter().enumerate() {
            let at = *at + n as u64;
            memory[(at >> 12) as usize - 0x10][(at & 0xfff) as usize] = *byte;
        }
    }
    for (n, page) in memory.iter().enumerate() {
        let now = ram.page(n as u32 + 0x10);
        for (offset, (have, want)) in now.iter().zip(page).enumerate() {
            let at = ((n as u64 + 0x10) << 12) + offset as u64;
            if have != want && !ignored.contains(&at) {
                problems.push(format!("[{at:x}] {have:02x} instead of {want:02x}"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join(", ")) }
}

fn run_table(name: &str, table: &str) {
    let mut failures = Vec::new();
    let mut cases = 0;
    for (n, line) in table.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let fields: Vec<&str> = line.split('|').collect();
        assert_eq!(fields.len(), 3, "{name}:{}: bytes | in | out", n + 1);
        cases += 1;
        let (input, output) = (Side::parse(fields[1]), Side::parse(fields[2]));
        if let Err(problem) = check(&hex_bytes(fields[0]), &input, &output) {
            failures.push(format!("{name}:{}: {line}\n    {problem}", n + 1));
        }
    }
    assert!(cases > 0, "{name} holds cases");
    assert!(failures.is_empty(), "{} of {cases} cases:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn integer() {
    run_table("integer.ins", include_str!("tables/integer.ins"));
}

#[test]
fn control_and_stack() {
    run_table("control.ins", include_str!("tables/control.ins"));
}

#[test]
fn strings() {
    run_table("string.ins", include_str!("tables/string.ins"));
}

#[test]
fn compatibility_mode() {
    run_table("legacy.ins", include_str!("tables/legacy.ins"));
}

#[test]
fn a_trap_is_a_word() {
    assert_eq!(size_of::<Result<(), Trap>>(), 8);
}
