//! A fleet as it stands in a data centre: each part in a network namespace of its own, one public address before all routers, and
//! no way from clients to workers but by the relays.
//!
//! ```text
//!               198.51.100.0/24           10.240.N.0/24            10.244.0.0/24
//!   client .2 ────────────────── .1 edge .1 ─────────── .2 router N .1N ──┬── .2N worker N
//!   198.18.0.0/15 behind it          ECMP to 203.0.113.10, which          ├── .2 the store
//!                                    every router has at its own          └── .66 a stranger's pod
//! ```
//!
//! Answers go straight back from each router by the edge, from the public address; nothing is translated anywhere.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::edge::{Edge, Traffic};
use crate::fleet::{SECRET, TOKEN, WORKERS_KEYS, manifest, with_keys};
use crate::http;
use crate::metrics::Metrics;
use crate::namespaces::{Namespace, Plug};
use crate::program;
use crate::redis::Redis;
use crate::scratch::Scratch;
use crate::server::Server;

/// Addresses for documentation (RFC 5737) and for measurements (RFC 2544), and private ones.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CROWD: &str = "198.18.0.0/15";
const STORE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 66);
const HTTP: u16 = 8080;
const MEDIA: u16 = 3478;
const PEERS: u16 = 3479;
const LOOP: u16 = 5000;
/// A router that is not ready within this is broken, however busy the machine.
const READY: Duration = Duration::from_secs(30);

/// What ufrags are sealed with at one router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys<'a> {
    /// Mints.
    pub key: &'a str,
    /// Only opens.
    pub previous: Option<&'a str>,
}

/// The routers of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Routers, each with a relay.
    pub routers: usize,
    /// The keys of all, at first.
    pub keys: Keys<'a>,
    /// How many flows each thread of a relay may have; the product's own bound if not said.
    pub flows: Option<u32>,
}

/// A router's or a worker's process, and where it is.
struct Part {
    /// `None` while it does not run.
    server: Option<Server>,
    namespace: Namespace,
    address: Ipv4Addr,
}

/// All of it. Its processes are killed when it is dropped, and its namespaces removed.
pub struct Site {
    /// What the fleet knows together.
    pub redis: Redis,
    routers: Vec<Part>,
    workers: Vec<Part>,
    /// Before the routers. All that were started serve at first.
    pub edge: Edge,
    /// Where clients are.
    pub client: Namespace,
    /// A pod that is none of the fleet's, in the network of the workers.
    pub stranger: Namespace,
    store: Namespace,
    /// The switch between pods.
    _pods: Namespace,
    /// Has the services' file.
    scratch: Scratch,
    services: Vec<Value>,
    flows: Option<u32>,
}

/// The address of a part in the network of pods.
fn pod(first: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, first + number as u8)
}

impl Site {
    /// Starts all parts, and waits until every router is ready. Services are as of
    /// [`Shape`](crate::Shape).
    ///
    /// # Errors
    /// When a program is missing, or a part is not ready within 30 s.
    pub fn start(plan: Plan<'_>, workers: usize, services: Vec<Value>) -> Result<Self> {
        let routers = plan.routers;
        let scratch = Scratch::new()?;
        let manifests: Vec<String> = services.iter().map(|service| manifest(service).to_string()).collect();
        fs::write(scratch.path().join("services.yaml"), manifests.join("\n---\n"))?;
        let pods = Namespace::new("pods")?;
        pods.ip("link add pods type bridge")?;
        pods.ip("link set pods up")?;
        let plug = |namespace: &Namespace, interface: &str, address: Ipv4Addr| {
            let port = format!("p{}", address.octets()[3]);
            namespace.cable(Plug::at(interface, address, 24), &pods, Plug::bare(&port))?;
            pods.ip(&format!("link set {port} master pods"))
        };
        let inside = |label: &str, address: Ipv4Addr| -> Result<Part> {
            let namespace = Namespace::new(label)?;
            plug(&namespace, "pods0", address)?;
            Ok(Part { server: None, namespace, address })
        };
        let Part { namespace: store, .. } = inside("store", STORE)?;
        let Part { namespace: stranger, .. } = inside("stranger", STRANGER)?;
        let redis = store.run(|| Redis::start_at(SocketAddr::from((STORE, 6379))))?;

        let client = Namespace::new("client")?;
        let edge = Namespace::new("edge")?;
        client.cable(Plug::at("eth0", CLIENT, 24), &edge, Plug::at("clients", GATEWAY, 24))?;
        client.ip(&format!("route add default via {GATEWAY}"))?;
        // A crowd's addresses are all the client's: any of them can be bound to.
        client.ip(&format!("route add local {CROWD} dev lo"))?;
        edge.ip(&format!("route add {CROWD} via {CLIENT}"))?;
        let mut parts = Vec::new();
        let mut servers = Vec::new();
        for number in 0..routers {
            let part = inside(&format!("r{number}"), pod(10, number))?;
            let [near, far] = [2, 1].map(|last| Ipv4Addr::new(10, 240, number as u8, last));
            part.namespace.cable(Plug::at("eth0", near, 24), &edge, Plug::at(&format!("r{number}"), far, 24))?;
            part.namespace.ip(&format!("route add default via {far}"))?;
            part.namespace.ip(&format!("address add {PUBLIC}/32 dev lo"))?;
            servers.push(near);
            parts.push(part);
        }
        let edge = Edge::new(edge, PUBLIC, servers)?;
        let workers = (0..workers).map(|number| inside(&format!("w{number}"), pod(20, number)));
        let workers: Vec<Part> = workers.collect::<Result<_>>()?;
        let flows = plan.flows;
        let mut site = Self {
            redis,
            routers: parts,
            workers,
            edge,
            client,
            stranger,
            store,
            _pods: pods,
            scratch,
            services,
            flows,
        };
        for number in 0..site.workers.len() {
            site.start_worker(number)?;
        }
        for number in 0..routers {
            site.start_router(number, plan.keys)?;
        }
        let all: Vec<usize> = (0..routers).collect();
        for traffic in [Traffic::Media, Traffic::Signalling] {
            site.edge.serve(traffic, &all)?;
        }
        Ok(site)
    }

    fn start_worker(&mut self, number: usize) -> Result<()> {
        let keys = |service: &Value| with_keys(service, &WORKERS_KEYS);
        let part = &self.workers[number];
        let address = part.address;
        let config = json!({
            "listen": format!("{address}:{HTTP}"),
            "media": { "udp": format!("{address}:{LOOP}"), "advertise": [address], "loops": 1 },
            "admin": { "listen": "127.0.0.1:0", "token": TOKEN },
            "services": self.services.iter().map(keys).collect::<Vec<_>>(),
            "fleet": {
                "worker": format!("w{number}"), "http": format!("{address}:{HTTP}"), "secret": SECRET, "store": store(),
            },
        });
        let mut command = Command::new(program::streamfleet()?);
        command.arg("worker");
        let server = part.namespace.run(|| Server::start_part(command, &config, TOKEN));
        self.workers[number].server = Some(server.with_context(|| format!("worker {number}"))?);
        Ok(())
    }

    /// Starts a router that does not run, and waits until it says that it is ready. The edge knows nothing of it.
    ///
    /// # Errors
    /// When it is not within 30 s.
    pub fn start_router(&mut self, number: usize, keys: Keys<'_>) -> Result<()> {
        let address = self.routers[number].address;
        let peers = |except: usize| (0..self.routers.len()).filter(move |other| *other != except);
        let mut config = json!({
            "listen": format!("0.0.0.0:{HTTP}"),
            "admin": { "listen": "127.0.0.1:0", "token": TOKEN },
            "drain": { "terminationGrace": "5s", "notice": "1s" },
            "services": [self.scratch.path().join("services.yaml")],
            "secret": SECRET,
            "store": store(),
            "relay": {
                // Not at all addresses: what is sent from here must come from the public one.
                "listen": format!("{PUBLIC}:{MEDIA}"),
                "key": keys.key,
                "workers": ["10.244.0.0/24"],
                "peerListen": format!("{address}:{PEERS}"),
                "peers": peers(number).map(|other| format!("{}:{PEERS}", pod(10, other))).collect::<Vec<_>>(),
            },
        });
        if let Some(previous) = keys.previous {
            config["relay"]["previousKey"] = previous.into();
        }
        if let Some(flows) = self.flows {
            config["relay"]["flows"] = flows.into();
        }
        let mut command = Command::new(program::streamfleet()?);
        command.arg("router");
        let server = self.routers[number].namespace.run(|| Server::start_part(command, &config, TOKEN));
        self.routers[number].server = Some(server.with_context(|| format!("router {number}"))?);
        self.await_ready(number)
    }

    /// As load balancers wait.
    fn await_ready(&self, number: usize) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            let status = self.at_router(number, |server| server.admin_status("/readyz"))?;
            if status.is_ok_and(|status| status == 200) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "router {number} is not ready:\n{}", self.printed());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills a router as a crash would. The edge knows nothing of it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_router(&mut self, number: usize) -> Result<()> {
        self.routers[number].server.take().context("it does not run")?.kill()
    }

    /// Asks a router to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not run, or does not end within its grace.
    pub fn stop_router(&mut self, number: usize) -> Result<()> {
        let mut server = self.routers[number].server.take().context("it does not run")?;
        server.terminate()?;
        let status = server.wait(READY)?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// Where clients call a service.
    pub fn url(&self, service: &str) -> String {
        format!("http://{PUBLIC}:{HTTP}/{service}")
    }

    /// Where clients send media to.
    pub fn door(&self) -> SocketAddr {
        SocketAddr::from((PUBLIC, MEDIA))
    }

    /// Where workers' pods are: what no client may be told.
    pub fn pods(&self) -> Vec<Ipv4Addr> {
        self.routers.iter().chain(&self.workers).map(|part| part.address).collect()
    }

    /// The address of a worker's media loop.
    pub fn worker_media(&self, number: usize) -> SocketAddr {
        SocketAddr::from((self.workers[number].address, LOOP))
    }

    /// What a client gets of the public address.
    ///
    /// # Errors
    /// When there is no well-formed HTTP response.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<http::Response> {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let url = format!("http://{PUBLIC}:{HTTP}{path}");
        self.client.run(|| http::request(method, &url, &headers, body.as_bytes()))
    }

    /// A scrape of a router.
    ///
    /// # Errors
    /// When it does not run or answer.
    pub fn router(&self, number: usize) -> Result<Metrics> {
        self.at_router(number, Server::metrics)?
    }

    /// Looks at a router's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn at_router<T: Send>(&self, number: usize, look: impl FnOnce(&Server) -> T + Send) -> Result<T> {
        at(&self.routers[number], look)
    }

    /// Looks at a worker's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn at_worker<T: Send>(&self, number: usize, look: impl FnOnce(&Server) -> T + Send) -> Result<T> {
        at(&self.workers[number], look)
    }

    /// The numbers of the routers that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.routers.len()).filter(|number| self.routers[*number].server.is_some()).collect()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Starts the store again, empty, after it was killed.
    ///
    /// # Errors
    /// When it does not listen within 30 s.
    pub fn restart_store(&mut self) -> Result<()> {
        let Self { redis, store, .. } = self;
        store.run(|| redis.restart())
    }

    /// What the parts have printed last.
    pub fn printed(&self) -> String {
        let named = |name: &'static str, parts: &[Part]| -> String {
            let printed = |part: &Part| part.server.as_ref().map_or_else(String::new, Server::printed);
            parts.iter().enumerate().map(|(number, part)| format!("{name} {number}:\n{}", printed(part))).collect()
        };
        named("router", &self.routers) + &named("worker", &self.workers)
    }
}

fn at<T: Send>(part: &Part, look: impl FnOnce(&Server) -> T + Send) -> Result<T> {
    let server = part.server.as_ref().context("it does not run")?;
    Ok(part.namespace.run(|| look(server)))
}

fn store() -> Value {
    json!({ "redis": { "address": format!("{STORE}:6379") } })
}
