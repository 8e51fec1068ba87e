//! Cgroups of either version, as a machine has its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where cgroups are, in either version.
const MOUNTED: &str = "/sys/fs/cgroup";
/// Where processes go that are in the way.
const ASIDE: &str = "streamfleet-aside";

/// The roots of all hierarchies: one with version 2, one for each controller with version 1.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(MOUNTED);
    if is_second(root) {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    // Some have a second name, which is a link.
    let own = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    own.filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Makes a cgroup below a root, with all controllers that there are, and answers its path.
pub(crate) fn make(root: &Path, names: &[&str]) -> Result<PathBuf> {
    let mut path = root.to_owned();
    for name in names {
        if is_second(&path) {
            enable(&path).with_context(|| format!("controllers of {}", path.display()))?;
        }
        let above = path.clone();
        path.push(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).context(path.display().to_string());
            }
            _ => {}
        }
        // Version 1 lets no process into a set of no cores.
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| !is_second(&above) && above.join(file).exists())
        {
            fs::write(path.join(file), fs::read(above.join(file))?)?;
        }
    }
    Ok(path)
}

/// Gives a cgroup the weight of so many threads beside it, where its hierarchy is the one of processors.
pub(crate) fn weigh(path: &Path, threads: u32) -> io::Result<()> {
    for (file, one) in [("cpu.weight", 100), ("cpu.shares", 1024)] {
        let file = path.join(file);
        if file.exists() {
            fs::write(file, (threads * one).to_string())?;
        }
    }
    Ok(())
}

/// A cgroup goes when those below it are gone; their files go by themselves.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path())?;
    }
    fs::remove_dir(path)
}

fn is_second(path: &Path) -> bool {
    path.join("cgroup.controllers").exists()
}

/// Lets the cgroups below have all controllers (version 2).
fn enable(path: &Path) -> io::Result<()> {
    let all = fs::read_to_string(path.join("cgroup.controllers"))?;
    let wanted: Vec<String> = all.split_whitespace().map(|controller| format!("+{controller}")).collect();
    let write = || fs::write(path.join("cgroup.subtree_control"), wanted.join(" "));
    match write() {
        // Only the root of a whole machine may have processes beside cgroups with controllers: in a container they are moved down.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let aside = path.join(ASIDE);
            fs::create_dir_all(&aside)?;
            for process in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
                // One that has ended meanwhile is in nobody's way.
                drop(fs::write(aside.join("cgroup.procs"), process));
            }
            write()
        }
        result => result,
    }
}
