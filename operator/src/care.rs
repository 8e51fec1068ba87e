//! What is carried from one look at a service to the next. It can be lost: whatever matters stands in the cluster and the store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_process::config::Mistakes;
use streamfleet_scaling::{Memory, Moment};
use streamfleet_store::{StoreError, WorkerView};

use crate::apply::{Built, REST, Refused, Wait};
use crate::cluster::Refusal;
use crate::due::Lane;
use crate::events::Ledger;
use crate::facts::{PodFacts, Stage, Trouble};
use crate::farewell::Farewells;
use crate::prepare::Prepared;
use crate::resource::Resource;
use crate::secrets::Inspection;
use crate::status::{Fault, Stands};
use crate::users::Admitted;
use crate::workers::Acquaintance;

/// Looks that have failed are repeated after this, then after twice as long, up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause. It comes again by itself when the API server is back: this bounds how late.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A service that was not answered in time counts as slow for so long: longer than anything of it is left untried.
const SLOW: Duration = Duration::from_secs(120);
/// A status is written no more often than this.
const STATUS_SPACING: Duration = Duration::from_secs(10);
/// For so long it is told that a pod has failed, which is deleted at once: another one that fails comes sooner.
const FAILED: Duration = Duration::from_secs(60);
/// What the store says of why it does not answer is told anew after this: it is other words each time.
const WORDS: Duration = Duration::from_secs(60);
/// But for news (a condition that has changed, another specification), of which so many may be told at once.
const NEWS: u32 = 3;

/// What is known of one service from earlier looks.
#[derive(Debug, Default)]
pub struct Care {
    /// Of which StreamService: one of the same name is another one.
    pub uid: String,
    /// The last specification that could be used.
    pub prepared: Option<Arc<Prepared>>,
    /// Of which generation it was found out last whether it can be used, and what.
    pub judged: Option<(i64, Result<(), Mistakes>)>,
    /// What scaling goes by, of each part.
    pub scaling: BTreeMap<Option<String>, Box<Memory>>,
    /// The share of the service's traffic that each part had at the last look.
    pub shares: BTreeMap<Option<String>, u32>,
    /// Its pods.
    pub met: Acquaintance,
    /// Since when those of its workers that drain for too long have their last time.
    pub farewells: Farewells,
    /// Its workers, as the store has last told of them.
    pub views: Vec<WorkerView>,
    /// Pods that each Deployment shall have, by name, as it was last said.
    pub replicas: BTreeMap<String, i32>,
    /// When one of its pods was last seen to have failed, and why.
    pub failed: Option<(Moment, Trouble)>,
    /// The uids of the pods that there were when all of them were to go, if they are.
    pub closing: Option<HashSet<String>>,
    /// Numbers of pods that were refused, by the Deployment's name.
    pub denied: BTreeMap<String, Box<Denial>>,
    /// Its pods are left alone for a while, as nobody answered about one of them in time.
    pub pods_rest: Option<Box<Rest>>,
    /// When something was last not answered in time.
    pub timed_out: Option<Instant>,
    /// What there shall be.
    pub built: Option<Built>,
    /// What was refused.
    pub refused: Refused,
    /// What people were told.
    pub ledger: Ledger,
    /// Nodes that go, of which that was told.
    pub going: BTreeSet<String>,
    /// How the service stood when that was last told: what is told of its conditions is told once, however late they are written.
    pub told: Option<Stands>,
    /// Whether its pods were being replaced then.
    pub rolling: Option<bool>,
    /// How many workers `kubectl scale` or whoever else sets `spec.autoscaling.replicas` asked for then.
    pub asked: Option<u32>,
    /// Why the store has not told how things are, and since when that is told.
    pub store: Option<(StoreError, Instant)>,
    /// The Secrets that it names.
    pub inspection: Option<Inspection>,
    /// When its user was last made in the store.
    pub admitted: Option<Admitted>,
    /// When its status may be written.
    pub pace: Pace,
    /// How often in a row a look has failed.
    pub failures: u32,
}

impl Care {
    /// Whether a StreamService can be run as it is; what ran goes on if not. That is found out once for each specification: it takes
    /// a while, and is not how a service that is wrong should spend the operator's time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&mut self, resource: &Resource) -> Result<(), &Mistakes> {
        let judged = match self.judged.take().filter(|(generation, _)| *generation == resource.generation) {
            Some(judged) => judged,
            None => {
                let judged = Prepared::new(resource).map(|new| self.prepared = Some(Arc::new(new)));
                (resource.generation, judged)
            }
        };
        self.judged.insert(judged).1.as_ref().copied()
    }

    /// This operator may act again after a pause. Another one may have acted meanwhile: how many pods there shall be is what that one has
    /// said, and not what was said here before.
    pub fn paused(&mut self) {
        self.replicas.clear();
        self.denied.clear();
    }

    /// What is known of parts and Deployments that there are no more is of no use: it is another one that is called so later.
    pub fn keep_only(&mut self, parts: &[(Option<&str>, &str)]) {
        let is_part = |variant: &Option<String>| parts.iter().any(|(of, _)| *of == variant.as_deref());
        let is_deployment = |name: &String| parts.iter().any(|(_, of)| of == name);
        self.scaling.retain(|variant, _| is_part(variant));
        self.shares.retain(|variant, _| is_part(variant));
        self.replicas.retain(|name, _| is_deployment(name));
        self.denied.retain(|name, _| is_deployment(name));
    }

    /// What is told of pods that have failed: their nodes do not take them, or have given them up.
    pub fn failure(&mut self, pods: &[PodFacts], now: Moment) -> Option<Fault> {
        let failed = pods.iter().filter(|pod| pod.stage == Stage::Over && !pod.ending);
        if let Some(trouble) = failed.filter_map(|pod| pod.trouble.as_ref()).next() {
            self.failed = Some((now, trouble.clone()));
        }
        let (_, trouble) = self.failed.as_ref().filter(|(at, _)| now.since(*at) < FAILED)?;
        Some(Fault::told(trouble, format!("a worker's pod has failed: {}", trouble.message)))
    }

    /// Notes what the store has answered. Returns what is told of why it says nothing: words that were told stay for a while.
    pub fn heard(&mut self, error: Option<StoreError>, now: Instant) -> Option<StoreError> {
        let before = self.store.take();
        let stays = |(known, since): &(StoreError, Instant)| {
            matches!((known, &error), (StoreError::Unavailable(_), Some(StoreError::Unavailable(_))))
                && now.saturating_duration_since(*since) < WORDS
        };
        self.store = before.filter(stays).or_else(|| error.map(|error| (error, now)));
        self.store.as_ref().map(|(error, _)| error.clone())
    }

    /// Notes how a request was answered.
    pub fn answered(&mut self, refusal: &Refusal, now: Instant) {
        if matches!(refusal, Refusal::TimedOut(_)) {
            self.timed_out = Some(now);
        }
    }

    /// What is to be expected of the next look.
    #[must_use]
    pub fn lane(&self, now: Instant) -> Lane {
        match self.timed_out {
            Some(at) if now.saturating_duration_since(at) < SLOW => Lane::Slow,
            _ => Lane::Quick,
        }
    }

    /// When to look again after a failure; `luck` between 0 and 1 spreads many.
    pub fn backoff(&mut self, luck: f64) -> Duration {
        let pause = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.5 + luck / 2.0)
    }
}

/// Something that is not tried for a while.
#[derive(Debug, Clone)]
pub struct Rest {
    /// Until then.
    pub until: Instant,
    /// Why.
    pub fault: Fault,
}

impl Rest {
    /// From now on.
    #[must_use]
    pub fn after(fault: Fault, now: Instant) -> Self {
        Self { until: now + REST, fault }
    }
}

/// A number of pods that a Deployment was not allowed to have.
#[derive(Debug, Clone)]
pub struct Denial {
    /// So many.
    pub replicas: i32,
    /// Until when the same is not tried again.
    pub wait: Wait,
    /// Why.
    pub fault: Fault,
}

/// When a status may be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    written: Option<Instant>,
    /// News that were told early, and are paid back by waiting.
    early: u32,
}

impl Pace {
    /// Whether it may be written now, or when.
    pub fn may_write(&mut self, is_news: bool, now: Instant) -> Result<(), Instant> {
        let Some(written) = self.written else { return Ok(()) };
        let passed = now.saturating_duration_since(written);
        let periods = u32::try_from(passed.as_millis() / STATUS_SPACING.as_millis()).unwrap_or(u32::MAX);
        if periods > 0 {
            return Ok(());
        }
        if is_news && self.early < NEWS {
            return Ok(());
        }
        Err(written + STATUS_SPACING)
    }

    /// It was written.
    pub fn written(&mut self, now: Instant) {
        let passed = self.written.map_or(STATUS_SPACING, |written| now.saturating_duration_since(written));
        let periods = u32::try_from(passed.as_millis() / STATUS_SPACING.as_millis()).unwrap_or(u32::MAX);
        self.early = if periods == 0 { self.early + 1 } else { self.early.saturating_sub(periods - 1) };
        self.written = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reasons::Word;

    #[test]
    fn a_status_is_written_every_ten_seconds_and_news_at_once() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert_eq!(pace.may_write(false, at(0)), Ok(()));
        pace.written(at(0));
        assert_eq!(pace.may_write(false, at(1)), Err(at(10)));
        for second in 1..4 {
            assert_eq!(pace.may_write(true, at(second)), Ok(()));
            pace.written(at(second));
        }
        assert_eq!(pace.may_write(true, at(4)), Err(at(13)), "who has nothing but news is no news");
        assert_eq!(pace.may_write(false, at(13)), Ok(()));
        pace.written(at(13));
        assert_eq!(pace.may_write(true, at(14)), Err(at(23)));
        pace.written(at(53));
        assert_eq!(pace.may_write(true, at(54)), Ok(()), "it was quiet for a while");
    }

    #[test]
    fn a_specification_is_judged_once() {
        let object = |handler: &str, generation: i64| {
            let spec = json!({ "handler": { "name": handler }, "limits": { "timeLimitSeconds": 60 }, "path": "/a" });
            let metadata = json!({ "namespace": "voice", "name": "a", "generation": generation });
            Resource::of(&serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()).unwrap()
        };
        let wrong = |generation| {
            let mut mistakes = Mistakes::new();
            mistakes.push("spec", "wrong");
            Resource { said: Err(mistakes), ..object("echo", generation) }
        };
        let mut care = Care::default();
        assert!(care.judge(&wrong(1)).is_err());
        assert!(care.judge(&object("echo", 1)).is_err(), "nobody has looked again");
        assert!(care.judge(&object("echo", 2)).is_ok());
        let used = care.prepared.clone().unwrap();
        assert!(care.judge(&wrong(2)).is_ok());
        assert!(care.judge(&wrong(3)).is_err());
        assert!(Arc::ptr_eq(&used, care.prepared.as_ref().unwrap()), "what ran goes on");
    }

    #[test]
    fn who_was_not_answered_in_time_is_slow_for_a_while() {
        let now = Instant::now();
        let mut care = Care::default();
        assert_eq!(care.lane(now), Lane::Quick);
        care.answered(&Refusal::Absent, now);
        assert_eq!(care.lane(now), Lane::Quick);
        care.answered(&Refusal::TimedOut(Duration::from_secs(12)), now);
        assert_eq!(care.lane(now + Duration::from_secs(119)), Lane::Slow);
        assert_eq!(care.lane(now + Duration::from_secs(120)), Lane::Quick);
    }

    /// A node that rejected each pod was told of by nobody.
    #[test]
    fn pods_that_fail_are_told_of_for_a_while() {
        let pod = |reason: &str| {
            let trouble = Some(Trouble { reason: reason.to_owned(), message: "no".to_owned() });
            PodFacts { trouble, ..crate::doubles::pod("a", Stage::Over) }
        };
        let mut care = Care::default();
        let mut told = |pods: &[PodFacts], after: u64| {
            let now = crate::doubles::NOW + Duration::from_secs(after);
            care.failure(pods, now).map(|fault| (fault.reason.as_str().to_owned(), fault.message))
        };
        let fault = |reason: &str| Some((reason.to_owned(), "a worker's pod has failed: no".to_owned()));
        let starts = PodFacts { stage: Stage::Waiting, ..pod("ImagePullBackOff") };
        assert_eq!(told(&[starts, PodFacts { trouble: None, ..pod("") }], 0), None);
        assert_eq!(told(&[PodFacts { ending: true, ..pod("Evicted") }], 0), None);
        assert_eq!(told(&[pod("OutOfcpu")], 1), fault("OutOfcpu"));
        assert_eq!(told(&[], 60), fault("OutOfcpu"), "it was deleted, and the next one is made");
        assert_eq!(told(&[], 61), None);
        assert_eq!(told(&[pod("Evicted")], 70), fault("Evicted"));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut care = Care::default();
        for (variant, name) in [(None, "s-worker"), (Some("b"), "s-b-worker")] {
            care.scaling.insert(variant.map(str::to_owned), Box::default());
            care.shares.insert(variant.map(str::to_owned), 1);
            care.replicas.insert(name.to_owned(), 1);
            let wait = Wait::after(None, Instant::now(), 0.5);
            let denial = Denial { replicas: 1, wait, fault: Fault::new(Word::ObjectRefused, "") };
            care.denied.insert(name.to_owned(), Box::new(denial));
        }
        let sizes = |care: &Care| [care.scaling.len(), care.shares.len(), care.replicas.len(), care.denied.len()];
        care.keep_only(&[(None, "s-worker"), (Some("b"), "s-b-worker")]);
        assert_eq!(sizes(&care), [2; 4]);
        care.keep_only(&[(None, "s-worker")]);
        assert_eq!(sizes(&care), [1; 4]);
        assert!(care.replicas.contains_key("s-worker") && care.shares.contains_key(&None));
    }

    /// Its words are others with each attempt: told as they are, each would be another status.
    #[test]
    fn why_the_store_is_away_is_told_in_steady_words() {
        let now = Instant::now();
        let mut care = Care::default();
        let mut heard = |error: Option<&str>, after: u64| {
            let error = error.map(|text| StoreError::Unavailable(text.to_owned()));
            care.heard(error, now + Duration::from_secs(after)).map(|error| error.to_string())
        };
        let away = |text: &str| Some(format!("the store does not answer: {text}"));
        assert_eq!(heard(Some("UnknownCA"), 0), away("UnknownCA"));
        assert_eq!(heard(Some("broken pipe"), 59), away("UnknownCA"));
        assert_eq!(heard(Some("refused"), 60), away("refused"));
        assert_eq!(heard(Some("broken pipe"), 61), away("refused"));
        assert_eq!(heard(None, 62), None);
        assert_eq!(heard(Some("broken pipe"), 63), away("broken pipe"));
        assert_eq!(care.heard(Some(StoreError::NoMemory), now), Some(StoreError::NoMemory), "another thing");
    }

    #[test]
    fn failures_are_repeated_later_and_later() {
        let mut care = Care::default();
        let pauses: Vec<_> = (0..7).map(|_| care.backoff(1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(care.backoff(0.0).as_secs(), 15);
    }
}
