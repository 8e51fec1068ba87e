//! Objects as they shall be: written where they are not, taken away where they are no more, left alone where they are another's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::api::DynamicObject;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cluster::{Cluster, Force, Mode, Refusal};
use crate::kind::Kind;
use crate::names::Key;
use crate::objects::{Object, Trial};
use crate::small::SmallMap;
use crate::status::Fault;
use crate::view::{Item, Known, View};
use crate::watch;

/// What was refused is tried again after this, and then after twice as long, up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait: whoever has removed the cause (a quota, a webhook) should not wait long.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// After a request that was not answered in time, the service's others of its sort wait for this: each may take as long, and there are
/// better uses of a look.
pub const REST: Duration = Duration::from_secs(10);

/// Garbage collection takes moments. What has not gone by then will not go by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// What could not be written, by kind and name.
#[derive(Debug, Clone, Default)]
pub struct Refused {
    objects: BTreeMap<(Kind, String), Once>,
    /// What is to go before it can be made: since when that is awaited, and how that is told.
    awaited: BTreeMap<(Kind, String), (Instant, Fault)>,
    /// Until when nothing is written at all, as somebody has not answered in time.
    rests: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Once {
    hash: [u8; 16],
    wait: Wait,
    fault: Fault,
}

/// Whether pods refer to objects of a kind.
fn is_for_pods(kind: Kind) -> bool {
    matches!(kind, Kind::ServiceAccount | Kind::Secret | Kind::ConfigMap)
}

/// How long something that was refused is not tried again: longer each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Until then.
    pub until: Instant,
    length: Duration,
}

impl Wait {
    /// It was refused, `before` too perhaps. `luck` between 0 and 1 spreads the next tries of many.
    #[must_use]
    pub fn after(before: Option<Self>, now: Instant, luck: f64) -> Self {
        let length = before.map_or(FIRST_WAIT, |before| (before.length * 2).min(MAX_WAIT));
        Self { until: now + length.mul_f64(0.75 + luck / 2.0), length }
    }
}

impl Refused {
    /// Whether an object was refused as it is now, and is not to be tried yet.
    fn waits(&self, object: &Object, hash: [u8; 16], now: Instant) -> bool {
        self.objects
            .get(&(object.kind, object.name.clone()))
            .is_some_and(|once| once.hash == hash && now < once.wait.until)
    }

    /// Whether one of them is what pods refer to.
    fn keeps_pods_from_starting(&self) -> bool {
        self.objects.keys().any(|(kind, _)| is_for_pods(*kind))
    }

    fn has(&self, object: &Object) -> bool {
        self.objects.contains_key(&(object.kind, object.name.clone()))
    }

    /// An object was refused. `luck` between 0 and 1 spreads the next tries of many.
    fn note(&mut self, object: &Object, hash: [u8; 16], fault: Fault, now: Instant, luck: f64) {
        let key = (object.kind, object.name.clone());
        let before = self.objects.get(&key).filter(|once| once.hash == hash).map(|once| once.wait);
        self.objects.insert(key, Once { hash, wait: Wait::after(before, now, luck), fault });
    }

    #[cfg(test)]
    pub(crate) fn refused_long_ago(&mut self) {
        let object = Object { kind: Kind::Service, name: "a".to_owned(), value: Value::Null, trial: Trial::None };
        let long_ago = Instant::now().checked_sub(MAX_WAIT * 2).unwrap_or_else(Instant::now);
        self.note(&object, object.hash(), Fault::new("ObjectRefused", ""), long_ago, 0.5);
    }

    /// What is wrong.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        let now = Instant::now();
        let late = self.awaited.values().filter(move |(since, _)| now.saturating_duration_since(*since) >= PATIENCE);
        self.objects.values().map(|once| &once.fault).chain(late.map(|(_, fault)| fault))
    }

    /// It is as it should be, or will be.
    fn forget(&mut self, object: &Object) {
        self.objects.remove(&(object.kind, object.name.clone()));
    }

    /// What is there is to go first.
    fn awaits(&mut self, object: &Object, fault: Fault, now: Instant) {
        let name = (object.kind, object.name.clone());
        let since = self.awaited.get(&name).map_or(now, |(since, _)| *since);
        self.awaited.insert(name, (since, fault));
    }

    /// When the next one is tried again.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let next = self.objects.values().map(|once| once.wait.until).min()?;
        Some(self.rests.map_or(next, |rests| rests.max(next)))
    }

    /// Whether nothing is to be written yet.
    #[must_use]
    pub fn rests(&self, now: Instant) -> bool {
        self.rests.is_some_and(|until| now < until)
    }

    /// Nobody has said in time whether an object is taken.
    fn hangs(&mut self, object: &Object, hash: [u8; 16], fault: Fault) {
        let now = Instant::now();
        self.note(object, hash, fault, now, rand::random());
        self.rests = Some(now + REST);
    }
}

/// The hashes of what there shall be, for looking whether it is so without making it again.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// Of the specification.
    pub generation: i64,
    /// Of the StreamService.
    pub uid: String,
    /// Pods of each part.
    pub replicas: Vec<i32>,
    hashes: BTreeMap<(Kind, String), [u8; 16]>,
}

impl Built {
    /// Of these objects.
    #[must_use]
    pub fn of(generation: i64, uid: &str, replicas: &[i32], objects: &[Object]) -> Self {
        let hashes = objects.iter().map(|object| ((object.kind, object.name.clone()), object.hash()));
        Self { generation, uid: uid.to_owned(), replicas: replicas.to_vec(), hashes: hashes.collect() }
    }

    /// Whether everything is known to be so: each object was found to be what is wanted, and there are no others.
    #[must_use]
    pub fn is_settled(&self, objects: &SmallMap<(Kind, String), Known>) -> bool {
        objects.len() == self.hashes.len()
            && self.hashes.iter().all(|(name, hash)| objects.get(name).is_some_and(|known| known.is_settled(*hash)))
    }
}

/// What one object needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing.
    Nothing,
    /// It is ours, and not as it should be.
    Write,
    /// There is none, as far as is known.
    Make,
    /// It is another's.
    Leave,
    /// It is being deleted, or goes with the StreamService of the same name that was before: it can be made again when it is gone.
    Wait,
}

fn need(known: Option<&mut Known>, object: &Object, hash: [u8; 16], service: &Key, owner: &str) -> Need {
    match known {
        None => Need::Make,
        Some(known) if is_former(known, service, owner) => Need::Wait,
        Some(known) if known.owner.as_deref() != Some(owner) && !known.is_left_by(&service.name) => Need::Leave,
        Some(known) if known.ending => Need::Wait,
        Some(known) => match known.is(&object.value, hash) {
            true => Need::Nothing,
            false => Need::Write,
        },
    }
}

/// What is told of an object that is to go, and does not.
fn stays(object: &Object, known: &Known, owner: &str) -> Fault {
    let whose = if known.owner.as_deref() == Some(owner) { "" } else { " of another StreamService of this name" };
    let how = match (known.ending, known.finalizers.join(", ")) {
        (false, _) => "is there".to_owned(),
        (true, names) if names.is_empty() => "is being deleted, and is not gone".to_owned(),
        (true, names) => format!("is being deleted, and its finalizers ({names}) keep it"),
    };
    let text = format!("{} {}{whose} {how}: it is waited for", object.kind.name(), object.name);
    Fault::new("ObjectStays", text)
}

/// Whether an object is of a StreamService of this name that was deleted: garbage collection takes a while.
fn is_former(known: &Known, service: &Key, owner: &str) -> bool {
    known.owner.as_deref() != Some(owner) && known.owner_name.as_deref() == Some(service.name.as_str())
}

/// What is written with.
pub struct Writer<'a> {
    /// To whom.
    pub cluster: &'a Cluster,
    /// What is known.
    pub view: &'a Mutex<View>,
    /// Of which service.
    pub key: &'a Key,
    /// Its uid.
    pub owner: &'a str,
    /// Whether it may be written at this moment.
    pub may_act: &'a (dyn Fn() -> bool + Sync),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Whatever could be written was.
    Done,
    /// The API server cannot be reached.
    Away(String),
    /// It has not said in time whether it takes one of them. That is noted, and the others were not tried.
    TimedOut,
    /// Another operator may be acting.
    Stopped,
}

impl Writer<'_> {
    /// Makes all objects what they shall be, in their order. What is refused is noted, and the others are written all the same.
    /// Deployments of these names are left, wanted or not.
    pub async fn apply(&self, objects: &[Object], retiring: &[String], refused: &mut Refused) -> Applied {
        let wanted: Vec<(Kind, String)> = objects.iter().map(|object| (object.kind, object.name.clone())).collect();
        refused.objects.retain(|name, _| wanted.contains(name));
        refused.awaited.retain(|name, _| wanted.contains(name));
        match self.try_out(objects, refused).await {
            Applied::Done if objects.iter().any(|object| object.trial == Trial::First && refused.has(object)) => {
                return Applied::Done;
            }
            Applied::Done => {}
            other => return other,
        }
        let mut awaited = false;
        for object in objects {
            let hash = object.hash();
            let need = self.need(object, hash);
            let now = Instant::now();
            // Its pods would not start without what they refer to, or with what the service of that name had before.
            let lacks = awaited || refused.keeps_pods_from_starting();
            if need == Need::Make && object.kind == Kind::Deployment && lacks {
                continue;
            }
            let done = match need {
                Need::Nothing => Ok(()),
                Need::Wait => Err(self.stays(object)),
                Need::Write | Need::Make | Need::Leave if refused.waits(object, hash, now) => continue,
                Need::Leave => Err(foreign(object)),
                Need::Write | Need::Make if !(self.may_act)() => return Applied::Stopped,
                Need::Write => self.write(object, hash, Force::Yes, View::answer).await,
                Need::Make => self.make(object, hash).await,
            };
            if !matches!(done, Err(Failure::Stays(_))) {
                refused.awaited.remove(&(object.kind, object.name.clone()));
            }
            match done {
                Ok(()) => refused.forget(object),
                // The watch tells how it is, and when it is gone.
                Err(Failure::Later) => {
                    awaited |= is_for_pods(object.kind);
                    refused.forget(object);
                }
                Err(Failure::Stays(fault)) => {
                    awaited |= is_for_pods(object.kind);
                    refused.forget(object);
                    refused.awaits(object, fault, now);
                }
                Err(Failure::Away(text)) => return Applied::Away(text),
                Err(Failure::TimedOut(fault)) => {
                    refused.hangs(object, hash, fault);
                    return Applied::TimedOut;
                }
                Err(Failure::Fault(fault)) => refused.note(object, hash, fault, now, rand::random()),
            }
        }
        self.sweep(&wanted, retiring).await
    }

    /// What users have laid over a pod's template is tried before anything is written: where it is refused, all stays as it was.
    async fn try_out(&self, objects: &[Object], refused: &mut Refused) -> Applied {
        let now = Instant::now();
        for object in objects.iter().filter(|object| object.trial == Trial::First) {
            let hash = object.hash();
            match self.need(object, hash) {
                Need::Write | Need::Make if !refused.waits(object, hash, now) => {}
                _ => continue,
            }
            let (namespace, name) = (&self.key.namespace, &object.name);
            let tried = self.cluster.apply(object.kind, namespace, name, &object.value, Force::Yes, Mode::DryRun).await;
            match tried.map_err(away_or(object)) {
                Ok(_) => {
                    refused.objects.remove(&(object.kind, object.name.clone()));
                }
                Err(Failure::Later | Failure::Stays(_)) => {}
                Err(Failure::Away(text)) => return Applied::Away(text),
                Err(Failure::TimedOut(fault)) => {
                    refused.hangs(object, hash, fault);
                    return Applied::TimedOut;
                }
                Err(Failure::Fault(fault)) => refused.note(object, hash, fault, now, rand::random()),
            }
        }
        Applied::Done
    }

    fn need(&self, object: &Object, hash: [u8; 16]) -> Need {
        let mut view = self.view.lock();
        let service = view.get_mut(self.key);
        let known = service.and_then(|service| service.objects.get_mut(&(object.kind, object.name.clone())));
        need(known, object, hash, self.key, self.owner)
    }

    /// It is there, and is to go first.
    fn stays(&self, object: &Object) -> Failure {
        let view = self.view.lock();
        let known = view.get(self.key).and_then(|service| service.objects.get(&(object.kind, object.name.clone())));
        known.map_or(Failure::Later, |known| Failure::Stays(stays(object, known, self.owner)))
    }

    /// Makes an object that is not known. What has its name and is not ours does not bear our label, and is not seen by the
    /// watches; so it is asked for.
    async fn make(&self, object: &Object, hash: [u8; 16]) -> Result<(), Failure> {
        let there = self.cluster.get(object.kind, &self.key.namespace, &object.name).await.map_err(away_or(object))?;
        match there {
            None => self.write(object, hash, Force::No, View::put).await,
            Some(there) => {
                let there = Known::of(&there);
                if is_former(&there, self.key, self.owner) {
                    Err(Failure::Stays(stays(object, &there, self.owner)))
                } else if there.is_left_by(&self.key.name) {
                    // The watch is about to tell of it: a Deployment is written over what is known, and over nothing else.
                    Err(Failure::Later)
                } else if there.owner.as_deref() == Some(self.owner) {
                    // Its labels were taken away by hand.
                    self.write(object, hash, Force::Yes, View::put).await
                } else {
                    Err(foreign(object))
                }
            }
        }
    }

    /// `take` is what becomes of the answer: of one that is made no watch has told yet.
    async fn write(
        &self,
        object: &Object,
        hash: [u8; 16],
        force: Force,
        take: fn(&mut View, Item) -> Vec<Key>,
    ) -> Result<(), Failure> {
        let (namespace, name) = (&self.key.namespace, &object.name);
        let value = self.over_what_is_known(object)?;
        let written = self.cluster.apply(object.kind, namespace, name, &value, force, Mode::Real).await;
        match written {
            Ok(written) => {
                self.settle(object, hash, written, take);
                Ok(())
            }
            // The watch tells how it is.
            Err(Refusal::Conflict(_)) if matches!(value, Cow::Owned(_)) => Err(Failure::Later),
            Err(Refusal::Conflict(_)) if force == Force::No => Err(foreign(object)),
            Err(refusal) => Err(away_or(object)(refusal)),
        }
    }

    /// What is written over a Deployment says how many pods it has, as it was when that was looked at. Where somebody has said another
    /// number since, its ReplicaSet would choose among pods with calls: then it is not written.
    fn over_what_is_known<'a>(&self, object: &'a Object) -> Result<Cow<'a, Value>, Failure> {
        let view = self.view.lock();
        let service = view.get(self.key).filter(|_| object.kind == Kind::Deployment);
        let known = service.and_then(|service| service.objects.get(&(object.kind, object.name.clone())));
        let facts = service.and_then(|service| service.deployments.get(&object.name));
        let (Some(known), Some(facts)) = (known, facts) else { return Ok(Cow::Borrowed(&object.value)) };
        if object.value["spec"]["replicas"] != facts.replicas {
            return Err(Failure::Later);
        }
        let mut value = object.value.clone();
        if let Some(version) = known.version.text() {
            value["metadata"]["resourceVersion"] = version.into();
        }
        Ok(Cow::Owned(value))
    }

    /// The answer to what was written is what there is now, and it is what is wanted.
    fn settle(&self, object: &Object, hash: [u8; 16], written: Value, take: fn(&mut View, Item) -> Vec<Key>) {
        let Ok(written) = serde_json::from_value::<DynamicObject>(written) else { return };
        if let Some(item) = watch::item(object.kind, &written) {
            let mut view = self.view.lock();
            let uid = written.metadata.uid.clone().unwrap_or_default();
            take(&mut view, item);
            let known =
                view.get_mut(self.key).and_then(|service| service.objects.get_mut(&(object.kind, object.name.clone())));
            if let Some(known) = known.filter(|known| known.uid == uid) {
                known.settle(hash);
            }
        }
    }

    /// Takes away what is ours and not wanted any more: a variant's Deployment, when its pods have gone (until then it retires).
    async fn sweep(&self, wanted: &[(Kind, String)], retiring: &[String]) -> Applied {
        let more: Vec<(Kind, String, String)> = {
            let view = self.view.lock();
            let objects = view.get(self.key).map(|service| service.objects.iter());
            let owns = |(kind, name): &(Kind, String), known: &Known| match kind {
                Kind::Deployment => view.get(self.key).is_some_and(|it| it.owns(&self.key.name, self.owner, name)),
                _ => known.owner.as_deref() == Some(self.owner),
            };
            let more = objects.into_iter().flatten().filter(|(name, known)| {
                let retires = name.0 == Kind::Deployment && retiring.contains(&name.1);
                !retires && !wanted.contains(name) && !known.ending && owns(name, known)
            });
            more.map(|((kind, name), known)| (*kind, name.clone(), known.uid.clone())).collect()
        };
        for (kind, name, uid) in more {
            if !(self.may_act)() {
                return Applied::Stopped;
            }
            match self.cluster.delete(kind, &self.key.namespace, &name, &uid).await {
                Ok(()) | Err(Refusal::Absent | Refusal::Conflict(_)) => {}
                Err(Refusal::Refused(error)) => {
                    tracing::warn!(service = %self.key, kind = kind.name(), name, error, "cannot be deleted");
                }
                Err(Refusal::Away(text)) => return Applied::Away(text),
                Err(refusal @ Refusal::TimedOut(_)) => {
                    tracing::warn!(service = %self.key, kind = kind.name(), name, error = %refusal, "cannot be deleted");
                    return Applied::TimedOut;
                }
            }
        }
        Applied::Done
    }
}

enum Failure {
    /// It will be possible.
    Later,
    /// It will be when what is there has gone.
    Stays(Fault),
    Away(String),
    /// It was not answered in time.
    TimedOut(Fault),
    Fault(Fault),
}

fn foreign(object: &Object) -> Failure {
    let text =
        format!("there is a {} {} already that is not ours: it is left as it is", object.kind.name(), object.name);
    Failure::Fault(Fault::new("ForeignObject", text))
}

/// The words of the API server about one object. That it does not answer about one may be a webhook's doing: it is told of that one.
fn away_or(object: &Object) -> impl Fn(Refusal) -> Failure + '_ {
    let fault = |refusal: &Refusal| {
        let text = format!("{} {}: {refusal}", object.kind.name(), object.name);
        Fault::new("ObjectRefused", text)
    };
    move |refusal| match refusal {
        Refusal::Away(text) => Failure::Away(text),
        Refusal::TimedOut(_) => Failure::TimedOut(fault(&refusal)),
        other => Failure::Fault(fault(&other)),
    }
}

/// Notes the answer to a change of a Deployment's replicas.
pub fn note(view: &Mutex<View>, written: &Value) {
    if let Ok(object) = serde_json::from_value(written.clone())
        && let Some(item @ Item::Object(..)) = watch::item(Kind::Deployment, &object)
    {
        view.lock().answer(item);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::DeploymentFacts;
    use crate::names::{MANAGED_BY, SERVICE};

    fn object(x: u32) -> Object {
        let value = json!({ "spec": { "x": x } });
        Object { kind: Kind::Service, name: "a".to_owned(), value, trial: Trial::None }
    }

    fn known(owner: Option<&str>, x: u32) -> Known {
        let owners = owner.map(|uid| json!([{ "uid": uid, "controller": true }]));
        Known::of(&json!({ "metadata": { "name": "a", "ownerReferences": owners }, "spec": { "x": x, "y": 1 } }))
    }

    #[test]
    fn what_an_object_needs() {
        let hash = object(1).hash();
        let check = |known: Option<Known>, expected: Need| {
            let mut known = known;
            assert_eq!(need(known.as_mut(), &object(1), hash, &Key::new("voice", "s"), "me"), expected);
        };
        check(None, Need::Make);
        check(Some(known(Some("me"), 1)), Need::Nothing);
        check(Some(known(Some("me"), 2)), Need::Write);
        check(Some(known(Some("other"), 1)), Need::Leave);
        check(Some(known(None, 1)), Need::Leave);
        let mut ending = known(Some("me"), 2);
        ending.ending = true;
        check(Some(ending), Need::Wait);
        // Deleted and made again under the same name: what the first one had is no stranger's.
        let of = |name: &str| {
            let mut known = known(Some("other"), 1);
            known.owner_name = Some(name.to_owned());
            Some(known)
        };
        check(of("s"), Need::Wait);
        check(of("another"), Need::Leave);
        // Deleted with `--cascade=orphan`: nobody controls it, and it bears our labels.
        let left = |service: &str, ending: bool| {
            let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: service });
            let ends = ending.then_some("2026-01-01T00:00:00Z");
            Some(Known::of(
                &json!({ "metadata": { "name": "a", "labels": labels, "deletionTimestamp": ends }, "spec": { "x": 2 } }),
            ))
        };
        check(left("s", false), Need::Write);
        check(left("s", true), Need::Wait);
        check(left("another", false), Need::Leave);
    }

    #[test]
    fn what_is_refused_is_tried_again_later_and_later() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (mut refused, one) = (Refused::default(), object(1));
        let hash = one.hash();
        let fault = || Fault::new("ObjectRefused", "exceeded quota");
        refused.note(&one, hash, fault(), at(0), 0.5);
        assert!(refused.waits(&one, hash, at(1)) && !refused.waits(&one, hash, at(2)));
        assert!(!refused.waits(&object(2), object(2).hash(), at(1)), "another text is another try");
        for _ in 0..10 {
            refused.note(&one, hash, fault(), at(10), 0.5);
        }
        assert_eq!(refused.next(), Some(at(70)));
        assert_eq!(refused.faults().count(), 1);
    }

    /// Somebody looks every two seconds: a wait that doubled with each look was at its longest after six of them.
    #[tokio::test]
    async fn what_is_another_s_is_not_told_anew_with_each_look() {
        let nobody = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            Err::<http::Response<kube::client::Body>, _>(format!("{} is asked for", request.uri()))
        });
        let cluster = Cluster::new(kube::Client::new(nobody, "voice"));
        let (key, mut view) = (Key::new("voice", "s"), View::default());
        view.put(Item::Object(Kind::Service, key.clone(), "a".to_owned(), known(Some("other"), 1), None));
        let view = Mutex::new(view);
        let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
        let mut refused = Refused::default();
        assert_eq!(writer.apply(&[object(1)], &[], &mut refused).await, Applied::Done);
        let next = refused.next();
        assert!(next.is_some() && refused.faults().all(|fault| fault.reason == "ForeignObject"));
        for _ in 0..5 {
            writer.apply(&[object(1)], &[], &mut refused).await;
        }
        assert_eq!(refused.next(), next);
        // It is of the service of that name that was deleted: nothing is wrong, and it is awaited.
        if let Some(known) = view.lock().get_mut(&key).and_then(|service| service.objects.values_mut().next()) {
            known.owner_name = Some("s".to_owned());
        }
        assert_eq!(writer.apply(&[object(1)], &[], &mut refused).await, Applied::Done);
        assert_eq!(refused.faults().count(), 0);
        // It used to be awaited for ever, and nobody was told.
        for waited in refused.awaited.values_mut() {
            waited.0 = waited.0.checked_sub(PATIENCE).unwrap();
        }
        assert_eq!(writer.apply(&[object(1)], &[], &mut refused).await, Applied::Done);
        let told = |refused: &Refused| refused.faults().map(|fault| fault.message.clone()).collect::<Vec<_>>();
        assert_eq!(told(&refused), ["Service a of another StreamService of this name is there: it is waited for"]);
        if let Some(known) = view.lock().get_mut(&key).and_then(|service| service.objects.values_mut().next()) {
            (known.ending, known.finalizers) = (true, ["example.com/keep".into()].into());
        }
        writer.apply(&[object(1)], &[], &mut refused).await;
        let text = "Service a of another StreamService of this name is being deleted, and its finalizers (example.com/keep) keep it: it is waited for";
        assert_eq!(told(&refused), [text]);
        // And then it is ours, as it should be.
        let mut ours = known(Some("me"), 1);
        ours.uid = "another".to_owned();
        view.lock().put(Item::Object(Kind::Service, key.clone(), "a".to_owned(), ours, None));
        writer.apply(&[object(1)], &[], &mut refused).await;
        assert!(refused.faults().next().is_none() && refused.awaited.is_empty());
    }

    /// A webhook that hangs was waited for with each of a service's seven objects, and at each look: for minutes.
    #[tokio::test(start_paused = true)]
    async fn after_one_that_hangs_the_others_are_not_tried() {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let cluster = Cluster::new(kube::Client::new(nobody, "voice"));
        let (key, view) = (Key::new("voice", "s"), Mutex::default());
        let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
        let objects = [object(1), Object { name: "b".to_owned(), ..object(1) }];
        let mut refused = Refused::default();
        let begun = tokio::time::Instant::now();
        assert_eq!(writer.apply(&objects, &[], &mut refused).await, Applied::TimedOut);
        assert_eq!(begun.elapsed(), crate::cluster::DEADLINE);
        let faults: Vec<_> = refused.faults().map(|fault| (fault.reason.as_str(), fault.message.as_str())).collect();
        assert_eq!(faults, [("ObjectRefused", "Service a: no answer within 12 s; a webhook may be hanging")]);
        let now = Instant::now();
        assert!(refused.rests(now) && !refused.rests(now + REST));
        assert!(refused.next().is_some_and(|next| next > now + REST / 2), "not before anything may be written");
    }

    /// Whatever else is written of a Deployment, the number of pods goes with it: one that somebody had raised was lowered by that.
    #[tokio::test]
    async fn a_deployment_is_written_over_what_is_known() {
        let cluster = Cluster::new(kube::Client::new(
            tower::service_fn(|_: http::Request<kube::client::Body>| {
                std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
            }),
            "voice",
        ));
        let key = Key::new("voice", "s");
        let check = |there: Option<i32>, expected: Option<Value>| {
            let mut view = View::default();
            if let Some(replicas) = there {
                let known = Known::of(&json!({ "metadata": { "name": "a", "uid": "d", "resourceVersion": "7" } }));
                let facts = DeploymentFacts { replicas, ..DeploymentFacts::default() };
                view.put(Item::Object(Kind::Deployment, key.clone(), "a".to_owned(), known, Some(facts)));
            }
            let view = Mutex::new(view);
            let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
            let value = json!({ "metadata": {}, "spec": { "replicas": 5 } });
            let object = Object { kind: Kind::Deployment, value, ..object(1) };
            let written = writer.over_what_is_known(&object).ok();
            assert_eq!(written.map(|value| value["metadata"]["resourceVersion"].clone()), expected);
        };
        check(Some(5), Some("7".into()));
        check(Some(9), None);
        check(None, Some(Value::Null));
    }

    #[test]
    fn pods_are_not_made_that_could_not_start() {
        let refused = |kind| {
            let mut refused = Refused::default();
            let object = Object { kind, ..object(1) };
            refused.note(&object, object.hash(), Fault::new("ForeignObject", ""), Instant::now(), 0.5);
            refused.keeps_pods_from_starting()
        };
        assert!(refused(Kind::ConfigMap) && refused(Kind::Secret) && refused(Kind::ServiceAccount));
        assert!(!refused(Kind::NetworkPolicy) && !refused(Kind::Deployment));
    }

    #[test]
    fn settled_is_what_was_found_to_be_so() {
        let objects = [object(1)];
        let built = Built::of(1, "u", &[2], &objects);
        let mut there = SmallMap::default();
        there.insert((Kind::Service, "a".to_owned()), known(Some("me"), 1));
        assert!(!built.is_settled(&there), "nobody has looked");
        let looked = there.values_mut().next().unwrap();
        assert!(looked.is(&objects[0].value, objects[0].hash()));
        assert!(built.is_settled(&there));
        there.insert((Kind::Deployment, "old".to_owned()), known(Some("me"), 1));
        assert!(!built.is_settled(&there), "one too many");
        let there = SmallMap::default();
        assert!(!built.is_settled(&there));
    }
}
