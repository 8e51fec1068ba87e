//! Calls: of people, of strangers, of a browser, and through all routers.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::eventually;
use streamfleet_kubernetes_tests::fleet::{await_condition, stream_services};
use streamfleet_tests::metrics::Metrics;
use streamfleet_tests::{Script, http};

use super::LIMIT;
use super::site::{HOME, HOST, Site, address};

/// Of the operator, in the chart's words: where admin ports are.
const ADMIN: u16 = 9090;
/// Where workers take offers.
const WORKER: u16 = 8081;

/// The StreamService of the docs, and the call that they tell to make.
pub(crate) async fn a_call(site: &Site<'_>) -> Result<()> {
    let minimal = streamfleet_kubernetes_tests::root().join("examples/kubernetes/minimal.yaml");
    site.cluster.kubectl(&["apply", "--namespace", HOME, "--filename", &minimal.display().to_string()])?;
    let heard = site.call("/voice/echo", &["--wait", "60"])?;
    ensure!(heard["verdict"] == "heard" && heard["dominant_tone_hz"] == 440, "{heard}");
    println!("        answered in {} ms, mouth to ear {} ms", heard["setup_ms"]["answered"], heard["mouth_to_ear_ms"]);
    let heard = site.call("/voice/echo", &["--transport", "websocket"])?;
    ensure!(heard["verdict"] == "heard", "{heard}");
    await_condition(&stream_services(site.cluster, HOME), "echo", ("Ready", "True"), LIMIT).await.map(drop)
}

/// The worker's own port, without the routers, for somebody in the cluster's network.
pub(crate) async fn strangers(site: &Site<'_>) -> Result<()> {
    let pods = site.pods(HOME, "streamfleet.dev/service=echo").await?;
    let worker = address(pods.first().context("no worker")?)?;
    for path in ["/voice/echo/webrtc/offer", "/voice/echo/websocket/offer", "/voice/echo/sessions"] {
        let ask = |headers: &[(&str, &str)]| {
            let url = format!("http://{worker}:{WORKER}{path}");
            site.cluster.control().in_network(|| http::request("POST", &url, headers, b"{}"))
        };
        // A key of its own making is as good as none.
        for headers in
            [&[("content-type", "application/json")][..], &[("streamfleet-fleet", "0123456789abcdef0123456789")]]
        {
            let response = ask(headers)?;
            ensure!((response.status, response.refusal().as_str()) == (403, "forbidden"), "{path}: {response:?}");
        }
    }
    Ok(())
}

fn scrape(site: &Site<'_>, pod: Ipv4Addr) -> Result<String> {
    let url = format!("http://{pod}:{ADMIN}/metrics");
    site.cluster.control().in_network(|| http::request("GET", &url, &[], b""))?.text()
}

/// All samples of a pod.
pub(crate) fn metrics(site: &Site<'_>, pod: Ipv4Addr) -> Result<Metrics> {
    Ok(Metrics::parse(&scrape(site, pod)?))
}

/// A call that goes on until it is ended.
struct Live(Child);

impl Live {
    fn begin(site: &Site<'_>, flags: &[&str]) -> Result<Self> {
        let url = format!("https://{HOST}/voice/echo");
        let mut command = site.client(&["call", &url, "--seconds", "120", "--json"])?;
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Self(site.cluster.client().spawn(&mut command)?))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One router takes the offer; the other one, which has nothing to do with the session, ends it.
pub(crate) async fn ended_by_the_other(site: &Site<'_>) -> Result<()> {
    let token = site.token().await?;
    let routers = site.routers().await?;
    let offers = |router: &Ipv4Addr| -> Result<f64> {
        Ok(metrics(site, *router)?.sum("streamfleet_offers_total").unwrap_or_default())
    };
    let before: Vec<f64> = routers.iter().map(offers).collect::<Result<_>>()?;
    let mut live = Live::begin(site, &["--id", "walter"])?;
    let sessions = |router: Ipv4Addr, action: &[&str]| -> Result<String> {
        let url = format!("https://{router}:8080/voice/echo");
        let mut command = Command::new(streamfleet_kubernetes_tests::built("streamfleet")?);
        let (what, more) = action.split_first().context("no action")?;
        command.args(["sessions", what, &url]).args(more).args(["--insecure", "--json"]);
        site.cluster.control().output(command.env("STREAMFLEET_ADMIN_TOKEN", &token))
    };
    let first = *routers.first().context("no router")?;
    eventually("the session is active", LIMIT, async || {
        let shown: Value = serde_json::from_str(&sessions(first, &["show", "walter"])?)?;
        Ok((shown["state"] == "active").then_some(())).and_then(|active| active.map(Some).context(shown.to_string()))
    })
    .await?;
    let after: Vec<f64> = routers.iter().map(offers).collect::<Result<_>>()?;
    let others: Vec<Ipv4Addr> = routers
        .iter()
        .zip(before.iter().zip(&after))
        .filter(|(_, (before, after))| before == after)
        .map(|(ip, _)| *ip)
        .collect();
    ensure!(others.len() == 1, "one of two routers was asked: {before:?}, then {after:?}");
    let said = sessions(others[0], &["end", "walter"])?;
    ensure!(said.contains("ended_by_control"), "{said}");
    eventually("the client has been told", LIMIT, async || Ok(live.0.try_wait()?)).await?;
    Ok(())
}

/// A page of a browser, over https.
pub(crate) async fn a_browser(site: &Site<'_>) -> Result<()> {
    let options = json!({
        "url": format!("https://{HOST}/voice/echo"), "id": "b0", "shape": "complete", "tones": [440],
        "trusted_key": site.signed.fingerprint,
    });
    let mut script = Script::browser_by("call", &options, |command| site.cluster.client().spawn(command))?;
    let connected = script.expect("connected", LIMIT)?;
    let tone = script.expect("tone", LIMIT)?;
    ensure!((tone["received"]["peak_hz"].as_f64().unwrap_or_default() - 440.0).abs() < 8.0, "{tone}");
    println!("        connected {} ms after the offer, {tone}", connected["connected_ms"]);
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}
