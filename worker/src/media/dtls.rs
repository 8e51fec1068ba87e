//! Which DTLS datagrams the core may see (RFC 6347).
//!
//! The core reassembles handshake messages from fragments before anyone is authenticated, one recursion for each, and does not
//! bound how many there are. A client cuts a message where a datagram is full, so of small fragments it sends at most one in
//! each; more are refused here, together with more handshake datagrams than any handshake has. A message then has at most
//! `MAX_MESSAGE / MIN_FRAGMENT + BEFORE` of them.

/// Handshake datagrams that a session may send before it is connected: seven retransmissions of a flight of a dozen.
const BEFORE: u32 = 96;
/// And after: a client whose last flight was answered by one that got lost repeats it, again at most seven times.
const AFTER: u32 = 24;
/// Records in one datagram.
const MAX_RECORDS: usize = 16;
/// Handshake messages, or fragments of them, in one record.
const MAX_FRAGMENTS: usize = 8;
/// A fragment that is not the last of its message and shorter than this, octets, is small.
const MIN_FRAGMENT: usize = 128;
/// Small fragments in one datagram: OpenSSL fills a datagram to the last octet, with the beginning of the next message.
const MAX_SMALL: usize = 1;
/// The longest handshake message, octets: a certificate chain.
const MAX_MESSAGE: usize = 32 * 1024;

const RECORD_HEADER: usize = 13;
const FRAGMENT_HEADER: usize = 12;
const HANDSHAKE: u8 = 22;

/// Counts what one session's client may still send of a handshake.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    before: u32,
    after: u32,
}

/// Where the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Handshake,
    Connected,
}

impl Gate {
    /// Whether the core may see this datagram.
    pub(crate) fn admit(&mut self, datagram: &[u8], phase: Phase) -> bool {
        let Some(plain) = inspect(datagram) else { return false };
        match (phase, plain) {
            (Phase::Handshake, _) => {
                self.before += 1;
                self.before <= BEFORE
            }
            (Phase::Connected, Plain::Some) => {
                self.after += 1;
                self.after <= AFTER
            }
            // Authenticated by its record's key: the core throws away what is not.
            (Phase::Connected, Plain::None) => true,
        }
    }
}

/// Whether a datagram has records that nothing authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plain {
    Some,
    None,
}

fn number(octets: &[u8]) -> usize {
    octets.iter().fold(0, |n, octet| n << 8 | usize::from(*octet))
}

/// `None` for what no client sends.
fn inspect(mut rest: &[u8]) -> Option<Plain> {
    let mut plain = Plain::None;
    let mut small = 0;
    for _ in 0..MAX_RECORDS {
        if rest.is_empty() {
            return Some(plain);
        }
        let (header, body) = rest.split_at_checked(RECORD_HEADER)?;
        let (body, next) = body.split_at_checked(number(&header[11..13]))?;
        if number(&header[3..5]) == 0 {
            plain = Plain::Some;
            if header[0] == HANDSHAKE {
                small += small_fragments(body)?;
                if small > MAX_SMALL {
                    return None;
                }
            }
        }
        rest = next;
    }
    rest.is_empty().then_some(plain)
}

/// How many fragments of a record are small; `None` if they lie about their message or are too many.
fn small_fragments(mut rest: &[u8]) -> Option<usize> {
    let mut small = 0;
    for _ in 0..MAX_FRAGMENTS {
        if rest.is_empty() {
            return Some(small);
        }
        let (header, body) = rest.split_at_checked(FRAGMENT_HEADER)?;
        let (length, offset, size) = (number(&header[1..4]), number(&header[6..9]), number(&header[9..12]));
        let last = offset + size == length;
        // An empty piece of a message that is not empty is no piece of it.
        if length > MAX_MESSAGE || offset + size > length || (!last && size == 0) {
            return None;
        }
        small += usize::from(!last && size < MIN_FRAGMENT);
        rest = body.get(size..)?;
    }
    rest.is_empty().then_some(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(length: u32, offset: u32, body: &[u8]) -> Vec<u8> {
        let size = body.len() as u32;
        let mut f = vec![1];
        f.extend_from_slice(&length.to_be_bytes()[1..]);
        f.extend_from_slice(&[0, 0]);
        f.extend_from_slice(&offset.to_be_bytes()[1..]);
        f.extend_from_slice(&size.to_be_bytes()[1..]);
        f.extend_from_slice(body);
        f
    }

    fn record(kind: u8, epoch: u16, body: &[u8]) -> Vec<u8> {
        let mut r = vec![kind, 254, 253];
        r.extend_from_slice(&epoch.to_be_bytes());
        r.extend_from_slice(&[0; 6]);
        r.extend_from_slice(&(body.len() as u16).to_be_bytes());
        r.extend_from_slice(body);
        r
    }

    #[test]
    fn only_what_a_client_would_send_passes() {
        let check = |datagram: &[u8], expected: Option<Plain>| assert_eq!(inspect(datagram), expected, "{datagram:?}");
        check(&record(22, 0, &fragment(200, 0, &[0; 200])), Some(Plain::Some));
        check(&record(22, 0, &[fragment(0, 0, &[]), fragment(33, 0, &[0; 33])].concat()), Some(Plain::Some));
        check(&record(22, 0, &fragment(3_000, 1_200, &[0; 1_200])), Some(Plain::Some));
        check(&record(22, 0, &fragment(3_000, 2_990, &[0; 10])), Some(Plain::Some));
        check(&[record(20, 0, &[1]), record(22, 1, &[9; 40])].concat(), Some(Plain::Some));
        check(&record(23, 1, &[9; 40]), Some(Plain::None));
        // OpenSSL's first flight: the beginning of CertificateVerify fills the datagram.
        let certificate = record(22, 0, &fragment(700, 0, &[0; 700]));
        let verify = record(22, 0, &fragment(264, 0, &[0; 28]));
        check(&[certificate, verify.clone()].concat(), Some(Plain::Some));
        check(&record(22, 0, &fragment(3_000, 0, &[0; 10])), Some(Plain::Some));
        // Fragments that lie about their message, or too many that are small, or too many.
        check(&record(22, 0, &fragment(0, 7, &[0])), None);
        check(&verify.repeat(2), None);
        check(&record(22, 0, &fragment(264, 0, &[0; 28]).repeat(2)), None);
        check(&record(22, 0, &fragment(3_000, 0, &[])), None);
        check(&record(22, 0, &fragment(1 << 20, 0, &[0; 1_200])), None);
        check(&record(22, 0, &fragment(1, 0, &[0]).repeat(9)), None);
        // Truncated, and too many records.
        check(&record(22, 0, &fragment(200, 0, &[0; 200]))[..100], None);
        check(&record(23, 1, &[9]).repeat(17), None);
        check(&[22], None);
    }

    #[test]
    fn a_handshake_has_an_end() {
        let mut gate = Gate::default();
        let hello = record(22, 0, &fragment(200, 0, &[0; 200]));
        let data = record(23, 1, &[9; 40]);
        let admitted =
            |gate: &mut Gate, datagram: &[u8], phase| (0..1_000).filter(|_| gate.admit(datagram, phase)).count();
        assert_eq!(admitted(&mut gate, &hello, Phase::Handshake), BEFORE as usize);
        assert_eq!(admitted(&mut gate, &hello, Phase::Connected), AFTER as usize);
        assert_eq!(admitted(&mut gate, &data, Phase::Connected), 1_000);
    }
}
