//! The edge's rules, as `iptables-restore` reads them: which node a flow goes to, and what may not come in at all.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::OUTSIDE;
use crate::plan::addresses;

/// One that a Service is reached at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) udp: bool,
    pub(super) number: u16,
}

/// A Service: its address, its ports, and the nodes that serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) address: Ipv4Addr,
    pub(super) ports: Vec<Port>,
    pub(super) healthy: Vec<usize>,
}

/// What flows that go to this node are marked with; 0 is no mark.
pub(super) fn mark(node: usize) -> usize {
    node + 1
}

/// All that is balanced, among this many nodes.
pub(super) fn balanced(fronts: &[Front], nodes: usize) -> String {
    let mut rules = String::from("*mangle\n:PREROUTING ACCEPT [0:0]\n");
    for number in 0..fronts.len() {
        let _ = writeln!(rules, ":SERVICE-{number} - [0:0]");
    }
    for (number, front) in fronts.iter().enumerate() {
        for port in &front.ports {
            let protocol = if port.udp { "udp" } else { "tcp" };
            let (address, port) = (front.address, port.number);
            let _ = writeln!(
                rules,
                "-A PREROUTING -i {OUTSIDE} -d {address}/32 -p {protocol} --dport {port} -j SERVICE-{number}"
            );
        }
        flows(&mut rules, number, &front.healthy, nodes);
    }
    // What routers say about a flow, such as that a packet was too big, follows it.
    let _ = writeln!(rules, "-A PREROUTING -i {OUTSIDE} -d {} -p icmp -j CONNMARK --restore-mark", addresses::PUBLIC);
    rules += "COMMIT\n";
    rules
}

/// A flow keeps its node while that is healthy, and gets another one by lot.
fn flows(rules: &mut String, number: usize, healthy: &[usize], nodes: usize) {
    let chain = format!("-A SERVICE-{number}");
    let _ = writeln!(rules, "{chain} -j CONNMARK --restore-mark");
    for node in (0..nodes).filter(|node| !healthy.contains(node)) {
        let _ = writeln!(rules, "{chain} -m mark --mark {} -j MARK --set-mark 0", mark(node));
    }
    for (turn, node) in healthy.iter().enumerate() {
        let left = healthy.len() - turn;
        let lot = if left == 1 {
            String::new()
        } else {
            format!(" -m statistic --mode random --probability {:.9}", 1.0 / left as f64)
        };
        let _ = writeln!(rules, "{chain} -m mark --mark 0{lot} -j MARK --set-mark {}", mark(*node));
    }
    let _ = writeln!(rules, "{chain} -j CONNMARK --save-mark");
}

/// Nobody outside begins anything with a pod, or with an address that exists within the cluster alone. Nodes can be reached: some
/// clusters have nodes with addresses of their own, and their ports are a node's firewall's affair.
pub(super) fn forwarded() -> String {
    let mut rules = String::from("*filter\n:FORWARD ACCEPT [0:0]\n");
    for inner in [addresses::PODS, addresses::SERVICES] {
        let _ = writeln!(
            rules,
            "-A FORWARD -i {OUTSIDE} -d {inner} -m conntrack --ctstate NEW -j REJECT --reject-with icmp-admin-prohibited"
        );
    }
    rules += "COMMIT\n";
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_restored_judged_drawn_and_saved() {
        let front = Front {
            address: Ipv4Addr::new(203, 0, 113, 10),
            ports: vec![Port { udp: false, number: 443 }, Port { udp: true, number: 3478 }],
            healthy: vec![0, 2],
        };
        let expected = "*mangle
:PREROUTING ACCEPT [0:0]
:SERVICE-0 - [0:0]
-A PREROUTING -i outside -d 203.0.113.10/32 -p tcp --dport 443 -j SERVICE-0
-A PREROUTING -i outside -d 203.0.113.10/32 -p udp --dport 3478 -j SERVICE-0
-A SERVICE-0 -j CONNMARK --restore-mark
-A SERVICE-0 -m mark --mark 2 -j MARK --set-mark 0
-A SERVICE-0 -m mark --mark 0 -m statistic --mode random --probability 0.500000000 -j MARK --set-mark 1
-A SERVICE-0 -m mark --mark 0 -j MARK --set-mark 3
-A SERVICE-0 -j CONNMARK --save-mark
-A PREROUTING -i outside -d 203.0.113.0/24 -p icmp -j CONNMARK --restore-mark
COMMIT
";
        assert_eq!(balanced(&[front], 3), expected);
    }

    #[test]
    fn nobody_serves() {
        let front = Front { address: Ipv4Addr::new(203, 0, 113, 10), ports: Vec::new(), healthy: Vec::new() };
        let rules = balanced(&[front], 2);
        assert!(
            rules.contains("--mark 1 -j MARK --set-mark 0") && rules.contains("--mark 2 -j MARK --set-mark 0"),
            "{rules}"
        );
        assert!(!rules.contains("--mark 0"), "{rules}");
        assert!(balanced(&[], 2).ends_with("COMMIT\n"));
    }
}
