//! A client that is an ICE-lite agent: it makes no checks, so the worker's are what connects it, and what keeps it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::BytesMut;
use rtc::interceptor::Registry;
use rtc::peer_connection::RTCPeerConnectionBuilder;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use serde_json::Value;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{Registered, Transport};
use streamfleet_rtp::rtcp::WallClock;
use streamfleet_session::Identity;
use streamfleet_session::lifecycle::LifeLimits;

use super::*;
use crate::media::counters::Counters;
use crate::media::outlet::Outlet;
use crate::media::session::{Endpoint, NewSession};
use crate::media::shard::{Command, Shard};
use crate::media::shared::{Shared, Stage};

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 5000);
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 6000);

/// One direction of the way between the two.
const DELAY: Duration = Duration::from_millis(5);

/// Type and length of ICE-CONTROLLED (RFC 8445 16.1): in a check of the worker's it would contest the client's role.
const CONTROLLED: [u8; 4] = [0x80, 0x29, 0, 8];

/// An untouched `rtc` connection, lite, with one audio m-line.
fn client(now: Instant) -> (RTCPeerConnection, String) {
    let mut engine = rtc::peer_connection::configuration::media_engine::MediaEngine::default();
    engine.register_default_codecs().unwrap();
    let settings = SettingEngineBuilder::new()
        .with_lite(true)
        .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
        .build();
    let mut pc = RTCPeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(Registry::new())
        .build(now)
        .unwrap();
    let kind = rtc::rtp_transceiver::rtp_sender::RtpCodecKind::Audio;
    pc.add_transceiver_from_kind(kind, None).unwrap();
    let candidate = candidates::host_candidate(0, CLIENT);
    pc.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() }).unwrap();
    let offer = pc.create_offer(None).unwrap();
    pc.set_local_description(now, offer).unwrap();
    let sdp = pc.local_description().unwrap().sdp;
    (pc, sdp)
}

#[test]
fn a_lite_client_connects_and_stays() {
    let mut now = Instant::now();
    let began = now;
    let factory = PeerFactory::new().unwrap();
    let (mut pc, offer) = client(now);
    assert!(offer.contains("a=ice-lite\r\n"), "{offer}");
    let request = AnswerRequest {
        offer: &offer,
        credentials: IceCredentials { ufrag: "serverufrag".into(), pwd: "0123456789abcdefghijklmn".into() },
        advertised: &[SERVER],
        wants: Wants { audio: true, video: false },
        early: &[],
    };
    let answered = answer(&factory, request, now).unwrap();
    assert!(!answered.sdp.contains("ice-lite"), "the worker is none");
    pc.set_remote_description(now, RTCSessionDescription::answer(answered.sdp.clone()).unwrap()).unwrap();

    let mut shard =
        Shard::new(Arc::new(Counters::default()), WallClock::new(now, UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
    let mut out = Outlet::new();
    let (id, service) = ("a".parse().unwrap(), "echo".parse().unwrap());
    let shared = Arc::new(Shared::new(1, id, service, Transport::WebRtc, &Identity::default()));
    let Registered::Packets(echo) = streamfleet_handler::Registry::builtin().get("echo", Value::Null).unwrap() else {
        panic!("echo runs on the loop");
    };
    let limits =
        LifeLimits { connect_timeout: Duration::from_secs(30), time_limit: None, end_grace: Duration::from_secs(1) };
    let new = NewSession {
        answered,
        endpoint: Endpoint::Packets(echo),
        limits,
        bounds: DelayBounds::default(),
        shared: shared.clone(),
        provider: factory.provider().clone(),
        relay: None,
        guard: Box::new(()),
    };
    shard.handle_command(Command::Open(Box::new(new)), now, &mut out);

    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let mut active_after = None;
    while now < began + Duration::from_secs(60) {
        shard.settle(now, &mut out);
        to_client.extend(out.iter().map(|(to, data)| {
            assert_eq!(to, CLIENT, "nobody else is here");
            let is_check = data.starts_with(&[0, 1]);
            assert!(!is_check || !data.windows(4).any(|w| w == CONTROLLED), "a lite client never controls");
            (now + DELAY, data.to_vec())
        }));
        out.clear();
        while let Some(sent) = pc.poll_write() {
            to_server.push((now + DELAY, sent.message.to_vec()));
        }
        if shared.stage() == Stage::Active && active_after.is_none() {
            active_after = Some(now - began);
        }
        now += Duration::from_millis(1);
        for (_, data) in to_client.extract_if(.., |(at, _)| *at <= now) {
            let transport = TransportContext {
                local_addr: CLIENT,
                peer_addr: SERVER,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            };
            drop(pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(&data[..]) }));
        }
        for (_, mut data) in to_server.extract_if(.., |(at, _)| *at <= now) {
            shard.handle_datagram(CLIENT, &mut data, now, &mut out);
        }
        if pc.poll_timeout().is_some_and(|at| at <= now) {
            pc.handle_timeout(now).unwrap();
        }
        while pc.poll_event().is_some() || pc.poll_read().is_some() {}
    }
    assert!(active_after.is_some_and(|after| after < Duration::from_secs(2)), "{active_after:?}");
    assert_eq!(shared.stage(), Stage::Active, "it answers the worker's checks");
    assert_eq!(shared.remote(), Some(CLIENT));
}
