//! The one-time tokens of one context: which of them are good now.

use std::time::Instant;

use streamfleet_session::{ResumeToken, UserId};

use super::TOKEN_GRACE;
use crate::context::{Claim, Delivery, Generation, Issued};

/// The token that is good, and the one before it for as long as its successor may have been lost on its way.
#[derive(Debug)]
pub(super) struct Tokens {
    current: ResumeToken,
    previous: Option<Previous>,
    /// What a client on the way to another connection was given for the current one, and has not shown yet.
    offered: Option<ResumeToken>,
    /// Of the one given out last.
    generation: Generation,
}

#[derive(Debug)]
struct Previous {
    token: ResumeToken,
    until: Instant,
}

impl Tokens {
    pub(super) const fn new(token: ResumeToken) -> Self {
        Self { current: token, previous: None, offered: None, generation: Generation(0) }
    }

    /// Those of a context that was lost, as whoever held it knows them.
    pub(super) const fn restored(issued: Issued) -> Self {
        Self { generation: issued.generation, ..Self::new(issued.token) }
    }

    /// Another holder of a restored context knows its tokens too: the one that was given out last is good.
    pub(super) fn recall(&mut self, issued: Issued) {
        if issued.generation > self.generation {
            *self = Self::restored(issued);
        }
    }

    pub(super) const fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether whoever shows `token` is the context's client.
    pub(super) fn takes(&self, token: &ResumeToken, now: Instant) -> bool {
        self.is_new(token) || self.previous.as_ref().is_some_and(|p| p.token == *token && now < p.until)
    }

    /// Whether a claim's token is good for a context of this user's, or of nobody's. A token is no way around an identity: what a
    /// verified user opened, only he resumes.
    pub(super) fn fit(&self, user: Option<&UserId>, claim: &Claim, now: Instant) -> bool {
        let shown = claim.token.is_some_and(|token| self.takes(&token, now));
        shown && (user.is_none() || user == claim.user.as_ref())
    }

    /// Whether this is a token that nobody has shown yet.
    pub(super) fn is_new(&self, token: &ResumeToken) -> bool {
        self.current == *token || self.offered.as_ref() == Some(token)
    }

    /// `shown` has been taken, and stays good beside `next` until one of the two is taken or `next` is confirmed.
    ///
    /// One that was replaced before stays what it is: good for its time, and no longer, beside the one that replaced it. Who
    /// shows it again, or has overheard it, must not take from the client what that has been given since.
    pub(super) fn offer(&mut self, shown: ResumeToken, next: ResumeToken) {
        if self.is_new(&shown) {
            self.current = shown;
            self.previous = None;
        }
        self.offered = Some(next);
        self.generation.0 += 1;
    }

    /// The client is there for which `token` was offered: every other one is void, but what was shown for one that may be
    /// lost yet. False if it was void itself.
    pub(super) fn confirm(&mut self, token: &ResumeToken, delivery: Delivery, now: Instant) -> bool {
        if self.offered.as_ref() == Some(token) {
            let first = Previous { token: self.current, until: now + TOKEN_GRACE };
            let shown = self.previous.take().unwrap_or(first);
            self.previous = Some(shown).filter(|_| delivery == Delivery::Sent);
            self.current = *token;
            self.offered = None;
        }
        // Somebody may be on the way again by now, with this one: what he was given stays good.
        self.current == *token
    }

    /// `shown` has been taken, or somebody was known without one; from now on it is `next`.
    ///
    /// A token is taken at most twice: what was shown as the previous one does not become it again, and no more does what
    /// nobody has shown.
    pub(super) fn replace(&mut self, shown: Option<&ResumeToken>, next: ResumeToken, now: Instant) {
        let first = shown.copied().filter(|shown| self.is_new(shown));
        self.previous = first.map(|token| Previous { token, until: now + TOKEN_GRACE });
        self.current = next;
        self.offered = None;
        self.generation.0 += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn token(n: u8) -> ResumeToken {
        ResumeToken::from_random([n; ResumeToken::LEN])
    }

    /// At these seconds these tokens are shown, and taken or not. The n-th that is taken is answered with token n.
    #[track_caller]
    fn check(story: &[(u64, u8, bool)]) {
        let start = Instant::now();
        let mut tokens = Tokens::new(token(0));
        let mut last = 0;
        for (at, shown, expected) in story {
            let (now, shown_token) = (start + Duration::from_secs(*at), token(*shown));
            assert_eq!(tokens.takes(&shown_token, now), *expected, "token {shown} at {at} s of {story:?}");
            if *expected {
                last += 1;
                tokens.replace(Some(&shown_token), token(last), now);
            }
        }
    }

    #[test]
    fn a_token_whose_successor_was_lost_is_taken_once_more() {
        check(&[(0, 0, true), (1, 1, true), (2, 2, true)]);
        // The answer with token 1 was lost.
        check(&[(0, 0, true), (1, 0, true), (2, 2, true)]);
        // Once, and in time.
        check(&[(0, 0, true), (1, 0, true), (2, 0, false), (2, 1, false), (2, 2, true)]);
        check(&[(0, 0, true), (29, 0, true)]);
        check(&[(0, 0, true), (30, 0, false), (31, 1, true)]);
        // Its successor was shown: a replay is nobody's.
        check(&[(0, 0, true), (1, 1, true), (1, 0, false), (2, 1, true), (3, 0, false), (3, 3, true)]);
        check(&[(0, 9, false), (0, 0, true), (1, 9, false)]);
    }

    /// A client that is back has token 1 for token 0, and then somebody wants to move with token 0, as a retried request
    /// or a replayed one does: what the client has stays good, and token 0 does not live longer for it.
    #[test]
    fn a_token_that_was_replaced_is_offered_for_in_its_time_only() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut tokens = Tokens::new(token(0));
        tokens.replace(Some(&token(0)), token(1), start);
        let check = |tokens: &Tokens, at: u32, good: &[u8]| {
            for n in 0..9 {
                assert_eq!(tokens.takes(&token(n), start + at * second), good.contains(&n), "token {n} at {at} s");
            }
        };
        for (at, next) in [(1, 2), (20, 3), (29, 4)] {
            tokens.offer(token(0), token(next));
            check(&tokens, at, &[0, 1, next]);
        }
        check(&tokens, 30, &[1, 4]);
        // The client shows what it has.
        tokens.offer(token(1), token(5));
        check(&tokens, 31, &[1, 5]);
        tokens.offer(token(5), token(6));
        check(&tokens, 32, &[5, 6]);
    }

    /// A client that has moved with token 0 was given token 1.
    #[test]
    fn what_was_shown_is_good_once_more_where_what_was_given_may_be_lost() {
        let start = Instant::now();
        let check = |delivery, good_at: [(u64, &[u8]); 2]| {
            let mut tokens = Tokens::new(token(0));
            tokens.offer(token(0), token(1));
            assert!(tokens.confirm(&token(1), delivery, start));
            for (at, good) in good_at {
                for n in 0..3 {
                    let takes = tokens.takes(&token(n), start + Duration::from_secs(at));
                    assert_eq!(takes, good.contains(&n), "{delivery:?}: token {n} at {at} s");
                }
            }
        };
        check(Delivery::Known, [(0, &[1]), (30, &[1])]);
        check(Delivery::Sent, [(29, &[0, 1]), (30, &[1])]);
        // Once more is not for ever.
        let mut tokens = Tokens::new(token(0));
        tokens.replace(Some(&token(0)), token(1), start);
        tokens.offer(token(0), token(2));
        assert!(tokens.confirm(&token(2), Delivery::Sent, start + Duration::from_secs(20)));
        let good = |at| [0, 1, 2].map(|n| tokens.takes(&token(n), start + Duration::from_secs(at)));
        assert_eq!((good(29), good(30)), ([true, false, true], [false, false, true]));
    }

    #[test]
    fn who_is_known_without_a_token_voids_those_before() {
        let now = Instant::now();
        let mut tokens = Tokens::new(token(0));
        tokens.replace(None, token(1), now);
        assert!(!tokens.takes(&token(0), now));
        tokens.replace(Some(&token(1)), token(2), now);
        tokens.replace(None, token(3), now);
        assert_eq!([0, 1, 2, 3].map(|n| tokens.takes(&token(n), now)), [false, false, false, true]);
    }

    proptest! {
        /// Whatever is shown when: no token is taken three times, none after its successor was, at most two are good at
        /// a time, and the newest always is.
        #[test]
        fn no_token_is_good_for_long(shown in proptest::collection::vec((0..40_u8, 0..20_u64), 1..60)) {
            let mut now = Instant::now();
            let mut tokens = Tokens::new(token(0));
            let (mut newest, mut taken) = (0_u8, HashMap::<u8, u32>::new());
            // By whom each token was asked for.
            let mut parent = HashMap::<u8, u8>::new();
            for (n, wait) in shown {
                now += Duration::from_secs(wait);
                let n = n.min(newest);
                let good = (0..=newest).filter(|n| tokens.takes(&token(*n), now)).count();
                prop_assert!(tokens.takes(&token(newest), now) && good <= 2);
                if !tokens.takes(&token(n), now) {
                    continue;
                }
                let times = taken.entry(n).or_default();
                *times += 1;
                prop_assert!(*times <= 2, "token {n}");
                let has_heir = parent.iter().any(|(heir, of)| *of == n && taken.contains_key(heir));
                prop_assert!(!has_heir, "token {n} after its successor");
                newest += 1;
                parent.insert(newest, n);
                tokens.replace(Some(&token(n)), token(newest), now);
            }
        }
    }
}
