//! What is so of a table whatever happens.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Open { session: u8, token: Option<u8>, user: Option<u8> },
    Write { context: u8, bytes: usize },
    Share { session: u8, token: u8, user: Option<u8> },
    Confirm { context: u8, token: u8, delivery: Delivery },
    Close { context: u8 },
    Restore { context: u8, session: u8, generation: u8 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_u8, proptest::option::of(0..40_u8), proptest::option::of(0..2_u8))
            .prop_map(|(session, token, user)| Step::Open { session, token, user }),
        2 => (0..40_u8, 0..700_usize).prop_map(|(context, bytes)| Step::Write { context, bytes }),
        2 => (0..3_u8, 0..40_u8, proptest::option::of(0..2_u8))
            .prop_map(|(session, token, user)| Step::Share { session, token, user }),
        1 => (0..40_u8, 0..40_u8, prop_oneof![Just(Delivery::Known), Just(Delivery::Sent)])
            .prop_map(|(context, token, delivery)| Step::Confirm { context, token, delivery }),
        2 => (0..40_u8).prop_map(|context| Step::Close { context }),
        1 => (0..40_u8, 0..3_u8, 0..4_u8)
            .prop_map(|(context, session, generation)| Step::Restore { context, session, generation }),
        1 => (0..700_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    /// Whatever happens: the bounds hold, the indices agree, and nobody resumes without the token or the user.
    #[test]
    fn nothing_leaks_and_nothing_grows(steps in proptest::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Open { session, token: shown, user: who } => {
                    let who = who.map(|n| user(&format!("u{n}")));
                    let claim = Claim { token: shown.map(token), user: who.clone() };
                    let (id, fresh) = (ContextId(u128::from(world.opened) + 1), token(world.opened + 1));
                    let key = key(&format!("s{session}"));
                    let shows_token = |tokens: &Tokens, user: &Option<UserId>| {
                        claim.token.is_some_and(|token| tokens.takes(&token, world.now)) && (user.is_none() || *user == who)
                    };
                    let kept = world.table.contexts.iter()
                        .filter(|(_, c)| c.key == key && c.expires.is_none_or(|at| at > world.now))
                        .filter(|(_, c)| (c.user.is_some() && c.user == who) || shows_token(&c.tokens, &c.user));
                    let empty = world.table.empties.all().filter(|(of, expires, _)| **of == key && *expires > world.now);
                    let empty = empty.filter(|(_, _, empty)| shows_token(&empty.tokens, &empty.user));
                    let may: Vec<ContextId> =
                        kept.map(|(id, _)| *id).chain(empty.map(|(_, _, empty)| empty.id)).collect();
                    let Ok(opened) = world.table.open(&key, &claim, id, fresh, world.now) else { continue };
                    world.opened += 1;
                    prop_assert_eq!(opened.resumed, !may.is_empty());
                    prop_assert!(!opened.resumed || may.contains(&opened.id));
                    prop_assert!(opened.resumed || opened.document == Document::default());
                }
                Step::Write { context, bytes } => {
                    let text = "x".repeat(bytes);
                    let _ = world.table.write(ContextId(u128::from(context)), data(&text), Expected::Anything, world.now);
                }
                Step::Share { session, token: shown, user: who } => {
                    let who = who.map(|n| user(&format!("u{n}")));
                    let claim = Claim { token: Some(token(shown)), user: who.clone() };
                    let key = key(&format!("s{session}"));
                    let may = world.table.contexts.values().any(|c| {
                        c.key == key && c.holders > 0 && c.tokens.takes(&token(shown), world.now) && (c.user.is_none() || c.user == who)
                    });
                    let shared = world.table.share(&key, &claim, token(world.opened + 1), world.now).opened();
                    world.opened += u8::from(shared.is_some());
                    prop_assert!(may || shared.is_none());
                }
                Step::Confirm { context, token: shown, delivery } => {
                    let id = ContextId(u128::from(context));
                    let known = world.table.contexts.get(&id).is_some_and(|c| c.tokens.is_new(&token(shown)));
                    prop_assert_eq!(world.table.confirm(id, &token(shown), delivery, world.now), known);
                }
                Step::Close { context } => world.table.close(ContextId(u128::from(context)), world.now),
                Step::Restore { context, session, generation } => {
                    let id = ContextId(u128::from(context));
                    let key = key(&format!("s{session}"));
                    // One that once was; it has one key for life, and tokens that nobody else was given.
                    let known = world.table.contexts.get(&id).map(|c| c.key.clone());
                    let empty = world.table.empties.all().find(|(_, _, empty)| empty.id == id).map(|(of, ..)| of.clone());
                    if !(1..=world.opened).contains(&context) || known.or(empty).is_some_and(|of| of != key) { continue }
                    world.opened += 1;
                    let issued = Issued { token: token(world.opened), generation: Generation(u64::from(generation)) };
                    let kept = Kept { id, user: None, issued, data: Map::new(), version: Version::default() };
                    let before = world.table.contexts.get(&id).map_or(0, |c| c.holders);
                    if world.table.restore(&key, &kept, world.now).is_ok() {
                        prop_assert_eq!(world.table.contexts[&id].holders, before + 1);
                    }
                }
                Step::Wait { seconds } => world.now += Duration::from_secs(seconds),
            }
            let table = &world.table;
            prop_assert!(table.len() <= bounds().contexts && table.bytes <= bounds().bytes);
            prop_assert_eq!(table.bytes, table.contexts.values().map(|c| c.bytes).sum::<usize>());
            prop_assert!(table.empties.len() <= 3 * bounds().closed_per_key);
            prop_assert!(table.empties.all().all(|(_, _, empty)| !table.contexts.contains_key(&empty.id)));
            prop_assert_eq!(table.by_key.values().map(Vec::len).sum::<usize>(), table.len());
            prop_assert_eq!(table.closed.len(), table.contexts.values().filter(|c| c.expires.is_some()).count());
            prop_assert!(table.contexts.values().all(|c| (c.holders == 0) == c.expires.is_some()));
            let share = bounds().bytes / bounds().contexts;
            let large = table.contexts.iter().filter(|(_, c)| c.expires.is_some() && c.bytes > share);
            prop_assert_eq!(table.closed.large().collect::<BTreeSet<_>>(), large.map(|(id, _)| *id).collect());
        }
    }
}
