//! A real Tomcat in its own JVM, started from a server.xml of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::build::{self, Flavour, Line};
use crate::debian;
use crate::http::{Answer, Browser};
use crate::process::Process;

/// How long a Tomcat may take to open HTTP on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(120);

/// What a Tomcat is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name: jvmRoute and directory.
    pub name: String,
    /// Whose transport.
    pub flavour: Flavour,
    /// The cluster's heartbeat port; who shares it is the cluster.
    pub mcast_port: u16,
    /// channelSendOptions.
    pub options: u32,
    /// className of the Cluster element.
    pub cluster_class: &'static str,
    /// Whether there is a Cluster element at all.
    pub clustered: bool,
    /// Whether every replication is dropped, as if the network were silent.
    pub drop_replication: bool,
    /// Which Tomcat.
    pub line: Line,
    /// The Cluster element, if it is not the usual one of its flavour; @MCAST_PORT@ and @TCP_PORT@
    /// stand for ports.
    pub cluster: Option<String>,
    /// The whole server.xml, if it is not the usual one; as in `cluster`, and @HTTP_PORT@ beside.
    pub server: Option<String>,
    /// System properties.
    pub properties: Vec<(String, String)>,
    /// Files below conf, with the same placeholders.
    pub files: Vec<(String, String)>,
    /// The network namespace that it lives in, if not this program's.
    pub namespace: Option<String>,
    /// Where it answers HTTP, if that is to stay when it is started again.
    pub http_port: Option<u16>,
    /// Whether it is Debian's package, with its server.xml and `cluster` in it.
    pub is_debian: bool,
}

impl Setup {
    /// A member of the cluster on `mcast_port` that acknowledges what it applied.
    #[must_use]
    pub fn new(name: &str, flavour: Flavour, mcast_port: u16) -> Self {
        Self {
            name: name.to_owned(),
            flavour,
            mcast_port,
            options: 6,
            cluster_class: "org.apache.catalina.ha.tcp.SimpleTcpCluster",
            clustered: true,
            drop_replication: false,
            line: Line::V10_1,
            cluster: None,
            server: None,
            properties: Vec::new(),
            files: Vec::new(),
            namespace: None,
            http_port: None,
            is_debian: false,
        }
    }
}

/// A running Tomcat.
#[derive(Debug)]
pub struct Tomcat {
    process: Process,
    address: SocketAddr,
    base: PathBuf,
    log: PathBuf,
    namespace: Option<String>,
}

/// A UDP port that nobody uses now.
///
/// # Panics
/// The machine has no free port.
#[must_use]
pub fn free_mcast_port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free UDP port");
    socket.local_addr().expect("bound").port()
}

/// The one element of a node on loopback, with more attributes, and with what stands inside it.
#[must_use]
pub fn one_element(attributes: &str, inside: &str) -> String {
    format!(
        "<Cluster className=\"org.ringtribe.tomcat.RingtribeCluster\" mcastAddr=\"228.0.0.4\" \
         mcastPort=\"@MCAST_PORT@\" mcastBindAddr=\"127.0.0.1\" tcpListenAddress=\"127.0.0.1\" \
         tcpListenPort=\"@TCP_PORT@\" {attributes}>{inside}</Cluster>"
    )
}

/// A TCP port of loopback that nobody uses now.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16, String> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

impl Tomcat {
    /// Writes a catalina.base with server.xml and the application, starts the JVM and waits until
    /// HTTP is open. A Tomcat of the same name is replaced, as one that is started again.
    ///
    /// # Errors
    /// What could not be built, written or started; a Tomcat that failed names its log.
    pub fn start(setup: &Setup) -> Result<Self, String> {
        let tomcat = Self::spawn(setup)?;
        let ready = if setup.is_debian {
            tomcat.await_log(debian::STARTED)
        } else {
            tomcat.process.await_line("READY ", START_WITHIN).map(drop)
        };
        ready.map_err(|error| format!("{error}; see {}", tomcat.base.display()))?;
        Ok(tomcat)
    }

    /// Waits for a line of the log of one that says nothing on its standard output.
    fn await_log(&self, part: &str) -> Result<(), String> {
        let until = Instant::now() + START_WITHIN;
        while self.log_from(part).is_none() {
            let ended = self.process.await_line("READY ", Duration::from_millis(50));
            if let Err(error) = ended
                && (error.contains("ended") || Instant::now() > until)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// As [`Tomcat::start`] with a Tomcat that is to refuse to start; what it wrote into its log.
    ///
    /// # Errors
    /// It started, or as [`Tomcat::start`].
    pub fn refused(setup: &Setup) -> Result<String, String> {
        let tomcat = Self::spawn(setup)?;
        match tomcat.process.await_line("READY ", START_WITHIN) {
            Ok(_) => Err(format!("{} started; see {}", setup.name, tomcat.base.display())),
            Err(_) => fs::read_to_string(&tomcat.log).map_err(|error| error.to_string()),
        }
    }

    fn spawn(setup: &Setup) -> Result<Self, String> {
        build::everything_for(setup.line)?;
        let base = build::run_directory()
            .join(format!("{}-{}", std::process::id(), setup.mcast_port))
            .join(&setup.name);
        let http_port = setup.http_port.map_or_else(free_port, Ok)?;
        write_base(&base, setup, http_port).map_err(|error| format!("{base:?}: {error}"))?;
        static STARTS: AtomicU16 = AtomicU16::new(0);
        let start = STARTS.fetch_add(1, Ordering::Relaxed);
        let log = base.join(format!("log-{start}.txt"));
        let log_file = File::create(&log).map_err(|error| error.to_string())?;
        let command = if setup.is_debian {
            debian::command(&base, setup, log_file)
        } else {
            embedded(&base, setup, log_file)
        };
        let process = Process::start(&setup.name, command)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http_port));
        Ok(Self { process, address, base, log, namespace: setup.namespace.clone() })
    }

    /// The next line of its standard output that starts with `prefix`, without it.
    ///
    /// # Errors
    /// It has ended, or none came in time.
    pub fn await_line(&self, prefix: &str, within: Duration) -> Result<String, String> {
        self.process.await_line(prefix, within)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it answers HTTP.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its server.xml and logs are.
    #[must_use]
    pub const fn base(&self) -> &PathBuf {
        &self.base
    }

    /// What a line of its log says from `part` on; the first line that has it.
    #[must_use]
    pub fn log_from(&self, part: &str) -> Option<String> {
        let text = fs::read_to_string(&self.log).ok()?;
        text.lines().find_map(|line| Some(line[line.find(part)?..].to_owned()))
    }

    /// Asks the application's servlet.
    ///
    /// # Errors
    /// No whole answer.
    pub fn ask(&self, browser: &mut Browser, path: &str) -> Result<Answer, String> {
        let path = format!("/app/s{path}");
        let Some(name) = &self.namespace else { return browser.get(self.address, &path) };
        let address = self.address;
        let asked = || {
            let file = File::open(Path::new("/run/netns").join(name));
            let file = file.map_err(|error| format!("the namespace {name}: {error}"))?;
            // Of this thread alone, which ends with the answer.
            setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| format!("{name}: {error}"))?;
            browser.get(address, &path)
        };
        std::thread::scope(|scope| scope.spawn(asked).join())
            .map_err(|_| format!("the thread that asks in {name} ended"))?
    }

    /// Its whole log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String, String> {
        fs::read_to_string(&self.log).map_err(|error| error.to_string())
    }

    /// SIGKILL to its pid.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(mut self) -> Result<(), String> {
        self.process.kill()
    }

    /// An orderly stop, by SIGTERM.
    ///
    /// # Errors
    /// It did not end within 30 s.
    pub fn stop(mut self) -> Result<(), String> {
        self.process.stop(Duration::from_secs(30))
    }
}

/// A JVM with Maven's jars.
fn embedded(base: &Path, setup: &Setup, log_file: File) -> Command {
    let mut command = match &setup.namespace {
        None => build::java_for(setup.line),
        Some(name) => within(name, &build::java_for(setup.line)),
    };
    command
        .arg(format!("-Dcatalina.base={}", base.display()))
        .arg(format!("-Dcatalina.home={}", base.display()))
        .arg(format!(
            "-Dorg.ringtribe.test.dropReplication={}",
            setup.drop_replication && setup.flavour == Flavour::Ringtribe
        ))
        .args(setup.properties.iter().map(|(name, value)| format!("-D{name}={value}")))
        .arg("org.ringtribe.test.TomcatMain")
        .stderr(log_file);
    command
}

fn within(namespace: &str, program: &Command) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program.get_program());
    command.args(program.get_args());
    command
}

fn write_base(base: &Path, setup: &Setup, http_port: u16) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    for directory in ["conf", "temp", "logs", "webapps/app/WEB-INF"] {
        fs::create_dir_all(base.join(directory)).map_err(text)?;
    }
    let data = build::root().join("tests/testdata");
    let read = |name: &str| fs::read_to_string(data.join(name)).map_err(text);
    let cluster = match &setup.cluster {
        _ if !setup.clustered => String::new(),
        Some(element) => element.clone(),
        None => read("cluster.xml")?,
    };
    let (channel, membership, receiver, sender) = match setup.flavour {
        Flavour::Stock => (
            "org.apache.catalina.tribes.group.GroupChannel",
            "org.apache.catalina.tribes.membership.McastService",
            "org.apache.catalina.tribes.transport.nio.NioReceiver",
            "org.apache.catalina.tribes.transport.ReplicationTransmitter",
        ),
        Flavour::Ringtribe => (
            "org.ringtribe.tomcat.RingtribeChannel",
            "org.ringtribe.tomcat.RingtribeMembership",
            "org.ringtribe.tomcat.RingtribeReceiver",
            "org.ringtribe.tomcat.RingtribeSender",
        ),
    };
    let interceptor = |class: &str| format!("            <Interceptor className=\"{class}\"/>\n");
    let tribes = "org.apache.catalina.tribes.group.interceptors";
    let mut interceptors = String::new();
    if setup.drop_replication && setup.flavour == Flavour::Stock {
        interceptors += &interceptor("org.ringtribe.test.DropInterceptor");
    }
    interceptors += &interceptor(&format!("{tribes}.MessageDispatchInterceptor"));
    interceptors += &interceptor(&format!("{tribes}.TcpFailureDetector"));
    let tcp_port = free_port()?.to_string();
    let fill = |text: &str| {
        let text = text.replace("@MCAST_PORT@", &setup.mcast_port.to_string());
        text.replace("@TCP_PORT@", &tcp_port)
    };
    for (name, text_of_it) in &setup.files {
        let text_of_it = fill(text_of_it);
        let file = base.join("conf").join(name);
        fs::create_dir_all(file.parent().unwrap_or(base)).map_err(text)?;
        fs::write(file, text_of_it).map_err(text)?;
    }
    let mut application = read("web.xml")?;
    if setup.line == Line::V9_0 {
        application = application
            .replace("https://jakarta.ee/xml/ns/jakartaee", "http://xmlns.jcp.org/xml/ns/javaee")
            .replace("version=\"6.0\"", "version=\"4.0\"");
    }
    fs::write(base.join("webapps/app/WEB-INF/web.xml"), application).map_err(text)?;
    if setup.is_debian {
        return debian::write_base(base, setup, http_port, fill);
    }
    let server = match &setup.server {
        Some(whole) => whole.clone(),
        None => read("server.xml")?,
    };
    let server = server
        .replace("@CLUSTER@", &cluster)
        .replace("@HTTP_PORT@", &http_port.to_string())
        .replace("@ROUTE@", &setup.name)
        .replace("@OPTIONS@", &setup.options.to_string())
        .replace("@CLUSTER_CLASS@", setup.cluster_class)
        .replace("@CHANNEL@", channel)
        .replace("@MEMBERSHIP@", membership)
        .replace("@RECEIVER@", receiver)
        .replace("@SENDER@", sender)
        .replace("@MCAST_PORT@", &setup.mcast_port.to_string())
        .replace("@TCP_PORT@", &tcp_port)
        // A Tomcat whose messages are dropped waits in vain for the state of the others.
        .replace("@STATE_TIMEOUT@", if setup.drop_replication { "3" } else { "60" })
        .replace("@INTERCEPTORS@", &interceptors);
    fs::write(base.join("conf/server.xml"), server).map_err(text)
}
