//! `streamfleet-cluster-echo`: what tests of the cluster itself run in pods. It answers each line of a TCP connection and each
//! datagram, at port 7000, with the name of its host and the address that it was asked from; a line `resolve NAME:PORT` with the
//! addresses of that name.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::{env, thread};

const PORT: u16 = 7000;

fn main() -> io::Result<()> {
    let name = env::var("HOSTNAME").unwrap_or_default();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    thread::scope(|scope| {
        scope.spawn(|| datagrams(&socket, &name));
        for stream in listener.incoming() {
            let (stream, name) = (stream?, &name);
            // A connection that ends in any way is over.
            scope.spawn(move || drop(lines(&stream, name)));
        }
        Ok(())
    })
}

fn datagrams(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let mut buffer = [0; 1500];
    loop {
        let (_, from) = socket.recv_from(&mut buffer)?;
        // One that cannot be answered is lost.
        drop(socket.send_to(answer(name, from).as_bytes(), from));
    }
}

fn lines(stream: &TcpStream, name: &str) -> io::Result<()> {
    let from = stream.peer_addr()?;
    for line in BufReader::new(stream).lines() {
        let said = match line?.strip_prefix("resolve ") {
            Some(asked) => format!("{:?}\n", asked.to_socket_addrs().map(Iterator::collect::<Vec<_>>)),
            None => answer(name, from),
        };
        (&mut &*stream).write_all(said.as_bytes())?;
    }
    Ok(())
}

fn answer(name: &str, from: SocketAddr) -> String {
    format!("{name} {from}\n")
}
