//! What Deployments are told: how many pods there shall be, and not again at once where that is refused.

use std::time::Instant;

use crate::apply::{self, Wait};
use crate::care::{Care, Denial};
use crate::cluster::Refusal;
use crate::facts::Stage;
use crate::look::{Findings, Seen, Stop, is_closing};
use crate::names::Key;
use crate::operator::Operator;
use crate::status::Fault;

/// Whether a number of pods was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Yes,
    No,
}

impl Operator {
    /// Says how many pods there shall be: those included that go in this look, and go only then.
    pub(crate) async fn raise(&self, key: &Key, findings: &mut Findings, care: &mut Care) -> Result<(), Stop> {
        let Findings { scaling, faults, .. } = findings;
        for run in &mut scaling.runs {
            // One that could not be made yet is made with as many as there shall be by then.
            let Some(there) = self.replicas(key, &care.uid, &run.name) else { continue };
            let replicas = run.raised();
            if there != replicas && self.set_replicas(key, &run.name, replicas, faults, care).await? == Allowed::No {
                run.target = there;
                continue;
            }
            run.created = run.wanted.create;
            run.target = replicas;
            care.replicas.insert(run.name.clone(), replicas);
        }
        Ok(())
    }

    /// Says it again without those that have gone.
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
            let mut replicas = run.target.saturating_sub(run.removed).max(0);
            // Nothing is known of what it should be where no specification could be read yet: then all of it stays.
            if closing || (run.is_retiring() && care.prepared.is_some()) {
                // Those that were asked for and never came are not waited for.
                let there = seen.pods.iter().filter(|pod| {
                    pod.deployment.as_ref() == Some(&run.name) && !pod.ending && pod.stage != Stage::Over
                });
                let there = i32::try_from(there.count()).unwrap_or(i32::MAX);
                replicas = replicas.min(there.saturating_sub(run.removed).max(0));
            }
            if replicas < run.target && self.replicas(key, &care.uid, &run.name).is_some() {
                if self.set_replicas(key, &run.name, replicas, faults, care).await? == Allowed::No {
                    continue;
                }
                run.target = replicas;
                care.replicas.insert(run.name.clone(), replicas);
            }
        }
        Ok(())
    }

    /// Pods that a Deployment of this StreamService shall have.
    fn replicas(&self, key: &Key, uid: &str, name: &str) -> Option<i32> {
        let view = self.view.lock();
        let facts = view.get(key)?.deployments.get(name)?;
        (facts.owner.as_deref() == Some(uid)).then_some(facts.replicas)
    }

    /// Says how many pods a Deployment shall have. The same number is not said again at once where it is refused.
    async fn set_replicas(
        &self,
        key: &Key,
        name: &str,
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
        if !self.may_act() {
            return Err(Stop::NotLeading);
        }
        match self.cluster.set_replicas(&key.namespace, name, replicas).await {
            Ok(written) => {
                apply::note(&self.view, &written);
                care.denied.remove(name);
                Ok(Allowed::Yes)
            }
            // It is gone or another one: the next look sees how it is.
            Err(Refusal::Absent | Refusal::Conflict(_)) => Ok(Allowed::No),
            Err(Refusal::Away(text)) => Err(Stop::Away(text)),
            Err(refusal) => {
                let fault = Fault::new("ObjectRefused", format!("the replicas of Deployment {name}: {refusal}"));
                faults.push(fault.clone());
                let wait = Wait::after(before, Instant::now(), rand::random());
                care.denied.insert(name.to_owned(), Box::new(Denial { replicas, wait, fault }));
                if matches!(refusal, Refusal::TimedOut(_)) { Err(Stop::TimedOut) } else { Ok(Allowed::No) }
            }
        }
    }
}
