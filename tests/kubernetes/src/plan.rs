//! How large a cluster is, how soon it notices things, and who has which address.

use std::time::Duration;

/// What a cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Nodes that run pods.
    pub nodes: usize,
    /// When the cluster notices that something is gone.
    pub timing: Timing,
}

impl Plan {
    /// That many nodes, and a test's timing.
    pub const fn of(nodes: usize) -> Self {
        Self { nodes, timing: Timing::TEST }
    }
}

/// How soon a cluster notices. All of it is shorter than where Kubernetes is run for work, so that tests do not wait; what is not
/// named here is as Kubernetes has it: pods tolerate a dead node for 300 s, an Endpoint goes when its pod is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A kubelet's lease; it is renewed four times as often. Kubernetes: 40 s.
    pub node_lease: Duration,
    /// A node whose lease was not renewed for this long is not Ready. Kubernetes: 50 s.
    pub node_grace: Duration,
    /// How often an HPA looks. Kubernetes: 15 s.
    pub autoscaler: Duration,
    /// The least between two changes of a node's rules for Services: as Kubernetes has it, since that is what calls are lost by.
    pub proxy: Duration,
}

impl Timing {
    /// What tests have.
    pub const TEST: Self = Self {
        node_lease: Duration::from_secs(8),
        node_grace: Duration::from_secs(15),
        autoscaler: Duration::from_secs(2),
        proxy: Duration::from_secs(1),
    };
}

/// Who has which address. Every cluster has the same ones: their networks do not touch.
pub mod addresses {
    use std::net::Ipv4Addr;

    /// The edge, towards nodes and control plane.
    pub const EDGE: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
    /// The control plane.
    pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 10);
    /// Nodes and control plane.
    pub const FABRIC: &str = "10.240.0.0/24";
    /// All pods.
    pub const PODS: &str = "10.244.0.0/16";
    /// Services within the cluster.
    pub const SERVICES: &str = "10.96.0.0/16";
    /// The cluster's DNS.
    pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
    /// The edge, towards clients. The networks of both are for documentation (RFC 5737).
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    /// A client outside.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    /// Addresses of a crowd, all of them the client's (RFC 2544).
    pub const CROWD: &str = "198.18.0.0/15";
    /// What load balancers have.
    pub const PUBLIC: &str = "203.0.113.0/24";
    /// The first one that Services get.
    pub const FIRST_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    /// The last one.
    pub const LAST_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);

    /// More nodes than any test has, and as many as have addresses.
    pub const MAX_NODES: usize = 20;

    /// A node, the first of which is number 0.
    pub fn node(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, 0, 11 + small(number))
    }

    /// The pods of a node.
    pub fn pods(number: usize) -> String {
        format!("10.244.{}.0/24", 1 + small(number))
    }

    fn small(number: usize) -> u8 {
        assert!(number < MAX_NODES, "node {number} of at most {MAX_NODES}");
        u8::try_from(number).unwrap_or(u8::MAX)
    }
}
