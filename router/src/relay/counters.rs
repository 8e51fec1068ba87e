//! What a relay's threads count, all together, as metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry::KeyValue;
use streamfleet_carrier::{Counters, Histogram, Way};
use streamfleet_process::telemetry::{Counted, Metrics};
use streamfleet_relay::Drop;
use streamfleet_relay::announce::Unheard;
use streamfleet_relay::told::Whose;

use super::peers;
use super::told::Elsewhere;

/// Puts what threads count into the metrics.
pub(super) fn observe(
    metrics: &Metrics,
    threads: &[Arc<Counters>],
    untold: Arc<AtomicU64>,
    peers: Arc<peers::Counts>,
    elsewhere: Arc<Elsewhere>,
) {
    let (meter, threads) = (&metrics.meter("relay"), threads.to_vec());
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
        "What they held, as clients send and receive it: without headers between relay and worker",
        Counters::octets,
    );
    by_direction(
        "streamfleet_relay_overflowed",
        "{packet}",
        "Packets that the kernel dropped because the relay had not taken those before them",
        Counters::overflowed,
    );
    let of = threads.clone();
    metrics.histograms("streamfleet_relay_batch_packets", "Packets that the relay took at once", move || {
        Way::ALL.map(|way| counted(&of, way, Counters::batches, 1.0)).into()
    });
    let of = threads.clone();
    metrics.histograms(
        "streamfleet_relay_delay_seconds",
        "How long packets of one batch in sixteen were in the relay's hands",
        move || Way::ALL.map(|way| counted(&of, way, Counters::delays, 1e-6)).into(),
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
    let of = peers.clone();
    meter
        .u64_observable_counter("streamfleet_relay_unheard")
        .with_unit("{datagram}")
        .with_description("Datagrams between relays that say nothing, by why")
        .with_callback(move |observer| {
            for why in Unheard::ALL {
                observer.observe(of.unheard(why), &[KeyValue::new("reason", why.as_str())]);
            }
        })
        .build();
    meter
        .u64_observable_counter("streamfleet_relay_peer_overflowed")
        .with_unit("{datagram}")
        .with_description(
            "Datagrams of other relays that the kernel dropped because those before them had not been taken",
        )
        .with_callback(move |observer| observer.observe(peers.overflowed(), &[]))
        .build();
    meter
        .u64_observable_gauge("streamfleet_relay_flows")
        .with_description("Clients' addresses that the relay knows, and those that others have told it of")
        .with_callback(move |observer| {
            let own = sum(&threads, &Counters::flows);
            observer.observe(own, &[KeyValue::new("of", "own")]);
            observer.observe(elsewhere.count(Whose::Others) as u64, &[KeyValue::new("of", "others")]);
        })
        .build();
}

/// All threads' histogram of one way, in another unit.
fn counted(threads: &[Arc<Counters>], way: Way, read: impl Fn(&Counters, Way) -> &Histogram, unit: f64) -> Counted {
    let (mut bounds, mut counts, mut sum): (Vec<f64>, Vec<u64>, u64) = (Vec::new(), Vec::new(), 0);
    for thread in threads {
        let histogram = read(thread, way);
        bounds = histogram.bounds().iter().map(|bound| *bound as f64 * unit).collect();
        counts.resize(bounds.len() + 1, 0);
        counts.iter_mut().zip(histogram.counts()).for_each(|(all, count)| *all += count);
        sum += histogram.sum();
    }
    Counted { labels: vec![("direction", way.as_str())], bounds, counts, sum: sum as f64 * unit }
}
