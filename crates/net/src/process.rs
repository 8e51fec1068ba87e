//! What processes that belong together ask of the kernel.

use std::io;

/// Has the kernel kill this process at once when the thread that has started it is gone, however that ends. A parent that is
/// gone already is told as an error: `parent` is its process id.
///
/// # Errors
/// `NotFound` without that parent; the kernel's, where a sandbox forbids `prctl`.
pub fn end_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG reads one unsigned long and no memory.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // It may have gone before it was asked for.
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Asks a process to end (SIGTERM). `process` has to be a child that has not been waited for: any other number may be another
/// process's by now.
///
/// # Errors
/// The kernel's, where there is none.
pub fn terminate(process: u32) -> io::Result<()> {
    send(process, libc::SIGTERM)
}

/// Likewise asks it to hurry (SIGINT).
///
/// # Errors
/// The kernel's, where there is none.
pub fn interrupt(process: u32) -> io::Result<()> {
    send(process, libc::SIGINT)
}

fn send(process: u32, signal: libc::c_int) -> io::Result<()> {
    // 0 and negative numbers are groups of processes.
    let process =
        libc::pid_t::try_from(process).ok().filter(|process| *process > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill() touches no memory of ours.
    match unsafe { libc::kill(process, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_asked_to_end() {
        let check = |ask: fn(u32) -> io::Result<()>, expected| {
            let mut command = Command::new("sleep");
            // Whoever was started in the background ignores SIGINT, and so would what it starts.
            let heeds = || {
                // SAFETY: signal() touches no memory of ours.
                unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
                Ok(())
            };
            // SAFETY: what is called between fork and exec may be called there (signal-safety(7)).
            unsafe { command.pre_exec(heeds) };
            let mut child = command.arg("60").spawn().unwrap();
            ask(child.id()).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(expected));
        };
        check(terminate, libc::SIGTERM);
        check(interrupt, libc::SIGINT);
    }

    #[test]
    fn a_group_is_no_process() {
        for process in [0, u32::MAX] {
            assert_eq!(terminate(process).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
