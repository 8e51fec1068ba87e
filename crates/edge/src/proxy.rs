//! Proxies in front of a server whose word is taken: which addresses they have, and whose request they bring.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
pub use streamfleet_session::Network;

/// Proxies that a request may have come through, of which the addresses are looked at: as many as any chain has.
const MAX_HOPS: usize = 16;

/// Whether this is the address of a proxy whose word is taken.
#[must_use]
pub fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The address that a request is from: the peer's, or what trusted proxies say in `X-Forwarded-For`. Each proxy appends
/// whom it was asked by, so the last address that is no trusted proxy's is the client's; what stands before it is the
/// client's own invention.
#[must_use]
pub fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network]) -> SocketAddr {
    let is_trusted = |address: IpAddr| is_trusted(address, trusted);
    if !is_trusted(peer.ip()) {
        return peer;
    }
    // A client's own line may hold anything, and a proxy appends to it: what cannot be read of it must not hide the rest.
    let lines: Vec<_> =
        headers.get_all("x-forwarded-for").iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let said = lines.iter().rev().flat_map(|line| line.rsplit(',')).take(MAX_HOPS).map(|hop| address(hop.trim()));
    let mut last = peer;
    for hop in said {
        // What cannot be read was not written by one of ours: what stands before it may not be either.
        let Some(hop) = hop else { break };
        last = hop;
        if !is_trusted(hop.ip()) {
            break;
        }
    }
    last
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(whole) = text.parse::<SocketAddr>() {
        return Some(whole);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_address_that_nobody_vouches_for_is_the_clients() {
        #[track_caller]
        fn check(peer: &str, lines: &[&str], expected: &str) {
            let trusted = ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
            }
            let found = client(SocketAddr::new(peer.parse().unwrap(), 7), &headers, &trusted);
            assert_eq!(found.ip(), expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
        check("192.0.2.9", &["198.51.100.1"], "192.0.2.9");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["203.0.113.1, 198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["203.0.113.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1");
        check("10.0.0.1", &["203.0.113.1", "198.51.100.1"], "198.51.100.1");
        check("::1", &["[2001:db8::1]:443"], "2001:db8::1");
        check("10.0.0.1", &["198.51.100.1, nonsense"], "10.0.0.1");
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
    }

    proptest! {
        /// A client that is no trusted proxy is itself, whatever it writes.
        #[test]
        fn a_stranger_is_who_he_is(line in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_str(&line).unwrap());
            let peer = SocketAddr::from(([192, 0, 2, 1], 9));
            prop_assert_eq!(client(peer, &headers, &["10.0.0.0/8".parse().unwrap()]), peer);
        }

        /// Behind trusted proxies a client is the last hop that is none of them, however the chain is cut into lines, and
        /// whatever it has written before.
        #[test]
        fn proxies_are_believed_as_far_as_they_reach(
            invented in prop::collection::vec("[ -~&&[^,]]{0,12}", 0..4),
            proxies in prop::collection::vec(1..255_u8, 0..6),
            cuts in prop::collection::vec(any::<bool>(), 12),
        ) {
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            let mut hops = invented;
            hops.push("198.51.100.7".to_owned());
            hops.extend(proxies.iter().map(|last| format!("10.0.0.{last}")));
            let mut lines: Vec<String> = Vec::new();
            for (n, hop) in hops.into_iter().enumerate() {
                match lines.last_mut() {
                    Some(line) if cuts[n % cuts.len()] => *line = format!("{line}, {hop}"),
                    _ => lines.push(hop),
                }
            }
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
            }
            let found = client(SocketAddr::from(([10, 0, 0, 1], 9)), &headers, &trusted);
            prop_assert_eq!(found.ip(), IpAddr::from([198, 51, 100, 7]));
        }
    }
}
