//! What Deployments are told: how many pods there shall be, and not again at once where that is refused.

use std::time::Instant;

use tracing::field::Empty;
use tracing::info_span;

use crate::apply::{self, Wait};
use crate::care::{Care, Denial};
use crate::cluster::Refusal;
use crate::kind::Kind;
use crate::known::Version;
use crate::look::{Findings, Seen, Stop, is_closing};
use crate::names::Key;
use crate::operator::Operator;
use crate::reasons::Word;
use crate::scale::{Run, pods};
use crate::status::Fault;
use crate::traces::part;

/// How often a number of pods is said in one look: a Deployment's status may change between being asked and being told.
const TRIES: u32 = 4;

/// A Deployment as it is known at a moment.
struct There {
    /// Pods that it shall have.
    replicas: i32,
    uid: String,
    version: Version,
}

/// Whether a number of pods was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Yes,
    No,
}

impl Run {
    /// That it was not allowed to have fewer pods, if that is not to be tried again yet.
    pub(super) fn denied<'a>(&self, care: &'a Care) -> Option<&'a Denial> {
        let denied = care.denied.get(&self.name).map(AsRef::as_ref);
        denied.filter(|denied| denied.replicas < self.target && Instant::now() < denied.wait.until)
    }

    /// Pods that there shall be without those that are withdrawn. Whoever exists is none of these: told to have fewer pods than there
    /// are, a ReplicaSet would choose.
    fn without_withdrawn(&self, seen: &Seen) -> i32 {
        let there = pods(seen, &self.name).max(self.facts.as_ref().map_or(0, |facts| facts.existing));
        let withdrawn = i32::try_from(self.wanted.withdraw).unwrap_or(i32::MAX);
        self.target.saturating_sub(withdrawn).max(there).min(self.target)
    }
}

impl Operator {
    /// Says how many pods there shall be: those included that go in this look, and go only then.
    pub(crate) async fn raise(&self, key: &Key, findings: &mut Findings, care: &mut Care) -> Result<(), Stop> {
        let Findings { scaling, faults, .. } = findings;
        for run in &mut scaling.runs {
            // One that could not be made yet is made with as many as there shall be by then.
            let Some(there) = self.there(key, &care.uid, &run.name) else { continue };
            let (before, replicas) = (there.replicas, run.raised());
            // Somebody has said something else during this look: what that means is for the next one to decide.
            let is_as_seen = run.facts.as_ref().is_none_or(|facts| facts.replicas == before);
            let is_said = is_as_seen
                && (before == replicas
                    || self.set_replicas(key, &run.name, there, replicas, faults, care).await? == Allowed::Yes);
            if !is_said {
                run.target = before;
                continue;
            }
            run.created = run.wanted.create;
            run.target = replicas;
            care.replicas.insert(run.name.clone(), replicas);
        }
        Ok(())
    }

    /// Says it again without those that have gone, and without those that cannot be made and are not wanted any more.
    pub(crate) async fn lower(
        &self,
        key: &Key,
        seen: &Seen,
        findings: &mut Findings,
        care: &mut Care,
    ) -> Result<(), Stop> {
        let closing = is_closing(&findings.standing);
        let Findings { scaling, faults, .. } = findings;
        for run in &mut scaling.runs {
            let mut replicas = run.without_withdrawn(seen).saturating_sub(run.removed).max(0);
            // Nothing is known of what it should be where no specification could be read yet: then all of it stays.
            if closing || (run.is_retiring() && care.prepared.is_some()) {
                // Those that were asked for and never came are not waited for.
                replicas = replicas.min(pods(seen, &run.name).saturating_sub(run.removed).max(0));
            }
            if let Some(denied) = run.denied(care).filter(|_| replicas >= run.target) {
                faults.push(denied.fault.clone());
            }
            let there = self.there(key, &care.uid, &run.name).filter(|there| there.replicas == run.target);
            if let Some(there) = there.filter(|_| replicas < run.target) {
                if self.set_replicas(key, &run.name, there, replicas, faults, care).await? == Allowed::No {
                    continue;
                }
                run.target = replicas;
                care.replicas.insert(run.name.clone(), replicas);
            }
        }
        Ok(())
    }

    /// A Deployment of this StreamService.
    fn there(&self, key: &Key, uid: &str, name: &str) -> Option<There> {
        let view = self.view.lock();
        let service = view.get(key).filter(|service| service.owns(&key.name, uid, name))?;
        let facts = service.deployments.get(name)?;
        let known = service.objects.get(&(Kind::Deployment, name.to_owned()))?;
        Some(There { replicas: facts.replicas, uid: known.uid.clone(), version: known.version })
    }

    /// How it is by now, if nobody has said that it shall have another number of pods. That it has changed may mean no more than that a
    /// pod has come or gone, which its status counts.
    async fn still(&self, key: &Key, owner: &str, name: &str, there: &There) -> Result<Option<There>, Stop> {
        match self.cluster.get(Kind::Deployment, &key.namespace, name).await {
            Ok(Some(now)) => apply::note(&self.view, &now),
            Err(Refusal::Away(text)) => return Err(Stop::Away(text)),
            Ok(None) | Err(_) => return Ok(None),
        }
        let now = self.there(key, owner, name);
        Ok(now.filter(|now| (now.replicas, &now.uid) == (there.replicas, &there.uid) && now.version != there.version))
    }

    /// Says how many pods a Deployment shall have that is as it was found `there`. The same number is not said again at once where it
    /// is refused.
    async fn set_replicas(
        &self,
        key: &Key,
        name: &str,
        mut there: There,
        replicas: i32,
        faults: &mut Vec<Fault>,
        care: &mut Care,
    ) -> Result<Allowed, Stop> {
        let denied = care.denied.get(name).filter(|denied| denied.replicas == replicas);
        let now = Instant::now();
        if let Some(denied) = denied.filter(|denied| now < denied.wait.until) {
            faults.push(denied.fault.clone());
            return Ok(Allowed::No);
        }
        let before = denied.map(|denied| denied.wait);
        for _ in 0..TRIES {
            if !self.may_act() {
                return Err(Stop::NotLeading);
            }
            let of = (there.uid.as_str(), there.version);
            let said = self.cluster.set_replicas(&key.namespace, name, of, replicas);
            match part(info_span!("replicas", deployment = name, replicas, outcome = Empty), said).await {
                Ok(written) => {
                    apply::note(&self.view, &written);
                    care.denied.remove(name);
                    return Ok(Allowed::Yes);
                }
                Err(Refusal::Conflict(_)) => match self.still(key, &care.uid, name, &there).await? {
                    Some(now) => there = now,
                    None => return Ok(Allowed::No),
                },
                // It is gone: the next look sees how it is.
                Err(Refusal::Absent) => return Ok(Allowed::No),
                Err(Refusal::Away(text)) => {
                    // It may have been done: how many there shall be is what it turns out to be.
                    care.replicas.remove(name);
                    return Err(Stop::Away(text));
                }
                Err(refusal) => {
                    let fault =
                        Fault::new(Word::ObjectRefused, format!("the replicas of Deployment {name}: {refusal}"));
                    faults.push(fault.clone());
                    let wait = Wait::after(before, Instant::now(), rand::random());
                    care.denied.insert(name.to_owned(), Box::new(Denial { replicas, wait, fault }));
                    if matches!(refusal, Refusal::TimedOut(_)) {
                        care.replicas.remove(name);
                        return Err(Stop::TimedOut);
                    }
                    return Ok(Allowed::No);
                }
            }
        }
        Ok(Allowed::No)
    }
}

#[cfg(test)]
mod tests;
