//! A decoded instruction in the form that the interpreter executes.

use crate::{Cpu, Trap};

/// Executes one decoded instruction. RIP already points behind it. On `Err` nothing of the instruction
/// may have taken effect (but for what the architecture says); the run loop puts RIP back and delivers.
pub type Exec = fn(&mut Cpu, &Op) -> Result<(), Trap>;

/// Address computation needs the slow path: 32-bit (or 16-bit) address size.
pub const EA_ADDR32: u8 = 1;
/// See [`EA_ADDR32`]; 16-bit address size.
pub const EA_ADDR16: u8 = 2;
/// Outside 64-bit mode: segment limits are checked, linear addresses wrap at 4 GiB.
pub const EA_LEGACY: u8 = 4;
/// The block ends behind this instruction (control flow, or it may change what the next one means).
pub const ENDS_BLOCK: u8 = 8;
/// The instruction has a LOCK prefix.
pub const LOCKED: u8 = 16;
/// REP / REPE prefix.
pub const REP: u8 = 32;
/// REPNE prefix.
pub const REPNE: u8 = 64;
/// Ends the block but changes only RIP (near branches): the run loop may go on with the next block at
/// once, without a look at interrupts and the rest.
pub const CHAINS: u8 = 128;

/// First register number of the high bytes AH, CH, DH, BH (in this order) in 8-bit operands.
pub const HIGH_BYTE: u8 = 32;

/// One decoded instruction. What `dst`, `src`, `src2`, `size`, `aux` mean is up to the handler; the
/// usual meaning is given.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Op {
    /// The handler.
    pub exec: Exec,
    /// Displacement of the memory operand, sign-extended; relative to RIP (register 16) where that is the base.
    pub disp: u64,
    /// Immediate, extended to 64 bits as the instruction extends it; branches: the relative target.
    pub imm: u64,
    /// Base register of the memory operand (index into `CpuState::regs`; ZERO for none).
    pub base: u8,
    /// Index register, or ZERO.
    pub index: u8,
    /// Shift of the index register, 0 to 3.
    pub scale: u8,
    /// Segment of the memory operand (index into `CpuState::seg`; FLAT where the base is always 0).
    pub seg: u8,
    /// Destination register number (GPR, XMM, MMX, ST...), 8-bit high bytes from [`HIGH_BYTE`].
    pub dst: u8,
    /// Source register number.
    pub src: u8,
    /// A third register.
    pub src2: u8,
    /// Operand size in bytes.
    pub size: u8,
    /// Length of the instruction in bytes.
    pub len: u8,
    /// `EA_*`, [`ENDS_BLOCK`], [`LOCKED`], [`REP`], [`REPNE`], [`CHAINS`].
    pub flags: u8,
    /// Whatever else the handler needs (condition, opcode number).
    pub aux: u16,
    /// True for memory operands addressed through SS by default (base RSP or RBP): their
    /// non-canonical addresses raise #SS instead of #GP.
    pub stack: bool,
}
