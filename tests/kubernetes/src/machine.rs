//! Machines: namespaces of network, processes and mounts, held by one process that everything in them dies with.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// How the first process of a machine begins. Its arguments are hierarchies of cgroups, each with the cgroup that is the machine's:
/// one that is in there when a namespace of cgroups is made has it as that namespace's root. What follows is [`THEN`].
const BEGIN: &str = r#"mount --make-rprivate /
for own; do echo $$ >"${own#*=}/cgroup.procs"; done
exec unshare --cgroup sh -ec "$0" sh "$@""#;

/// What the first process does next, and how it stays: it reads until its standard input ends, which is when whoever started the
/// machine is gone, however it went, and the kernel then kills whatever else runs there. SIGCHLD is ignored: orphans are reaped.
///
/// `/proc` must show the processes of the machine; `/run`, `/var/log`, `/var/lib/cni` and `/var/lib/kubelet` are where containerd, its
/// shims, CNI and the kubelet put things at fixed paths: two kubelets that begin at once and share the last one's `device-plugins` take
/// each other's socket, and one of them gives up. The mounts are seen by this machine alone, and go with it. With cgroups of version 2, one
/// that has others with controllers below it may have no processes.
const THEN: &str = r#"for own; do mount --bind "${own#*=}" "${own%%=*}"; done
if [ -e /sys/fs/cgroup/cgroup.controllers ] && [ $# != 0 ]; then
    mkdir -p /sys/fs/cgroup/init
    echo 0 >/sys/fs/cgroup/init/cgroup.procs
fi
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/netns /run/lock
mkdir -p /var/lib/cni /var/lib/kubelet
for own in /var/lib/cni /var/lib/kubelet /var/log; do mount -t tmpfs -o mode=755 tmpfs "$own"; done
ip link set lo up
echo ready
exec env --ignore-signal=CHLD cat"#;

/// How long the kernel may take to kill all of a machine.
const ENDS: Duration = Duration::from_secs(3);

/// One machine. It is switched off when it is dropped: its processes are killed, its mounts and its network go.
pub struct Machine {
    place: Place,
    init: Mutex<Init>,
}

struct Init {
    child: Child,
    /// Held for as long as the machine is to run.
    _stdin: ChildStdin,
}

/// Where processes and sockets of a machine are made. It outlives the machine only as an empty network.
#[derive(Clone)]
pub struct Place(Arc<Doors>);

struct Doors {
    label: String,
    init: u32,
    network: File,
    mounts: File,
    processes: File,
    cgroups: File,
}

impl Machine {
    /// Switches a machine on that has only its loopback interface. `cgroups` are the ones that are all it has, by the root of their
    /// hierarchy ([`Folder::cgroups`](crate::Folder::cgroups)); without them it has the host's.
    ///
    /// # Errors
    /// When this process may not, or `ip` is missing.
    pub fn start(label: &str, cgroups: &[(PathBuf, PathBuf)]) -> Result<Self> {
        let mut child = thread::scope(|scope| {
            let made = scope.spawn(|| -> Result<Child> {
                let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWPID;
                // SAFETY: no descriptors are unshared (`UnshareFlags::FILES`), and the thread ends right after.
                unsafe { unshare_unsafe(flags) }.context("namespaces: the tests run as root")?;
                let mut command = Command::new("sh");
                command.args(["-ec", BEGIN, THEN]).current_dir("/");
                command.args(cgroups.iter().map(|(root, own)| format!("{}={}", root.display(), own.display())));
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                command.stderr(Stdio::piped()).spawn().context("sh")
            });
            made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let stdin = child.stdin.take().context("no stdin")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        if line.trim() != "ready" {
            drop(stdin);
            let output = child.wait_with_output()?;
            bail!("machine {label}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let place = Place::of(label, child.id())?;
        Ok(Self { place, init: Mutex::new(Init { child, _stdin: stdin }) })
    }

    /// Where its processes are made.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A cable to another machine.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cable(&self, end: &Plug<'_>, other: &Self, far: &Plug<'_>) -> Result<()> {
        // Hardware addresses are given: neighbours of a machine that comes back know it at once.
        let hardware =
            |plug: &Plug<'_>| plug.hardware().map(|address| format!(" address {address}")).unwrap_or_default();
        let (near, away, peer) = (hardware(end), hardware(far), other.place.0.init);
        self.place.ip(&format!("link add {}{near} type veth peer name {}{away} netns {peer}", end.name, far.name))?;
        end.plug(&self.place)?;
        far.plug(&other.place)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let Init { child, .. } = self.init.get_mut();
        // From outside, SIGKILL reaches a first process too, and the kernel kills all others before that is gone.
        if child.kill().is_err() {
            return;
        }
        let deadline = Instant::now() + ENDS;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Somebody holds one of its processes and has not yet waited for it. This process reaps the first one when it ends.
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// One end of a cable.
#[derive(Debug, Clone, Copy)]
pub struct Plug<'a> {
    /// The interface.
    pub name: &'a str,
    /// Its address in a network of 24 bits; none at the port of a switch.
    pub address: Option<Ipv4Addr>,
}

impl Plug<'_> {
    fn hardware(&self) -> Option<String> {
        let [a, b, c, d] = self.address?.octets();
        Some(format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
    }

    fn plug(&self, place: &Place) -> Result<()> {
        if let Some(address) = self.address {
            place.ip(&format!("address add {address}/24 dev {}", self.name))?;
        }
        place.ip(&format!("link set {} up", self.name))?;
        Ok(())
    }
}

impl Place {
    /// The machine whose first process this is.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(label: &str, init: u32) -> Result<Self> {
        let door = |kind: &str| {
            File::open(format!("/proc/{init}/ns/{kind}")).with_context(|| format!("machine {label}: {kind}"))
        };
        let (network, mounts, processes, cgroups) = (door("net")?, door("mnt")?, door("pid")?, door("cgroup")?);
        Ok(Self(Arc::new(Doors { label: label.to_owned(), init, network, mounts, processes, cgroups })))
    }

    /// Its first process.
    pub fn init(&self) -> u32 {
        self.0.init
    }

    /// What it is called.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Starts processes there, on a thread of its own, which may have no others: the kernel allows no threads to one whose children
    /// have other numbers.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside(Doors::enter, work)
    }

    /// Does something in its network, on a thread of its own: processes, threads and sockets that are made by `work` are in it for
    /// good. They have the host's files, and do not end with the machine.
    ///
    /// # Panics
    /// When `work` does, or when the thread may not go there.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside(Doors::enter_network, work)
    }

    fn inside<T: Send>(&self, enter: fn(&Doors) -> io::Result<()>, work: impl FnOnce() -> T + Send) -> T {
        let within = || {
            enter(&self.0).unwrap_or_else(|error| panic!("machine {}: {error}", self.0.label));
            work()
        };
        thread::scope(|scope| scope.spawn(within).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip` in its network, and returns what it prints.
    ///
    /// # Errors
    /// What it says.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(arguments.split(' '));
        text(self.in_network(|| command.output()), &command).with_context(|| self.0.label.clone())
    }

    /// Sets a key of `net` (`ipv4/ip_forward`).
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.in_network(|| fs::write(&path, value)).with_context(|| format!("{} of {}", path.display(), self.0.label))
    }

    /// Starts a program there. It dies with the machine.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let here = env::current_dir()?;
        // A thread in other mounts is at their root.
        command.current_dir(here);
        self.run(|| command.spawn()).with_context(|| format!("{command:?} on {}", self.0.label))
    }

    /// Runs a program there to its end, and returns what it prints.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        command.current_dir(env::current_dir()?);
        text(self.run(|| command.output()), command).with_context(|| format!("on {}", self.0.label))
    }

    /// A connection from there.
    ///
    /// # Errors
    /// When nobody takes it in time.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        self.in_network(|| TcpStream::connect_timeout(&to, limit))
    }
}

impl Doors {
    fn enter(&self) -> io::Result<()> {
        self.enter_network()?;
        // SAFETY: no descriptors are unshared (`UnshareFlags::FILES`): only root and working directory become this thread's own,
        // without which it may not go to other mounts.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        move_into_link_name_space(self.cgroups.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
        // For the children of this thread; it stays where it is itself.
        Ok(move_into_link_name_space(self.processes.as_fd(), Some(LinkNameSpaceType::ProcessID))?)
    }

    fn enter_network(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// What a program has printed, if it says that all went well.
pub(crate) fn text(output: io::Result<Output>, command: &Command) -> Result<String> {
    let output = output.with_context(|| format!("{command:?}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}\n{}",
        output.status,
        said(&output.stderr),
        said(&output.stdout)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_a_machine_ends_with_it() {
        let machine = Machine::start("test", &[]).unwrap();
        let mut child = machine.place().spawn(Command::new("sh").args(["-c", "sleep 1000 & sleep 1001"])).unwrap();
        let seen = machine.place().output(Command::new("sh").args(["-c", "echo /proc/[0-9]*"])).unwrap();
        assert!((2..10).contains(&seen.split_whitespace().count()), "its own processes and no others are seen: {seen}");
        let waits = thread::spawn(move || child.wait().unwrap());
        drop(machine);
        assert!(!waits.join().unwrap().success(), "it was killed");
    }

    #[test]
    fn a_cable_is_the_only_way() {
        let [one, other] = ["one", "other"].map(|label| Machine::start(label, &[]).unwrap());
        let [near, far] = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let listens = other.place().in_network(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9_999))).unwrap();
        let connect = || one.place().connect(SocketAddr::from((far, 9_999)), Duration::from_secs(5));
        assert!(connect().is_err());
        let plug = |address| Plug { name: "eth0", address: Some(address) };
        one.cable(&plug(near), &other, &plug(far)).unwrap();
        let stream = connect().unwrap();
        assert_eq!(listens.accept().unwrap().1, stream.local_addr().unwrap());
        assert_eq!(stream.local_addr().unwrap().ip(), near);
    }
}
