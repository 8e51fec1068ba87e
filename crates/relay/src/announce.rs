//! What relays tell each other: flows whose clients are really there, so that any of them can go on with any flow.
//!
//! One datagram holds up to [`MOST`] flows, sealed with ChaCha20-Poly1305 (RFC 8439) under a key that only relays have: who reads
//! it could send headers in a session's name. It is lost now and then, and nothing waits for it: every flow is told again
//! while it lasts. One that is played back later is too old; until then it says what is true.
//!
//! A relay that begins asks another for all that is known, before clients come to it.
//!
//! ```text
//! form 1 │ key id 1 │ nonce 12 │ sealed: unix time in ms 8 │ flows of 58 … │ tag 16
//! flow: client 16 + 2 │ door 2 │ worker 16 + 2 │ key 16 │ session 4
//! ```
//!
//! The form says what it is: A1 flows; A2 the question, of nothing but the time; A3 that this was all, of the time, the nonce of the
//! question and how many flows they were (4).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::flows::Target;
use crate::header::SessionHandle;
use crate::relay::Announced;
use streamfleet_session::ufrag::SessionKey;

/// Flows in one datagram, which then has 1 198 octets: every path that carries WebRTC carries it.
pub const MOST: usize = 20;
/// How far the clocks of relays may differ, and how long what was said may be on its way.
pub const SKEW: Duration = Duration::from_secs(120);

const FLOWS: u8 = 0xA1;
const QUESTION: u8 = 0xA2;
const THAT_IS_ALL: u8 = 0xA3;
const HEAD: usize = 2 + NONCE_LEN;
const FLOW: usize = 58;
const TAG: usize = 16;

/// Seals what one relay says.
pub struct Announcer {
    id: u8,
    key: LessSafeKey,
    /// Unlike every other relay's, and unlike its own after a restart: drawn at random.
    prefix: [u8; 8],
    said: u32,
}

/// Opens what other relays say; two keys while they change from one to the other.
pub struct Listener(Vec<(u8, LessSafeKey)>);

/// What a relay has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// These flows are known.
    Flows(Vec<Announced>),
    /// All that is known is wanted.
    Question(Question),
    /// This question has been answered, with so many flows.
    ThatIsAll(Question, u32),
}

/// Names one question of all that are ever asked: who has answered one does not do so again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question([u8; NONCE_LEN]);

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
        let write = |out: &mut Vec<u8>| flows.iter().take(MOST).for_each(|flow| write(flow, out));
        self.seal(FLOWS, write, unix).map(|(_, datagram)| datagram)
    }

    /// The question for all that is known, and its name. `None` as [`say`](Self::say).
    pub fn ask(&mut self, unix: Duration) -> Option<(Question, Vec<u8>)> {
        self.seal(QUESTION, |_| (), unix).map(|(nonce, datagram)| (Question(nonce), datagram))
    }

    /// What follows the answer to a question, of so many flows. `None` as [`say`](Self::say).
    pub fn that_is_all(&mut self, question: Question, flows: u32, unix: Duration) -> Option<Vec<u8>> {
        let write = |out: &mut Vec<u8>| {
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
        content: impl FnOnce(&mut Vec<u8>),
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
        content(&mut datagram);
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
        Self(keys.into_iter().map(|(id, octets)| (id, key(&octets))).collect())
    }

    /// What a datagram says.
    ///
    /// # Errors
    /// [`Unheard`].
    pub fn hear(&self, datagram: &mut [u8], unix: Duration) -> Result<Said, Unheard> {
        let len = datagram.len();
        if len > HEAD + 8 + MOST * FLOW + TAG {
            return Err(Unheard::Form);
        }
        let (head, sealed) = datagram.split_at_mut_checked(HEAD).ok_or(Unheard::Form)?;
        let &mut [form @ (FLOWS | QUESTION | THAT_IS_ALL), id, ref name @ ..] = head else {
            return Err(Unheard::Form);
        };
        let name: [u8; NONCE_LEN] = name.try_into().map_err(|_| Unheard::Form)?;
        let open = |key: &LessSafeKey, sealed: &mut [u8]| {
            let nonce = Nonce::assume_unique_for_key(name);
            key.open_in_place(nonce, Aad::from([form, id]), sealed).map(|opened| opened.len())
        };
        // Two keys of sixteen share an id. What one cannot open is no more what it was.
        let mut keys = self.0.iter().filter(|(known, _)| *known == id).map(|(_, key)| key);
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
        let (time, flows) = opened.split_first_chunk::<8>().ok_or(Unheard::Form)?;
        if u64::from_be_bytes(*time).abs_diff(millis(unix)) > millis(SKEW) {
            return Err(Unheard::Time);
        }
        match form {
            FLOWS => match flows.as_chunks::<FLOW>() {
                (flows, []) => Ok(Said::Flows(flows.iter().map(read).collect())),
                _ => Err(Unheard::Form),
            },
            QUESTION if flows.is_empty() => Ok(Said::Question(Question(name))),
            THAT_IS_ALL => match flows.split_first_chunk() {
                Some((question, [a, b, c, d])) => {
                    Ok(Said::ThatIsAll(Question(*question), u32::from_be_bytes([*a, *b, *c, *d])))
                }
                _ => Err(Unheard::Form),
            },
            _ => Err(Unheard::Form),
        }
    }
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
}

fn read(flow: &[u8; FLOW]) -> Announced {
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
        (address(), any::<u16>(), address(), any::<[u8; 16]>(), any::<u32>()).prop_map(
            |(client, door, worker, key, session)| Announced {
                client,
                door,
                target: Target { worker, key: SessionKey::from_bytes(key) },
                session: SessionHandle(session),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(flows in proptest::collection::vec(flow(), 0..MOST + 3), bit in any::<prop::sample::Index>()) {
            let mut announcer = Announcer::new(3, &KEY, [1; 8]);
            let said = announcer.say(&flows, NOW).unwrap();
            prop_assert!(said.len() <= 1_198);
            let listener = Listener::new([(2, [9; 32]), (3, KEY)]);
            let heard = Said::Flows(flows[..flows.len().min(MOST)].to_vec());
            prop_assert_eq!(listener.hear(&mut said.clone(), NOW).unwrap(), heard);
            let mut changed = said.clone();
            let bit = bit.index(changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(listener.hear(&mut changed, NOW).is_err());
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
            let listener = Listener::new(keys);
            for key in [KEY, other] {
                let mut said = Announcer::new(3, &key, [1; 8]).say(&[], NOW).unwrap();
                assert_eq!(listener.hear(&mut said, NOW), Ok(Said::Flows(Vec::new())));
            }
            let mut said = Announcer::new(3, &[9; 32], [1; 8]).say(&[], NOW).unwrap();
            assert_eq!(listener.hear(&mut said, NOW), Err(Unheard::Forged));
        }
    }

    #[test]
    fn a_question_has_a_name_of_its_own() {
        let mut announcer = Announcer::new(3, &KEY, [1; 8]);
        let listener = Listener::new([(3, KEY)]);
        let (first, mut asked) = announcer.ask(NOW).unwrap();
        assert_eq!(listener.hear(&mut asked, NOW), Ok(Said::Question(first)));
        assert_ne!(announcer.ask(NOW).unwrap().0, first);
        let mut end = announcer.that_is_all(first, 70_000, NOW).unwrap();
        assert_eq!(listener.hear(&mut end, NOW), Ok(Said::ThatIsAll(first, 70_000)));
        // Nobody makes one of the other.
        let mut changed = announcer.that_is_all(first, 0, NOW).unwrap();
        changed[0] = QUESTION;
        assert_eq!(listener.hear(&mut changed, NOW), Err(Unheard::Forged));
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
