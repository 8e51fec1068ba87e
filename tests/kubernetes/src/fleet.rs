//! The product on a cluster: its images, its chart, its resources, and calls from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use kube::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde::Deserialize;
use serde_json::{Value, json};
use streamfleet_tests::Gauge;

use crate::cluster::Cluster;
use crate::image::{Image, Product, REDIS};
use crate::programs::{built, root};
use crate::wait::eventually;

/// Charts wait for what they install within this; images are there already.
const INSTALLS: &str = "--timeout=120s";

/// Gives all nodes the images of all programs that an installation runs, the store's too. They are called as the program, with the
/// tag `test`: [`images`].
///
/// # Errors
/// When a program was not built, or containerd refuses its image.
pub fn load_product(cluster: &Cluster) -> Result<()> {
    thread::scope(|scope| {
        let load = |image: Result<Image>| scope.spawn(move || cluster.load(&image?));
        let all = Product::ALL.into_iter().map(Product::image).chain([Image::redis()]);
        let loads: Vec<_> = all.map(load).collect();
        loads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// What the chart calls the images that [`load_product`] gives: its `images`.
pub fn images() -> Value {
    json!({
        "operator": "streamfleet-operator:test", "router": "streamfleet-router:test", "worker": "streamfleet-worker:test",
        "streamfleet": "streamfleet:test", "redis": REDIS,
    })
}

/// What the chart's store runs in that image: its `redis.bundled.command`.
pub fn redis_command() -> Value {
    json!(["/redis-server"])
}

/// A chart of the checkout's, by its folder's name in `charts`.
pub fn chart(name: &str) -> PathBuf {
    root().join("charts").join(name)
}

/// Installs a chart, or changes what is installed to these values, and waits until all of it is ready.
///
/// # Errors
/// What helm says.
pub fn install(cluster: &Cluster, release: &str, namespace: &str, chart: &Path, values: &Value) -> Result<String> {
    let file = cluster.folder().join(format!("values-{release}.json"));
    fs::write(&file, values.to_string())?;
    let (chart, file) = (chart.display().to_string(), file.display().to_string());
    let arguments = ["upgrade", "--install", release, &chart, "--namespace", namespace, "--create-namespace"];
    cluster.helm(&[arguments.as_slice(), &["--values", &file, "--wait", INSTALLS]].concat())
}

/// The StreamServices of a namespace, as the API server has them: what is judged is what people see.
pub fn stream_services(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("streamfleet.dev", "v1alpha1", "StreamService");
    let resource = ApiResource::from_gvk_with_plural(&kind, "streamservices");
    Api::namespaced_with(cluster.kube(), namespace, &resource)
}

/// Waits until an object's condition has a status, for the generation that it has now, and answers what the condition says of it.
///
/// # Errors
/// When it does not within `limit`, with all of its conditions.
pub async fn await_condition(
    objects: &Api<DynamicObject>,
    name: &str,
    (condition, status): (&str, &str),
    limit: Duration,
) -> Result<String> {
    eventually(&format!("{name} is {condition}={status}"), limit, async || {
        let object = objects.get(name).await?;
        let generation = object.metadata.generation.unwrap_or_default();
        let conditions = &object.data["status"]["conditions"];
        // Said of an older specification, it says nothing.
        let found = conditions.as_array().into_iter().flatten().find(|known| {
            known["type"] == condition
                && known["status"] == status
                && known["observedGeneration"].as_i64().is_some_and(|seen| seen >= generation)
        });
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let said = found.map(|known| format!("{}: {}", word(&known["reason"]), word(&known["message"])));
        said.map(Some).ok_or_else(|| anyhow!("generation {generation}: {conditions}"))
    })
    .await
}

/// Waits until a figure of an object's status is as wanted, and answers it.
///
/// # Errors
/// When it is not within `limit`, with the whole status.
pub async fn await_status(
    objects: &Api<DynamicObject>,
    name: &str,
    figure: &str,
    limit: Duration,
    wanted: impl Fn(i64) -> bool,
) -> Result<i64> {
    eventually(&format!("{figure} of {name} is as wanted"), limit, async || {
        let status = objects.get(name).await?.data["status"].clone();
        let value = status[figure].as_i64().filter(|value| wanted(*value));
        value.map(Some).ok_or_else(|| anyhow!("{status}"))
    })
    .await
}

/// What Events say of a StreamService that have this reason: a line for each, `Normal` or `Warning` first.
///
/// # Errors
/// What kubectl says.
pub fn events(cluster: &Cluster, namespace: &str, name: &str, reason: &str) -> Result<String> {
    let selector = format!("regarding.kind=StreamService,regarding.name={name},reason={reason}");
    let output = "--output=jsonpath={range .items[*]}{.type}{' '}{.note}{'\\n'}{end}";
    let get = ["--namespace", namespace, "get", "events.events.k8s.io", "--field-selector", &selector, output];
    cluster.kubectl(&get)
}

/// "Nothing" of docs/kubernetes.md is no packets lost in a row, and no silence, for longer than this: milliseconds.
const UNHEARD: Gaps = Gaps { outage_ms: 500.0, pause_ms: 1_500.0 };
/// The same on a machine whose cores were away meanwhile. A call that was moved or ended is silent for longer.
const UNSTEADY: Gaps = Gaps { outage_ms: 1_500.0, pause_ms: 3_000.0 };
/// What this machine does while calls are measured.
static MACHINE: LazyLock<Option<Gauge>> = LazyLock::new(|| Gauge::start().ok());

/// What a call may miss, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaps {
    /// Packets in a row.
    pub outage_ms: f64,
    /// Silence.
    pub pause_ms: f64,
}

impl Gaps {
    /// "Until the load balancer notices": its health checks take up to two seconds, then a call's next check goes by another relay.
    pub const NOTICED: Self = Self { outage_ms: 8_000.0, pause_ms: 8_000.0 };
}

/// Real calls from outside (`streamfleet load`), which go on until they have been measured for as long as was said, or
/// [`stop`](Self::stop). They end with the cluster.
pub struct Calls {
    child: Child,
    report: PathBuf,
    log: PathBuf,
    began: Instant,
}

/// What is to be called, and how.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The service, as clients call it.
    pub url: &'a str,
    /// How many calls.
    pub sessions: usize,
    /// How many of them begin in a second.
    pub ramp: usize,
    /// How long they are measured, once all are there.
    pub seconds: u64,
    /// More of the command's flags, such as `--transport websocket`.
    pub flags: &'a [&'a str],
}

/// What became of calls.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// The sums.
    pub sessions: Sums,
    /// Each one.
    #[serde(default)]
    pub each: Vec<Outcome>,
    /// Whether the cores came when they were wanted, from the first call to the last.
    #[serde(skip)]
    steady: bool,
}

/// Calls, counted.
#[derive(Debug, Clone, Deserialize)]
pub struct Sums {
    /// As many as there were to be.
    pub asked: usize,
    /// Heard from to the end.
    pub ok: usize,
    /// Not.
    pub failed: usize,
}

/// One call.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    /// Why it ended before its time; `None` of one that did not.
    pub failure: Option<String>,
    /// Packets that it sent while measured.
    pub sent: u64,
    /// Those of them that came back.
    pub back: u64,
    /// The longest time that it heard nothing, milliseconds.
    pub pause_ms: f64,
    /// The longest run of packets that did not come back, milliseconds.
    pub outage_ms: f64,
}

impl Calls {
    /// Begins to call.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn start(cluster: &Cluster, load: Load<'_>) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        LazyLock::force(&MACHINE);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = |kind| cluster.folder().join(format!("calls-{number}.{kind}"));
        let (report, log) = (path("json"), path("log"));
        let output = fs::File::create(&log)?;
        let mut command = Command::new(built("streamfleet")?);
        command.args(["load", load.url, "--insecure", "--each", "--json"]).arg(&report);
        for (flag, value) in
            [("--sessions", load.sessions as u64), ("--ramp", load.ramp as u64), ("--seconds", load.seconds)]
        {
            command.arg(flag).arg(value.to_string());
        }
        command.args(load.flags).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self { child: cluster.client().spawn(&mut command)?, report, log, began: Instant::now() })
    }

    /// Whether they go on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn are_going_on(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Hangs up, and answers what became of them so far.
    ///
    /// # Errors
    /// As of [`finish`](Self::finish).
    pub async fn stop(self) -> Result<Report> {
        let interrupt = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status()?;
        ensure!(interrupt.success(), "kill: {interrupt}");
        self.finish(Duration::from_secs(30)).await
    }

    /// Waits until all have ended, and answers what became of them.
    ///
    /// # Errors
    /// When they go on after `limit`, or there is no report.
    pub async fn finish(mut self, limit: Duration) -> Result<Report> {
        let ended = async || Ok(self.child.try_wait()?);
        let status = eventually("the calls have ended", limit, ended).await?;
        let steady = MACHINE.as_ref().is_none_or(|machine| machine.was_steady(self.began));
        let said = || fs::read_to_string(&self.log).unwrap_or_default();
        let report = fs::read_to_string(&self.report).with_context(|| format!("{status}: {}", said()))?;
        Ok(Report { steady, ..serde_json::from_str(&report)? })
    }
}

impl Outcome {
    /// Whether it was heard to its end, and missed no more than this. What comes back decoded and encoded again has no numbers:
    /// then the pause tells.
    pub fn is_well(&self, gaps: Gaps) -> bool {
        let missed = self.outage_ms > gaps.outage_ms || self.pause_ms > gaps.pause_ms;
        self.failure.is_none() && self.back > 0 && !missed
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Report {
    /// The longest outage of any call, and the number of those that ended before their time.
    pub fn worst(&self) -> (f64, usize) {
        let longest = self.each.iter().map(|each| each.outage_ms.max(each.pause_ms)).fold(0.0, f64::max);
        (longest, self.sessions.failed)
    }

    /// What of their gaps this machine alone may have made.
    pub fn gaps(&self) -> Gaps {
        if self.steady { UNHEARD } else { UNSTEADY }
    }

    /// What they may miss where `gaps` may be missed: on a machine whose cores were away, what that makes beside it.
    pub fn allowing(&self, gaps: Gaps) -> Gaps {
        if self.steady {
            return gaps;
        }
        Gaps { outage_ms: gaps.outage_ms + UNSTEADY.outage_ms, pause_ms: gaps.pause_ms + UNSTEADY.pause_ms }
    }

    /// That nothing has happened to any of them: each was answered, heard itself all the time, and was not ended.
    ///
    /// # Errors
    /// With what became of each.
    pub fn undisturbed(&self) -> Result<()> {
        let all = self.sessions.ok == self.sessions.asked && self.each.len() == self.sessions.asked;
        let gaps = self.gaps();
        ensure!(all && self.each.iter().all(|each| each.is_well(gaps)), "beyond {gaps:?}: {self:?}\n{}", self.table());
        Ok(())
    }

    /// A line for each call.
    pub fn table(&self) -> String {
        let mut table = "call  packets  back   pause ms  outage ms  ended\n".to_owned();
        for (number, each) in self.each.iter().enumerate() {
            let Outcome { failure, sent, back, pause_ms, outage_ms } = each;
            let ended = failure.as_deref().unwrap_or("no");
            table += &format!("{number:4}  {sent:7}  {back:5}  {pause_ms:8.0}  {outage_ms:9.0}  {ended}\n");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_a_report() {
        let report = serde_json::json!({ "sessions": { "asked": 2, "ok": 1, "clean": 1, "failed": 1 }, "url": "x", "each": [
            { "failure": null, "sent": 100, "back": 98, "pause_ms": 21.0, "outage_ms": 40.0 },
            { "failure": "connection lost", "sent": 0, "back": 0, "pause_ms": 0.0, "outage_ms": 0.0 },
        ] });
        let report: Report = serde_json::from_value(report).unwrap();
        assert_eq!(report.worst(), (40.0, 1));
        assert!(report.undisturbed().is_err(), "one has ended");
        let table = report.table();
        assert!(table.contains("98        21         40  no\n") && table.contains("connection lost\n"), "{table}");
    }

    #[test]
    fn what_nothing_is() {
        let of = |back: u64, pause_ms: f64, outage_ms: f64, steady: bool| Report {
            sessions: Sums { asked: 1, ok: 1, failed: 0 },
            each: vec![Outcome { failure: None, sent: 100, back, pause_ms, outage_ms }],
            steady,
        };
        for (report, is_nothing) in [
            (of(99, 1_500.0, 500.0, true), true),
            (of(99, 1_501.0, 0.0, true), false),
            (of(99, 0.0, 501.0, true), false),
            (of(0, 0.0, 0.0, true), false),
            (of(99, 3_000.0, 1_500.0, false), true),
            (of(99, 3_001.0, 0.0, false), false),
            (of(99, 0.0, 1_501.0, false), false),
            (Report { each: Vec::new(), ..of(0, 0.0, 0.0, true) }, false),
        ] {
            assert_eq!(report.undisturbed().is_ok(), is_nothing, "{report:?}");
        }
        let gaps = Gaps { outage_ms: 8_000.0, pause_ms: 8_000.0 };
        assert_eq!(of(1, 0.0, 0.0, true).allowing(gaps), gaps);
        let more = Gaps { outage_ms: 9_500.0, pause_ms: 11_000.0 };
        assert_eq!(of(1, 0.0, 0.0, false).allowing(gaps), more);
    }
}
