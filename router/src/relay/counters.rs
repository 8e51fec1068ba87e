//! What a relay's threads count, all together, as metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use streamfleet_carrier::{Counters, Way};
use streamfleet_relay::Drop;

use super::told::Elsewhere;

/// Puts what threads count into the metrics.
pub(super) fn observe(meter: &Meter, threads: Vec<Arc<Counters>>, untold: Arc<AtomicU64>, elsewhere: Arc<Elsewhere>) {
    let sum = |threads: &[Arc<Counters>], read: &dyn Fn(&Counters) -> u64| -> u64 {
        threads.iter().map(|counters| read(counters)).sum()
    };
    let by_direction =
        |name: &'static str, unit: &'static str, about: &'static str, read: fn(&Counters, Way) -> u64| {
            let threads = threads.clone();
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |observer| {
                    for way in Way::ALL {
                        let count = sum(&threads, &|counters| read(counters, way));
                        observer.observe(count, &[KeyValue::new("direction", way.as_str())]);
                    }
                })
                .build();
        };
    by_direction("streamfleet_relay_packets", "{packet}", "Packets that the relay has passed on", Counters::packets);
    by_direction(
        "streamfleet_relay_octets",
        "By",
        "What they held, headers between relay and worker included",
        Counters::octets,
    );
    by_direction("streamfleet_relay_unsent", "{packet}", "Packets that the kernel did not take", Counters::unsent);
    let of = threads.clone();
    meter
        .u64_observable_counter("streamfleet_relay_dropped")
        .with_unit("{packet}")
        .with_description("Packets that went no further, by why")
        .with_callback(move |observer| {
            for why in Drop::ALL {
                let count = sum(&of, &|counters| counters.dropped(why));
                observer.observe(count, &[KeyValue::new("reason", why.as_str())]);
            }
        })
        .build();
    meter
        .u64_observable_counter("streamfleet_relay_untold")
        .with_description("Flows that other relays were not told of at once")
        .with_callback(move |observer| observer.observe(untold.load(Relaxed), &[]))
        .build();
    meter
        .u64_observable_gauge("streamfleet_relay_flows")
        .with_description("Clients' addresses that the relay knows, and those that others have told it of")
        .with_callback(move |observer| {
            let own = sum(&threads, &Counters::flows);
            observer.observe(own, &[KeyValue::new("of", "own")]);
            observer.observe(elsewhere.len() as u64, &[KeyValue::new("of", "others")]);
        })
        .build();
}
