use std::collections::{HashMap, HashSet};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use streamfleet_rtp::rtcp::WallClock;

use super::*;
use crate::media::addresses::MAX_ADDRESSES;
use crate::media::counters::Counters;
use crate::media::outlet::Outlet;

const OUR_PASSWORD: &[u8] = b"password of the worker..";
const THEIR_PASSWORD: &[u8] = b"password of the client..";

fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn credentials(ufrag: &str, pwd: &[u8]) -> IceCredentials {
    IceCredentials { ufrag: ufrag.to_owned(), pwd: String::from_utf8(pwd.to_vec()).unwrap() }
}

/// A session's reach, and all that its loop would lend it.
struct Bench {
    reach: Reach,
    now: Instant,
    clock: WallClock,
    out: Outlet,
    counters: Counters,
    routes: Vec<Route>,
    payload: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        Bench {
            reach: Reach::new(credentials("ufragoftheworker", OUR_PASSWORD), credentials("abcd", THEIR_PASSWORD)),
            now,
            clock: WallClock::new(now, UNIX_EPOCH),
            out: Outlet::new(),
            counters: Counters::default(),
            routes: vec![],
            payload: vec![],
        }
    }

    fn connected(remote: SocketAddr) -> Self {
        let mut bench = Bench::new();
        bench.with(|reach, io| reach.connected(remote, io));
        bench.routes.clear();
        bench
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Reach, &mut Io<'_>) -> T) -> T {
        let mut io = Io {
            now: self.now,
            clock: &self.clock,
            out: &mut self.out,
            counters: &self.counters,
            routes: &mut self.routes,
            payload: &mut self.payload,
        };
        f(&mut self.reach, &mut io)
    }

    fn stun(&mut self, from: SocketAddr, data: &[u8]) -> Outcome {
        let message = stun::Message::parse(data).unwrap();
        self.with(|reach, io| reach.stun(from, data, &message, io))
    }

    /// What is to be sent: to whom, what class of STUN message, with which id, how long.
    fn sent(&mut self) -> Vec<(SocketAddr, stun::Class, TransactionId, usize)> {
        let message = |d| stun::Message::parse(d).unwrap();
        let sent = self.out.iter().map(|(to, d)| (to, message(d).class(), message(d).transaction(), d.len())).collect();
        self.out.clear();
        sent
    }
}

fn check(remote_ufrag: &str, local_ufrag: &str, key: &[u8], nomination: stun::Nomination) -> Vec<u8> {
    let mut data = vec![];
    let transaction = TransactionId([5; 12]);
    let role = stun::Role::Controlling(1);
    stun::BindingRequest { transaction, remote_ufrag, local_ufrag, priority: 1, role, nomination }
        .write(key, &mut data)
        .unwrap();
    data
}

/// A check of the client's.
fn good_check() -> Vec<u8> {
    check("ufragoftheworker", "abcd", OUR_PASSWORD, stun::Nomination::None)
}

fn answer(id: TransactionId, key: &[u8]) -> Vec<u8> {
    let mut data = vec![];
    stun::BindingSuccess { transaction: id, mapped: addr(9) }.write(key, &mut data);
    data
}

#[test]
fn only_authentic_checks_reach_the_agent() {
    use stun::Nomination::{None as Plain, UseCandidate};
    let to_agent = |kind| Outcome::ForAgent(addr(1), kind);
    for (data, expected) in [
        (good_check(), to_agent(StunKind::Other)),
        (check("ufragoftheworker", "abcd", OUR_PASSWORD, UseCandidate), to_agent(StunKind::NominatingRequest)),
        (check("ufragoftheworker", "abcd", THEIR_PASSWORD, Plain), Outcome::Done),
        (check("ufragoftheworker", "abce", OUR_PASSWORD, Plain), Outcome::Done),
        (check("ufragofanother", "abcd", OUR_PASSWORD, Plain), Outcome::Done),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.stun(addr(1), &data), expected, "{data:?}");
        let refused = expected == Outcome::Done;
        assert_eq!(bench.counters.drops(Drop::StunIntegrity), u64::from(refused));
        let learnt = if refused { vec![] } else { vec![Route::Claimed(addr(1))] };
        assert_eq!(bench.routes, learnt);
    }
}

#[test]
fn an_answer_counts_from_where_the_check_went_and_once() {
    let mut bench = Bench::new();
    let request = check("abcd", "ufragoftheworker", THEIR_PASSWORD, stun::Nomination::None);
    bench.with(|reach, io| reach.send(addr(1), &request, io));
    let id = TransactionId([5; 12]);
    assert_eq!(bench.routes, [Route::Asked(id)]);
    bench.routes.clear();
    let good = answer(id, THEIR_PASSWORD);
    for (from, data, reason) in [
        (addr(1), answer(id, OUR_PASSWORD), Drop::StunIntegrity),
        (addr(1), answer(TransactionId([6; 12]), THEIR_PASSWORD), Drop::StunUnasked),
        (addr(2), good.clone(), Drop::StunUnasked),
    ] {
        let before = bench.counters.drops(reason);
        assert_eq!(bench.stun(from, &data), Outcome::Done);
        assert_eq!(bench.counters.drops(reason), before + 1);
        assert_eq!(bench.routes, [], "nothing is learnt of it");
    }
    assert_eq!(bench.stun(addr(1), &good), Outcome::ForAgent(addr(1), StunKind::Success));
    assert_eq!(bench.routes, [Route::Answered(id), Route::Proven(addr(1))]);
    assert_eq!(bench.stun(addr(1), &good), Outcome::Done);
}

#[test]
fn a_connected_session_answers_for_the_agent() {
    let mut bench = Bench::connected(addr(1));
    assert_eq!(bench.stun(addr(1), &good_check()), Outcome::Done);
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1, sent[0].2), (addr(1), stun::Class::Success, TransactionId([5; 12])));

    // From elsewhere it is worth one check of ours, and the answer to that takes media there, being nominated.
    let nominating = check("ufragoftheworker", "abcd", OUR_PASSWORD, stun::Nomination::UseCandidate);
    assert_eq!(bench.stun(addr(2), &nominating), Outcome::Done);
    let sent = bench.sent();
    assert_eq!(sent.iter().map(|s| (s.0, s.1)).collect::<Vec<_>>(), [(addr(2), stun::Class::Request)]);
    assert!(sent[0].3 <= nominating.len());
    assert_eq!(bench.stun(addr(2), &answer(sent[0].2, THEIR_PASSWORD)), Outcome::Moved(addr(2)));
    assert_eq!(bench.reach.current(), Some(addr(2)));
    // To the agent that is still the old address, in both directions.
    assert_eq!(bench.reach.as_known(addr(2)), addr(1));
    bench.with(|reach, io| reach.send(addr(1), &[20; 50], io));
    assert_eq!(bench.out.iter().map(|(to, _)| to).collect::<Vec<_>>(), [addr(2)]);
}

#[test]
fn consent_lasts_ten_seconds() {
    assert!(!Bench::new().reach.has_consent(Instant::now()));
    let bench = Bench::connected(addr(1));
    assert!(bench.reach.has_consent(bench.now + CONSENT - Duration::from_millis(1)));
    assert!(!bench.reach.has_consent(bench.now + CONSENT));
}

#[test]
fn what_is_learnt_is_what_is_forgotten() {
    let mut bench = Bench::new();
    for port in 0..100 {
        bench.stun(addr(port), &good_check());
        let request = check("abcd", "ufragoftheworker", THEIR_PASSWORD, stun::Nomination::None);
        bench.with(|reach, io| reach.send(addr(port), &request, io));
    }
    bench.with(|reach, io| reach.connected(addr(200), io));
    for port in 0..200 {
        bench.stun(addr(port), &good_check());
    }
    let (mut addresses, mut asked) = (HashSet::new(), Vec::new());
    bench.routes.extend(bench.reach.routes());
    for route in &bench.routes {
        match *route {
            Route::Claimed(a) | Route::Proven(a) => drop(addresses.insert(a)),
            Route::Forgotten(a) => drop(addresses.remove(&a)),
            Route::Asked(id) => asked.push(id),
            Route::Answered(id) => {
                let at = asked.iter().position(|a| *a == id).unwrap();
                asked.remove(at);
            }
            Route::Source(_) => unreachable!(),
        }
    }
    assert_eq!((addresses.len(), asked.len()), (0, 0));
    assert!(bench.reach.addresses.iter().count() <= MAX_ADDRESSES && bench.reach.asked.len() <= MAX_ASKED);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A check with valid integrity.
    Check(u16, stun::Nomination),
    /// A packet with valid authentication.
    Media(u16, usize),
    /// The agent wants to send.
    Agent(u16, usize),
    /// A check of ours that went there is answered.
    Answer(u16),
    Connect(u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let nomination = prop_oneof![Just(stun::Nomination::None), Just(stun::Nomination::UseCandidate)];
    prop_oneof![
        5 => (0u16..50, nomination).prop_map(|(a, n)| Step::Check(a, n)),
        3 => (0u16..50, 12usize..300).prop_map(|(a, n)| Step::Media(a, n)),
        5 => (0u16..50, 1usize..1_200).prop_map(|(a, n)| Step::Agent(a, n)),
        1 => (0u16..50).prop_map(Step::Answer),
        1 => (0u16..50).prop_map(Step::Connect),
        2 => (0u64..3_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whoever sends: the agent, the answers to checks, our own checks.
    #[test]
    fn nobody_who_has_not_answered_is_sent_more_than_the_rule_allows(steps in prop::collection::vec(step(), 0..200)) {
        let mut bench = Bench::new();
        let mut received: HashMap<SocketAddr, usize> = HashMap::new();
        let mut sent: HashMap<SocketAddr, (usize, usize)> = HashMap::new();
        let mut proven: HashSet<SocketAddr> = HashSet::new();
        let mut connected = false;
        for step in steps {
            match step {
                Step::Check(a, nomination) => {
                    let data = check("ufragoftheworker", "abcd", OUR_PASSWORD, nomination);
                    *received.entry(addr(a)).or_default() += data.len();
                    bench.stun(addr(a), &data);
                }
                Step::Media(a, octets) => {
                    *received.entry(addr(a)).or_default() += octets;
                    bench.with(|reach, io| reach.media(addr(a), Newest::Yes, octets, io));
                }
                // The agent knows only whom it has heard of; candidates of the offer are a matter of its own.
                Step::Agent(a, octets) if connected || bench.reach.addresses.iter().any(|known| known == addr(a)) => {
                    bench.with(|reach, io| reach.send(addr(a), &vec![22; octets], io));
                }
                Step::Agent(..) => {}
                Step::Answer(a) => {
                    let asked = bench.reach.asked.iter().find(|(_, to)| *to == addr(a)).copied();
                    if let Some((id, _)) = asked {
                        bench.stun(addr(a), &answer(id, THEIR_PASSWORD));
                        proven.insert(addr(a));
                    }
                }
                Step::Connect(a) => {
                    if !connected {
                        connected = true;
                        bench.with(|reach, io| reach.connected(addr(a), io));
                        proven.insert(addr(a));
                    }
                }
                Step::Wait(ms) => bench.now += Duration::from_millis(ms),
            }
            for (to, data) in bench.out.iter() {
                let (all, later) = sent.entry(to).or_default();
                *all += data.len();
                *later += if connected { data.len() } else { 0 };
            }
            bench.out.clear();
            bench.routes.clear();
        }
        if let Some(current) = bench.reach.current() {
            prop_assert!(proven.contains(&current), "media goes to {current}, which has proven nothing");
        }
        for (to, (all, later)) in sent.iter().filter(|(to, _)| !proven.contains(to)) {
            let received = received.get(to).copied().unwrap_or_default();
            prop_assert!(*all <= 3 * received && *later <= received, "{to}: {all} ({later}) for {received}");
        }
    }
}
