//! What a relay counts: by all threads together, read by the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use std::sync::Arc;
use streamfleet_net::SendReport;
use streamfleet_relay::Drop;

use super::told::Elsewhere;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToWorker,
    ToClient,
}

impl Direction {
    const ALL: [Self; 2] = [Self::ToWorker, Self::ToClient];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ToWorker => "to_worker",
            Self::ToClient => "to_client",
        }
    }
}

/// One thread's, so that no two threads write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    packets: [AtomicU64; 2],
    octets: [AtomicU64; 2],
    /// The kernel took none of these: its buffers were full, or there was no way.
    unsent: [AtomicU64; 2],
    dropped: [AtomicU64; Drop::ALL.len()],
    untold: AtomicU64,
    flows: AtomicU64,
}

impl Counters {
    pub(super) fn sent(&self, direction: Direction, report: &SendReport, octets: u64) {
        let way = direction as usize;
        self.packets[way].fetch_add(report.sent.into(), Relaxed);
        self.unsent[way].fetch_add(report.dropped.into(), Relaxed);
        self.octets[way].fetch_add(octets, Relaxed);
    }

    pub(super) fn dropped(&self, why: Drop) {
        self.dropped[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn untold(&self) {
        self.untold.fetch_add(1, Relaxed);
    }

    pub(super) fn set_flows(&self, flows: usize) {
        self.flows.store(flows as u64, Relaxed);
    }
}

/// Puts what threads count into the metrics.
pub(super) fn observe(meter: &Meter, threads: Vec<Arc<Counters>>, elsewhere: Arc<Elsewhere>) {
    let sum = |threads: &[Arc<Counters>], read: &dyn Fn(&Counters) -> &AtomicU64| -> u64 {
        threads.iter().map(|counters| read(counters).load(Relaxed)).sum()
    };
    let by_direction =
        |name: &'static str, unit: &'static str, about: &'static str, read: fn(&Counters, usize) -> &AtomicU64| {
            let threads = threads.clone();
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |observer| {
                    for direction in Direction::ALL {
                        let count = sum(&threads, &|counters| read(counters, direction as usize));
                        observer.observe(count, &[KeyValue::new("direction", direction.as_str())]);
                    }
                })
                .build();
        };
    by_direction("streamfleet_relay_packets", "{packet}", "Packets that the relay has passed on", |c, way| {
        &c.packets[way]
    });
    by_direction(
        "streamfleet_relay_octets",
        "By",
        "What they held, headers between relay and worker included",
        |c, way| &c.octets[way],
    );
    by_direction("streamfleet_relay_unsent", "{packet}", "Packets that the kernel did not take", |c, way| {
        &c.unsent[way]
    });
    let of = threads.clone();
    meter
        .u64_observable_counter("streamfleet_relay_dropped")
        .with_unit("{packet}")
        .with_description("Packets that went no further, by why")
        .with_callback(move |observer| {
            for why in Drop::ALL {
                let count = sum(&of, &|counters| &counters.dropped[why as usize]);
                observer.observe(count, &[KeyValue::new("reason", why.as_str())]);
            }
        })
        .build();
    let of = threads.clone();
    meter
        .u64_observable_counter("streamfleet_relay_untold")
        .with_description("Flows that other relays were not told of at once")
        .with_callback(move |observer| observer.observe(sum(&of, &|counters| &counters.untold), &[]))
        .build();
    meter
        .u64_observable_gauge("streamfleet_relay_flows")
        .with_description("Clients' addresses that the relay knows, and those that others have told it of")
        .with_callback(move |observer| {
            let own = sum(&threads, &|counters| &counters.flows);
            observer.observe(own, &[KeyValue::new("of", "own")]);
            observer.observe(elsewhere.len() as u64, &[KeyValue::new("of", "others")]);
        })
        .build();
}
