//! Where a session is to go: the workers that may have it, best first, and what it must be together with.
//!
//! Pure: a snapshot, a service and a caller in, a [`Plan`] out. The claim in the store decides.

use std::time::Duration;

use serde_json::Value;
use streamfleet_placement::{Affinity as Closeness, Key, Packing as Policing, Policy, Worker, rank};
use streamfleet_scaling::split;
use streamfleet_service::service::Variant;
use streamfleet_service::spec::{MAX_SESSIONS_PER_WORKER, Packing};
use streamfleet_service::{Affinity, Params, Service, Strength};
use streamfleet_session::SessionId;
use streamfleet_store::{Gate, MAX_CAPACITY, PinValue, WorkerId, WorkerView};

use crate::identify::Caller;

/// What a StreamService may ask of a worker is what is placed on it: an autoscaler that counts on more makes too few of them.
const _: () = assert!(MAX_SESSIONS_PER_WORKER == MAX_CAPACITY);

/// Whether a snapshot shows how things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As fresh as it is meant to be.
    Fresh,
    /// The store has not answered for so long.
    Stale(Duration),
}

/// What is known of how much workers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loads {
    /// What the snapshot says.
    Told,
    /// Nothing any more: the order is that of the hash alone, and the same at every router that has seen the same workers.
    Unknown,
}

impl From<Freshness> for Loads {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Fresh => Self::Told,
            Freshness::Stale(_) => Self::Unknown,
        }
    }
}

/// What a session wants.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The service that was called.
    pub service: &'a Service,
    /// By which path.
    pub params: &'a Params,
    /// The session.
    pub session: &'a SessionId,
    /// Whose it is.
    pub caller: &'a Caller,
    /// A worker that has just refused it, or was gone.
    pub without: Option<&'a WorkerId>,
}

/// Where it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Workers, best first. Never empty.
    pub ranked: Vec<WorkerId>,
    /// What it must be together with.
    pub pin: Option<PinValue>,
    /// Which variant of the service it is.
    pub variant: Option<String>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPlan {
    /// No worker of the service is ready: one may come.
    NotReady,
    /// All that are ready are full.
    Full,
    /// The value that it must share with others cannot be one.
    Value(String),
}

impl Wish<'_> {
    /// Plans with what a snapshot shows.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub fn plan(&self, workers: &[WorkerView], loads: Loads) -> Result<Plan, NoPlan> {
        let bond = self.bond().map_err(NoPlan::Value)?;
        let variant = variant(&self.service.variants, self.grouped_by());
        let seats: Vec<(&WorkerView, Worker)> =
            workers.iter().filter_map(|view| self.seat(view, variant, loads)).collect();
        if seats.is_empty() {
            return Err(NoPlan::NotReady);
        }
        let policy = Policy {
            packing: match self.service.packing {
                Packing::Pack => Policing::Pack,
                Packing::Spread => Policing::Spread,
            },
            affinity: if bond.is_some() || loads == Loads::Unknown { Closeness::Prefer } else { Closeness::None },
            ..Policy::default()
        };
        let key = Key::of(bond.as_ref().map_or(self.session.as_str(), |bond| bond.value.as_str()));
        let pin = bond.filter(|bond| bond.strength == Strength::Require).map(|bond| bond.value);
        let numbers: Vec<Worker> = seats.iter().map(|(_, worker)| *worker).collect();
        let mut ranked: Vec<WorkerId> =
            rank(key, &numbers, &policy).into_iter().map(|n| seats[n].0.owner.worker.clone()).collect();
        if ranked.is_empty() {
            // Others of this value may live on a worker that looks full and has room by now: the claim knows.
            if pin.is_none() {
                return Err(NoPlan::Full);
            }
            ranked.extend(seats.first().map(|(view, _)| view.owner.worker.clone()));
        }
        Ok(Plan { ranked, pin, variant: variant.map(str::to_owned) })
    }

    /// Whether one more worker comes for whom all are full: somebody makes workers as calls come, and fewer serve than may. Of a variant
    /// as many may as its share is.
    #[must_use]
    pub fn grows(&self, workers: &[WorkerView]) -> bool {
        let Some(most) = self.service.grows_to else { return false };
        let variants = &self.service.variants;
        let own = variant(variants, self.grouped_by());
        let serves = |view: &&WorkerView| {
            view.gate == Gate::Open && view.said.as_ref().is_some_and(|said| said.variant.as_deref() == own)
        };
        let weights: Vec<u32> = variants.iter().map(|variant| variant.weight.into()).collect();
        let rest = 100_u32.saturating_sub(weights.iter().sum());
        // As the operator shares them out: the service itself first, with what the variants leave.
        let shares = split(most, &[&[rest], &weights[..]].concat());
        let part = variants.iter().position(|variant| Some(variant.name.as_str()) == own).map_or(0, |n| n + 1);
        shares.get(part).is_some_and(|share| workers.iter().filter(serves).count() < *share as usize)
    }

    /// A worker that may have it, as placement sees it.
    fn seat<'w>(&self, view: &'w WorkerView, variant: Option<&str>, loads: Loads) -> Option<(&'w WorkerView, Worker)> {
        let said = view.said.as_ref()?;
        let is_open = view.gate == Gate::Open && self.without != Some(&view.owner.worker);
        if !is_open || said.variant.as_deref() != variant {
            return None;
        }
        let capacity = said.capacity.min(MAX_CAPACITY);
        let active = if loads == Loads::Told { view.sessions } else { 0 };
        Some((view, Worker::new(view.owner.worker.as_str(), active, capacity)))
    }

    /// What it is put into a group by: its user, who is to meet the same variant each time.
    fn grouped_by(&self) -> &str {
        self.caller.user.as_ref().map_or(self.session.as_str(), |user| user.as_str())
    }

    /// What it has in common with others, if anything.
    fn bond(&self) -> Result<Option<Bond>, String> {
        let (kind, value, strength) = match &self.service.affinity {
            Affinity::Session => return Ok(None),
            Affinity::User(strength) => ("user", self.caller.user.as_ref().map(ToString::to_string), *strength),
            Affinity::Metadata(key, strength) => {
                (key.as_str(), self.caller.metadata.get(key).map_or(Ok(None), |value| text(key, value))?, *strength)
            }
            Affinity::Path(name, strength) => (name.as_str(), self.params.get(name).map(str::to_owned), *strength),
        };
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
        let value = value.parse().map_err(|error| format!("{kind}: {error}"))?;
        Ok(Some(Bond { value, strength }))
    }
}

struct Bond {
    value: PinValue,
    strength: Strength,
}

/// A value of metadata as a text that sessions can share.
fn text(key: &str, value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok(Some(value.to_string())),
        Value::Array(_) | Value::Object(_) => {
            Err(format!("{key} must be a text or a number: sessions are placed by it"))
        }
    }
}

/// The variant of whom this names; `None` for the service itself. Weights are percent, and users keep their variant while
/// the weights before it stay as they are.
fn variant<'s>(variants: &'s [Variant], name: &str) -> Option<&'s str> {
    if variants.is_empty() {
        return None;
    }
    let mut part = Key::of(name).part_of(100);
    for variant in variants {
        match part.checked_sub(variant.weight.into()) {
            Some(rest) => part = rest,
            None => return Some(&variant.name),
        }
    }
    None
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
