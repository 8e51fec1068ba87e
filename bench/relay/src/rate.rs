//! A fixed rate: how long a packet is on its way, and what it costs when batches are small.
//!
//! The forwarder has a thread and a core of its own; whoever sends and receives has another, and takes a packet's time when it is
//! sent and when it has come. Variants take turns of a fraction of a second. `directly` is the same without a forwarder: what is
//! more than that is what a forwarder adds.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;
use serde_json::{Value, json};
use streamfleet_net::{Offload, Receiver, thread_cpu_time};

use crate::bare::Bare;
use crate::scene::{Clients, Nowhere, Scene, Worker, client, v4};
use crate::turns::quantile;

/// Of one variant at a time.
const TURN: Duration = Duration::from_millis(400);
/// Sent at once at most: whoever has been held up does not make it up in one go.
const AT_ONCE: u64 = 64;
/// What is under way is waited for.
const REST: Duration = Duration::from_millis(5);

pub(crate) enum Subject {
    Directly(Worker),
    Bare { bare: Bare, sink: Worker },
    Relay(Box<Scene>),
}

impl Subject {
    pub(crate) fn directly() -> anyhow::Result<Self> {
        Ok(Self::Directly(Worker::bind(Ipv4Addr::LOCALHOST, Offload::Off)?))
    }

    pub(crate) fn bare() -> anyhow::Result<Self> {
        let sink = Worker::bind(Ipv4Addr::LOCALHOST, Offload::Off)?;
        let bare = Bare::bind((Ipv4Addr::LOCALHOST, 0).into(), v4(sink.address), 1)?;
        bare.set_patience(Duration::from_millis(20))?;
        Ok(Self::Bare { bare, sink })
    }
}

/// What one turn has shown.
#[derive(Default)]
struct Turn {
    microseconds: Vec<f64>,
    sent: u64,
    cpu: Duration,
}

/// Client to worker, at so many packets a second.
pub(crate) fn compare(
    subjects: &mut [(String, Subject)],
    rate: u64,
    size: usize,
    flows: usize,
    turns: usize,
    clients: &mut Clients,
) -> anyhow::Result<Value> {
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    let mut found: Vec<Vec<Turn>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..turns {
        order.shuffle(&mut rand::rng());
        for n in &order {
            found[*n].push(turn(&mut subjects[*n].1, rate, size, flows, clients)?);
        }
    }
    let rows: Vec<Value> = subjects
        .iter()
        .zip(found)
        .map(|((name, _), turns)| {
            let sent: u64 = turns.iter().map(|turn| turn.sent).sum();
            let came: usize = turns.iter().map(|turn| turn.microseconds.len()).sum();
            let of = |q: f64| {
                let mut each: Vec<f64> = turns.iter().map(|turn| quantile(&mut turn.microseconds.clone(), q)).collect();
                quantile(&mut each, 0.5)
            };
            let mut ns: Vec<f64> = turns.iter().map(|turn| turn.cpu.as_nanos() as f64 / turn.sent as f64).collect();
            let lost = sent.saturating_sub(came as u64);
            json!({ "variant": name, "p50_us": of(0.5), "p99_us": of(0.99), "ns": quantile(&mut ns, 0.5), "sent": sent, "lost": lost })
        })
        .collect();
    Ok(json!({ "rate": rate, "size": size, "flows": flows, "turns": turns, "rows": rows }))
}

fn turn(subject: &mut Subject, rate: u64, size: usize, flows: usize, clients: &mut Clients) -> anyhow::Result<Turn> {
    let stop = AtomicBool::new(false);
    match subject {
        Subject::Directly(sink) => {
            let to = v4(sink.address);
            drive(clients, to, &mut sink.receiver, rate, size, flows)
        }
        Subject::Bare { bare, sink } => {
            let to = v4(bare.address());
            beside(
                &stop,
                || while_running(&stop, || bare.step(libc::MSG_WAITFORONE).map(|_| ())),
                || drive(clients, to, &mut sink.receiver, rate, size, flows),
            )
        }
        Subject::Relay(scene) => {
            let Scene { carrier, cast } = &mut **scene;
            let to = cast.door;
            beside(
                &stop,
                || while_running(&stop, || carrier.step(&Nowhere, |_| {})),
                || drive(clients, to, &mut cast.workers[0].receiver, rate, size, flows),
            )
        }
    }
}

fn while_running(stop: &AtomicBool, mut step: impl FnMut() -> std::io::Result<()>) -> std::io::Result<Duration> {
    let before = thread_cpu_time();
    while !stop.load(Relaxed) {
        step()?;
    }
    Ok(thread_cpu_time() - before)
}

/// The forwarder on a thread of its own while something is sent through it.
fn beside(
    stop: &AtomicBool,
    forward: impl FnOnce() -> std::io::Result<Duration> + Send,
    drive: impl FnOnce() -> anyhow::Result<Turn>,
) -> anyhow::Result<Turn> {
    // It begins where whoever starts it is, who does not stop.
    let moved = Barrier::new(2);
    std::thread::scope(|scope| {
        let forwarder = scope.spawn(|| {
            pin(0);
            moved.wait();
            forward()
        });
        moved.wait();
        let turn = drive();
        stop.store(true, Relaxed);
        let cpu = forwarder.join().map_err(|_| anyhow::anyhow!("the forwarder has panicked"))??;
        Ok(Turn { cpu, ..turn? })
    })
}

/// Sends at a rate, and takes the time of what comes.
fn drive(
    clients: &mut Clients,
    to: SocketAddrV4,
    sink: &mut Receiver,
    rate: u64,
    size: usize,
    flows: usize,
) -> anyhow::Result<Turn> {
    pin(1);
    let (begun, mut turn, mut at) = (Instant::now(), Turn::default(), 0);
    let mut media = vec![128; size];
    let mut due = 0;
    loop {
        let now = begun.elapsed();
        if now < TURN {
            let planned = now.as_nanos() as u64 * rate / 1_000_000_000;
            let some = (planned - due).min(AT_ONCE);
            // What was not sent in time is left out.
            due = planned;
            for _ in 0..some {
                at = (at + 7_919) % flows;
                media[8..16].copy_from_slice(&(begun.elapsed().as_nanos() as u64).to_be_bytes());
                clients.burst.push(client(at), to, &[&media]);
            }
            turn.sent += clients.send()? as u64;
        } else if now > TURN + REST {
            return Ok(turn);
        }
        sink.recv()?;
        let now = begun.elapsed().as_nanos() as u64;
        for (datagram, _) in sink.datagrams() {
            let Some(tail) = datagram.len().checked_sub(size).map(|from| &datagram[from..]) else { continue };
            let Some(Ok(sent)) = tail.get(8..16).map(<[u8; 8]>::try_from) else { continue };
            turn.microseconds.push(now.saturating_sub(u64::from_be_bytes(sent)) as f64 / 1e3);
        }
    }
}

/// Keeps the thread on one of two cores, and others off it while it has something to do (`SCHED_FIFO`): on a shared machine it is
/// others' turns that would be measured. Where it may not, it measures those too.
pub(crate) fn pin(core: usize) {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread, and the parameters are live.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const priority) };
    // SAFETY: an all-zero set, changed and read by the kernel.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}
