//! A real TURN server, coturn, on the loopback interface.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::redis::free_port;
use crate::scratch::Scratch;

/// A server that does not listen within this is broken, however busy the machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// For a line to get from the server to its log.
const LOG_LIMIT: Duration = Duration::from_secs(10);
/// Its relayed addresses, below the ports that the system gives to whoever asks for any.
const RELAYED: (&str, &str) = ("28000", "31999");

/// How a client talks to a TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `turn:`
    Udp,
    /// `turns:`
    Tls,
}

/// A TURN server with `use-auth-secret`. It is killed when dropped.
pub struct Coturn {
    child: Child,
    udp: SocketAddr,
    tls: SocketAddr,
    secret: String,
    /// Goes after the process. Has its log and its certificate.
    scratch: Scratch,
}

impl Coturn {
    /// Starts one that knows this secret, and waits until it listens.
    ///
    /// # Errors
    /// When `turnserver` or `openssl` is missing, or it does not listen within 30 s.
    pub fn start(secret: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let at = |name: &str| scratch.path().join(name).display().to_string();
        let (certificate, key) = (at("cert.pem"), at("key.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
        openssl.args(["-keyout", &key, "-out", &certificate]);
        run(&mut openssl)?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (udp, tls) = (local(free_port()?), local(free_port()?));
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-dtls", "--no-rfc5780", "--fingerprint", "--allow-loopback-peers"]);
        command.args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--realm", "streamfleet"]);
        command.args(["--listening-port", &udp.port().to_string(), "--tls-listening-port", &tls.port().to_string()]);
        command.args(["--min-port", RELAYED.0, "--max-port", RELAYED.1, "--cert", &certificate, "--pkey", &key]);
        command.args(["--use-auth-secret", "--static-auth-secret", secret, "--verbose", "--simple-log"]);
        command.args(["--log-file", &at("log"), "--pidfile", &at("pid"), "--userdb", &at("users")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("turnserver: `make test` installs it")?;
        let mut coturn = Self { child, udp, tls, secret: secret.to_owned(), scratch };
        let deadline = Instant::now() + START_LIMIT;
        // It opens UDP and TCP of a port together.
        while std::net::TcpStream::connect(udp).is_err() || std::net::TcpStream::connect(tls).is_err() {
            let is_over = coturn.child.try_wait()?.is_some() || Instant::now() > deadline;
            ensure!(!is_over, "turnserver: {}", coturn.log());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(coturn)
    }

    /// Its URL for clients.
    pub fn url(&self, wire: Wire) -> String {
        match wire {
            Wire::Udp => format!("turn:{}?transport=udp", self.udp),
            Wire::Tls => format!("turns:{}?transport=tcp", self.tls),
        }
    }

    /// Writes its secret to a file, as it is mounted from a Kubernetes Secret.
    ///
    /// # Errors
    /// The file system's.
    pub fn secret_file(&self) -> Result<String> {
        let path = self.scratch.path().join("secret");
        fs::write(&path, format!("{}\n", self.secret))?;
        Ok(path.display().to_string())
    }

    /// The digest of its certificate's key, as Chromium takes it for a certificate to believe: base64 of SHA-256.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn key_digest(&self) -> Result<String> {
        let certificate = self.scratch.path().join("cert.pem").display().to_string();
        let script = "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der | \
                      openssl dgst -sha256 -binary | openssl base64 -A";
        run(Command::new("bash").args(["-o", "pipefail", "-c", script, &certificate]))
    }

    /// Whether it makes allocations for these credentials and relays between them; `turnutils_uclient` tries.
    ///
    /// # Errors
    /// When that program is missing.
    pub fn takes(&self, username: &str, credential: &str, wire: Wire) -> Result<bool> {
        let mut command = Command::new("turnutils_uclient");
        // Two clients that talk to each other by way of it: one message each, for a second.
        command.args(["-u", username, "-w", credential, "-y", "-m", "1", "-n", "1"]);
        let port = match wire {
            Wire::Udp => self.udp.port(),
            Wire::Tls => {
                command.args(["-t", "-S"]);
                self.tls.port()
            }
        };
        let output = command.args(["-p", &port.to_string(), "127.0.0.1"]).output();
        let output = output.context("turnutils_uclient: `make test` installs it")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let is_whole = said.contains("Total lost packets 0 ");
        ensure!(output.status.success() == is_whole, "{}\n{said}", output.status);
        Ok(is_whole)
    }

    /// Its log until now.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// Waits until its log has a line that `is` one.
    ///
    /// # Errors
    /// When there is none within 10 s.
    pub fn await_line(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + LOG_LIMIT;
        while Instant::now() < deadline {
            if let Some(line) = self.log().lines().find(|line| is(line)) {
                return Ok(line.to_owned());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("{what}: not in its log:\n{}", self.log())
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The credential of a user name as a TURN server makes it (draft-uberti-behave-turn-rest-00), by a program that is not ours.
///
/// # Errors
/// When `openssl` fails.
pub fn credential(secret: &str, username: &str) -> Result<String> {
    let script = "printf %s \"$1\" | openssl dgst -sha1 -hmac \"$0\" -binary | openssl base64 -A";
    run(Command::new("bash").args(["-o", "pipefail", "-c", script, secret, username]))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
