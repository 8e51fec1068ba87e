//! What is so of a relay whatever comes.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Check {
        client: u8,
        session: u8,
    },
    Data {
        client: u8,
    },
    Response {
        client: u8,
    },
    /// The worker answers the datagram that came to it so long ago.
    Answer {
        ago: usize,
        standing: Standing,
        octets: usize,
    },
    Pass {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, session) = (1..6u8, b'a'..b'd');
    let standing = prop_oneof![Just(Standing::Unknown), Just(Standing::Confirmed), Just(Standing::Proven)];
    let step = prop_oneof![
        4 => (client.clone(), session).prop_map(|(client, session)| Step::Check { client, session }),
        3 => client.clone().prop_map(|client| Step::Data { client }),
        1 => client.prop_map(|client| Step::Response { client }),
        5 => (0..6usize, standing, 1..200usize).prop_map(|(ago, standing, octets)| Step::Answer { ago, standing, octets }),
        1 => (0..20u64).prop_map(|seconds| Step::Pass { seconds }),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// Whatever comes in whatever order: nothing but checks reaches a worker that has not answered this client, nobody who is
    /// proven loses his address to somebody who is not, nobody gets more than he sent before a worker knows him, and the table
    /// stays within its bounds.
    #[test]
    fn no_packet_goes_where_it_does_not_belong(steps in steps(), places in 2..8usize) {
        let mut relay = relay(Bounds { flows: places, ..Bounds::default() });
        let mut now = NOW;
        let mut arrived: Vec<(u8, (SocketAddr, [u8; HEADER]))> = Vec::new();
        // Who has answered whom, who has proven himself where last, and what came and went before anybody knew.
        let mut confirmed: HashMap<(u8, SocketAddr), Standing> = HashMap::new();
        let mut holds: HashMap<u8, SocketAddr> = HashMap::new();
        let (mut came, mut went): (HashMap<u8, usize>, HashMap<u8, usize>) = Default::default();
        for step in steps {
            match step {
                Step::Check { client: n, session } => {
                    let datagram = check(&char::from(session).to_string());
                    if let Ok(onward) = relay.from_client(client(n), DOOR, &datagram, now, &Told::default()) {
                        prop_assert_eq!((onward.to.0, onward.also), (target(session).worker, None));
                        *came.entry(n).or_default() += datagram.len();
                        arrived.push((n, onward.to));
                    }
                }
                Step::Data { client: n } => {
                    if let Ok(onward) = relay.from_client(client(n), DOOR, RTP, now, &Told::default()) {
                        prop_assert!(confirmed.get(&(n, onward.to.0)).is_some_and(|known| *known > Standing::Unknown));
                        prop_assert!(onward.also.is_none());
                        if let Some(holder) = holds.get(&n) {
                            prop_assert_eq!(*holder, onward.to.0, "who has proven himself keeps his address");
                        }
                    }
                }
                Step::Response { client: n } => {
                    if let Ok(onward) = relay.from_client(client(n), DOOR, &response(), now, &Told::default()) {
                        prop_assert!(onward.also.is_none_or(|also| also.0 != onward.to.0));
                        *came.entry(n).or_default() += response().len();
                    }
                }
                Step::Answer { ago, standing, octets } => {
                    let Some((n, to)) = arrived.iter().rev().nth(ago).copied() else { continue };
                    let sent = answer(&to, standing, &vec![0; octets]);
                    let went_on = match relay.from_worker(&sent, now) {
                        Ok(homeward) => {
                            prop_assert_eq!((homeward.to, homeward.datagram.len()), (client(n), octets));
                            octets
                        }
                        // A worker's word counts also where its datagram does not pass.
                        Err(Drop::Amplified) => 0,
                        Err(drop) => {
                            prop_assert!(matches!(drop, Drop::StrangeFlow | Drop::Forged), "{:?}", drop);
                            continue;
                        }
                    };
                    let known = confirmed.entry((n, to.0)).or_default();
                    *known = (*known).max(standing);
                    if standing == Standing::Proven {
                        holds.insert(n, to.0);
                    }
                    if *known == Standing::Unknown {
                        *went.entry(n).or_default() += went_on;
                        prop_assert!(went[&n] <= came[&n], "{} of {}", went[&n], came[&n]);
                    }
                }
                Step::Pass { seconds } => {
                    now += Duration::from_secs(seconds);
                    relay.tend(1, now, drop);
                    // Whoever is silent may be forgotten from now on.
                    holds.clear();
                }
            }
            prop_assert!(relay.flows() <= places);
        }
    }

    #[test]
    fn no_datagram_panics(datagram in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut relay = relay(Bounds::default());
        let _ = relay.hears(1, &datagram);
        let _ = relay.from_worker(&datagram, NOW);
    }
}
