//! What is kept of a cluster on which a test has failed.

use std::fs;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;

use crate::cluster::Cluster;
use crate::part::last_lines;
use crate::plan::Plan;
use crate::programs::target;

/// What is asked of a cluster on which a test has failed, and under which name the answer is kept.
const QUESTIONS: [(&str, &[&str]); 4] = [
    ("objects", &["get", "all,endpointslices,streamservices", "--all-namespaces", "--output=wide"]),
    ("events", &["events", "--all-namespaces"]),
    ("nodes", &["describe", "nodes"]),
    ("pods", &["describe", "pods", "--all-namespaces"]),
];
/// So much of a pod's log, and of the events, is in the report itself.
const LAST: usize = 40;

/// Brings up a cluster and runs a test on it. What the cluster says of a test that fails is in the error, and all of its logs are
/// kept in `<target>/kubernetes/<name>`.
///
/// # Errors
/// The test's, and the cluster's.
pub async fn on_cluster(name: &str, plan: Plan, test: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let cluster = Cluster::up(plan).await?;
    let outcome = AssertUnwindSafe(test(&cluster)).catch_unwind().await;
    if !matches!(outcome, Ok(Ok(()))) {
        let told = keep(name, &cluster).unwrap_or_else(|error| format!("nothing could be kept: {error:#}"));
        // Past the harness, which shows what failed tests print: a panic has no context.
        writeln!(std::io::stderr(), "{name}:\n{told}")?;
    }
    drop(cluster);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Copies what there is to a place that stays, and answers what most likely matters.
fn keep(name: &str, cluster: &Cluster) -> Result<String> {
    let folder = target()?.join("kubernetes").join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder)?;
    let mut told = format!("all logs are in {}\n", folder.display());
    for (about, arguments) in QUESTIONS {
        let said = cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        fs::write(folder.join(about), &said)?;
        if about == "objects" {
            told += &said;
        } else if about == "events" {
            told += &last_lines(&folder.join(about), LAST);
        }
    }
    for path in files(cluster.folder(), 1).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log"))
    {
        let name = path.strip_prefix(cluster.folder())?.display().to_string().replace('/', "-");
        fs::copy(&path, folder.join(name))?;
    }
    for node in cluster.nodes() {
        for path in files(&node.folder().join("logs"), 2) {
            let name = path.strip_prefix(node.folder().join("logs"))?.display().to_string().replace('/', "-");
            let kept = folder.join(format!("pod-{name}"));
            fs::copy(&path, &kept).with_context(|| path.display().to_string())?;
            if !name.starts_with("kube-system") {
                told += &format!("\n--- {name}\n{}", last_lines(&kept, LAST));
            }
        }
    }
    Ok(told)
}

/// The files of a folder, and of those in it down to `depth`.
fn files(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let (mut found, mut below) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below.push(entry.path()),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    if depth > 0 {
        found.extend(below.iter().flat_map(|folder| files(folder, depth - 1)));
    }
    found.sort();
    found
}
