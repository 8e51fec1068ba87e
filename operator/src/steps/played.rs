//! Drains as they are played between pods, the store and workers, whatever happens meanwhile: by the store that ships, and the steps.

use std::time::Duration;

use proptest::prelude::*;
use streamfleet_session::{CloseReason, ResumeToken, ServiceName};
use streamfleet_store::{
    Claim, ClaimRequest, Claimed, ContextId, Delivery, Directory, Entry, Gate, Heartbeat, Memory, Order, Owner, Phase,
    Sessions, Ticket,
};

use super::*;
use crate::doubles::{self, NOW};
use crate::farewell::{FAREWELL, Farewells};

const WORKERS: usize = 3;
/// A worker's lease is renewed so often (s).
const RENEWS: u64 = 2;
const MAX_DRAIN: Duration = Duration::from_secs(30);
/// The operator looks so often where a worker drains (s).
const LOOKS: u64 = 2;

#[derive(Debug, Clone)]
enum Event {
    /// A router claims a place for a call, or brings it without, where it cannot reach the store.
    Call(usize),
    HangUp(usize),
    /// The operator looks, wants these to drain or to be put back, and dies after so many steps.
    Look {
        drain: Option<usize>,
        undrain: Option<usize>,
        dies_after: usize,
    },
    /// Seconds in which workers renew, and no operator looks.
    Pass(u64),
    StoreLeaves,
    StoreReturns,
    /// It is there, and has forgotten everybody.
    StoreIsNew,
}

fn event() -> impl Strategy<Value = Event> {
    let some = || prop::option::weighted(0.3, 0..WORKERS);
    let steps = prop_oneof![4 => Just(usize::MAX), 1 => 0..6_usize];
    prop_oneof![
        4 => (0..WORKERS).prop_map(Event::Call),
        3 => (0..WORKERS).prop_map(Event::HangUp),
        8 => (some(), some(), steps).prop_map(|(drain, undrain, dies_after)| Event::Look { drain, undrain, dies_after }),
        4 => (1..4_u64).prop_map(Event::Pass),
        1 => (20..100_u64).prop_map(Event::Pass),
        1 => Just(Event::StoreLeaves),
        1 => Just(Event::StoreReturns),
        1 => Just(Event::StoreIsNew),
    ]
}

/// A worker in its pod, as it is and not as anybody sees it.
struct Subject {
    pod: PodFacts,
    owner: Option<Owner>,
    gate: Gate,
    heard: Order,
    /// Since when its clients are asked to go elsewhere.
    urges: Option<Moment>,
    claimed: Vec<Ticket>,
    /// What is over, and the store has not heard of.
    over: Vec<Ticket>,
    /// Sessions of which the store knows nothing.
    strays: u32,
    gone: bool,
}

impl Subject {
    fn new(name: &str) -> Self {
        Self {
            pod: doubles::pod(name, Stage::Ready(NOW)),
            owner: None,
            gate: Gate::Open,
            heard: Order::default(),
            urges: None,
            claimed: Vec::new(),
            over: Vec::new(),
            strays: 0,
            gone: false,
        }
    }

    fn sessions(&self) -> u32 {
        u32::try_from(self.claimed.len()).unwrap() + self.strays
    }

    /// SIGTERM is an order, too.
    fn own_gate(&self) -> Gate {
        if self.pod.ending { Gate::Draining } else { Gate::Open }
    }

    fn beat(&self) -> Heartbeat {
        let said = doubles::view(&self.pod.name, self.gate, self.sessions()).said.unwrap();
        Heartbeat { heard: self.heard, ..said }
    }
}

struct Play {
    store: Option<Memory>,
    /// While it is away, it has what it had.
    away: Option<Memory>,
    service: ServiceName,
    subjects: Vec<Subject>,
    rules: Rules,
    farewells: Farewells,
    begun: tokio::time::Instant,
    tickets: u64,
    stores: usize,
}

impl Play {
    fn new(max_drain: Option<Duration>) -> Self {
        Self {
            store: Some(Memory::default()),
            away: None,
            service: "s".parse().unwrap(),
            subjects: ["a", "b", "c"].map(Subject::new).into(),
            rules: Rules { max_drain, disruption: Disruption::Never, now: NOW },
            farewells: Farewells::default(),
            begun: tokio::time::Instant::now(),
            tickets: 0,
            stores: 0,
        }
    }

    fn now(&self) -> Moment {
        NOW + self.begun.elapsed()
    }

    async fn happens(&mut self, event: Event) {
        match event {
            Event::Call(at) => self.call(at).await,
            Event::HangUp(at) => self.hang_up(at),
            Event::Look { drain, undrain, dies_after } => self.look(drain, undrain, dies_after).await,
            Event::Pass(seconds) => self.pass(seconds).await,
            Event::StoreLeaves => self.away = self.store.take().or(self.away.take()),
            Event::StoreReturns => self.store = self.away.take().or(self.store.take()),
            Event::StoreIsNew => (self.store, self.away) = (Some(self.new_store().await), None),
        }
    }

    /// One that knows nobody. Its orders have numbers that no other's have, as those of Redis, which are times.
    async fn new_store(&mut self) -> Memory {
        let (store, other) = (Memory::default(), "other".parse().unwrap());
        store.register(&self.service, &other, Entry::New).await.unwrap();
        self.stores += 1;
        for _ in 0..self.stores * 500 {
            store.ask_gate(&self.service, &other, Gate::Draining).await.unwrap();
            store.ask_gate(&self.service, &other, Gate::Open).await.unwrap();
        }
        store
    }

    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            if self.begun.elapsed().as_secs().is_multiple_of(RENEWS) {
                self.renew().await;
            }
            let now = self.now();
            for subject in self.subjects.iter_mut().filter(|subject| subject.pod.ending) {
                subject.gone |= subject.sessions() == 0 || subject.pod.gone_by.is_some_and(|by| now > by);
            }
        }
    }

    async fn renew(&mut self) {
        let now = self.now();
        let Some(store) = &self.store else { return };
        for subject in self.subjects.iter_mut().filter(|subject| !subject.gone) {
            let owner = match &subject.owner {
                Some(owner) => owner.clone(),
                None => {
                    let worker = subject.pod.name.parse().unwrap();
                    let epoch = store.register(&self.service, &worker, Entry::New).await.unwrap();
                    // Orders are a registration's.
                    (subject.gate, subject.heard, subject.urges) = (subject.own_gate(), Order::default(), None);
                    subject.over.clear();
                    subject.owner.insert(Owner { worker, epoch }).clone()
                }
            };
            for ticket in subject.over.drain(..) {
                drop(store.end(&self.service, &owner, ticket, CloseReason::ClientClosed).await);
            }
            match store.renew(&self.service, &owner, &subject.beat()).await {
                Ok(orders) => {
                    subject.gate = orders.gate.max(subject.own_gate());
                    subject.heard = orders.order;
                    subject.urges = (subject.gate == Gate::Leaving).then(|| subject.urges.unwrap_or(now));
                }
                // What it has goes on, and the store knows nothing of it.
                Err(_) => {
                    subject.owner = None;
                    subject.strays = subject.sessions();
                    subject.claimed.clear();
                }
            }
        }
    }

    async fn call(&mut self, at: usize) {
        let subject = &mut self.subjects[at];
        let Some(store) = &self.store else {
            let takes = subject.gate == Gate::Open && !subject.gone && !subject.pod.ending;
            subject.strays += u32::from(takes);
            return;
        };
        self.tickets += 1;
        let ticket = Ticket::from_random(self.tickets);
        let request = ClaimRequest {
            ticket,
            session: format!("s{}", self.tickets).parse().unwrap(),
            user: None,
            claim: Claim::default(),
            context: ContextId::from_random(self.tickets.into()),
            token: ResumeToken::from_random(u128::from(self.tickets).to_be_bytes()),
            delivery: Delivery::Known,
            service_limit: None,
            user_limit: None,
            pin: None,
            quotas: Vec::new(),
            retention: Duration::from_secs(1),
            ranked: vec![subject.pod.name.parse().unwrap()],
        };
        if let Claimed::Placed(_) = store.claim(&self.service, &request).await.unwrap() {
            assert!(!subject.gone, "a call is sent to {}, which is gone", subject.pod.name);
            let owner = subject.owner.clone().expect("who has a place has registered");
            if store.report(&self.service, &owner, ticket, Phase::Active, &Default::default()).await.is_ok() {
                subject.claimed.push(ticket);
            }
        }
    }

    fn hang_up(&mut self, at: usize) {
        let subject = &mut self.subjects[at];
        match subject.claimed.pop() {
            Some(ticket) => subject.over.push(ticket),
            None => subject.strays = subject.strays.saturating_sub(1),
        }
    }

    async fn look(&mut self, drain: Option<usize>, undrain: Option<usize>, dies_after: usize) {
        self.rules.now = self.now();
        let told = match &self.store {
            Some(store) => Some(store.workers(&self.service).await.unwrap()),
            None => None,
        };
        let views = told.as_deref().map(Views::of);
        let pods: Vec<&PodFacts> = self.subjects.iter().filter(|it| !it.gone).map(|it| &it.pod).collect();
        let name = |at: usize| self.subjects[at].pod.name.clone();
        let is = |at: &usize, draining: bool| {
            let subject = &self.subjects[*at];
            !subject.gone && !subject.pod.ending && subject.pod.marks.draining == draining
        };
        let undrain: Vec<_> = undrain.filter(|at| is(at, true)).map(name).into_iter().collect();
        let empty = |pod: &&&PodFacts| {
            let view = views.as_ref().and_then(|views| views.get(&pod.name));
            pod.marks.draining && !undrain.contains(&pod.name) && view.is_some_and(WorkerView::is_drained)
        };
        let wanted = Wanted {
            drain: drain.filter(|at| is(at, false)).map(|at| (name(at), "why".to_owned())).into_iter().collect(),
            remove: pods.iter().filter(empty).map(|pod| pod.name.clone()).collect(),
            undrain,
            ..Wanted::default()
        };
        let overdue = pods.iter().copied().filter(|pod| self.rules.is_overdue(pod));
        let now = tokio::time::Instant::now().into_std();
        let over = views.as_ref().map(|views| self.farewells.look(overdue, views, now)).unwrap_or_default();
        let steps =
            steps(&wanted, &pods, views.as_ref(), &self.rules, |_| false, |pod| over.contains(pod.uid.as_str()));
        let known: Vec<String> = told.iter().flatten().map(|view| view.owner.worker.to_string()).collect();
        let mut failed: Vec<String> = Vec::new();
        if dies_after < usize::MAX {
            // The next one knows nothing of what this one has measured.
            self.farewells = Farewells::default();
        }
        for step in steps.first.into_iter().chain(steps.then).take(dies_after) {
            if !failed.iter().any(|name| name == step.pod()) && !self.step(&step, &known).await {
                failed.push(step.pod().to_owned());
            }
        }
    }

    /// Does it, and judges it. Returns whether it was done.
    async fn step(&mut self, step: &Step, known: &[String]) -> bool {
        let now = self.now();
        let subject = self.subjects.iter_mut().find(|subject| subject.pod.name == step.pod()).unwrap();
        let marks = &mut subject.pod.marks;
        match step {
            Step::MarkServing(_) => *marks = crate::facts::Marks { protected: true, ..Default::default() },
            Step::MarkDraining(_, since, why) => {
                (marks.draining, marks.since, marks.reason) = (true, Some(*since), Some(why.clone()));
            }
            Step::Protect(_) => marks.protected = true,
            Step::Unprotect(_) => marks.protected = false,
            Step::Ask(worker, gate) => {
                let Some(store) = &self.store else { return false };
                store.ask_gate(&self.service, &worker.parse().unwrap(), *gate).await.unwrap();
            }
            Step::Delete(_) => {
                // Whom the store does not know nobody can ask, and he has his grace.
                let unknown = !known.contains(&subject.pod.name) && self.rules.is_overdue(&subject.pod);
                assert!(subject.sessions() == 0 || unknown, "{} has calls", subject.pod.name);
                (subject.pod.ending, subject.pod.gone_by) = (true, Some(now + MAX_DRAIN));
                subject.gate = subject.gate.max(Gate::Draining);
            }
            Step::Expel(_) => {
                assert!(self.rules.max_drain.is_some());
                let urges = subject.urges.expect("its clients were asked to go elsewhere");
                assert!(now.since(urges) >= FAREWELL, "{:?}", now.since(urges));
                (subject.pod.ending, subject.gone) = (true, true);
            }
        }
        true
    }

    /// Nothing stands in the way any more, and the operator looks as it does.
    async fn settle(&mut self, seconds: u64) {
        self.happens(Event::StoreReturns).await;
        for _ in 0..seconds / LOOKS {
            for at in 0..WORKERS {
                self.look(Some(at), None, usize::MAX).await;
            }
            self.pass(LOOKS).await;
        }
    }

    fn left(&self) -> Vec<&str> {
        self.subjects.iter().filter(|subject| !subject.gone).map(|subject| &*subject.pod.name).collect()
    }
}

fn play(events: Vec<Event>, max_drain: Option<Duration>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut play = Play::new(max_drain);
        play.pass(RENEWS * 2).await;
        for event in events {
            play.happens(event).await;
        }
        if max_drain.is_none() {
            for at in 0..WORKERS {
                while play.subjects[at].sessions() > 0 {
                    play.hang_up(at);
                }
            }
        }
        // What a worker told nobody of when the store was away is forgotten with its reservation at the latest.
        play.settle((MAX_DRAIN + FAREWELL).as_secs() + 60).await;
        assert_eq!(play.left(), [] as [&str; 0], "all of them drain, and go");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nobody_goes_who_has_calls(events in prop::collection::vec(event(), 1..60)) {
        play(events, None);
    }

    #[test]
    fn with_a_bound_nobody_goes_unasked(events in prop::collection::vec(event(), 1..60)) {
        play(events, Some(MAX_DRAIN));
    }
}
