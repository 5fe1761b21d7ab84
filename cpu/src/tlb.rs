//! The software TLB. It is machine state: stale entries and accessed/dirty bits are visible to the
//! guest, so every engine fills and evicts it alike (direct-mapped, by 4 KiB page, data and instruction
//! fetch apart). It is never saved: both sides flush it at the same position at a snapshot or repair.

use crate::jit::window::Changes;
use crate::ram::PAGE;

/// Entries for data.
pub const DATA_ENTRIES: usize = 1024;
/// Entries for instruction fetch.
pub const FETCH_ENTRIES: usize = 512;

/// Readable from CPL 3.
pub const R_U: u16 = 1;
/// Readable by the supervisor when SMAP does not interfere (off, or EFLAGS.AC set).
pub const R_S: u16 = 2;
/// Readable by the supervisor under SMAP.
pub const R_SMAP: u16 = 4;
/// Writable from CPL 3 (dirty bit already set).
pub const W_U: u16 = 8;
/// Writable by the supervisor.
pub const W_S: u16 = 16;
/// Writable by the supervisor under SMAP.
pub const W_SMAP: u16 = 32;
/// Executable at CPL 3.
pub const X_U: u16 = 64;
/// Executable by the supervisor.
pub const X_S: u16 = 128;
/// Host-side, not architectural: the page is marked dirty already and holds no decoded code, so a store
/// needs no further notice.
pub const QUIET: u16 = 256;

/// What an access needs to find in [`TlbEntry::perms`], by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// One translation of a 4 KiB page.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct TlbEntry {
    /// Virtual address of the page; [`TlbEntry::INVALID`] if none.
    pub page: u64,
    /// Host address of the page's first byte, 0 if the page is not RAM.
    pub host: usize,
    /// Guest physical address of the page.
    pub gpa: u64,
    /// `R_*`, `W_*`, `X_*` and [`QUIET`].
    pub perms: u16,
    /// The page is global.
    pub global: bool,
    /// log2 of the size of the page it was cut from: 12, 21 or 30.
    pub size_log2: u8,
}

impl TlbEntry {
    /// No page has this virtual address, since it is not aligned.
    pub const INVALID: u64 = 1;
    /// An empty entry.
    pub const EMPTY: Self =
        Self { page: Self::INVALID, host: 0, gpa: 0, perms: 0, global: false, size_log2: 12 };
}

/// Both arrays.
#[derive(Debug)]
pub struct Tlb {
    /// Data accesses.
    pub data: Box<[TlbEntry; DATA_ENTRIES]>,
    /// Instruction fetches.
    pub fetch: Box<[TlbEntry; FETCH_ENTRIES]>,
    /// What a window on these arrays has to forget.
    pub changes: Changes,
    large: bool,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            data: Box::new([TlbEntry::EMPTY; DATA_ENTRIES]),
            fetch: Box::new([TlbEntry::EMPTY; FETCH_ENTRIES]),
            changes: Changes::default(),
            large: false,
        }
    }
}

impl Tlb {
    /// Index of a virtual address in `data`.
    #[inline(always)]
    pub const fn data_index(va: u64) -> usize {
        (va / PAGE) as usize % DATA_ENTRIES
    }

    /// Index of a virtual address in `fetch`.
    #[inline(always)]
    pub const fn fetch_index(va: u64) -> usize {
        (va / PAGE) as usize % FETCH_ENTRIES
    }

    /// Notes that an entry cut from a large page was filled.
    pub const fn note_large(&mut self) {
        self.large = true;
    }

    fn all(&mut self) -> impl Iterator<Item = &mut TlbEntry> {
        self.data.iter_mut().chain(self.fetch.iter_mut())
    }

    /// Forgets everything.
    pub fn flush_all(&mut self) {
        self.data.fill(TlbEntry::EMPTY);
        self.fetch.fill(TlbEntry::EMPTY);
        self.large = false;
        self.changes.all();
        self.changes.targets();
    }

    /// Forgets what is not global (MOV to CR3).
    pub fn flush_non_global(&mut self) {
        self.all().filter(|e| !e.global).for_each(|e| *e = TlbEntry::EMPTY);
        self.changes.all();
        self.changes.targets();
    }

    /// Forgets the translation of one address, of whatever page size (INVLPG).
    pub fn flush_page(&mut self, va: u64) {
        let page = va & !(PAGE - 1);
        self.changes.page(va);
        self.changes.targets();
        for e in [&mut self.data[Self::data_index(va)], &mut self.fetch[Self::fetch_index(va)]] {
            if e.page == page {
                *e = TlbEntry::EMPTY;
            }
        }
        if self.large {
            self.all()
                .filter(|e| e.size_log2 > 12 && (e.page ^ va) >> e.size_log2 == 0)
                .for_each(|e| *e = TlbEntry::EMPTY);
            self.changes.all();
        }
    }

    /// Dirty marks were taken or code was decoded: every store has to come by the slow path once more.
    pub fn clear_quiet(&mut self) {
        self.data.iter_mut().for_each(|e| e.perms &= !QUIET);
        self.changes.stores();
    }

    /// Likewise for the entries of one physical page.
    pub fn clear_quiet_page(&mut self, gpa: u64) {
        self.data.iter_mut().filter(|e| e.gpa == gpa).for_each(|e| e.perms &= !QUIET);
        self.changes.stores();
    }
}
