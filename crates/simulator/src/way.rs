//! What platform and store know of each pod, and its way from the first order to drain until it goes: by the steps that ship.

use std::collections::BTreeSet;
use std::time::Duration;

use streamfleet_operator::facts::{Marks, PodFacts, Stage};
use streamfleet_operator::steps::{Rules, Step, Wanted, steps};
use streamfleet_operator::workers::Views;
use streamfleet_scaling::{Moment, Plan};
use streamfleet_service::spec::Disruption;
use streamfleet_store::{Epoch, Gate, Heartbeat, Order, Owner, WorkerView};

use crate::world::{Pod, World};

/// What is known of a pod.
struct Known {
    facts: PodFacts,
    /// As the store tells it; nothing is said in it until the worker has begun to serve.
    view: WorkerView,
}

/// What is known of all pods there ever were, by number.
#[derive(Default)]
pub(crate) struct Ways {
    known: Vec<Known>,
    /// Those that say that they drain.
    draining: BTreeSet<u32>,
}

impl Ways {
    /// All workers renew their leases: they have heard what they were asked since the last time, and say what they have.
    pub(crate) fn renew(&mut self, world: &World<'_>) {
        for (id, pod) in world.alive() {
            while self.known.len() <= id as usize {
                self.known.push(Known::new(self.known.len()));
            }
            self.known[id as usize].says(pod, world.setup.capacity);
        }
    }

    /// Whether a pod says that it drains.
    pub(crate) fn drains(&self, id: u32) -> bool {
        self.known[id as usize].facts.marks.draining
    }

    /// Whether nothing is left of what a pod that drains has had.
    pub(crate) fn is_empty(&self, id: u32) -> bool {
        let view = &self.known[id as usize].view;
        // Nobody can have given anything to one that has never been in the directory.
        view.said.is_none() || view.is_drained()
    }

    /// Does what is planned, as the operator does.
    pub(crate) fn follow(&mut self, plan: &Plan<u32>, world: &mut World<'_>) {
        let name = |id: &u32| self.known[*id as usize].facts.name.clone();
        let wanted = Wanted {
            create: plan.create,
            withdraw: plan.withdraw,
            undrain: plan.undrain.iter().map(name).collect(),
            drain: plan.drain.iter().map(|(id, why)| (name(id), why.to_string())).collect(),
            remove: plan.remove.iter().map(name).collect(),
        };
        let drained = plan.drain.iter().map(|(id, _)| *id);
        let mut concerned: BTreeSet<u32> = plan.undrain.iter().chain(&plan.remove).copied().chain(drained).collect();
        concerned.extend(&self.draining);
        // Of others nothing is wanted, and there are many.
        let concerned = || concerned.iter().map(|id| &self.known[*id as usize]);
        let pods: Vec<&PodFacts> = concerned().map(|known| &known.facts).collect();
        let views: Views<'_> = concerned().map(|known| &known.view).filter(|view| view.said.is_some()).collect();
        let now = Moment::from_millis(world.now);
        let rules = Rules { max_drain: None, disruption: Disruption::Never, now };
        let steps = steps(&wanted, &pods, Some(&views), &rules, |_| false, |_| false);
        for step in &steps.first {
            self.take(step, world);
        }
        for _ in 0..plan.create {
            world.create();
        }
        for step in &steps.then {
            self.take(step, world);
        }
    }

    fn take(&mut self, step: &Step, world: &mut World<'_>) {
        let id = number(step.pod());
        let Known { facts, view } = &mut self.known[id as usize];
        match step {
            Step::MarkServing(_) => {
                facts.marks = Marks { protected: true, ..Marks::default() };
                self.draining.remove(&id);
            }
            Step::MarkDraining(_, since, why) => {
                let protected = facts.marks.protected;
                facts.marks = Marks { draining: true, since: Some(*since), reason: Some(why.clone()), protected };
                self.draining.insert(id);
            }
            Step::Protect(_) => facts.marks.protected = true,
            Step::Unprotect(_) => facts.marks.protected = false,
            // Claims obey at once, its worker with its next renewal.
            Step::Ask(_, gate) => {
                if view.gate != *gate {
                    (view.gate, view.order) = (*gate, Order(view.order.0 + 1));
                }
                match gate {
                    Gate::Open => world.serve(id),
                    Gate::Draining | Gate::Leaving => world.drain(id),
                }
            }
            // With all that it has: whoever has not looked well is told so by the sessions that were killed.
            Step::Delete(_) | Step::Expel(_) => {
                facts.ending = true;
                self.draining.remove(&id);
                world.remove(id);
            }
        }
    }
}

impl Known {
    fn new(number: usize) -> Self {
        let name = format!("{PREFIX}{number}");
        let owner = Owner { worker: name.parse().expect("such a name is one"), epoch: Epoch(1) };
        let view = WorkerView {
            owner,
            said: None,
            gate: Gate::Open,
            order: Order::default(),
            sessions: 0,
            age: Duration::ZERO,
        };
        let facts = PodFacts {
            uid: name.clone(),
            name,
            variant: None,
            deployment: None,
            created: Moment::from_millis(0),
            node: None,
            noticed: true,
            stage: Stage::Running,
            was_ready: false,
            restarts: 0,
            ending: false,
            gone_by: None,
            marks: Marks { protected: true, ..Marks::default() },
            trouble: None,
        };
        Self { facts, view }
    }

    fn says(&mut self, pod: &Pod, capacity: u32) {
        let Some(ready) = pod.ready else { return };
        self.facts.stage = Stage::Ready(Moment::from_millis(ready));
        let view = &mut self.view;
        let said = view.said.get_or_insert_with(|| Heartbeat {
            capacity,
            active: 0,
            reserved: 0,
            gate: Gate::Open,
            heard: Order::default(),
            http: String::new(),
            media: Vec::new(),
            version: String::new(),
            variant: None,
        });
        (said.gate, said.heard, said.active) = (view.gate, view.order, pod.sessions);
        view.sessions = pod.sessions;
    }
}

const PREFIX: &str = "pod-";

fn number(name: &str) -> u32 {
    name.strip_prefix(PREFIX).and_then(|number| number.parse().ok()).expect("all pods are named by their numbers")
}
