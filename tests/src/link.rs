//! A TCP connection that can be held up, as a partitioned network holds up what it carries.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

/// How soon a silent connection notices that the link is gone.
const LOOK: Duration = Duration::from_millis(50);

/// Passes connections on to an address. While it is held nothing passes, either way, and nobody is told: bytes wait, and new
/// connections are accepted and get no answer. What has waited goes on when it is released, as TCP's repetitions do.
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Held,
    Gone,
}

struct State {
    mode: Mutex<Mode>,
    changed: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mode: Mode) {
        *self.lock() = mode;
        self.changed.notify_all();
    }

    /// Waits while it is held; false when it is gone.
    fn passes(&self) -> bool {
        let held = |mode: &mut Mode| *mode == Mode::Held;
        let mode = self.changed.wait_while(self.lock(), held).unwrap_or_else(PoisonError::into_inner);
        *mode == Mode::Open
    }
}

impl Link {
    /// Stands before `target`, which need not listen yet, on a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub fn before(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { mode: Mutex::new(Mode::Open), changed: Condvar::new() });
        let shared = state.clone();
        let thread = thread::Builder::new().name("link".to_owned()).spawn(move || {
            for near in listener.incoming() {
                if *shared.lock() == Mode::Gone {
                    return;
                }
                let (Ok(near), state) = (near, shared.clone()) else { continue };
                // A connection that cannot be made is closed, as the target's own refusal would.
                thread::spawn(move || drop(carry(&near, target, &state)));
            }
        })?;
        Ok(Self { address, state, thread: Some(thread) })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing passes from now on.
    pub fn hold(&self) {
        self.state.set(Mode::Held);
    }

    /// Everything passes again.
    pub fn release(&self) {
        self.state.set(Mode::Open);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.set(Mode::Gone);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

fn carry(near: &TcpStream, target: SocketAddr, state: &Arc<State>) -> Result<()> {
    if !state.passes() {
        return Ok(());
    }
    let far = TcpStream::connect(target)?;
    for stream in [near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let (from, to, back) = (far.try_clone()?, near.try_clone()?, state.clone());
    let answers = thread::spawn(move || pump(&from, &to, &back));
    pump(near, &far, state);
    // A thread that panicked has printed why.
    let _ = answers.join();
    Ok(())
}

/// Passes bytes on until one side closes, which the other then hears of.
fn pump(mut from: &TcpStream, mut to: &TcpStream, state: &State) {
    let mut bytes = [0; 16 << 10];
    loop {
        let count = match from.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if *state.lock() == Mode::Gone {
                    break;
                }
                continue;
            }
            Err(_) => break,
        };
        // The end of a connection is a message too.
        if !state.passes() || count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_waits_and_passes_later() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::before(server.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(link.address()).unwrap();
        let (mut far, _) = server.accept().unwrap();
        let mut byte = [0];
        near.write_all(b"a").unwrap();
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");

        link.hold();
        near.write_all(b"b").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(far.read_exact(&mut byte).is_err(), "it is held");
        let mut second = TcpStream::connect(link.address()).unwrap();
        second.write_all(b"c").unwrap();

        link.release();
        far.set_read_timeout(None).unwrap();
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
        let (mut other, _) = server.accept().unwrap();
        other.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"c");

        drop(far);
        assert_eq!(near.read(&mut byte).unwrap(), 0, "the end passes too");
    }
}
