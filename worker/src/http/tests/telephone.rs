//! What a telephone company is told to do with a call.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use streamfleet_socket::hello::Proof;
use streamfleet_socket::protocol::CallStart;
use streamfleet_socket::telephone::{CallNonce, Visit};

use super::super::telephone::Switchboard;
use super::*;

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#;
const CALL: &str = "CallSid=CA1&From=%2B15555550100&To=%2B15555550199";

fn asking<'a>(path: &str, headers: impl IntoIterator<Item = (&'a str, &'a [u8])>, form: &str) -> Request<Body> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Body::from(form.to_owned())).unwrap()
}

/// The `X-Twilio-Signature` of a request to `url`, by Twilio's documentation.
fn signature(url: &str, form: &str) -> String {
    let mut fields: Vec<(String, String)> = form_urlencoded(form);
    fields.sort();
    let text: String = fields.into_iter().flat_map(|(name, value)| [name, value]).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"12345");
    STANDARD.encode(hmac::sign(&key, format!("{url}{text}").as_bytes()))
}

fn form_urlencoded(form: &str) -> Vec<(String, String)> {
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.replace("%2B", "+"))).collect()
}

fn stream_of(twiml: &str) -> &str {
    twiml.split_once(r#"<Stream url=""#).and_then(|(_, rest)| rest.split_once('"')).expect("a stream").0
}

#[tokio::test]
async fn without_a_call_it_is_fastrtcs_twiml() {
    let world = World::new();
    let reply = world.send(asking("/telephone/incoming", [("host", &b"localhost:8081"[..])], "")).await;
    reply.is(
        200,
        &format!(
            "{HEAD}<Say>Connecting to the AI assistant.</Say><Connect><Stream \
             url=\"wss://localhost:8081/telephone/handler\" /></Connect><Say>The call has been disconnected.</Say></Response>"
        ),
    );
    assert_eq!(reply.header("content-type"), Some("application/xml"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    world.counted(r#"streamfleet_incoming_calls_total{outcome="connected"} 1"#);
}

#[tokio::test]
async fn a_call_takes_along_who_calls_and_a_token() {
    let world = World::new();
    let tricky = "CallSid=CA1&From=%22%3E%3CHangup%2F%3E&To=%2B1&Digits=1&CallSid=CA2";
    let reply = world.send(asking("/alias/telephone/incoming", [("host", &b"voice.example"[..])], tricky)).await;
    let xml = &reply.body;
    assert_eq!(stream_of(xml), "wss://voice.example/alias/telephone/handler", "the name that it was called by");
    assert!(xml.contains(r#"<Connect action="incoming?return="#), "{xml}");
    assert!(xml.contains(r#"<Parameter name="From" value="&quot;&gt;&lt;Hangup/&gt;" />"#), "{xml}");
    assert!(xml.contains(r#"<Parameter name="CallSid" value="CA1" />"#), "{xml}");
    assert!(!xml.contains("Digits") && !xml.contains("CA2"), "{xml}");
    assert_eq!(xml.matches("streamfleet_token").count(), 1);
    // Longer than Twilio takes: left out, rather than no call.
    let long = format!("CallSid=CA1&From={}&To=%2B1", "9".repeat(497));
    let reply = world.send(asking("/telephone/incoming", [("host", &b"voice.example"[..])], &long)).await;
    assert!(reply.status == 200 && !reply.body.contains("From") && reply.body.contains("To"), "{}", reply.body);
}

#[tokio::test]
async fn the_stream_is_where_the_world_reaches_us() {
    let world = World::new();
    let check = async |path: &str, headers: &[(&str, &[u8])], expected: Option<&str>| {
        let reply = world.send(asking(&format!("{path}/telephone/incoming"), headers.to_vec(), CALL)).await;
        match expected {
            Some(url) => assert_eq!((reply.status, stream_of(&reply.body)), (200, url), "{headers:?}"),
            None => reply.is(400, &failed("invalid_host")),
        }
    };
    let host: (&str, &[u8]) = ("host", b"10.0.0.7:8081");
    let forwarded: (&str, &[u8]) = ("x-forwarded-host", b"voice.example");
    check("", &[host], Some("wss://10.0.0.7:8081/telephone/handler")).await;
    check("", &[host, forwarded], Some("wss://10.0.0.7:8081/telephone/handler")).await;
    check("/behind", &[host], Some("wss://10.0.0.7:8081/behind/telephone/handler")).await;
    check("/behind", &[host, forwarded], Some("wss://voice.example/behind/telephone/handler")).await;
    let proto: (&str, &[u8]) = ("x-forwarded-proto", b"https, http");
    let port: (&str, &[u8]) = ("x-forwarded-port", b"8443");
    check("/behind", &[host, forwarded, proto, port], Some("wss://voice.example:8443/behind/telephone/handler")).await;
    let first: (&str, &[u8]) = ("x-forwarded-host", b"a.example, b.example");
    check("/behind", &[host, first], Some("wss://a.example/behind/telephone/handler")).await;
    // Nobody can say which name was meant, or what was sent is none.
    check("", &[], None).await;
    check("", &[host, ("host", b"voice.example")], None).await;
    for hostile in [&b""[..], b"a b", b"a/b", b"a@b", b"\"><Hangup/>", b"\xff", b"a:99999", b"::1", b"user@a"] {
        check("", &[("host", hostile)], None).await;
        check("/behind", &[host, ("x-forwarded-host", hostile)], None).await;
    }
    check("/behind", &[host, ("x-forwarded-proto", b"gopher")], None).await;
    check("/behind", &[host, forwarded, ("x-forwarded-port", b"0")], None).await;
    check("/behind", &[host, ("x-forwarded-port", b"\xff")], None).await;
    world.counted(r#"streamfleet_incoming_calls_total{outcome="invalid_host"} 23"#);
}

#[tokio::test]
async fn signatures() {
    let world = World::new();
    const PATH: &str = "/signed/telephone/incoming";
    let check = async |path: &str, headers: &[(&str, &str)], form: &str, expected: u16| {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let reply = world.send(asking(path, headers, form)).await;
        assert_eq!(reply.status, expected, "{path}: {}", reply.body);
        if expected == 403 {
            reply.is(403, &failed("forbidden"));
        }
    };
    let sign = |url: &str| signature(url, CALL);
    let host = ("host", "voice.example");
    let named = ("x-twilio-signature", sign("https://voice.example/signed/telephone/incoming"));
    let good: (&str, &str) = (named.0, &named.1);
    check(PATH, &[host, good], CALL, 200).await;
    // Nobody says whether TLS was there, and which port was meant.
    for url in ["http://voice.example", "https://voice.example:443", "http://voice.example:80"] {
        let other = sign(&format!("{url}{PATH}"));
        check(PATH, &[host, ("x-twilio-signature", &other)], CALL, 200).await;
    }
    check(PATH, &[host], CALL, 403).await;
    check(PATH, &[host, ("x-twilio-signature", "")], CALL, 403).await;
    check(PATH, &[host, good], &format!("{CALL}9"), 403).await;
    check(PATH, &[host, good], "", 403).await;
    check(&format!("{PATH}?x=1"), &[host, good], CALL, 403).await;
    check(PATH, &[("host", "other.example"), good], CALL, 403).await;
    check("/signed-behind/telephone/incoming", &[host, good], CALL, 403).await;
    // What a proxy says counts where it is believed, and nowhere else.
    let outside = sign("https://voice.example:8443/signed-behind/telephone/incoming");
    let told = [
        ("host", "10.0.0.7"),
        ("x-forwarded-host", "voice.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "8443"),
        ("x-twilio-signature", &outside),
    ];
    check("/signed-behind/telephone/incoming", &told, CALL, 200).await;
    let outside = sign("https://voice.example:8443/signed/telephone/incoming");
    let told = told.map(|(name, value)| (name, if name == "x-twilio-signature" { &*outside } else { value }));
    check(PATH, &told, CALL, 403).await;
    world.counted(r#"streamfleet_incoming_calls_total{outcome="forbidden"} 8"#);

    let reply = world.send(asking(PATH, [("host", &b"voice.example"[..]), (good.0, good.1.as_bytes())], CALL)).await;
    assert!(reply.body.starts_with(&format!("{HEAD}<Say>Hello &amp; &lt;welcome&gt;</Say><Connect action=")));
    assert!(reply.body.ends_with("</Connect></Response>"), "nothing is said after it: {}", reply.body);
}

#[tokio::test]
async fn bodies_and_methods() {
    let world = World::new();
    let host = [("host", &b"voice.example"[..])];
    let reply = world.send(asking("/telephone/incoming", host, &"x".repeat(257 << 10))).await;
    reply.is(413, &failed("payload_too_large"));
    let reply = world.send(asking("/telephone/incoming", host, "%ff%fe&&&=&CallSid=%00&From")).await;
    assert!(reply.status == 200 && !reply.body.contains("action"), "{}", reply.body);
    let reply = world.send(Request::get("/telephone/incoming").body(Body::empty()).unwrap()).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    let reply = world.send(Request::get("/telephone/handler").body(Body::empty()).unwrap()).await;
    reply.is(426, &failed("upgrade_required"));
}

#[tokio::test]
async fn a_draining_worker_takes_no_new_call_and_has_its_own_back() {
    let world = World::new();
    let host = || [("host", &b"voice.example"[..])];
    let reply = world.send(asking("/telephone/incoming", host(), CALL)).await;
    let (_, rest) = reply.body.split_once("<Connect action=\"").unwrap();
    let back = format!("/telephone/{}", rest.split_once('"').unwrap().0);
    world.occupancy.drain();
    let reply = world.send(asking("/telephone/incoming", host(), CALL)).await;
    reply.is(503, &failed("draining"));
    let reply = world.send(asking(&back, host(), CALL)).await;
    assert!(reply.body.ends_with("<Hangup /></Response>"), "{}", reply.body);
    let token = ResumeToken::from_random([7; ResumeToken::LEN]);
    let session = CallResume { session: "MZ1".parse().unwrap(), token };
    *world.host.call.lock() = Some((CallSid::parse("CA1").unwrap(), session));
    let reply = world.send(asking(&back, host(), CALL)).await;
    assert!(reply.body.contains(r#"<Parameter name="streamfleet_session" value="MZ1" />"#), "{}", reply.body);
    let other = back.replace("return=", "return=0");
    world.send(asking(&other, host(), CALL)).await.is(403, &failed("forbidden"));
    world.send(asking(&back, host(), "CallSid=CA2")).await.is(403, &failed("forbidden"));
    world.send(asking(&back, host(), "")).await.is(403, &failed("forbidden"));
}

/// A stream as it comes from the company, which has a few addresses for all calls.
#[test]
fn a_stream_is_counted_unless_a_signed_request_has_led_it_here() {
    let sid = CallSid::parse("CA1").unwrap();
    let check = |callers: &Callers, token: bool, limited: Result<bool, Failure>, then_free: Result<bool, Failure>| {
        let board = Switchboard::new("echo", callers, [7; 32]);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let token = token.then(|| board.key.issue("CA1", CallNonce::from_random([1; 16]), Visit::First, now));
        let start = CallStart {
            stream_sid: "MZ1".parse().unwrap(),
            call_sid: Some(sid.clone()),
            token,
            resume: None,
            parameters: serde_json::Map::new(),
        };
        let too_many = || Err(Failure::RateLimited { retry_after: Duration::from_secs(1) });
        let ours = |proof: Proof| matches!(proof, Proof::Ours(..));
        assert_eq!(board.admit(&start, too_many).map(ours), limited, "{callers:?}");
        assert_eq!(board.admit(&start, || Ok(())).map(ours), then_free, "{callers:?}");
    };
    let signed = Callers::Signed("12345".into());
    let too_many = Err(Failure::RateLimited { retry_after: Duration::from_secs(1) });
    check(&signed, true, Ok(true), Err(Failure::Forbidden));
    check(&signed, false, too_many.clone(), Err(Failure::Forbidden));
    // Anybody gets a token here. The one that was refused for its rate alone has its own still.
    check(&Callers::Anybody, true, too_many.clone(), Ok(true));
    check(&Callers::Anybody, false, too_many, Ok(false));
}
