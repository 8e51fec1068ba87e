//! Where a child process puts its temporary files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a process that was killed leaves running, such as a browser, ends within a moment and writes until then.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// An empty folder that goes with its owner, whatever the process that had it as its `TMPDIR` has left there.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Short: browsers make sockets below it, whose paths have 107 bytes.
        let name = format!("streamfleet-t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // Left over from another process of the same number.
        drop(fs::remove_dir_all(&path));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_WRITES;
        while fs::remove_dir_all(&self.0).is_err() && self.0.exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}
