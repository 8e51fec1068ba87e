//! Floods beside live calls: what strangers, clients and pods can send costs the calls nothing, and no memory.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use streamfleet_net::stun::{BindingRequest, Nomination, Role, TransactionId};
use streamfleet_tests::{Home, Plan, Site};

use crate::load::Load;
use crate::{PLAN, at_a_site_of};

/// What unoptimised programs carry beside a flood.
const CALLS: usize = 100;
/// Addresses of the crowd that a flood comes from.
const CROWD: u32 = 512;
/// Flows that a relay's thread may have in this site: fewer than the crowd asks for.
const FLOWS: u32 = 400;
/// What allocators keep, and what a relay's tables grow to: a fraction of what any of these floods sends.
const GROWTH: i64 = 4 << 20;
/// Of all packets of the calls, so many may be lost at most.
const LOST: f64 = 0.01;
/// Datagrams between two rests.
const BURST: usize = 8;

/// How much, and for how long.
struct Extent {
    time: Duration,
    /// Datagrams a second of each flood.
    rate: u32,
}

#[test]
fn floods_cost_the_calls_nothing() -> Result<()> {
    flooded(&Extent { time: Duration::from_secs(30), rate: 800 })
}

/// As long as STREAMFLEET_SOAK_SECONDS says, by optimised programs.
#[test]
#[ignore = "takes ten minutes: `make soak`"]
fn long_floods_cost_the_calls_nothing() -> Result<()> {
    let seconds = std::env::var("STREAMFLEET_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    flooded(&Extent { time: Duration::from_secs(seconds.unwrap_or(600)), rate: 2_500 })
}

/// The same datagrams in every run (Knuth's MMIX constants; the high bits are the random ones).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// One of the forms that share the port (RFC 7983), and nothing behind it.
    fn shaped(&mut self, length: usize) -> Vec<u8> {
        let first = [0, 1, 22, 23, 64, 128, 144, 192, 224][self.below(9)];
        let mut bytes = self.bytes(length);
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        bytes
    }
}

/// A binding request with this USERNAME and nothing else (RFC 8489).
fn check(name: &str, noise: &mut Noise) -> Vec<u8> {
    let padded = name.len().next_multiple_of(4);
    let short = |number: usize| (number as u16).to_be_bytes();
    let cookie = 0x2112_A442_u32.to_be_bytes();
    let mut datagram =
        [&[0, 1][..], &short(padded + 4), &cookie, &noise.bytes(12), &[0, 6], &short(name.len())].concat();
    datagram.extend(name.as_bytes());
    datagram.resize(20 + 4 + padded, 0);
    datagram
}

/// Makes one datagram after the other.
type Next = Box<dyn FnMut(&mut Noise) -> Vec<u8> + Send>;

/// Who sends what, to whom.
struct Flood {
    what: &'static str,
    from: Vec<UdpSocket>,
    to: Vec<SocketAddr>,
    next: Next,
}

impl Flood {
    /// Sends until it is told to stop; how many datagrams the kernel has taken.
    fn run(mut self, rate: u32, seed: u64, stop: &AtomicBool, sent: &AtomicU64) {
        let mut noise = Noise(seed);
        let rest = Duration::from_secs(1) * BURST as u32 / rate;
        let mut due = Instant::now();
        while !stop.load(Relaxed) {
            for _ in 0..BURST {
                let datagram = (self.next)(&mut noise);
                let (from, to) = (noise.below(self.from.len()), noise.below(self.to.len()));
                // Some are too large, and what nobody listens to is refused: the next one goes.
                let went = self.from[from].send_to(&datagram, self.to[to]).is_ok();
                sent.fetch_add(u64::from(went), Relaxed);
            }
            due += rest;
            match due.checked_duration_since(Instant::now()) {
                Some(early) => thread::sleep(early),
                // A machine that stood still is not made up for.
                None => due = Instant::now(),
            }
        }
    }
}

/// Sockets of so many addresses of the crowd.
fn crowd(site: &Site, count: u32) -> Result<Vec<UdpSocket>> {
    let bind = |n: u32| {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + n * 61);
        UdpSocket::bind((address, 0)).with_context(|| address.to_string())
    };
    site.client.run(|| (0..count).map(bind).collect())
}

/// Ports of the UDP sockets at this address in the namespace of this thread (proc(5)).
fn udp_ports(at: Ipv4Addr) -> Vec<u16> {
    // As the kernel has it in memory.
    let at = format!("{:08X}", u32::from_ne_bytes(at.octets()));
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    let local = table.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once(':'));
    local.filter(|(ip, _)| *ip == at).filter_map(|(_, port)| u16::from_str_radix(port, 16).ok()).collect()
}

/// A header as relay and worker put before each datagram, for this client, under a key that is guessed.
fn header(form: u8, client: SocketAddr, noise: &mut Noise) -> Vec<u8> {
    let SocketAddr::V4(client) = client else { return Vec::new() };
    let mut header = vec![form, noise.below(3) as u8];
    header.extend(noise.bytes(2));
    header.extend([0; 10]);
    header.extend([255, 255]);
    header.extend(client.ip().octets());
    header.extend(client.port().to_be_bytes());
    header.extend(3_478_u16.to_be_bytes());
    // Flows and sessions are counted from the first.
    header.extend((noise.below(64) as u32).to_be_bytes());
    header.extend((noise.below(64) as u32).to_be_bytes());
    header.extend(noise.bytes(8));
    header.extend(noise.shaped(100));
    header
}

/// Who makes checks of a session that is up: its own client, which knows both ufrags and the password.
struct Holder {
    theirs: String,
    ufrag: String,
    password: String,
}

impl Holder {
    /// Of the first call that was made from a home.
    fn of(home: &Home) -> Result<Self> {
        let [offer, answer] = home.said().map(|octets| String::from_utf8_lossy(&octets).into_owned());
        let value = |text: &str, name: &str| -> Result<String> {
            let (_, rest) = text.split_once(name).with_context(|| format!("no {name} in {text}"))?;
            Ok(rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || "+/".contains(*letter)).collect())
        };
        let [ufrag, password] = ["a=ice-ufrag:", "a=ice-pwd:"].map(|name| value(&answer, name));
        Ok(Self { theirs: value(&offer, "a=ice-ufrag:")?, ufrag: ufrag?, password: password? })
    }

    /// A check as the session's own client would send it.
    fn check(&self, noise: &mut Noise) -> Vec<u8> {
        let mut transaction = TransactionId([0; 12]);
        transaction.0.copy_from_slice(&noise.bytes(12));
        let request = BindingRequest {
            transaction,
            remote_ufrag: &self.ufrag,
            local_ufrag: &self.theirs,
            priority: 1,
            role: Role::Controlling(1),
            nomination: Nomination::None,
        };
        let mut datagram = Vec::new();
        let written = request.write(self.password.as_bytes(), &mut datagram);
        assert_eq!(written, Ok(()));
        datagram
    }
}

fn floods(site: &Site, heard: [Vec<Vec<u8>>; 2], holder: Holder) -> Result<Vec<Flood>> {
    let door = vec![site.door()];
    let client = Ipv4Addr::new(198, 51, 100, 2);
    let clients = site.client.run(|| udp_ports(client)).into_iter();
    let clients: Vec<SocketAddr> = clients.map(|port| SocketAddr::from((client, port))).collect();
    ensure!(!clients.is_empty(), "no client's port is known");
    let mut returns = Vec::new();
    for number in site.running() {
        let ports = site.at_router(number, |_| udp_ports(Ipv4Addr::UNSPECIFIED))?;
        returns.extend(ports.into_iter().map(|port| SocketAddr::new(site.pods()[number].into(), port)));
    }
    ensure!(returns.len() >= site.running().len(), "no relay's return port is known");
    let peers = site.running().into_iter().map(|number| SocketAddr::new(site.pods()[number].into(), 3479)).collect();
    let workers = (0..site.workers()).map(|number| site.worker_media(number)).collect();
    let pod = || site.stranger.run(|| UdpSocket::bind("0.0.0.0:0")).map(|socket| vec![socket]);
    let [sent, came] = heard;
    ensure!(sent.len() > 100 && came.len() > 100, "{} and {} packets to play back", sent.len(), came.len());
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let of_clients = clients.clone();
    let good = holder.ufrag.clone();
    Ok(vec![
        Flood {
            what: "unknown ufrags, of a crowd",
            from: crowd(site, CROWD)?,
            to: door.clone(),
            next: Box::new(move |noise| {
                let name: String = (0..32).map(|_| letters[noise.below(letters.len())]).collect();
                check(&format!("{name}:theirs"), noise)
            }),
        },
        Flood {
            what: "unknown ufrags, of one",
            from: crowd(site, 1)?,
            to: door.clone(),
            next: Box::new(|noise| check("QUJDREVGR0hJSktMTU5PUFFSU1RVVldY:theirs", noise)),
        },
        Flood {
            what: "one good ufrag, of a crowd",
            from: crowd(site, CROWD * 4)?,
            to: door.clone(),
            next: Box::new(move |noise| check(&format!("{good}:theirs"), noise)),
        },
        Flood {
            what: "a connected session's own checks, of a crowd",
            from: crowd(site, CROWD * 4)?,
            to: door.clone(),
            next: Box::new(move |noise| holder.check(noise)),
        },
        Flood {
            what: "cut off",
            from: crowd(site, CROWD)?,
            to: door.clone(),
            next: Box::new(|noise| {
                let length = noise.below(40);
                noise.shaped(length)
            }),
        },
        Flood {
            what: "giants",
            from: crowd(site, 16)?,
            to: door.clone(),
            next: Box::new(|noise| {
                let length = [1_400, 1_472, 3_000, 9_000, 60_000][noise.below(5)];
                let mut giant = noise.shaped(64);
                giant.resize(length, 7);
                giant
            }),
        },
        Flood {
            what: "calls' packets played back, and sent back, of a crowd",
            from: crowd(site, CROWD)?,
            to: door,
            next: Box::new(move |noise| {
                let heard = if noise.below(2) == 0 { &sent } else { &came };
                heard[noise.below(heard.len())].clone()
            }),
        },
        Flood {
            what: "headers of a pod's own making, to workers",
            from: pod()?,
            to: workers,
            next: Box::new(move |noise| {
                let client = clients[noise.below(clients.len())];
                header(0xC0, client, noise)
            }),
        },
        Flood {
            what: "headers of a pod's own making, to relays",
            from: pod()?,
            to: returns,
            next: Box::new(move |noise| {
                let form = [0xE0, 0xE0, 0xC0][noise.below(3)];
                let client = of_clients[noise.below(of_clients.len())];
                header(form, client, noise)
            }),
        },
        Flood {
            what: "announcements of a pod's own making",
            from: pod()?,
            to: peers,
            next: Box::new(|noise| {
                let mut said = noise.bytes(96);
                said[0] = 0xA1;
                said
            }),
        },
    ])
}

/// Bytes that each process has allocated, and its open files.
fn memory(site: &Site) -> Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for number in site.running() {
        all.push((format!("router {number}"), site.at_router(number, |server| server.heap())??));
    }
    for number in 0..site.workers() {
        all.push((format!("worker {number}"), site.at_worker(number, |server| server.heap())??));
    }
    Ok(all)
}

fn dropped(site: &Site) -> Result<BTreeMap<&'static str, f64>> {
    const REASONS: [&str; 12] = [
        "unknown_flow",
        "giant",
        "noise",
        "unknown_ufrag",
        "stranger",
        "unconfirmed",
        "full",
        "crowded",
        "malformed",
        "strange_flow",
        "forged",
        "amplified",
    ];
    let count = |reason| {
        let label = format!("reason=\"{reason}\"");
        Ok((reason, crate::at_routers(site, "streamfleet_relay_dropped_total", &label)?))
    };
    REASONS.into_iter().map(count).collect()
}

fn flooded(extent: &Extent) -> Result<()> {
    at_a_site_of(Plan { flows: Some(FLOWS), ..PLAN }, |site| {
        // What is played back is a call's own, heard at its home.
        let home = Home::behind(&site.client, site.door(), SocketAddr::new(site.door().ip(), 8080), 1)?;
        let overheard = Load::start(&home.person, &site.url("echo"), 2, 4, Duration::from_secs(4))?;
        overheard.finish()?.none_ended()?;
        let heard = home.overheard();
        drop(home);

        let time = extent.time + Duration::from_secs(8);
        let load = Load::start(&site.client, &site.url("echo"), CALLS, 40, time)?;
        load.await_all(site)?;
        // Whose calls lose what they lose by their own doing.
        let home = Home::behind(&site.client, site.door(), SocketAddr::new(site.door().ip(), 8080), 2)?;
        let held = Load::start(&home.person, &site.url("echo"), 1, 1, time)?;
        held.await_more(site, CALLS)?;
        let floods = floods(site, heard, Holder::of(&home)?)?;
        let (stop, before) = (AtomicBool::new(false), dropped(site)?);
        let sent: Vec<(&str, AtomicU64)> = floods.iter().map(|flood| (flood.what, AtomicU64::new(0))).collect();
        let grown = thread::scope(|scope| {
            for (number, (flood, (_, sent))) in floods.into_iter().zip(&sent).enumerate() {
                let stop = &stop;
                scope.spawn(move || flood.run(extent.rate, number as u64, stop, sent));
            }
            let watched = watch(site, extent.time);
            stop.store(true, Relaxed);
            watched
        })?;
        let (outcome, after) = (load.finish()?, dropped(site)?);
        held.finish()?.none_ended()?;
        for (what, count) in &sent {
            println!("{} datagrams sent: {what}", count.load(Relaxed));
        }
        let counted: BTreeMap<_, _> = after.iter().map(|(reason, count)| (*reason, count - before[reason])).collect();
        println!("dropped by the relays: {counted:?}");
        println!("allocated meanwhile: {grown:?}");
        println!("{}", outcome.text());
        outcome.none_ended()?;
        ensure!(outcome.share() > 1.0 - LOST, "{}", outcome.text());
        ensure!(grown.iter().all(|(_, bytes)| *bytes < GROWTH), "{grown:?}");
        for reason in
            ["unknown_flow", "giant", "noise", "unknown_ufrag", "stranger", "crowded", "malformed", "strange_flow"]
        {
            ensure!(counted[reason] > 0.0, "nothing was dropped as {reason}: {counted:?}");
        }
        let unheard = crate::at_routers(site, "streamfleet_relay_unheard_total", "reason=\"key\"")?;
        ensure!(unheard > 0.0, "no announcement was found to be sealed with another key");
        let mut refused = 0.0;
        for number in 0..site.workers() {
            let metrics = site.at_worker(number, |server| server.metrics())??;
            refused += metrics.sum_where("streamfleet_media_dropped_total", "unknown_peer").unwrap_or_default();
            refused += metrics.sum_where("streamfleet_media_dropped_total", "not_relayed").unwrap_or_default();
        }
        ensure!(refused > 0.0, "workers have refused nothing");
        Ok(())
    })
}

/// Looks on for so long: tables stay within their bound. By how much each process has grown since a third of the time.
fn watch(site: &Site, time: Duration) -> Result<Vec<(String, i64)>> {
    let threads = thread::available_parallelism()?.get() as f64;
    thread::sleep(time / 3);
    let before = memory(site)?;
    let until = Instant::now() + time * 2 / 3;
    let mut most = 0.0_f64;
    while Instant::now() < until {
        for number in site.running() {
            let flows = site.router(number)?.sum_where("streamfleet_relay_flows", "own").unwrap_or_default();
            ensure!(flows <= f64::from(FLOWS) * threads, "{flows} flows at router {number}");
            most = most.max(flows);
        }
        thread::sleep(Duration::from_millis(500));
    }
    println!("at most {most} flows at one relay, whose table has {}", f64::from(FLOWS) * threads);
    let after = memory(site)?;
    Ok(after.into_iter().zip(before).map(|((name, after), (_, before))| (name, after as i64 - before as i64)).collect())
}
