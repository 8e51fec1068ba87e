//! Every reason of a condition or an Event stands in the tables of `docs/kubernetes.md`, and no other does.
//!
//! Reasons are read where they are written down: in the sources, at the calls that make conditions, faults and Events.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so by failing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
/// Reasons that no call spells out: those of others, and those that were spelled out before. One more has to be found here, too.
const PASSED_ON: [&str; 7] = [
    "&failure.reason",
    "&trouble.reason",
    "first.reason.clone()",
    "format!(\"Not{kind}\")",
    "now.reason.clone()",
    "reason",
    "self.store_reason()",
];

type Words = BTreeSet<String>;

/// The text of all sources, without their tests.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            text += &sources(&path);
        } else if !name.ends_with("tests.rs") && name != "doubles.rs" {
            let whole = std::fs::read_to_string(&path).unwrap();
            text += whole.split("#[cfg(test)]\nmod ").next().unwrap();
        }
    }
    text
}

/// Code without what depends on its layout.
fn dense(code: &str) -> String {
    let lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    lines.flat_map(|line| line.chars().filter(|c| !c.is_whitespace())).collect()
}

/// The first arguments of all calls of a function, after whether it is so where it begins with that: words, and what is none.
fn first_arguments(code: &str, function: &str) -> (Words, Words) {
    let (mut words, mut passed_on) = (Words::new(), Words::new());
    for call in code.split(function).skip(1) {
        let call = call.strip_prefix("true,").or_else(|| call.strip_prefix("false,")).unwrap_or(call);
        match call.strip_prefix('"') {
            Some(word) => words.insert(word.split('"').next().unwrap().to_owned()),
            None => passed_on.insert(call.split(',').next().unwrap().to_owned()),
        };
    }
    (words, passed_on)
}

/// The values of a match that are words.
fn arms(code: &str) -> Words {
    let arms = code.split("=>\"").skip(1).map(|arm| arm.split('"').next().unwrap().to_owned());
    arms.collect()
}

/// A method's text.
fn method(code: &str, name: &str) -> String {
    let start = code.find(&format!("\n    fn {name}(")).unwrap_or_else(|| panic!("fn {name}"));
    let rest = &code[start..];
    dense(&rest[..rest.find("\n    }\n").unwrap()])
}

/// What the operator says: reasons by condition, and those of Events.
fn said() -> BTreeMap<String, Words> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let status = std::fs::read_to_string(folder.join("status.rs")).unwrap();
    let code = dense(&sources(&folder));
    let mut said = BTreeMap::new();
    let mut passed_on = Words::new();
    for (condition, name) in [
        ("Ready", "ready"),
        ("Progressing", "progressing"),
        ("Degraded", "degraded"),
        ("ScalingLimited", "limited"),
        ("DrainBlocked", "drain_blocked"),
    ] {
        let code = method(&status, name);
        let (mut words, other) = first_arguments(&code, "finding(");
        passed_on.extend(other);
        if name == "limited" {
            words.extend(arms(&code));
        }
        said.insert(condition.to_owned(), words);
    }
    let (faults, other) = first_arguments(&code, "Fault::new(");
    passed_on.extend(other);
    let store = arms(&method(&status, "store_reason"));
    said.get_mut("Degraded").unwrap().extend(faults.into_iter().chain(store.clone()));
    for condition in ["ScalingLimited", "DrainBlocked"] {
        said.get_mut(condition).unwrap().extend(store.clone());
    }
    let mut events = Words::new();
    for function in ["Note::normal(", "Note::warning("] {
        let (words, other) = first_arguments(&code, function);
        events.extend(words);
        passed_on.extend(other);
    }
    said.insert("Events".to_owned(), events);
    assert_eq!(passed_on, PASSED_ON.map(str::to_owned).into());
    said
}

/// The words that are marked as code in a text.
fn marked(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// What the page says, likewise. `…` stands for the rest of the store's words.
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
        documented.entry(condition.clone()).or_default().extend(marked(cells[2]));
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
    documented.insert("Events".to_owned(), own.collect());
    for over in ["NotDegraded", "NotScalingLimited", "NotDrainBlocked"] {
        assert!(of_conditions.iter().any(|row| row.contains(over)), "{over}");
    }
    documented
}

#[test]
fn every_reason_is_documented_and_no_other() {
    let (mut said, documented) = (said(), documented());
    for condition in ["ScalingLimited", "DrainBlocked"] {
        // What the page leaves out with `…` stands in the rows of `Degraded`.
        let named = &documented[condition];
        assert!(named.contains("StoreUnavailable"), "{condition}");
        said.get_mut(condition).unwrap().retain(|word| !word.starts_with("Store") || named.contains(word));
    }
    said.get_mut("Degraded").unwrap().extend(OTHERS.map(str::to_owned));
    assert_eq!(said.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (of, said) in &said {
        let documented = &documented[of];
        let missing: Vec<_> = said.difference(documented).collect();
        let made_up: Vec<_> = documented.difference(said).collect();
        assert!(missing.is_empty() && made_up.is_empty(), "{of}: not documented {missing:?}, never said {made_up:?}");
    }
}
