//! The reasons of conditions and Events: each is written down once, with where it may stand. docs/kubernetes.md explains them.

use strum::{IntoStaticStr, VariantArray};

/// Where a reason stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
pub enum Place {
    /// The condition: whether calls are taken.
    Ready,
    /// The condition: whether something is under way.
    Progressing,
    /// The condition: whether something is wrong.
    Degraded,
    /// The condition: whether there are fewer workers than are needed.
    ScalingLimited,
    /// The condition: whether a drain waits.
    DrainBlocked,
    /// An Event that is not about a condition.
    Event,
}

impl Place {
    /// A condition's type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A reason of the operator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[expect(missing_docs, reason = "docs/kubernetes.md says what each means")]
pub enum Word {
    AsExpected,
    Deleting,
    DrainExpired,
    Draining,
    ForeignObject,
    Invalid,
    MaxReplicas,
    NoWorkers,
    NodeLeaving,
    NodeSilent,
    NotBlocked,
    NotDegraded,
    NotDrainBlocked,
    NotLimited,
    NotListed,
    NotMade,
    NotReady,
    NotScalingLimited,
    ObjectRefused,
    ObjectStays,
    PathConflict,
    PodRefused,
    Pods,
    PodsLeftAlone,
    ReplicasIgnored,
    RolledOut,
    RollingOut,
    ScaledToZero,
    SecretInvalid,
    SecretMissing,
    SessionsLive,
    Settled,
    Starting,
    StoreFull,
    StoreRefuses,
    StoreSchema,
    StoreUnavailable,
    WaitsForReplacement,
    WorkersCreated,
    WorkersDraining,
    WorkersLost,
    WorkersReady,
    WorkersRemoved,
    WorkersUndrained,
}

impl Word {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Where it may stand.
    #[must_use]
    pub fn places(self) -> &'static [Place] {
        use Place::{Degraded, DrainBlocked, Event, Progressing, Ready, ScalingLimited};
        match self {
            Self::NoWorkers | Self::PathConflict | Self::ScaledToZero | Self::WorkersReady => &[Ready],
            Self::Deleting => &[Ready, Progressing],
            Self::Invalid | Self::SecretInvalid | Self::SecretMissing => &[Ready, Degraded],
            Self::Draining | Self::NotMade | Self::Settled => &[Progressing],
            Self::RollingOut => &[Progressing, Event],
            Self::Starting => &[Progressing, ScalingLimited],
            Self::AsExpected
            | Self::ForeignObject
            | Self::NotListed
            | Self::ObjectRefused
            | Self::ObjectStays
            | Self::PodRefused
            | Self::PodsLeftAlone => &[Degraded],
            Self::WorkersLost => &[Degraded, ScalingLimited],
            Self::StoreFull | Self::StoreRefuses | Self::StoreSchema | Self::StoreUnavailable => {
                &[Degraded, ScalingLimited, DrainBlocked]
            }
            Self::MaxReplicas | Self::NotLimited | Self::NotReady | Self::Pods => &[ScalingLimited],
            Self::NodeSilent | Self::NotBlocked | Self::SessionsLive | Self::WaitsForReplacement => &[DrainBlocked],
            Self::DrainExpired
            | Self::NodeLeaving
            | Self::NotDegraded
            | Self::NotDrainBlocked
            | Self::NotScalingLimited
            | Self::ReplicasIgnored
            | Self::RolledOut
            | Self::WorkersCreated
            | Self::WorkersDraining
            | Self::WorkersRemoved
            | Self::WorkersUndrained => &[Event],
        }
    }
}

/// A reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The operator's own.
    Own(Word),
    /// As it was told before: by Kubernetes of a pod, or by a condition.
    Told(String),
}

impl Reason {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Own(word) => word.as_str(),
            Self::Told(text) => text,
        }
    }

    /// Whether it may stand there. What is told of pods is what is wrong with them; of conditions there are Events.
    #[must_use]
    pub fn may_be(&self, place: Place) -> bool {
        match self {
            Self::Own(word) => word.places().contains(&place),
            Self::Told(_) => matches!(place, Place::Degraded | Place::Event),
        }
    }
}

impl From<Word> for Reason {
    fn from(word: Word) -> Self {
        Self::Own(word)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    type Words = BTreeSet<String>;

    /// What kubelets, schedulers and controllers say of pods goes on in their own words: these are named for those who look for them.
    const OTHERS: [&str; 7] = [
        "CrashLoopBackOff",
        "Evicted",
        "FailedCreate",
        "ImagePullBackOff",
        "OutOfcpu",
        "Unschedulable",
        "UnexpectedAdmissionError",
    ];

    /// The words that are marked as code in a text.
    fn marked(text: &str) -> impl Iterator<Item = String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned)
    }

    /// What docs/kubernetes.md says. Of the store's words two of its rows have the first ones, and `…` for the rest.
    fn documented() -> BTreeMap<String, Words> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
        let page = std::fs::read_to_string(page).unwrap();
        let part = |from: &str, to: &str| {
            let start = page.find(from).unwrap_or_else(|| panic!("{from}"));
            page[start..][..page[start..].find(to).unwrap()].to_owned()
        };
        let mut documented: BTreeMap<String, Words> = BTreeMap::new();
        let mut condition = String::new();
        let conditions = part("\n### Conditions\n", "\n### Events\n");
        for row in conditions.lines().filter(|line| line.starts_with("| ")).skip(1) {
            let cells: Vec<&str> = row.split('|').collect();
            condition = marked(cells[1]).next().unwrap_or(condition);
            let mut words: Words = marked(cells[2]).collect();
            if cells[2].contains("`StoreUnavailable`") && cells[2].contains('…') {
                words.extend(["StoreRefuses", "StoreSchema"].map(str::to_owned));
            }
            documented.entry(condition.clone()).or_default().extend(words);
        }
        let right = conditions.lines().find(|line| line.starts_with("Where nothing is wrong")).unwrap();
        for (condition, word) in ["Degraded", "ScalingLimited", "DrainBlocked"].into_iter().zip(marked(right)) {
            documented.get_mut(condition).unwrap().insert(word);
        }
        let events = part("\n### Events\n", "\n### Watching\n");
        let (of_conditions, own): (Vec<&str>, Vec<&str>) = events
            .lines()
            .filter(|line| line.starts_with("| "))
            .skip(1)
            .partition(|row| row.starts_with("| the reason of"));
        let own = own.iter().flat_map(|row| marked(row.split('|').nth(1).unwrap()).collect::<Vec<_>>());
        let over = of_conditions.iter().flat_map(|row| marked(row)).filter(|word| word.starts_with("Not"));
        documented.insert("Event".to_owned(), own.chain(over).collect());
        documented
    }

    #[test]
    fn every_reason_is_documented_and_no_other() {
        let documented = documented();
        assert_eq!(documented.len(), Place::VARIANTS.len());
        for place in Place::VARIANTS {
            let words = Word::VARIANTS.iter().filter(|word| word.places().contains(place));
            let mut said: Words = words.map(|word| word.as_str().to_owned()).collect();
            if *place == Place::Degraded {
                said.extend(OTHERS.map(str::to_owned));
            }
            assert_eq!(said, documented[place.as_str()], "{place:?}");
        }
    }

    /// A file without what is there for tests alone: modules of their own, and from the first that is in the file all to its end.
    fn without_tests(text: &str) -> String {
        let mut parts = text.split("#[cfg(test)]");
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.split_once(['{', ';']) {
                Some((item, rest)) if part[item.len()..].starts_with(';') => kept.push_str(rest),
                _ => break,
            }
        }
        kept
    }

    /// What the operator is made of, but for this file: a module and those in it.
    fn product(file: &Path) -> String {
        let mut code = without_tests(&std::fs::read_to_string(file).unwrap());
        let folder = match file.file_stem().unwrap().to_str().unwrap() {
            "lib" | "mod" => file.with_file_name(""),
            _ => file.with_extension(""),
        };
        let module = |line: &str| {
            let item = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
            Some(item.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
        };
        let modules: Vec<String> = code.lines().filter_map(module).collect();
        for module in modules.iter().filter(|module| *module != "reasons") {
            let file = folder.join(module).with_extension("rs");
            code += &product(&if file.exists() { file } else { folder.join(module).join("mod.rs") });
        }
        code
    }

    #[test]
    fn every_word_is_said_somewhere() {
        let code = product(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
        let is_said = |word: &&Word| {
            let written = format!("Word::{word:?}");
            let mut after = code.split(&written).skip(1);
            after.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        };
        let unsaid: Vec<_> = Word::VARIANTS.iter().filter(|word| !is_said(word)).collect();
        assert!(unsaid.is_empty(), "{unsaid:?}");
    }
}
