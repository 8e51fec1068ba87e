//! A load balancer as clouds have them for UDP: flows to one public address go to whoever serves, by their hash, and nobody's
//! address is changed.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::namespaces::Namespace;

/// What may be balanced apart from the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// UDP.
    Media,
    /// TCP.
    Signalling,
}

impl Traffic {
    const fn protocol(self) -> &'static str {
        match self {
            Self::Media => "udp",
            Self::Signalling => "tcp",
        }
    }

    /// Its table of routes.
    const fn table(self) -> u32 {
        match self {
            Self::Media => 100,
            Self::Signalling => 101,
        }
    }
}

/// A router between clients and servers, which has routes of equal cost to the public address by each server that serves
/// (ECMP). Which server a flow gets is a hash of its addresses and ports, and may change for all flows when the servers do.
/// It looks after nobody's health: a test says who serves.
pub struct Edge {
    pub(crate) namespace: Namespace,
    public: Ipv4Addr,
    servers: Vec<Ipv4Addr>,
}

impl Edge {
    /// It balances what comes for `public` between `servers`, none of which serves yet.
    ///
    /// # Errors
    /// What `ip` says.
    pub(crate) fn new(namespace: Namespace, public: Ipv4Addr, servers: Vec<Ipv4Addr>) -> Result<Self> {
        namespace.set("ipv4/ip_forward", "1")?;
        // By addresses, protocol and ports as they stand in the packet. Policy 1 would take the word of a socket of this machine.
        namespace.set("ipv4/fib_multipath_hash_policy", "3")?;
        namespace.set("ipv4/fib_multipath_hash_fields", "0x37")?;
        for traffic in [Traffic::Media, Traffic::Signalling] {
            let (protocol, table) = (traffic.protocol(), traffic.table());
            namespace.ip(&format!("rule add to {public} ipproto {protocol} lookup {table}"))?;
        }
        Ok(Self { namespace, public, servers })
    }

    /// From now on these servers serve, by number.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn serve(&self, traffic: Traffic, by: &[usize]) -> Result<()> {
        let (public, table) = (self.public, traffic.table());
        let ways: String = by.iter().map(|server| format!(" nexthop via {}", self.servers[*server])).collect();
        self.namespace.ip(&format!("route replace {public}/32 table {table}{ways}"))?;
        Ok(())
    }
}
