//! The same instructions interpreted and translated, compared in full: every register, flag and byte of memory,
//! undefined ones included, since the model defines them.
//!
//! A case is a block of up to six random instructions from the generator, the first with the registers that it
//! was made for, and UD2 behind them. Both engines start from the same state and run until a handler halts.

use super::case::{self, CODE_AT, CODE_FILL, DATA, DATA_LEN, Registers, WRITABLE_LEN};
use super::emulated::{Emulated, put_registers};
use super::generate::{Generated, Generator};
use ft_pair_cpu::state::CpuState;
use ft_pair_cpu::{Engine, Exit};
use std::fmt::Write;

/// Instructions that a case may retire: those of the block, the delivery of its fault, the handler's HLT.
const LIMIT: u64 = 4000;
const UD2: [u8; 2] = [0x0f, 0x0b];
/// The block may take so many bytes.
const CODE_MAX: usize = 128;

/// What an engine made of a case.
struct Ended {
    exit: Exit,
    state: CpuState,
    memory: Box<[u8; DATA_LEN]>,
    stack: [u8; 64],
}

/// Both engines, and the generator.
pub struct Engines {
    seed: u64,
    generator: Generator,
    interpreter: Emulated,
    translator: Emulated,
    background: Box<[u8; DATA_LEN]>,
}

impl Engines {
    /// # Panics
    /// If this host cannot run translated code.
    pub fn new(seed: u64) -> Self {
        let background = case::background();
        let engine = |engine| {
            let mut emulated = Emulated::new(&background);
            emulated.cpu.set_engine(engine).expect("this host runs translated code");
            emulated.cpu.translate_after(1);
            emulated.halt_in_handlers();
            emulated
        };
        Self {
            seed,
            generator: Generator::new(seed),
            interpreter: engine(Engine::Interpreter),
            translator: engine(Engine::Translator),
            background,
        }
    }

    /// Runs the cases `first..first + count`; gives descriptions of those that differ.
    pub fn run(&mut self, first: u64, count: u64) -> Vec<String> {
        let mut differences = Vec::new();
        for number in first..first + count {
            let parts = 1 + number % 6;
            let block: Vec<Generated> = (0..parts)
                .map(|n| self.generator.generate(number * 6 + n, &self.background))
                .collect();
            if let Some(difference) = self.one(&block) {
                let code: Vec<String> =
                    block.iter().map(|part| part.instruction.to_string()).collect();
                differences.push(format!(
                    "seed {} case {number}: {}\n{difference}",
                    self.seed,
                    code.join(" / ")
                ));
            }
        }
        differences
    }

    /// Times that translated code was entered.
    pub fn entries(&self) -> u64 {
        self.translator.cpu.translator_statistics().map_or(0, |statistics| statistics.entries)
    }

    fn one(&mut self, block: &[Generated]) -> Option<String> {
        let mut code = Vec::new();
        for part in block {
            let len = part.instruction.len();
            if code.len() + len + UD2.len() <= CODE_MAX {
                code.extend_from_slice(&part.case.code[..len]);
            }
        }
        code.extend(UD2);
        code.resize(CODE_MAX, CODE_FILL);
        let a = run(&mut self.interpreter, &code, &block[0], &self.background);
        let b = run(&mut self.translator, &code, &block[0], &self.background);
        compare(&a, &b)
    }
}

fn run(
    emulated: &mut Emulated,
    code: &[u8],
    first: &Generated,
    background: &[u8; DATA_LEN],
) -> Ended {
    let ram = emulated.ram.clone();
    let case = &first.case;
    assert!(ram.write(DATA, &background[..WRITABLE_LEN]), "the data is RAM");
    assert!(ram.write(DATA + case.window_at, &case.window), "the window is RAM");
    assert!(ram.write(CODE_AT, code), "the code is RAM");
    *emulated.cpu.state = emulated.clean.clone();
    let before = Registers { rip: CODE_AT, ..case.before };
    put_registers(&mut emulated.cpu.state, &before, 0);
    let exit = emulated.run_to(LIMIT);
    let mut ended = Ended {
        exit,
        state: emulated.cpu.state.clone(),
        memory: Box::new([0; DATA_LEN]),
        stack: [0; 64],
    };
    assert!(ram.read(DATA, &mut ended.memory[..]), "the data is RAM");
    emulated.read_stack(&mut ended.stack);
    ended
}

fn compare(a: &Ended, b: &Ended) -> Option<String> {
    let mut text = String::new();
    if a.exit != b.exit {
        let _ = writeln!(text, "  exit {:?}, {:?}", a.exit, b.exit);
    }
    let (x, y) = (&a.state, &b.state);
    for n in (0..17).filter(|n| x.regs[*n] != y.regs[*n]) {
        let _ = writeln!(text, "  register {n}: {:#x}, {:#x}", x.regs[n], y.regs[n]);
    }
    for n in (0..16).filter(|n| x.xmm[*n] != y.xmm[*n]) {
        let _ = writeln!(text, "  xmm{n}: {:#x}, {:#x}", x.xmm[n], y.xmm[n]);
    }
    for (name, p, q) in [
        ("position", x.retired, y.retired),
        ("rflags", x.flags.rflags(), y.flags.rflags()),
        ("mxcsr", x.mxcsr.into(), y.mxcsr.into()),
        ("cr2", x.cr2, y.cr2),
    ] {
        if p != q {
            let _ = writeln!(text, "  {name}: {p:#x}, {q:#x}");
        }
    }
    if x.x87 != y.x87 {
        let _ = writeln!(text, "  x87: {:x?}, {:x?}", x.x87, y.x87);
    }
    // The frame that the fault pushed: flags at the fault among it.
    if a.stack != b.stack {
        let _ = writeln!(text, "  stack: {:02x?}\n         {:02x?}", a.stack, b.stack);
    }
    if let Some(at) = (0..DATA_LEN).find(|n| a.memory[*n] != b.memory[*n]) {
        let _ = writeln!(text, "  memory from {at:#x}: {:#x}, {:#x}", a.memory[at], b.memory[at]);
    }
    (!text.is_empty()).then_some(text)
}
