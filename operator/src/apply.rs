//! Objects as they shall be: written where they are not, taken away where they are no more, left alone where they are another's.

mod refused;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

use kube::api::DynamicObject;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cluster::{Cluster, Force, Mode, Refusal};
use crate::kind::Kind;
use crate::names::Key;
use crate::objects::{Object, Trial};
use crate::reasons::Word;
use crate::small::SmallMap;
use crate::status::Fault;
use crate::view::{Item, Known, View};
use crate::watch;

pub use self::refused::{REST, Refused, Wait};

/// Whether pods refer to objects of a kind.
fn is_for_pods(kind: Kind) -> bool {
    matches!(kind, Kind::ServiceAccount | Kind::Secret | Kind::ConfigMap)
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
    Fault::new(Word::ObjectStays, text)
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
        let more = self.surplus(&wanted, retiring);
        refused.kept.retain(|(kind, name), _| more.iter().any(|(of, called, _)| (of, called) == (kind, name)));
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
            // Its pods would not start without what they refer to, or would go on for good with what it was before.
            let lacks = awaited || refused.keeps_pods_from_starting();
            if matches!(need, Need::Make | Need::Write) && object.kind == Kind::Deployment && lacks {
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
                Err(Failure::Stopped) => return Applied::Stopped,
                Err(Failure::TimedOut(fault)) => {
                    refused.hangs(object, hash, fault);
                    return Applied::TimedOut;
                }
                Err(Failure::Fault(fault)) => refused.note(object, hash, fault, now, rand::random()),
            }
        }
        self.sweep(more, refused).await
    }

    /// What users have laid over a pod's template is tried before anything is written: where it is refused, all stays as it was.
    async fn try_out(&self, objects: &[Object], refused: &mut Refused) -> Applied {
        let now = Instant::now();
        for object in objects.iter().filter(|object| object.trial == Trial::First) {
            let hash = object.hash();
            let tried = match self.need(object, hash) {
                // What was refused before is not wanted any more.
                Need::Nothing => Ok(()),
                Need::Wait => continue,
                Need::Write | Need::Make | Need::Leave if refused.waits(object, hash, now) => continue,
                Need::Leave => Err(foreign(object)),
                Need::Write => self.try_one(object).await,
                // Another's is not asked about as if it were ours: that it would not take it says nothing to anybody.
                Need::Make => match self.claim(object).await {
                    Ok(_) => self.try_one(object).await,
                    Err(failure) => Err(failure),
                },
            };
            match tried {
                Ok(()) => refused.forget(object),
                Err(Failure::Later | Failure::Stays(_)) => {}
                Err(Failure::Away(text)) => return Applied::Away(text),
                Err(Failure::Stopped) => return Applied::Stopped,
                Err(Failure::TimedOut(fault)) => {
                    refused.hangs(object, hash, fault);
                    return Applied::TimedOut;
                }
                Err(Failure::Fault(fault)) => refused.note(object, hash, fault, now, rand::random()),
            }
        }
        Applied::Done
    }

    async fn try_one(&self, object: &Object) -> Result<(), Failure> {
        let (namespace, name) = (&self.key.namespace, &object.name);
        let tried = self.cluster.apply(object.kind, namespace, name, &object.value, Force::Yes, Mode::DryRun).await;
        tried.map(drop).map_err(away_or(object))
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

    /// Makes an object that is not known.
    async fn make(&self, object: &Object, hash: [u8; 16]) -> Result<(), Failure> {
        let force = self.claim(object).await?;
        // It may have taken long to be told that.
        if !(self.may_act)() {
            return Err(Failure::Stopped);
        }
        self.write(object, hash, force, View::put).await
    }

    /// Whether an object that is not known may be made, and how. What has its name and is not ours does not bear our label, and is not
    /// seen by the watches; so it is asked for.
    async fn claim(&self, object: &Object) -> Result<Force, Failure> {
        let there = self.cluster.get(object.kind, &self.key.namespace, &object.name).await.map_err(away_or(object))?;
        let Some(there) = there else { return Ok(Force::No) };
        let there = Known::of(&there);
        if is_former(&there, self.key, self.owner) {
            Err(Failure::Stays(stays(object, &there, self.owner)))
        } else if there.is_left_by(&self.key.name) {
            // The watch is about to tell of it: a Deployment is written over what is known, and over nothing else.
            Err(Failure::Later)
        } else if there.owner.as_deref() == Some(self.owner) {
            // Its labels were taken away by hand.
            Ok(Force::Yes)
        } else {
            Err(foreign(object))
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

    /// What is ours and not wanted any more, with its uid: a variant's Deployment, when its pods have gone (until then it retires).
    fn surplus(&self, wanted: &[(Kind, String)], retiring: &[String]) -> Vec<(Kind, String, String)> {
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
    }

    /// Takes that away. What cannot be is noted, and not tried again at once.
    async fn sweep(&self, more: Vec<(Kind, String, String)>, refused: &mut Refused) -> Applied {
        for (kind, name, uid) in more {
            let waits = refused.kept.get(&(kind, name.clone())).is_some_and(|(wait, _)| Instant::now() < wait.until);
            if waits {
                continue;
            }
            if !(self.may_act)() {
                return Applied::Stopped;
            }
            match self.cluster.delete(kind, &self.key.namespace, &name, &uid).await {
                Ok(()) | Err(Refusal::Absent | Refusal::Conflict(_)) => drop(refused.kept.remove(&(kind, name))),
                Err(Refusal::Away(text)) => return Applied::Away(text),
                Err(refusal) => {
                    let text = format!("{} {name} is not wanted and cannot be deleted: {refusal}", kind.name());
                    refused.keeps(kind, name, Fault::new(Word::ObjectRefused, text), rand::random());
                    if matches!(refusal, Refusal::TimedOut(_)) {
                        refused.rest();
                        return Applied::TimedOut;
                    }
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
    /// Another operator may be acting.
    Stopped,
    /// It was not answered in time.
    TimedOut(Fault),
    Fault(Fault),
}

fn foreign(object: &Object) -> Failure {
    let text =
        format!("there is a {} {} already that is not ours: it is left as it is", object.kind.name(), object.name);
    Failure::Fault(Fault::new(Word::ForeignObject, text))
}

/// The words of the API server about one object. That it does not answer about one may be a webhook's doing: it is told of that one.
fn away_or(object: &Object) -> impl Fn(Refusal) -> Failure + '_ {
    let fault = |refusal: &Refusal| {
        let text = format!("{} {}: {refusal}", object.kind.name(), object.name);
        Fault::new(Word::ObjectRefused, text)
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
mod tests;
