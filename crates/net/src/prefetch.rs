//! Memory that is read at random: asked for before it is needed, and in large pages.

use std::mem::MaybeUninit;

use crate::slab::{LARGE_PAGE, Pages, Slab};

/// Octets of a cache line, on what this runs on.
const LINE: usize = 64;

/// Asks for a value's memory without waiting for it. Where the processor has no such word that can be said, nothing happens.
#[inline]
pub fn prefetch<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    for line in 0..size_of::<T>().div_ceil(LINE) {
        fetch(start.wrapping_add(line * LINE));
    }
}

/// Asks for memory in large pages (transparent huge pages, 2 MiB), so that the processor finds it without looking for where it is. To
/// be said before it is used. Where the kernel does not do that, nothing happens; and neither to what does not fill one.
pub fn prefer_large_pages<T>(memory: &[MaybeUninit<T>]) {
    let start = memory.as_ptr().addr();
    let end = start + size_of_val(memory);
    // Those that lie in it as a whole.
    let start = start.next_multiple_of(LARGE_PAGE);
    let len = end.saturating_sub(start) / LARGE_PAGE * LARGE_PAGE;
    if len > 0 {
        // SAFETY: whole pages of live memory, of whose contents the advice changes nothing.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_HUGEPAGE) };
    }
}

/// Words that are read at random, all 0 at first.
pub struct Words {
    words: Slab<u64>,
    len: usize,
}

impl Words {
    /// At least one of them.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { words: Slab::new(len, Pages::Large), len: len.max(1) }
    }

    /// How many there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is one at least")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// # Panics
    /// If there is none of this number.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        *self.words.get(index)
    }

    /// # Panics
    /// If there is none of this number.
    pub fn set(&mut self, index: usize, word: u64) {
        *self.words.get_mut(index) = word;
    }

    /// [`prefetch`] of one of them.
    ///
    /// # Panics
    /// If there is none of this number.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        prefetch(self.words.get(index));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; any address will do.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch(_: *const i8) {}
