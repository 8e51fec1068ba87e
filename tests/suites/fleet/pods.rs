//! Who sends to a worker's media port without being a relay: other pods, where the network lets them.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use streamfleet_net::stun::{BindingRequest, Class, Message, Nomination, Role, TransactionId};
use streamfleet_relay::{Direction, FlowId, Header, SessionHandle, Standing};
use streamfleet_session::ufrag::SessionKey;
use streamfleet_tests::{Media, Shape};

use crate::{PATIENCE, World, blocking, in_a_fleet, offer, service, shape, until};

/// What the answer calls a line, by its prefix.
fn said<'a>(sdp: &'a str, line: &str) -> Result<&'a str> {
    sdp.lines().find_map(|text| text.strip_prefix(line)).with_context(|| format!("no {line}"))
}

/// A check of whoever has a session's name and password: its own client, or somebody who has got hold of its answer.
fn check(sdp: &str) -> Result<Vec<u8>> {
    let request = BindingRequest {
        transaction: TransactionId([7; 12]),
        remote_ufrag: said(sdp, "a=ice-ufrag:")?,
        local_ufrag: "u00001",
        priority: 1,
        role: Role::Controlling(1),
        nomination: Nomination::None,
    };
    let mut datagram = Vec::new();
    request.write(said(sdp, "a=ice-pwd:")?.as_bytes(), &mut datagram)?;
    Ok(datagram)
}

/// The pod shows a check that the worker answers when it comes by a relay, and it knows how headers are written. The session's key, which
/// seals them, no pod has but the session's worker.
#[test]
fn a_pod_reaches_no_session_past_the_relay() -> Result<()> {
    let shape = Shape { media: Media::Relayed, workers: 1, ..shape(vec![service("tone", "plain-tone")]) };
    in_a_fleet(shape, async |world: &mut World| {
        let (status, answer) = world.ask(0, "POST", "/tone/webrtc/offer", &offer("looked-at", 1))?;
        ensure!(status == 200, "{status} {answer}");
        let check = check(answer["sdp"].as_str().context("no answer")?)?;
        let workers = world.workers(&"tone".parse()?).await?;
        let loops = workers.first().and_then(|worker| worker.said.as_ref()).map(|said| said.media.clone());
        let media: SocketAddr = loops.unwrap_or_default().first().context("no media loop")?.parse()?;
        let public = world.fleet.balancer.as_ref().context("none")?.address()?;

        let (client, pod) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        let mut room = [0; 2_048];
        client.set_read_timeout(Some(PATIENCE))?;
        client.send_to(&check, public)?;
        let (length, _) = blocking(|| client.recv_from(&mut room)).context("by the relay it is answered")?;
        ensure!(Message::parse(&room[..length])?.class() == Class::Success, "{:?}", &room[..length]);

        let own: SocketAddr = pod.local_addr()?;
        let header = |direction, session| Header {
            direction,
            standing: Standing::Unknown,
            return_port: own.port(),
            client: own,
            door: public.port(),
            flow: FlowId(0),
            session: SessionHandle(session),
        };
        let forged = |direction, session, key: u8, datagram: &[u8]| {
            [&header(direction, session).seal(&SessionKey::from_bytes([key; 16]))[..], datagram].concat()
        };
        let media_packet = [128; 200];
        // The name of a session, or its number, which is easy to guess.
        let not_relayed = [
            forged(Direction::ToWorker, 0, 0, &check),
            forged(Direction::ToWorker, 1, 1, &check),
            forged(Direction::ToWorker, 1, 1, &media_packet),
            forged(Direction::ToWorker, u32::MAX, 1, &media_packet),
            forged(Direction::ToClient, 1, 1, &check),
        ];
        pod.send_to(&check, media)?;
        for datagram in &not_relayed {
            pod.send_to(datagram, media)?;
        }
        let counted = async || {
            let metrics = blocking(|| world.fleet.workers[0].server.metrics())?;
            let of = |why: &str| metrics.sum_where("streamfleet_media_dropped_total", &format!("reason=\"{why}\""));
            let found = (of("unknown_peer"), of("not_relayed"));
            Ok((found == (Some(1.0), Some(not_relayed.len() as f64))).then_some(()))
        };
        until("they are dropped", PATIENCE, counted).await?;
        pod.set_read_timeout(Some(Duration::from_millis(200)))?;
        let answered = blocking(|| pod.recv_from(&mut room));
        ensure!(answered.is_err(), "the worker has sent something past the relay: {answered:?}");
        world.end(0, "tone", "looked-at")?;
        world.await_no_places().await
    })
}
