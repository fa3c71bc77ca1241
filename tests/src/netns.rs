//! A network of the tests' own: hosts in network namespaces, veth links to one bridge in a namespace
//! beside them, and what goes wrong on a link. Nothing of it is seen by the machine's own network.
//!
//! Packets are dropped by filters at the bridge's port of a host, so both ends keep their carrier and
//! nobody is told; a link is cut by taking that port down. Programs of classic BPF do without netem,
//! which many kernels lack. A slow link is a token bucket (`tbf`) with a queue.

use std::fmt;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where a member of each host listens.
pub const PORT: u16 = 4000;
/// Begins every name, before the id of the process that made it.
const PREFIX: &str = "rtfault";
/// Hosts of a network at most.
const MOST_HOSTS_COUNT: usize = 32;

/// Why there is no network.
#[derive(Debug)]
pub enum NetworkError {
    /// This machine lacks something that it takes; a test that needs it is skipped.
    Lacking(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacking(why) => write!(
                f,
                "no network namespaces here ({why}): run as root with CAP_NET_ADMIN and \
                 CAP_SYS_ADMIN, iproute2, and a kernel with veth, bridge, cls_bpf and sch_tbf"
            ),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NetworkError {}

/// The way of packets that a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What a host sends.
    From,
    /// What is sent to a host.
    To,
}

/// Which packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of them: the link stalls and nobody is told.
    All,
    /// So many of a hundred UDP packets, by chance: heartbeats.
    Heartbeats(u32),
    /// So many of a hundred packets of any sort, by chance.
    Any(u32),
}

impl Loss {
    /// Classic BPF, whose result is the verdict: 2 drops, 0 lets pass.
    fn program(self) -> String {
        // SKF_AD_OFF + SKF_AD_RANDOM: a random word.
        const RANDOM: u32 = 0xffff_f000 + 56;
        let share = |percent: u32| u64::from(percent.min(100)) * u64::from(u32::MAX) / 100;
        match self {
            Self::All => "1,6 0 0 2".into(),
            Self::Any(percent) => {
                let share = share(percent);
                format!("4,32 0 0 {RANDOM},53 1 0 {share},6 0 0 2,6 0 0 0")
            }
            // IPv4, then UDP.
            Self::Heartbeats(percent) => {
                let share = share(percent);
                format!(
                    "8,40 0 0 12,21 0 5 2048,48 0 0 23,21 0 3 17,32 0 0 {RANDOM},53 1 0 {share},\
                     6 0 0 2,6 0 0 0"
                )
            }
        }
    }
}

/// See the module. It is removed when this is dropped, and by the next process that makes one if
/// that never came to pass.
#[derive(Debug)]
pub struct Network {
    name: String,
    hosts_count: usize,
}

impl Network {
    /// Makes a network of so many hosts.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn make(hosts_count: usize) -> Result<Self, NetworkError> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        assert!(hosts_count <= MOST_HOSTS_COUNT, "{hosts_count} hosts");
        remove_stale();
        let count = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}n{count}", std::process::id());
        // From here on a drop removes what there is.
        let network = Self { name, hosts_count };
        let hub = network.hub();
        let mut lines = vec![format!("netns add {hub}")];
        lines.extend((0..hosts_count).map(|host| format!("netns add {}", network.host(host))));
        batch("ip", &[], &lines)?;
        // No router asks who wants which group, so the bridge floods.
        let mut lines = vec![
            "link add br0 type bridge mcast_snooping 0 forward_delay 0".to_owned(),
            "link set br0 up".into(),
        ];
        for host in 0..hosts_count {
            let namespace = network.host(host);
            lines.push(format!("link add p{host} type veth peer name eth0 netns {namespace}"));
            lines.push(format!("link set p{host} master br0 up"));
        }
        batch("ip", &["-n", &hub], &lines)?;
        for host in 0..hosts_count {
            let ip = Self::ip(host);
            let lines = [
                "link set lo up".into(),
                format!("address add {ip}/24 dev eth0"),
                "link set eth0 up".into(),
                "route add 224.0.0.0/4 dev eth0".into(),
            ];
            batch("ip", &["-n", &network.host(host)], &lines)?;
        }
        let ports: Vec<_> =
            (0..hosts_count).map(|host| format!("qdisc add dev p{host} clsact")).collect();
        batch("tc", &["-n", &hub], &ports)?;
        Ok(network)
    }

    fn hub(&self) -> String {
        format!("{}hub", self.name)
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn host(&self, host: usize) -> String {
        format!("{}h{host}", self.name)
    }

    /// The address of a host.
    #[must_use]
    pub fn ip(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(host + 1).unwrap_or(u8::MAX))
    }

    /// Where the member of a host listens.
    #[must_use]
    pub fn address(host: usize) -> SocketAddr {
        (Self::ip(host), PORT).into()
    }

    /// A command that runs `program` on a host, with its own process id.
    #[must_use]
    pub fn command(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host)]).arg(program);
        command
    }

    /// Gives a host another address, in a network of 256, in the place of its own.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn renumber(&self, host: usize, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let lines = [
            "address flush dev eth0".into(),
            format!("address add {ip}/24 dev eth0"),
            "route add 224.0.0.0/4 dev eth0".into(),
        ];
        batch("ip", &["-n", &self.host(host)], &lines)
    }

    /// Cuts the link of a host, or heals it.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn set_link(&self, host: usize, up: bool) -> Result<(), NetworkError> {
        let state = if up { "up" } else { "down" };
        batch("ip", &["-n", &self.hub()], &[format!("link set p{host} {state}")])
    }

    /// Drops packets of a host from now on.
    ///
    /// # Errors
    /// `tc` refuses.
    pub fn lose(&self, host: usize, way: Way, loss: Loss) -> Result<(), NetworkError> {
        let side = side(way);
        let program = loss.program();
        run(Command::new("tc")
            .args(["-n", &self.hub(), "filter", "add", "dev", &format!("p{host}"), side])
            .args(["bpf", "da", "bytecode", &program]))
    }

    /// Takes it back.
    ///
    /// # Errors
    /// `tc` refuses.
    pub fn lose_nothing(&self, host: usize, way: Way) -> Result<(), NetworkError> {
        let line = format!("filter del dev p{host} {}", side(way));
        batch("tc", &["-n", &self.hub()], &[line])
    }

    /// Lets a link carry so much each way and keep as much as `queue_bytes` waiting, so that a link
    /// in use delays everything by up to the quotient of both. `None` takes it back.
    ///
    /// # Errors
    /// `tc` refuses.
    pub fn set_slow(&self, host: usize, slow: Option<(u32, u32)>) -> Result<(), NetworkError> {
        let line = |device: &str| match slow {
            Some((kbit, queue_bytes)) => {
                format!(
                    "qdisc add dev {device} root tbf rate {kbit}kbit burst 4k limit {queue_bytes}"
                )
            }
            None => format!("qdisc del dev {device} root"),
        };
        batch("tc", &["-n", &self.hub()], &[line(&format!("p{host}"))])?;
        batch("tc", &["-n", &self.host(host)], &[line("eth0")])
    }

    /// Sets a sysctl of a host's network, for sockets opened from now on: `net.ipv4.tcp_rmem`.
    ///
    /// # Errors
    /// It is refused.
    pub fn set_sysctl(&self, host: usize, name: &str, value: &str) -> Result<(), NetworkError> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let mut command = self.command(host, Path::new("sh"));
        run(command.args(["-c", "echo \"$1\" > \"$2\"", "sh", value, &path]))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let hosts = (0..self.hosts_count).map(|host| self.host(host));
        // The bridge and the links go with their namespaces.
        for namespace in hosts.chain([self.hub()]) {
            let _ = run(Command::new("ip").args(["netns", "del", &namespace]));
        }
    }
}

const fn side(way: Way) -> &'static str {
    match way {
        Way::From => "ingress",
        Way::To => "egress",
    }
}

/// Removes the networks of processes that were killed, with what still runs there.
fn remove_stale() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('n'));
        let Some((maker, _)) = maker else { continue };
        if Path::new("/proc").join(maker).exists() {
            continue;
        }
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        let pids = pids.map(|output| output.stdout).unwrap_or_default();
        for pid in String::from_utf8_lossy(&pids).lines().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // Another process may have been faster.
        let _ = run(Command::new("ip").args(["netns", "del", &name]));
    }
}

fn batch(program: &str, arguments: &[&str], lines: &[String]) -> Result<(), NetworkError> {
    let mut command = Command::new(program);
    command.args(arguments).args(["-batch", "-"]).stdin(Stdio::piped());
    let mut child = start(&mut command)?;
    if let Some(mut input) = child.stdin.take() {
        // If it has ended it says why itself.
        let _ = input.write_all((lines.join("\n") + "\n").as_bytes());
    }
    end(child, &format!("{program} {}: {}", arguments.join(" "), lines.join("; ")))
}

fn run(command: &mut Command) -> Result<(), NetworkError> {
    let child = start(command.stdin(Stdio::null()))?;
    end(child, &format!("{command:?}"))
}

fn start(command: &mut Command) -> Result<std::process::Child, NetworkError> {
    let started = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    started.map_err(|error| {
        let program = command.get_program().to_string_lossy().into_owned();
        NetworkError::Lacking(format!("{program} cannot be started: {error}"))
    })
}

fn end(child: std::process::Child, what: &str) -> Result<(), NetworkError> {
    let output = child.wait_with_output();
    let output = output.map_err(|error| NetworkError::Failed(format!("{what}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let text = format!("{what}: {}", said.trim());
    let lacks = ["not permitted", "Permission denied", "kind is unknown", "not supported"];
    if lacks.iter().any(|lack| said.contains(lack)) {
        return Err(NetworkError::Lacking(text));
    }
    Err(NetworkError::Failed(text))
}
