//! Fixed memory that the kernel and this crate both point into.

use std::alloc::{self, Layout};
use std::ptr::NonNull;

/// As of a transparent huge page, on what this runs on.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

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
}

// SAFETY: it owns plain memory; the pointers that values may hold are dereferenced by the kernel during calls only.
unsafe impl<T: Zeroable> Send for Slab<T> {}

impl<T: Zeroable> Slab<T> {
    /// `len` zeroed values; at least one.
    pub(crate) fn new(len: usize) -> Self {
        let len = len.max(1);
        let layout = Self::layout(len);
        // SAFETY: the layout is not of size zero, because no `Zeroable` is.
        let start = unsafe { alloc::alloc_zeroed(layout) }.cast::<T>();
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(layout) };
        Self { start, len }
    }

    fn layout(len: usize) -> Layout {
        let layout = Layout::array::<T>(len).expect("invariant: slabs are a few MiB at most");
        // What fills large pages begins at one.
        let align = if layout.size() >= LARGE_PAGE { LARGE_PAGE } else { layout.align() };
        layout.align_to(align).expect("invariant: slabs are a few MiB at most")
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
        // SAFETY: allocated in `new` with this layout.
        unsafe { alloc::dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
    }
}

/// Room for one control message with an integer in it, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Control([u8; 32]);

// SAFETY: octets only.
unsafe impl Zeroable for Control {}

impl Control {
    pub(crate) const SIZE: usize = size_of::<Control>();
}
