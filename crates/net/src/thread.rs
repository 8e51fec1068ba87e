//! What a media thread asks of the kernel for itself.

use std::io;
use std::time::Duration;

/// CPU time that the calling thread has used, user and kernel together.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write a timespec to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    if result != 0 {
        // The clock exists on every kernel this crate can run on; a zero is an honest "not known".
        return Duration::ZERO;
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How much later than asked the kernel may wake the calling thread, which by default is 50 µs.
///
/// # Errors
/// The kernel's, where a sandbox forbids `prctl`. Timers then are as late as they were.
pub fn set_timer_slack(slack: Duration) -> io::Result<()> {
    // 0 would mean "back to the default".
    let nanoseconds = libc::c_ulong::try_from(slack.as_nanos()).unwrap_or(libc::c_ulong::MAX).max(1);
    // SAFETY: PR_SET_TIMERSLACK reads one unsigned long and no memory.
    match unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanoseconds) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the calling thread do its work in batches (`SCHED_BATCH`, sched(7)): woken, it waits until whoever runs on its core has
/// nothing more to do or has had its turn, and so finds all that it was given meanwhile.
///
/// # Errors
/// The kernel's, where a sandbox forbids it. The thread then interrupts others as before.
pub fn work_in_batches() -> io::Result<()> {
    // The one priority that there is outside of the real-time policies.
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and `parameters` is live.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the process's limit of open descriptors as far as it may go by itself; returns what it then is.
///
/// # Errors
/// The kernel's, where a sandbox forbids it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place to write a limit to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: a live limit.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let before = thread_cpu_time();
        let mut sum = 0u64;
        while thread_cpu_time() - before < Duration::from_millis(1) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
    }

    #[test]
    fn a_thread_works_in_batches_alone() {
        // SAFETY: it touches no memory.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let of_other = std::thread::spawn(move || work_in_batches().map(|()| policy()));
        assert_eq!(of_other.join().unwrap().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }

    #[test]
    fn the_descriptor_limit_only_rises() {
        let first = raise_descriptor_limit().unwrap();
        assert!(first >= 256, "{first}");
        assert_eq!(raise_descriptor_limit().unwrap(), first);
    }

    #[test]
    fn timer_slack_is_what_was_set() {
        set_timer_slack(Duration::from_micros(3)).unwrap();
        // SAFETY: PR_GET_TIMERSLACK touches no memory.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }, 3_000);
        set_timer_slack(Duration::ZERO).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }, 1);
    }
}
