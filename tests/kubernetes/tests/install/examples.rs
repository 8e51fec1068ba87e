//! All of examples/kubernetes, as they stand.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;
use streamfleet_kubernetes_tests::fleet::{Calls, Load, await_condition, await_status, stream_services};
use streamfleet_kubernetes_tests::{Image, built, eventually, pods, root};

use super::LIMIT;
use super::site::{HOST, Site};

/// Where they are applied: some of them have the names of what is in the release's namespace.
const THERE: &str = "sales";
/// The key of identity.yaml.
const KEY: &[u8] = b"an-example-that-everybody-knows-0";
/// Of two variants, so many users that both have some.
const USERS: usize = 24;

fn apply(site: &Site<'_>, example: &str) -> Result<()> {
    let file = root().join("examples/kubernetes").join(example).display().to_string();
    site.cluster.kubectl(&["apply", "--namespace", THERE, "--filename", &file]).map(drop)
}

/// What identity.yaml's issuer gives this user (RFC 7519).
fn token(user: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let claims = json!({
        "iss": "https://issuer.example.com", "aud": "streamfleet", "sub": user,
        "exp": (now + Duration::from_secs(3600)).as_secs(),
    });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)))
}

fn heard(site: &Site<'_>, path: &str, flags: &[&str]) -> Result<()> {
    let report = site.call(path, &[&["--wait", "60"], flags].concat())?;
    ensure!(report["verdict"] == "heard", "{path}: {report}");
    Ok(())
}

/// What is applied here, and is to be all that there is.
const ALL: [&str; 6] =
    ["custom-worker.yaml", "hpa.yaml", "identity.yaml", "minimal.yaml", "scale-to-zero.yaml", "variants.yaml"];

/// Each is Ready and does what it is for.
pub(crate) async fn applied(site: &Site<'_>) -> Result<()> {
    let mut there = Vec::new();
    for entry in fs::read_dir(root().join("examples/kubernetes"))? {
        there.push(entry?.file_name().to_string_lossy().into_owned());
    }
    there.sort();
    ensure!(there == ALL, "examples that nobody applies, or too few: {there:?}");
    // The images that they name, which nobody can fetch here.
    for (name, program) in [
        ("registry.example.com/chipmunk:1", "custom-worker"),
        ("ghcr.io/streamfleet/streamfleet-worker:0.1.0", "streamfleet-worker"),
    ] {
        site.cluster.load(&Image::of(name, &built(program)?)?)?;
    }
    let objects = stream_services(site.cluster, THERE);
    let ready = async |name: &str| await_condition(&objects, name, ("Ready", "True"), LIMIT).await;
    apply(site, "minimal.yaml")?;
    apply(site, "custom-worker.yaml")?;
    apply(site, "identity.yaml")?;
    ready("echo").await?;
    heard(site, "/sales/echo", &[])?;
    ready("chipmunk").await?;
    heard(site, "/chipmunk", &[])?;
    identities(site).await?;
    site.delete(THERE, &["echo", "chipmunk", "members"]).await?;
    site.cluster.kubectl(&["--namespace", THERE, "delete", "secret", "members-token"])?;

    apply(site, "variants.yaml")?;
    ready("assistant").await?;
    variants(site).await?;
    site.delete(THERE, &["assistant"]).await?;

    // Two at least, by the autoscaler, which has no figures of the CPU here. Beside it one that has none, or that of its office hours,
    // until it is called. A parrot repeats only what it takes for speech.
    apply(site, "hpa.yaml")?;
    apply(site, "scale-to-zero.yaml")?;
    println!("        {}", ready("seldom").await?);
    let talk = site.talk("/seldom", &["--wait", "60"])?;
    await_status(&objects, "measured", "readyReplicas", LIMIT, |count| count == 2).await?;
    heard(site, "/measured", &[])?;
    await_status(&objects, "seldom", "activeSessions", LIMIT, |count| count == 1).await?;
    await_status(&objects, "seldom", "readyReplicas", LIMIT, |count| count >= 1).await?;
    let said = talk.hang_up().await?;
    ensure!(said["verdict"] != "lost" && said["setup_ms"]["connected"].is_number(), "{said}");
    site.cluster.kubectl(&["--namespace", THERE, "delete", "horizontalpodautoscaler", "measured"])?;
    site.delete(THERE, &["measured", "seldom"]).await
}

/// Only with a token, and two calls of one user at a time; others have limits of their own, as a service beside it has none.
async fn identities(site: &Site<'_>) -> Result<()> {
    let refused = |flags: &[&str], why: &str| -> Result<()> {
        let said = site.call("/members", flags).map_err(|error| format!("{error:#}"));
        ensure!(said.as_ref().is_err_and(|said| said.contains(why)), "{why}: {said:?}");
        Ok(())
    };
    let header = |user: &str| Ok::<_, anyhow::Error>(format!("Authorization: Bearer {}", token(user)?));
    let (ann, bob) = (header("ann")?, header("bob")?);
    await_condition(&stream_services(site.cluster, THERE), "members", ("Ready", "True"), LIMIT).await?;
    heard(site, "/members", &["--header", &bob])?;
    refused(&[], "unauthorized")?;
    refused(&["--header", "Authorization: Bearer nonsense"], "unauthorized")?;
    let url = format!("https://{HOST}/members");
    let load = Load { url: &url, sessions: 2, ramp: 8, seconds: 600, flags: &["--header", &ann] };
    let both = Calls::start(site.cluster, load)?;
    await_status(&stream_services(site.cluster, THERE), "members", "activeSessions", LIMIT, |count| count == 2).await?;
    refused(&["--header", &ann], "user_limit_reached")?;
    heard(site, "/members", &["--header", &bob])?;
    heard(site, "/sales/echo", &["--header", &ann])?;
    let report = both.stop().await?;
    ensure!(report.worst().1 == 0, "{}", report.table());
    Ok(())
}

/// One user in ten has the other image, and always the same one.
async fn variants(site: &Site<'_>) -> Result<()> {
    eventually("both variants are there", LIMIT, async || {
        let there = site.pods(THERE, "streamfleet.dev/service=assistant").await?;
        Ok((there.iter().filter(|pod| pods::is_ready(pod)).count() == 2).then_some(()))
    })
    .await?;
    let url = format!("https://{HOST}/assistant");
    let mut split = Vec::new();
    for _ in 0..2 {
        let load = Load { url: &url, sessions: USERS, ramp: 12, seconds: 600, flags: &["--user-id", "user"] };
        let calls = Calls::start(site.cluster, load)?;
        let shown = site.token().await?;
        let router = site.routers().await?.pop().context("no router")?;
        let users = eventually("all are there", LIMIT, async || {
            let mut command = std::process::Command::new(built("streamfleet")?);
            command.args([
                "sessions",
                "list",
                &format!("https://{router}:8080/assistant"),
                "--insecure",
                "--json",
                "--state",
                "active",
            ]);
            let said = site.cluster.control().output(command.env("STREAMFLEET_ADMIN_TOKEN", &shown))?;
            let sessions: serde_json::Value = serde_json::from_str(&said)?;
            let list = sessions.as_array().or_else(|| sessions["sessions"].as_array()).context(said.clone())?;
            let of = |session: &serde_json::Value| {
                let worker = session["worker"].as_str()?;
                Some((session["user_id"].as_str()?.to_owned(), worker.starts_with("assistant-next-")))
            };
            let users: std::collections::BTreeMap<String, bool> = list.iter().filter_map(of).collect();
            (users.len() == USERS).then_some(Some(users)).with_context(|| format!("{} of them: {said}", list.len()))
        })
        .await?;
        let report = calls.stop().await?;
        ensure!(report.worst().1 == 0, "{}", report.table());
        split.push(users);
    }
    let next = split[0].values().filter(|is_next| **is_next).count();
    println!("        {next} of {USERS} users have the next image");
    ensure!((1..=USERS / 3).contains(&next), "one in ten: {split:?}");
    ensure!(split[0] == split[1], "each has it again: {split:?}");
    Ok(())
}
