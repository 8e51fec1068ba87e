//! What holds whatever a snapshot shows, and what a fleet does that obeys.

#![allow(clippy::unwrap_used, reason = "a test that fails")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use streamfleet_scaling::{
    Buffer, DrainReason, Figures, Memory, Mode, Moment, Phase, Plan, Snapshot, Stay, Traffic, Tuning, Worker, decide,
};

fn tunings() -> impl Strategy<Value = Tuning> {
    let buffer = prop_oneof![(0..200_u32).prop_map(Buffer::Percent), (0..100_u32).prop_map(Buffer::Places)];
    let mode = prop_oneof![4 => Just(Mode::Sessions), 1 => (0..60_u32).prop_map(Mode::External)];
    (0..10_u32, 1..50_u32, 1..60_u32, buffer, mode, 0..400_u64).prop_map(
        |(min, max, capacity, buffer, mode, stabilization)| Tuning {
            min,
            max,
            sessions_per_worker: NonZeroU32::new(capacity).unwrap(),
            buffer,
            mode,
            stabilization: Duration::from_secs(stabilization),
            ..Tuning::default()
        },
    )
}

fn workers() -> impl Strategy<Value = Vec<Worker<u32>>> {
    let phase = prop_oneof![1 => Just(Phase::Starting), 4 => Just(Phase::Serving), 2 => Just(Phase::Draining), 1 => Just(Phase::Lost)];
    let stay = prop_oneof![4 => Just(Stay::Welcome), 1 => Just(Stay::Leaving), 1 => Just(Stay::Ending)];
    let figures = prop_oneof![9 => Just(Figures::Fresh), 1 => Just(Figures::Stale)];
    let worker =
        (phase, stay, figures, 0..70_u32, 0..70_u32, 0..2_000_000_u64, any::<bool>(), prop::bool::weighted(0.9));
    proptest::collection::vec(worker, 0..40).prop_map(|workers| {
        let numbered = (0..).zip(workers);
        let worker = |(id, (phase, stay, figures, sessions, capacity, created, empty, served))| {
            let created = Moment::from_millis(created);
            let start = (phase != Phase::Starting && served).then_some(Duration::from_secs(20));
            Worker { id, phase, created, since: created, start, sessions, capacity, figures, stay, empty }
        };
        numbered.map(worker).collect()
    })
}

fn snapshots() -> impl Strategy<Value = Snapshot<u32>> {
    let traffic = (0..500_u64, 0..500_u64, 0..50_u64, prop_oneof![Just(0), 0..300_u32])
        .prop_map(|(arrived, departed, refused, held)| Traffic { arrived, departed, refused, held });
    let traffic = prop_oneof![9 => traffic.prop_map(Some), 1 => Just(None)];
    (workers(), 0..6_u32, traffic).prop_map(|(workers, coming, traffic)| Snapshot { workers, coming, traffic })
}

/// Pods that serve or start, and may stay.
fn all(snapshot: &Snapshot<u32>) -> u32 {
    let counts = |worker: &&Worker<u32>| {
        worker.stay == Stay::Welcome && matches!(worker.phase, Phase::Starting | Phase::Serving)
    };
    u32::try_from(snapshot.workers.iter().filter(counts).count()).unwrap() + snapshot.coming
}

fn promises(tuning: &Tuning, snapshot: &Snapshot<u32>, plan: &Plan<u32>) -> Result<(), TestCaseError> {
    let of = |id: &u32| snapshot.workers.iter().find(|worker| worker.id == *id).unwrap();
    for worker in plan.remove.iter().map(of) {
        prop_assert!(worker.empty && worker.phase == Phase::Draining && worker.figures == Figures::Fresh);
    }
    for worker in plan.undrain.iter().map(of) {
        prop_assert_eq!((worker.phase, worker.stay, worker.figures), (Phase::Draining, Stay::Welcome, Figures::Fresh));
        prop_assert!(worker.start.is_some() || worker.sessions > 0);
    }
    for (id, reason) in &plan.drain {
        let worker = of(id);
        prop_assert!(matches!(worker.phase, Phase::Starting | Phase::Serving) && worker.stay != Stay::Ending);
        prop_assert_eq!(worker.stay == Stay::Leaving, *reason == DrainReason::Leaving);
    }
    let named: Vec<u32> =
        plan.remove.iter().chain(&plan.undrain).chain(plan.drain.iter().map(|(id, _)| id)).copied().collect();
    prop_assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len(), "each is named once");

    let surplus = plan.drain.iter().filter(|(_, reason)| *reason != DrainReason::Leaving).count();
    let serving = |worker: &&Worker<u32>| worker.phase == Phase::Serving && worker.stay != Stay::Ending;
    if snapshot.workers.iter().filter(serving).any(|worker| worker.figures == Figures::Stale) {
        prop_assert_eq!(surplus, 0);
    }
    if snapshot.traffic.is_none() {
        prop_assert!(plan.undrain.is_empty() && plan.drain.is_empty() && plan.remove.is_empty());
        prop_assert!(plan.create <= tuning.min);
    }
    let (there, pods) = (all(snapshot), u32::try_from(snapshot.workers.len()).unwrap() + snapshot.coming);
    prop_assert!(there + plan.create <= tuning.max.max(there));
    prop_assert!(pods + plan.create <= tuning.ceiling().max(pods));
    prop_assert!(plan.withdraw <= snapshot.coming && (plan.withdraw == 0 || plan.create == 0));
    prop_assert!(there - plan.withdraw >= plan.want.min(there));
    prop_assert!(plan.want <= tuning.max);
    prop_assert!(plan.want >= tuning.min.min(tuning.max));
    prop_assert!(plan.create == 0 || surplus == 0, "nobody goes while another one comes");
    // Who serves after it is enough, and what is free is.
    let left: Vec<_> = snapshot
        .workers
        .iter()
        .filter(|worker| worker.stay == Stay::Welcome && worker.phase == Phase::Serving)
        .filter(|worker| !plan.drain.iter().any(|(id, _)| *id == worker.id))
        .collect();
    if surplus > 0 {
        prop_assert!(left.len() >= plan.want.min(tuning.max) as usize);
    }
    Ok(())
}

proptest! {
    /// A service over a while, every snapshot unlike the one before.
    #[test]
    fn whatever_it_is_told(tuning in tunings(), snapshots in proptest::collection::vec((snapshots(), 0..200_u64), 1..12)) {
        let mut memory = Memory::default();
        let mut now = Moment::from_millis(3_000_000);
        for (snapshot, seconds) in &snapshots {
            now = now + Duration::from_secs(*seconds);
            let plan = decide(&tuning, snapshot, &mut memory, now);
            promises(&tuning, snapshot, &plan)?;
            prop_assert!(plan.wake.is_none_or(|wake| wake > now));
        }
    }

    /// Numbers at the end of what can be counted are numbers.
    #[test]
    fn nothing_is_too_large(mut tuning in tunings(), snapshot in snapshots(), big in prop_oneof![Just(u32::MAX), Just(u32::MAX - 1)]) {
        let mut snapshot = snapshot;
        snapshot.workers.iter_mut().for_each(|worker| {
            worker.sessions = worker.sessions.saturating_mul(big);
            worker.capacity = big;
        });
        snapshot.coming = big;
        if let Some(traffic) = &mut snapshot.traffic {
            (traffic.arrived, traffic.refused, traffic.held) = (u64::MAX, u64::MAX, big);
        }
        tuning.max = big;
        tuning.stabilization = Duration::MAX;
        tuning.tick = Duration::from_secs(u64::from(big));
        let mut memory = Memory::default();
        for now in [0, 1, u64::MAX] {
            let plan = decide(&tuning, &snapshot, &mut memory, Moment::from_millis(now));
            prop_assert!(plan.want <= big);
        }
    }

    /// Who has more sessions wants no fewer workers.
    #[test]
    fn more_sessions_want_no_fewer(tuning in tunings(), snapshot in snapshots(), more in 0..40_usize) {
        let now = Moment::from_millis(3_000_000);
        let before = decide(&tuning, &snapshot, &mut Memory::default(), now);
        let mut snapshot = snapshot;
        let count = snapshot.workers.len().max(1);
        if let Some(worker) = snapshot.workers.get_mut(more % count) {
            worker.sessions += 1;
        }
        let after = decide(&tuning, &snapshot, &mut Memory::default(), now);
        prop_assert!(after.want >= before.want, "{} then {}", before.want, after.want);
    }

    /// The same snapshot has the same plan, in whatever order its workers are listed.
    #[test]
    fn the_order_of_a_list_says_nothing(tuning in tunings(), snapshot in snapshots(), turn in 0..40_usize) {
        let plan = |snapshot: &Snapshot<u32>| {
            let mut memory = Memory::default();
            let mut now = Moment::from_millis(3_000_000);
            // Twice, so that the second may judge.
            let _ = decide(&tuning, snapshot, &mut memory, now);
            now = now + tuning.stabilization + Duration::from_secs(10);
            let mut plan = decide(&tuning, snapshot, &mut memory, now);
            plan.remove.sort_unstable();
            plan.drain.sort_unstable_by_key(|(id, _)| *id);
            plan
        };
        let mut turned = snapshot.clone();
        if !turned.workers.is_empty() {
            let by = turn % turned.workers.len();
            turned.workers.rotate_left(by);
        }
        prop_assert_eq!(plan(&snapshot), plan(&turned));
    }

    /// Under a load that does not change, a fleet comes to rest and stays there, wherever it begins.
    #[test]
    fn a_steady_load_is_left_alone(
        capacity in 5..60_u32,
        percent in 0..100_u32,
        first in proptest::collection::vec(0..=5_u32, 1..20),
    ) {
        let tuning = Tuning {
            max: 200,
            sessions_per_worker: NonZeroU32::new(capacity).unwrap(),
            buffer: Buffer::Percent(percent),
            ..Tuning::default()
        };
        let mut fleet = Fleet::new(&first.iter().map(|sessions| sessions * capacity / 5).collect::<Vec<_>>(), capacity);
        let mut memory = Memory::default();
        // Ten minutes to judge, and a minute for each that is too many; they drain for ten minutes.
        for _ in 0..12 * 60 {
            fleet.step(&tuning, &mut memory);
        }
        for _ in 0..12 * 30 {
            let plan = fleet.step(&tuning, &mut memory);
            prop_assert!(plan.is_idle(), "{plan:?}");
        }
        prop_assert!(fleet.free() >= u64::from(memory_buffer(&tuning, &fleet)));
    }
}

/// The buffer that a fleet at rest is to have.
fn memory_buffer(tuning: &Tuning, fleet: &Fleet) -> u32 {
    match tuning.buffer {
        Buffer::Percent(percent) => (fleet.sessions() * percent).div_ceil(100),
        Buffer::Places(places) => places,
    }
}

/// A fleet that obeys: workers start in twenty seconds, and sessions of one that drains go elsewhere after ten minutes.
struct Fleet {
    workers: Vec<Worker<u32>>,
    now: Moment,
    next: u32,
    capacity: u32,
}

impl Fleet {
    fn new(sessions: &[u32], capacity: u32) -> Self {
        let mut fleet = Self { workers: Vec::new(), now: Moment::from_millis(1_000_000), next: 0, capacity };
        for sessions in sessions {
            let id = fleet.id();
            let worker = Worker::serving(id, Moment::from_millis(0), Duration::from_secs(20), *sessions, capacity);
            fleet.workers.push(worker);
        }
        fleet
    }

    fn id(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn sessions(&self) -> u32 {
        self.workers.iter().map(|worker| worker.sessions).sum()
    }

    fn free(&self) -> u64 {
        let serving = self.workers.iter().filter(|worker| worker.phase == Phase::Serving);
        serving.map(|worker| u64::from(worker.free())).sum()
    }

    fn step(&mut self, tuning: &Tuning, memory: &mut Memory) -> Plan<u32> {
        self.now = self.now + tuning.tick;
        self.live();
        let snapshot = Snapshot { workers: self.workers.clone(), coming: 0, traffic: Some(Traffic::default()) };
        let plan = decide(tuning, &snapshot, memory, self.now);
        self.obey(&plan);
        plan
    }

    fn live(&mut self) {
        let now = self.now;
        for worker in &mut self.workers {
            if worker.phase == Phase::Starting && now.since(worker.created) >= Duration::from_secs(20) {
                (worker.phase, worker.start) = (Phase::Serving, Some(now.since(worker.created)));
            }
        }
        // Fullest first, as they are placed; those for whom there is no place stay for longer.
        let is_over = |worker: &Worker<u32>| {
            worker.phase == Phase::Draining && now.since(worker.since) >= Duration::from_secs(600)
        };
        let mut moving: u32 = self.workers.iter().filter(|worker| is_over(worker)).map(|worker| worker.sessions).sum();
        let mut moved = 0;
        let mut open: Vec<&mut Worker<u32>> =
            self.workers.iter_mut().filter(|worker| worker.phase == Phase::Serving).collect();
        open.sort_unstable_by_key(|worker| worker.free());
        for worker in open {
            let more = moving.min(worker.free());
            worker.sessions += more;
            moving -= more;
            moved += more;
        }
        for worker in &mut self.workers {
            if is_over(worker) {
                let gone = moved.min(worker.sessions);
                worker.sessions -= gone;
                moved -= gone;
            }
            worker.empty = worker.phase == Phase::Draining && worker.sessions == 0;
        }
    }

    fn obey(&mut self, plan: &Plan<u32>) {
        let now = self.now;
        for worker in &mut self.workers {
            if plan.undrain.contains(&worker.id) {
                (worker.phase, worker.since, worker.empty) = (Phase::Serving, now, false);
            }
            if plan.drain.iter().any(|(id, _)| *id == worker.id) {
                (worker.phase, worker.since) = (Phase::Draining, now);
            }
        }
        self.workers.retain(|worker| !plan.remove.contains(&worker.id));
        for _ in 0..plan.create {
            let id = self.id();
            self.workers.push(Worker::starting(id, now, self.capacity));
        }
    }
}
