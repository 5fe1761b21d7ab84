//! Guest RAM and what is remembered for each of its pages.
//!
//! RAM lies in at most two ranges of guest physical addresses: from 0 up to 3 GiB, and from 4 GiB on;
//! the gigabyte between belongs to devices. Pages are numbered densely over both ("page index").
#![allow(unsafe_code)]
// Reason: the CPU reaches guest memory through host pointers kept in its TLB, so the memory has to be
// one mapping outside Rust's aliasing rules. Obligation: every access is bounds-checked against the
// regions here or comes from a TLB entry that was filled from them; the mapping lives as long as `self`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Where the hole for devices begins (3 GiB) and where RAM goes on (4 GiB).
pub const HOLE_START: u64 = 3 << 30;
/// End of the hole for devices.
pub const HOLE_END: u64 = 4 << 30;

/// Written since the last [`GuestRam::take_dirty`].
const DIRTY: u8 = 1;
/// The CPU has decoded instructions from this page.
const CODE: u8 = 2;
/// Second dirty mark with a consumer of its own (synchronisation of a new Slave, sets over several epochs).
const DIRTY_LONG: u8 = 4;

/// The memory could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {bytes} bytes of guest memory: {source}")]
pub struct RamError {
    bytes: u64,
    source: std::io::Error,
}

/// Guest RAM: one anonymous host mapping, page marks, and the lists of dirty pages.
#[derive(Debug)]
pub struct GuestRam {
    host: *mut u8,
    len: u64,
    marks: Vec<AtomicU8>,
    dirty: Mutex<Vec<u32>>,
    dirty_long: Mutex<Vec<u32>>,
    stale: Mutex<Vec<u32>>,
    has_stale: AtomicBool,
}

// SAFETY: the mapping is plain memory; the page marks and lists are synchronised. Guest bytes are only
// touched by the thread that runs the vCPU (devices run on it too), or by whoever holds the machine.
unsafe impl Send for GuestRam {}
// SAFETY: as above.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// Maps `len` bytes (a multiple of the page size) of zeroed guest memory.
    ///
    /// # Errors
    /// When the host refuses the mapping.
    ///
    /// # Panics
    /// If `len` is zero or no multiple of the page size.
    pub fn new(len: u64) -> Result<Self, RamError> {
        assert!(len > 0 && len.is_multiple_of(PAGE), "guest memory is a whole number of pages");
        // SAFETY: an anonymous private mapping of fresh address space.
        let host = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if host == libc::MAP_FAILED {
            return Err(RamError { bytes: len, source: std::io::Error::last_os_error() });
        }
        // SAFETY: the range was just mapped. Huge pages make teardown after a kill quick; advice only.
        unsafe { libc::madvise(host, len as usize, libc::MADV_HUGEPAGE) };
        let pages = (len / PAGE) as usize;
        Ok(Self {
            host: host.cast(),
            len,
            marks: (0..pages).map(|_| AtomicU8::new(0)).collect(),
            dirty: Mutex::default(),
            dirty_long: Mutex::default(),
            stale: Mutex::default(),
            has_stale: AtomicBool::new(false),
        })
    }

    /// Bytes of RAM.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Never true: RAM has at least one page.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Number of pages.
    pub const fn pages(&self) -> u32 {
        (self.len / PAGE) as u32
    }

    /// RAM as ranges of guest physical addresses: `(start, length)`, ascending.
    pub fn regions(&self) -> Vec<(u64, u64)> {
        if self.len <= HOLE_START {
            vec![(0, self.len)]
        } else {
            vec![(0, HOLE_START), (HOLE_END, self.len - HOLE_START)]
        }
    }

    /// Offset into RAM of a guest physical address, if RAM is there.
    #[inline]
    pub const fn offset(&self, gpa: u64) -> Option<u64> {
        let off = if gpa < HOLE_START {
            gpa
        } else if gpa >= HOLE_END {
            gpa - (HOLE_END - HOLE_START)
        } else {
            return None;
        };
        if off < self.len { Some(off) } else { None }
    }

    /// Page index of a guest physical address, if RAM is there.
    #[inline]
    pub const fn page_index(&self, gpa: u64) -> Option<u32> {
        match self.offset(gpa) {
            Some(off) => Some((off / PAGE) as u32),
            None => None,
        }
    }

    /// Guest physical address of a page's first byte.
    pub const fn page_gpa(&self, page: u32) -> u64 {
        let off = page as u64 * PAGE;
        if off < HOLE_START { off } else { off + (HOLE_END - HOLE_START) }
    }

    /// Host address of the first byte of the mapping, for the TLB and for vm-memory.
    pub const fn host_ptr(&self) -> *mut u8 {
        self.host
    }

    /// Host address of a guest physical address, if RAM is there.
    #[inline]
    pub fn host_addr(&self, gpa: u64) -> Option<*mut u8> {
        // SAFETY: `offset` is below `len`, inside the mapping.
        self.offset(gpa).map(|off| unsafe { self.host.add(off as usize) })
    }

    /// The bytes of a page. The caller holds the machine stopped.
    pub fn page(&self, page: u32) -> &[u8; PAGE as usize] {
        assert!(page < self.pages(), "page {page} lies in RAM");
        // SAFETY: in bounds by the assertion; the caller holds the machine, nobody writes meanwhile.
        unsafe { &*self.host.add(page as usize * PAGE as usize).cast() }
    }

    /// Copies out bytes at a guest physical address; false if they do not all lie in RAM.
    pub fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        let Some(off) = self.span(gpa, out.len()) else { return false };
        // SAFETY: `span` checked both ends.
        unsafe {
            std::ptr::copy_nonoverlapping(self.host.add(off), out.as_mut_ptr(), out.len());
        }
        true
    }

    /// Writes bytes at a guest physical address as a device does: pages become dirty and code decoded
    /// from them stale. False (and nothing written) if they do not all lie in RAM.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        let Some(off) = self.span(gpa, bytes.len()) else { return false };
        // SAFETY: `span` checked both ends.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.host.add(off), bytes.len());
        }
        self.mark_written(off as u64, bytes.len() as u64);
        true
    }

    /// Writes bytes without any mark: for injected faults, which have to bypass dirty tracking.
    pub fn write_untracked(&self, gpa: u64, bytes: &[u8]) -> bool {
        let Some(off) = self.span(gpa, bytes.len()) else { return false };
        // SAFETY: `span` checked both ends.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.host.add(off), bytes.len());
        }
        true
    }

    fn span(&self, gpa: u64, len: usize) -> Option<usize> {
        let off = self.offset(gpa)?;
        let last = gpa.checked_add((len as u64).saturating_sub(1))?;
        (self.offset(last)? == off + (len as u64).saturating_sub(1)).then_some(off as usize)
    }

    /// Notes that somebody other than the CPU wrote `len` bytes at `offset` into RAM.
    pub fn mark_written(&self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        for page in (offset / PAGE)..=((offset + len - 1) / PAGE) {
            let page = page as u32;
            if self.mark_dirty(page) {
                self.stale.lock().expect("no panic while marking").push(page);
                self.has_stale.store(true, Relaxed);
            }
        }
    }

    /// Marks a page dirty; true if code was decoded from it.
    pub fn mark_dirty(&self, page: u32) -> bool {
        let before = self.marks[page as usize].fetch_or(DIRTY | DIRTY_LONG, Relaxed);
        if before & DIRTY == 0 {
            self.dirty.lock().expect("no panic while marking").push(page);
        }
        if before & DIRTY_LONG == 0 {
            self.dirty_long.lock().expect("no panic while marking").push(page);
        }
        before & CODE != 0
    }

    /// True if the page is already dirty for both consumers and holds no decoded code: a store to it
    /// needs no further notice.
    pub fn quiet_for_stores(&self, page: u32) -> bool {
        let all = DIRTY | DIRTY_LONG;
        self.marks[page as usize].load(Relaxed) & (all | CODE) == all
    }

    /// True if code was decoded from the page.
    pub fn holds_code(&self, page: u32) -> bool {
        self.marks[page as usize].load(Relaxed) & CODE != 0
    }

    /// Marks a page as holding decoded code; true if it was not marked before.
    pub fn mark_code(&self, page: u32) -> bool {
        self.marks[page as usize].fetch_or(CODE, Relaxed) & CODE == 0
    }

    /// The page holds no decoded code any more.
    pub fn clear_code(&self, page: u32) {
        self.marks[page as usize].fetch_and(!CODE, Relaxed);
    }

    /// True if a device wrote to a page with decoded code since [`Self::take_stale_code`].
    #[inline]
    pub fn has_stale_code(&self) -> bool {
        self.has_stale.load(Relaxed)
    }

    /// Pages with decoded code that devices have written to.
    pub fn take_stale_code(&self) -> Vec<u32> {
        self.has_stale.store(false, Relaxed);
        std::mem::take(&mut *self.stale.lock().expect("no panic while marking"))
    }

    /// Number of pages dirtied since the last [`Self::take_dirty`].
    pub fn dirty_count(&self) -> usize {
        self.dirty.lock().expect("no panic while marking").len()
    }

    /// Number of pages in the second set; see [`Self::take_dirty_long`].
    pub fn dirty_long_count(&self) -> usize {
        self.dirty_long.lock().expect("no panic while marking").len()
    }

    /// One of the dirty pages, if there are any: where an injected fault is sure to be noticed.
    pub fn some_dirty_page(&self) -> Option<u32> {
        self.dirty.lock().expect("no panic while marking").last().copied()
    }

    /// The pages dirtied since the last call, ascending; they are clean afterwards. The CPU's TLB must be
    /// told ([`crate::Cpu::dirty_marks_cleared`]) before it runs again.
    pub fn take_dirty(&self) -> Vec<u32> {
        self.take(&self.dirty, DIRTY)
    }

    /// Likewise for the second, longer-lived set.
    pub fn take_dirty_long(&self) -> Vec<u32> {
        self.take(&self.dirty_long, DIRTY_LONG)
    }

    fn take(&self, list: &Mutex<Vec<u32>>, mark: u8) -> Vec<u32> {
        let mut pages = std::mem::take(&mut *list.lock().expect("no panic while marking"));
        pages.sort_unstable();
        for page in &pages {
            self.marks[*page as usize].fetch_and(!mark, Relaxed);
        }
        pages
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        // SAFETY: the range is the one mapped in `new`; nothing refers to it once `self` goes.
        unsafe { libc::munmap(self.host.cast(), self.len as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hole_is_not_ram() {
        let ram = GuestRam::new(HOLE_START + 2 * PAGE).unwrap();
        assert_eq!(ram.offset(HOLE_START), None);
        assert_eq!(ram.offset(HOLE_END), Some(HOLE_START));
        assert_eq!(ram.offset(HOLE_END + 2 * PAGE), None);
        assert_eq!(ram.page_gpa(ram.page_index(HOLE_END + PAGE).unwrap()), HOLE_END + PAGE);
        assert!(!ram.write(HOLE_START - 1, &[1, 2]), "a write across the hole is refused whole");
    }

    #[test]
    fn dirty_pages_are_listed_once_and_sorted() {
        let ram = GuestRam::new(8 * PAGE).unwrap();
        assert!(ram.write(5 * PAGE - 1, &[1, 2]));
        assert!(ram.write(PAGE, &[1]));
        assert!(ram.write(PAGE, &[2]));
        assert_eq!(ram.take_dirty(), [1, 4, 5]);
        assert_eq!(ram.take_dirty(), []);
        assert_eq!(ram.take_dirty_long(), [1, 4, 5]);
    }

    #[test]
    fn device_writes_make_code_stale() {
        let ram = GuestRam::new(2 * PAGE).unwrap();
        assert!(ram.mark_code(1));
        assert!(ram.write(0, &[1]));
        assert!(!ram.has_stale_code());
        assert!(ram.write(PAGE, &[1]));
        assert_eq!(ram.take_stale_code(), [1]);
    }
}
