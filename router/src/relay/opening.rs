//! What ufrags say, and how many say nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use streamfleet_relay::{Target, Ufrags};
use streamfleet_session::ufrag::{Opened, Seal, Unopened};

/// Opens for the relay's threads. They share its counts, which are written for ufrags of strangers alone.
#[derive(Clone)]
pub(crate) struct Opening {
    seal: Arc<Seal>,
    unopened: Arc<[AtomicU64; Unopened::ALL.len()]>,
}

impl Opening {
    pub(crate) fn new(seal: Arc<Seal>, meter: &Meter) -> Self {
        let unopened: Arc<[AtomicU64; Unopened::ALL.len()]> = Arc::default();
        let counts = unopened.clone();
        meter
            .u64_observable_counter("streamfleet_relay_unopened")
            .with_unit("{check}")
            .with_description("Checks whose ufrag leads nowhere, by why")
            .with_callback(move |observer| {
                for (why, count) in Unopened::ALL.iter().zip(&*counts) {
                    observer.observe(count.load(Relaxed), &[KeyValue::new("reason", why.as_str())]);
                }
            })
            .build();
        Self { seal, unopened }
    }
}

impl Ufrags for Opening {
    fn open(&self, ufrag: &str) -> Option<Target> {
        match self.seal.open(ufrag.as_bytes()) {
            Ok(Opened { target: worker, key }) => Some(Target { worker, key }),
            Err(why) => {
                self.unopened[why as usize].fetch_add(1, Relaxed);
                None
            }
        }
    }
}
