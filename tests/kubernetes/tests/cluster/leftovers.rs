//! Clusters side by side, and that nothing is left of one, however it ended.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use streamfleet_kubernetes_tests::{Cluster, Plan, eventually, sweep};

use super::{MACHINE, namespace};

/// The kernel kills all of a machine in a moment.
const ENDS: Duration = Duration::from_secs(10);

/// The processes that were started with a path in this folder.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let command = |entry: fs::DirEntry| {
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        command.contains(&folder).then_some(command)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(command).collect()
}

/// What is left of a cluster that had this folder, other than processes.
fn left(folder: &Path) -> Vec<String> {
    let name = folder.file_name().unwrap_or_default();
    let cgroups = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let cgroups = cgroups.chain(["/sys/fs/cgroup".into()]).map(|path| path.join(name));
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter(|line| line.contains(&*name.to_string_lossy())).map(str::to_owned);
    let paths = cgroups.chain([folder.to_owned()]).filter(|path| path.exists());
    paths.map(|path| path.display().to_string()).chain(mounted).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_know_nothing_of_each_other_and_leave_nothing() -> Result<()> {
    let _machine = MACHINE.lock().await;
    let interfaces = || fs::read_dir("/sys/class/net").map(Iterator::count);
    let before = interfaces()?;
    let (one, other) = tokio::try_join!(Cluster::up(Plan::of(1)), Cluster::up(Plan::of(1)))?;
    one.apply(&namespace("mine"))?;
    assert!(other.kubectl(&["get", "namespace", "mine"]).is_err());
    assert_eq!(interfaces()?, before, "the host's network is not touched");
    let folder = one.folder().to_owned();
    assert!(!processes(&folder).is_empty() && !left(&folder).is_empty(), "this can be seen");
    drop(one);
    assert_eq!((processes(&folder), left(&folder)), (Vec::<String>::new(), Vec::<String>::new()));
    other.apply(&namespace("mine"))?;
    let folder = other.folder().to_owned();
    // Whatever holds it, and however a node of it was left.
    other.switch_off(0)?;
    drop(other);
    assert_eq!((processes(&folder), left(&folder)), (Vec::<String>::new(), Vec::<String>::new()));
    Ok(())
}

/// The command, with a cluster that no other test has.
fn command(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamfleet-cluster"));
    let name = format!("test-{}", std::process::id());
    let output = command.args(["--name", &name]).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_process_is_killed_ends_and_is_swept_up() -> Result<()> {
    let _machine = MACHINE.lock().await;
    let told = command(&["up", "--nodes", "1"])?;
    let folder = told.lines().find_map(|line| line.strip_prefix("STREAMFLEET_CLUSTER_FOLDER=")).context("no folder")?;
    let folder = Path::new(folder);
    let nodes = command(&["kubectl", "get", "nodes", "--output=json"])?;
    let nodes: Value = serde_json::from_str(&nodes)?;
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(1), "{nodes}");
    assert_eq!(command(&["client", "cat", "/proc/1/comm"])?.trim(), "cat");
    assert!(command(&["on", "node1", "ip", "address", "show", "dev", "eth0"])?.contains("10.240.0.11/24"));

    let keeper = folder.file_name().and_then(|name| name.to_str()?.strip_prefix("streamfleet-k")?.split('-').next());
    ensure!(Command::new("kill").args(["-s", "KILL", keeper.context("no process")?]).status()?.success());
    eventually("all its processes have ended", ENDS, async || Ok(processes(folder).is_empty().then_some(()))).await?;
    assert!(folder.exists(), "a killed process removes no files");
    assert!(command(&["kubectl", "get", "nodes"]).is_err());
    sweep();
    assert_eq!(left(folder), Vec::<String>::new());
    command(&["down"])?;
    Ok(())
}
