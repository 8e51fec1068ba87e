//! A fleet under the rule that ships.

use std::num::NonZeroU32;
use std::time::Duration;

use streamfleet_placement::Packing;
use streamfleet_scaling::{Buffer, Memory, Moment, Snapshot, Traffic, Tuning, Worker, decide};
use streamfleet_scaling::{Figures, Phase, Stay};

use crate::way::Ways;
use crate::world::{Keeper, Pod, Setup, Way, World, millis};

/// How the rule is tuned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Places that are kept free.
    pub buffer: Buffer,
    /// Where sessions go.
    pub packing: Packing,
    /// Nothing goes that was wanted within this time.
    pub stabilization: Duration,
    /// How often the operator looks.
    pub tick: Duration,
}

impl Default for Rule {
    fn default() -> Self {
        let Tuning { buffer, stabilization, tick, .. } = Tuning::default();
        Self { buffer, packing: Packing::default(), stabilization, tick }
    }
}

/// The operator.
pub(crate) struct Operator {
    tuning: Tuning,
    packing: Packing,
    memory: Memory,
    snapshot: Snapshot<u32>,
    ways: Ways,
}

impl Operator {
    pub(crate) fn new(setup: &Setup, rule: &Rule) -> Self {
        let tuning = Tuning {
            min: setup.min,
            max: setup.max,
            sessions_per_worker: NonZeroU32::new(setup.capacity).unwrap_or(NonZeroU32::MIN),
            buffer: rule.buffer,
            stabilization: rule.stabilization,
            idle: rule.stabilization.max(Duration::from_secs(60)),
            tick: rule.tick,
            ..Tuning::default()
        };
        let (memory, snapshot, ways) = (Memory::default(), Snapshot::default(), Ways::default());
        Self { tuning, packing: rule.packing, memory, snapshot, ways }
    }

    fn see(&mut self, world: &World<'_>) {
        let (arrived, departed, refused) = (world.tally.arrived, world.tally.departed, world.tally.refused);
        self.snapshot.traffic = Some(Traffic { arrived, departed, refused, held: world.held() });
        self.snapshot.workers.clear();
        self.ways.renew(world);
        let seen = |(id, pod): (u32, &Pod)| worker(id, pod, &self.ways, world);
        self.snapshot.workers.extend(world.alive().filter_map(seen));
    }
}

/// A pod as the operator sees it.
fn worker(id: u32, pod: &Pod, ways: &Ways, world: &World<'_>) -> Option<Worker<u32>> {
    let phase = match pod.way {
        Way::Ending | Way::Gone => return None,
        Way::Starting | Way::Serving if ways.drains(id) => Phase::Draining,
        Way::Starting => Phase::Starting,
        Way::Serving => Phase::Serving,
        Way::Draining => Phase::Draining,
    };
    Some(Worker {
        id,
        phase,
        created: Moment::from_millis(pod.created),
        since: Moment::from_millis(pod.since),
        start: pod.ready.map(|ready| Duration::from_millis(ready - pod.created)),
        sessions: pod.sessions,
        capacity: world.setup.capacity,
        figures: Figures::Fresh,
        stay: Stay::Welcome,
        empty: phase == Phase::Draining && ways.is_empty(id),
    })
}

impl Keeper for Operator {
    fn interval(&self) -> u64 {
        millis(self.tuning.tick).max(1)
    }

    fn packing(&self) -> Packing {
        self.packing
    }

    fn look(&mut self, world: &mut World<'_>) {
        self.see(world);
        let plan = decide(&self.tuning, &self.snapshot, &mut self.memory, Moment::from_millis(world.now));
        self.ways.follow(&plan, world);
    }
}
