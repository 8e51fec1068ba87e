//! What the C library's allocator knows of itself.

/// Bytes that the process has allocated and not given back, over all arenas. `None` where the C library does not tell: only
/// glibc does, from version 2.33 on.
///
/// Free memory that a thread keeps for its own next allocations counts as used, which is at most a quarter of a megabyte for
/// each thread. The call takes the lock of one arena after the other and walks its free lists: it is for a scrape, not for a
/// packet.
#[must_use]
pub fn heap_in_use() -> Option<u64> {
    glibc::heap_in_use()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::sync::OnceLock;

    type Mallinfo2 = unsafe extern "C" fn() -> libc::mallinfo2;

    pub(super) fn heap_in_use() -> Option<u64> {
        static FOUND: OnceLock<Option<Mallinfo2>> = OnceLock::new();
        let mallinfo2 = (*FOUND.get_or_init(find))?;
        // SAFETY: mallinfo2(3) has no preconditions and is safe to call from any thread.
        let info = unsafe { mallinfo2() };
        u64::try_from(info.uordblks.saturating_add(info.hblkhd)).ok()
    }

    // Looked up when it is first asked for, not linked: with an older glibc the program has to start all the same.
    fn find() -> Option<Mallinfo2> {
        // SAFETY: the name ends with a zero byte.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
        // SAFETY: what glibc exports under this name is a function of this type; a null pointer becomes `None`.
        unsafe { std::mem::transmute::<*mut libc::c_void, Option<Mallinfo2>>(address) }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub(super) fn heap_in_use() -> Option<u64> {
        None
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::heap_in_use;

    /// Far above what the other tests of this process allocate meanwhile.
    const MUCH: u64 = 64 << 20;

    #[track_caller]
    fn check<T>(allocate: impl FnOnce() -> T) {
        let before = heap_in_use().expect("this glibc tells");
        let held = std::hint::black_box(allocate());
        let during = heap_in_use().expect("this glibc tells");
        drop(held);
        let after = heap_in_use().expect("this glibc tells");
        assert!(during >= before + MUCH, "{before}, then {during}");
        assert!(after <= during - MUCH + MUCH / 8, "{during}, then {after}");
    }

    #[test]
    fn both_kinds_of_memory_count() {
        // One large block comes from a mapping of its own, many small ones from an arena.
        check(|| vec![1_u8; MUCH as usize]);
        check(|| (0..MUCH / 1024).map(|_| vec![1_u8; 1024]).collect::<Vec<_>>());
    }
}
