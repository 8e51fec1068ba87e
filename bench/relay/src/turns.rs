//! Variants that take turns in one thread: CPU time of a packet, compared as ratios.
//!
//! A round is 256 packets that wait at a socket before the variant begins, so that its batches are full: it is saturated. What
//! sends and receives them is not measured. A slice is rounds of one variant for about 30 ms, of which the first is not counted
//! (its caches are another's); the variants take turns in an order drawn anew each time. A ratio is one slice's over the bare
//! forwarder's in the same turn, and what is told is the median of those.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;
use serde_json::{Value, json};
use streamfleet_carrier::Way;
use streamfleet_net::{Offload, thread_cpu_time};

use crate::bare::Bare;
use crate::burst::Burst;
use crate::scene::{Clients, Lengths, Media, ROUND, Scene, Worker, carry, client, drain, v4};

const SLICE: Duration = Duration::from_millis(30);

pub(crate) enum Variant {
    Bare { bare: Bare, sink: Box<Worker> },
    Relay(Box<Scene>),
}

pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) flows: usize,
    pub(crate) variant: Variant,
}

impl Variant {
    pub(crate) fn bare(own: Ipv4Addr, sink: Worker) -> anyhow::Result<Self> {
        Ok(Self::Bare { bare: Bare::bind((own, 0).into(), v4(sink.address), 1)?, sink: Box::new(sink) })
    }

    /// One that sends to as many addresses as a relay with so many flows: what it costs more is the receiving kernel's.
    pub(crate) fn bare_to_many(flows: usize) -> anyhow::Result<Self> {
        let sink = Worker::bind(Ipv4Addr::UNSPECIFIED, Offload::Off)?;
        let first = SocketAddrV4::new(client(0), sink.address.port());
        Ok(Self::Bare { bare: Bare::bind((Ipv4Addr::LOCALHOST, 0).into(), first, flows as u32)?, sink: Box::new(sink) })
    }

    fn round(&mut self, way: Way, media: &mut Media, clients: &mut Clients) -> anyhow::Result<Duration> {
        let mut cpu = Duration::ZERO;
        match self {
            Self::Bare { bare, sink } => {
                let to = v4(bare.address());
                let burst: &mut Burst = &mut clients.burst;
                (0..ROUND).for_each(|n| burst.push(client(n), to, &[media.next()]));
                clients.send()?;
                call_thread(c"bare");
                let before = thread_cpu_time();
                let mut passed = 0;
                while passed < ROUND {
                    passed += bare.step(libc::MSG_DONTWAIT)?;
                }
                cpu = thread_cpu_time() - before;
                call_thread(c"around");
                let came = drain(&mut sink.receiver)?;
                anyhow::ensure!(came == ROUND, "{came} of {ROUND} came");
            }
            Self::Relay(scene) => scene.round(way, media, clients, |carrier| {
                call_thread(c"relay");
                let before = thread_cpu_time();
                carry(carrier, ROUND)?;
                cpu = thread_cpu_time() - before;
                call_thread(c"around");
                Ok(())
            })?,
        }
        Ok(cpu)
    }

    /// Nanoseconds a packet.
    fn slice(&mut self, way: Way, media: &mut Media, clients: &mut Clients) -> anyhow::Result<f64> {
        self.round(way, media, clients)?;
        let (begun, mut spent, mut rounds) = (Instant::now(), Duration::ZERO, 0);
        while rounds == 0 || begun.elapsed() < SLICE {
            spent += self.round(way, media, clients)?;
            rounds += 1;
        }
        Ok(spent.as_nanos() as f64 / (rounds * ROUND) as f64)
    }
}

/// Lets all variants take so many turns; the first is the one that the others are compared with.
pub(crate) fn compare(
    variants: &mut [Named],
    way: Way,
    lengths: Lengths,
    turns: usize,
    clients: &mut Clients,
) -> anyhow::Result<Value> {
    let mut media = Media::new(lengths);
    let mut order: Vec<usize> = (0..variants.len()).collect();
    let mut costs = vec![Vec::new(); variants.len()];
    for _ in 0..turns {
        order.shuffle(&mut rand::rng());
        for n in &order {
            costs[*n].push(variants[*n].variant.slice(way, &mut media, clients)?);
        }
    }
    let rows: Vec<Value> = variants
        .iter()
        .zip(&costs)
        .map(|(named, of)| {
            let mut ratios: Vec<f64> = of.iter().zip(&costs[0]).map(|(cost, bare)| cost / bare).collect();
            let mut of = of.clone();
            let (middle, ratio) = (quantile(&mut of, 0.5), quantile(&mut ratios, 0.5));
            let spread = [quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75)];
            json!({ "variant": named.name, "flows": named.flows, "ns": middle, "ratio": ratio, "quartiles": spread })
        })
        .collect();
    Ok(json!({ "way": way.as_str(), "size": lengths.told(), "turns": turns, "rows": rows }))
}

/// For `perf report --comm relay`: what is measured is told from what is around it.
fn call_thread(name: &std::ffi::CStr) {
    // SAFETY: a string that ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Of so many values, sorted by this.
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}
