mod properties;

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::memory::{EMPTY_RETENTION, TOKEN_GRACE};

/// What is given for a live session's token.
fn rotate(
    table: &mut Table,
    key: &ContextKey,
    shown: &ResumeToken,
    next: ResumeToken,
    now: Instant,
) -> Option<ResumeToken> {
    table.rotate(key, shown, next, now).map(|issued| issued.token)
}

const RETENTION: Duration = Duration::from_secs(600);

fn bounds() -> Bounds {
    Bounds { retention: RETENTION, contexts: 8, bytes: 1000, closed_per_key: 2, expired_at_once: 1 }
}

fn key(session: &str) -> ContextKey {
    ContextKey { service: "echo".parse().unwrap(), session: session.parse().unwrap() }
}

fn token(n: u8) -> ResumeToken {
    ResumeToken::from_random([n; ResumeToken::LEN])
}

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

fn nothing() -> Claim {
    Claim::default()
}

fn by_token(n: u8) -> Claim {
    Claim { token: Some(token(n)), user: None }
}

fn by_user(name: &str) -> Claim {
    Claim { token: None, user: Some(user(name)) }
}

fn data(text: &str) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("note".to_owned(), json!(text));
    map
}

impl Sharing {
    fn opened(self) -> Option<Opened> {
        match self {
            Self::Opened(opened) => Some(opened),
            Self::Refused | Self::Nobody => None,
        }
    }
}

/// A table and names for what is opened in it: context and token `n` of the n-th opening.
struct World {
    table: Table,
    now: Instant,
    opened: u8,
}

impl World {
    fn new() -> Self {
        Self { table: Table::new(bounds()), now: Instant::now(), opened: 0 }
    }

    fn open(&mut self, session: &str, claim: &Claim) -> Opened {
        self.opened += 1;
        let n = self.opened;
        self.table.open(&key(session), claim, ContextId(u128::from(n)), token(n), self.now).unwrap()
    }

    /// A session that wrote a note and ended.
    fn past(&mut self, session: &str, claim: &Claim, note: &str) -> Opened {
        let opened = self.open(session, claim);
        self.table.write(opened.id, data(note), Expected::Anything, self.now).unwrap();
        self.table.close(opened.id, self.now);
        opened
    }
}

#[test]
fn only_the_token_or_the_verified_user_resumes() {
    fn check(first: &Claim, second: &Claim, expected: Option<&str>) {
        let mut world = World::new();
        world.past("k3x9", first, "private");
        let opened = world.open("k3x9", second);
        assert_eq!(opened.resumed, expected.is_some(), "{first:?} then {second:?}");
        assert_eq!(opened.document.data.get("note").and_then(Value::as_str), expected, "{first:?} then {second:?}");
        assert_eq!(opened.token, token(2), "the token is replaced either way");
    }
    // The id alone, which a stranger's browser may have made as well.
    check(&nothing(), &nothing(), None);
    check(&by_user("ann"), &nothing(), None);
    check(&by_user("ann"), &by_user("bob"), None);
    check(&nothing(), &by_user("ann"), None);
    check(&nothing(), &by_token(9), None);
    check(&nothing(), &by_token(1), Some("private"));
    check(&by_user("ann"), &by_user("ann"), Some("private"));
    check(&nothing(), &Claim { token: Some(token(1)), user: Some(user("ann")) }, Some("private"));
    check(&by_user("ann"), &Claim { token: Some(token(1)), user: Some(user("ann")) }, Some("private"));
    // A token that was overheard is of no use to somebody else where users prove who they are.
    check(&by_user("ann"), &by_token(1), None);
    check(&by_user("ann"), &Claim { token: Some(token(1)), user: Some(user("bob")) }, None);
}

#[test]
fn a_token_is_verified_and_stays_good() {
    let mut world = World::new();
    let past = world.past("a", &nothing(), "of token 1");
    let live = world.open("a", &nothing());
    for _ in 0..3 {
        assert_eq!(world.table.verify(&key("a"), &token(1), world.now), Some(past.id), "one that is over");
        assert_eq!(world.table.verify(&key("a"), &token(2), world.now), Some(live.id), "one that lives");
    }
    assert_eq!(world.table.verify(&key("a"), &token(3), world.now), None);
    assert_eq!(world.table.verify(&key("b"), &token(1), world.now), None, "another id");
    assert!(world.open("a", &by_token(1)).resumed, "nothing was used up");
    assert_eq!(world.table.verify(&key("a"), &token(1), world.now), Some(past.id), "good once more");
    world.now += TOKEN_GRACE;
    assert_eq!(world.table.verify(&key("a"), &token(1), world.now), None, "now it is");
    world.table.close(past.id, world.now);
    world.now += RETENTION;
    assert_eq!(world.table.verify(&key("a"), &token(3), world.now), None, "forgotten");
}

#[test]
fn a_token_is_good_once_and_for_its_own_id() {
    let mut world = World::new();
    world.past("a", &nothing(), "private");
    assert!(!world.open("b", &by_token(1)).resumed, "another id");
    assert!(world.open("a", &by_token(1)).resumed);
    assert!(world.open("a", &by_token(3)).resumed, "its successor");
    assert!(!world.open("a", &by_token(1)).resumed, "a second time");
}

#[test]
fn a_token_is_good_once_more_while_its_successor_may_be_lost() {
    let mut world = World::new();
    let past = world.past("a", &nothing(), "private");
    assert_eq!(world.open("a", &by_token(1)).id, past.id);
    world.now += TOKEN_GRACE - Duration::from_nanos(1);
    assert_eq!(world.open("a", &by_token(1)).id, past.id, "the answer to the first was lost");
    assert!(!world.open("a", &by_token(1)).resumed, "a third time");
    assert!(!world.open("a", &by_token(2)).resumed, "what was lost");
    assert_eq!(world.open("a", &by_token(3)).id, past.id);
    world.now += TOKEN_GRACE;
    assert!(!world.open("a", &by_token(3)).resumed, "too late");
}

#[test]
fn colliding_ids_neither_share_nor_destroy() {
    let mut world = World::new();
    let ours = world.past("k3x9", &nothing(), "ours");
    for _ in 0..10 {
        let stranger = world.open("k3x9", &nothing());
        assert_eq!((stranger.resumed, stranger.document), (false, Document::default()));
        world.table.close(stranger.id, world.now);
    }
    let again = world.open("k3x9", &Claim { token: Some(ours.token), user: None });
    assert_eq!(again.document.data, data("ours"));
    assert!(world.table.len() <= 1 + bounds().closed_per_key);
}

#[test]
fn of_a_context_that_nothing_was_written_to_the_tokens_stay_for_a_while() {
    let second = Duration::from_secs(1);
    for (after, is_known) in [(Duration::ZERO, true), (EMPTY_RETENTION - second, true), (EMPTY_RETENTION, false)] {
        let mut world = World::new();
        let opened = world.open("a", &nothing());
        world.table.close(opened.id, world.now);
        assert_eq!(world.table.len(), 0, "it takes no room");
        assert_eq!(world.table.read(opened.id, world.now), None);
        world.now += after;
        let again = world.open("a", &by_token(1));
        assert_eq!((again.resumed, again.id == opened.id), (is_known, is_known), "{after:?}");
        assert_eq!(again.generation > opened.generation, is_known);
        assert_eq!(world.table.empties.len(), 0);
    }
}

/// Whose service keeps nothing has nothing kept.
#[test]
fn empty_ones_are_not_kept_for_longer_than_others() {
    let second = Duration::from_secs(1);
    for (retention, after, is_known) in [
        (Duration::ZERO, Duration::ZERO, false),
        (5 * second, 4 * second, true),
        (5 * second, 5 * second, false),
        (RETENTION, EMPTY_RETENTION, false),
    ] {
        let mut world = World::new();
        let opened = world.open("a", &nothing());
        world.table.close_for(opened.id, retention, world.now);
        world.now += after;
        assert_eq!(world.table.verify(&key("a"), &token(1), world.now).is_some(), is_known, "{retention:?} {after:?}");
        assert_eq!(world.open("a", &by_token(1)).resumed, is_known, "{retention:?} {after:?}");
    }
}

#[test]
fn as_many_empty_ones_are_known_as_others() {
    let mut world = World::new();
    for n in 0..=bounds().contexts {
        let opened = world.open(&format!("s{n}"), &nothing());
        world.table.close(opened.id, world.now);
        world.now += Duration::from_millis(1);
    }
    assert_eq!(world.table.empties.len(), bounds().contexts);
    assert!(!world.open("s0", &by_token(1)).resumed);
    assert!(world.open("s1", &by_token(2)).resumed);
}

#[test]
fn a_few_empty_ones_of_an_id_are_known() {
    let mut world = World::new();
    for _ in 0..=bounds().closed_per_key {
        let opened = world.open("a", &nothing());
        world.table.close(opened.id, world.now);
        world.now += Duration::from_millis(1);
    }
    assert_eq!(world.table.empties.len(), bounds().closed_per_key);
    assert!(!world.open("a", &by_token(1)).resumed, "the first has gone for the last");
    assert!(!world.open("b", &by_token(2)).resumed, "another id");
    assert!(!world.open("a", &by_user("ann")).resumed, "nobody showed who he was");
    assert!(world.open("a", &by_token(2)).resumed);
    assert!(world.open("a", &by_token(2)).resumed, "good once more");
    assert!(!world.open("a", &by_token(2)).resumed, "and no more");
}

#[test]
fn a_closed_context_is_forgotten_in_time() {
    let mut world = World::new();
    let past = world.past("a", &nothing(), "x");
    world.now += RETENTION - Duration::from_nanos(1);
    assert!(world.table.read(past.id, world.now).is_some());
    world.now += Duration::from_nanos(1);
    assert_eq!(world.table.read(past.id, world.now), None);
    assert_eq!(world.table.write(past.id, data("y"), Expected::Anything, world.now), Err(WriteError::Gone));
    assert!(!world.open("a", &by_token(1)).resumed);
    assert_eq!(world.table.find(&key("b"), world.now), None);
}

/// Those that expire together are forgotten a few at a call, and known to none of them.
#[test]
fn many_that_expire_together_are_gone_at_once_and_forgotten_one_by_one() {
    let mut world = World::new();
    let past: Vec<Opened> = (0..6).map(|n| world.past(&format!("s{n}"), &by_user("ann"), "private")).collect();
    world.now += RETENTION;
    let (last, of_last) = (past[5].id, key("s5"));
    assert_eq!(world.table.read(last, world.now), None);
    assert_eq!(world.table.len(), 5);
    assert_eq!(world.table.write(last, data("y"), Expected::Anything, world.now), Err(WriteError::Gone));
    assert_eq!(world.table.find(&of_last, world.now), None);
    assert_eq!(world.table.verify(&of_last, &past[5].token, world.now), None);
    assert_eq!(world.table.len(), 2);
    assert!(!world.open("s5", &by_user("ann")).resumed);
    assert_eq!(world.table.len(), 2, "one more, and one less");
    world.table.close(past[0].id, world.now);
    assert_eq!(world.table.len(), 1);
}

#[test]
fn an_open_one_is_not_and_two_sessions_may_hold_it() {
    let mut world = World::new();
    let old = world.open("a", &nothing());
    world.now += RETENTION * 100;
    let new = world.open("a", &by_token(1));
    assert_eq!((new.resumed, new.id), (true, old.id));
    world.table.close(old.id, world.now);
    world.now += RETENTION * 100;
    assert_eq!(world.table.find(&key("a"), world.now), Some(new.id));
    world.table.close(new.id, world.now);
    world.now += RETENTION;
    assert_eq!(world.table.find(&key("a"), world.now), None);
    assert_eq!(world.table.len(), 0);
    // One close too many does nothing to anybody.
    world.table.close(new.id, world.now);
}

#[test]
fn the_live_context_is_found_before_a_closed_one() {
    let mut world = World::new();
    let live = world.open("a", &nothing());
    let later = world.past("a", &nothing(), "gone");
    assert_eq!(world.table.find(&key("a"), world.now), Some(live.id));
    world.table.close(live.id, world.now);
    assert_eq!(world.table.find(&key("a"), world.now), Some(later.id));
}

#[test]
fn only_a_live_sessions_token_is_rotated_and_once() {
    let mut world = World::new();
    let past = world.past("a", &nothing(), "gone");
    let now = world.now;
    assert_eq!(rotate(&mut world.table, &key("a"), &past.token, token(50), now), None, "it does not live");
    let live = world.open("a", &nothing());
    assert_eq!(rotate(&mut world.table, &key("a"), &past.token, token(50), now), None, "another's");
    assert_eq!(rotate(&mut world.table, &key("b"), &live.token, token(50), now), None, "another id");
    assert_eq!(rotate(&mut world.table, &key("a"), &live.token, token(51), now), Some(token(51)));
    assert_eq!(rotate(&mut world.table, &key("a"), &live.token, token(52), now), Some(token(52)), "51 was lost");
    assert_eq!(rotate(&mut world.table, &key("a"), &live.token, token(53), now), None, "used twice");
    assert_eq!(rotate(&mut world.table, &key("a"), &token(51), token(53), now), None, "lost is lost");
    assert_eq!(rotate(&mut world.table, &key("a"), &token(52), token(53), now), Some(token(53)));
    assert_eq!(rotate(&mut world.table, &key("a"), &token(53), token(54), now), Some(token(54)));
    assert_eq!(rotate(&mut world.table, &key("a"), &token(52), token(55), now), None, "its successor was shown");
}

/// A client that moves: its token stays good until it has arrived with the new one.
#[test]
fn a_client_on_its_way_has_two_tokens_until_it_arrives() {
    /// What the client does after it was given token 2 for token 1; then which tokens are good, and whether a session that
    /// holds token 2 may take over.
    fn check(story: impl Fn(&mut Table, ContextId, Instant), good: &[u8], arrives: bool) {
        let mut world = World::new();
        let (live, now) = (world.open("a", &nothing()), world.now);
        let shared = world.table.share(&key("a"), &by_token(1), token(2), now).opened().unwrap();
        assert_eq!((shared.id, shared.resumed, shared.token), (live.id, true, token(2)));
        story(&mut world.table, live.id, now);
        for n in 1..10 {
            let context = &world.table.contexts[&live.id];
            assert_eq!(context.tokens.takes(&token(n), now), good.contains(&n), "token {n} of {good:?}");
        }
        assert_eq!(world.table.confirm(live.id, &token(2), Delivery::Known, now), arrives, "{good:?}");
        // However it went on, both sessions leave and nothing is left of them.
        for _ in 0..4 {
            world.table.close(live.id, now);
        }
        assert_eq!(world.table.len(), 0);
    }
    check(|_, _, _| {}, &[1, 2], true);
    check(|table, id, now| assert!(table.confirm(id, &token(2), Delivery::Known, now)), &[2], true);
    check(|table, id, now| assert!(table.confirm(id, &token(2), Delivery::Sent, now)), &[1, 2], true);
    // It never arrives, and comes again with either.
    check(|table, id, now| table.close(id, now), &[1, 2], true);
    let again =
        |table: &mut Table, shown, now| table.share(&key("a"), &by_token(shown), token(3), now).opened().is_some();
    check(|table, _, now| assert!(again(table, 1, now)), &[1, 3], false);
    check(|table, _, now| assert!(again(table, 2, now)), &[2, 3], true);
    // Arriving late with the token that the next one was asked for with does not void that one.
    check(
        |table, id, now| {
            assert!(again(table, 2, now));
            assert!(table.confirm(id, &token(2), Delivery::Known, now));
        },
        &[2, 3],
        true,
    );
    // It comes back to where it was.
    let back = |table: &mut Table, shown, now| rotate(table, &key("a"), &token(shown), token(4), now) == Some(token(4));
    check(|table, _, now| assert!(back(table, 1, now)), &[1, 4], false);
    check(|table, _, now| assert!(back(table, 2, now)), &[2, 4], false);
}

#[test]
fn only_the_live_sessions_own_client_shares_its_context() {
    let mut world = World::new();
    let now = world.now;
    let past = world.past("a", &nothing(), "gone");
    let nobody = world.table.share(&key("a"), &by_token(1), token(50), now);
    assert!(matches!(nobody, Sharing::Nobody), "it does not live: {nobody:?}");
    world.open("a", &by_user("ann"));
    for (claim, good) in [
        (nothing(), false),
        (by_token(9), false),
        (Claim { token: Some(past.token), user: Some(user("ann")) }, false),
        // Who one is does not say which of one's connections is to end.
        (by_user("ann"), false),
        (by_token(2), false),
        (Claim { token: Some(token(2)), user: Some(user("bob")) }, false),
        (Claim { token: Some(token(2)), user: Some(user("ann")) }, true),
    ] {
        let shared = world.table.share(&key("a"), &claim, token(51), now).opened();
        assert_eq!(shared.is_some(), good, "{claim:?}");
        assert!(world.table.share(&key("b"), &claim, token(52), now).opened().is_none(), "another id");
    }
}

#[test]
fn writes_meet_the_version_that_they_expect() {
    let mut world = World::new();
    let id = world.open("a", &nothing()).id;
    let now = world.now;
    let write = |table: &mut Table, text, expected| table.write(id, data(text), expected, now);
    let at = |n| Expected::Version(Version(n));
    assert_eq!(write(&mut world.table, "a", at(0)), Ok(Version(1)));
    assert_eq!(write(&mut world.table, "b", at(0)), Err(WriteError::Conflict { current: Version(1) }));
    assert_eq!(world.table.read(id, now).unwrap().data, data("a"));
    assert_eq!(write(&mut world.table, "c", at(1)), Ok(Version(2)));
    assert_eq!(write(&mut world.table, "d", Expected::Anything), Ok(Version(3)));
}

#[test]
fn closed_contexts_make_room_and_open_ones_do_not() {
    let mut world = World::new();
    for n in 0..bounds().contexts {
        if n % 2 == 0 {
            world.past(&format!("s{n}"), &nothing(), "x");
        } else {
            world.open(&format!("s{n}"), &nothing());
        }
        world.now += Duration::from_secs(1);
    }
    let full = bounds().contexts;
    for n in 0..full / 2 {
        world.open(&format!("n{n}"), &nothing());
        assert_eq!(world.table.len(), full);
    }
    let refused = world.table.open(&key("last"), &nothing(), ContextId(99), token(99), world.now);
    assert_eq!(refused.unwrap_err(), StoreError::Full);
}

#[test]
fn bytes_are_bounded_and_a_writer_does_not_lose_his_own() {
    let mut world = World::new();
    let old = world.past("old", &nothing(), &"x".repeat(600));
    let live = world.open("live", &nothing()).id;
    assert_eq!(world.table.write(live, data(&"y".repeat(600)), Expected::Anything, world.now), Ok(Version(1)));
    assert_eq!(world.table.read(old.id, world.now), None, "made room");
    let too_much = world.table.write(live, data(&"z".repeat(1000)), Expected::Anything, world.now);
    assert_eq!(too_much, Err(StoreError::Full.into()));
    assert_eq!(world.table.read(live, world.now).unwrap().data, data(&"y".repeat(600)));
}

/// Somebody writes as much as he may into one session after another. What others left is small, and older.
#[test]
fn who_writes_much_into_many_sessions_loses_his_own() {
    let mut world = World::new();
    let quiet: Vec<ContextId> = ["a", "b"].map(|session| world.past(session, &nothing(), "x").id).into();
    let live = world.past("live", &nothing(), &"l".repeat(300));
    let again = world.open("live", &by_token(world.opened));
    assert!(again.resumed && again.id == live.id);
    let mut loud = Vec::new();
    for n in 0..20 {
        world.now += Duration::from_secs(1);
        loud.push(world.past(&format!("loud{n}"), &nothing(), &"y".repeat(300)).id);
    }
    let known = |world: &mut World, id: &ContextId| world.table.read(*id, world.now).is_some();
    assert!(quiet.iter().all(|id| known(&mut world, id)), "small ones stay");
    assert!(known(&mut world, &live.id), "and so do those that live, whatever their size");
    assert_eq!(loud.iter().filter(|id| known(&mut world, id)).count(), 2);
    assert!(loud[18..].iter().all(|id| known(&mut world, id)), "the oldest of his go first");
    let expected = Usage { contexts: 5, evicted_for_bytes: 18, ..world.table.usage() };
    assert_eq!(world.table.usage(), expected);
    // One that grows after its end is one of the large.
    assert!(world.table.write(quiet[0], data(&"x".repeat(300)), Expected::Anything, world.now).is_ok());
    world.past("loud20", &nothing(), &"y".repeat(300));
    assert!(!known(&mut world, &quiet[0]) && known(&mut world, &quiet[1]));
}

#[test]
fn what_could_not_be_kept_is_counted_by_why() {
    let mut world = World::new();
    for _ in 0..bounds().closed_per_key + 1 {
        world.past("same", &nothing(), "x");
    }
    for n in 0..bounds().contexts {
        world.past(&format!("s{n}"), &nothing(), "x");
    }
    world.now += RETENTION;
    world.open("later", &nothing());
    let Usage { evicted_for_contexts, evicted_for_bytes, evicted_of_their_key, .. } = world.table.usage();
    // What has expired is not missed.
    assert_eq!((evicted_for_contexts, evicted_for_bytes, evicted_of_their_key), (2, 0, 1));
}
