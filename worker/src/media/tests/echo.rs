//! The encoded path under good and bad networks.

use std::collections::HashSet;
use std::time::Duration;

use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use streamfleet_handler::Registry;
use streamfleet_session::lifecycle::CloseReason;

use super::network::Conditions;
use super::world::World;
use crate::media::session::Endpoint;
use crate::media::shared::Stage;

pub(super) fn echo() -> Endpoint {
    match Registry::builtin().get("echo", serde_json::Value::Null).unwrap() {
        streamfleet_handler::Registered::Packets(handler) => Endpoint::Packets(handler),
        streamfleet_handler::Registered::Handler(_) => panic!("echo runs on the loop"),
    }
}

/// The test to look at when the version of `rtc` is raised: keys are learnt, RTP passes the core in both directions,
/// RTCP goes through it.
#[test]
fn an_rtc_client_is_echoed_under_both_profiles() {
    for profile in [SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80] {
        let mut world = World::with_profile(1, Conditions::CLEAN, profile);
        let (c, shared) = world.call(echo(), World::limits());
        world.run(Duration::from_secs(30));
        let client = &world.clients[c];
        let connected = client.connected_at.expect("connected") - world.started;
        assert!(connected < Duration::from_millis(400), "{connected:?}");
        // Over the rollover of the 16-bit sequence number, every packet, in order, after one round trip.
        let sent = client.sent_at.len();
        assert!(sent > 1_400, "{sent}");
        assert!(client.echoes.len() >= sent - 4, "{} of {sent}", client.echoes.len());
        assert!(client.echoes.windows(2).all(|w| w[1].number == w[0].number + 1));
        for echo in &client.echoes {
            let delay = echo.at - client.sent_at[echo.number as usize];
            assert!(delay <= Duration::from_millis(21), "{delay:?}");
        }
        let quality = shared.quality();
        let rtt = quality.rtt_ms.expect("the client's reports reach us");
        assert!((15.0..40.0).contains(&rtt), "{rtt}");
        assert_eq!(quality.tracks[0].packets_lost, 0);
    }
}

/// The server's flight with its certificate, and the client's: each is one datagram. A client that is the core's says its own again
/// only if it has not got the server's with new numbers meanwhile.
#[test]
fn a_handshakes_lost_flight_is_said_again() {
    const SERVER_HELLO: u8 = 2;
    const CERTIFICATE: u8 = 11;
    for (first, times) in [SERVER_HELLO, CERTIFICATE].into_iter().flat_map(|first| (1..=3).map(move |n| (first, n))) {
        let mut world = World::new(1, Conditions::CLEAN);
        let (c, shared) = world.call(echo(), World::limits());
        let mut lost = 0;
        while lost < times {
            world.run(Duration::from_millis(1));
            lost += world.network.lose(|data| data[0] == 22 && data[13] == first);
            assert!(world.now < world.started + Duration::from_secs(20), "it was said {lost} times");
        }
        world.run(Duration::from_secs(5));
        assert_eq!(shared.stage(), Stage::Active, "{first} lost {times} times");
        assert!(!world.clients[c].echoes.is_empty());
    }
}

/// Anybody may say so before there are keys: it is the end of the session, and no fault of the worker's.
#[test]
fn a_handshake_that_is_closed_is_no_fault() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    while !world.overheard.iter().any(|(_, data)| data[0] == 22) {
        world.run(Duration::from_millis(1));
    }
    let at = world.clients[c].outside;
    world.clients[c].alive = false;
    world.run(Duration::from_millis(50));
    world.inject(at, &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 77, 0, 2, 1, 0]);
    world.run(Duration::from_secs(1));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::ClientClosed));
}

/// Also while they connect.
#[test]
fn a_bad_network_loses_only_what_it_lost() {
    let mut connected = 0;
    for seed in 0..6 {
        let conditions =
            Conditions { loss: 0.05, duplication: 0.05, delay: (Duration::from_millis(5), Duration::from_millis(60)) };
        let mut world = World::new(seed, conditions);
        let (c, shared) = world.call(echo(), World::limits());
        world.run(Duration::from_secs(30));
        let client = &world.clients[c];
        // A session that has a remote address was connected once, on both sides.
        if client.connected_at.is_none() || shared.remote().is_none() {
            continue;
        }
        assert_eq!(shared.stage(), Stage::Active, "seed {seed}");
        connected += 1;
        let distinct: HashSet<u32> = client.echoes.iter().map(|e| e.number).collect();
        assert_eq!(distinct.len(), client.echoes.len(), "seed {seed}: nothing is echoed twice");
        // 5 % on each of two ways.
        let share = distinct.len() as f64 / client.sent_at.len() as f64;
        assert!((0.86..0.94).contains(&share), "seed {seed}: {share}");
    }
    assert_eq!(connected, 6);
}

#[test]
fn many_sessions_share_a_loop() {
    let mut world = World::new(3, Conditions::CLEAN);
    for _ in 0..40 {
        world.call(echo(), World::limits());
    }
    world.run(Duration::from_secs(5));
    for client in &world.clients {
        assert!(client.echoes.len() > 200, "{}", client.echoes.len());
    }
    assert_eq!(world.shard.len(), 40);
}

#[test]
fn messages_get_their_log() {
    let mut world = World::new(4, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    assert!(shared.has_channel());
    let now = world.now;
    world.clients[c].say("hello \"you\"", now);
    world.run(Duration::from_secs(1));
    let expected = r#"{"type":"log","data":"Server received: hello \"you\""}"#;
    assert!(world.clients[c].messages.iter().any(|m| m == expected), "{:?}", world.clients[c].messages);
}

/// The core draws random numbers of its own for ids and keys; what becomes of media depends on none of them.
#[test]
fn runs_repeat() {
    let run = |seed| {
        let conditions =
            Conditions { loss: 0.1, duplication: 0.05, delay: (Duration::from_millis(1), Duration::from_millis(30)) };
        let mut world = World::new(seed, Conditions::CLEAN);
        let (c, _) = world.call(echo(), World::limits());
        world.run(Duration::from_secs(2));
        world.network = super::network::Network::new(seed, conditions);
        let (from, before) = (world.now, world.clients[c].echoes.len());
        world.run(Duration::from_secs(5));
        world.clients[c].echoes[before..].iter().map(|e| (e.number, e.at - from)).collect::<Vec<_>>()
    };
    let first = run(7);
    assert!(first.len() > 180, "{}", first.len());
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
}
