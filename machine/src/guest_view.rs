//! Guest RAM as vm-memory and virtio-queue want to see it: the same mapping, with writes reported to
//! [`GuestRam`] so that DMA marks pages dirty and makes decoded code stale.
#![allow(unsafe_code)]
// Reason: vm-memory takes a mapping that it did not make as a raw pointer. Obligation: the pointer and
// length are those of a region of `GuestRam`, and the view keeps that `GuestRam` alive.

use ft_pair_cpu::GuestRam;
use std::sync::Arc;
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// Guest memory for devices that use virtqueues.
pub type GuestView = GuestMemoryMmap<DirtyView>;

/// Reports writes to one region of RAM.
#[derive(Debug, Clone)]
pub struct DirtyView {
    ram: Arc<GuestRam>,
    /// Offset of the region in RAM.
    base: usize,
}

/// Reports writes to a part of a region.
#[derive(Debug, Clone, Copy)]
pub struct DirtySlice<'a> {
    ram: &'a GuestRam,
    base: usize,
}

impl<'a> WithBitmapSlice<'a> for DirtyView {
    type S = DirtySlice<'a>;
}

impl Bitmap for DirtyView {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.ram.mark_written((self.base + offset) as u64, len as u64);
    }

    /// Not known here: the dirty sets are consumed elsewhere.
    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> DirtySlice<'_> {
        DirtySlice { ram: &self.ram, base: self.base + offset }
    }
}

impl WithBitmapSlice<'_> for DirtySlice<'_> {
    type S = Self;
}

impl BitmapSlice for DirtySlice<'_> {}

impl Bitmap for DirtySlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.ram.mark_written((self.base + offset) as u64, len as u64);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { base: self.base + offset, ..*self }
    }
}

/// The view of all of RAM.
///
/// # Panics
/// Never on a `GuestRam`: its regions are page aligned, ascending and do not overlap.
pub fn guest_view(ram: &Arc<GuestRam>) -> GuestView {
    let regions = ram.regions().into_iter().map(|(gpa, len)| {
        let base = ram.offset(gpa).expect("a region of RAM begins in RAM") as usize;
        let dirty = DirtyView { ram: Arc::clone(ram), base };
        let host = ram.host_addr(gpa).expect("a region of RAM begins in RAM");
        // SAFETY: the region is mapped from `host` for `len` bytes, readable and writable, and stays so
        // while the region's bitmap holds its reference to the RAM.
        let mapping = unsafe {
            MmapRegionBuilder::new_with_bitmap(len as usize, dirty)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
                .with_raw_mmap_pointer(host)
                .build()
        }
        .expect("the mapping is page aligned");
        GuestRegionMmap::new(mapping, GuestAddress(gpa)).expect("the region does not wrap around")
    });
    GuestView::from_regions(regions.collect()).expect("regions are sorted and apart")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ft_pair_cpu::ram::{HOLE_END, HOLE_START, PAGE};
    use std::sync::atomic::Ordering::Relaxed;
    use vm_memory::Bytes;

    #[test]
    fn writes_through_the_view_are_noticed() {
        let ram = Arc::new(GuestRam::new(HOLE_START + 4 * PAGE).unwrap());
        let view = guest_view(&ram);
        ram.mark_code(2);
        view.write_slice(b"dma", GuestAddress(3 * PAGE - 1)).unwrap();
        view.store(7u16, GuestAddress(HOLE_END + PAGE), Relaxed).unwrap();
        view.write_obj(9u32, GuestAddress(5 * PAGE)).unwrap();
        let high = ram.page_index(HOLE_END + PAGE).unwrap();
        assert_eq!(ram.take_dirty(), [2, 3, 5, high]);
        assert_eq!(ram.take_stale_code(), [2]);
        let mut seen = [0; 3];
        assert!(ram.read(3 * PAGE - 1, &mut seen));
        assert_eq!(&seen, b"dma");
    }

    #[test]
    fn the_hole_is_not_in_it() {
        let ram = Arc::new(GuestRam::new(HOLE_START + PAGE).unwrap());
        let view = guest_view(&ram);
        assert!(view.write_slice(&[1], GuestAddress(HOLE_START)).is_err());
        drop(ram);
        assert!(view.write_slice(&[1], GuestAddress(HOLE_END)).is_ok(), "the view keeps RAM alive");
    }
}
