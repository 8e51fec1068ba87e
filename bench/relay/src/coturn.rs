//! A relay beside coturn, each in a process of its own, on one core: what a packet costs them.
//!
//! Whoever sends and receives is on the same core and comes first (`SCHED_FIFO`): a round of packets waits at the server's socket
//! before the server has its turn, as if it was saturated. They take turns of a fraction of a second. Time is what the kernel
//! says that the process's threads have run (`/proc/PID/task/*/schedstat`), what it does for others' interrupts included.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};
use streamfleet_carrier::Way;
use streamfleet_net::{Offload, Outbox, SocketOptions, UdpSocket};

use crate::HERE;
use crate::rate::pin;
use crate::scene::{Cast, Clients, Lengths, Media, ROUND, Worker, client, v4, wait_until};
use crate::turn::{allocate, channel_header};
use crate::turns::quantile;

/// Of one server at a time.
const TURN: Duration = Duration::from_millis(300);

/// A child that does not outlive who has started it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    /// What its threads have run.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let mut all = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            all += text.split(' ').next().context("it is empty")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(all))
    }
}

enum Server {
    Relay { process: Process, cast: Box<Cast> },
    Coturn { process: Process, door: SocketAddrV4, sink: Box<Worker>, relayed: Vec<SocketAddrV4>, at: usize },
}

impl Server {
    fn relay(arguments: &[&str], worker: Worker, flows: usize, clients: &mut Clients) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--worker").arg(worker.address.to_string()).args(arguments);
        let mut process = Process(command.stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().context("it has no output")?).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line)?;
        let door: SocketAddr = said["door"].as_str().context("it has no door")?.parse()?;
        let port = said["return_port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("no port")?;
        let mut cast = Cast::new(vec![worker], flows, v4(door), SocketAddr::from((HERE, port)));
        cast.begin(clients, |_| Ok(()))?;
        Ok(Self::Relay { process, cast: Box::new(cast) })
    }

    fn coturn(flows: usize, clients: &mut Clients) -> anyhow::Result<Self> {
        let sink = Box::new(Worker::bind(HERE, Offload::Off)?);
        // A port that is free now.
        let port = UdpSocket::bind((HERE, 0).into(), SocketOptions::default())?.local_addr().port();
        let here = HERE.to_string();
        let child = Command::new("turnserver")
            .args(["-n", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-rfc5780"])
            .args(["--allow-loopback-peers", "--relay-threads", "1", "--no-stdout-log", "--log-file", "/dev/null"])
            .args(["--pidfile", "/dev/null", "--listening-ip", &here, "--relay-ip", &here])
            .args(["--listening-port", &port.to_string(), "--min-port", "20000", "--max-port", "30000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("turnserver")?;
        let (process, door) = (Process(child), SocketAddrV4::new(HERE, port));
        std::thread::sleep(Duration::from_secs(1));
        let relayed: Result<_, _> = (0..flows).map(|n| allocate(clients, n, door, v4(sink.address))).collect();
        Ok(Self::Coturn { process, door, sink, relayed: relayed?, at: 0 })
    }

    fn round(&mut self, way: Way, media: &mut Media, clients: &mut Clients) -> anyhow::Result<()> {
        match self {
            Self::Relay { cast, .. } => {
                cast.send(way, media, clients)?;
                wait_until(ROUND, || cast.came(way, clients))
            }
            Self::Coturn { door, sink, relayed, at, .. } => {
                let (mut outbox, media) = (Outbox::new(), media.next());
                for _ in 0..ROUND {
                    *at = (*at + 61) % relayed.len();
                    match way {
                        Way::ToWorker => clients.burst.push(client(*at), *door, &[&channel_header(media.len()), media]),
                        Way::ToClient => drop(outbox.push_slice(relayed[*at].into(), media)),
                    }
                }
                match way {
                    Way::ToWorker => {
                        clients.send()?;
                        wait_until(ROUND, || Ok(crate::scene::drain(&mut sink.receiver)?))
                    }
                    Way::ToClient => {
                        sink.send(&mut outbox)?;
                        wait_until(ROUND, || Ok(crate::scene::drain(&mut clients.receiver)?))
                    }
                }
            }
        }
    }

    fn process(&self) -> &Process {
        match self {
            Self::Relay { process, .. } | Self::Coturn { process, .. } => process,
        }
    }

    /// Nanoseconds a packet.
    fn turn(&mut self, way: Way, media: &mut Media, clients: &mut Clients) -> anyhow::Result<f64> {
        self.round(way, media, clients)?;
        let (begun, before, mut rounds) = (Instant::now(), self.process().cpu()?, 0);
        while begun.elapsed() < TURN {
            self.round(way, media, clients)?;
            rounds += 1;
        }
        Ok((self.process().cpu()? - before).as_nanos() as f64 / (rounds * ROUND) as f64)
    }
}

pub(crate) fn compare(flows: usize, sizes: &[usize], turns: usize, say: impl Fn(&Value)) -> anyhow::Result<()> {
    let mut clients = Clients::bind()?;
    // Children inherit the core, and not the place in its queue.
    pin(0);
    let mut servers = [
        ("relay", Server::relay(&[], Worker::bind(HERE, Offload::On)?, flows, &mut clients)?),
        ("relay, no offload", Server::relay(&["--plain"], Worker::bind(HERE, Offload::Off)?, flows, &mut clients)?),
        ("coturn", Server::coturn(flows, &mut clients)?),
    ];
    for way in Way::ALL {
        for size in sizes {
            let (mut media, mut order) = (Media::new(Lengths::Of(*size)), [0, 1, 2]);
            let mut costs = [const { Vec::new() }; 3];
            for _ in 0..turns {
                order.shuffle(&mut rand::rng());
                for n in order {
                    costs[n].push(servers[n].1.turn(way, &mut media, &mut clients).context(servers[n].0)?);
                }
            }
            let rows: Vec<Value> = servers
                .iter()
                .zip(&costs)
                .map(|((name, _), of)| {
                    let mut times: Vec<f64> = costs[2].iter().zip(of).map(|(coturn, own)| coturn / own).collect();
                    let ns = quantile(&mut of.clone(), 0.5);
                    json!({ "server": name, "ns": ns, "coturn_costs_times": quantile(&mut times, 0.5) })
                })
                .collect();
            say(&json!({ "way": way.as_str(), "size": size, "flows": flows, "turns": turns, "rows": rows }));
        }
    }
    Ok(())
}
