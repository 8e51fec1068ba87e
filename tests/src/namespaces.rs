//! Networks of a test's own, on the machine that it runs on: Linux's network namespaces, and cables between them.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

/// Whose they are is in their names: this, and the number of the process that has made them.
const PREFIX: &str = "sft";
/// Where `ip` keeps them.
const FOLDER: &str = "/run/netns";

/// A network with nothing but its loopback interface, until a [`cable`](Self::cable) leads to another. What is started by
/// [`run`](Self::run) is in it. It goes when it is dropped, with its interfaces and with every process that is in it.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes one. What processes that are no more have left behind is removed first.
    ///
    /// # Errors
    /// When `ip` is missing, or may not.
    pub fn new(label: &str) -> Result<Self> {
        static LEFTOVERS: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        LEFTOVERS.call_once(remove_leftovers);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}-{label}", std::process::id());
        ip(&["netns", "add", &name])?;
        let opened = File::open(Path::new(FOLDER).join(&name));
        let file = opened.inspect_err(|_| drop(ip(&["netns", "del", &name])))?;
        let namespace = Self { name, file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `ip` with these arguments in it, and returns what it prints.
    ///
    /// # Errors
    /// What it says.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let arguments: Vec<&str> = ["-n", &self.name].into_iter().chain(arguments.split(' ')).collect();
        ip(&arguments)
    }

    /// Sets a key of `net` (`ipv4/ip_forward`).
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| fs::write(&path, value)).with_context(|| format!("{} in {}", path.display(), self.name))
    }

    /// Does something in it, on a thread of its own: sockets, threads and processes that are made there are in it for good.
    ///
    /// # Panics
    /// When `work` does, or when the thread may not go there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            enter(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A cable to another one. Each end has a name and an address in a network of its own.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cable(&self, end: Plug<'_>, other: &Self, far: Plug<'_>) -> Result<()> {
        self.ip(&format!("link add {} type veth peer name {} netns {}", end.name, far.name, other.name))?;
        self.plug(end)?;
        other.plug(far)
    }

    fn plug(&self, Plug { name, address }: Plug<'_>) -> Result<()> {
        if let Some((address, bits)) = address {
            self.ip(&format!("address add {address}/{bits} dev {name}"))?;
        }
        self.ip(&format!("link set {name} up"))?;
        Ok(())
    }
}

/// One end of a cable.
#[derive(Debug, Clone, Copy)]
pub struct Plug<'a> {
    /// The interface.
    pub name: &'a str,
    /// Its address, and how many bits of it are the network's.
    pub address: Option<(Ipv4Addr, u8)>,
}

impl<'a> Plug<'a> {
    /// An end with an address.
    pub fn at(name: &'a str, address: Ipv4Addr, bits: u8) -> Self {
        Self { name, address: Some((address, bits)) }
    }

    /// An end of a switch.
    pub fn bare(name: &'a str) -> Self {
        Self { name, address: None }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output().context("ip: `make test` installs it")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The processes in it, and then itself. Nothing can be done where that fails, and the next run tries again.
fn remove(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for process in text.split_whitespace() {
            drop(Command::new("kill").args(["-s", "KILL", process]).output());
        }
    }
    drop(ip(&["netns", "del", name]));
}

/// Those of processes that are no more: of runs that were killed.
fn remove_leftovers() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(name) = name.to_str()
            && maker(name).is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
        {
            remove(name);
        }
    }
}

/// The process that has made the one of this name, if a run of these tests has.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.split_once('-')?.0.parse().ok()
}

#[cfg(target_os = "linux")]
fn enter(namespace: &File) -> std::io::Result<()> {
    use std::os::fd::AsFd as _;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

#[cfg(not(target_os = "linux"))]
fn enter(_: &File) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        #[track_caller]
        fn check(name: &str, expected: Option<u32>) {
            assert_eq!(maker(name), expected);
        }
        check("sft-12-3-client", Some(12));
        check("sft-client", None);
        check("sft12-3-client", None);
        check("cni-12-3-x", None);
    }

    #[test]
    fn a_cable_is_the_only_way_and_nothing_is_left() {
        let [one, other] = ["one", "other"].map(|label| Namespace::new(label).unwrap());
        let names = [one.name.clone(), other.name.clone()];
        let [near, far] = [1, 2].map(|n| Ipv4Addr::new(192, 0, 2, n));
        one.cable(Plug::at("eth0", near, 24), &other, Plug::at("eth0", far, 24)).unwrap();
        let hears = other.run(|| UdpSocket::bind((far, 9_999))).unwrap();
        hears.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        one.run(|| UdpSocket::bind((near, 0))?.send_to(b"a", (far, 9_999))).unwrap();
        let mut room = [0; 9];
        let (count, from) = hears.recv_from(&mut room).unwrap();
        assert_eq!((count, from.ip()), (1, near.into()));

        let mut child = other.run(|| Command::new("sleep").arg("1000").spawn()).unwrap();
        drop((one, other));
        assert!(!child.wait().unwrap().success(), "it was killed");
        let left = |name: &String| Path::new(FOLDER).join(name).exists();
        assert!(!names.iter().any(left), "{names:?}");
    }
}
