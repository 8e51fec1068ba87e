//! Calls through the site: a browser's, `streamfleet call`'s and `streamfleet load`'s.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Script, Site, Traffic, browser_offer, streamfleet};

use crate::load::Load;
use crate::{LIMIT, at_a_site, at_routers};

/// No text that a client gets may have the address of a pod in it.
fn check_text(site: &Site, text: &str) -> Result<()> {
    let named = site.pods().into_iter().find(|pod| text.contains(&pod.to_string()));
    ensure!(named.is_none(), "{named:?} stands in what a client gets: {text}");
    Ok(())
}

/// Chromium hears its tones again, and its answer names the public address alone.
#[test]
fn a_browser_calls() -> Result<()> {
    at_a_site(|site| {
        let options = json!({
            "url": site.url("echo"), "id": "browser", "shape": "trickle", "tones": [440, 1000], "messages": ["hello"],
            "hang_up": true,
        });
        let mut script = site.client.run(|| Script::browser("call", &options))?;
        let connected = script.expect("connected", LIMIT)?;
        check_text(site, &connected.to_string())?;
        for hz in [440.0, 1_000.0] {
            let tone = script.expect("tone", LIMIT)?;
            let heard = tone["received"]["peak_hz"].as_f64().unwrap_or(f64::NAN);
            ensure!((heard - hz).abs() < 8.0, "{tone}");
        }
        check_text(site, &script.expect("message", LIMIT)?.to_string())?;
        script.expect("done", LIMIT)?;
        script.finish(LIMIT)
    })
}

/// All that a client is told without a call of its own: answers, refusals, candidates, lists.
#[test]
fn no_answer_names_a_pod() -> Result<()> {
    at_a_site(|site| {
        let offer = |id: &str| json!({ "type": "offer", "webrtc_id": id, "sdp": browser_offer(1) });
        let candidate = json!({ "type": "ice-candidate", "webrtc_id": "a", "candidate": { "candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0" } });
        let asked = [
            ("POST", "/echo/webrtc/offer", offer("a")),
            ("POST", "/echo/webrtc/offer", offer("a")),
            ("POST", "/echo/webrtc/offer", candidate),
            ("POST", "/echo/webrtc/offer", json!({ "type": "offer", "webrtc_id": "b", "sdp": "v=0" })),
            ("POST", "/echo/webrtc/offer", json!([])),
            ("GET", "/echo/sessions", Value::Null),
            ("GET", "/echo/sessions/a", Value::Null),
            ("GET", "/echo/sessions/nobody", Value::Null),
            ("DELETE", "/echo/sessions/a", Value::Null),
            ("GET", "/nowhere", Value::Null),
        ];
        let mut answered = 0;
        for (method, path, body) in asked {
            let answer = site.ask(method, path, &body)?;
            ensure!(answer.status < 500, "{method} {path}: {answer:?}");
            check_text(site, &answer.head)?;
            check_text(site, &answer.text()?)?;
            if let Some(sdp) = answer.json().ok().and_then(|body| body["sdp"].as_str().map(str::to_owned)) {
                let there = format!(" {} {} typ host", site.door().ip(), site.door().port());
                let mut candidates = sdp.lines().filter(|line| line.starts_with("a=candidate"));
                ensure!(candidates.all(|line| line.contains(&there)), "{sdp}");
                ensure!(sdp.contains("a=candidate"), "{sdp}");
                answered += 1;
            }
        }
        ensure!(answered == 1, "{answered} answers");
        // And no way leads there.
        for worker in 0..site.workers() {
            let media = site.worker_media(worker);
            let sent = site.client.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(media)?;
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
                socket.send(&[0; 20])?;
                socket.recv(&mut [0; 100])
            });
            ensure!(sent.is_err(), "{media} answers");
        }
        Ok(())
    })
}

/// `call`, with its offer answered by one router and all of its media by another.
#[test]
fn the_first_packet_comes_to_another_relay() -> Result<()> {
    at_a_site(|site| {
        for (offered, relayed) in [(0, 1), (2, 0), (1, 1)] {
            site.edge.serve(Traffic::Signalling, &[offered])?;
            site.edge.serve(Traffic::Media, &[relayed])?;
            let placed = site.router(offered)?.sum("streamfleet_placements_total").unwrap_or_default();
            let before = site.router(relayed)?.sum("streamfleet_relay_packets_total").unwrap_or_default();
            let mut command = Command::new(streamfleet()?);
            command.args(["call", &site.url("echo"), "--seconds", "3", "--json"]);
            let output = site.client.run(|| command.output())?;
            let text = String::from_utf8(output.stdout)?;
            ensure!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
            check_text(site, &text)?;
            let report: Value = serde_json::from_str(&text)?;
            let placed = site.router(offered)?.sum("streamfleet_placements_total").unwrap_or_default() - placed;
            let passed = site.router(relayed)?.sum("streamfleet_relay_packets_total").unwrap_or_default() - before;
            println!(
                "offered at {offered}, relayed at {relayed}: {}, {passed} packets passed, {} ms to connect, {} ms round trip",
                report["verdict"], report["setup_ms"]["connected"], report["round_trip_ms"]
            );
            ensure!(passed > 200.0 && placed == 1.0, "{passed} packets, {placed} sessions placed");
        }
        Ok(())
    })
}

/// Many calls spread over all relays by the hash of their flows.
#[test]
fn all_relays_carry_a_part() -> Result<()> {
    const CALLS: usize = 60;
    at_a_site(|site| {
        let load = Load::start(&site.client, &site.url("echo"), CALLS, 30, Duration::from_secs(5))?;
        load.await_all(site)?;
        let mut flows = Vec::new();
        for number in site.running() {
            flows.push(site.router(number)?.sum_where("streamfleet_relay_flows", "own").unwrap_or_default());
        }
        let outcome = load.finish()?;
        println!("flows at the relays {flows:?}; {}", outcome.text());
        outcome.none_ended()?;
        ensure!(flows.iter().sum::<f64>() == CALLS as f64, "each call is at one relay: {flows:?}");
        // Of 60 calls a third each; fewer than 5 at one has a chance of one in a hundred million.
        ensure!(flows.iter().all(|flows| *flows >= 5.0), "{flows:?}");
        ensure!(outcome.share() > 0.99, "{}", outcome.text());
        let dropped = at_routers(site, "streamfleet_relay_dropped_total", "")?;
        println!("{dropped} packets dropped by all relays");
        Ok(())
    })
}
