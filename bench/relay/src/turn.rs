//! As much of a TURN client as media by channels needs (RFC 8656): an allocation, and one channel bound.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::scene::{Clients, client};

const ALLOCATE: u16 = 0x003;
const CHANNEL_BIND: u16 = 0x009;
const SUCCESS: u16 = 0x100;
const CHANNEL_NUMBER: u16 = 0x00C;
const XOR_PEER_ADDRESS: u16 = 0x012;
const XOR_RELAYED_ADDRESS: u16 = 0x016;
const REQUESTED_TRANSPORT: u16 = 0x019;
const COOKIE: u32 = 0x2112_A442;
/// The first that there is.
const CHANNEL: u16 = 0x4000;
/// For an answer, before the question is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// What stands before media of this size on its way between client and server. Padding is for streams only.
pub(crate) fn channel_header(size: usize) -> [u8; 4] {
    let [a, b] = CHANNEL.to_be_bytes();
    let [c, d] = (size as u16).to_be_bytes();
    [a, b, c, d]
}

/// Client `n` gets an allocation, and a channel to `peer`; where it is relayed.
pub(crate) fn allocate(
    clients: &mut Clients,
    n: usize,
    server: SocketAddrV4,
    peer: SocketAddrV4,
) -> anyhow::Result<SocketAddrV4> {
    // UDP.
    let answer = ask(clients, n, server, ALLOCATE, &[(REQUESTED_TRANSPORT, vec![17, 0, 0, 0])])?;
    let relayed = attribute(&answer, XOR_RELAYED_ADDRESS).context("no XOR-RELAYED-ADDRESS")?;
    let relayed = address(relayed).context("it is not IPv4")?;
    let channel = (CHANNEL_NUMBER, [&CHANNEL.to_be_bytes()[..], &[0, 0]].concat());
    ask(clients, n, server, CHANNEL_BIND, &[channel, (XOR_PEER_ADDRESS, xored(peer))])?;
    Ok(relayed)
}

fn ask(
    clients: &mut Clients,
    n: usize,
    server: SocketAddrV4,
    method: u16,
    attributes: &[(u16, Vec<u8>)],
) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(value);
    }
    let mut request = Vec::new();
    request.extend(method.to_be_bytes());
    request.extend((body.len() as u16).to_be_bytes());
    request.extend(COOKIE.to_be_bytes());
    request.extend(rand::random::<[u8; 12]>());
    request.extend(body);
    for _ in 0..3 {
        clients.burst.push(client(n), server, &[&request]);
        clients.send()?;
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            let came = clients.receiver.recv()?;
            for n in 0..came {
                let (answer, _) = clients.receiver.datagram(n);
                if answer.get(4..20) == Some(&request[4..20]) {
                    let kind = u16::from_be_bytes([answer[0], answer[1]]);
                    anyhow::ensure!(kind == method | SUCCESS, "the answer is {kind:#x}");
                    return Ok(answer.to_vec());
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    bail!("{server} does not answer")
}

fn attribute(message: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = message.get(20..)?;
    loop {
        let (head, value) = rest.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if u16::from_be_bytes([head[0], head[1]]) == kind {
            return value.get(..len);
        }
        rest = value.get(len.next_multiple_of(4)..)?;
    }
}

fn xored(address: SocketAddrV4) -> Vec<u8> {
    let port = address.port() ^ (COOKIE >> 16) as u16;
    let ip = u32::from(*address.ip()) ^ COOKIE;
    [&[0, 1][..], &port.to_be_bytes(), &ip.to_be_bytes()].concat()
}

fn address(xored: &[u8]) -> Option<SocketAddrV4> {
    let &[_, 1, a, b, c, d, e, f] = xored else { return None };
    let ip = Ipv4Addr::from(u32::from_be_bytes([c, d, e, f]) ^ COOKIE);
    Some(SocketAddrV4::new(ip, u16::from_be_bytes([a, b]) ^ (COOKIE >> 16) as u16))
}
