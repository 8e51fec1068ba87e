//! What relays tell each other: flows whose clients are really there, so that any of them can go on with any flow.
//!
//! One datagram holds up to [`MOST`] flows, sealed with ChaCha20-Poly1305 (RFC 8439) under a key that only relays have: who reads
//! it could send headers in a session's name. It is lost now and then, and nothing waits for it: every flow is told again
//! while it lasts. One that is played back is not heard again.
//!
//! A relay that begins asks another for all that is known, before clients come to it.
//!
//! ```text
//! form 1 │ key id 1 │ nonce 12: sender 8, number 4 │ sealed: unix time in ms 8 │ flows of 59 … │ tag 16
//! flow: client 16 + 2 │ door 2 │ worker 16 + 2 │ key 16 │ session 4 │ seconds since the client was heard 1
//! ```
//!
//! The form says what it is: A1 flows; A2 the question, of its name (12) and a cookie (16), which are zeros where there is none yet;
//! A3 that this was all, of the question's name and how many flows they were (4); A4 a cookie, of the question's name and the
//! cookie: as long as the question.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::cookie::Cookie;
use crate::flows::Target;
use crate::header::SessionHandle;
use crate::relay::Announced;
use crate::replays::Replays;
use streamfleet_session::ufrag::SessionKey;

/// Flows in one datagram, which then has 1 218 octets: every path that carries WebRTC carries it.
pub const MOST: usize = 20;
/// How far the clocks of relays may differ, and how long what was said may be on its way.
pub const SKEW: Duration = Duration::from_secs(120);

const FLOWS: u8 = 0xA1;
const QUESTION: u8 = 0xA2;
const THAT_IS_ALL: u8 = 0xA3;
const COOKIE: u8 = 0xA4;
const HEAD: usize = 2 + NONCE_LEN;
const FLOW: usize = 59;
const TAG: usize = 16;

/// Seals what one relay says.
pub struct Announcer {
    id: u8,
    key: LessSafeKey,
    /// Unlike every other relay's, and unlike its own after a restart: drawn at random.
    prefix: [u8; 8],
    said: u32,
}

/// Opens what other relays say, each datagram once; two keys while they change from one to the other.
pub struct Listener {
    keys: Vec<(u8, LessSafeKey)>,
    replays: Replays,
}

/// What a relay has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// These flows are known. The time that it was on its way, by both clocks, counts as silence.
    Flows(Vec<Announced>),
    /// All that is known is wanted, by somebody who has been given this cookie.
    Question(Question, Option<Cookie>),
    /// This question is to be asked again with this cookie.
    Cookie(Question, Cookie),
    /// This question has been answered, with so many flows.
    ThatIsAll(Question, u32),
}

/// Names one question of all that are ever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question([u8; NONCE_LEN]);

impl Question {
    pub(crate) fn octets(&self) -> &[u8; NONCE_LEN] {
        &self.0
    }
}

/// Why a datagram says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unheard {
    /// Too short or too long, or of another form.
    #[error("not of this form")]
    Form,
    /// Sealed under a key that is not ours.
    #[error("unknown key")]
    Key,
    /// Not sealed by a relay of ours.
    #[error("forged")]
    Forged,
    /// Said too long ago, or by a clock that is wrong.
    #[error("too old, or from the future")]
    Time,
    /// Heard before, or so long after what was said later that it may have been.
    #[error("played back")]
    Replayed,
}

impl Unheard {
    /// Every reason, for metrics.
    pub const ALL: [Self; 5] = [Self::Form, Self::Key, Self::Forged, Self::Time, Self::Replayed];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Key => "key",
            Self::Forged => "forged",
            Self::Time => "time",
            Self::Replayed => "replayed",
        }
    }
}

fn key(octets: &[u8; 32]) -> LessSafeKey {
    let unbound = UnboundKey::new(&CHACHA20_POLY1305, octets).ok();
    LessSafeKey::new(unbound.unwrap_or_else(|| unreachable!("a key of 32 octets")))
}

impl Announcer {
    /// `prefix` is to be drawn at random for each announcer.
    #[must_use]
    pub fn new(id: u8, octets: &[u8; 32], prefix: [u8; 8]) -> Self {
        Self { id, key: key(octets), prefix, said: 0 }
    }

    /// One datagram for at most [`MOST`] flows; those beyond are left out. `None` after 4 294 967 295 of them: a nonce is used once,
    /// and the announcer has to be [renewed](Self::renew).
    pub fn say(&mut self, flows: &[Announced], unix: Duration) -> Option<Vec<u8>> {
        let write = |_, out: &mut Vec<u8>| flows.iter().take(MOST).for_each(|flow| write(flow, out));
        self.seal(FLOWS, write, unix).map(|(_, datagram)| datagram)
    }

    /// The question for all that is known, and its name. `None` as [`say`](Self::say).
    pub fn ask(&mut self, unix: Duration) -> Option<(Question, Vec<u8>)> {
        let write = |nonce, out: &mut Vec<u8>| put(Question(nonce), NO_COOKIE, out);
        self.seal(QUESTION, write, unix).map(|(nonce, datagram)| (Question(nonce), datagram))
    }

    /// The same question from whoever has been given a cookie. `None` as [`say`](Self::say).
    pub fn ask_with(&mut self, cookie: Cookie, question: Question, unix: Duration) -> Option<Vec<u8>> {
        self.seal(QUESTION, |_, out| put(question, cookie, out), unix).map(|(_, datagram)| datagram)
    }

    /// Gives a cookie to whoever asks: no more octets than the question had. `None` as [`say`](Self::say).
    pub fn give(&mut self, cookie: Cookie, question: Question, unix: Duration) -> Option<Vec<u8>> {
        self.seal(COOKIE, |_, out| put(question, cookie, out), unix).map(|(_, datagram)| datagram)
    }

    /// Whether this announcer has said it, as a datagram that came back says itself.
    #[must_use]
    pub fn has_said(&self, datagram: &[u8]) -> bool {
        datagram.get(2..10).is_some_and(|sender| *sender == self.prefix)
    }

    /// What follows the answer to a question, of so many flows. `None` as [`say`](Self::say).
    pub fn that_is_all(&mut self, question: Question, flows: u32, unix: Duration) -> Option<Vec<u8>> {
        let write = |_, out: &mut Vec<u8>| {
            out.extend(question.0);
            out.extend(flows.to_be_bytes());
        };
        self.seal(THAT_IS_ALL, write, unix).map(|(_, datagram)| datagram)
    }

    /// Goes on with another prefix, drawn at random, when all nonces of the one before are used up.
    pub fn renew(&mut self, prefix: [u8; 8]) {
        (self.prefix, self.said) = (prefix, 0);
    }

    fn seal(
        &mut self,
        form: u8,
        content: impl FnOnce([u8; NONCE_LEN], &mut Vec<u8>),
        unix: Duration,
    ) -> Option<([u8; NONCE_LEN], Vec<u8>)> {
        self.said = self.said.checked_add(1)?;
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.prefix);
        nonce[8..].copy_from_slice(&self.said.to_be_bytes());
        let mut datagram = Vec::with_capacity(HEAD + 8 + MOST * FLOW + TAG);
        datagram.extend([form, self.id]);
        datagram.extend(nonce);
        datagram.extend(millis(unix).to_be_bytes());
        content(nonce, &mut datagram);
        let aad = Aad::from([form, self.id]);
        let (_, sealed) = datagram.split_at_mut(HEAD);
        let tag = self.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, sealed).ok()?;
        datagram.extend(tag.as_ref());
        Some((nonce, datagram))
    }
}

impl Listener {
    /// Opens what is sealed under any of these keys.
    pub fn new(keys: impl IntoIterator<Item = (u8, [u8; 32])>) -> Self {
        let keys = keys.into_iter().map(|(id, octets)| (id, key(&octets))).collect();
        Self { keys, replays: Replays::default() }
    }

    /// What a datagram says.
    ///
    /// # Errors
    /// [`Unheard`].
    pub fn hear(&mut self, datagram: &mut [u8], unix: Duration) -> Result<Said, Unheard> {
        let len = datagram.len();
        if len > HEAD + 8 + MOST * FLOW + TAG {
            return Err(Unheard::Form);
        }
        let (head, sealed) = datagram.split_at_mut_checked(HEAD).ok_or(Unheard::Form)?;
        let &mut [form @ (FLOWS | QUESTION | THAT_IS_ALL | COOKIE), id, ref name @ ..] = head else {
            return Err(Unheard::Form);
        };
        let name: [u8; NONCE_LEN] = name.try_into().map_err(|_| Unheard::Form)?;
        let open = |key: &LessSafeKey, sealed: &mut [u8]| {
            let nonce = Nonce::assume_unique_for_key(name);
            key.open_in_place(nonce, Aad::from([form, id]), sealed).map(|opened| opened.len())
        };
        // Two keys of sixteen share an id. What one cannot open is no more what it was.
        let mut keys = self.keys.iter().filter(|(known, _)| *known == id).map(|(_, key)| key);
        let (first, other) = (keys.next().ok_or(Unheard::Key)?, keys.next());
        let before = other.map(|other| (other, sealed.to_vec()));
        let len = match (open(first, sealed), before) {
            (Ok(len), _) => len,
            (Err(_), Some((other, before))) => {
                sealed.copy_from_slice(&before);
                open(other, sealed).map_err(|_| Unheard::Forged)?
            }
            (Err(_), None) => return Err(Unheard::Forged),
        };
        let opened = &sealed[..len];
        let (time, content) = opened.split_first_chunk::<8>().ok_or(Unheard::Form)?;
        let (said, now) = (u64::from_be_bytes(*time), millis(unix));
        if said.abs_diff(now) > millis(SKEW) {
            return Err(Unheard::Time);
        }
        if !self.replays.take(&name, said) {
            return Err(Unheard::Replayed);
        }
        match form {
            FLOWS => match content.as_chunks::<FLOW>() {
                (flows, []) => {
                    let on_its_way = Duration::from_millis(now.saturating_sub(said));
                    Ok(Said::Flows(flows.iter().map(|flow| read(flow, on_its_way)).collect()))
                }
                _ => Err(Unheard::Form),
            },
            _ => match (form, content.split_first_chunk()) {
                (THAT_IS_ALL, Some((question, [a, b, c, d]))) => {
                    Ok(Said::ThatIsAll(Question(*question), u32::from_be_bytes([*a, *b, *c, *d])))
                }
                (QUESTION | COOKIE, Some((question, cookie))) => {
                    let cookie = Cookie(cookie.try_into().map_err(|_| Unheard::Form)?);
                    let question = Question(*question);
                    Ok(match form {
                        COOKIE => Said::Cookie(question, cookie),
                        _ => Said::Question(question, Some(cookie).filter(|cookie| *cookie != NO_COOKIE)),
                    })
                }
                _ => Err(Unheard::Form),
            },
        }
    }
}

/// In a question of somebody who has none.
const NO_COOKIE: Cookie = Cookie([0; Cookie::LEN]);

fn put(question: Question, cookie: Cookie, out: &mut Vec<u8>) {
    out.extend(question.0);
    out.extend(cookie.0);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn write(flow: &Announced, out: &mut Vec<u8>) {
    let address = |out: &mut Vec<u8>, address: SocketAddr| {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        out.extend(ip.octets());
        out.extend(address.port().to_be_bytes());
    };
    address(out, flow.client);
    out.extend(flow.door.to_be_bytes());
    address(out, flow.target.worker);
    out.extend(flow.target.key.as_bytes());
    out.extend(flow.session.0.to_be_bytes());
    // Flows are told of that are silent for half a minute at most.
    out.push(u8::try_from(flow.silent.as_secs()).unwrap_or(u8::MAX));
}

fn read(flow: &[u8; FLOW], on_its_way: Duration) -> Announced {
    fn part<const N: usize>(flow: &[u8; FLOW], from: usize) -> [u8; N] {
        std::array::from_fn(|n| flow[from + n])
    }
    let address = |from: usize| {
        let ip = Ipv6Addr::from(part::<16>(flow, from)).to_canonical();
        SocketAddr::new(ip, u16::from_be_bytes(part(flow, from + 16)))
    };
    Announced {
        client: address(0),
        door: u16::from_be_bytes(part(flow, 18)),
        target: Target { worker: address(20), key: SessionKey::from_bytes(part(flow, 38)) },
        session: SessionHandle(u32::from_be_bytes(part(flow, 54))),
        silent: Duration::from_secs(flow[58].into()) + on_its_way,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn flow() -> impl Strategy<Value = Announced> {
        let ip = || prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
        let address = || (ip(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port));
        (address(), any::<u16>(), address(), any::<[u8; 16]>(), any::<u32>(), any::<u8>()).prop_map(
            |(client, door, worker, key, session, silent)| Announced {
                client,
                door,
                target: Target { worker, key: SessionKey::from_bytes(key) },
                session: SessionHandle(session),
                silent: Duration::from_secs(silent.into()),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(flows in proptest::collection::vec(flow(), 0..MOST + 3), bit in any::<prop::sample::Index>()) {
            let mut announcer = Announcer::new(3, &KEY, [1; 8]);
            let said = announcer.say(&flows, NOW).unwrap();
            prop_assert!(said.len() <= 1_218);
            let mut listener = Listener::new([(2, [9; 32]), (3, KEY)]);
            let heard = Said::Flows(flows[..flows.len().min(MOST)].to_vec());
            prop_assert_eq!(listener.hear(&mut said.clone(), NOW).unwrap(), heard);
            prop_assert_eq!(listener.hear(&mut said.clone(), NOW), Err(Unheard::Replayed));
            let mut changed = said.clone();
            let bit = bit.index(changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(matches!(listener.hear(&mut changed, NOW), Err(Unheard::Form | Unheard::Key | Unheard::Forged)));
            prop_assert_ne!(announcer.say(&flows, NOW).unwrap(), said, "no nonce is used twice");
        }

        #[test]
        fn no_octets_panic(mut octets in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Listener::new([(0, KEY)]).hear(&mut octets, NOW).is_err());
        }
    }

    #[test]
    fn keys_of_one_id_are_both_tried() {
        let other = [8; 32];
        for keys in [[(3, KEY), (3, other)], [(3, other), (3, KEY)]] {
            let mut listener = Listener::new(keys);
            for (key, sender) in [(KEY, 1), (other, 2)] {
                let mut said = Announcer::new(3, &key, [sender; 8]).say(&[], NOW).unwrap();
                assert_eq!(listener.hear(&mut said, NOW), Ok(Said::Flows(Vec::new())));
            }
            let mut said = Announcer::new(3, &[9; 32], [1; 8]).say(&[], NOW).unwrap();
            assert_eq!(listener.hear(&mut said, NOW), Err(Unheard::Forged));
        }
    }

    #[test]
    fn a_question_has_a_name_of_its_own() {
        let mut announcer = Announcer::new(3, &KEY, [1; 8]);
        let mut listener = Listener::new([(3, KEY)]);
        let mut check = |mut said: Vec<u8>, expected| assert_eq!(listener.hear(&mut said, NOW), expected);
        let (first, asked) = announcer.ask(NOW).unwrap();
        let length = asked.len();
        check(asked, Ok(Said::Question(first, None)));
        assert_ne!(announcer.ask(NOW).unwrap().0, first);
        let cookie = Cookie([5; 16]);
        let given = announcer.give(cookie, first, NOW).unwrap();
        assert!(given.len() <= length, "nobody gets more than was sent in its name");
        check(given, Ok(Said::Cookie(first, cookie)));
        check(announcer.ask_with(cookie, first, NOW).unwrap(), Ok(Said::Question(first, Some(cookie))));
        check(announcer.that_is_all(first, 70_000, NOW).unwrap(), Ok(Said::ThatIsAll(first, 70_000)));
        // Nobody makes one of the other.
        let mut changed = announcer.give(cookie, first, NOW).unwrap();
        changed[0] = QUESTION;
        check(changed, Err(Unheard::Forged));
    }

    #[test]
    fn what_was_on_its_way_has_been_silent_for_longer() {
        let target = Target { worker: SocketAddr::from(([10, 0, 0, 1], 5000)), key: SessionKey::from_bytes([1; 16]) };
        let client = SocketAddr::from(([192, 0, 2, 1], 1));
        let (door, session) = (3478, SessionHandle(1));
        let at = |seconds| NOW + Duration::from_secs(seconds);
        for (silent, said, heard, expected) in [(0, 5, 5, 0), (3, 5, 12, 10), (3, 5, 4, 3), (400, 5, 5, 255)] {
            let flow = Announced { client, door, target, session, silent: Duration::from_secs(silent) };
            let mut said = Announcer::new(3, &KEY, [1; 8]).say(&[flow], at(said)).unwrap();
            let Ok(Said::Flows(flows)) = Listener::new([(3, KEY)]).hear(&mut said, at(heard)) else { panic!() };
            assert_eq!(flows, [Announced { silent: Duration::from_secs(expected), ..flow }]);
        }
    }

    #[test]
    fn what_is_not_heard() {
        let said = Announcer::new(3, &KEY, [1; 8]).say(&[], NOW).unwrap();
        #[track_caller]
        fn check(keys: &[(u8, [u8; 32])], said: &[u8], now: Duration, expected: Unheard) {
            assert_eq!(Listener::new(keys.iter().copied()).hear(&mut said.to_vec(), now).unwrap_err(), expected);
        }
        check(&[], &said, NOW, Unheard::Key);
        check(&[(3, [8; 32])], &said, NOW, Unheard::Forged);
        check(&[(3, KEY)], &said, NOW + SKEW + Duration::from_millis(1), Unheard::Time);
        check(&[(3, KEY)], &said, NOW - SKEW - Duration::from_millis(1), Unheard::Time);
        check(&[(3, KEY)], &said[..13], NOW, Unheard::Form);
        check(&[(3, KEY)], &[&said[..], &[0; 1_300]].concat(), NOW, Unheard::Form);
        check(&[(3, KEY)], &[0], NOW, Unheard::Form);
    }

    #[test]
    fn a_nonce_is_used_once() {
        let mut announcer = Announcer::new(3, &KEY, [1; 8]);
        announcer.said = u32::MAX - 1;
        assert!(announcer.say(&[], NOW).is_some());
        assert!(announcer.say(&[], NOW).is_none());
        announcer.renew([2; 8]);
        assert!(announcer.say(&[], NOW).is_some());
    }
}
