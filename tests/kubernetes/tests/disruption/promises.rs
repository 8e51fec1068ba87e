//! What docs/kubernetes.md promises, read from its tables: whoever changes a promise there changes what is judged here.

use std::fs;

use anyhow::{Context as _, Result, bail};
use streamfleet_kubernetes_tests::root;

/// What becomes of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// They go on, and hear nothing of it.
    GoOn,
    /// Those of the worker are lost; others may miss what was on its way until the load balancer notices.
    Lost,
}

/// The promise to WebRTC calls when this happens. It must be in exactly one row's first cell.
pub(crate) fn promise(when: &str) -> Result<Promise> {
    let docs = fs::read_to_string(root().join("docs/kubernetes.md"))?;
    let rows = docs.lines().filter_map(|line| line.strip_prefix('|')).map(|row| row.split('|').map(str::trim));
    let mut found = rows.filter_map(|mut cells| {
        let about = cells.next()?;
        about.contains(when).then(|| cells.next().map(str::to_owned))?
    });
    let promised = found.next().with_context(|| format!("docs/kubernetes.md says nothing of {when:?}"))?;
    if found.next().is_some() {
        bail!("docs/kubernetes.md has several rows about {when:?}");
    }
    println!("promised: {promised}");
    understand(&promised)
}

fn understand(promised: &str) -> Result<Promise> {
    if promised.starts_with("nothing") || promised.contains("calls are finished within the grace") {
        Ok(Promise::GoOn)
    } else if promised.starts_with("its calls are lost") {
        Ok(Promise::Lost)
    } else {
        bail!("another promise than there was: {promised}")
    }
}

#[test]
fn all_promises_are_understood() {
    use Promise::{GoOn, Lost};
    for (when, expected) in [
        ("workers get another image", GoOn),
        ("`kubectl delete pod`", GoOn),
        ("a node is drained", GoOn),
        ("a worker or its node dies", Lost),
        ("the operator is away", GoOn),
        ("the API server is away", GoOn),
        ("Redis is away", GoOn),
        ("a StreamService is deleted", GoOn),
    ] {
        assert_eq!(promise(when).unwrap(), expected, "{when}");
    }
    assert!(promise("the sky falls").is_err());
    assert!(understand("its calls may be lost").is_err());
}
