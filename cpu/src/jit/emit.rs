//! The pieces that all instruction classes are made of: flags, addresses, memory through the window on
//! the TLB, vector registers, calls for help, exits.
//!
//! **Guest flags are host flags.** Between two guest instructions the host's six arithmetic flags are the
//! guest's. Whatever is emitted around an instruction therefore uses only LEA, MOV, MOVZX, SHLX, SHRX, RORX,
//! CRC32, NOT and JRCXZ, which leave them alone. Where the host's own result for an undefined flag is not the
//! model's, [`Pending`] says what is still to be corrected; a correction is emitted where somebody could
//! see the difference.

use super::regs::{gpr, home};
use crate::frame::{BASE, Frame, Link, TARGETS, WINDOW};
use crate::state::{CpuState, RIP, Segment};
use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use std::mem::offset_of;

/// Displacement from RBP of a place in the frame.
const fn disp(offset: usize) -> i32 {
    offset as i32 - BASE as i32
}

/// Displacement of a field of the link.
macro_rules! linked {
    ($($field:tt)+) => {
        disp(offset_of!(Frame, link) + offset_of!(Link, $($field)+))
    };
}

/// Displacement of a field of the state.
macro_rules! state {
    ($($field:tt)+) => {
        $crate::jit::emit::displacement(
            std::mem::offset_of!($crate::frame::Frame, state)
                + std::mem::offset_of!($crate::state::CpuState, $($field)+),
        )
    };
}
pub(super) use state;

/// For [`state!`] in other files.
pub(super) const fn displacement(offset: usize) -> i32 {
    disp(offset)
}

/// Displacement of a guest register in the frame.
pub const fn guest(register: u8) -> i32 {
    disp(offset_of!(Frame, state) + offset_of!(CpuState, regs) + 8 * register as usize)
}

/// Displacement of a guest vector register.
pub const fn guest_xmm(register: u8) -> i32 {
    disp(offset_of!(Frame, state) + offset_of!(CpuState, xmm) + 16 * register as usize)
}

/// Displacement of a segment's base.
const fn segment_base(segment: usize) -> i32 {
    let segments = offset_of!(Frame, state) + offset_of!(CpuState, seg);
    disp(segments + segment * size_of::<Segment>() + offset_of!(Segment, base))
}

/// Displacement of the first of a view's tags, addends or targets.
const fn table(field: usize, entries: usize, view: usize) -> i32 {
    disp(offset_of!(Frame, link) + field + 8 * entries * view)
}

/// Displacement of `page_va`.
pub const PAGE_VA: i32 = linked!(page_va);
/// Displacement of the scratch words.
pub const SCRATCH: i32 = linked!(scratch);
/// Displacement of MXCSR.
const MXCSR: i32 = disp(offset_of!(Frame, state) + offset_of!(CpuState, mxcsr));

/// What the host's flags still lack of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    None,
    /// AF is set (shifts by one).
    Shifted,
    /// AF is set, OF is SF xor CF (shifts to the left).
    ShiftedLeft,
    /// AF is set, OF is clear (shifts to the right by more than one).
    ShiftedRight,
}

/// Why and for which instruction code calls for help. The answer says where it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// Index of the unit.
    pub unit: u32,
    /// Which of its instructions.
    pub index: u8,
    /// Instructions of the unit that have not retired yet, this one included.
    pub rest: u8,
    /// Mode that the code around assumes.
    pub mode: super::Mode,
    /// What may help short of executing the instruction.
    pub want: Want,
    /// Offset in the page of the next instruction.
    pub next: u16,
}

/// What a call for help is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The page at `Link::va` shown for reading this many bytes.
    Read(u8),
    /// The page at `Link::va` shown for writing this many bytes.
    Write(u8),
    /// The instruction executed by the interpreter.
    Execute,
}

/// A jump to another unit of the same page, which can be patched.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Where the 32-bit displacement lies, from the start of the code; the address once it is placed.
    pub at: usize,
}

/// Code out of line.
struct Stub {
    label: DynamicLabel,
    /// Where to try again after the page is shown.
    retry: DynamicLabel,
    /// The next instruction.
    done: DynamicLabel,
    site: u32,
    has_address: bool,
    pending: Pending,
    vectors: Vectors,
    /// What the code behind the instruction takes for loaded.
    after: Vectors,
}

/// Guest vector registers that are in host registers now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vectors {
    valid: u16,
    dirty: u16,
    /// The guest's MXCSR is in force.
    mxcsr: bool,
}

/// Addresses of the common sequences.
#[derive(Debug, Clone, Copy, Default)]
pub struct Common {
    /// `fn(target, rbp)`: loads the guest's registers and jumps.
    pub enter: usize,
    /// Stores the guest's registers and returns from `enter`.
    pub exit: usize,
    /// Stores them, calls the helper, loads them, returns with the answer in RCX.
    pub help: usize,
}

/// Reasons in [`Link::reason`] that code itself gives.
pub mod reason {
    /// RIP is set; look further.
    pub const NEXT: i32 = 0;
    /// As NEXT, and the jump at [`super::Link::site`] may be patched.
    pub const CHAIN: i32 = 1;
    /// The unit at RIP needs more fuel than there is.
    pub const FUEL: i32 = 2;
}

/// Assembles one unit.
pub struct Emitter {
    /// The assembler.
    pub a: VecAssembler<X64Relocation>,
    encoder: Encoder,
    common: Common,
    /// What the code may assume; changes behind STAC and CLAC.
    pub mode: super::Mode,
    /// What the flags lack.
    pub pending: Pending,
    vectors: Vectors,
    stubs: Vec<Stub>,
    exits: Vec<(DynamicLabel, Exit)>,
    /// Index of the first site and slot of this unit.
    first: (u32, u32),
    /// Calls for help.
    pub sites: Vec<Site>,
    /// Patchable jumps.
    pub slots: Vec<Slot>,
    /// The unit being made.
    unit: u32,
    /// The instruction at hand: index, instructions left with it, offset of the next.
    at: (u8, u8, u16),
    retry: DynamicLabel,
    done: DynamicLabel,
}

/// Ways out of a unit, out of line.
#[derive(Debug, Clone, Copy)]
enum Exit {
    /// To an offset in this page; the slot may be patched.
    Chain { slot: u32, offset: i32 },
    /// To the address in RAX.
    Rax,
    /// Not enough fuel: back to the unit's start, which takes `len`.
    Fuel { offset: i32, len: i32 },
}

impl Emitter {
    /// For code that will be executed at `address`. `first` numbers its first site and slot.
    pub fn new(
        address: usize,
        common: Common,
        mode: super::Mode,
        unit: u32,
        first: (u32, u32),
    ) -> Self {
        let mut a = VecAssembler::new(address);
        let (retry, done) = (a.new_dynamic_label(), a.new_dynamic_label());
        Self {
            a,
            encoder: Encoder::new(64),
            common,
            mode,
            pending: Pending::None,
            vectors: Vectors::default(),
            stubs: Vec::new(),
            exits: Vec::new(),
            first,
            sites: Vec::new(),
            slots: Vec::new(),
            unit,
            at: (0, 0, 0),
            retry,
            done,
        }
    }

    /// The unit's entry: pays for `len` instructions, or leaves. Gives the entry's offset in the code.
    pub fn entry(&mut self, offset: i32, len: i32) -> usize {
        let out = self.a.new_dynamic_label();
        dynasm!(self.a ; .arch x64 ; broke: ; jmp =>out ; .align 16);
        let entry = self.a.offset().0;
        // The upper half of R15 is all ones just if the fuel went below zero.
        dynasm!(self.a ; .arch x64
            ; lea r15, [r15 - len]
            ; rorx rcx, r15, 32
            ; not ecx
            ; jecxz <broke);
        self.exits.push((out, Exit::Fuel { offset, len }));
        entry
    }

    /// Begins an instruction: the `index`th, `rest` are left with it, the next is at offset `next`.
    pub fn begin(&mut self, index: u8, rest: u8, next: u16) {
        self.at = (index, rest, next);
        self.retry = self.a.new_dynamic_label();
        self.done = self.a.new_dynamic_label();
        let retry = self.retry;
        dynasm!(self.a ; .arch x64 ; =>retry);
    }

    /// Ends an instruction.
    pub fn end(&mut self) {
        let done = self.done;
        let first = self.stubs.partition_point(|stub| stub.done != done);
        for stub in &mut self.stubs[first..] {
            stub.after = self.vectors;
        }
        dynasm!(self.a ; .arch x64 ; =>done);
    }

    /// Appends one host instruction.
    ///
    /// # Panics
    /// If it cannot be encoded: the classes only ask for what exists.
    pub fn raw(&mut self, instruction: &Instruction) {
        let ip = 0x1000_0000;
        if let Err(error) = self.encoder.encode(instruction, ip) {
            panic!("the translator made an instruction that does not exist: {error}");
        }
        let mut bytes = self.encoder.take_buffer();
        self.a.extend(bytes.iter());
        bytes.clear();
        self.encoder.set_buffer(bytes);
    }

    /// Corrects the host's flags to the guest's. Uses RAX.
    pub fn resolve(&mut self) {
        self.emit_correction(self.pending);
        self.pending = Pending::None;
    }

    fn emit_correction(&mut self, pending: Pending) {
        if pending == Pending::None {
            return;
        }
        dynasm!(self.a ; .arch x64 ; lahf ; seto al ; or ah, 0x10);
        match pending {
            Pending::ShiftedLeft => {
                dynasm!(self.a ; .arch x64 ; mov al, ah ; rol al, 1 ; xor al, ah ; and al, 1);
            }
            Pending::ShiftedRight => dynasm!(self.a ; .arch x64 ; mov al, 0),
            Pending::None | Pending::Shifted => {}
        }
        self.restore_flags();
    }

    /// Flags from AX as LAHF and SETO leave them.
    pub fn restore_flags(&mut self) {
        dynasm!(self.a ; .arch x64 ; add al, 0x7f ; sahf);
    }

    /// Loads a guest register of 8 bytes into a host register.
    pub fn load_guest(&mut self, host: u8, register: u8) {
        match home(register) {
            Some(at) => dynasm!(self.a ; .arch x64 ; mov Rq(host), Rq(at)),
            None => dynasm!(self.a ; .arch x64 ; mov Rq(host), [rbp + guest(register)]),
        }
    }

    /// Stores 8 bytes into a guest register.
    pub fn store_guest(&mut self, register: u8, host: u8) {
        match home(register) {
            Some(at) => dynasm!(self.a ; .arch x64 ; mov Rq(at), Rq(host)),
            None => dynasm!(self.a ; .arch x64 ; mov [rbp + guest(register)], Rq(host)),
        }
    }

    /// Adds a constant to a guest register. Uses RCX.
    pub fn add_guest(&mut self, register: u8, by: i32) {
        match home(register) {
            Some(at) => dynasm!(self.a ; .arch x64 ; lea Rq(at), [Rq(at) + by]),
            None => {
                dynasm!(self.a ; .arch x64
                    ; mov rcx, [rbp + guest(register)]
                    ; lea rcx, [rcx + by]
                    ; mov [rbp + guest(register)], rcx);
            }
        }
    }

    /// The host register that holds a guest register: its home, or `scratch`, which is loaded.
    pub fn guest_in(&mut self, register: u8, scratch: u8) -> u8 {
        home(register).unwrap_or_else(|| {
            dynasm!(self.a ; .arch x64 ; mov Rq(scratch), [rbp + guest(register)]);
            scratch
        })
    }

    /// Computes the memory operand's offset into RAX, without its segment. Uses RCX.
    pub fn effective(&mut self, ins: &Instruction) {
        let (base, index) = (ins.memory_base(), ins.memory_index());
        if base == Register::RIP {
            // Relative to where the page is mapped now, not to where it was when it was translated.
            let offset = ins.memory_displacement64().wrapping_sub(super::page_of(ins.ip()));
            dynasm!(self.a ; .arch x64
                ; mov rax, [rbp + PAGE_VA]
                ; lea rax, [rax + offset as i64 as i32]);
            return;
        }
        let wide = |r: Register| if r == Register::None { r } else { r.full_register() };
        if base == Register::None && index == Register::None {
            dynasm!(self.a ; .arch x64 ; mov rax, QWORD ins.memory_displacement64() as i64);
        } else {
            let mut place = |register: Register, scratch: u8| match wide(register) {
                Register::None => Register::None,
                register => gpr(self.guest_in(register.number() as u8, scratch), 8),
            };
            let (base, index) = (place(base, 0), place(index, 1));
            let scale = ins.memory_index_scale();
            let displacement = ins.memory_displacement64() as i64;
            let size = match (base, displacement) {
                (Register::None, _) => 8,
                (_, 0) => 0,
                _ => 1,
            };
            let operand = MemoryOperand::new(
                base,
                index,
                scale,
                i64::from(displacement as i32),
                size,
                false,
                Register::None,
            );
            self.raw(&host(Instruction::with2(Code::Lea_r64_m, Register::RAX, operand)));
        }
        let absolute = base == Register::None && index == Register::None;
        if base.is_gpr32() || index.is_gpr32() || absolute && ins.memory_displ_size() == 4 {
            dynasm!(self.a ; .arch x64 ; mov eax, eax);
        }
    }

    /// Computes the linear address of the memory operand into RAX. Uses RCX.
    pub fn address(&mut self, ins: &Instruction) {
        self.effective(ins);
        let base = match ins.memory_segment() {
            Register::FS => segment_base(crate::state::FS),
            Register::GS => segment_base(crate::state::GS),
            _ => return,
        };
        dynasm!(self.a ; .arch x64 ; mov rcx, [rbp + base] ; lea rax, [rax + rcx]);
    }

    /// Lets `[rax + rdx]` be the host's address of `size` bytes at the linear address in RAX, or calls for
    /// help and tries the instruction again. Uses RCX.
    pub fn reach(&mut self, size: u8, write: bool) {
        let want = if write { Want::Write(size) } else { Want::Read(size) };
        let slow = self.help(want);
        let view = self.mode.view();
        let tags = if write { offset_of!(Link, write_tags) } else { offset_of!(Link, read_tags) };
        let tags = table(tags, WINDOW, view);
        let addends = table(offset_of!(Link, addends), WINDOW, view);
        let last = i32::from(size) - 1;
        dynasm!(self.a ; .arch x64
            ; shrx rdx, rax, rbp
            ; movzx edx, dl
            ; mov rcx, [rbp + rdx * 8 + tags]
            ; lea rcx, [rcx + rax + last]
            ; shrx rcx, rcx, rbp
            ; jrcxz >hit
            ; jmp =>slow
            ; hit:
            ; mov rdx, [rbp + rdx * 8 + addends]);
    }

    /// Calls for help if the address in RAX is not a multiple of 16: the interpreter raises the fault.
    pub fn aligned(&mut self) {
        let slow = self.help(Want::Execute);
        dynasm!(self.a ; .arch x64
            ; mov ecx, 60
            ; shlx rcx, rax, rcx
            ; jrcxz >hit
            ; jmp =>slow
            ; hit:);
    }

    /// A label out of line from which help is called, with everything as it is now.
    pub fn help(&mut self, want: Want) -> DynamicLabel {
        let label = self.a.new_dynamic_label();
        let site = self.first.0 + self.sites.len() as u32;
        let (index, rest, next) = self.at;
        self.sites.push(Site { unit: self.unit, index, rest, mode: self.mode, want, next });
        self.stubs.push(Stub {
            label,
            retry: self.retry,
            done: self.done,
            site,
            has_address: want != Want::Execute,
            pending: self.pending,
            vectors: self.vectors,
            after: self.vectors,
        });
        label
    }

    /// Executes the instruction by the interpreter.
    pub fn interpret(&mut self) {
        let slow = self.help(Want::Execute);
        dynasm!(self.a ; .arch x64 ; jmp =>slow);
        self.pending = Pending::None;
    }

    /// Brings a guest vector register into its host register.
    pub fn vector_in(&mut self, n: u8) {
        if self.vectors.valid >> n & 1 == 0 {
            self.vectors.valid |= 1 << n;
            dynasm!(self.a ; .arch x64 ; movaps Rx(n), [rbp + guest_xmm(n)]);
        }
    }

    /// A guest vector register is written in its host register.
    pub fn vector_out(&mut self, n: u8) {
        self.vectors.valid |= 1 << n;
        self.vectors.dirty |= 1 << n;
    }

    /// Puts the guest's MXCSR in force until the unit ends.
    pub fn use_mxcsr(&mut self) {
        if !self.vectors.mxcsr {
            self.vectors.mxcsr = true;
            dynasm!(self.a ; .arch x64 ; ldmxcsr [rbp + MXCSR]);
        }
    }

    fn store_vectors(&mut self, vectors: Vectors) {
        for n in (0..16).filter(|n| vectors.dirty >> n & 1 != 0) {
            dynasm!(self.a ; .arch x64 ; movaps [rbp + guest_xmm(n)], Rx(n));
        }
        if vectors.mxcsr {
            dynasm!(self.a ; .arch x64
                ; stmxcsr [rbp + MXCSR]
                ; ldmxcsr [rbp + linked!(host_mxcsr)]);
        }
    }

    fn load_vectors(&mut self, vectors: Vectors) {
        for n in (0..16).filter(|n| vectors.valid >> n & 1 != 0) {
            dynasm!(self.a ; .arch x64 ; movaps Rx(n), [rbp + guest_xmm(n)]);
        }
        if vectors.mxcsr {
            dynasm!(self.a ; .arch x64 ; ldmxcsr [rbp + MXCSR]);
        }
    }

    /// The unit ends here: everything that it keeps by itself goes where others look for it. Uses RAX.
    pub fn settle(&mut self) {
        self.resolve();
        let vectors = std::mem::take(&mut self.vectors);
        self.store_vectors(vectors);
    }

    /// Goes on at an offset from the page's start, in this page or another.
    pub fn go(&mut self, offset: i32) {
        if (0..4096).contains(&offset) {
            let slot = self.first.1 + self.slots.len() as u32;
            let out = self.a.new_dynamic_label();
            dynasm!(self.a ; .arch x64 ; jmp =>out);
            self.slots.push(Slot { at: self.a.offset().0 - 4 });
            self.exits.push((out, Exit::Chain { slot, offset }));
        } else {
            dynasm!(self.a ; .arch x64 ; mov rax, [rbp + PAGE_VA] ; lea rax, [rax + offset]);
            let out = self.a.new_dynamic_label();
            self.exits.push((out, Exit::Rax));
            self.find_target(out);
            self.leave_page();
        }
    }

    /// Looks RAX up among the known targets: goes on with its index in RDX, or at `unknown`. Uses RCX.
    pub fn find_target(&mut self, unknown: DynamicLabel) {
        let tags = table(offset_of!(Link, target_tags), TARGETS, self.mode.view());
        let shift = 32 - TARGETS.trailing_zeros() as i32;
        dynasm!(self.a ; .arch x64
            ; mov edx, 0
            ; crc32 rdx, rax
            ; mov ecx, shift
            ; shrx edx, edx, ecx
            ; mov rcx, [rbp + rdx * 8 + tags]
            ; lea rcx, [rcx + rax]
            ; jrcxz >hit
            ; jmp =>unknown
            ; hit:);
    }

    /// Jumps to the target in RAX whose index is in RDX.
    pub fn leave_page(&mut self) {
        let code = table(offset_of!(Link, target_code), TARGETS, self.mode.view());
        dynasm!(self.a ; .arch x64
            ; shrx rcx, rax, rbp
            ; shlx rcx, rcx, rbp
            ; mov [rbp + PAGE_VA], rcx
            ; jmp QWORD [rbp + rdx * 8 + code]);
    }

    /// Notes the target in RAX, whose index is in RDX, in the scratch words. Uses RCX.
    pub fn note_target(&mut self) {
        let code = table(offset_of!(Link, target_code), TARGETS, self.mode.view());
        dynasm!(self.a ; .arch x64
            ; mov rcx, [rbp + rdx * 8 + code]
            ; mov [rbp + SCRATCH], rcx
            ; shrx rcx, rax, rbp
            ; shlx rcx, rcx, rbp
            ; mov [rbp + SCRATCH + 8], rcx);
    }

    /// Jumps to the target noted.
    pub fn leave_to_noted(&mut self) {
        dynasm!(self.a ; .arch x64
            ; mov rcx, [rbp + SCRATCH + 8]
            ; mov [rbp + PAGE_VA], rcx
            ; jmp QWORD [rbp + SCRATCH]);
    }

    /// Everything out of line; then the code is complete.
    ///
    /// # Panics
    /// If a short jump does not reach: all of them are a few instructions long.
    pub fn finish(mut self) -> (Vec<u8>, Vec<Site>, Vec<Slot>) {
        for stub in std::mem::take(&mut self.stubs) {
            self.emit_stub(&stub);
        }
        for (label, exit) in std::mem::take(&mut self.exits) {
            self.emit_exit(label, exit);
        }
        let code = self.a.finalize().expect("every label is placed and every jump reaches");
        (code, self.sites, self.slots)
    }

    fn emit_stub(&mut self, stub: &Stub) {
        let (label, retry, done, site) = (stub.label, stub.retry, stub.done, stub.site as i32);
        dynasm!(self.a ; .arch x64 ; =>label);
        if stub.has_address {
            dynasm!(self.a ; .arch x64 ; mov [rbp + linked!(va)], rax);
        }
        dynasm!(self.a ; .arch x64 ; mov DWORD [rbp + linked!(site)], site);
        self.emit_correction(stub.pending);
        self.store_vectors(stub.vectors);
        dynasm!(self.a ; .arch x64 ; call extern self.common.help);
        // The answer is 0 to try again, 1 if it is done, 2 to leave.
        let leave = self.a.new_dynamic_label();
        dynasm!(self.a ; .arch x64 ; mov eax, ecx);
        // What either way on takes for loaded: more does no harm.
        let loaded = Vectors {
            valid: stub.vectors.valid | stub.after.valid,
            dirty: 0,
            mxcsr: stub.vectors.mxcsr || stub.after.mxcsr,
        };
        self.load_vectors(loaded);
        dynasm!(self.a ; .arch x64
            ; mov ecx, eax
            ; jrcxz >again
            ; lea ecx, [rcx - 1]
            ; jrcxz >over
            ; jmp =>leave
            ; again:
            ; jmp =>retry
            ; over:
            ; jmp =>done
            ; =>leave);
        if loaded.mxcsr {
            dynasm!(self.a ; .arch x64 ; ldmxcsr [rbp + linked!(host_mxcsr)]);
        }
        dynasm!(self.a ; .arch x64 ; jmp extern self.common.exit);
    }

    fn emit_exit(&mut self, label: DynamicLabel, exit: Exit) {
        let guest_rip = guest(RIP as u8);
        dynasm!(self.a ; .arch x64 ; =>label);
        let reason = match exit {
            Exit::Rax => {
                dynasm!(self.a ; .arch x64 ; mov [rbp + guest_rip], rax);
                reason::NEXT
            }
            Exit::Chain { slot, offset } => {
                dynasm!(self.a ; .arch x64
                    ; mov rcx, [rbp + PAGE_VA]
                    ; lea rcx, [rcx + offset]
                    ; mov [rbp + guest_rip], rcx
                    ; mov DWORD [rbp + linked!(site)], slot as i32);
                reason::CHAIN
            }
            Exit::Fuel { offset, len } => {
                dynasm!(self.a ; .arch x64
                    ; lea r15, [r15 + len]
                    ; mov rcx, [rbp + PAGE_VA]
                    ; lea rcx, [rcx + offset]
                    ; mov [rbp + guest_rip], rcx);
                reason::FUEL
            }
        };
        dynasm!(self.a ; .arch x64
            ; mov DWORD [rbp + linked!(reason)], reason
            ; jmp extern self.common.exit);
    }
}

/// An instruction that iced has made.
///
/// # Panics
/// If it could not: the forms asked for exist.
pub fn host(made: Result<Instruction, iced_x86::IcedError>) -> Instruction {
    made.expect("the forms that the translator asks for exist")
}

/// The sequences that all units share, for code at `address`. Gives their code and addresses.
///
/// # Panics
/// Never: they are the same each time.
pub fn common(address: usize) -> (Vec<u8>, Common) {
    let mut a: VecAssembler<X64Relocation> = VecAssembler::new(address);
    let mut common = Common { enter: address, exit: 0, help: 0 };
    // RDI: where to go; RSI: RBP.
    dynasm!(a ; .arch x64
        ; push rbp ; push rbx ; push r12 ; push r13 ; push r14 ; push r15
        ; lea rsp, [rsp - 8]
        ; mov rbp, rsi
        ; mov [rbp + linked!(target)], rdi);
    load_registers(&mut a);
    dynasm!(a ; .arch x64
        ; mov r15, [rbp + linked!(fuel)]
        ; mov eax, [rbp + linked!(flags)]
        ; add al, 0x7f
        ; sahf
        ; jmp QWORD [rbp + linked!(target)]
        ; .align 16);
    common.exit = address + a.offset().0;
    store_flags(&mut a);
    store_registers(&mut a);
    dynasm!(a ; .arch x64
        ; lea rsp, [rsp + 8]
        ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbx ; pop rbp
        ; ret
        ; .align 16);
    common.help = address + a.offset().0;
    store_flags(&mut a);
    store_registers(&mut a);
    dynasm!(a ; .arch x64
        ; lea rsp, [rsp - 8]
        ; lea rdi, [rbp - BASE as i32]
        ; call QWORD [rbp + linked!(helper)]
        ; lea rsp, [rsp + 8]);
    load_registers(&mut a);
    dynasm!(a ; .arch x64
        ; mov ecx, [rbp + linked!(answer)]
        ; mov eax, [rbp + linked!(flags)]
        ; add al, 0x7f
        ; sahf
        ; ret);
    let code = a.finalize().expect("no label is missing");
    (code, common)
}

fn store_flags(a: &mut VecAssembler<X64Relocation>) {
    dynasm!(a ; .arch x64 ; lahf ; seto al ; movzx eax, ax ; mov [rbp + linked!(flags)], rax);
}

fn store_registers(a: &mut VecAssembler<X64Relocation>) {
    for (register, host) in super::regs::homes() {
        dynasm!(a ; .arch x64 ; mov [rbp + guest(register)], Rq(host));
    }
    dynasm!(a ; .arch x64 ; mov [rbp + linked!(fuel)], r15);
}

fn load_registers(a: &mut VecAssembler<X64Relocation>) {
    for (register, host) in super::regs::homes() {
        dynasm!(a ; .arch x64 ; mov Rq(host), [rbp + guest(register)]);
    }
}
