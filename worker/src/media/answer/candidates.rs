//! ICE candidates: the worker's own in an answer, and those of the client that the agent may try.

use std::net::SocketAddr;

use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use streamfleet_session::candidate::{ParsedCandidate, RemoteCandidate};

/// Candidates taken for one session. A check goes to each, so the number bounds what a hostile offer can have us send.
pub(crate) const MAX_REMOTE_CANDIDATES: usize = 16;

/// What the ICE agent takes for its own addresses: one advertised address of each family. All of them are the same
/// socket, so which of several a packet came to makes no difference to the agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalAddresses {
    pub(crate) v4: Option<SocketAddr>,
    pub(crate) v6: Option<SocketAddr>,
}

impl LocalAddresses {
    pub(crate) fn new(advertised: &[SocketAddr]) -> Self {
        LocalAddresses {
            v4: advertised.iter().copied().find(SocketAddr::is_ipv4),
            v6: advertised.iter().copied().find(SocketAddr::is_ipv6),
        }
    }

    /// The local address of packets to and from `peer`, if the family is served at all.
    pub(crate) fn for_peer(&self, peer: SocketAddr) -> Option<SocketAddr> {
        if peer.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// RFC 8839 5.1. Priority by RFC 8445 5.1.2.1: host candidates, the first of the list preferred.
pub(super) fn host_candidate(index: usize, address: SocketAddr) -> String {
    let local_preference = 65_535u32.saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
    let priority = 126u32 << 24 | local_preference << 8 | 255;
    format!("candidate:{} 1 udp {priority} {} {} typ host", index + 1, address.ip(), address.port())
}

/// The usable ones among an offer's candidate lines, each address once. They are read here because the core would take
/// `.local` names, TCP and eight-token forms in ways of its own.
pub(super) fn offered(lines: &[&str]) -> Vec<RemoteCandidate> {
    let mut found: Vec<RemoteCandidate> = Vec::new();
    for line in lines {
        if found.len() == MAX_REMOTE_CANDIDATES {
            break;
        }
        let text = serde_json::json!({ "candidate": format!("candidate:{line}"), "sdpMLineIndex": 0 });
        if let Ok(ParsedCandidate::Candidate(c)) = RemoteCandidate::parse(&text)
            && !found.iter().any(|f| f.socket_addr() == c.socket_addr())
        {
            found.push(c);
        }
    }
    found
}

/// Gives the agent a candidate that it can use; false for families that are not served and what the core refuses.
pub(crate) fn add_remote(pc: &mut RTCPeerConnection, base: &LocalAddresses, candidate: &RemoteCandidate) -> bool {
    let Some(address) = candidate.socket_addr() else { return false };
    if base.for_peer(address).is_none() {
        return false;
    }
    pc.add_remote_candidate(RTCIceCandidateInit { candidate: candidate.line.clone(), ..Default::default() }).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offers_candidates_are_bounded_and_differ() {
        let line = |n: usize| format!("1 1 udp 1 192.0.2.{} 5000 typ host", n % 20);
        let lines: Vec<String> = (0..100).map(line).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(offered(&lines[..10]).len(), 10);
        assert_eq!(offered(&lines).len(), MAX_REMOTE_CANDIDATES);
        assert_eq!(offered(&[lines[0], lines[0], "1 1 tcp 1 192.0.2.1 9 typ host", "gibberish"]).len(), 1);
        assert_eq!(offered(&["1 1 udp 1 0a1b.local 5000 typ host"]).len(), 0);
    }
}
