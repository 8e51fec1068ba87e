//! Who is believed to be where, and what an address gets before it is.

use std::net::SocketAddr;
use std::time::Duration;

use streamfleet_net::stun::{self, BindingRequest, BindingSuccess, Nomination, Role, TransactionId};
use streamfleet_session::lifecycle::CloseReason;

use super::client::Client;
use super::echo::echo;
use super::network::Conditions;
use super::world::{Opening, PASSWORD, World};
use crate::media::counters::Drop;
use crate::media::shared::Stage;

const VICTIM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)), 443);

fn octets(sent: &[(SocketAddr, Vec<u8>)], to: SocketAddr) -> usize {
    sent.iter().filter(|(at, _)| *at == to).map(|(_, data)| data.len()).sum()
}

/// A client that knows its own session's password names a victim as the source of its checks, and never connects: the
/// agent would send checks to the victim for as long as it has hope.
#[test]
fn an_address_gets_at_most_threefold_before_it_has_answered() {
    for repetitions in [1, 3, 40] {
        let mut world = World::new(1, Conditions::CLEAN);
        let (client, offer) = Client::new(([192, 0, 2, 10], 6000).into(), world.now);
        let (shared, _) = world.open(Opening::new(&offer, echo()));
        let mut received = 0;
        for i in 0..repetitions {
            let request = BindingRequest {
                transaction: TransactionId([i; 12]),
                remote_ufrag: &world.ufrag(),
                local_ufrag: &client.ufrag,
                priority: 1,
                role: Role::Controlling(1),
                nomination: Nomination::UseCandidate,
            };
            let mut check = vec![];
            request.write(PASSWORD.as_bytes(), &mut check).unwrap();
            received += check.len();
            world.inject(VICTIM, &check);
            world.run(Duration::from_millis(130));
        }
        world.run(Duration::from_secs(20));
        assert_eq!(shared.stage(), Stage::Connecting);
        let sent = octets(&world.sent, VICTIM);
        assert!(sent > 0 && sent <= 3 * received, "{sent} octets for {received}");
        if repetitions < 10 {
            assert!(world.counters.drops(Drop::Unaffordable) > 0, "the agent wanted to send more");
        } else {
            assert!(sent > received, "the checks paid for all that ICE has to say");
        }
    }
}

/// A client knows the ids of the checks that reach it. Answering one in the name of another session's client, it must not
/// be taken for that.
#[test]
fn an_answer_in_anothers_name_takes_nothing_from_it() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (attacker, _) = world.call(echo(), World::limits());
    let (victim, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    world.clients[attacker].alive = false;
    let (from, at) = (world.clients[attacker].outside, world.clients[victim].outside);
    let key = world.clients[attacker].pwd.clone();
    let mut answered = 0;
    for _ in 0..20 {
        let already = world.sent.len();
        world.run(Duration::from_millis(500));
        let checks: Vec<[u8; 12]> = world.sent[already..]
            .iter()
            .filter(|(to, data)| *to == from && data.starts_with(&[0, 1]))
            .map(|(_, data)| data[8..20].try_into().unwrap())
            .collect();
        for id in checks {
            let mut answer = vec![];
            BindingSuccess { transaction: TransactionId(id), mapped: at }.write(key.as_bytes(), &mut answer);
            world.inject(at, &answer);
            answered += 1;
        }
    }
    assert!(answered >= 3, "{answered} checks went to the attacker");
    assert!(world.counters.drops(Drop::StunUnasked) >= answered);
    assert_eq!(shared.stage(), Stage::Active);
    let client = &world.clients[victim];
    let times: Vec<_> = client.echoes.iter().map(|e| e.at).collect();
    let gap = times.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(gap <= Duration::from_millis(25), "the victim's echo paused for {gap:?}");
    assert!(client.echoes.len() + 3 >= client.sent_at.len());
}

/// Nobody vouches for an indication: a client that is gone stays gone, whoever sends them in its name.
#[test]
fn indications_keep_no_session_alive() {
    let mut world = World::new(3, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    world.clients[c].alive = false;
    let home = world.clients[c].outside;
    let user = format!("{}:{}", world.ufrag(), world.clients[c].ufrag);
    let mut indication = vec![0, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    indication.extend([9; 12]);
    indication.extend([0, 6, 0, user.len() as u8]);
    indication.extend(user.as_bytes());
    indication.resize(indication.len().next_multiple_of(4), 0);
    indication[3] = (indication.len() - stun::HEADER) as u8;
    let message = stun::Message::parse(&indication).unwrap();
    assert_eq!((message.class(), message.username()), (stun::Class::Indication, Some(&*user)));
    let mut lasted = Duration::ZERO;
    while shared.stage() == Stage::Active && lasted < Duration::from_secs(28) {
        world.inject(home, &indication);
        world.run(Duration::from_millis(250));
        lasted += Duration::from_millis(250);
    }
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::ConnectionLost));
    assert!(lasted <= Duration::from_secs(20), "{lasted:?}");
    assert!(world.counters.drops(Drop::StunUnasked) > 40);
}
