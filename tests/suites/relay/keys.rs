//! The relays' key is changed under live calls, in the three steps that docs/security.md gives.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_tests::{Keys, Plan, Site, Traffic, browser_offer};

use crate::load::Load;
use crate::{FIRST_KEY, PLAN, SECOND_KEY, at_a_site_of};

const CALLS: usize = 24;
/// For a load balancer to see that a router drains.
const SEEN: Duration = Duration::from_millis(300);
/// What a call may notice of a relay that goes in good order, and of one that comes.
const NOTICED_MS: f64 = 200.0;

/// The key's number that a ufrag says (docs/security.md): four bits of its first octet.
fn key_of(site: &Site, id: &str) -> Result<u8> {
    let body = json!({ "type": "offer", "webrtc_id": id, "sdp": browser_offer(1) });
    let answer = site.ask("POST", "/echo/webrtc/offer", &body)?.json()?;
    let sdp = answer["sdp"].as_str().with_context(|| answer.to_string())?;
    let ufrag = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).context("no ufrag")?;
    site.ask("DELETE", &format!("/echo/sessions/{id}"), &json!(null))?;
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    // The octet is the first letter and a third of the second (RFC 4648, 4).
    let [first, second, ..] = ufrag.as_bytes() else { anyhow::bail!("{ufrag}") };
    let octet = value(*first).zip(value(*second)).map(|(first, second)| first << 2 | second >> 4);
    Ok(octet.with_context(|| ufrag.to_owned())? & 15)
}

/// Each router is taken out, ended, started with these keys and put in again.
fn roll(site: &mut Site, keys: Keys<'_>) -> Result<()> {
    for number in 0..2 {
        for traffic in [Traffic::Media, Traffic::Signalling] {
            site.edge.serve(traffic, &[1 - number])?;
        }
        thread::sleep(SEEN);
        site.stop_router(number)?;
        site.start_router(number, keys)?;
        for traffic in [Traffic::Media, Traffic::Signalling] {
            site.edge.serve(traffic, &[0, 1])?;
        }
    }
    Ok(())
}

#[test]
fn a_key_is_changed_under_live_calls() -> Result<()> {
    at_a_site_of(Plan { routers: 2, ..PLAN }, |site| {
        let first = key_of(site, "before")?;
        let old = Load::start(&site.client, &site.url("echo"), CALLS, 24, Duration::from_secs(32))?;
        old.await_all(site)?;
        let steps = [
            Keys { key: FIRST_KEY, previous: Some(SECOND_KEY) },
            Keys { key: SECOND_KEY, previous: Some(FIRST_KEY) },
            Keys { key: SECOND_KEY, previous: None },
        ];
        for (number, keys) in steps.into_iter().enumerate() {
            roll(site, keys)?;
            let minted = key_of(site, &format!("step{number}"))?;
            ensure!((minted == first) == (number == 0), "step {number}: key {minted}, the first was {first}");
            let new = Load::start(&site.client, &site.url("echo"), 6, 12, Duration::from_secs(1))?.finish()?;
            println!("step {number}: ufrags of key {minted}; new calls: {}", new.text());
            new.none_ended()?;
            ensure!(new.share() > 0.99, "{}", new.text());
        }
        let outcome = old.finish()?;
        println!("calls of before, through six restarts: {}", outcome.text());
        outcome.none_ended()?;
        ensure!(outcome.share() > 0.999 && outcome.outages().max <= NOTICED_MS, "{}", outcome.text());
        Ok(())
    })
}
