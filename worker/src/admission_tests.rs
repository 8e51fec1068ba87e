use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;

fn limits(concurrency: u32, per_user: u32) -> Limits {
    Limits { concurrency: NonZeroU32::new(concurrency), per_user: NonZeroU32::new(per_user), ..Limits::default() }
}

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn id(n: impl fmt::Display) -> SessionId {
    format!("s{n}").parse().unwrap()
}

fn user(n: impl fmt::Display) -> UserId {
    format!("u{n}").parse().unwrap()
}

#[test]
fn refusals_and_their_order() {
    let occupancy = Occupancy::new(number(3));
    let (a, b) = (occupancy.service(limits(2, 1)), occupancy.service(limits(0, 0)));
    let check = |door: &Admission, n: u32, who: Option<u32>, expected: Result<(), Refusal>| {
        let outcome = door.admit(&id(n), who.map(user).as_ref(), Instant::now());
        assert_eq!(outcome.as_ref().map(|_| ()).map_err(|e| *e), expected, "session {n} of {who:?}");
        outcome.ok()
    };
    let first = check(&a, 1, Some(1), Ok(()));
    check(&a, 1, Some(1), Err(Refusal::AlreadyExists));
    check(&b, 1, None, Err(Refusal::AlreadyExists));
    check(&a, 2, Some(1), Err(Refusal::UserLimit { limit: number(1) }));
    let second = check(&a, 2, None, Ok(()));
    check(&a, 3, Some(1), Err(Refusal::Concurrency { limit: number(2) }));
    check(&a, 1, Some(1), Err(Refusal::AlreadyExists));
    let third = check(&b, 3, Some(1), Ok(()));
    check(&b, 4, Some(1), Err(Refusal::Full));
    assert_eq!((a.live(), b.live(), occupancy.live()), (2, 1, 3));
    drop(first);
    let _again = check(&a, 1, Some(1), Ok(()));
    occupancy.drain();
    check(&a, 1, None, Err(Refusal::Draining));
    drop((second, third));
    check(&a, 9, None, Err(Refusal::Draining));
    assert_eq!((a.live(), b.live(), occupancy.live()), (1, 0, 1));
}

#[test]
fn a_client_that_moves_shares_its_place() {
    let occupancy = Occupancy::new(number(2));
    let (door, other) = (occupancy.service(limits(2, 1)), occupancy.service(limits(9, 9)));
    let now = Instant::now();
    let (ann, bob) = (user("ann"), user("bob"));
    let first = door.admit(&id(1), Some(&ann), now).unwrap();
    let neighbour = door.admit(&id(2), Some(&bob), now).unwrap();
    assert_eq!((first.entry(), neighbour.entry()), (Entry::New, Entry::New));
    // Everything is full, and a client moves all the same.
    let check = |door: &Admission, who: Option<&UserId>, expected: Result<Entry, Refusal>| {
        let taken = door.take_over(&id(1), who, now);
        assert_eq!(taken.as_ref().map(Slot::entry).map_err(|e| *e), expected, "{who:?}");
        assert_eq!((door.live(), occupancy.live()), (if door.live() == 0 { 0 } else { 2 }, 2));
        taken.ok()
    };
    let second = check(&door, Some(&ann), Ok(Entry::TakeOver));
    check(&other, Some(&ann), Err(Refusal::AlreadyExists));
    // Another user's limit is his own.
    check(&door, Some(&bob), Err(Refusal::UserLimit { limit: number(1) }));
    let third = check(&door, None, Ok(Entry::TakeOver));
    let fourth = check(&door, Some(&ann), Ok(Entry::TakeOver));
    check(&door, Some(&ann), Err(Refusal::Full));
    // The place is held by whoever is left, and is free with the last.
    drop((first, fourth, third));
    assert_eq!(door.live(), 2);
    assert!(matches!(door.admit(&id(3), None, now), Err(Refusal::Concurrency { .. })));
    assert!(matches!(door.admit(&id(1), None, now), Err(Refusal::AlreadyExists)));
    drop(second);
    assert_eq!((door.live(), occupancy.live()), (1, 1));
    let again = door.take_over(&id(1), Some(&ann), now).unwrap();
    assert_eq!(again.entry(), Entry::New, "nobody was there to take over from");
    drop((neighbour, again));
    assert!(occupancy.0.lock().services.iter().all(|counts| counts.live == 0 && counts.users.is_empty()));
    occupancy.drain();
    assert_eq!(door.take_over(&id(1), None, now).map(|_| ()), Err(Refusal::Draining));
}

#[test]
fn a_panic_frees_the_slot() {
    let door = Admission::new(limits(1, 1));
    let held = door.clone();
    let crash = std::thread::spawn(move || {
        let _slot = held.admit(&id(1), Some(&user(1)), Instant::now()).unwrap();
        panic!("a handler crashed");
    });
    assert!(crash.join().is_err());
    assert_eq!(door.live(), 0);
    assert!(door.admit(&id(1), Some(&user(1)), Instant::now()).is_ok());
}

#[test]
fn threads_never_exceed_the_limits_and_leave_nothing() {
    let occupancy = Occupancy::default();
    let door = occupancy.service(limits(5, 2));
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let door = door.clone();
            scope.spawn(move || {
                for round in 0..2_000_u32 {
                    let slot = door.admit(&id(round % 7), Some(&user((round + thread) % 3)), Instant::now());
                    assert!(door.live() <= 5);
                    drop(slot);
                }
            });
        }
    });
    assert_eq!(occupancy.live(), 0);
    assert!(occupancy.0.lock().services.iter().all(|counts| counts.live == 0 && counts.users.is_empty()));
}

#[derive(Debug, Clone)]
enum Step {
    Admit { service: usize, id: u8, user: Option<u8> },
    TakeOver { service: usize, id: u8, user: Option<u8> },
    Release(usize),
}

/// A slot by its service, id and user.
type Held = (usize, u8, Option<u8>, Slot);

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, 0..12_u8, proptest::option::of(0..4_u8))
            .prop_map(|(service, id, user)| Step::Admit { service, id, user }),
        2 => (0..2_usize, 0..12_u8, proptest::option::of(0..4_u8))
            .prop_map(|(service, id, user)| Step::TakeOver { service, id, user }),
        3 => (0..16_usize).prop_map(Step::Release),
    ]
}

proptest! {
    /// Any interleaving: admissions follow a plain model of the live sessions, and nothing leaks.
    #[test]
    fn admission_is_its_model(steps in proptest::collection::vec(step(), 0..200)) {
        let occupancy = Occupancy::new(number(6));
        let of = [(4, 2), (3, 0)];
        let doors = of.map(|(concurrency, per_user)| occupancy.service(limits(concurrency, per_user)));
        let mut live: Vec<Held> = Vec::new();
        for step in steps {
            match step {
                Step::Admit { service, id: n, user: who } | Step::TakeOver { service, id: n, user: who } => {
                    let (concurrency, per_user) = of[service];
                    let ids = |of: &dyn Fn(&Held) -> bool| {
                        live.iter().filter(|slot| of(slot)).map(|slot| slot.1).collect::<BTreeSet<u8>>()
                    };
                    let holders: Vec<_> = live.iter().filter(|slot| slot.1 == n).collect();
                    let mine = ids(&|slot| slot.0 == service).len();
                    let his = ids(&|slot| slot.0 == service && who.is_some() && slot.2 == who);
                    let moves = matches!(step, Step::TakeOver { .. }) && !holders.is_empty();
                    let is_over = per_user > 0 && who.is_some() && his.len() >= per_user as usize;
                    let expected = if moves && holders.iter().any(|slot| slot.0 != service) {
                        Err(Refusal::AlreadyExists)
                    } else if moves && holders.len() >= MAX_HOLDERS {
                        Err(Refusal::Full)
                    } else if !moves && !holders.is_empty() {
                        Err(Refusal::AlreadyExists)
                    } else if !moves && mine >= concurrency as usize {
                        Err(Refusal::Concurrency { limit: number(concurrency) })
                    } else if is_over && !(moves && his.contains(&n)) {
                        Err(Refusal::UserLimit { limit: number(per_user) })
                    } else if !moves && ids(&|_| true).len() >= 6 {
                        Err(Refusal::Full)
                    } else {
                        Ok(())
                    };
                    let (id, who_is) = (id(n), who.map(user));
                    let outcome = match step {
                        Step::Admit { .. } => doors[service].admit(&id, who_is.as_ref(), Instant::now()),
                        _ => doors[service].take_over(&id, who_is.as_ref(), Instant::now()),
                    };
                    prop_assert_eq!(outcome.as_ref().map(|_| ()).map_err(|e| *e), expected);
                    live.extend(outcome.ok().map(|slot| (service, n, who, slot)));
                }
                Step::Release(at) if !live.is_empty() => {
                    drop(live.swap_remove(at % live.len()));
                }
                Step::Release(_) => {}
            }
            let ids: BTreeSet<u8> = live.iter().map(|slot| slot.1).collect();
            prop_assert_eq!(occupancy.live(), ids.len());
        }
        drop(live);
        prop_assert_eq!(occupancy.live(), 0);
        prop_assert!(occupancy.0.lock().services.iter().all(|c| c.live == 0 && c.users.is_empty()));
    }
}
