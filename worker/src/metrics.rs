//! What the worker counts, for the metrics endpoint. Labels are closed sets; ids are in logs and traces.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use streamfleet_session::CloseReason;
use streamfleet_store::{Memory, Usage};

use crate::media::{Counters, Drop, Reading};

/// Sessions, by how they ended.
#[derive(Clone, Debug)]
pub struct SessionMetrics {
    ended: Counter<u64>,
    seconds: Histogram<f64>,
    meter: Meter,
}

impl SessionMetrics {
    /// Registers the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let ended = meter
            .u64_counter("streamfleet_sessions_ended")
            .with_description("Sessions that are over, by reason.")
            .build();
        // Every reason is there from the start, so that a rate over it is defined.
        for reason in CloseReason::ALL {
            ended.add(0, &[KeyValue::new("reason", reason.as_str())]);
        }
        let seconds = meter
            .f64_histogram("streamfleet_session_duration_seconds")
            .with_description("From the answer to the end.")
            .with_boundaries(vec![1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0])
            .build();
        SessionMetrics { ended, seconds, meter: meter.clone() }
    }

    pub(crate) fn ended(&self, reason: CloseReason, lasted: Duration) {
        self.ended.add(1, &[KeyValue::new("reason", reason.as_str())]);
        self.seconds.record(lasted.as_secs_f64(), &[]);
    }

    /// Shows what is remembered of sessions, and what could not be kept of those that are over.
    pub(crate) fn observe_contexts(&self, contexts: &Arc<Memory>) {
        let gauge = |name: &'static str, help: &'static str, read: fn(&Usage) -> usize| {
            let contexts = contexts.clone();
            self.meter
                .u64_observable_gauge(name)
                .with_description(help)
                .with_callback(move |observer| observer.observe(read(&contexts.usage()) as u64, &[]))
                .build()
        };
        gauge("streamfleet_contexts", "Contexts of sessions that live, or could be resumed.", |usage| usage.contexts);
        gauge("streamfleet_context_bytes", "Bytes of their data, as JSON.", |usage| usage.bytes);
        let contexts = contexts.clone();
        self.meter
            .u64_observable_counter("streamfleet_contexts_evicted")
            .with_description("Contexts of sessions that are over, forgotten before their time, by what was short.")
            .with_callback(move |observer| {
                let usage = contexts.usage();
                for (reason, n) in [
                    ("contexts", usage.evicted_for_contexts),
                    ("bytes", usage.evicted_for_bytes),
                    ("same_id", usage.evicted_of_their_key),
                ] {
                    observer.observe(n, &[KeyValue::new("reason", reason)]);
                }
            })
            .build();
    }
}

/// Shows the loops' counters, which the loops write without knowing of metrics.
pub fn observe_loops(meter: &Meter, loops: Vec<Arc<Counters>>) {
    let loops: Arc<[Arc<Counters>]> = loops.into();
    let counter = |name: &'static str, help: &'static str, read: fn(&Reading) -> u64| {
        let loops = loops.clone();
        meter
            .u64_observable_counter(name)
            .with_description(help)
            .with_callback(move |observer| observer.observe(loops.iter().map(|l| read(&l.read())).sum(), &[]))
            .build()
    };
    counter("streamfleet_media_packets_received", "Authenticated RTP packets.", |r| r.packets_in);
    counter("streamfleet_media_octets_received", "Octets of authenticated RTP.", |r| r.octets_in);
    counter("streamfleet_media_datagrams_sent", "Datagrams that the kernel took.", |r| r.packets_out);
    counter("streamfleet_media_datagrams_unsent", "Datagrams that the kernel refused.", |r| r.send_dropped);
    counter("streamfleet_media_messages_received", "Data-channel messages of clients.", |r| r.messages);
    counter("streamfleet_media_paths_moved", "Clients followed to another address.", |r| r.moved);
    counter("streamfleet_media_loop_turns", "Turns of the media loops.", |r| r.wakes);
    let sessions = loops.clone();
    meter
        .u64_observable_gauge("streamfleet_media_sessions")
        .with_description("Sessions on the media loops.")
        .with_callback(move |observer| observer.observe(sessions.iter().map(|l| l.read().sessions).sum(), &[]))
        .build();
    meter
        .u64_observable_counter("streamfleet_media_dropped")
        .with_description("What the media loops dropped, by reason.")
        .with_callback(move |observer| {
            for reason in Drop::ALL {
                let n = loops.iter().map(|l| l.drops(reason)).sum();
                observer.observe(n, &[KeyValue::new("reason", reason.as_str())]);
            }
        })
        .build();
}
