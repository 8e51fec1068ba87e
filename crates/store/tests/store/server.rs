//! Redis processes, started on loopback with a free port and a directory of their own, and killed when dropped.

use std::fs::{self, File, OpenOptions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use streamfleet_store::Address;

/// A directory that goes with its owner.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("streamfleet-store-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// By how much the clocks of some servers are ahead.
pub(crate) struct Clock {
    ahead: AtomicI64,
    file: File,
    directory: Directory,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        let path = directory.path().join("clock");
        fs::write(&path, 0_i64.to_ne_bytes()).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        Self { ahead: AtomicI64::new(0), file, directory }
    }

    pub(crate) fn forward(&self, span: Duration) {
        let micros = i64::try_from(span.as_micros()).unwrap();
        let ahead = self.ahead.fetch_add(micros, Ordering::SeqCst) + micros;
        self.file.write_all_at(&ahead.to_ne_bytes(), 0).unwrap();
    }

    fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", shim()).env("REDIS_CLOCK", self.directory.path().join("clock"));
    }
}

/// `clock.c`, compiled once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        // Where it is part of a library's own tests there is no such directory.
        let directory = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        // Another run may be loading the one that is there: it is replaced whole.
        let (path, fresh) = (directory.join("clock.so"), directory.join(format!("clock-{}.so", std::process::id())));
        let source = directory.join(format!("clock-{}.c", std::process::id()));
        fs::write(&source, include_str!("clock.c")).unwrap();
        let made =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&fresh).arg(&source).status().unwrap();
        assert!(made.success(), "clock.c does not compile");
        fs::remove_file(source).unwrap();
        fs::rename(&fresh, &path).unwrap();
        path
    })
}

/// A port that nobody uses, and whose companion for a cluster's bus is free too.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(21_000 + (std::process::id() * 37 + step) % 9_000).unwrap();
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// A server of Redis.
pub(crate) struct Server {
    pub(crate) port: u16,
    program: &'static str,
    arguments: Vec<String>,
    child: Option<Child>,
    directory: Directory,
}

impl Server {
    /// Starts a node. `arguments` come after those that every node has.
    pub(crate) fn start(clock: Option<&Clock>, port: u16, arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let mut all: Vec<String> =
            ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"].map(str::to_owned).to_vec();
        all.push(directory.path().display().to_string());
        // With TLS the plain port is off, and the arguments say so.
        if !arguments.contains(&"--tls-port") {
            all.extend(["--port".to_owned(), port.to_string()]);
        }
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut server = Self { port, program: "redis-server", arguments: all, child: None, directory };
        server.launch(clock);
        server
    }

    /// Starts a Sentinel with a configuration, which it rewrites.
    pub(crate) fn sentinel(port: u16, configuration: &str) -> Self {
        let directory = Directory::new();
        let path = directory.path().join("sentinel.conf");
        fs::write(&path, format!("port {port}\nbind 127.0.0.1\ndir {}\n{configuration}", directory.path().display()))
            .unwrap();
        let arguments = vec![path.display().to_string()];
        let mut server = Self { port, program: "redis-sentinel", arguments, child: None, directory };
        server.launch(None);
        server
    }

    fn launch(&mut self, clock: Option<&Clock>) {
        let log = File::create(self.directory.path().join("log")).unwrap();
        let mut command = Command::new(self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(clock) = clock {
            clock.apply(&mut command);
        }
        self.child = Some(command.spawn().expect("redis-server and redis-sentinel are installed"));
        let log = self.directory.path().join("log");
        until("the server listens", || {
            let there = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            if !there && self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                panic!("{}: {}", self.program, fs::read_to_string(&log).unwrap());
            }
            there
        });
    }

    pub(crate) fn address(&self) -> Address {
        Address { host: "127.0.0.1".to_owned(), port: self.port }
    }

    /// Kills it as a crash would; what it knew is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, empty, on the same port.
    pub(crate) fn restart(&mut self, clock: Option<&Clock>) {
        self.kill();
        self.launch(clock);
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// One command, as an administrator.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
