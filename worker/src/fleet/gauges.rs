//! What is counted of a worker's part in its fleet. Labels are closed sets.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use streamfleet_store::{Answered, Observer};

use super::Member;

/// Upper bounds of a store's answers, in seconds: in one network one takes half a millisecond, and none more than half a second.
const STORE_SECONDS: [f64; 9] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 0.5];

/// Where a service of this worker is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// The store does not know it.
    #[default]
    Outside,
    /// It writes its sessions again, and is given none.
    Restoring,
    /// It is given sessions.
    Serving,
    /// It finishes those that it has.
    Draining,
    /// It has finished them.
    Drained,
    /// Its name is another process's.
    Fenced,
}

impl State {
    const ALL: [Self; 6] = [Self::Outside, Self::Restoring, Self::Serving, Self::Draining, Self::Drained, Self::Fenced];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Restoring => "restoring",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Fenced => "fenced",
        }
    }
}

/// What came of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    Renewed,
    Unregistered,
    Fenced,
    Away,
}

impl Renewal {
    const ALL: [Self; 4] = [Self::Renewed, Self::Unregistered, Self::Fenced, Self::Away];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Unregistered => "unregistered",
            Self::Fenced => "fenced",
            Self::Away => "away",
        }
    }
}

/// What is counted; nothing, by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct FleetMetrics(Option<Arc<Instruments>>);

#[derive(Debug)]
struct Instruments {
    renewals: Counter<u64>,
    restored: Counter<u64>,
    superseded: Counter<u64>,
    seconds: Histogram<f64>,
    errors: Counter<u64>,
}

impl FleetMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        let renewals: Counter<u64> = counter("streamfleet_fleet_renewals", "Renewals of leases, by outcome.");
        for outcome in Renewal::ALL {
            renewals.add(0, &[KeyValue::new("outcome", outcome.as_str())]);
        }
        let restored: Counter<u64> =
            counter("streamfleet_fleet_sessions_restored", "Sessions that the store was told of again.");
        let superseded: Counter<u64> =
            counter("streamfleet_fleet_sessions_superseded", "Sessions whose id is another one's by now.");
        restored.add(0, &[]);
        superseded.add(0, &[]);
        let seconds = meter
            .f64_histogram("streamfleet_store_seconds")
            .with_description("The store's answers, by command.")
            .with_boundaries(STORE_SECONDS.to_vec())
            .build();
        let errors = counter("streamfleet_store_errors", "Commands that the store could not answer, by command.");
        Self(Some(Arc::new(Instruments { renewals, restored, superseded, seconds, errors })))
    }

    pub(super) fn renewed(&self, outcome: Renewal) {
        if let Some(counted) = &self.0 {
            counted.renewals.add(1, &[KeyValue::new("outcome", outcome.as_str())]);
        }
    }

    pub(super) fn restored(&self) {
        if let Some(counted) = &self.0 {
            counted.restored.add(1, &[]);
        }
    }

    pub(super) fn superseded(&self) {
        if let Some(counted) = &self.0 {
            counted.superseded.add(1, &[]);
        }
    }
}

impl Observer for FleetMetrics {
    fn answered(&self, command: &'static str, answered: Answered, after: Duration) {
        let Some(counted) = &self.0 else { return };
        let label = [KeyValue::new("command", command)];
        counted.seconds.record(after.as_secs_f64(), &label);
        if answered == Answered::No {
            counted.errors.add(1, &label);
        }
    }
}

/// Shows where the services are, and what waits for the store.
pub(crate) fn observe(meter: &Meter, members: &[Arc<Member>]) {
    let members: Arc<[Arc<Member>]> = members.into();
    let of = members.clone();
    meter
        .u64_observable_gauge("streamfleet_fleet_state")
        .with_description("Services of this worker, by where they are in their fleet.")
        .with_callback(move |observer| {
            for state in State::ALL {
                let count = of.iter().filter(|member| member.state() == state).count();
                observer.observe(count as u64, &[KeyValue::new("state", state.as_str())]);
            }
        })
        .build();
    let of = members.clone();
    meter
        .u64_observable_gauge("streamfleet_fleet_contexts_waiting")
        .with_description("Contexts of which the store does not have the last words.")
        .with_callback(move |observer| {
            observer.observe(of.iter().map(|member| member.contexts().waiting() as u64).sum(), &[]);
        })
        .build();
    meter
        .u64_observable_gauge("streamfleet_fleet_outputs_waiting")
        .with_description("Outputs that the store does not have yet.")
        .with_callback(move |observer| {
            observer.observe(members.iter().map(|member| member.journal().waiting()).sum(), &[]);
        })
        .build();
}

#[cfg(test)]
mod tests {
    use streamfleet_process::telemetry::Metrics;
    use streamfleet_store::{Memory, Observed, StoreError};

    use super::*;
    use crate::fleet::Member;

    #[tokio::test]
    async fn what_is_shown() {
        let all = Metrics::new("test", "0");
        let meter = all.meter("worker");
        let metrics = FleetMetrics::new(&meter);
        let store = Arc::new(Observed::new(Arc::new(Memory::default()), Arc::new(metrics.clone())));
        let member = Member::new("echo".parse().unwrap(), "w".parse().unwrap(), store).counted(metrics.clone());
        let members = [Arc::new(member)];
        observe(&meter, &members);
        let shown = |line: &str| assert!(all.render().lines().any(|l| l == line), "{line}\n{}", all.render());
        let name = |rest: &str| format!("streamfleet_fleet_{rest}");
        shown(&name("state{state=\"outside\"} 1"));
        members[0].shows(State::Draining);
        shown(&name("state{state=\"outside\"} 0"));
        shown(&name("state{state=\"draining\"} 1"));
        members[0].metrics().renewed(Renewal::Away);
        shown(&name("renewals_total{outcome=\"away\"} 1"));
        shown(&name("renewals_total{outcome=\"renewed\"} 0"));
        members[0].metrics().superseded();
        shown(&name("sessions_superseded_total 1"));
        shown(&name("sessions_restored_total 0"));
        shown(&name("contexts_waiting 0"));
        shown(&name("outputs_waiting 0"));
        let answer: Result<_, StoreError> = members[0].outputs(&"s".parse().unwrap(), None).await;
        assert_eq!(answer, Ok(None));
        shown("streamfleet_store_seconds_count{command=\"outputs\"} 1");
        metrics.answered("renew", Answered::No, Duration::ZERO);
        shown("streamfleet_store_errors_total{command=\"renew\"} 1");
    }
}
