//! Hosts with a member each.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;

use super::judge::{Judgement, judge};
use crate::driven::Child;
use crate::netns::{Network, NetworkError};
use crate::process::monotonic_micros;

/// The program that is a member, with its first arguments; with a wrapper before it, if need be.
pub type Program = Vec<String>;

/// This program as a member, for one that hands `member ...` on to `driven::main`.
///
/// # Errors
/// It does not know where it lies.
pub fn this_program() -> Result<Program, String> {
    let path = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    Ok(vec![path.display().to_string(), "member".into()])
}

/// What was made, or `None` where this machine lacks what it takes: the test is skipped, and says so.
///
/// # Panics
/// It was not made for another reason.
pub fn or_skip<T>(made: Result<T, NetworkError>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(error @ NetworkError::Lacking(_)) => {
            // Past the test's capture: a test that did not look should not pass unseen.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {error}");
            None
        }
        Err(error @ NetworkError::Failed(_)) => panic!("{error}"),
    }
}

/// The id of the member at an address of a [`Network`]: one more than its host.
pub(super) fn host_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => Some(usize::from(ip.octets()[3])),
        IpAddr::V6(_) => None,
    }
}

#[derive(Debug, Default)]
struct Host {
    child: Option<Child>,
    /// How often it was started.
    life: u32,
}

/// See the module. What members note goes with it, unless a test panics.
#[derive(Debug)]
pub struct Cluster {
    // Members end before their network goes.
    hosts: Vec<Host>,
    /// What they are connected by.
    pub network: Network,
    program: Program,
    settings: Vec<String>,
    directory: PathBuf,
}

impl Cluster {
    /// Makes the network and starts a member on each host; all see all.
    ///
    /// # Errors
    /// See [`NetworkError`]; a member that does not start is [`NetworkError::Failed`].
    pub fn start(
        hosts_count: usize,
        program: Program,
        settings: &[&str],
    ) -> Result<Self, NetworkError> {
        let mut cluster = Self::make(hosts_count, program, settings)?;
        let all = 0..hosts_count;
        let started = all.clone().try_for_each(|host| cluster.revive(host, &[]));
        started.and_then(|()| cluster.all_see_all()).map_err(NetworkError::Failed)?;
        Ok(cluster)
    }

    /// The same without members.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn make(
        hosts_count: usize,
        program: Program,
        settings: &[&str],
    ) -> Result<Self, NetworkError> {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let network = Network::make(hosts_count)?;
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("rtfault-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory)
            .map_err(|error| NetworkError::Failed(format!("{}: {error}", directory.display())))?;
        let hosts = (0..hosts_count).map(|_| Host::default()).collect();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Ok(Self { hosts, network, program, settings, directory })
    }

    /// Hosts.
    #[must_use]
    pub fn hosts_count(&self) -> usize {
        self.hosts.len()
    }

    /// Hosts whose member runs.
    #[must_use]
    pub fn living(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].child.is_some()).collect()
    }

    /// Living hosts but this one.
    #[must_use]
    pub fn others(&self, than: usize) -> Vec<usize> {
        self.living().into_iter().filter(|host| *host != than).collect()
    }

    /// The process and the arguments of a member on a host.
    #[must_use]
    pub fn command(&self, host: usize) -> std::process::Command {
        let mut command = self.network.command(host, Path::new(&self.program[0]));
        command.args(&self.program[1..]);
        command
    }

    /// What every member of a host is told at its start.
    #[must_use]
    pub fn arguments(&self, host: usize) -> Vec<String> {
        let ip = Network::ip(host);
        let life = self.hosts[host].life;
        let mut arguments = vec![
            format!("tcpListenAddress={ip}"),
            format!("tcpListenPort={}", crate::netns::PORT),
            "autoBind=1".into(),
            format!("mcastBindAddr={ip}"),
            format!("life={life}"),
            format!("notes={}", self.directory.display()),
        ];
        arguments.extend(self.settings.iter().cloned());
        arguments
    }

    /// Starts the member of a host, again if it had one, with more settings.
    ///
    /// # Errors
    /// It does not listen.
    pub fn revive(&mut self, host: usize, more: &[&str]) -> Result<(), String> {
        self.hosts[host].life += 1;
        let mut arguments = self.arguments(host);
        arguments.extend(more.iter().map(|setting| (*setting).to_owned()));
        let id = u8::try_from(host + 1).map_err(|error| error.to_string())?;
        self.hosts[host].child = Some(Child::start(self.command(host), id, &arguments)?);
        Ok(())
    }

    /// The member of a host.
    ///
    /// # Panics
    /// It does not run.
    pub fn member(&mut self, host: usize) -> &mut Child {
        self.hosts[host].child.as_mut().expect("it runs")
    }

    /// Asks the member of a host.
    ///
    /// # Errors
    /// It has ended, or could not do it.
    pub fn ask(&mut self, host: usize, command: &str) -> Result<String, String> {
        let answer = self.member(host).try_ask(command);
        answer.map_err(|error| format!("host {host}: {error}"))
    }

    /// Asks all.
    ///
    /// # Errors
    /// The first that there is.
    pub fn ask_all(&mut self, command: &str) -> Result<Vec<String>, String> {
        self.living().into_iter().map(|host| self.ask(host, command)).collect()
    }

    /// Waits until all living members see each other.
    ///
    /// # Errors
    /// They do not.
    pub fn all_see_all(&mut self) -> Result<(), String> {
        let others_count = self.living().len().saturating_sub(1);
        self.ask_all(&format!("members count={others_count}")).map(drop)
    }

    /// How often `observer` saw a change of a host.
    ///
    /// # Errors
    /// It does not answer.
    pub fn count(&mut self, observer: usize, kind: &str, host: usize) -> Result<u64, String> {
        let address = Network::address(host);
        let answer = self.ask(observer, &format!("count kind={kind} address={address}"))?;
        answer.parse().map_err(|error| format!("{answer}: {error}"))
    }

    /// When `observer` saw the Nth change of a host, once it does.
    ///
    /// # Errors
    /// It does not.
    pub fn await_change(
        &mut self,
        observer: usize,
        kind: &str,
        host: usize,
        nth: u64,
    ) -> Result<u64, String> {
        let address = Network::address(host);
        let command = format!("change kind={kind} address={address} count={nth}");
        let answer = self.ask(observer, &command)?;
        answer.parse().map_err(|error| format!("{answer}: {error}"))
    }

    /// Sends a signal to the member of a host; tells when.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&mut self, host: usize, signal: Signal) -> Result<u64, String> {
        let micros = monotonic_micros();
        self.member(host).process.signal(signal)?;
        Ok(micros)
    }

    /// SIGKILL to the member of a host; tells when.
    ///
    /// # Errors
    /// It has ended.
    pub fn kill(&mut self, host: usize) -> Result<u64, String> {
        let micros = self.signal(host, Signal::SIGKILL)?;
        self.hosts[host].child = None;
        Ok(micros)
    }

    /// Ends the senders of all members and then the members; tells what the notes say.
    ///
    /// # Errors
    /// Notes cannot be read.
    pub fn judge(&mut self) -> Result<Judgement, String> {
        for host in &mut self.hosts {
            host.child = None;
        }
        judge(&self.directory)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            host.child = None;
        }
        if std::thread::panicking() {
            eprintln!("what the members noted lies in {}", self.directory.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}
