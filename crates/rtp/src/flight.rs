//! The last flight of a DTLS handshake, for whoever did not get it.
//!
//! Who is sent a repetition of what he has answered is to repeat his answer (RFC 6347 4.2.4): it was lost. The core reads the
//! repetition, stops its timer, and is silent from then on, so that one lost datagram is the end of the connection: a client that
//! says its hello again, because it has got no certificate, gets none. So whoever drives the core keeps what it has sent last, and
//! sends it once more. The records are the same to the last octet: a peer that has seen them drops them (4.1.2.6).
//!
//! That is why a server's own repetitions are better said like this, too: those of the core have new numbers, and a client of the
//! core's that gets one while its answer is lost takes it for a message of the handshake, and is silent. A client's last flight has
//! to have new numbers: the server answers it again only then.

use std::net::SocketAddr;

use bytes::BytesMut;

/// Datagrams of a flight: a certificate chain of 8 KiB. The rest of a longer one is not repeated.
const MAX_DATAGRAMS: usize = 8;
/// Repetitions in one handshake. Clients repeat seven times or so, and each of their datagrams may ask for one.
const MAX_REPETITIONS: usize = 32;

const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;

/// What one side of a handshake has sent last. To be forgotten when the handshake is over: the core answers from then on.
#[derive(Debug, Default)]
pub struct Flight {
    datagrams: Vec<(SocketAddr, BytesMut)>,
    /// The core had nothing more to send: what it sends next is another flight.
    over: bool,
    /// The last piece of the peer's messages: a message's number, and where in it the piece begins.
    newest: Option<(u32, u32)>,
    /// Likewise of those that were sent.
    said: Option<(u32, u32)>,
    /// The next datagram that is to be sent again.
    again: Option<usize>,
    repetitions: usize,
}

/// What the core has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Another flight, or what is no part of one.
    New,
    /// What it has sent before, with new numbers: nobody has asked for it, its timer has run out.
    Repetition,
}

impl Flight {
    /// The core has been given this datagram of the peer's.
    pub fn heard(&mut self, datagram: &[u8]) {
        let Some(piece) = piece(datagram) else { return };
        if self.newest.is_none_or(|newest| newest < piece) {
            self.newest = Some(piece);
        } else {
            self.repeat();
        }
    }

    /// The last flight is to be sent again.
    pub fn repeat(&mut self) {
        if self.again.is_none() && self.repetitions < MAX_REPETITIONS {
            self.repetitions += 1;
            self.again = Some(0);
        }
    }

    /// The core has sent this one, and so has said itself what was to be said.
    pub fn sent(&mut self, to: SocketAddr, datagram: &BytesMut) -> Sent {
        if !matches!(datagram.first(), Some(&HANDSHAKE | &CHANGE_CIPHER_SPEC)) {
            return Sent::New;
        }
        let piece = piece(datagram);
        if piece.is_some() && piece <= self.said {
            self.again = None;
            return Sent::Repetition;
        }
        self.said = self.said.max(piece);
        if std::mem::take(&mut self.over) {
            self.datagrams.clear();
        }
        self.again = None;
        if self.datagrams.len() < MAX_DATAGRAMS {
            self.datagrams.push((to, datagram.clone()));
        }
        Sent::New
    }

    /// What is to be sent again, when the core has nothing more to send; to be called until there is none.
    pub fn poll(&mut self) -> Option<(SocketAddr, BytesMut)> {
        self.over = true;
        let datagram = self.datagrams.get(self.again?).cloned();
        self.again = self.again.filter(|_| datagram.is_some()).map(|at| at + 1);
        datagram
    }
}

/// Which message of a handshake the datagram begins with, in plain text (epoch 0), and at which of its octets.
fn piece(datagram: &[u8]) -> Option<(u32, u32)> {
    const EPOCH: std::ops::Range<usize> = 3..5;
    const NUMBER: std::ops::Range<usize> = 17..19;
    const OFFSET: std::ops::Range<usize> = 19..22;
    let number = |octets: &[u8]| octets.iter().fold(0, |n, octet| n << 8 | u32::from(*octet));
    let field = |at: std::ops::Range<usize>| datagram.get(at).map(number);
    if datagram.first() != Some(&HANDSHAKE) || field(EPOCH)? != 0 {
        return None;
    }
    Some((field(NUMBER)?, field(OFFSET)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with the beginning of a message, of this epoch, number and offset.
    fn record(epoch: u8, number: u8, offset: u8) -> BytesMut {
        let header = [HANDSHAKE, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 9, 0, 50];
        BytesMut::from(&[&header[..], &[1, 0, 0, 100, 0, number, 0, 0, offset, 0, 0, 38], &[7; 38]].concat()[..])
    }

    fn to() -> SocketAddr {
        ([192, 0, 2, 1], 5000).into()
    }

    fn again(flight: &mut Flight) -> Vec<BytesMut> {
        std::iter::from_fn(|| flight.poll()).map(|(_, datagram)| datagram).collect()
    }

    #[test]
    fn what_was_answered_and_comes_again_is_answered_again() {
        let mut flight = Flight::default();
        flight.heard(&record(0, 0, 0));
        flight.sent(to(), &record(0, 0, 0));
        assert!(again(&mut flight).is_empty());
        flight.heard(&record(0, 1, 0));
        let answer = [record(0, 1, 0), record(0, 2, 0)];
        assert!(answer.iter().all(|datagram| flight.sent(to(), datagram) == Sent::New));
        assert!(again(&mut flight).is_empty(), "once is enough until it is asked for");
        for _ in 0..2 {
            flight.heard(&record(0, 1, 0));
            assert_eq!(again(&mut flight), answer, "and not what came before it");
        }
        // The next message, its second half, what is encrypted, and what is no handshake.
        for heard in [record(0, 2, 0), record(0, 2, 38), record(1, 1, 0), BytesMut::from(&[21, 254, 253, 0, 0][..])] {
            flight.heard(&heard);
            assert!(again(&mut flight).is_empty(), "{heard:?}");
        }
        // A core that repeats by itself has said it.
        flight.heard(&record(0, 1, 0));
        assert_eq!(flight.sent(to(), &answer[0]), Sent::Repetition);
        assert!(again(&mut flight).is_empty());
        // Unless it is to be said as it was said first.
        flight.repeat();
        assert_eq!(again(&mut flight), answer);
    }

    #[test]
    fn it_ends() {
        let mut flight = Flight::default();
        flight.heard(&record(0, 0, 0));
        (0..100).for_each(|n| assert_eq!(flight.sent(to(), &record(0, n, 0)), Sent::New));
        assert!(again(&mut flight).is_empty());
        let sent: usize = (0..1_000)
            .map(|_| {
                flight.heard(&record(0, 0, 0));
                again(&mut flight).len()
            })
            .sum();
        assert_eq!(sent, MAX_DATAGRAMS * MAX_REPETITIONS);
    }
}
