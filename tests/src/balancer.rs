//! A load balancer for UDP, on the loopback interface: each client has one address towards whoever serves, as with direct server
//! return, and who serves changes in a moment, for all of them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// More than the clients of any of these tests.
const MAX_CLIENTS: usize = 256;
/// How soon a thread that waits for a datagram sees that it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// More than any datagram that fits an Ethernet frame.
const BUFFER: usize = 2048;

/// It balances until it is dropped.
pub struct Balancer {
    inner: Arc<Inner>,
    outward: Option<JoinHandle<()>>,
}

struct Inner {
    front: UdpSocket,
    servers: Vec<SocketAddr>,
    serving: AtomicUsize,
    inward: Mutex<Vec<JoinHandle<()>>>,
    over: AtomicBool,
}

impl Balancer {
    /// Stands before these servers, of which the first serves.
    ///
    /// # Errors
    /// When there is no port.
    pub fn before(servers: Vec<SocketAddr>) -> Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no port")?;
        front.set_read_timeout(Some(PATIENCE))?;
        let (serving, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let inner = Arc::new(Inner { front, servers, serving, inward: Mutex::default(), over });
        let outward = inner.clone();
        let outward = thread::Builder::new().name("balancer".to_owned()).spawn(move || outward.outward())?;
        Ok(Self { inner, outward: Some(outward) })
    }

    /// Where clients send to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.inner.front.local_addr()?)
    }

    /// Sends everything to this server from now on.
    pub fn serve(&self, server: usize) {
        self.inner.serving.store(server, Relaxed);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.inner.over.store(true, Relaxed);
        let inward = std::mem::take(&mut *self.inner.inward.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in self.outward.take().into_iter().chain(inward) {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn outward(self: &Arc<Self>) {
        let mut ports: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = [0; BUFFER];
        while !self.over.load(Relaxed) {
            let Ok((length, client)) = self.front.recv_from(&mut buffer) else { continue };
            let port = match ports.get(&client) {
                Some(port) => port.clone(),
                None if ports.len() == MAX_CLIENTS => continue,
                None => match self.open(client) {
                    Ok(port) => ports.entry(client).or_insert(port).clone(),
                    Err(_) => continue,
                },
            };
            // What cannot be sent is lost, as on any network.
            let _ = port.send_to(&buffer[..length], self.servers[self.serving.load(Relaxed)]);
        }
    }

    /// A client's address towards the servers, and a thread that reads it.
    fn open(self: &Arc<Self>, client: SocketAddr) -> std::io::Result<Arc<UdpSocket>> {
        let port = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        port.set_read_timeout(Some(PATIENCE))?;
        let (inner, reads) = (self.clone(), port.clone());
        let thread = thread::Builder::new().name("balancer".to_owned()).spawn(move || {
            let mut buffer = [0; BUFFER];
            while !inner.over.load(Relaxed) {
                if let Ok(length) = reads.recv(&mut buffer) {
                    let _ = inner.front.send_to(&buffer[..length], client);
                }
            }
        })?;
        self.inward.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(port)
    }
}
