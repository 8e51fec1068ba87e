use proptest::prelude::*;
use serde_json::json;
use streamfleet_session::Metadata;
use streamfleet_session::metadata::MetadataLimits;
use streamfleet_store::{Epoch, Heartbeat, Order, Owner};

use super::*;

fn service(routing: Value) -> Service {
    let spec = json!({ "path": "/rooms/{room}", "handler": { "name": "echo" }, "routing": routing });
    Service::new("a".parse().unwrap(), serde_json::from_value(spec).unwrap()).unwrap()
}

/// A worker that serves: `name`, or `name@variant`.
fn worker(name: &str, sessions: u32, capacity: u32) -> WorkerView {
    let (name, variant) = name.split_once('@').map_or((name, None), |(name, variant)| (name, Some(variant.to_owned())));
    let said = Heartbeat {
        capacity,
        active: sessions,
        reserved: 0,
        gate: Gate::Open,
        heard: Order::default(),
        http: format!("{name}:8081"),
        media: Vec::new(),
        version: "1".to_owned(),
        variant,
    };
    let owner = Owner { worker: name.parse().unwrap(), epoch: Epoch(1) };
    WorkerView { owner, said: Some(said), gate: Gate::Open, order: Order::default(), sessions, age: Duration::ZERO }
}

fn plan(service: &Service, caller: &Caller, without: Option<&str>, workers: &[WorkerView]) -> Result<Plan, NoPlan> {
    let (params, _) = service.paths[0].strip("/rooms/7").unwrap();
    let without: Option<WorkerId> = without.map(|name| name.parse().unwrap());
    let session = "k3j9x0a".parse().unwrap();
    Wish { service, params: &params, session: &session, caller, without: without.as_ref() }.plan(workers, Loads::Told)
}

fn names(plan: &Result<Plan, NoPlan>) -> Vec<&str> {
    plan.as_ref().unwrap().ranked.iter().map(WorkerId::as_str).collect()
}

fn caller(user: Option<&str>, metadata: &Value) -> Caller {
    let metadata = Metadata::parse(metadata, &MetadataLimits::default()).unwrap();
    Caller { user: user.map(|user| user.parse().unwrap()), metadata, ..Caller::default() }
}

/// When somebody for whom all are full waits for one more.
#[test]
fn who_grows_is_waited_for() {
    let check = |what: &str, grows_to: Option<u32>, routing: Value, workers: &[WorkerView], expected: bool| {
        let service = Service { grows_to, ..service(routing) };
        let (params, _) = service.paths[0].strip("/rooms/7").unwrap();
        let (session, caller) = ("k3j9x0a".parse().unwrap(), Caller::default());
        let wish = Wish { service: &service, params: &params, session: &session, caller: &caller, without: None };
        assert_eq!(wish.grows(workers), expected, "{what}");
    };
    let full = |name: &str| worker(name, 9, 9);
    let drains = WorkerView { gate: Gate::Draining, ..full("drains") };
    let mute = WorkerView { said: None, ..full("mute") };
    let plain = || json!({});
    check("nobody makes workers", None, plain(), &[full("w")], false);
    check("one may come", Some(2), plain(), &[full("w")], true);
    check("all that may are there", Some(2), plain(), &[full("w"), full("v")], false);
    check("more than may", Some(1), plain(), &[full("w"), full("v")], false);
    check("who drains makes room for another", Some(2), plain(), &[full("w"), drains], true);
    check("who is not ready comes", Some(2), plain(), &[full("w"), mute], true);
    check("another kind is not its own", Some(1), plain(), &[full("w@b")], true);
    let halves = || json!({ "variants": [{ "name": "b", "weight": 50 }] });
    let own = |name: &str| {
        if variant(&service(halves()).variants, "k3j9x0a").is_some() { full(&format!("{name}@b")) } else { full(name) }
    };
    check("half of four", Some(4), halves(), &[own("w")], true);
    check("two are the half of four", Some(4), halves(), &[own("w"), own("v")], false);
    let all = || json!({ "variants": [{ "name": "b", "weight": 100 }] });
    check("a variant that everybody has", Some(2), all(), &[full("w@b"), full("old")], true);
    check("and has all of it", Some(2), all(), &[full("w@b"), full("v@b")], false);
}

#[test]
fn only_workers_that_serve_are_asked() {
    let (plain, nobody) = (service(json!({})), Caller::default());
    let drains = WorkerView { gate: Gate::Draining, ..worker("drains", 0, 9) };
    let mute = WorkerView { said: None, ..worker("mute", 0, 9) };
    let all = [drains, mute, worker("full", 9, 9), worker("other@b", 0, 9), worker("w", 3, 9), worker("v", 1, 9)];
    assert_eq!(names(&plan(&plain, &nobody, None, &all)), ["w", "v"], "the fuller one first");
    assert_eq!(names(&plan(&plain, &nobody, Some("w"), &all)), ["v"]);
    assert_eq!(plan(&plain, &nobody, None, &all[..2]), Err(NoPlan::NotReady));
    assert_eq!(plan(&plain, &nobody, None, &all[..3]), Err(NoPlan::Full));
    assert_eq!(plan(&plain, &nobody, Some("w"), &all[4..5]), Err(NoPlan::NotReady));
}

#[test]
fn what_sessions_share() {
    #[track_caller]
    fn check(by: &str, strength: &str, caller: &Caller, pin: Result<Option<&str>, ()>) {
        let service = service(json!({ "affinity": { "by": by, "strength": strength } }));
        let plan = plan(&service, caller, None, &[worker("w", 0, 9)]);
        let found = plan.as_ref().map(|plan| plan.pin.as_ref().map(PinValue::as_str)).map_err(|_| ());
        assert_eq!(found, pin, "{by} {strength}");
    }
    let mia = caller(Some("mia"), &json!({ "room": 7, "list": [1], "empty": "" }));
    check("session", "Require", &mia, Ok(None));
    check("user", "Prefer", &mia, Ok(None));
    check("user", "Require", &mia, Ok(Some("mia")));
    check("user", "Require", &Caller::default(), Ok(None));
    check("metadata:room", "Require", &mia, Ok(Some("7")));
    check("metadata:list", "Require", &mia, Err(()));
    check("metadata:list", "Prefer", &mia, Err(()));
    check("metadata:empty", "Require", &mia, Ok(None));
    check("path:room", "Require", &Caller::default(), Ok(Some("7")));
    let long = caller(None, &json!({ "room": "x".repeat(257) }));
    check("metadata:room", "Require", &long, Err(()));
}

/// Whoever must be with others goes to them past every bound, so the claim is asked although all look full.
#[test]
fn a_pinned_session_is_claimed_where_all_look_full() {
    let service = service(json!({ "affinity": { "by": "path:room", "strength": "Require" } }));
    assert_eq!(names(&plan(&service, &Caller::default(), None, &[worker("w", 9, 9)])), ["w"]);
}

#[test]
fn users_keep_their_variant() {
    let variants = json!([{ "name": "b", "weight": 10 }, { "name": "c", "weight": 20 }]);
    let (service, workers) =
        (service(json!({ "variants": variants })), [worker("w", 0, 9), worker("wb@b", 0, 9), worker("wc@c", 0, 9)]);
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for n in 0..2_000 {
        let caller = caller(Some(&format!("user-{n}")), &json!({}));
        let plan = plan(&service, &caller, None, &workers).unwrap();
        let expected = plan.variant.as_deref().map_or("w", |variant| if variant == "b" { "wb" } else { "wc" });
        assert_eq!(plan.ranked.iter().map(WorkerId::as_str).collect::<Vec<_>>(), [expected]);
        *counts.entry(plan.variant.unwrap_or_default()).or_default() += 1;
    }
    // Five deviations of binomials of 2 000.
    for (variant, expected) in [("b", 200), ("c", 400), ("", 1_400)] {
        assert!(counts[variant].abs_diff(expected) < 110, "{variant}: {counts:?}");
    }
}

proptest! {
    /// Nobody is asked who drains, is full, serves another variant or has just refused; nobody twice.
    #[test]
    fn nobody_is_asked_in_vain(
        loads in prop::collection::vec((0..6_u32, 0..6_u32, 0..3_u8, 0..4_u8), 0..20),
        user in "[a-z]{1,6}",
        without in 0..20_usize,
    ) {
        let service = service(json!({ "variants": [{ "name": "b", "weight": 50 }] }));
        let workers: Vec<WorkerView> = loads.iter().enumerate().map(|(n, (sessions, capacity, variant, gate))| {
            let name = if *variant == 0 { format!("w{n}@b") } else { format!("w{n}") };
            let view = worker(&name, *sessions, *capacity);
            WorkerView { gate: if *gate == 0 { Gate::Draining } else { Gate::Open }, ..view }
        }).collect();
        let without = format!("w{without}");
        let caller = caller(Some(&user), &json!({}));
        let plan = plan(&service, &caller, Some(&without), &workers);
        let ranked = plan.as_ref().map_or(&[][..], |plan| &plan.ranked);
        for (n, name) in ranked.iter().enumerate() {
            prop_assert!(!ranked[..n].contains(name) && name.as_str() != without);
            let view = workers.iter().find(|view| view.owner.worker == *name).unwrap();
            let said = view.said.as_ref().unwrap();
            prop_assert!(view.gate == Gate::Open && view.sessions < said.capacity);
            prop_assert_eq!(&said.variant, &plan.as_ref().unwrap().variant);
        }
        prop_assert!(plan.is_err() || !ranked.is_empty());
    }
}

/// While nobody can say how much they carry, every router asks the same worker first: also one that looks full.
#[test]
fn without_loads_the_hash_decides() {
    let (service, caller) = (service(json!({})), Caller::default());
    let (params, _) = service.paths[0].strip("/rooms/7").unwrap();
    let blind = |session: &str, workers: &[WorkerView]| {
        let session = session.parse().unwrap();
        let wish = Wish { service: &service, params: &params, session: &session, caller: &caller, without: None };
        wish.plan(workers, Loads::Unknown).unwrap().ranked
    };
    let (one, other) = ([worker("v", 9, 9), worker("w", 0, 9)], [worker("v", 2, 9), worker("w", 8, 9)]);
    let mut firsts = std::collections::BTreeSet::new();
    for n in 0..40 {
        let id = format!("x{n}");
        assert_eq!(blind(&id, &one), blind(&id, &other), "{id}");
        firsts.insert(blind(&id, &one)[0].clone());
    }
    assert_eq!(firsts.len(), 2, "and not always the same");
}
