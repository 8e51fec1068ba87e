//! The store is told how many calls wait here for a worker, and how many were refused for want of one: what brings a service back
//! from nothing, and tells a fleet that is full how much more is wanted of it.
//!
//! At once when calls begin to wait for a service and when none waits any more, and every second in between: what was said is believed
//! for [`HELD_LEASE`](streamfleet_store::HELD_LEASE) only, so a router that is gone needs no goodbye.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use streamfleet_session::ServiceName;
use streamfleet_store::{HELD_LEASE, RouterId, Store, Waits};
use tokio::time::sleep;

use crate::hold::Hold;

/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two rounds at least: calls that come and go all the time are not worth a command each.
const GAP: Duration = Duration::from_millis(100);
/// Services of which the store is told at a time.
const AT_ONCE: usize = 16;

/// What the store believes of this router, and what it has not been told.
#[derive(Debug, Default)]
struct Believed {
    /// By service: until when it believes that calls wait.
    until: HashMap<ServiceName, Instant>,
    /// By service: calls that were refused. Of as many services as are configured.
    unheard: HashMap<ServiceName, u32>,
}

impl Believed {
    /// What is to be said when so many wait and so many more were refused: of each service of which there is anything, and of those
    /// for which the store believes that somebody waits and nobody does any more.
    fn due(
        &mut self,
        waiting: &HashMap<ServiceName, u32>,
        refused: HashMap<ServiceName, u32>,
        now: Instant,
    ) -> Vec<(ServiceName, Waits)> {
        for (service, count) in refused {
            let unheard = self.unheard.entry(service).or_default();
            *unheard = unheard.saturating_add(count);
        }
        self.until.retain(|service, until| *until > now || waiting.contains_key(service));
        let of_whom: BTreeSet<ServiceName> =
            waiting.keys().chain(self.until.keys()).chain(self.unheard.keys()).cloned().collect();
        let say = |service: ServiceName| {
            let of = |counts: &HashMap<ServiceName, u32>| counts.get(&service).copied().unwrap_or(0);
            let waits = Waits { held: of(waiting), refused: of(&self.unheard) };
            (service, waits)
        };
        of_whom.into_iter().map(say).collect()
    }

    /// Something is being said. Its answer may be lost, so that somebody waits may be believed whatever comes back.
    fn saying(&mut self, service: &ServiceName, waits: Waits, now: Instant) {
        if waits.held > 0 {
            self.until.insert(service.clone(), now + HELD_LEASE);
        }
    }

    /// It was heard.
    fn said(&mut self, service: &ServiceName, waits: Waits) {
        if waits.held == 0 {
            self.until.remove(service);
        }
        self.unheard.remove(service);
    }

    /// Whether there is nothing to say before somebody waits or is refused.
    fn is_idle(&self) -> bool {
        self.until.is_empty() && self.unheard.is_empty()
    }
}

/// Tells the store until it is dropped. A store that is away is told when it is back.
pub async fn tell(hold: Hold, store: Arc<dyn Store>, meter: Meter) {
    let router = router_id(rand::random());
    let told = Told::new(&meter);
    let (mut believed, mut away) = (Believed::default(), false);
    loop {
        let now = tokio::time::Instant::now().into_std();
        let due = believed.due(&hold.by_service(), hold.take_refused(), now);
        let is_quiet = due.is_empty();
        for (service, waits) in &due {
            believed.saying(service, *waits, now);
        }
        let (store, router) = (&store, &router);
        let mut answers = stream::iter(due)
            .map(|(service, waits)| async move {
                let answer = store.hold(&service, router, waits).await;
                (service, waits, answer)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((service, waits, answer)) = answers.next().await {
            match answer {
                Ok(()) => {
                    believed.said(&service, waits);
                    told.count("told");
                    away = false;
                }
                Err(error) => {
                    told.count("untold");
                    // The first failure is news.
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%service, ?waits, %error, "the store is not told of calls that wait");
                    }
                }
            }
        }
        drop(answers);
        sleep(GAP).await;
        // Whoever is refused while much is being said is told of with the rest.
        let again =
            async { if is_quiet && believed.is_idle() { hold.refused().await } else { sleep(AGAIN - GAP).await } };
        tokio::select! {
            () = hold.turned() => {}
            () = again => {}
        }
    }
}

/// The name of this router in what it tells.
fn router_id(random: u64) -> RouterId {
    format!("{random:016x}").parse().expect("invariant: hexadecimal digits are a name")
}

struct Told(Counter<u64>);

impl Told {
    fn new(meter: &Meter) -> Self {
        let counter = meter.u64_counter("streamfleet_router_held_words");
        Self(counter.with_description("What the store was told of calls that wait, by whether it was heard").build())
    }

    fn count(&self, outcome: &'static str) {
        self.0.add(1, &[KeyValue::new("outcome", outcome)]);
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_store::{Directory as _, Memory, Terms};
    use tokio::task::JoinSet;

    use super::*;

    fn service(name: &str) -> ServiceName {
        name.parse().unwrap()
    }

    type Said = (&'static str, u32, u32);

    /// What is to be said while so many wait and when so many more were refused, and what becomes of it if it is heard.
    fn round(
        believed: &mut Believed,
        waiting: &[(&str, u32)],
        refused: &[(&str, u32)],
        now: Instant,
        heard: bool,
    ) -> Vec<(String, u32, u32)> {
        let map = |counts: &[(&str, u32)]| counts.iter().map(|(name, count)| (service(name), *count)).collect();
        let due = believed.due(&map(waiting), map(refused), now);
        for (service, waits) in &due {
            believed.saying(service, *waits, now);
            if heard {
                believed.said(service, *waits);
            }
        }
        due.into_iter().map(|(service, waits)| (service.to_string(), waits.held, waits.refused)).collect()
    }

    fn said(said: &[Said]) -> Vec<(String, u32, u32)> {
        said.iter().map(|(name, held, refused)| ((*name).to_owned(), *held, *refused)).collect()
    }

    #[test]
    fn what_waits_is_said_each_time_and_its_end_once() {
        let (mut believed, now) = (Believed::default(), Instant::now());
        let mut check = |waiting: &[(&str, u32)], refused: &[(&str, u32)], expected: &[Said]| {
            assert_eq!(round(&mut believed, waiting, refused, now, true), said(expected), "{waiting:?} {refused:?}");
            believed.is_idle()
        };
        assert!(check(&[], &[], &[]));
        assert!(!check(&[("a", 2), ("b", 1)], &[], &[("a", 2, 0), ("b", 1, 0)]));
        assert!(!check(&[("a", 2)], &[], &[("a", 2, 0), ("b", 0, 0)]));
        assert!(!check(&[("a", 3)], &[("a", 1), ("c", 4)], &[("a", 3, 1), ("c", 0, 4)]));
        assert!(check(&[], &[], &[("a", 0, 0)]));
        assert!(check(&[], &[("c", 1)], &[("c", 0, 1)]));
        assert!(check(&[], &[], &[]));
    }

    #[test]
    fn what_nobody_hears_is_said_again() {
        let (mut believed, now) = (Believed::default(), Instant::now());
        round(&mut believed, &[("a", 2)], &[("a", 1)], now, false);
        for (seconds, refused) in [(1, 2), (5, 3), (9, 4)] {
            let again = round(&mut believed, &[], &[("a", 1)], now + Duration::from_secs(seconds), false);
            assert_eq!(again, said(&[("a", 0, refused)]), "its answer may have been lost");
        }
        assert_eq!(round(&mut believed, &[], &[], now + HELD_LEASE, true), said(&[("a", 0, 4)]));
        assert!(believed.is_idle());
        assert_eq!(round(&mut believed, &[], &[], now + HELD_LEASE, true), []);
        // That nobody waits any more is believed anyway in the end.
        round(&mut believed, &[("a", 2)], &[], now, true);
        assert_eq!(round(&mut believed, &[], &[], now + HELD_LEASE, false), []);
        assert!(believed.is_idle());
    }

    /// In virtual time, on a store in memory.
    #[tokio::test(start_paused = true)]
    async fn the_store_knows_who_waits() {
        let store = Arc::new(Memory::with_terms(streamfleet_store::Bounds::default(), Terms::default()));
        let (hold, a) = (Hold::default(), service("voice/a"));
        let meter = opentelemetry::global::meter("test");
        let mut tasks = JoinSet::new();
        tasks.spawn(tell(hold.clone(), store.clone(), meter));
        let held = async || store.traffic(&a).await.unwrap().held;
        let patience = Duration::from_secs(60);
        sleep(Duration::from_secs(5)).await;
        let enter = || hold.enter(&a, patience, Instant::now()).unwrap();
        let first = enter();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(held().await, 1, "at once");
        let more = [enter(), enter()];
        sleep(AGAIN).await;
        assert_eq!(held().await, 3);
        sleep(3 * HELD_LEASE).await;
        assert_eq!(held().await, 3, "said again and again");
        drop((first, more));
        sleep(GAP + Duration::from_millis(1)).await;
        assert_eq!(held().await, 0, "at once");
        for _ in 0..3 {
            hold.refuse(&a);
        }
        sleep(2 * AGAIN).await;
        hold.refuse(&a);
        sleep(2 * AGAIN).await;
        assert_eq!(store.traffic(&a).await.unwrap().refused, 4);
        let _waits = enter();
        sleep(AGAIN).await;
        tasks.shutdown().await;
        assert_eq!(held().await, 1);
        sleep(HELD_LEASE).await;
        assert_eq!(held().await, 0, "a router that is gone needs no goodbye");
    }
}
