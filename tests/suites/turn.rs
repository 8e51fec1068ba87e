//! TURN servers: credentials of ours at a real coturn, and calls through it by a browser, aiortc and `streamfleet call`.

#![expect(clippy::print_stdout, reason = "helpers of tests print their figures for the log")]

use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Coturn, Fleet, Media, Script, Server, Shape, Wire, Wires, credential, http, streamfleet};

/// Starting a browser and a call takes 2 s on an idle core, and longer on a busy one.
const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "what-only-the-two-servers-know";

/// A server whose clients are told of this TURN server.
fn server(coturn: &Coturn, wires: &[Wire], secret: &str) -> Result<Server> {
    let urls: Vec<String> = wires.iter().map(|wire| coturn.url(*wire)).collect();
    Server::start(&[("STREAMFLEET_ICE_TURN_URLS", &urls.join(",")), ("STREAMFLEET_ICE_TURN_SECRET", secret)])
}

/// The one entry with credentials of what clients of a service are told.
fn told(url: &str, headers: &[(&str, &str)]) -> Result<Value> {
    let answer = http::request("GET", &format!("{url}/rtc_configuration"), headers, b"")?;
    ensure!(answer.status == 200, "{answer:?}");
    let servers = answer.json()?["iceServers"].clone();
    ensure!(servers.as_array().is_some_and(|servers| servers.len() == 1), "{servers}");
    Ok(servers[0].clone())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key}: {value}"))
}

fn unix() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

#[test]
fn coturn_takes_what_we_make_and_nothing_else() -> Result<()> {
    let coturn = Coturn::start(SECRET)?;
    let server = server(&coturn, &[Wire::Udp, Wire::Tls], SECRET)?;
    let told = told(&format!("{}/echo", server.url()), &[])?;
    assert_eq!(told["urls"], json!([coturn.url(Wire::Udp), coturn.url(Wire::Tls)]));
    let (username, word) = (text(&told, "username")?, text(&told, "credential")?);
    let expiry: u64 = username.split(':').next().context("no time")?.parse()?;
    let ttl = expiry.saturating_sub(unix()?);
    assert!((86_300..=86_400).contains(&ttl), "{ttl} s");
    assert_eq!(credential(SECRET, username)?, word, "as a TURN server makes it");

    let past = format!("{}:mia", unix()? - 1);
    let longer = format!("{}:{}", expiry + 1, username.split(':').nth(1).unwrap_or_default());
    // What users may be called, as we escape it: coturn has opinions about names.
    let odd = format!("{expiry}:Zo%C3%AB%20O%27Hara%3A1");
    let digest = format!("{expiry}:%~DD85CFD48E12CD16165970874E009A8B");
    let cases = [
        ("ours", username, word.to_owned(), Wire::Udp, true),
        ("ours by TLS", username, word.to_owned(), Wire::Tls, true),
        ("another password", username, credential("another-secret-than-theirs", username)?, Wire::Udp, false),
        ("a later time with the same password", &longer, word.to_owned(), Wire::Udp, false),
        ("a time that is over", &past, credential(SECRET, &past)?, Wire::Udp, false),
        ("an escaped name", &odd, credential(SECRET, &odd)?, Wire::Udp, true),
        ("a digest for a name", &digest, credential(SECRET, &digest)?, Wire::Udp, true),
    ];
    // Each takes seconds, of which it waits most.
    std::thread::scope(|scope| {
        let tries = cases.map(|(what, username, word, wire, expected)| {
            let coturn = &coturn;
            (what, expected, scope.spawn(move || coturn.takes(username, &word, wire)))
        });
        for (what, expected, found) in tries {
            let found = found.join().map_err(|_| anyhow::anyhow!("{what}: panicked"))?;
            ensure!(found.with_context(|| what)? == expected, "{what}:\n{}", coturn.log());
        }
        Ok(())
    })?;
    // Refused for that reason and no other.
    let is_refused = |line: &str| line.contains(&past) && line.contains("error 401");
    coturn.await_line("the refusal", is_refused)?;
    Ok(())
}

/// A call of a browser that has no other way than the TURN server. Returns how it talks to that.
fn browser_calls(how: &[Wire]) -> Result<String> {
    let coturn = Coturn::start(SECRET)?;
    let server = server(&coturn, how, SECRET)?;
    let options = json!({
        "url": format!("{}/echo", server.url()), "id": "relayed", "shape": "complete", "tones": [440, 1000],
        "relay_only": true, "trusted_key": coturn.key_digest()?,
    });
    let mut script = Script::browser("call", &options)?;
    let connected = script.expect("connected", LIMIT).with_context(|| coturn.log())?;
    for hz in [440.0, 1000.0] {
        let tone = script.expect("tone", LIMIT)?;
        let peak = tone["received"]["peak_hz"].as_f64().unwrap_or(f64::NAN);
        ensure!((peak - hz).abs() < 8.0, "{tone}");
    }
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)?;
    let way = &connected["way"];
    ensure!(way["candidate"] == "relay", "{connected}");
    println!("{how:?}: connected at {} ms, {way}", connected["connected_ms"]);
    coturn.await_line("an allocation", |line| line.contains("ALLOCATE processed, success"))?;
    Ok(text(way, "protocol")?.to_owned())
}

#[test]
fn a_browser_calls_by_turn() -> Result<()> {
    assert_eq!(browser_calls(&[Wire::Udp])?, "udp");
    Ok(())
}

#[test]
fn a_browser_calls_by_turns() -> Result<()> {
    assert_eq!(browser_calls(&[Wire::Tls])?, "tls");
    Ok(())
}

#[test]
fn aiortc_calls_by_turn() -> Result<()> {
    let coturn = Coturn::start(SECRET)?;
    let server = server(&coturn, &[Wire::Udp], SECRET)?;
    let options =
        json!({ "url": format!("{}/echo", server.url()), "id": "relayed", "seconds": 1.5, "relay_only": true });
    let mut script = Script::python("call", &options)?;
    script.expect("connected", LIMIT).with_context(|| coturn.log())?;
    let heard = script.expect("heard", LIMIT)?;
    ensure!((heard["peak_hz"].as_f64().unwrap_or(f64::NAN) - 440.0).abs() < 3.0, "{heard}");
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)?;
    coturn.await_line("an allocation", |line| line.contains("ALLOCATE processed, success"))?;
    Ok(())
}

/// `streamfleet call` by a TURN server alone.
fn call(url: &str, more: &[&str]) -> Result<(Output, Value)> {
    let mut command = Command::new(streamfleet()?);
    command.args(["call", url, "--relay", "--json", "--seconds", "3"]).args(more);
    let output = command.output()?;
    let report = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok((output, report))
}

#[test]
fn a_program_calls_by_turn() -> Result<()> {
    let coturn = Coturn::start(SECRET)?;
    let server = server(&coturn, &[Wire::Udp, Wire::Tls], SECRET)?;
    let url = format!("{}/echo", server.url());
    let (output, report) = call(&url, &[])?;
    ensure!(output.status.code() == Some(0), "{report}\n{}", coturn.log());
    coturn.await_line("an allocation", |line| line.contains("ALLOCATE processed, success"))?;
    // Without a server that takes it on there is no call, and it is said why.
    let (output, report) = call(&url, &["--ice-server", &format!("{},1:x,nonsense", coturn.url(Wire::Udp))])?;
    let error = text(&report, "error")?;
    ensure!(output.status.code() == Some(1) && error.contains("no TURN server has taken the call on"), "{report}");
    let without = Server::start(&[])?;
    let (output, report) = call(&format!("{}/echo", without.url()), &[])?;
    let error = text(&report, "error")?;
    ensure!(output.status.code() == Some(1) && error.contains("no TURN server over UDP is known"), "{report}");
    Ok(())
}

/// Routers make the credentials, with a secret that no worker has; media goes on from the TURN server to the routers' relay. Who must prove
/// who he is must do so for these too, and they are made out to him.
#[test]
fn a_fleet_has_its_own_turn_servers() -> Result<()> {
    let coturn = Coturn::start(SECRET)?;
    let turn = json!({ "urls": [coturn.url(Wire::Udp)], "secret": { "file": coturn.secret_file()? } });
    let key = "a secret of thirty-two bytes or more";
    let path = std::path::PathBuf::from(coturn.secret_file()?).with_extension("jwt");
    std::fs::write(&path, key)?;
    let service = |name: &str, more: Value| {
        let mut service = json!({ "name": name, "path": format!("/{name}"), "handler": { "name": "echo" },
                                  "media": { "turn": turn } });
        service["identity"] = more;
        service
    };
    let fleet = Fleet::start(Shape {
        routers: 1,
        workers: 1,
        services: json!([
            service("open", json!({})),
            service("known", json!({ "required": true, "jwt": { "secret": { "file": path } } })),
        ]),
        grace: Duration::from_secs(5),
        wires: Wires::Direct,
        media: Media::Relayed,
    })?;
    let url = |name: &str| format!("{}/{name}", fleet.routers[0].server.url());
    let (output, report) = call(&url("open"), &[])?;
    ensure!(output.status.code() == Some(0), "{report}\n{}\n{}", fleet.printed(), coturn.log());

    let stranger = http::request("GET", &format!("{}/rtc_configuration", url("known")), &[], b"")?;
    ensure!(stranger.status == 401, "{stranger:?}");
    let bearer = format!("Bearer {}", token(key)?);
    let told = told(&url("known"), &[("authorization", &bearer)])?;
    ensure!(text(&told, "username")?.ends_with(":tess%20o"), "{told}");
    let (output, report) = call(&url("known"), &["--header", &format!("authorization: {bearer}")])?;
    ensure!(output.status.code() == Some(0), "{report}\n{}\n{}", fleet.printed(), coturn.log());
    coturn.await_line("her allocation", |line| {
        line.contains(":tess%20o") && line.contains("ALLOCATE processed, success")
    })?;
    let (output, report) = call(&url("known"), &[])?;
    ensure!(output.status.code() == Some(1), "{report}");
    Ok(())
}

/// A token for the user `tess o` (RFC 7515, 7.1).
fn token(key: &str) -> Result<String> {
    let script = "b() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }; \
                  m=$(printf %s '{\"alg\":\"HS256\",\"typ\":\"JWT\"}' | b).$(printf %s '{\"sub\":\"tess o\",\"exp\":4000000000}' | b); \
                  printf %s \"$m.$(printf %s \"$m\" | openssl dgst -sha256 -hmac \"$0\" -binary | b)\"";
    let output = Command::new("bash").args(["-o", "pipefail", "-c", script, key]).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}
