//! Runs one instruction on the host.
#![allow(unsafe_code)]
// Reason: the host's own CPU is the oracle. Obligation: only instructions that `select` knows are run, with
// operands in XMM, MMX, RAX, RCX, RDX or at RSI/RDI, which point into `Frame::memory`; all exceptions are
// masked; the whole FXSAVE state of the caller is put back.

use std::arch::asm;

/// State before and after.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Frame {
    /// FXSAVE image.
    pub fx: [u8; 512],
    host: [u8; 512],
    /// RAX, RCX, RDX.
    pub regs: [u64; 3],
    /// RFLAGS.
    pub flags: u64,
    data: u64,
    unused: [u64; 3],
    /// The memory operand.
    pub memory: [u8; 64],
}

impl Frame {
    pub fn new() -> Self {
        Self {
            fx: [0; 512],
            host: [0; 512],
            regs: [0; 3],
            flags: 2,
            data: 0,
            unused: [0; 3],
            memory: [0; 64],
        }
    }
}

/// A page of code on the host.
pub struct Code(*mut u8);

impl Code {
    pub fn new() -> Self {
        // SAFETY: a fresh anonymous mapping.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(page != libc::MAP_FAILED, "a page for code");
        Self(page.cast())
    }

    /// Executes `bytes` on the state in `frame`.
    pub fn run(&self, bytes: &[u8], frame: &mut Frame) {
        frame.data = frame.memory.as_ptr() as u64;
        // SAFETY: `bytes` is one instruction and fits; a return follows it.
        unsafe {
            self.0.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            self.0.add(bytes.len()).write(0xc3);
        }
        // SAFETY: see the module's head.
        unsafe {
            asm!(
                "fxsave64 [r8 + 512]",
                "fxrstor64 [r8]",
                "mov rax, [r8 + 1024]",
                "mov rcx, [r8 + 1032]",
                "mov rdx, [r8 + 1040]",
                "mov rsi, [r8 + 1056]",
                "mov rdi, [r8 + 1056]",
                "push qword ptr [r8 + 1048]",
                "popfq",
                "call r9",
                "pushfq",
                "pop qword ptr [r8 + 1048]",
                "mov [r8 + 1024], rax",
                "mov [r8 + 1032], rcx",
                "mov [r8 + 1040], rdx",
                "fxsave64 [r8]",
                "fxrstor64 [r8 + 512]",
                in("r8") frame,
                in("r9") self.0,
                out("rax") _,
                out("rcx") _,
                out("rdx") _,
                out("rsi") _,
                out("rdi") _,
            );
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
}
