//! A fleet under Kubernetes' HorizontalPodAutoscaler, as `autoscaling/v2` works by default: `calcPlainMetricReplicas` of its
//! replica calculator, its default behaviour, and the ReplicaSet controller's choice of victims.
//!
//! It is given what it does not have in a cluster: figures that are never late.

use std::collections::VecDeque;
use std::time::Duration;

use streamfleet_placement::Packing;

use crate::random::Random;
use crate::world::{Keeper, Setup, Way, World};

/// How the autoscaler is tuned.
#[derive(Debug, Clone, PartialEq)]
pub struct Hpa {
    /// The share of a pod's capacity that it aims at.
    pub target: f64,
    /// How long a pod that is told to end may take, before its sessions are killed.
    pub grace: Duration,
    /// Where sessions go.
    pub packing: Packing,
    /// Who goes.
    pub victims: Victims,
    /// What it chooses among equals by.
    pub seed: u64,
}

/// Who goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// As the ReplicaSet controller ranks pods: those that are not ready, then the youngest by powers of two of their age,
    /// then any.
    Ranked,
    /// Any.
    Random,
}

impl Default for Hpa {
    fn default() -> Self {
        Self {
            target: 0.7,
            grace: Duration::from_secs(5 * 3_600),
            packing: Packing::Spread,
            victims: Victims::Ranked,
            seed: 1,
        }
    }
}

/// `--horizontal-pod-autoscaler-sync-period`.
const SYNC: u64 = 15_000;
/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION: u64 = 300_000;

/// The autoscaler, the Deployment and the ReplicaSet.
pub(crate) struct Autoscaler {
    hpa: Hpa,
    random: Random,
    replicas: u32,
    /// Recommendations of the stabilization window.
    recommended: VecDeque<(u64, u32)>,
}

impl Autoscaler {
    pub(crate) fn new(setup: &Setup, hpa: &Hpa) -> Self {
        Self {
            random: Random::new(hpa.seed, 3),
            hpa: hpa.clone(),
            // An HPA has no zero.
            replicas: setup.min.max(1),
            recommended: VecDeque::new(),
        }
    }

    /// `calcPlainMetricReplicas`.
    fn recommend(&self, ready: u32, starting: u32, sessions: u32, capacity: u32) -> u32 {
        if ready == 0 {
            return self.replicas;
        }
        let target = self.hpa.target * f64::from(capacity);
        let ratio = f64::from(sessions) / f64::from(ready) / target;
        let is_near = |ratio: f64| (ratio - 1.0).abs() <= TOLERANCE;
        if starting == 0 || ratio <= 1.0 {
            return if is_near(ratio) { self.replicas } else { (ratio * f64::from(ready)).ceil() as u32 };
        }
        // Those that are not ready count as if they carried nothing.
        let all = ready + starting;
        let dampened = f64::from(sessions) / f64::from(all) / target;
        if is_near(dampened) || dampened < 1.0 {
            return self.replicas;
        }
        // It never goes the other way by this.
        ((dampened * f64::from(all)).ceil() as u32).max(self.replicas)
    }

    /// The highest of the window when it goes down; up by as many as there are or four, whichever is more.
    fn behave(&mut self, recommended: u32, setup: &Setup, now: u64) -> u32 {
        self.recommended.push_back((now, recommended));
        while self.recommended.front().is_some_and(|(at, _)| at + STABILIZATION < now) {
            self.recommended.pop_front();
        }
        let highest = self.recommended.iter().map(|(_, replicas)| *replicas).max().unwrap_or(recommended);
        let stable = if recommended > self.replicas { recommended } else { highest.min(self.replicas) };
        let most = (self.replicas * 2).max(self.replicas + 4);
        stable.min(most).clamp(setup.min.max(1), setup.max)
    }

    /// `getPodsToDelete`: starting pods first.
    fn choose(&mut self, world: &World<'_>, count: usize) -> Vec<u32> {
        let mut ranked: Vec<(u8, u32, usize, u32)> = world
            .alive()
            .filter(|(_, pod)| matches!(pod.way, Way::Starting | Way::Serving))
            .map(|(id, pod)| {
                let (is_ready, age) = match pod.ready {
                    Some(ready) => (1, power(world.now - ready)),
                    None => (0, power(world.now - pod.created)),
                };
                (is_ready, age, self.random.below(usize::MAX), id)
            })
            .collect();
        if self.hpa.victims == Victims::Random {
            ranked.iter_mut().for_each(|(_, age, ..)| *age = 0);
        }
        ranked.sort_unstable();
        ranked.into_iter().take(count).map(|(.., id)| id).collect()
    }
}

/// An age to a power of two (`LogarithmicScaleDown`).
fn power(millis: u64) -> u32 {
    (millis / 1_000).checked_ilog2().unwrap_or(0)
}

impl Keeper for Autoscaler {
    fn interval(&self) -> u64 {
        SYNC
    }

    fn packing(&self) -> Packing {
        self.hpa.packing
    }

    fn look(&mut self, world: &mut World<'_>) {
        let (mut ready, mut starting, mut sessions) = (0, 0, 0);
        for (_, pod) in world.alive() {
            match pod.way {
                Way::Serving => (ready, sessions) = (ready + 1, sessions + pod.sessions),
                Way::Starting => starting += 1,
                _ => {}
            }
        }
        let recommended = self.recommend(ready, starting, sessions, world.setup.capacity);
        self.replicas = self.behave(recommended, world.setup, world.now);
        let there = ready + starting;
        for _ in there..self.replicas {
            world.create();
        }
        if there > self.replicas {
            for id in self.choose(world, (there - self.replicas) as usize) {
                world.end(id, self.hpa.grace);
            }
        }
    }
}
