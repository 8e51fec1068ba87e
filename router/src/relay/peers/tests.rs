use std::time::Instant;

use streamfleet_relay::{Elsewhere as _, FlowKey, SessionHandle, Target};
use streamfleet_session::ufrag::SessionKey;

use tokio::net::UdpSocket;

use super::*;

fn flow(client: u16) -> Announced {
    let target = Target { worker: SocketAddr::from(([10, 0, 0, 1], 5000)), key: SessionKey::from_bytes([1; 16]) };
    let (client, session) = (([192, 0, 2, 1], client).into(), SessionHandle(7));
    Announced { client, door: 3478, target, session, silent: Duration::ZERO }
}

const KEY: [u8; 32] = [7; 32];

async fn peers(key: [u8; 32], names: Vec<String>) -> (Peers, Arc<Elsewhere>) {
    let elsewhere = Arc::new(Elsewhere::new(1_000, Instant::now()));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (announcer, listener) = (Announcer::new(1, &key, rand::random()), Listener::new([(1, key)]));
    let plan = PeersPlan { listen: any, names, endpoints: Endpoints::default() };
    (Peers::bind(plan, announcer, listener, elsewhere.clone()).await.unwrap(), elsewhere)
}

/// Whether the first `count` flows are known there.
fn knows(elsewhere: &Elsewhere, count: u16) -> bool {
    let known = |n| elsewhere.find(&FlowKey::new(flow(n).client, 3478));
    (0..count).all(|n| known(n).is_some_and(|known| known.target == flow(n).target))
}

#[tokio::test]
async fn what_one_is_told_all_know() {
    let mut names = Vec::new();
    let mut all = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    for key in [KEY, KEY, [8; 32]] {
        let (peers, elsewhere) = peers(key, Vec::new()).await;
        names.push(peers.socket.local_addr().to_string());
        let (_sender, flows) = mpsc::channel(1);
        running.spawn(async move {
            let _sender = _sender;
            peers.run(flows).await
        });
        all.push(elsewhere);
    }
    let stranger = all.pop().unwrap();
    let (peers, own) = peers(KEY, names).await;
    all.push(own);
    let (sender, flows) = mpsc::channel(100);
    running.spawn(peers.run(flows));
    let known = async {
        // Names are looked up meanwhile; what was told before is told again.
        loop {
            for client in 0..60 {
                sender.send(flow(client)).await.unwrap();
            }
            sleep(Duration::from_millis(30)).await;
            if all.iter().all(|elsewhere| knows(elsewhere, 60)) {
                break;
            }
        }
    };
    timeout(Duration::from_secs(20), known).await.expect("all know all");
    assert_eq!(stranger.count(Whose::Others), 0, "it is sealed under another key");
}

#[tokio::test]
async fn who_begins_knows_what_the_others_know() {
    // One that is gone, one with another key, one that knows.
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ((stranger, _), (wise, its)) = (peers([8; 32], Vec::new()).await, peers(KEY, Vec::new()).await);
    its.tell((0..500).map(flow), Whose::Own);
    let names = [&stranger, &wise].map(|peers| peers.socket.local_addr().to_string());
    let mut running = tokio::task::JoinSet::new();
    let (told, flows) = mpsc::channel(1);
    running.spawn(wise.run(flows));
    running.spawn(async move {
        let (_told, flows) = mpsc::channel(1);
        stranger.run(flows).await
    });
    let (newcomer, known) = peers(KEY, [&[gone][..], &names].concat()).await;
    newcomer.catch_up().await.unwrap();
    assert!(knows(&known, 500), "{} flows", known.count(Whose::Others));
    // It is told from then on, though no name leads to it.
    told.send(flow(600)).await.unwrap();
    let (_told, flows) = mpsc::channel(1);
    running.spawn(newcomer.run(flows));
    let heard = async {
        while known.find(&FlowKey::new(flow(600).client, 3478)).is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), heard).await.expect("a guest is told");
}

/// A peer is not waited for because another one talks, and not believed to have answered because another one has.
#[tokio::test]
async fn what_others_say_is_no_answer() {
    let gone = [(); 3].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
    let ((wise, its), (begun, _)) = (peers(KEY, Vec::new()).await, peers(KEY, Vec::new()).await);
    its.tell((0..500).map(flow), Whose::Own);
    let answering = [&wise, &begun].map(|peers| peers.socket.local_addr().to_string());
    let (newcomer, known) = peers(KEY, [&gone[..], &answering].concat()).await;
    let to = newcomer.socket.local_addr();
    let mut running = tokio::task::JoinSet::new();
    let mut told = Vec::new();
    for peers in [wise, begun] {
        let (sender, flows) = mpsc::channel(1);
        told.push(sender);
        running.spawn(peers.run(flows));
    }
    running.spawn(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let mut announcer = Announcer::new(1, &KEY, [9; 8]);
        let (question, _) = announcer.ask(unix()).unwrap();
        loop {
            for said in [announcer.say(&[flow(900)], unix()), announcer.that_is_all(question, 1, unix())] {
                socket.send_to(&said.unwrap(), to).await?;
            }
            sleep(ANSWERS / 5).await;
        }
    });
    newcomer.catch_up().await.unwrap();
    assert!(knows(&known, 500), "{} flows", known.count(Whose::Others));
}

#[tokio::test]
async fn who_is_alone_begins_alone() {
    let (alone, known) = peers(KEY, Vec::new()).await;
    alone.catch_up().await.unwrap();
    assert_eq!(known.count(Whose::Others), 0);
}

/// Thousands of flows at once: whoever is told of them gets time to take them.
#[tokio::test(start_paused = true)]
async fn a_burst_is_told_at_a_pace() {
    let ear = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = ear.local_addr().unwrap();
    let (telling, known) = peers(KEY, Vec::new()).await;
    telling.known.welcome(to, Instant::now());
    let (sender, mut flows) = mpsc::channel(WAITING);
    for n in 0..8_000 {
        sender.try_send(flow(n)).unwrap();
    }
    drop(sender);
    let begun = tokio::time::Instant::now();
    telling.tell(&mut flows).await.unwrap();
    let rests = 8_000 / MOST / IN_A_ROW;
    assert!(begun.elapsed() >= GATHERED + MOMENT * rests as u32, "{:?}", begun.elapsed());
    // So does whoever asks for all.
    let (question, _) = telling.say(|announcer| announcer.ask(unix()));
    let (sender, mut asked) = mpsc::channel(1);
    sender.try_send((to, question)).unwrap();
    drop(sender);
    let begun = tokio::time::Instant::now();
    telling.answer(&mut asked).await.unwrap();
    let rests = known.all().map(|part| part.len().div_ceil(MOST)).sum::<usize>() / IN_A_ROW;
    assert!(rests > 1 && begun.elapsed() >= MOMENT * rests as u32, "{rests}, {:?}", begun.elapsed());
}

#[tokio::test]
async fn what_the_kernel_drops_is_counted() {
    const SENT: u64 = 60_000;
    let (deaf, _) = peers(KEY, Vec::new()).await;
    let flood = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..SENT {
        flood.send_to(&[0], deaf.socket.local_addr()).unwrap();
    }
    let counts = deaf.counts();
    let mut running = tokio::task::JoinSet::new();
    let (_sender, flows) = mpsc::channel(1);
    running.spawn(deaf.run(flows));
    let counted = async {
        while counts.overflowed() + counts.unheard(Unheard::Form) < SENT {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), counted).await.expect("each is heard or counted");
    assert!(counts.overflowed() > 0);
}

/// A name may lead to all relays without any address saying so: what a relay has said itself is no other's.
#[tokio::test]
async fn what_comes_back_is_nobody_elses() {
    let (telling, known) = peers(KEY, Vec::new()).await;
    let (to, mirror) = (telling.socket.local_addr(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    telling.known.welcome(mirror.local_addr().unwrap(), Instant::now());
    let (sender, flows) = mpsc::channel(1);
    let mut running = tokio::task::JoinSet::new();
    running.spawn(telling.run(flows));
    sender.send(flow(1)).await.unwrap();
    let mut room = [0; ROOM];
    let (length, from) = mirror.recv_from(&mut room).await.unwrap();
    assert_eq!(from, to);
    // Another's after it: it has been heard by then.
    let other = Announcer::new(1, &KEY, [9; 8]).say(&[flow(2)], unix()).unwrap();
    for said in [&room[..length], &other] {
        mirror.send_to(said, to).await.unwrap();
    }
    let heard = async {
        while known.find(&FlowKey::new(flow(2).client, 3478)).is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), heard).await.expect("another is heard");
    assert_eq!([Whose::Own, Whose::Others].map(|whose| known.count(whose)), [1, 1]);
}
