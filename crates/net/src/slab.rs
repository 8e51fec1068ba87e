//! Fixed memory that the kernel and this crate both point into.

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};

/// As of a transparent huge page, on what this runs on.
pub(crate) const LARGE_PAGE: usize = 2 << 20;
/// What has so many octets is asked of the kernel itself: an allocator would write its zeros, and so make memory of all of it.
const MAPPED: usize = 64 << 10;

/// What kind of pages memory is to have, where it is much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The smallest: of what is seldom used as a whole no more becomes memory than is used.
    Small,
    /// Large ones, for what is read at random: the processor finds it without looking for where it is. Where there are none, and
    /// for what does not fill one, small ones.
    Large,
}

/// Marks types for which all-zero memory is a value and dropping does nothing.
///
/// # Safety
/// Both must hold.
pub(crate) unsafe trait Zeroable: Copy {}

// SAFETY: an integer.
unsafe impl Zeroable for u8 {}
// SAFETY: an integer.
unsafe impl Zeroable for u64 {}
// SAFETY: integers only.
unsafe impl Zeroable for crate::address::RawAddress {}
// SAFETY: pointers, which may be null, and integers.
unsafe impl Zeroable for libc::iovec {}
// SAFETY: pointers, which may be null, and integers.
unsafe impl Zeroable for libc::mmsghdr {}

/// A fixed array on the heap that is only ever reached through its raw pointer.
///
/// Message headers keep pointers into buffers between calls. A `Box` or `Vec` claims its memory for itself whenever it is
/// borrowed mutably, which makes such pointers stale to the compiler; this does not.
pub(crate) struct Slab<T: Zeroable> {
    start: NonNull<T>,
    len: usize,
    origin: Origin,
}

/// Where a slab's memory is from.
#[derive(Debug)]
enum Origin {
    Allocator,
    /// Kept for as long as the slab is.
    Kernel {
        _mapping: Mapping,
    },
}

// SAFETY: it owns plain memory; the pointers that values may hold are dereferenced by the kernel during calls only.
unsafe impl<T: Zeroable> Send for Slab<T> {}

impl<T: Zeroable> Slab<T> {
    /// `len` zeroed values; at least one. Where they are many, address space, which becomes memory as it is used.
    pub(crate) fn new(len: usize, pages: Pages) -> Self {
        let len = len.max(1);
        let layout = Self::layout(len);
        let memory = if layout.size() < MAPPED {
            // SAFETY: the layout is not of size zero, because no `Zeroable` is.
            NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).map(|start| (Origin::Allocator, start))
        } else {
            Mapping::new(layout.size(), pages).map(|(_mapping, start)| (Origin::Kernel { _mapping }, start))
        };
        let Some((origin, start)) = memory else { alloc::handle_alloc_error(layout) };
        Self { start: start.cast(), len, origin }
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<T>(len).expect("invariant: slabs are a few hundred MiB at most")
    }

    /// A pointer to value `index`, valid as long as the slab.
    pub(crate) fn pointer(&self, index: usize) -> *mut T {
        assert!(index < self.len);
        // SAFETY: within the allocation.
        unsafe { self.start.as_ptr().add(index) }
    }

    pub(crate) fn get(&self, index: usize) -> &T {
        // SAFETY: within the allocation, which holds values; shared with nothing that writes while `self` is borrowed.
        unsafe { &*self.pointer(index) }
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut T {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { &mut *self.pointer(index) }
    }

    /// `len` values from `start` on.
    pub(crate) fn slice(&self, start: usize, len: usize) -> &[T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the allocation, which holds values; shared with nothing that writes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(start), len) }
    }

    /// The same, to be changed.
    pub(crate) fn slice_mut(&mut self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the allocation, which holds values, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(start), len) }
    }
}

impl<T: Zeroable> Drop for Slab<T> {
    fn drop(&mut self) {
        if matches!(self.origin, Origin::Allocator) {
            // SAFETY: allocated in `new` with this layout.
            unsafe { alloc::dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
        }
    }
}

/// So many octets of the kernel's, all zero.
#[derive(Debug)]
struct Mapping {
    base: NonNull<libc::c_void>,
    octets: usize,
}

impl Mapping {
    /// Its address space, and where in it `octets` begin.
    fn new(octets: usize, pages: Pages) -> Option<(Self, NonNull<u8>)> {
        let (spare, advice) = match pages {
            Pages::Small => (0, libc::MADV_NOHUGEPAGE),
            // What fills large pages begins at one; what lies before it stays address space.
            Pages::Large if octets >= LARGE_PAGE => (LARGE_PAGE, libc::MADV_HUGEPAGE),
            Pages::Large => (0, libc::MADV_NORMAL),
        };
        let all = octets.checked_add(spare)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { libc::mmap(ptr::null_mut(), all, access, kind, -1, 0) };
        let base = if base == libc::MAP_FAILED { None } else { NonNull::new(base) }?;
        let before = if spare > 0 { base.addr().get().next_multiple_of(LARGE_PAGE) - base.addr().get() } else { 0 };
        // SAFETY: at most `spare` octets, which were asked for beside `octets`.
        let start = unsafe { base.byte_add(before) };
        // To be said before it is used. A kernel without large pages does not know the words, and gives small ones.
        // SAFETY: of that mapping, which has no contents yet that the advice could change.
        unsafe { libc::madvise(start.as_ptr(), octets, advice) };
        Some((Self { base, octets: all }, start.cast()))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing points into it any more.
        unsafe { libc::munmap(self.base.as_ptr(), self.octets) };
    }
}

/// Room for two control messages, one with an integer in it and one with an address of this machine, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Control([u8; 64]);

// SAFETY: octets only.
unsafe impl Zeroable for Control {}

impl Control {
    pub(crate) const SIZE: usize = size_of::<Control>();

    pub(crate) const fn zeroed() -> Self {
        Self([0; 64])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the small pages of a slab are memory by now.
    fn resident(slab: &Slab<u8>) -> usize {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let mut pages = vec![0_u8; slab.len.div_ceil(page)];
        // SAFETY: whole pages of the slab's mapping, and a place for each.
        let told = unsafe { libc::mincore(slab.start.as_ptr().cast(), slab.len, pages.as_mut_ptr().cast()) };
        assert_eq!(told, 0, "{}", std::io::Error::last_os_error());
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn what_is_not_used_is_no_memory() {
        for pages in [Pages::Small, Pages::Large] {
            let mut slab = Slab::<u8>::new(2 * LARGE_PAGE, pages);
            assert_eq!(resident(&slab), 0, "{pages:?}");
            *slab.get_mut(LARGE_PAGE + 5) = 1;
            // A kernel without large pages gives a small one.
            let (used, all) = (resident(&slab), slab.len / 4096);
            assert!(
                (1..=if pages == Pages::Small { 1 } else { all / 2 }).contains(&used),
                "{pages:?}: {used} of {all}"
            );
            assert_eq!((*slab.get(LARGE_PAGE + 5), *slab.get(0)), (1, 0));
        }
    }

    #[test]
    fn what_fills_large_pages_begins_at_one() {
        for octets in [1, MAPPED - 1, MAPPED, LARGE_PAGE - 1, LARGE_PAGE, 3 * LARGE_PAGE + 1] {
            let mut slab = Slab::<u8>::new(octets, Pages::Large);
            let start = slab.pointer(0).addr();
            assert!(octets < LARGE_PAGE || start.is_multiple_of(LARGE_PAGE), "{octets}");
            slab.slice_mut(0, octets).fill(7);
            assert!(slab.slice(0, octets).iter().all(|octet| *octet == 7), "{octets}");
        }
    }
}
