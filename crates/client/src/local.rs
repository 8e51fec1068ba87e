//! Which local addresses a call is offered on.

use std::net::{IpAddr, SocketAddr};

/// Each address costs a socket and, with every address of the server, a candidate pair to check; machines with many
/// container bridges have dozens that reach nobody.
const MAX_ADDRESSES: usize = 16;

/// The sockets to bind: every address that another machine can reach, and loopback where the server is reached over it
/// (or nothing else is there), because a server on `127.0.0.1` often advertises nothing but that.
pub(crate) fn bind_addresses(interfaces: &[IpAddr], server: &[IpAddr]) -> Vec<SocketAddr> {
    let mut chosen: Vec<IpAddr> = Vec::new();
    let mut add = |address: IpAddr| {
        if !chosen.contains(&address) && chosen.len() < MAX_ADDRESSES {
            chosen.push(address);
        }
    };
    let usable = |address: &&IpAddr| !address.is_loopback() && !address.is_unspecified() && !is_link_local(address);
    let alone = !interfaces.iter().any(|address| usable(&address));
    for loopback in interfaces.iter().filter(|address| address.is_loopback()) {
        let same_family = |server: &IpAddr| server.is_loopback() && server.is_ipv4() == loopback.is_ipv4();
        if alone || server.iter().any(same_family) {
            add(*loopback);
        }
    }
    interfaces.iter().filter(usable).for_each(|address| add(*address));
    chosen.into_iter().map(|address| SocketAddr::new(address, 0)).collect()
}

/// RFC 3927 and RFC 4291: without a scope id, which a candidate cannot carry, these reach nobody.
fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The addresses of this machine's interfaces, empty when the system does not tell.
pub(crate) fn interfaces() -> Vec<IpAddr> {
    match rtc::shared::ifaces::ifaces() {
        Ok(found) => found.into_iter().filter_map(|interface| interface.addr).map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list the network interfaces");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_by_where_the_server_is() {
        fn check(interfaces: &[&str], server: &[&str], expected: &[&str]) {
            let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
            let found = bind_addresses(&parse(interfaces), &parse(server));
            let expected: Vec<_> = parse(expected).into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            assert_eq!(found, expected, "{interfaces:?} to {server:?}");
        }
        let machine = ["127.0.0.1", "::1", "10.0.0.2", "fe80::1", "169.254.1.1", "2001:db8::2", "10.0.0.2"];
        check(&machine, &["10.0.0.9"], &["10.0.0.2", "2001:db8::2"]);
        check(&machine, &["127.0.0.1"], &["127.0.0.1", "10.0.0.2", "2001:db8::2"]);
        check(&machine, &["::1", "127.0.0.1"], &["127.0.0.1", "::1", "10.0.0.2", "2001:db8::2"]);
        check(&["127.0.0.1", "::1"], &["10.0.0.9"], &["127.0.0.1", "::1"]);
        check(&[], &["10.0.0.9"], &[]);
        let many: Vec<String> = (0..40).map(|n| format!("10.0.1.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, &["10.0.0.9"], &many[..MAX_ADDRESSES]);
    }
}
