//! A folder that goes with its process, also with one that was killed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the names begin with.
const PREFIX: &str = "streamfleet-demo-";
/// The file that a living process has locked. The system lets go of it however the process ends, and no process number has to
/// be believed, which may be another's by now, or another container's.
const LOCK: &str = "lock";
/// Folders removed at one start: nobody has killed more since the last one, and a start is not to take long.
const SWEPT_AT_ONCE: usize = 64;

/// A folder of this process's own; removed with what is in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in `parent`, and removes those there of processes that are gone.
    ///
    /// # Errors
    /// Of the file system. Nobody else's folder is used.
    pub(crate) fn new(parent: &Path) -> io::Result<Self> {
        let unique = format!("{}-{:016x}", std::process::id(), rand::random::<u64>());
        // It gets its name when it is locked: nobody takes it for abandoned in between.
        let unnamed = parent.join(format!(".{PREFIX}{unique}"));
        std::fs::create_dir(&unnamed)?;
        let lock = File::create(unnamed.join(LOCK))?;
        lock.lock()?;
        let path = parent.join(format!("{PREFIX}{unique}"));
        std::fs::rename(&unnamed, &path)?;
        sweep(parent, path.metadata()?.uid());
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is for the next process, or the system's to clean.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// Removes what killed processes of this user have left. What cannot be looked at is somebody else's.
fn sweep(parent: &Path, owner: u32) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let abandoned = entries.filter_map(Result::ok).filter(|entry| {
        entry.file_name().to_string_lossy().starts_with(PREFIX)
            // Not of what a link leads to.
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == owner)
            && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
    });
    for entry in abandoned.take(SWEPT_AT_ONCE) {
        drop(std::fs::remove_dir_all(entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(parent: &Path) -> BTreeSet<String> {
        std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_a_killed_process_leaves_goes_with_the_next_start() {
        let parent = std::env::temp_dir().join(format!("streamfleet-scratch-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&parent).unwrap();
        let mut living = Scratch::new(&parent).unwrap();
        std::fs::write(living.path().join("melody.wav"), "la").unwrap();
        // A process that was killed has removed nothing, and holds no lock.
        let killed = Scratch::new(&parent).unwrap();
        let left = killed.path().to_owned();
        let Scratch { _lock: lock, .. } = &killed;
        lock.unlock().unwrap();
        std::mem::forget(killed);
        for name in ["streamfleet-other", &format!("{PREFIX}without-a-lock")] {
            std::fs::create_dir(parent.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(&left, parent.join(format!("{PREFIX}link"))).unwrap();

        let next = Scratch::new(&parent).unwrap();
        assert!(!left.exists());
        assert!(living.path().join("melody.wav").exists(), "one that lives keeps its own");
        let own = |scratch: &Scratch| scratch.path().file_name().unwrap().to_str().unwrap().to_owned();
        let others =
            ["streamfleet-other", "streamfleet-demo-without-a-lock", "streamfleet-demo-link"].map(str::to_owned);
        assert_eq!(
            names(&parent),
            BTreeSet::from(others.clone()).into_iter().chain([own(&living), own(&next)]).collect()
        );
        drop(next);
        living = Scratch::new(&parent).unwrap();
        drop(living);
        assert_eq!(names(&parent), BTreeSet::from(others));
        std::fs::remove_dir_all(&parent).unwrap();
    }
}
