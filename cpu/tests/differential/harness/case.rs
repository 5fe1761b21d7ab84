//! One case and its outcome, in the form that both executions share.

/// Linear address of the page that holds the instruction; readable and executable.
pub const CODE: u64 = 0x10_0000;
/// Linear address of the instruction.
pub const CODE_AT: u64 = CODE + 0x800;
/// Bytes of the code page.
pub const CODE_LEN: usize = 4096;
/// What surrounds the instruction: NOP.
pub const CODE_FILL: u8 = 0x90;
/// Linear address of the data: writable pages, then one that is read-only; nothing is mapped around.
pub const DATA: u64 = 0x20_0000;
/// Bytes of data that can be written.
pub const WRITABLE_LEN: usize = 2 * 4096;
/// Bytes of data in all.
pub const DATA_LEN: usize = 3 * 4096;
/// Base address of GS in both executions.
pub const GS_BASE: u64 = DATA + 0x1230;
/// User addresses end here (4-level paging, one guard page).
pub const USER_END: u64 = 0x7fff_ffff_f000;
/// Bytes of memory that a case can set.
pub const WINDOW: usize = 256;
/// Bytes of the FXSAVE image that processors define (bytes 416 on are reserved or for software).
pub const FX_USED: usize = 416;

/// Selectors of a 64-bit process under Linux.
pub const USER_CS: u16 = 0x33;
/// See [`USER_CS`].
pub const USER_SS: u16 = 0x2b;

/// General registers, flags, and x87 and SSE state as an FXSAVE image.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub struct Registers {
    pub fx: [u8; 512],
    /// In the order of instruction encodings: RAX, RCX, RDX, RBX, RSP, ...
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
}

impl Registers {
    pub const fn new() -> Self {
        Self { fx: [0; 512], gpr: [0; 16], rip: CODE_AT, rflags: 0x202 }
    }

    pub fn fx_word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.fx[at], self.fx[at + 1]])
    }

    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes([self.fx[24], self.fx[25], self.fx[26], self.fx[27]])
    }

    pub fn xmm(&self, i: usize) -> u128 {
        self.wide(160 + 16 * i)
    }

    /// ST(i): sign, exponent and mantissa in the low 80 bits.
    pub fn st(&self, i: usize) -> u128 {
        self.wide(32 + 16 * i)
    }

    pub fn wide(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.fx[at..at + 16].try_into().expect("16 bytes"))
    }

    pub fn set_wide(&mut self, at: usize, value: u128) {
        self.fx[at..at + 16].copy_from_slice(&value.to_le_bytes());
    }
}

/// A case: state before, instruction, memory.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub struct Case {
    pub before: Registers,
    pub code: [u8; 16],
    /// The instruction stays at RIP until its repetitions are done.
    pub repeats: u64,
    /// Offset of `window` in the data.
    pub window_at: u64,
    pub window: [u8; WINDOW],
}

/// What an execution came to.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub struct Outcome {
    pub after: Registers,
    /// 1 (#DB by single step) behind an instruction that completed, else the exception it raised.
    pub vector: u64,
    pub error: u64,
    pub cr2: u64,
    pub memory: [u8; DATA_LEN],
}

/// Memory before the window is written: the same for every case, and random.
pub fn background() -> Box<[u8; DATA_LEN]> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = (0..DATA_LEN)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect();
    bytes.into_boxed_slice().try_into().expect("the length is that of the array")
}

impl Case {
    /// Memory before the instruction.
    pub fn memory(&self, background: &[u8; DATA_LEN]) -> Box<[u8; DATA_LEN]> {
        let mut memory = Box::new(*background);
        let at = self.window_at as usize;
        memory[at..at + WINDOW].copy_from_slice(&self.window);
        memory
    }
}
