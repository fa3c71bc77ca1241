//! Trying out what the control thread will do, without a node and without a peer noticing.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::config::Config;

use super::sockets;
use super::{ListenError, MulticastError};

/// How long a packet to the group may take to come back.
const RETURN_WITHIN: Duration = Duration::from_secs(1);

/// Binds what [`crate::node::Node::listen`] would, and lets it go: the address that a node would
/// tell its peers.
///
/// # Errors
/// As [`crate::node::Node::listen`].
pub fn listen(config: &Config) -> Result<SocketAddr, ListenError> {
    sockets::listen(config)?.local_addr().map_err(ListenError::System)
}

/// Sends a packet to the group and waits up to a second for it to come back; returns how long it
/// took. It goes to another port than the cluster's and does not leave the machine: a stock member
/// ends its membership over a packet that it cannot read.
///
/// # Errors
/// The group cannot be joined, nothing can be sent to it, or nothing comes back.
pub fn multicast(config: &Config) -> Result<Duration, MulticastError> {
    let made = |error| MulticastError {
        group: SocketAddr::new(config.mcast_addr, config.mcast_port),
        bind: config.mcast_bind_addr,
        error,
    };
    let mut aside = config.clone();
    aside.mcast_ttl = 0;
    aside.mcast_port = free_port(config.mcast_addr).map_err(made)?;
    let socket = sockets::join(&aside).map_err(|refused| made(refused.error))?;
    there_and_back(&socket, SocketAddr::new(aside.mcast_addr, aside.mcast_port)).map_err(made)
}

fn free_port(family: IpAddr) -> std::io::Result<u16> {
    let any = if family.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    Ok(UdpSocket::bind(any)?.local_addr()?.port())
}

fn there_and_back(socket: &UdpSocket, group: SocketAddr) -> std::io::Result<Duration> {
    let token: [u8; 16] = crate::ring::random_bytes()?;
    let sent = Instant::now();
    socket.send_to(&token, group)?;
    let mut buffer = [0; 64];
    loop {
        let left = RETURN_WITHIN.saturating_sub(sent.elapsed());
        if left.is_zero() {
            let text = "a packet that was sent to it did not come back within a second";
            return Err(Error::new(ErrorKind::TimedOut, text));
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((length_bytes, _)) if buffer[..length_bytes] == token => return Ok(sent.elapsed()),
            Ok(_) => {}
            // The time is up: the next turn says so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
