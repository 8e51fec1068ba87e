//! Calls: of people, of strangers, of a browser, and through all routers.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::fleet::{await_condition, stream_services};
use streamfleet_kubernetes_tests::{eventually, pods};
use streamfleet_session::fleet::SECRET_HEADER;
use streamfleet_session::{FleetSecret, ServiceName};
use streamfleet_tests::{Script, http};

use super::LIMIT;
use super::site::{HOME, HOST, Site};

/// Where workers take offers.
const WORKER: u16 = 8081;

/// The StreamService of the docs, and the call that they tell to make.
pub(crate) async fn a_call(site: &Site<'_>) -> Result<()> {
    let minimal = streamfleet_kubernetes_tests::root().join("examples/kubernetes/minimal.yaml");
    site.cluster.kubectl(&["apply", "--namespace", HOME, "--filename", &minimal.display().to_string()])?;
    let heard = site.call("/voice/echo", &["--wait", "60"])?;
    // What a jitter buffer has stretched or concealed may put it a hertz beside.
    let is_tone = heard["dominant_tone_hz"].as_u64().is_some_and(|hz| hz.abs_diff(440) <= 2);
    ensure!(heard["verdict"] == "heard" && is_tone, "{heard}");
    println!("        answered in {} ms, mouth to ear {} ms", heard["setup_ms"]["answered"], heard["mouth_to_ear_ms"]);
    let heard = site.call("/voice/echo", &["--transport", "websocket"])?;
    ensure!(heard["verdict"] == "heard", "{heard}");
    await_condition(&stream_services(site.cluster, HOME), "echo", ("Ready", "True"), LIMIT).await.map(drop)
}

/// The worker's own port, without the routers, for somebody in the cluster's network.
pub(crate) async fn strangers(site: &Site<'_>) -> Result<()> {
    let workers = site.pods(HOME, "streamfleet.dev/service=echo").await?;
    let worker = pods::address(workers.first().context("no worker")?)?;
    let fleet: FleetSecret = site.secret("secret").await?.parse()?;
    let elsewhere: FleetSecret = "of-an-installation-of-others".parse()?;
    let (service, other): (ServiceName, ServiceName) =
        (format!("{HOME}/echo").parse()?, format!("{HOME}/other").parse()?);
    for path in ["/voice/echo/webrtc/offer", "/voice/echo/websocket/offer", "/voice/echo/sessions"] {
        let ask = |headers: &[(&str, &str)]| {
            let url = format!("http://{worker}:{WORKER}{path}");
            site.cluster.control().in_network(|| http::request("POST", &url, headers, b"{}"))
        };
        // A key of its own making is as good as none, and so are another installation's and another service's.
        for headers in [
            &[("content-type", "application/json")][..],
            &[(SECRET_HEADER, "0123456789abcdef0123456789")],
            &[(SECRET_HEADER, elsewhere.of_service(&service).reveal())],
            &[(SECRET_HEADER, fleet.of_service(&other).reveal())],
        ] {
            let response = ask(headers)?;
            ensure!((response.status, response.refusal().as_str()) == (403, "forbidden"), "{path}: {response:?}");
        }
        // Whoever shows the right one is let in, and told what is wrong with his offer.
        if path.ends_with("/webrtc/offer") {
            let known = ask(&[(SECRET_HEADER, fleet.of_service(&service).reveal())])?;
            ensure!(known.status != 403, "{path}: {known:?}");
        }
    }
    Ok(())
}

/// One router takes the offer; the other one, which has nothing to do with the session, ends it.
pub(crate) async fn ended_by_the_other(site: &Site<'_>) -> Result<()> {
    let token = site.token().await?;
    let routers = site.routers().await?;
    let offers = |router: &Ipv4Addr| -> Result<f64> {
        Ok(pods::metrics(site.cluster, *router)?.sum("streamfleet_offers_total").unwrap_or_default())
    };
    let before: Vec<f64> = routers.iter().map(offers).collect::<Result<_>>()?;
    let mut live = site.talk("/voice/echo", &["--id", "walter"])?;
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
    eventually("the client has been told", LIMIT, async || Ok(live.has_ended()?.then_some(()))).await?;
    Ok(())
}

/// A page of a browser, over https. It believes the routers' second certificate alone.
pub(crate) async fn a_browser(site: &Site<'_>) -> Result<()> {
    let options = json!({
        "url": format!("https://{HOST}/voice/echo"), "id": "b0", "shape": "complete", "tones": [440],
        "trusted_key": site.renewed.fingerprint,
    });
    let mut script = Script::browser_by("call", &options, |command| site.cluster.client().spawn(command))?;
    let connected = script.expect("connected", LIMIT)?;
    let tone = script.expect("tone", LIMIT)?;
    ensure!((tone["received"]["peak_hz"].as_f64().unwrap_or_default() - 440.0).abs() < 8.0, "{tone}");
    println!("        connected {} ms after the offer, {tone}", connected["connected_ms"]);
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}
