//! A TCP proxy in front of a member: connections through it can be lost, or stall in one direction.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Connections that it keeps open at once; further ones are closed at once.
const MOST_CONNECTIONS_COUNT: usize = 256;
const CHUNK_BYTES: usize = 16 << 10;

/// Towards the member, or from it.
const DIRECTIONS: [usize; 2] = [0, 1];

#[derive(Debug, Default)]
struct State {
    stalled: [bool; 2],
    connections: Vec<[TcpStream; 2]>,
}

#[derive(Debug, Default)]
struct Shared {
    target: AtomicU16,
    ended: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries bytes one way until an end of the connection is lost.
    fn carry(&self, direction: usize, mut from: &TcpStream, mut to: &TcpStream) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length) = from.read(&mut chunk) {
            let mut state = self.state();
            while state.stalled[direction] && !self.ended.load(Ordering::Acquire) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            if length == 0 {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            if to.write_all(&chunk[..length]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let port = self.target.load(Ordering::Acquire);
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        let mut state = self.state();
        state.connections.retain(|[client, _]| client.take_error().is_ok() && is_open(client));
        if state.connections.len() >= MOST_CONNECTIONS_COUNT {
            return Ok(());
        }
        state.connections.push([client.try_clone()?, server.try_clone()?]);
        drop(state);
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let ends = Arc::new([client, server]);
        for direction in DIRECTIONS {
            let (shared, ends) = (Arc::clone(self), Arc::clone(&ends));
            std::thread::spawn(move || {
                shared.carry(direction, &ends[direction], &ends[1 - direction]);
            });
        }
        Ok(())
    }
}

fn is_open(stream: &TcpStream) -> bool {
    stream.peer_addr().is_ok()
}

/// A running proxy on loopback.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens; until it has a target, what connects is closed.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start() -> Result<Self, String> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let shared = Arc::new(Shared::default());
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    if shared.ended.load(Ordering::Acquire) {
                        return;
                    }
                    // A member that is not there is seen by who connects: its connection is closed.
                    let _ = shared.connect(client);
                }
            })
        };
        Ok(Self { port, shared, accepting: Some(accepting) })
    }

    /// Where the member listens from now on; 0 for nowhere.
    pub fn aim(&self, port: u16) {
        self.shared.target.store(port, Ordering::Release);
    }

    /// Loses the connections that `choose` says; what is on the way is gone with them.
    pub fn lose(&self, mut choose: impl FnMut() -> bool) {
        let mut state = self.shared.state();
        state.connections.retain(|ends| {
            let is_lost = choose();
            if is_lost {
                for end in ends {
                    let _ = end.shutdown(Shutdown::Both);
                }
            }
            !is_lost
        });
    }

    /// Holds back what goes to the member, or comes from it.
    pub fn stall(&self, to_member: bool, from_member: bool) {
        self.shared.state().stalled = [to_member, from_member];
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        self.lose(|| true);
        // Wakes who waits for a connection.
        let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}
