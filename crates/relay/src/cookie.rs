//! Cookies: who asks for all that is known shows first that it is where it says it is.
//!
//! A question is sealed, so nobody can make one; but whoever has seen one could play it back in another's name, and that other would
//! get every flow. So the first answer is a cookie, no longer than the question, and the flows go to whoever brings it back
//! from the same address (as DTLS does, RFC 9147, 5.1). Nothing is kept meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::announce::Question;
use crate::header::address_octets;

/// A cookie is good for the rest of the time that it was made in, and for the next: five to ten seconds. Who begins asks for two.
const TIME: Duration = Duration::from_secs(5);

/// What is to be brought back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cookie(pub(crate) [u8; Cookie::LEN]);

impl Cookie {
    pub(crate) const LEN: usize = 16;
}

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cookie(…)")
    }
}

/// Makes cookies and knows its own again: HMAC-SHA-256 over the time, the address and the question.
pub struct Cookies(hmac::Key);

impl Cookies {
    /// `secret` is this relay's own, drawn at random when it begins: what was made for one relay is good at no other.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The one for whoever asks this from there. `now` is a clock of this relay alone, and never goes back.
    #[must_use]
    pub fn make(&self, from: SocketAddr, question: Question, now: Duration) -> Cookie {
        self.of(time(now), from, question)
    }

    /// Whether this one was made for them, lately.
    #[must_use]
    pub fn is_good(&self, cookie: &Cookie, from: SocketAddr, question: Question, now: Duration) -> bool {
        let made = |time| bool::from(self.of(time, from, question).0.ct_eq(&cookie.0));
        made(time(now)) || time(now).checked_sub(1).is_some_and(made)
    }

    fn of(&self, time: u64, from: SocketAddr, question: Question) -> Cookie {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&time.to_be_bytes());
        context.update(&address_octets(from));
        context.update(question.octets());
        let tag = context.sign();
        Cookie(*tag.as_ref().first_chunk().unwrap_or_else(|| unreachable!("SHA-256 has 32 octets")))
    }
}

fn time(now: Duration) -> u64 {
    now.as_secs() / TIME.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::Announcer;

    #[test]
    fn a_cookie_is_good_where_it_was_given_and_for_a_while() {
        let mut announcer = Announcer::new(1, &[7; 32], [1; 8]);
        let mut ask = || announcer.ask(Duration::ZERO).unwrap().0;
        let (question, other) = (ask(), ask());
        let from = SocketAddr::from(([10, 0, 0, 1], 3479));
        let (cookies, strange) = (Cookies::new(&[1; 32]), Cookies::new(&[2; 32]));
        for made in [0, 1, 4, 5, 8, 1_004] {
            let at = Duration::from_secs;
            let cookie = cookies.make(from, question, at(made));
            #[rustfmt::skip]
            let cases = [
                (&cookies, from, question, made, true),
                (&cookies, from, question, made + 5, true),
                (&cookies, from, question, made + 10, false),
                (&cookies, from, other, made, false),
                (&cookies, SocketAddr::from(([10, 0, 0, 1], 3480)), question, made, false),
                (&cookies, SocketAddr::from(([10, 0, 0, 2], 3479)), question, made, false),
                (&strange, from, question, made, false),
            ];
            for (by, from, question, seconds, expected) in cases {
                assert_eq!(by.is_good(&cookie, from, question, at(seconds)), expected, "{from} {made} {seconds}");
            }
            assert!(!cookies.is_good(&Cookie([0; 16]), from, question, at(made)));
        }
    }
}
