//! What a thread asks of the allocator, for tests of what does not allocate.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: streamfleet_counting::Counting = streamfleet_counting::Counting;
//!
//! let before = streamfleet_counting::calls();
//! let _boxed = std::hint::black_box(Box::new(5));
//! assert_eq!(streamfleet_counting::calls() - before, 1);
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting what each thread asks of it.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// How often this thread has asked for memory, or for more of it.
#[must_use]
pub fn calls() -> u64 {
    CALLS.get()
}

/// Octets that this thread has asked for, less those that it has given back: those of other threads, too, if it frees them.
#[must_use]
pub fn held() -> i64 {
    HELD.get()
}

fn note(calls: u64, octets: i64) {
    // The counters are gone while a thread ends; nothing is measured then.
    let _ = CALLS.try_with(|count| count.set(count.get() + calls));
    let _ = HELD.try_with(|count| count.set(count.get() + octets));
}

// SAFETY: everything is passed to the system's allocator as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
