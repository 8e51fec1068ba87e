//! A fleet of processes: a Redis, routers and workers, each of which can be stopped, killed and cut off by itself.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::balancer::Balancer;
use crate::http::{self, Response};
use crate::link::Link;
use crate::program;
use crate::redis::{Redis, free_port};
use crate::replicas::Replicas;
use crate::scratch::Scratch;
use crate::server::Server;

/// What routers and workers share.
pub(crate) const SECRET: &str = "a-secret-of-the-fleet";
/// What the control routes demand.
pub(crate) const TOKEN: &str = "a-token-of-the-operator";
/// What relays share.
const RELAY_KEY: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf";
/// At addresses that nothing else of these tests uses.
const RELAY_PORT: u16 = 13_478;
const PEER_PORT: u16 = 13_479;
/// The keys of a service that a worker reads.
pub(crate) const WORKERS_KEYS: [&str; 7] = ["name", "path", "aliases", "modality", "handler", "limits", "telephone"];

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Routers.
    pub routers: usize,
    /// Workers.
    pub workers: usize,
    /// Its services, as a list in a worker's configuration; further keys are those of a StreamService.
    pub services: Value,
    /// From SIGTERM to the end of a worker or a router.
    pub grace: Duration,
    /// How its parts reach each other.
    pub wires: Wires,
    /// How its clients' media comes.
    pub media: Media,
}

/// How media comes to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// From clients themselves.
    Direct,
    /// By the routers' relays, behind a [`Balancer`].
    Relayed,
    /// By the relay of the only router, which has an IPv4 and an IPv6 address. Every second worker has IPv6 alone.
    BothFamilies,
}

/// How the parts of a fleet reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wires {
    /// As everywhere.
    Direct,
    /// Each part reaches the store, and routers reach each worker, by a [`Link`] that can be held.
    Links,
}

/// A router or a worker.
pub struct Part {
    /// A worker's name in the fleet, and a router's in messages.
    pub name: String,
    /// The process.
    pub server: Server,
    /// Its way to the store, with [`Wires::Links`].
    pub store: Option<Link>,
    /// The routers' way to it, if it is a worker, likewise.
    pub http: Option<Link>,
}

/// A fleet. All its processes are killed when it is dropped.
pub struct Fleet {
    /// What it knows together.
    pub redis: Redis,
    /// Its routers, those that have been killed too.
    pub routers: Vec<Part>,
    /// Its workers, likewise.
    pub workers: Vec<Part>,
    /// What is before its relays, with [`Media::Relayed`].
    pub balancer: Option<Balancer>,
    shape: Shape,
    /// Has the services' file.
    scratch: Scratch,
}

/// Relays have the same ports, each at an address of its own.
fn relay(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 1, number as u8 + 1], port))
}

impl Fleet {
    /// Starts all of its parts, and waits until they listen. Workers may be unknown to routers for a moment yet.
    ///
    /// # Errors
    /// When a program is missing, or a part does not listen within 30 s.
    pub fn start(shape: Shape) -> Result<Self> {
        let redis = Redis::start()?;
        let scratch = Scratch::new()?;
        let services = shape.services.as_array().context("no list of services")?;
        let manifests: Vec<String> = services.iter().map(|service| manifest(service).to_string()).collect();
        fs::write(scratch.path().join("services.yaml"), manifests.join("\n---\n"))?;
        let (routers, workers) = (shape.routers, shape.workers);
        let relays = (0..routers).map(|number| relay(number, RELAY_PORT)).collect();
        let balancer = match shape.media {
            Media::Direct | Media::BothFamilies => None,
            Media::Relayed => Some(Balancer::before(relays)?),
        };
        let mut fleet = Self { redis, routers: Vec::new(), workers: Vec::new(), balancer, shape, scratch };
        for _ in 0..workers {
            fleet.add_worker()?;
        }
        for _ in 0..routers {
            fleet.add_router()?;
        }
        Ok(fleet)
    }

    /// One more worker. Returns its number.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn add_worker(&mut self) -> Result<usize> {
        let number = self.workers.len();
        let name = format!("w{number}");
        let ip = match self.shape.media {
            Media::BothFamilies if number % 2 == 1 => IpAddr::from(Ipv6Addr::LOCALHOST),
            _ => IpAddr::from(Ipv4Addr::LOCALHOST),
        };
        let listen = SocketAddr::new(ip, free_port()?);
        let (store, http) = (self.link(self.redis.address())?, self.link(listen)?);
        let reached = http.as_ref().map_or(listen, Link::address);
        let services = self.shape.services.as_array().into_iter().flatten();
        let services: Vec<Value> = services.map(|service| with_keys(service, &WORKERS_KEYS)).collect();
        let config = json!({
            "listen": listen.to_string(),
            "media": { "udp": SocketAddr::new(ip, 0).to_string(), "advertise": [ip.to_string()], "loops": 1 },
            "admin": { "listen": "127.0.0.1:0", "token": TOKEN },
            "drain": { "terminationGrace": format!("{}s", self.shape.grace.as_secs()) },
            "services": services,
            "fleet": { "worker": name, "http": reached.to_string(), "secret": SECRET, "store": self.store(store.as_ref()) },
        });
        let server =
            Server::start_part(Command::new(program::services()?), &config, TOKEN).with_context(|| name.clone())?;
        self.workers.push(Part { name, server, store, http });
        Ok(number)
    }

    /// One more router. Returns its number.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn add_router(&mut self) -> Result<usize> {
        let number = self.routers.len();
        let name = format!("r{number}");
        let store = self.link(self.redis.address())?;
        let mut config = json!({
            "listen": "127.0.0.1:0",
            "admin": { "listen": "127.0.0.1:0", "token": TOKEN },
            "drain": { "terminationGrace": format!("{}s", self.shape.grace.as_secs()) },
            "services": [self.scratch.path().join("services.yaml")],
            "secret": SECRET,
            // Telephone companies that come through a proxy are played by the suites themselves.
            "http": { "trustedProxies": ["127.0.0.1"] },
            "store": self.store(store.as_ref()),
        });
        if let Some(relay) = self.relay(number)? {
            config["relay"] = relay;
        }
        let server =
            Server::start_part(Command::new(program::router()?), &config, TOKEN).with_context(|| name.clone())?;
        self.routers.push(Part { name, server, store, http: None });
        Ok(number)
    }

    /// What a router's configuration says of its relay.
    fn relay(&self, number: usize) -> Result<Option<Value>> {
        if let Some(balancer) = &self.balancer {
            let peers = (0..self.shape.routers).map(|number| relay(number, PEER_PORT).to_string());
            return Ok(Some(json!({
                "listen": relay(number, RELAY_PORT).to_string(),
                "advertise": [balancer.address()?.to_string()],
                "key": RELAY_KEY,
                "workers": ["127.0.0.0/8"],
                "peerListen": relay(number, PEER_PORT).to_string(),
                "peers": peers.collect::<Vec<_>>(),
            })));
        }
        if self.shape.media != Media::BothFamilies {
            return Ok(None);
        }
        let port = free_port()?;
        Ok(Some(json!({
            "listen": format!("[::]:{port}"),
            "advertise": [format!("127.0.0.1:{port}"), format!("[::1]:{port}")],
            "key": RELAY_KEY,
            "workers": ["127.0.0.0/8", "::1/128"],
            "workerPrefix": "::/96",
            "peerListen": "127.0.0.1:0",
        })))
    }

    fn link(&self, target: SocketAddr) -> Result<Option<Link>> {
        match self.shape.wires {
            Wires::Direct => Ok(None),
            Wires::Links => Link::before(target).map(Some),
        }
    }

    fn store(&self, link: Option<&Link>) -> Value {
        let address = link.map_or(self.redis.address(), Link::address);
        json!({ "redis": { "address": address.to_string() } })
    }

    /// The names of its services.
    pub fn services(&self) -> Vec<&str> {
        self.shape.services.as_array().into_iter().flatten().filter_map(|service| service["name"].as_str()).collect()
    }

    /// All routers behind one address, each request to the next.
    ///
    /// # Errors
    /// When there is no port.
    pub fn replicas(&self) -> Result<Replicas> {
        Replicas::before(self.routers.iter().map(|router| router.server.url().to_owned()).collect())
    }

    /// What the parts have printed last.
    pub fn printed(&self) -> String {
        let parts = self.routers.iter().chain(&self.workers);
        parts.map(|part| format!("{}:\n{}", part.name, part.server.printed())).collect()
    }
}

impl Part {
    /// A request with the operator's token, and with a body if there is one.
    ///
    /// # Errors
    /// When there is no well-formed HTTP response.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Response> {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::request(method, &format!("{}{path}", self.server.url()), &headers, body.as_bytes())
    }

    /// The sessions of the service at `path`, as it lists them.
    ///
    /// # Errors
    /// When the answer is no list.
    pub fn sessions(&self, path: &str) -> Result<Vec<Value>> {
        let answer = self.ask("GET", &format!("{path}/sessions"), &Value::Null)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.json()?["sessions"].as_array().context("no list")?.clone())
    }
}

/// A service as routers read it.
pub(crate) fn manifest(service: &Value) -> Value {
    let keys: Vec<&str> = service.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let keys: Vec<&str> = keys.into_iter().filter(|key| *key != "name").collect();
    let mut spec = with_keys(service, &keys);
    // Routers judge by themselves whom they believe.
    if let Some(telephone) = spec["telephone"].as_object_mut() {
        telephone.remove("trustForwarded");
    }
    json!({
        "apiVersion": "streamfleet.dev/v1alpha1",
        "kind": "StreamService",
        "metadata": { "name": service["name"] },
        "spec": spec,
    })
}

pub(crate) fn with_keys(service: &Value, keys: &[&str]) -> Value {
    let kept = service.as_object().into_iter().flatten().filter(|(key, _)| keys.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_told_of_the_same_service() {
        let service = json!({
            "name": "a", "path": "/a", "handler": { "name": "h" }, "telephone": { "trustForwarded": true, "before": "x" },
            "routing": { "packing": "Spread" },
        });
        let expected = json!({
            "path": "/a", "handler": { "name": "h" }, "telephone": { "before": "x" }, "routing": { "packing": "Spread" },
        });
        assert_eq!(manifest(&service)["spec"], expected);
        let worker = with_keys(&service, &WORKERS_KEYS);
        assert!(worker.get("routing").is_none() && worker["telephone"]["trustForwarded"] == true, "{worker}");
    }
}
