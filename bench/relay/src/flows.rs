//! What a flow needs: memory, and to be told to other relays.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use streamfleet_net::{heap_in_use, thread_cpu_time};
use streamfleet_relay::announce::{Announcer, Listener, MOST, Said};
use streamfleet_relay::told::{AGAIN, Told, Whose};
use streamfleet_relay::{Announced, Bounds, Relay, SessionHandle, Target};
use streamfleet_session::ufrag::SessionKey;

use crate::scene::{Minted, Nowhere, check, client};

const DOOR: u16 = 3478;

pub(crate) fn measure(flows: usize) -> anyhow::Result<Value> {
    let worker = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
    let minted = Minted(vec![worker]);
    let (check, now) = (check(0), Duration::from_secs(1));
    let before = (heap_in_use().context("this C library does not tell")?, resident()?);
    let mut relay = Relay::new(minted, Bounds { flows, per_session: u32::MAX, ..Bounds::default() }, 1);
    for n in 0..flows {
        let from = SocketAddr::from((client(n), 1));
        let taken = relay.from_client(from, DOOR, &check, now, &Nowhere);
        taken.map_err(|why| anyhow::anyhow!("flow {n}: {}", why.as_str()))?;
    }
    let after = (heap_in_use().unwrap_or(0), resident()?);
    anyhow::ensure!(relay.flows() == flows, "{} flows", relay.flows());
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / flows as f64;

    let target = Target { worker, key: SessionKey::from_bytes([7; 16]) };
    let announced = |n| Announced {
        client: SocketAddr::from((client(n), 1)),
        door: DOOR,
        target,
        session: SessionHandle(n as u32 + 1),
        silent: Duration::ZERO,
    };
    let all: Vec<Announced> = (0..flows).map(announced).collect();
    let unix = Duration::from_secs(1_700_000_000);
    let (key, began) = ([9; 32], thread_cpu_time());
    let mut announcer = Announcer::new(1, &key, [1; 8]);
    let said: Option<Vec<Vec<u8>>> = all.chunks(MOST).map(|some| announcer.say(some, unix)).collect();
    let mut said = said.context("it says no more")?;
    let saying = thread_cpu_time() - began;
    let octets: usize = said.iter().map(Vec::len).sum();
    let (mut listener, before_told, began) = (Listener::new([(1, key)]), heap_in_use().unwrap_or(0), thread_cpu_time());
    let mut told = Told::new(flows);
    for datagram in &mut said {
        let Said::Flows(some) = listener.hear(datagram, unix)? else { anyhow::bail!("it tells of no flows") };
        some.into_iter().for_each(|flow| told.tell(flow, Whose::Others, now));
    }
    let hearing = thread_cpu_time() - began;
    anyhow::ensure!(told.count(Whose::Others) == flows, "{} flows are known", told.count(Whose::Others));
    Ok(json!({
        "flows": flows,
        "heap_octets": each(before.0, after.0),
        "resident_octets": each(before.1, after.1),
        "told_octets": each(before_told, heap_in_use().unwrap_or(0)),
        "again_s": AGAIN.as_secs(),
        "datagrams": said.len(),
        "datagram_octets": octets,
        "saying_us": saying.as_secs_f64() * 1e6 / flows as f64,
        "hearing_us": hearing.as_secs_f64() * 1e6 / flows as f64,
    }))
}

/// What the process has in memory, octets.
fn resident() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("it is empty")?.parse()?;
    Ok(pages * 4096)
}
