//! What is kept of a test on a cluster: what became of its calls, and of one that has failed everything.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Instant;

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

/// What a test tells of its calls, in its cluster's folder.
const TABLES: &str = "tables.txt";

/// Brings up a cluster and runs a test on it. What the cluster says of a test that fails is in the error, and all of its logs are
/// kept in `<target>/kubernetes/<name>`; what was told of its calls ([`tell`]) is in `<target>/kubernetes/<name>-tables.txt`, however it
/// has ended.
///
/// # Errors
/// The test's, and the cluster's.
pub async fn on_cluster(name: &str, plan: Plan, test: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let began = Instant::now();
    let cluster = Cluster::up(plan).await?;
    let outcome = AssertUnwindSafe(test(&cluster)).catch_unwind().await;
    let has_passed = matches!(outcome, Ok(Ok(())));
    let ended = if has_passed { "passed" } else { "failed" };
    let tables = target().and_then(|target| {
        let kept = target.join(format!("kubernetes/{name}-tables.txt"));
        let head = format!("{name} has {ended} after {} s", began.elapsed().as_secs());
        Ok(keep_tables(&cluster.folder().join(TABLES), &kept, &head)?)
    });
    if !has_passed {
        let told = keep(name, &cluster).unwrap_or_else(|error| format!("nothing could be kept: {error:#}"));
        // Past the harness, which shows what failed tests print: a panic has no context.
        writeln!(io::stderr(), "{name}:\n{told}")?;
    }
    drop(cluster);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    tables
}

/// Prints what became of calls, and keeps it: cargo shows what a test has printed only where that has failed.
///
/// # Errors
/// When the file cannot be written.
#[expect(clippy::print_stdout, reason = "what a test prints is shown where it fails")]
pub fn tell(cluster: &Cluster, text: &str) -> Result<()> {
    println!("{text}");
    let mut file = File::options().create(true).append(true).open(cluster.folder().join(TABLES))?;
    Ok(writeln!(file, "{text}")?)
}

/// Puts what was told in the place of what an earlier run has told; where nothing was, nothing is left.
fn keep_tables(told: &Path, kept: &Path, head: &str) -> io::Result<()> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::read_to_string(told) {
        Ok(text) => {
            kept.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(kept, format!("{head}\n\n{text}"))
        }
        Err(error) if absent(&error) => match fs::remove_file(kept) {
            Err(error) if !absent(&error) => Err(error),
            _ => Ok(()),
        },
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_last_run_are_kept() {
        let folder = std::env::temp_dir().join(format!("streamfleet-tables-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // The folder that they are kept in is made.
        let (told, kept) = (folder.join("told"), folder.join("kubernetes/kept"));
        let keep = |head: &str| keep_tables(&told, &kept, head).unwrap();
        keep("nothing was told, and nothing is there");
        assert!(!kept.exists());
        fs::write(&told, "call 0\n").unwrap();
        for run in ["first", "second"] {
            keep(run);
            assert_eq!(fs::read_to_string(&kept).unwrap(), format!("{run}\n\ncall 0\n"));
        }
        fs::remove_file(&told).unwrap();
        keep("nothing was told");
        assert!(!kept.exists(), "these were another run's");
        fs::remove_dir_all(&folder).unwrap();
    }
}
