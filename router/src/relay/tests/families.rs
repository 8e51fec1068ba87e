//! Clients and workers of IPv4 and IPv6, each with each.

use streamfleet_session::ufrag::Seal;

use super::*;

/// Loopback has one address of each, and IPv6 workers have what follows these bytes.
const WORKERS: [&str; 2] = ["127.0.0.0/8", "::1/128"];
const PREFIX: &str = "::/96";

fn networks() -> WorkerNetworks {
    let ranges = WORKERS.iter().map(|range| range.parse().unwrap()).collect();
    WorkerNetworks::new(ranges, Some(PREFIX.parse().unwrap())).unwrap()
}

/// Clients of these addresses talk to workers of both families by one relay that listens there.
async fn each_with_each(listen: &str, clients: &'static [&'static str]) {
    let keys = RelayKeys::from(RelayKey::from_random([9; 32]));
    let seal = Arc::new(Seal::new(&keys, networks()));
    let plan = RelayPlan { networks: networks(), ..plan(listen.parse().unwrap(), &[], 0) };
    let metrics = Metrics::new("test", "0");
    let opening = Opening::new(seal.clone(), &metrics.meter("relay"));
    let relay = Relay::bind(plan, &opening, &metrics).await.unwrap();
    let (port, mut running) = (relay.door().port(), tokio::task::JoinSet::new());
    running.spawn(relay.run());
    let talk = move || {
        for (client_ip, worker_ip) in clients.iter().flat_map(|client| [(client, "127.0.0.1"), (client, "::1")]) {
            let (client, worker) = (socket_at(client_ip), socket_at(worker_ip));
            let door = SocketAddr::new(client_ip.parse().unwrap(), port);
            let session = seal.mint(worker.local_addr().unwrap(), rand::random()).unwrap();
            client.send_to(&check(session.ufrag.as_str()), door).unwrap();
            let (came, from) = receive(&worker);
            let said = *Sealed::split(&came).unwrap().0.said();
            assert_eq!(said.client, client.local_addr().unwrap(), "{client_ip} to {worker_ip}");
            let back = answered(&came, from, &session.key, Standing::Proven, b"\x01\x01");
            worker.send_to(&back, from).unwrap();
            assert_eq!(receive(&client), (b"\x01\x01".to_vec(), door));
            // As much as a client may send: a packet of an Ethernet frame over IPv6.
            let media = vec![128; 1_452];
            client.send_to(&media, door).unwrap();
            let (came, from) = receive(&worker);
            assert_eq!(Sealed::split(&came).unwrap().1, media);
            worker.send_to(&answered(&came, from, &session.key, Standing::Proven, &media), from).unwrap();
            assert_eq!(receive(&client), (media, door), "{client_ip} to {worker_ip}");
        }
    };
    tokio::task::spawn_blocking(talk).await.unwrap();
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_door_for_both() {
    each_with_each("[::]:0", &["127.0.0.1", "::1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_of_one_family_lead_to_workers_of_both() {
    each_with_each("127.0.0.1:0", &["127.0.0.1"]).await;
    each_with_each("[::1]:0", &["::1"]).await;
}
