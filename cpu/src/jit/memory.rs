//! Memory for translated code.
//!
//! The same pages are mapped twice: once to write, once to execute. No mapping is writable and executable
//! at once, and a chained jump is patched without a system call (docs/decisions/0008).
#![allow(unsafe_code)]
// Reason: code is written as bytes and executed. Obligation: both mappings cover `len` bytes of one memory
// file and live as long as `self`; writes are bounds-checked; only `enter` transfers control here, to
// addresses that this type has given out.

use std::io;

/// Two views of one piece of memory.
#[derive(Debug)]
pub struct CodeMemory {
    write: *mut u8,
    execute: *mut u8,
    len: usize,
    used: usize,
}

// SAFETY: the mappings belong to this value alone.
unsafe impl Send for CodeMemory {}

impl CodeMemory {
    /// Maps `len` bytes.
    ///
    /// # Errors
    /// Where the host refuses executable memory.
    pub fn new(len: usize) -> io::Result<Self> {
        // SAFETY: plain system calls; the descriptor is closed again, the mappings keep the file.
        unsafe {
            let file = libc::memfd_create(c"ft-pair-code".as_ptr(), libc::MFD_CLOEXEC);
            if file < 0 {
                return Err(io::Error::last_os_error());
            }
            let mapped = Self::map(file, len);
            libc::close(file);
            mapped
        }
    }

    /// # Safety
    /// `file` is a descriptor of a memory file.
    unsafe fn map(file: libc::c_int, len: usize) -> io::Result<Self> {
        // SAFETY: fresh mappings; on failure nothing of them is used.
        unsafe {
            if libc::ftruncate(file, len as libc::off_t) != 0 {
                return Err(io::Error::last_os_error());
            }
            let view = |protection| {
                libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file, 0)
            };
            let write = view(libc::PROT_READ | libc::PROT_WRITE);
            if write == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let execute = view(libc::PROT_READ | libc::PROT_EXEC);
            if execute == libc::MAP_FAILED {
                let error = io::Error::last_os_error();
                libc::munmap(write, len);
                return Err(error);
            }
            Ok(Self { write: write.cast(), execute: execute.cast(), len, used: 0 })
        }
    }

    /// Bytes that are still free.
    pub const fn free(&self) -> usize {
        self.len - self.used
    }

    /// Forgets all code from `keep` bytes on.
    pub fn truncate(&mut self, keep: usize) {
        assert!(keep <= self.used, "what is kept was there");
        self.used = keep;
    }

    /// Bytes in use.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Where the next code will be executed.
    pub fn next(&self) -> usize {
        self.execute as usize + self.used
    }

    /// Appends code that was assembled for [`Self::next`]; gives its address.
    ///
    /// # Panics
    /// If it does not fit: the caller looks at [`Self::free`] first.
    pub fn append(&mut self, code: &[u8]) -> usize {
        assert!(code.len() <= self.free(), "code memory was made free before");
        let at = self.next();
        // SAFETY: inside the mapping, as checked.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), self.write.add(self.used), code.len());
        }
        // Units begin at a multiple of 16, as branch predictors like it.
        self.used = (self.used + code.len()).next_multiple_of(16).min(self.len);
        at
    }

    /// Lets the 32-bit displacement at the address `at` lead to `target`.
    ///
    /// # Panics
    /// If either lies outside.
    pub fn patch_jump(&mut self, at: usize, target: usize) {
        let offset = at - self.execute as usize;
        assert!(
            offset + 4 <= self.used && target - (self.execute as usize) < self.used,
            "jumps lead from code to code"
        );
        let distance = (target as i64 - (at as i64 + 4)) as i32;
        // SAFETY: inside the mapping, as checked.
        unsafe { self.write.add(offset).cast::<i32>().write_unaligned(distance) };
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: both ranges were mapped in `map`, and nothing executes in them when the CPU goes.
        unsafe {
            libc::munmap(self.write.cast(), self.len);
            libc::munmap(self.execute.cast(), self.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_one_view_is_read_in_the_other() {
        let mut memory = CodeMemory::new(1 << 16).unwrap();
        let first = memory.append(&[0xe9, 0, 0, 0, 0]);
        let second = memory.append(&[0xc3]);
        assert_eq!(second - first, 16);
        memory.patch_jump(first + 1, second);
        // SAFETY: inside the executable view.
        let seen = unsafe { std::slice::from_raw_parts(first as *const u8, 5) };
        assert_eq!(seen, [0xe9, 11, 0, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "made free")]
    fn code_that_does_not_fit_is_refused() {
        CodeMemory::new(4096).unwrap().append(&[0; 4097]);
    }
}
