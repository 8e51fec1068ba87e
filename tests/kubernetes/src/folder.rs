//! What a cluster has on disk and in cgroups, and what is left of clusters whose process was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::{Context as _, Result};

use crate::cgroup;

/// Whose the folders and cgroups are: this, the number of the process that made them, and when it began.
const PREFIX: &str = "streamfleet-k";
/// What was killed ends within a moment, and may write until then.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// What all pods of a cluster weigh at the processors: as so many threads of whatever else runs here. A node's pods have its
/// processors to themselves elsewhere; here the control plane, the callers and a compiler share them, and a group weighs as one
/// thread of those by default.
const WEIGHT: u32 = 64;

/// A folder, and cgroups of the same name. All of it goes when it is dropped.
pub struct Folder {
    name: String,
    path: PathBuf,
}

impl Folder {
    /// Makes an empty one, after what killed processes have left is removed.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be written.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sweep();
        let process = std::process::id();
        let began = began(process).context("/proc does not know this process")?;
        // Short: sockets are below it, whose paths have 107 bytes.
        let name = format!("{PREFIX}{process}-{began}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().canonicalize()?.join(&name);
        fs::create_dir(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self { name, path })
    }

    /// It.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the cgroup that is the root of all cgroups of a machine, in each hierarchy, and answers where: for
    /// [`Machine::start`](crate::Machine::start). They go with the folder.
    ///
    /// # Errors
    /// When it may not be made.
    pub fn cgroups(&self, machine: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
        let make = |root: PathBuf| {
            let own = cgroup::make(&root, &[&self.name, machine])?;
            cgroup::weigh(&root.join(&self.name), WEIGHT)?;
            Ok((root, own))
        };
        cgroup::hierarchies().into_iter().map(make).collect()
    }

    /// Removes the cgroups of a machine that is off.
    pub(crate) fn clear_cgroups(&self, machine: &str) {
        let deadline = Instant::now() + LAST_WRITES;
        let path = |root: &PathBuf| root.join(&self.name).join(machine);
        while !cgroup::hierarchies().iter().all(|root| cgroup::remove(&path(root)).is_ok()) && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.name, &self.path);
    }
}

/// Removes what clusters have left whose process is no more: one that was killed could not. Their processes, mounts and networks
/// went with it.
pub fn sweep() {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_left(name)).collect()
    };
    let folder = env::temp_dir();
    let roots = cgroup::hierarchies();
    for name in names(&folder).into_iter().chain(roots.iter().flat_map(|root| names(root))) {
        remove(&name, &folder.join(&name));
    }
}

/// Whether this is what a process that is no more has left.
fn is_left(name: &str) -> bool {
    owner(name).is_some_and(|(process, start)| began(process) != Some(start))
}

/// The process that made the folder of this name, and when that began.
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let found = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some(found)
}

/// When a process began, in ticks since the machine did (proc_pid_stat(5)): another of the same number began at another time.
pub fn began(process: u32) -> Option<u64> {
    began_of(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn began_of(stat: &str) -> Option<u64> {
    // The name of the program may have spaces and parentheses in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    // A zombie holds nothing.
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18)?.parse().ok()
}

fn remove(name: &str, path: &Path) {
    let deadline = Instant::now() + LAST_WRITES;
    let mut gone = false;
    while !gone && Instant::now() < deadline {
        let cgroups = cgroup::hierarchies().iter().all(|root| cgroup::remove(&root.join(name)).is_ok());
        let files = match fs::remove_dir_all(path) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        gone = cgroups && files;
        if !gone {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        #[track_caller]
        fn check(name: &str, expected: Option<(u32, u64)>) {
            assert_eq!(owner(name), expected);
        }
        check("streamfleet-k12-345-6", Some((12, 345)));
        check("streamfleet-k12-345", None);
        check("streamfleet-k12-345-6-7", None);
        check("streamfleet-k12-345-x", None);
        check("streamfleet-t12-345-6", None);
    }

    #[test]
    fn when_a_process_began() {
        let stat =
            |state: &str| format!("12 (a) b c) {state} 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2 3");
        assert_eq!(began_of(&stat("S")), Some(9876));
        assert_eq!(began_of(&stat("Z")), None);
        assert!(began(std::process::id()).is_some());
        assert_eq!(began(u32::MAX), None);
    }

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let held = Folder::new().unwrap();
        let left = env::temp_dir().join(format!("{PREFIX}{}-1-0", std::process::id()));
        fs::create_dir_all(left.join("below")).unwrap();
        sweep();
        assert!(held.path().exists() && !left.exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }
}
