//! An installation from `helm install` and `kubectl apply` alone, as somebody has it who follows docs/kubernetes.md: calls, what people
//! are shown, what is refused and why, what is repaired, another certificate and other versions with calls live, and that nothing stays
//! when it is gone.

#![expect(clippy::print_stdout, reason = "helpers of tests print their figures for the log")]

mod examples;
mod fleet;
mod mistakes;
mod objects;
mod renewal;
mod router;
mod shown;
mod site;
mod top;
mod upgrade;

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use streamfleet_kubernetes_tests::{Plan, on_cluster};

use self::renewal::Renewal;
use self::site::Site;

/// Whatever is waited for comes within this, however busy the machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A scenario, with its name in what it fails with, and its time.
async fn step<T>(what: &str, scenario: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let outcome = scenario.await.with_context(|| what.to_owned());
    println!("{:5.1} s  {what}", began.elapsed().as_secs_f32());
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation() -> Result<()> {
    let began = Instant::now();
    on_cluster("install", Plan::of(2), async |cluster| {
        println!("{:5.1} s  the cluster is up", began.elapsed().as_secs_f32());
        let site = step("helm install, over TLS", Site::install(cluster)).await?;
        let own_test = site.begin_helm_test()?;
        let renewal = Renewal::begin(&site)?;
        step("kubectl apply, and a call", fleet::a_call(&site)).await?;
        // Each of these leaves things as they were: what one finds does not hide what the next one would.
        let mut failed = Vec::new();
        failed.extend(step("the routers' Secret has another certificate", renewal.replace()).await.err());
        failed.extend(step("columns, explanations, Events", shown::to_people(&site)).await.err());
        failed.extend(step("streamfleet top", top::shows_it(&site)).await.err());
        failed.extend(step("bad fields are refused by name", mistakes::refused(&site)).await.err());
        failed.extend(step("what only the operator can see is said in a condition", mistakes::said(&site)).await.err());
        failed.extend(step("helm test", own_test.passed()).await.err());
        failed.extend(step("the older has the path", objects::of_two_with_a_path(&site)).await.err());
        failed.extend(step("a foreign object is left alone", objects::foreign(&site)).await.err());
        failed.extend(step("what is changed by hand is put back", objects::by_hand(&site)).await.err());
        failed.extend(step("an image that does not exist", objects::without_image(&site)).await.err());
        failed.extend(step("a quota", objects::over_quota(&site)).await.err());
        failed.extend(step("an admission webhook that hangs", objects::behind_webhook(&site)).await.err());
        failed.extend(step("a webhook that says nothing", objects::behind_silence(&site)).await.err());
        failed.extend(step("a worker answers nobody without its key", fleet::strangers(&site)).await.err());
        failed.extend(step("every example", examples::applied(&site)).await.err());
        failed
            .extend(step("a session is ended through the other router", fleet::ended_by_the_other(&site)).await.err());
        failed.extend(step("the certificate is served, and calls go on", renewal.served()).await.err());
        failed.extend(step("a browser", fleet::a_browser(&site)).await.err());
        failed
            .extend(step("every metric of dashboard and alerts is exported", shown::to_prometheus(&site)).await.err());
        failed.extend(step("a router dies", router::dies(&site)).await.err());
        failed.extend(step("helm upgrade and rollback with calls live", upgrade::with_calls(&site)).await.err());
        failed.extend(step("helm uninstall refuses, then leaves nothing", upgrade::uninstalled(&site)).await.err());
        for failure in &failed {
            eprintln!("{failure:?}\n");
        }
        ensure!(failed.is_empty(), "{} scenarios have failed", failed.len());
        Ok(())
    })
    .await
}
