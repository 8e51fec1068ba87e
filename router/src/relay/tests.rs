//! A relay on real sockets, between clients and workers that know what passes between them.

mod families;
mod leaving;
mod threats;

use std::collections::HashSet;
use std::net::UdpSocket as StdSocket;
use std::time::Duration;

use streamfleet_net::stun::{BindingRequest, Nomination, Role, TransactionId};
use streamfleet_relay::{Direction, Header, Sealed, SessionHandle, Standing, Target};
use streamfleet_session::AdminToken;
use streamfleet_session::ufrag::SessionKey;
use tower::ServiceExt as _;

use super::*;

const KEY: SessionKey = SessionKey::from_bytes([7; 16]);
const SOON: Duration = Duration::from_secs(20);

/// All sessions are at one worker, and have one key.
#[derive(Clone)]
struct Minted(SocketAddr);

impl Ufrags for Minted {
    fn open(&self, _: &str) -> Option<Target> {
        Some(Target { worker: self.0, key: KEY })
    }
}

fn check(session: &str) -> Vec<u8> {
    let request = BindingRequest {
        transaction: TransactionId([7; 12]),
        remote_ufrag: session,
        local_ufrag: "theirs",
        priority: 1,
        role: Role::Controlling(1),
        nomination: Nomination::None,
    };
    let mut datagram = Vec::new();
    request.write(b"a password of the session", &mut datagram).unwrap();
    datagram
}

fn socket() -> StdSocket {
    socket_at("127.0.0.1")
}

fn socket_at(ip: &str) -> StdSocket {
    let socket = StdSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn receive(socket: &StdSocket) -> (Vec<u8>, SocketAddr) {
    let mut room = vec![0; 2_048];
    let (len, from) = socket.recv_from(&mut room).expect("something comes");
    room.truncate(len);
    (room, from)
}

/// The worker's answer to what came.
fn answer(worker: &StdSocket, came: &[u8], from: SocketAddr, standing: Standing, datagram: &[u8]) {
    worker.send_to(&answered(came, from, &KEY, standing, datagram), from).unwrap();
}

/// What a worker sends to answer what came, under its session's key.
fn answered(came: &[u8], from: SocketAddr, key: &SessionKey, standing: Standing, datagram: &[u8]) -> Vec<u8> {
    let (sealed, _) = Sealed::split(came).unwrap();
    let said = sealed.open(key).expect("sealed for this worker");
    assert_eq!(said.return_port, from.port());
    let back = Header { direction: Direction::ToClient, standing, session: SessionHandle(1), ..said };
    [&back.seal(key)[..], datagram].concat()
}

fn plan(listen: SocketAddr, peers: &[u16], own: u16) -> RelayPlan {
    RelayPlan {
        sharing: Sharing::Nobody,
        listen,
        advertise: Vec::new(),
        keys: RelayKey::from_random([9; 32]).into(),
        networks: WorkerNetworks::new(vec!["127.0.0.0/8".parse().unwrap()], None).unwrap(),
        threads: NonZeroUsize::new(2).unwrap(),
        // All sessions of these tests have one key.
        bounds: Bounds { per_session: u32::MAX, ..Bounds::default() },
        peers: PeersPlan {
            listen: SocketAddr::from(([127, 0, 0, 1], own)),
            names: peers.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
            endpoints: Endpoints::default(),
        },
    }
}

async fn measured(
    plan: RelayPlan,
    worker: &StdSocket,
    metrics: &Metrics,
) -> (SocketAddr, tokio::task::JoinSet<io::Result<()>>) {
    let relay = Relay::bind(plan, &Minted(worker.local_addr().unwrap()), metrics).await.unwrap();
    let (door, mut running) = (relay.door(), tokio::task::JoinSet::new());
    running.spawn(relay.run());
    (door, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn media_passes_both_ways() {
    let (worker, metrics) = (socket(), Metrics::new("test", "0"));
    let (door, running) = measured(plan(([127, 0, 0, 1], 0).into(), &[], 0), &worker, &metrics).await;
    let passed = tokio::task::spawn_blocking(move || {
        let mut ports = HashSet::new();
        for n in 0..32 {
            let client = socket();
            client.connect(door).unwrap();
            client.send(&check(&format!("{n:08}"))).unwrap();
            let (came, from) = receive(&worker);
            ports.insert(from.port());
            answer(&worker, &came, from, Standing::Confirmed, b"\x01\x01");
            assert_eq!(receive(&client).0, b"\x01\x01");
            let media = vec![128; 1_200];
            for _ in 0..20 {
                client.send(&media).unwrap();
            }
            for _ in 0..20 {
                let (came, from) = receive(&worker);
                let (sealed, datagram) = Sealed::split(&came).unwrap();
                assert_eq!((datagram, sealed.said().session), (&media[..], SessionHandle(1)));
                assert_eq!(sealed.said().client, client.local_addr().unwrap());
                answer(&worker, &came, from, Standing::Confirmed, &media);
            }
            for _ in 0..20 {
                assert_eq!(receive(&client), (media.clone(), door));
            }
        }
        ports
    });
    assert_eq!(passed.await.unwrap().len(), 2, "both threads have clients");
    let value = |name: &str, direction: &str| -> u64 {
        let (start, text) = (format!("{name}{{direction=\"{direction}\"}} "), metrics.render());
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {start}"));
        line.parse().unwrap()
    };
    // A batch is counted when it has gone, and may have arrived before.
    let counted = async {
        while ["to_worker", "to_client"].iter().any(|way| value("streamfleet_relay_batch_packets_sum", way) < 32 * 21) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, counted).await.expect("all are counted");
    drop(running);
    for direction in ["to_worker", "to_client"] {
        assert_eq!(value("streamfleet_relay_packets_total", direction), 32 * 21);
        assert_eq!(value("streamfleet_relay_overflowed_total", direction), 0);
        let batches = value("streamfleet_relay_batch_packets_count", direction);
        assert!((1..=32 * 21).contains(&batches), "{batches}");
        assert_eq!(value("streamfleet_relay_batch_packets_sum", direction), 32 * 21);
        // One batch in sixteen: the first of each thread is, and whose it is depends on who comes first.
        let sampled = value("streamfleet_relay_delay_seconds_count", direction);
        assert!(sampled < 32 * 21, "{sampled}");
    }
    let sampled = ["to_worker", "to_client"].map(|direction| value("streamfleet_relay_delay_seconds_count", direction));
    assert!(sampled[0] + sampled[1] > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_goes_on_at_another_relay() {
    let worker = socket();
    // Ports that are free now.
    let [one, other] = [socket(), socket()].map(|socket| socket.local_addr().unwrap().port());
    let metrics = [(); 2].map(|()| Metrics::new("test", "0"));
    let (first, dying) = measured(plan(([127, 0, 0, 2], 0).into(), &[other], one), &worker, &metrics[0]).await;
    // Behind a load balancer all have one port.
    let at = SocketAddr::from(([127, 0, 0, 3], first.port()));
    let (second, running) = measured(plan(at, &[one], other), &worker, &metrics[1]).await;
    let moved = tokio::task::spawn_blocking(move || {
        let client = socket();
        client.send_to(&check("a session"), first).unwrap();
        let (came, from) = receive(&worker);
        answer(&worker, &came, from, Standing::Proven, b"\x01\x01");
        receive(&client);
        // It has been told when media passes there: the first of it may come too early.
        worker.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let media = [128; 100];
        let (mut room, mut tries) = ([0; 2_048], 0);
        let (len, from) = loop {
            client.send_to(&media, second).unwrap();
            match worker.recv_from(&mut room) {
                Ok(came) => break came,
                Err(_) => tries += 1,
            }
            assert!(tries < 400, "it was never told");
        };
        let others = "streamfleet_relay_flows{of=\"others\"} ";
        let counts = metrics.map(|metrics| {
            let text = metrics.render();
            text.lines().find_map(|line| line.strip_prefix(others)).expect("a count").to_owned()
        });
        assert_eq!(counts, ["0", "1"], "whose it is");
        drop(dying);
        let (sealed, datagram) = Sealed::split(&room[..len]).unwrap();
        assert_eq!(
            (sealed.said().session, datagram),
            (SessionHandle(1), &media[..]),
            "it knows what the worker has said"
        );
        answer(&worker, &room[..len], from, Standing::Proven, &media);
        assert_eq!(receive(&client), (media.to_vec(), second));
    });
    moved.await.unwrap();
    drop(running);
}

async fn get(route: &axum::Router, path: &str, token: Option<&str>) -> (u16, serde_json::Value) {
    let mut request = axum::http::Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = route.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_flows_and_nobody_else_does() {
    const CLIENTS: usize = 40;
    let worker = socket();
    let metrics = Metrics::new("test", "0");
    let plan = plan(([127, 0, 0, 1], 0).into(), &[], 0);
    let relay = Relay::bind(plan, &Minted(worker.local_addr().unwrap()), &metrics).await.unwrap();
    let (door, view) = (relay.door(), relay.view());
    let mut running = tokio::task::JoinSet::new();
    running.spawn(relay.run());
    let clients = tokio::task::spawn_blocking(move || {
        let clients: Vec<StdSocket> = (0..CLIENTS).map(|_| socket()).collect();
        for (n, client) in clients.iter().enumerate() {
            client.send_to(&check(&format!("{n:08}")), door).unwrap();
            let (came, from) = receive(&worker);
            if n == 0 {
                answer(&worker, &came, from, Standing::Proven, b"\x01\x01");
                receive(client);
            }
        }
        (clients, worker)
    });
    let (clients, worker) = clients.await.unwrap();
    let token: AdminToken = "a-token-of-the-operator".parse().unwrap();
    let route = view.route(token);
    let (status, all) = get(&route, "/debug/relay/flows", Some("a-token-of-the-operator")).await;
    assert_eq!((status, &all["matching"]), (200, &CLIENTS.into()), "{all}");
    let first = clients[0].local_addr().unwrap().to_string();
    let flows = all["flows"].as_array().unwrap();
    let row = flows.iter().find(|row| row["client"] == first).expect("the first client's");
    assert_eq!((&row["standing"], &row["session"], &row["port"]), (&"proven".into(), &1.into(), &door.port().into()));
    assert_eq!(
        (&row["received_packets"], &row["sent_packets"], &row["sent_octets"]),
        (&1.into(), &1.into(), &2.into())
    );
    assert_eq!(row["worker"], worker.local_addr().unwrap().to_string());
    assert_eq!(flows.iter().filter(|row| row["standing"] == "unknown").count(), CLIENTS - 1);

    for (query, matching, shown) in
        [("limit=3", CLIENTS, 3), ("client=127.0.0.1&limit=0", CLIENTS, 0), ("client=127.0.0.9", 0, 0)]
    {
        let (status, found) =
            get(&route, &format!("/debug/relay/flows?{query}"), Some("a-token-of-the-operator")).await;
        let count = found["flows"].as_array().unwrap().len();
        assert_eq!((status, &found["matching"], count), (200, &matching.into(), shown), "{query}");
    }
    for (query, token, expected) in [
        ("", None, 401),
        ("", Some("another-token-of-nobody"), 401),
        ("?client=everybody", Some("a-token-of-the-operator"), 400),
        ("?ufrag=1", Some("a-token-of-the-operator"), 400),
    ] {
        let (status, answer) = get(&route, &format!("/debug/relay/flows{query}"), token).await;
        assert_eq!((status, &answer["status"]), (expected, &"failed".into()), "{query}: {answer}");
    }
    drop(running);
    // Nobody is there any more to look, when its threads have seen that they are to stop.
    let gone = async {
        while get(&route, "/debug/relay/flows", Some("a-token-of-the-operator")).await.0 != 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("no answer of a relay that is gone");
}
