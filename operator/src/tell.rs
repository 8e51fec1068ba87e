//! What people are told of a look: status, Events, metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use streamfleet_scaling::{DrainReason, Limit, Phase, Worker};
use streamfleet_service::resource::StreamServiceStatus;
use streamfleet_service::spec::{AutoscalingSpec, ScalingMode};
use streamfleet_service::{API_VERSION, KIND};
use tracing::field::Empty;
use tracing::info_span;

use crate::care::Care;
use crate::cluster::Refusal;
use crate::events::{Note, Telling, Tone, event, series};
use crate::facts::{DeploymentFacts, PodFacts, Stage};
use crate::look::{Findings, Seen};
use crate::metrics;
use crate::names::Key;
use crate::operator::Operator;
use crate::reasons::{Place, Reason, Word};
use crate::resource::Resource;
use crate::scale::Scaling;
use crate::status::{Picture, Stands, is_news, stands};
use crate::traces::part;
use crate::view::Item;

/// The longest text of an Event about a condition, in bytes.
const MAX_BRIEF: usize = 200;

/// Names in one sentence; more are a number.
const NAMED: usize = 4;

impl Operator {
    /// Metrics of a service.
    pub(crate) fn show(&self, key: &Key, findings: &Findings, care: &Care) {
        // Before any worker has shown it there is nothing to show.
        let has_started = findings.workers.iter().any(|worker| worker.start.is_some());
        let parts = care.prepared.iter().filter(|_| has_started).flat_map(|prepared| &prepared.parts);
        let start = parts.filter_map(|part| Some(care.scaling.get(&part.variant)?.start(&part.tuning))).max();
        let mut figures = figures(&findings.workers);
        figures.starting += u64::from(findings.scaling.coming());
        figures.desired = findings.scaling.want().into();
        figures.held = findings.traffic.map_or(0, |traffic| traffic.held.into());
        figures.start_seconds = start.map(|start| start.as_secs_f64());
        self.instruments.service(key, figures);
    }

    /// What was done is counted, however the look has ended.
    pub(crate) fn count(&self, key: &Key, findings: &Findings) {
        let done = &findings.scaling.done;
        for (kind, workers) in [
            ("create", findings.scaling.created() as usize),
            ("undrain", done.undrained.len()),
            ("drain", done.drained.len()),
            ("remove", done.removed.len()),
        ] {
            self.instruments.decided(key, kind, workers);
        }
    }

    /// Status and Events. Returns when a status that could not be written yet may be.
    pub(crate) async fn tell(&self, key: &Key, seen: &Seen, findings: &Findings, care: &mut Care) -> Option<Instant> {
        let before = &seen.resource.status;
        let pods: Vec<&PodFacts> = seen.pods.iter().filter(|pod| pod.stage != Stage::Over).collect();
        let deployments = findings.scaling.deployments();
        let picture = Picture {
            name: &key.name,
            generation: seen.resource.generation,
            standing: &findings.standing,
            workers: &findings.workers,
            pods: &pods,
            coming: findings.scaling.coming(),
            deployments: &deployments,
            figures: findings.figures,
            silence: findings.silence.as_ref(),
            want: findings.scaling.want(),
            limited: findings.scaling.limited(),
            faults: &findings.faults,
            url: self.url(seen),
            now: findings.now,
        };
        let after = picture.status(before);
        let mut notes = decisions(&findings.scaling);
        notes.extend(going(seen, care));
        // What was told stands in the status later, or never if it has passed by then.
        let then = care.told.clone().unwrap_or_else(|| stands(before));
        notes.extend(transitions(&then, &after));
        notes.extend(rollout(&mut care.rolling, &deployments));
        notes.extend(ignored(&seen.resource, &mut care.asked));
        let later = self.write_status(key, before, &after, care).await;
        self.publish(key, seen, &notes, care).await;
        if self.may_act() {
            care.told = Some(stands(&after));
        }
        later
    }

    /// What was done before the API server fell silent. How things stand is told when it is back.
    pub(crate) async fn tell_deeds(&self, key: &Key, seen: &Seen, findings: &Findings, care: &mut Care) {
        self.publish(key, seen, &decisions(&findings.scaling), care).await;
    }

    async fn publish(&self, key: &Key, seen: &Seen, notes: &[Note], care: &mut Care) {
        let regarding = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(KIND.to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(seen.resource.uid.clone()),
            ..ObjectReference::default()
        };
        for note in notes {
            if let Err(refusal) = self.publish_one(key, note, &regarding, care).await {
                tracing::debug!(service = %key, error = %refusal, "an Event was lost");
                care.answered(&refusal, Instant::now());
                // Each of the others would be waited for as long.
                if matches!(refusal, Refusal::TimedOut(_) | Refusal::Away(_)) {
                    break;
                }
            }
        }
    }

    async fn write_status(
        &self,
        key: &Key,
        before: &StreamServiceStatus,
        after: &StreamServiceStatus,
        care: &mut Care,
    ) -> Option<Instant> {
        if before == after || !self.may_act() {
            return None;
        }
        let now = Instant::now();
        if let Err(at) = care.pace.may_write(is_news(before, after), now) {
            return Some(at);
        }
        care.pace.written(now);
        let status = json!(after);
        match part(info_span!("status", outcome = Empty), self.cluster.set_status(key, &status)).await {
            Ok(written) => {
                if let Some(resource) = Resource::of(&written) {
                    self.view.lock().answer(Item::Service(resource));
                }
            }
            Err(Refusal::Absent | Refusal::Conflict(_)) => {}
            Err(refusal) => {
                tracing::warn!(service = %key, error = %refusal, "its status cannot be written");
                care.answered(&refusal, Instant::now());
            }
        }
        None
    }

    async fn publish_one(
        &self,
        key: &Key,
        note: &Note,
        regarding: &ObjectReference,
        care: &mut Care,
    ) -> Result<(), Refusal> {
        if !self.may_act() {
            return Ok(());
        }
        let now = Timestamp::now();
        match care.ledger.tell(&key.name, note, self.unique(), Instant::now()) {
            Telling::Nothing => Ok(()),
            Telling::New(name) => {
                match note.tone {
                    Tone::Normal => tracing::info!(service = %key, reason = note.reason.as_str(), "{}", note.text),
                    Tone::Warning => tracing::warn!(service = %key, reason = note.reason.as_str(), "{}", note.text),
                }
                let event = event(name, note, regarding, &self.reporter, now);
                let created = self.cluster.create_event(&key.namespace, &event);
                part(info_span!("event", reason = note.reason.as_str(), outcome = Empty), created).await
            }
            Telling::Again(name, times) => {
                let series = json!(series(times, now));
                let repeated = self.cluster.repeat_event(&key.namespace, &name, &series);
                part(info_span!("event", reason = note.reason.as_str(), outcome = Empty), repeated).await
            }
        }
    }

    fn url(&self, seen: &Seen) -> Option<String> {
        let service = &seen.resource.said.as_ref().ok()?.service;
        let base = self.public_url()?;
        let path = service.paths.first()?;
        let (scheme, _) = base.split_once("://")?;
        Some(match &service.host {
            Some(host) => format!("{scheme}://{host}{path}"),
            None => format!("{base}{path}"),
        })
    }
}

/// What there is of workers: how many, and what they have.
fn figures(workers: &[Worker<String>]) -> metrics::Figures {
    let count = |phase: Phase| workers.iter().filter(|worker| worker.phase == phase).count() as u64;
    let serving = || workers.iter().filter(|worker| worker.phase == Phase::Serving);
    metrics::Figures {
        starting: count(Phase::Starting),
        serving: count(Phase::Serving),
        draining: count(Phase::Draining),
        sessions: workers.iter().map(|worker| u64::from(worker.sessions)).sum(),
        serving_sessions: serving().map(|worker| u64::from(worker.sessions)).sum(),
        capacity: serving().map(|worker| u64::from(worker.capacity)).sum(),
        ..metrics::Figures::default()
    }
}

fn named(names: &[String]) -> String {
    match names {
        [] => String::new(),
        few if few.len() <= NAMED => few.join(", "),
        many => format!("{} and {} more", many[..NAMED].join(", "), many.len() - NAMED),
    }
}

fn workers(n: usize) -> String {
    if n == 1 { "1 worker".to_owned() } else { format!("{n} workers") }
}

/// That workers were created. Some are in place of others that exist, and count for nothing as they do not start.
fn created_text(created: usize, limited: Option<Limit>, want: u32, why: &str) -> String {
    let beside = match limited {
        Some(Limit::NotReady { overdue: 1 }) => " beside 1 that does not become ready".to_owned(),
        Some(Limit::NotReady { overdue }) => format!(" beside {overdue} that do not become ready"),
        _ => String::new(),
    };
    format!("{} created{beside}, {want} wanted: {why}", workers(created))
}

/// What was done.
fn decisions(scaling: &Scaling) -> Vec<Note> {
    const SCALE: &str = "Scale";
    let done = &scaling.done;
    let mut notes = Vec::new();
    let created = scaling.created() as usize;
    if created > 0 {
        let text = created_text(created, scaling.limited(), scaling.want(), scaling.why());
        notes.push(Note::normal(Word::WorkersCreated, SCALE, text));
    }
    if !done.undrained.is_empty() {
        let text = format!("{} put back: {}", workers(done.undrained.len()), named(&done.undrained));
        notes.push(Note::normal(Word::WorkersUndrained, SCALE, text));
    }
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, why) in &done.drained {
        by_reason.entry(why).or_default().push(name.clone());
    }
    for (why, names) in by_reason {
        let text = format!("{} ({why}): {}", workers(names.len()), named(&names));
        notes.push(Note::normal(Word::WorkersDraining, "Drain", text));
    }
    if !done.expired.is_empty() {
        let text = format!(
            "{} told to send their clients elsewhere, as maxDrainSeconds is over: {}",
            workers(done.expired.len()),
            named(&done.expired)
        );
        notes.push(Note::warning(Word::DrainExpired, "Drain", text));
    }
    if !done.removed.is_empty() {
        let text = format!("{} removed: {}", workers(done.removed.len()), named(&done.removed));
        notes.push(Note::normal(Word::WorkersRemoved, SCALE, text));
    }
    notes
}

/// Nodes that go, told once each.
fn going(seen: &Seen, care: &mut Care) -> Vec<Note> {
    care.going.retain(|node| seen.going.contains_key(node));
    let mut notes = Vec::new();
    for (node, why) in &seen.going {
        let there = || seen.pods.iter().filter(|pod| pod.node.as_ref() == Some(node));
        // Whoever led before has told of it, where it has drained any of them.
        let leaving = DrainReason::Leaving.to_string();
        let is_told = there().any(|pod| pod.marks.draining && pod.marks.reason.as_ref() == Some(&leaving));
        if care.going.insert(node.clone()) && !is_told {
            let there = there().count();
            let text = format!("node {node} goes ({why}): {} replaced, then drained", workers(there));
            notes.push(Note::normal(Word::NodeLeaving, "Drain", text));
        }
    }
    notes
}

/// That pods are replaced, and that they are. An operator that is new does not know what was told.
fn rollout(rolling: &mut Option<bool>, deployments: &[DeploymentFacts]) -> Option<Note> {
    // What was written just now is not seen yet: of that alone pods are not replaced, when it is their number.
    let is_other = |facts: &DeploymentFacts| facts.observed && facts.existing > facts.updated;
    let is_rolling = deployments.iter().any(is_other);
    if !is_rolling && rolling.is_some() && deployments.iter().any(|facts| !facts.observed) {
        return None;
    }
    match (rolling.replace(is_rolling), is_rolling) {
        (Some(false), true) => {
            Some(Note::normal(Word::RollingOut, "Reconcile", "pods are replaced by ones of the present template"))
        }
        (Some(true), false) => Some(Note::normal(Word::RolledOut, "Reconcile", "all pods are of the present template")),
        _ => None,
    }
}

/// That somebody says how many workers there shall be, where sessions decide: `kubectl scale` has said "scaled". An operator that is
/// new does not know what was told.
fn ignored(resource: &Resource, asked: &mut Option<u32>) -> Option<Note> {
    let scaling = &resource.said.as_ref().ok()?.service.operation.autoscaling;
    let replicas = scaling.replicas;
    let is_new = resource.status.observed_generation.is_none();
    let before = asked.replace(replicas).or(is_new.then_some(AutoscalingSpec::default().replicas));
    if scaling.mode != ScalingMode::Sessions || before.is_none_or(|before| before == replicas) {
        return None;
    }
    let text = format!(
        "autoscaling.replicas is {replicas}, and in mode Sessions the sessions decide: say minReplicas, or mode: External"
    );
    Some(Note::warning(Word::ReplicasIgnored, "Scale", text))
}

/// Conditions that have changed and say that something stands in the way, or does not any more. One thing that stands in the way of
/// several is told once.
fn transitions(before: &Stands, after: &StreamServiceStatus) -> Vec<Note> {
    let find = |kind: &str| -> Option<&Condition> { after.conditions.iter().find(|condition| condition.type_ == kind) };
    let was_told = |reason: &str| before.iter().any(|(_, status, other)| status == "True" && other == reason);
    let mut notes: Vec<Note> = Vec::new();
    let mut over: Vec<&str> = Vec::new();
    let starting = Word::Starting.as_str();
    for (kind, is_over) in [
        (Place::Ready, None),
        (Place::Degraded, Some(Word::NotDegraded)),
        (Place::ScalingLimited, Some(Word::NotScalingLimited)),
        (Place::DrainBlocked, Some(Word::NotDrainBlocked)),
    ] {
        let Some(now) = find(kind.as_str()) else { continue };
        let then = before.iter().find(|(of, ..)| of == kind.as_str());
        if then.is_some_and(|(_, status, reason)| (status, reason) == (&now.status, &now.reason)) {
            continue;
        }
        let bad = match kind {
            Place::Ready => [Word::Invalid, Word::PathConflict].iter().any(|word| now.reason == word.as_str()),
            // A fleet that grows is no fault.
            Place::ScalingLimited => now.status == "True" && now.reason != starting,
            _ => now.status == "True",
        };
        let was_bad = then.filter(|(_, status, reason)| status == "True" && reason != starting);
        if bad {
            let is_told = was_told(&now.reason) || notes.iter().any(|note| note.reason.as_str() == now.reason);
            if !is_told {
                notes.push(Note::warning(Reason::Told(now.reason.clone()), "Reconcile", brief(&now.message)));
            }
        } else if let (Some((.., reason)), Some(word)) = (was_bad.filter(|_| now.status == "False"), is_over) {
            if !over.contains(&reason.as_str()) {
                notes.push(Note::normal(word, "Reconcile", brief(&now.message)));
            }
            over.push(reason);
        }
    }
    notes
}

/// The beginning of what a condition says, which says more.
fn brief(text: &str) -> String {
    if text.len() <= MAX_BRIEF {
        return text.to_owned();
    }
    let cut = &text[..text.floor_char_boundary(MAX_BRIEF)];
    let cut = cut.rsplit_once(' ').map_or(cut, |(whole, _)| whole);
    format!("{} …", cut.trim_end_matches([' ', ';', ',', ':']))
}

#[cfg(test)]
mod tests;
