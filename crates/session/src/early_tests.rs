use proptest::prelude::*;

use super::*;
use Insertion::{Buffered, Refused};

fn id(n: usize) -> SessionId {
    format!("id{n}").parse().unwrap()
}

fn v4(n: usize) -> IpAddr {
    IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
}

fn candidate(port: usize) -> ParsedCandidate {
    let line = format!("candidate:1 1 udp 1 10.0.0.5 {port} typ host");
    ParsedCandidate::Candidate(RemoteCandidate::from_line(&line).unwrap())
}

fn ports(candidates: &[RemoteCandidate]) -> Vec<u16> {
    candidates.iter().map(|candidate| candidate.socket_addr().unwrap().port()).collect()
}

#[test]
fn an_offer_gets_its_candidates_once_and_in_order() {
    let now = Instant::now();
    let mut early = EarlyCandidates::default();
    for port in [3, 1, 2] {
        assert_eq!(early.insert(&id(0), v4(1), candidate(port), now), Buffered);
    }
    assert_eq!(early.insert(&id(0), v4(1), ParsedCandidate::EndOfCandidates, now), Buffered);
    assert_eq!(early.insert(&id(1), v4(1), candidate(9), now), Buffered);
    assert_eq!(ports(&early.offer_arrived(&id(0), now)), [3, 1, 2]);
    assert!(early.offer_arrived(&id(0), now).is_empty());
    assert_eq!(early.len(), 1);
}

#[test]
fn an_id_has_32_messages() {
    let now = Instant::now();
    let mut early = EarlyCandidates::default();
    for n in 0..32 {
        let message = if n % 2 == 0 { candidate(n + 1) } else { ParsedCandidate::EndOfCandidates };
        assert_eq!(early.insert(&id(0), v4(n), message, now), Buffered);
    }
    assert_eq!(early.insert(&id(0), v4(1), candidate(1), now), Refused);
    assert_eq!(early.offer_arrived(&id(0), now).len(), 16);
}

#[test]
fn five_seconds_from_the_first() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut early = EarlyCandidates::default();
    assert_eq!(early.poll_timeout(), None);
    early.insert(&id(0), v4(1), candidate(1), start);
    early.insert(&id(0), v4(1), candidate(2), at(4000));
    early.insert(&id(1), v4(1), candidate(3), at(4000));
    assert_eq!(early.poll_timeout(), Some(at(5000)));
    assert_eq!(early.len(), 2);
    early.expire(at(4999));
    assert_eq!(early.len(), 2);
    assert!(early.offer_arrived(&id(0), at(5000)).is_empty());
    assert_eq!(early.poll_timeout(), Some(at(9000)));
    assert_eq!(ports(&early.offer_arrived(&id(1), at(8999))), [3]);
    assert_eq!(early.poll_timeout(), None);
}

#[test]
fn a_source_begins_16_ids() {
    let now = Instant::now();
    let mut early = EarlyCandidates::default();
    for n in 0..16 {
        assert_eq!(early.insert(&id(n), v4(1), candidate(1), now), Buffered);
    }
    assert_eq!(early.insert(&id(16), v4(1), candidate(1), now), Refused);
    // Another source may begin it, and the full one may add to ids that are there.
    assert_eq!(early.insert(&id(16), v4(2), candidate(1), now), Buffered);
    assert_eq!(early.insert(&id(16), v4(1), candidate(1), now), Buffered);
    // An offer frees a place.
    early.offer_arrived(&id(3), now);
    assert_eq!(early.insert(&id(17), v4(1), candidate(1), now), Buffered);
    assert_eq!(early.insert(&id(18), v4(1), candidate(1), now), Refused);
    assert_eq!(early.insert(&id(18), v4(1), candidate(1), now + Duration::from_secs(5)), Buffered);
}

#[test]
fn an_ipv6_source_is_its_network() {
    let now = Instant::now();
    let mut early = EarlyCandidates::default();
    for n in 0..16 {
        let address: IpAddr = format!("2001:db8:0:1::{n:x}").parse().unwrap();
        assert_eq!(early.insert(&id(n), address, candidate(1), now), Buffered);
    }
    assert_eq!(early.insert(&id(16), "2001:db8:0:1:ffff::1".parse().unwrap(), candidate(1), now), Refused);
    assert_eq!(early.insert(&id(16), "2001:db8:0:2::1".parse().unwrap(), candidate(1), now), Buffered);
    // Mapped addresses are the IPv4 hosts they stand for, not one network of all of them.
    assert_eq!(source_key("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
}

#[test]
fn there_are_4096_ids() {
    let now = Instant::now();
    let mut early = EarlyCandidates::default();
    for n in 0..4096 {
        assert_eq!(early.insert(&id(n), v4(n), candidate(1), now), Buffered);
    }
    assert_eq!(early.insert(&id(4096), v4(4096), candidate(1), now), Refused);
    early.expire(now + Duration::from_secs(5));
    assert!(early.is_empty());
    assert!(early.per_source.is_empty() && early.deadlines.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Insert { id: usize, source: usize },
    Offer { id: usize },
    Wait { millis: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..12, 0usize..4).prop_map(|(id, source)| Step::Insert { id, source }),
        1 => (0usize..12).prop_map(|id| Step::Offer { id }),
        1 => (0u64..2000).prop_map(|millis| Step::Wait { millis }),
    ]
}

proptest! {
    /// Against a model that knows nothing of the indexes: a list of (id, source, first, ports).
    #[test]
    fn the_bounds_hold_in_any_order(steps in prop::collection::vec(any_step(), 0..200)) {
        let limits = EarlyLimits { per_id: 5, keep: Duration::from_secs(5), ids: 8, ids_per_source: 3 };
        let mut now = Instant::now();
        let mut early = EarlyCandidates::new(limits);
        let mut model: Vec<(usize, usize, Instant, Vec<u16>)> = Vec::new();
        let mut next_port = 1u16;
        for step in steps {
            match step {
                Step::Wait { millis } => now += Duration::from_millis(millis),
                Step::Insert { id: n, source } => {
                    model.retain(|entry| now < entry.2 + limits.keep);
                    let of_source = model.iter().filter(|entry| entry.1 == source).count();
                    let begun = model.iter().any(|entry| entry.0 == n);
                    if !begun && model.len() < limits.ids && of_source < limits.ids_per_source {
                        model.push((n, source, now, Vec::new()));
                    }
                    let entry = model.iter_mut().find(|entry| entry.0 == n && entry.3.len() < limits.per_id);
                    let expected = if let Some(entry) = entry { entry.3.push(next_port); Buffered } else { Refused };
                    prop_assert_eq!(early.insert(&id(n), v4(source), candidate(next_port.into()), now), expected);
                    next_port += 1;
                }
                Step::Offer { id: n } => {
                    model.retain(|entry| now < entry.2 + limits.keep);
                    let expected = match model.iter().position(|entry| entry.0 == n) {
                        Some(at) => model.remove(at).3,
                        None => Vec::new(),
                    };
                    prop_assert_eq!(ports(&early.offer_arrived(&id(n), now)), expected);
                }
            }
            prop_assert!(early.len() <= limits.ids);
            prop_assert_eq!(early.deadlines.len(), early.len());
            prop_assert_eq!(early.per_source.values().sum::<usize>(), early.len());
            prop_assert!(early.per_source.values().all(|ids| (1..=limits.ids_per_source).contains(ids)));
        }
    }
}
