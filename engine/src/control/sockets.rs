//! The sockets of the control thread: where peers connect, and the membership group.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

/// The kernel ends the rings of a killed process, and with them its sockets, some time after the
/// process: 5 to 35 ms were seen on an idle machine. A node that is started again at once waits so
/// long for its port, since a member that comes back elsewhere is not found by static members.
const PORT_WAIT: Duration = Duration::from_millis(200);
/// Pause between two attempts; nothing tells when a port becomes free.
const PORT_PAUSE: Duration = Duration::from_millis(5);
/// Ports beyond those tried among which a free one is looked for, to name it.
const FREE_LOOKED_FOR_COUNT: u16 = 1_000;

/// Why a node cannot listen.
#[derive(Debug)]
pub enum ListenError {
    /// tcpListenAddress is not this machine's.
    NotHere {
        /// What was configured.
        address: IpAddr,
        /// What there is.
        here: Vec<IpAddr>,
    },
    /// Every port tried is in use.
    InUse {
        /// Where.
        address: IpAddr,
        /// The first port tried.
        first: u16,
        /// The last.
        last: u16,
        /// Who listens on the first one, if this user may know it.
        owner: Option<String>,
        /// The next port that is free.
        free: Option<u16>,
    },
    /// auto found no address that other hosts could reach, and the membership reaches them.
    OnlyLoopback {
        /// What auto found.
        address: IpAddr,
        /// The name of this host.
        host: String,
    },
    /// The operating system refused.
    System(std::io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere { address, here } => write!(
                f,
                "tcpListenAddress=\"{address}\" is not an address of this machine; give auto or one \
                 of {}",
                here.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            Self::InUse { address, first, last, owner, free } => {
                write!(f, "tcpListenPort=\"{first}\" on {address} is in use")?;
                if let Some(owner) = owner {
                    write!(f, " by {owner}")?;
                }
                if last > first {
                    write!(f, ", and so are the ports up to {last}")?;
                }
                f.write_str("; stop what listens there, set another tcpListenPort")?;
                if let Some(free) = free {
                    write!(f, " ({free} is free)")?;
                }
                f.write_str(", or raise autoBind, the number of ports that are tried")
            }
            Self::OnlyLoopback { address, host } => write!(
                f,
                "tcpListenAddress=\"auto\" is {address} here, which other hosts cannot reach, while \
                 the membership is not on loopback; give the address that they reach, or the name \
                 {host} a line with it in /etc/hosts"
            ),
            Self::System(error) => write!(f, "listening failed: {error}"),
        }
    }
}

impl std::error::Error for ListenError {}

/// Why the membership group cannot be joined.
#[derive(Debug)]
pub struct MulticastError {
    /// The group.
    pub group: SocketAddr,
    /// The interface, if one was configured.
    pub bind: Option<IpAddr>,
    /// What failed.
    pub error: std::io::Error,
}

impl fmt::Display for MulticastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, bind, error } = self;
        write!(f, "joining mcastAddr=\"{}\" mcastPort=\"{}\"", group.ip(), group.port())?;
        if let Some(bind) = bind {
            write!(f, " on mcastBindAddr=\"{bind}\"")?;
        }
        write!(
            f,
            " failed: {error}; check that the interface exists and has a route for multicast \
             (ip route add 224.0.0.0/4 dev IF), or set mcastBindAddr to one of this machine's \
             addresses"
        )
    }
}

impl std::error::Error for MulticastError {}

/// The addresses of this machine.
pub(super) fn addresses() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = getifaddrs()
        .map(|interfaces| {
            interfaces
                .filter_map(|interface| {
                    let address = interface.address?;
                    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
                    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
                })
                .collect()
        })
        .unwrap_or_default();
    all.sort();
    all.dedup();
    all
}

/// What "auto" means: the address of this host's name, as in Tomcat, unless that is a loopback
/// address, which must not be told to other hosts; then the first other IPv4 address.
fn auto_address() -> IpAddr {
    let named = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .and_then(|name| (name.as_str(), 0).to_socket_addrs().ok())
        .and_then(|mut found| found.find(|address| !address.ip().is_loopback()))
        .map(|address| address.ip());
    let here = addresses();
    named
        .filter(|address| here.contains(address))
        .or_else(|| here.iter().copied().find(|a| a.is_ipv4() && !a.is_loopback()))
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whether members on other hosts are looked for.
fn reaches_out(config: &Config) -> bool {
    let group =
        config.uses_multicast() && !config.mcast_bind_addr.is_some_and(|ip| ip.is_loopback());
    group || config.static_members.iter().any(|member| !member.address.ip().is_loopback())
}

/// What auto found, unless nobody it is told to could connect there.
fn checked_auto(found: IpAddr, config: &Config) -> Result<IpAddr, ListenError> {
    if found.is_loopback() && reaches_out(config) {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        return Err(ListenError::OnlyLoopback {
            address: found,
            host: host.unwrap_or_else(|| "of this host".into()),
        });
    }
    Ok(found)
}

/// Listens on the first free port of the configured range; the first of all is waited for shortly.
pub(super) fn listen(config: &Config) -> Result<std::net::TcpListener, ListenError> {
    let address = match config.tcp_listen_address {
        Some(address) => address,
        None => checked_auto(auto_address(), config)?,
    };
    let first = config.tcp_listen_port;
    let more = u16::try_from(config.auto_bind.saturating_sub(1)).unwrap_or(u16::MAX);
    let last = first.saturating_add(more);
    let until = Instant::now() + PORT_WAIT;
    for port in first..=last {
        let mut bound = bind(address, port);
        while port == first
            && matches!(&bound, Err(error) if error.kind() == std::io::ErrorKind::AddrInUse)
            && Instant::now() < until
        {
            std::thread::sleep(PORT_PAUSE);
            bound = bind(address, port);
        }
        match bound {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => match error.kind() {
                std::io::ErrorKind::AddrInUse => {}
                std::io::ErrorKind::AddrNotAvailable => {
                    return Err(ListenError::NotHere { address, here: addresses() });
                }
                _ => return Err(ListenError::System(error)),
            },
        }
    }
    let beyond = last.saturating_add(1)..=last.saturating_add(FREE_LOOKED_FOR_COUNT);
    let free = beyond.into_iter().find(|port| *port > last && bind(address, *port).is_ok());
    let owner = super::port_owner::of(first);
    Err(ListenError::InUse { address, first, last, owner, free })
}

fn bind(address: IpAddr, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address((address, port).into()), Type::STREAM, None)?;
    // A node that restarts must get its port back from connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    socket.listen(1024)?;
    Ok(socket)
}

/// A socket that sends to and receives from the membership group.
pub(super) fn join(config: &Config) -> Result<std::net::UdpSocket, MulticastError> {
    let group = SocketAddr::new(config.mcast_addr, config.mcast_port);
    let bind = config.mcast_bind_addr;
    let made = (|| {
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        match (config.mcast_addr, bind) {
            (IpAddr::V4(address), interface) => {
                // Bound to the group where an interface is named, so that packets of other groups
                // on the same port do not come in; as stock.
                if interface.is_none() || socket.bind(&group.into()).is_err() {
                    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), group.port());
                    socket.bind(&any.into())?;
                }
                let interface = match interface {
                    Some(IpAddr::V4(interface)) => interface,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                socket.join_multicast_v4(&address, &interface)?;
                if !interface.is_unspecified() {
                    socket.set_multicast_if_v4(&interface)?;
                }
                socket.set_multicast_ttl_v4(config.mcast_ttl)?;
                socket.set_multicast_loop_v4(true)?;
            }
            (IpAddr::V6(address), _) => {
                socket.bind(&group.into())?;
                socket.join_multicast_v6(&address, 0)?;
                socket.set_multicast_hops_v6(config.mcast_ttl)?;
                socket.set_multicast_loop_v6(true)?;
            }
        }
        Ok(socket)
    })();
    made.map(Into::into).map_err(|error| MulticastError { group, bind, error })
}

/// Raises the limit of open descriptors to what is allowed: a node has a connection for each lane
/// of each member. Returns the limit in force.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return Some(soft);
    }
    Some(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_the_kernel_still_holds_is_waited_for_and_one_in_use_is_passed_over() {
        let held = bind(Ipv4Addr::LOCALHOST.into(), 0).expect("a free port");
        let port = held.local_addr().expect("bound").as_socket().expect("an address").port();
        let mut config = Config::default();
        for (name, value) in [
            ("tcpListenAddress", "127.0.0.1"),
            ("tcpListenPort", &port.to_string()),
            ("autoBind", "100"),
        ] {
            config.set(name, value).expect("in range");
        }
        let clock = Instant::now();
        let next = listen(&config).expect("another is free");
        assert!(next.local_addr().expect("bound").port() > port);
        assert!(clock.elapsed() >= PORT_WAIT);
        drop(next);
        // Let go of while it is waited for.
        let letting_go = std::thread::spawn(move || {
            std::thread::sleep(PORT_WAIT / 4);
            drop(held);
        });
        let own = listen(&config).expect("it is let go of");
        assert_eq!(own.local_addr().expect("bound").port(), port);
        letting_go.join().expect("no panic");
    }

    #[test]
    fn auto_is_refused_where_it_is_loopback_and_the_members_are_not() {
        let loopback = IpAddr::from([127, 0, 1, 1]);
        let with = |settings: &[(&str, &str)]| {
            let mut config = Config::default();
            for (name, value) in settings {
                config.set(name, value).expect("a valid knob");
            }
            config
        };
        let text = checked_auto(loopback, &with(&[])).expect_err("a group").to_string();
        assert!(text.contains("tcpListenAddress=\"auto\" is 127.0.1.1"), "{text}");
        assert!(text.contains("/etc/hosts"), "{text}");
        checked_auto(loopback, &with(&[("staticMembers", "10.0.0.2:4000")])).expect_err("far away");
        checked_auto(loopback, &with(&[("staticMembers", "127.0.0.1:4000")])).expect("all here");
        checked_auto(loopback, &with(&[("mcastBindAddr", "127.0.0.1")])).expect("all here");
        checked_auto(IpAddr::from([10, 0, 0, 1]), &with(&[])).expect("others reach it");
    }
}
