//! Native execution: a child process that loads a state by returning from a signal handler with the trap
//! flag set, so that the host executes one instruction and comes back by SIGTRAP, or by the signal of the
//! exception.
//!
//! The child is forked off before any state is loaded, dies with its parent, has no core file, and may
//! make no system call but read, write, sigreturn and exit once it has set itself up. It hears of work
//! and tells of results by two pipes; cases and outcomes lie in memory shared with the parent.
#![allow(unsafe_code)]
// Reason: fork, signals and the state of a signal frame have no safe interface. Obligations: between fork
// and exit the child calls nothing but system calls and code that neither allocates nor locks; its
// handlers run on their own stack; what is shared is only touched by the side whose turn it is, which the
// pipes decide.

use super::case::{
    CODE, CODE_AT, CODE_FILL, CODE_LEN, Case, DATA, DATA_LEN, FX_USED, GS_BASE, Outcome, Registers,
    WINDOW, WRITABLE_LEN,
};
use libc::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// Cases handed over at a time.
pub const BATCH: usize = 64;
const HANDLER_STACK: usize = 64 << 10;
/// How long a batch may take before the child counts as hung.
const PATIENCE_MS: c_int = 60_000;

/// Shared by parent and child.
#[repr(C)]
struct Channel {
    /// The child's own: it has loaded a case. `count` cannot tell, the parent sets it at any time before.
    started: AtomicU64,
    count: AtomicU64,
    done: AtomicU64,
    work: c_int,
    result: c_int,
    code: *mut u8,
    background: [u8; DATA_LEN],
    cases: [Case; BATCH],
    outcomes: [Outcome; BATCH],
    stack: [u8; HANDLER_STACK],
}

/// The child's channel. Set in the child only, which has one thread.
static CHANNEL: AtomicPtr<Channel> = AtomicPtr::new(null_mut());

/// A running child.
pub struct Native {
    channel: *mut Channel,
    code: *mut c_void,
    pid: libc::pid_t,
    work: c_int,
    result: c_int,
}

fn check(ok: bool, what: &str) {
    assert!(ok, "{what}: {}", std::io::Error::last_os_error());
}

fn map(fd: c_int, len: usize) -> *mut c_void {
    let anonymous = if fd < 0 { libc::MAP_ANONYMOUS } else { 0 };
    // SAFETY: a new mapping at an address of the kernel's choice.
    let p = unsafe {
        libc::mmap(
            null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | anonymous,
            fd,
            0,
        )
    };
    check(p != libc::MAP_FAILED, "cannot map memory shared with the native child");
    p
}

impl Native {
    pub fn new(background: &[u8; DATA_LEN]) -> Self {
        let channel: *mut Channel = map(-1, size_of::<Channel>()).cast();
        // SAFETY: plain system calls with valid arguments.
        let fd = unsafe { libc::memfd_create(c"differential-code".as_ptr(), libc::MFD_CLOEXEC) };
        check(fd >= 0, "memfd_create");
        // SAFETY: as above.
        check(unsafe { libc::ftruncate(fd, CODE_LEN as i64) } == 0, "ftruncate");
        let code = map(fd, CODE_LEN);
        let (mut down, mut up) = ([0; 2], [0; 2]);
        // SAFETY: both arrays hold two descriptors.
        let piped = unsafe {
            libc::pipe2(down.as_mut_ptr(), libc::O_CLOEXEC) == 0
                && libc::pipe2(up.as_mut_ptr(), libc::O_CLOEXEC) == 0
        };
        check(piped, "pipe2");
        // SAFETY: both mappings were just made, zeroed and of sufficient length; nobody else has them.
        unsafe {
            code.write_bytes(CODE_FILL, CODE_LEN);
            (*channel).background = *background;
            (*channel).work = down[0];
            (*channel).result = up[1];
            (*channel).code = code.cast();
        }
        // SAFETY: the child only makes system calls and runs the handler (see the module's head).
        let pid = unsafe { libc::fork() };
        check(pid >= 0, "fork");
        if pid == 0 {
            // SAFETY: this is the child.
            unsafe { child(channel, fd, down[1], up[0]) }
        }
        for unused in [fd, down[0], up[1]] {
            // SAFETY: descriptors of this function that only the child uses.
            unsafe { libc::close(unused) };
        }
        Self { channel, code, pid, work: down[1], result: up[0] }
    }

    /// Executes up to [`BATCH`] cases.
    pub fn run(&mut self, cases: &[Case]) -> &[Outcome] {
        assert!(!cases.is_empty() && cases.len() <= BATCH, "1 to {BATCH} cases a batch");
        // SAFETY: it is the parent's turn: the child waits for a byte.
        unsafe {
            (&mut (*self.channel).cases)[..cases.len()].copy_from_slice(cases);
            (*self.channel).count.store(cases.len() as u64, Relaxed);
        }
        let byte = [1u8];
        // SAFETY: one byte from a live buffer.
        check(unsafe { libc::write(self.work, byte.as_ptr().cast(), 1) } == 1, "write to child");
        let mut poll = libc::pollfd { fd: self.result, events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, PATIENCE_MS) };
        let mut answer = [0u8];
        // SAFETY: one byte into a live buffer; only after `poll` said that it does not block.
        let came =
            ready == 1 && unsafe { libc::read(self.result, answer.as_mut_ptr().cast(), 1) } == 1;
        if !came {
            // SAFETY: a counter that the child only stores to.
            let done = unsafe { (*self.channel).done.load(Relaxed) } as usize;
            let code = cases.get(done).map(|c| c.code);
            panic!("the native child hangs or died in case {done} of the batch, code {code:02x?}");
        }
        // SAFETY: it is the parent's turn again.
        unsafe { &(&(*self.channel).outcomes)[..cases.len()] }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: the process, descriptors and mappings are this value's own.
        unsafe {
            libc::close(self.work);
            libc::close(self.result);
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, null_mut(), 0);
            libc::munmap(self.code, CODE_LEN);
            libc::munmap(self.channel.cast(), size_of::<Channel>());
        }
    }
}

/// Ends the child with a status that says how far it came.
fn quit(status: c_int) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// SAFETY: only in the child, right after fork.
unsafe fn child(channel: *mut Channel, code_fd: c_int, work_end: c_int, result_end: c_int) -> ! {
    CHANNEL.store(channel, Relaxed);
    // SAFETY: system calls with valid arguments; the fixed mappings replace nothing (NOREPLACE).
    unsafe {
        // The parent's ends: with them open the child would not notice its parent's end.
        libc::close(work_end);
        libc::close(result_end);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        let fixed = libc::MAP_FIXED_NOREPLACE;
        let code = libc::mmap(
            CODE as *mut c_void,
            CODE_LEN,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_SHARED | fixed,
            code_fd,
            0,
        );
        let data = libc::mmap(
            DATA as *mut c_void,
            DATA_LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed,
            -1,
            0,
        );
        if code as u64 != CODE || data as u64 != DATA {
            quit(10);
        }
        let background = &raw const (*channel).background;
        std::ptr::copy_nonoverlapping(background.cast::<u8>(), data.cast(), DATA_LEN);
        let read_only = (DATA + WRITABLE_LEN as u64) as *mut c_void;
        if libc::mprotect(read_only, DATA_LEN - WRITABLE_LEN, libc::PROT_READ) != 0 {
            quit(11);
        }
        const ARCH_SET_GS: c_int = 0x1001;
        if libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE) != 0 {
            quit(12);
        }
        let stack = libc::stack_t {
            ss_sp: (&raw mut (*channel).stack).cast(),
            ss_flags: 0,
            ss_size: HANDLER_STACK,
        };
        if libc::sigaltstack(&raw const stack, null_mut()) != 0 {
            quit(13);
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction =
            on_signal as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL] {
            if libc::sigaction(signal, &raw const action, null_mut()) != 0 {
                quit(14);
            }
        }
        if !enter_seccomp() {
            quit(15);
        }
        // Enters the handler, which never comes back here.
        std::arch::asm!("ud2", options(noreturn));
    }
}

/// From here on only read, write, rt_sigreturn, exit and exit_group.
fn enter_seccomp() -> bool {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
    }
    const fn skip_if(k: u32, by: u8) -> libc::sock_filter {
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        libc::sock_filter { code, jt: by, jf: 0, k }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const ARCH_X86_64: u32 = 0xc000_003e;
    let mut filter = [
        statement(LOAD, 4),
        skip_if(ARCH_X86_64, 1),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, 0),
        skip_if(libc::SYS_read as u32, 5),
        skip_if(libc::SYS_write as u32, 4),
        skip_if(libc::SYS_rt_sigreturn as u32, 3),
        skip_if(libc::SYS_exit as u32, 2),
        skip_if(libc::SYS_exit_group as u32, 1),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter lives through the call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Encoding number of each register that the frame holds, in the frame's order from R8 to RSP.
const FRAME_ORDER: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4];

extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: pushes and pops one word. AC, NT, ID and the like may have come with the state just run.
    unsafe { std::arch::asm!("push 0x202", "popfq") };
    let channel = CHANNEL.load(Relaxed);
    // SAFETY: the kernel hands over a valid frame; the channel is the child's until it writes its byte.
    unsafe {
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let channel = &mut *channel;
        let started = channel.started.load(Relaxed) != 0;
        let mut at = channel.done.load(Relaxed) as usize;
        if started {
            let vector = machine.gregs[libc::REG_TRAPNO as usize] as u64;
            let rip = machine.gregs[libc::REG_RIP as usize] as u64;
            if vector == 1 && channel.cases[at].repeats != 0 && rip == CODE_AT {
                return;
            }
            save(machine, &mut channel.outcomes[at]);
            at += 1;
            channel.done.store(at as u64, Relaxed);
        }
        if !started || at == channel.count.load(Relaxed) as usize {
            let mut byte = [1u8];
            if started && libc::write(channel.result, byte.as_ptr().cast(), 1) != 1 {
                quit(0);
            }
            if libc::read(channel.work, byte.as_mut_ptr().cast(), 1) != 1 {
                quit(0);
            }
            channel.started.store(1, Relaxed);
            at = 0;
            channel.done.store(0, Relaxed);
        }
        let background = &raw const channel.background;
        load(machine, &channel.cases[at], background.cast(), channel.code);
    }
}

/// SAFETY: `machine` is the frame of the running handler.
unsafe fn save(machine: &libc::mcontext_t, outcome: &mut Outcome) {
    let registers: &mut Registers = &mut outcome.after;
    for (slot, number) in FRAME_ORDER.iter().enumerate() {
        registers.gpr[*number] = machine.gregs[slot] as u64;
    }
    registers.rip = machine.gregs[libc::REG_RIP as usize] as u64;
    registers.rflags = machine.gregs[libc::REG_EFL as usize] as u64;
    outcome.vector = machine.gregs[libc::REG_TRAPNO as usize] as u64;
    outcome.error = machine.gregs[libc::REG_ERR as usize] as u64;
    outcome.cr2 = machine.gregs[libc::REG_CR2 as usize] as u64;
    // SAFETY: the frame points at its FXSAVE image; the data is mapped for the child's lifetime.
    unsafe {
        let fx = machine.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping(fx, registers.fx.as_mut_ptr(), FX_USED);
        std::ptr::copy_nonoverlapping(DATA as *const u8, outcome.memory.as_mut_ptr(), DATA_LEN);
    }
}

/// SAFETY: as [`save`]; `code` is the writable view of the code page, `background` the data's first form.
unsafe fn load(machine: &mut libc::mcontext_t, case: &Case, background: *const u8, code: *mut u8) {
    const TF: u64 = 1 << 8;
    const SOFTWARE_AREA: usize = 464;
    const XSAVE_MAGIC: u32 = 0x4650_5853;
    const X87_AND_SSE: u64 = 3;
    for (slot, number) in FRAME_ORDER.iter().enumerate() {
        machine.gregs[slot] = case.before.gpr[*number] as i64;
    }
    machine.gregs[libc::REG_RIP as usize] = case.before.rip as i64;
    machine.gregs[libc::REG_EFL as usize] = (case.before.rflags | TF) as i64;
    // SAFETY: see above; the window lies in the writable part of the data.
    unsafe {
        let fx = machine.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping(case.before.fx.as_ptr(), fx, FX_USED);
        if fx.add(SOFTWARE_AREA).cast::<u32>().read_unaligned() == XSAVE_MAGIC {
            fx.add(512).cast::<u64>().write_unaligned(X87_AND_SSE);
        }
        let data = DATA as *mut u8;
        std::ptr::copy_nonoverlapping(background, data, WRITABLE_LEN);
        let at = data.add(case.window_at as usize);
        std::ptr::copy_nonoverlapping(case.window.as_ptr(), at, WINDOW);
        let at = code.add((CODE_AT - CODE) as usize);
        std::ptr::copy_nonoverlapping(case.code.as_ptr(), at, case.code.len());
    }
}
