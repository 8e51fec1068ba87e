//! What docs/security.md says of packets that do not belong: each row on real sockets.
//!
//! One thread, so that everything is taken in the order in which it is sent: when a call that goes on has talked once more, what was
//! sent before it has been judged, and would have been received before it.

use streamfleet_process::telemetry::Metrics;
use streamfleet_relay::announce::{Said, Unheard};
use streamfleet_relay::{Announced, Drop as Why, FlowId};
use streamfleet_session::ufrag::{Minted, Seal};

use super::*;

const ANSWER: &[u8] = b"\x01\x01 an answer to a check";
const MEDIA: &[u8] = &[128; 400];
/// As of relays behind one load balancer.
const RELAY_KEY: [u8; 32] = [9; 32];

/// A relay with the installation's own key, and what it counts.
struct Place {
    door: SocketAddr,
    /// Where other relays tell it of flows.
    ears: SocketAddr,
    seal: Seal,
    metrics: Metrics,
    _running: tokio::task::JoinSet<io::Result<()>>,
}

/// A call under way: its worker has seen that its client is there.
struct Call {
    client: StdSocket,
    worker: StdSocket,
    session: Minted,
    /// What the worker was sent first, and by which address of the relay.
    came: Vec<u8>,
    relay: SocketAddr,
}

fn seal(key: [u8; 32], ranges: &[&str]) -> Seal {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Seal::new(&RelayKey::from_random(key).into(), WorkerNetworks::new(ranges, None).unwrap())
}

async fn place() -> Place {
    let ears = socket().local_addr().unwrap();
    let plan = plan(([127, 0, 0, 1], 0).into(), &[], ears.port());
    let plan = RelayPlan { threads: NonZeroUsize::MIN, ..plan };
    let metrics = Metrics::new("test", "0");
    let opening = Opening::new(Arc::new(seal(RELAY_KEY, &["127.0.0.0/8"])), &metrics.meter("relay"));
    let relay = Relay::bind(plan, &opening, &metrics).await.unwrap();
    let (door, mut running) = (relay.door(), tokio::task::JoinSet::new());
    running.spawn(relay.run());
    Place { door, ears, seal: seal(RELAY_KEY, &["127.0.0.0/8"]), metrics, _running: running }
}

/// Runs a test that waits for packets.
async fn at_a_relay(test: impl FnOnce(&Place) + Send + 'static) {
    let place = place().await;
    tokio::task::spawn_blocking(move || test(&place)).await.unwrap();
}

impl Place {
    fn mint(&self, worker: &StdSocket) -> Minted {
        self.seal.mint(worker.local_addr().unwrap(), rand::random()).unwrap()
    }

    fn call(&self) -> Call {
        let (client, worker) = (socket(), socket());
        let session = self.mint(&worker);
        client.connect(self.door).unwrap();
        client.send(&check(session.ufrag.as_str())).unwrap();
        let (came, relay) = receive(&worker);
        worker.send_to(&answered(&came, relay, &session.key, Standing::Proven, ANSWER), relay).unwrap();
        assert_eq!(receive(&client).0, ANSWER);
        Call { client, worker, session, came, relay }
    }

    /// How many packets went no further for this reason.
    #[track_caller]
    fn dropped(&self, why: Why) -> u64 {
        self.count("dropped", why.as_str())
    }

    /// How many datagrams between relays said nothing for this reason.
    #[track_caller]
    fn unheard(&self, why: Unheard) -> u64 {
        self.count("unheard", why.as_str())
    }

    #[track_caller]
    fn count(&self, what: &str, reason: &str) -> u64 {
        let (name, label) = (format!("streamfleet_relay_{what}_total{{"), format!("reason=\"{reason}\""));
        let text = self.metrics.render();
        let is_it = |line: &&str| line.starts_with(&name) && line.contains(&label);
        let line = text.lines().find(is_it).unwrap_or_else(|| panic!("{label} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// A flow to this call's worker, as another relay would tell of it.
    fn flow(&self, client: &StdSocket, call: &Call) -> Announced {
        Announced {
            client: client.local_addr().unwrap(),
            door: self.door.port(),
            target: Target { worker: call.worker.local_addr().unwrap(), key: call.session.key },
            session: SessionHandle(1),
            silent: Duration::ZERO,
        }
    }

    /// Media of a client that another relay has told of passes: what has been told before is known by then.
    #[track_caller]
    fn has_heard_of(&self, client: &StdSocket, call: &Call) {
        call.worker.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (mut room, mut tries) = ([0; 2_048], 0);
        let (length, _) = loop {
            client.send_to(MEDIA, self.door).unwrap();
            match call.worker.recv_from(&mut room) {
                Ok(came) => break came,
                Err(_) => tries += 1,
            }
            assert!(tries < 400, "a true one is never believed");
        };
        assert_eq!(Sealed::split(&room[..length]).unwrap().0.said().client, client.local_addr().unwrap());
        call.worker.set_read_timeout(Some(SOON)).unwrap();
    }

    #[track_caller]
    fn check_dropped(&self, expected: &[(Why, u64)]) {
        for why in Why::ALL {
            let count = expected.iter().find(|(of, _)| *of == why).map_or(0, |(_, count)| *count);
            assert_eq!(self.dropped(why), count, "{why:?}");
        }
    }
}

impl Call {
    fn address(&self) -> SocketAddr {
        self.client.local_addr().unwrap()
    }

    /// Its client is heard by its worker and its worker by its client, and neither has received anything else before.
    #[track_caller]
    fn goes_on(&self) {
        self.client.send(MEDIA).unwrap();
        let (came, from) = receive(&self.worker);
        let (sealed, datagram) = Sealed::split(&came).unwrap();
        assert_eq!((sealed.said().client, datagram), (self.address(), MEDIA));
        self.worker.send_to(&answered(&came, from, &self.session.key, Standing::Proven, MEDIA), from).unwrap();
        assert_eq!(receive(&self.client).0, MEDIA);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_goes_nowhere() {
    at_a_relay(|place| {
        let (call, stranger) = (place.call(), socket());
        let whole = check(place.mint(&call.worker).ufrag.as_str());
        // From the first octet on a message says how long it is.
        for length in 1..whole.len() {
            stranger.send_to(&whole[..length], place.door).unwrap();
        }
        let back = answered(&call.came, call.relay, &call.session.key, Standing::Proven, b"");
        for length in 1..=back.len() {
            call.worker.send_to(&back[..length], call.relay).unwrap();
        }
        call.goes_on();
        place.check_dropped(&[(Why::Noise, whole.len() as u64 - 1), (Why::Malformed, back.len() as u64)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giants_are_not_passed_on_and_neither_is_a_part_of_them() {
    at_a_relay(|place| {
        let call = place.call();
        for length in [2_049, 9_000, 65_507] {
            call.client.send(&vec![128; length]).unwrap();
        }
        call.client.send(&[]).unwrap();
        call.goes_on();
        place.check_dropped(&[(Why::Giant, 3), (Why::Empty, 1)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_names_lead_nowhere() {
    at_a_relay(|place| {
        let (call, stranger) = (place.call(), socket());
        let worker = call.worker.local_addr().unwrap();
        let another = |seal: &Seal, to: SocketAddr| seal.mint(to, rand::random()).unwrap().ufrag.as_str().to_owned();
        let good = another(&place.seal, worker);
        let changed = |at: usize| {
            let mut text = good.clone().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(text).unwrap()
        };
        let mut forged = vec![
            // Of another installation, and of ours from when it had more networks.
            another(&seal([8; 32], &["127.0.0.0/8"]), worker),
            another(&seal(RELAY_KEY, &["10.0.0.0/8"]), ([10, 0, 0, 1], 443).into()),
            "A".repeat(32),
            good[..31].to_owned(),
            format!("{good}A"),
        ];
        forged.extend((0..good.len()).map(changed));
        for name in &forged {
            stranger.send_to(&check(name), place.door).unwrap();
        }
        call.goes_on();
        place.check_dropped(&[(Why::UnknownUfrag, forged.len() as u64)]);
        // Who goes on like that is not listened to; who has a flow is, from the same address.
        for _ in 0..1_000 {
            stranger.send_to(&check(&forged[0]), place.door).unwrap();
        }
        call.goes_on();
        assert!(place.dropped(Why::Stranger) > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_the_key_reaches_no_client() {
    at_a_relay(|place| {
        let (call, other) = (place.call(), place.call());
        let pod = socket();
        let said = Sealed::split(&call.came).unwrap().0.open(&call.session.key).unwrap();
        let said = Header { direction: Direction::ToClient, standing: Standing::Proven, ..said };
        let others = *Sealed::split(&other.came).unwrap().0.said();
        let own = &call.session.key;
        for (header, key) in [
            // Without the key; with that of another session of the same relay.
            (said, &SessionKey::from_bytes([0; 16])),
            (said, &other.session.key),
            // A worker that is broken into reaches for another's client, by each way that names it.
            (Header { flow: others.flow, client: others.client, ..said }, own),
            (Header { client: others.client, ..said }, own),
            (Header { flow: others.flow, ..said }, own),
            (Header { flow: FlowId(u32::MAX), ..said }, own),
            (Header { door: 1, ..said }, own),
            // What the relay itself sends to workers.
            (Header { direction: Direction::ToWorker, ..said }, own),
        ] {
            pod.send_to(&[&header.seal(key)[..], MEDIA].concat(), call.relay).unwrap();
        }
        pod.send_to(&call.came, call.relay).unwrap();
        call.goes_on();
        other.goes_on();
        place.check_dropped(&[(Why::Forged, 3), (Why::StrangeFlow, 4), (Why::Malformed, 2)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_takes_nobodys_call() {
    at_a_relay(|place| {
        let (call, attacker) = (place.call(), socket());
        // What the client sent, from another address: its check reaches its worker, in the attacker's own name.
        let replayed = check(call.session.ufrag.as_str());
        attacker.send_to(&replayed, place.door).unwrap();
        let (came, from) = receive(&call.worker);
        assert_eq!(Sealed::split(&came).unwrap().0.said().client, attacker.local_addr().unwrap());
        attacker.send_to(MEDIA, place.door).unwrap();
        call.goes_on();
        // What was sent between relay and worker, to the door and to the relay's own port.
        attacker.send_to(&call.came, place.door).unwrap();
        attacker.send_to(&came, from).unwrap();
        call.goes_on();
        place.check_dropped(&[(Why::Unconfirmed, 1), (Why::Noise, 1), (Why::Malformed, 1)]);
    })
    .await;
}

/// To a relay, whoever sends with another's address is that other: here the victim's own socket plays both.
#[tokio::test(flavor = "multi_thread")]
async fn a_spoofed_source_takes_nobodys_call() {
    at_a_relay(|place| {
        let (victim, worker) = (place.call(), socket());
        let session = place.mint(&worker);
        for _ in 0..3 {
            victim.client.send(&check(session.ufrag.as_str())).unwrap();
            let (came, from) = receive(&worker);
            // The attacker's worker has seen a good check; that its client is there it has not.
            let back = answered(&came, from, &session.key, Standing::Confirmed, ANSWER);
            worker.send_to(&back, from).unwrap();
            assert_eq!(receive(&victim.client).0, ANSWER);
            victim.goes_on();
        }
        worker.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(worker.recv_from(&mut [0; 2_048]).is_err(), "the victim's media is its own worker's");
        place.check_dropped(&[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_flooded_through_it() {
    at_a_relay(|place| {
        let (victim, worker, call) = (socket(), socket(), place.call());
        let session = place.mint(&worker);
        let asked = check(session.ufrag.as_str());
        victim.send_to(&asked, place.door).unwrap();
        let (came, from) = receive(&worker);
        // A worker that has seen nothing of a client may send it as much as has come from it.
        let part = vec![1; asked.len() / 2];
        for _ in 0..99 {
            worker.send_to(&answered(&came, from, &session.key, Standing::Unknown, &part), from).unwrap();
        }
        call.goes_on();
        let mut octets = 0;
        victim.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while let Ok((length, _)) = victim.recv_from(&mut [0; 2_048]) {
            octets += length;
        }
        assert_eq!(octets, 2 * part.len());
        place.check_dropped(&[(Why::Amplified, 97)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn false_announcements_are_not_believed() {
    at_a_relay(|place| {
        let (call, stranger, relay) = (place.call(), socket(), socket());
        let key = RelayKey::from_random(RELAY_KEY).among_relays();
        let said = |key: &[u8; 32], client: &StdSocket, at: Duration| {
            sibling(key).say(&[place.flow(client, &call)], at).unwrap()
        };
        let mut changed = said(&key, &stranger, now());
        *changed.last_mut().unwrap() ^= 1;
        for told in [
            said(&[7; 32], &stranger, now()),
            said(&RELAY_KEY, &stranger, now()),
            said(&key, &stranger, now() - Duration::from_secs(600)),
            said(&key, &stranger, now())[..40].to_vec(),
            changed,
        ] {
            relay.send_to(&told, place.ears).unwrap();
        }
        // One that is true, of somebody else: all that came before it has been heard then.
        let friend = socket();
        relay.send_to(&said(&key, &friend, now()), place.ears).unwrap();
        place.has_heard_of(&friend, &call);
        assert_eq!([Unheard::Forged, Unheard::Time].map(|why| place.unheard(why)), [4, 1]);
        let before = place.dropped(Why::UnknownFlow);
        stranger.send_to(MEDIA, place.door).unwrap();
        call.client.send(MEDIA).unwrap();
        loop {
            let (came, _) = receive(&call.worker);
            let client = Sealed::split(&came).unwrap().0.said().client;
            assert_ne!(client, stranger.local_addr().unwrap());
            if client == call.address() {
                break;
            }
        }
        assert_eq!(place.dropped(Why::UnknownFlow), before + 1);
    })
    .await;
}

fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

/// What another relay says.
fn sibling(key: &[u8; 32]) -> Announcer {
    Announcer::new(RelayKey::from_random(RELAY_KEY).id().get(), key, rand::random())
}

/// A client has moved to another session, and somebody plays back what was told of it before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_true_takes_nobodys_call() {
    at_a_relay(|place| {
        let (first, second, relay, client, friend) = (place.call(), place.call(), socket(), socket(), socket());
        let key = RelayKey::from_random(RELAY_KEY).among_relays();
        let (before, after) = (place.flow(&client, &first), place.flow(&client, &second));
        let second_ago = now() - Duration::from_secs(1);
        let recorded = sibling(&key).say(&[before], second_ago).unwrap();
        let told = [
            recorded.clone(),
            sibling(&key).say(&[after], now()).unwrap(),
            recorded.clone(),
            recorded.clone(),
            // On its way for long; and by a relay that the client has left.
            sibling(&key).say(&[before], second_ago).unwrap(),
            sibling(&key).say(&[Announced { silent: Duration::from_secs(3), ..before }], now()).unwrap(),
            sibling(&key).say(&[place.flow(&friend, &first)], now()).unwrap(),
            recorded,
        ];
        for datagram in &told {
            relay.send_to(datagram, place.ears).unwrap();
        }
        place.has_heard_of(&friend, &first);
        client.send_to(MEDIA, place.door).unwrap();
        let (came, _) = receive(&second.worker);
        assert_eq!(Sealed::split(&came).unwrap().0.said().client, client.local_addr().unwrap());
        // The last of them may be heard after its friend's media has passed.
        relay.send_to(&sibling(&key).say(&[place.flow(&relay, &first)], now()).unwrap(), place.ears).unwrap();
        place.has_heard_of(&relay, &first);
        assert_eq!(place.unheard(Unheard::Replayed), 3);
    })
    .await;
}

/// Whoever has recorded a question and sends it in a victim's name, or as his own.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_in_anothers_name_gets_no_flows() {
    at_a_relay(|place| {
        let (asker, victim) = (socket(), socket());
        let key = RelayKey::from_random(RELAY_KEY);
        let mut own = sibling(&key.among_relays());
        let hears = |at: &StdSocket| {
            let (mut came, _) = receive(at);
            let length = came.len();
            (Listener::new([(key.id().get(), key.among_relays())]).hear(&mut came, now()).unwrap(), length)
        };
        let (question, asked) = own.ask(now()).unwrap();
        asker.send_to(&asked, place.ears).unwrap();
        let (Said::Cookie(named, cookie), length) = hears(&asker) else { panic!("it is given a cookie first") };
        assert!(named == question && length <= asked.len(), "{length} octets for {}", asked.len());
        let again = own.ask_with(cookie, question, now()).unwrap();
        asker.send_to(&again, place.ears).unwrap();
        assert_eq!(hears(&asker).0, Said::ThatIsAll(question, 0));
        // From now on it is told of flows.
        let call = place.call();
        let flows = vec![place.flow(&call.client, &call)];
        assert_eq!(untimed(hears(&asker).0), Said::Flows(flows.clone()));

        // Played back, and as a relay gets it that has not heard it before.
        let fresh = own.ask(now()).unwrap();
        for told in [&asked, &again, &fresh.1, &own.ask_with(cookie, question, now()).unwrap()] {
            victim.send_to(told, place.ears).unwrap();
        }
        for expected in [fresh.0, question] {
            let (said, length) = hears(&victim);
            assert!(matches!(said, Said::Cookie(named, _) if named == expected), "{said:?}");
            assert!(length <= asked.len());
        }
        assert_eq!(place.unheard(Unheard::Replayed), 2);
        // The one who was given the cookie gets all.
        asker.send_to(&own.ask_with(cookie, question, now()).unwrap(), place.ears).unwrap();
        let mut answer = Vec::new();
        while answer.last().is_none_or(|said| matches!(said, Said::Flows(_))) {
            answer.push(untimed(hears(&asker).0));
        }
        // It may be told of the flow again meanwhile.
        assert_eq!(answer.pop(), Some(Said::ThatIsAll(question, 1)));
        assert!(!answer.is_empty() && answer.iter().all(|said| *said == Said::Flows(flows.clone())));
        victim.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(victim.recv_from(&mut [0; 2_048]).is_err(), "nobody has shown to be there");
    })
    .await;
}

/// Without what depends on when it is heard.
fn untimed(said: Said) -> Said {
    match said {
        Said::Flows(flows) => {
            Said::Flows(flows.into_iter().map(|flow| Announced { silent: Duration::ZERO, ..flow }).collect())
        }
        other => other,
    }
}
