//! The balancers of docs/balancers, each a process of its own with the documented configuration.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::build;
use crate::http::Browser;
use crate::process::Process;

/// Where Debian has the modules of httpd.
const MODULES: &str = "/usr/lib/apache2/modules";
const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The tests' server.xml for a node behind a balancer, as docs/balancers says.
///
/// # Errors
/// It is not there, or has no HTTP connector.
pub fn balanced_server() -> Result<String, String> {
    let file = build::root().join("tests/testdata/server.xml");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let connector = "protocol=\"HTTP/1.1\"";
    if !text.contains(connector) {
        return Err(format!("{}: no {connector}", file.display()));
    }
    Ok(text.replace(connector, &format!("{connector} bindOnInit=\"false\"")))
}

/// Which balancer, and how it speaks to Tomcat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Apache httpd, `mod_proxy_balancer`, HTTP.
    HttpdHttp,
    /// Apache httpd, `mod_proxy_balancer`, AJP.
    HttpdAjp,
    /// Apache httpd, `mod_jk`.
    ModJk,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Haproxy, Self::HttpdHttp, Self::HttpdAjp, Self::ModJk, Self::Nginx];

    /// The name of its file, without its end.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::HttpdHttp => "httpd-http",
            Self::HttpdAjp => "httpd-ajp",
            Self::ModJk => "httpd-mod_jk",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::HttpdHttp | Self::HttpdAjp | Self::ModJk => "/usr/sbin/apache2",
            Self::Haproxy => "/usr/sbin/haproxy",
            Self::Nginx => "/usr/sbin/nginx",
        }
    }

    /// Whether it is installed; if not, that it is skipped, and the line that installs it, stands on the
    /// standard error even of a test that passes.
    #[must_use]
    pub fn is_installed(self) -> bool {
        let Some(why) = self.missing() else { return true };
        let _ = writeln!(std::io::stderr(), "{why}");
        false
    }

    fn missing(self) -> Option<String> {
        let (needed, package) = match self {
            Self::HttpdHttp | Self::HttpdAjp => {
                (format!("{MODULES}/mod_proxy_hcheck.so"), "apache2-bin")
            }
            Self::ModJk => (format!("{MODULES}/mod_jk.so"), "apache2-bin libapache2-mod-jk"),
            Self::Haproxy => (self.program().to_owned(), "haproxy"),
            Self::Nginx => (self.program().to_owned(), "nginx-light"),
        };
        let is_here = Path::new(self.program()).exists() && Path::new(&needed).exists();
        (!is_here).then(|| {
            format!(
                "skipped: {} is not installed; apt-get install -y --no-install-recommends {package}",
                self.word()
            )
        })
    }
}

/// Where a Tomcat listens.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its jvmRoute.
    pub route: &'static str,
    /// Port of HTTP.
    pub http_port: u16,
    /// Port of AJP.
    pub ajp_port: u16,
}

/// A port below those that the system gives to whoever connects, so that it stays free while a Tomcat
/// is away.
///
/// # Panics
/// There is none.
#[must_use]
pub fn steady_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 500).expect("small") * 20;
    (0..1000)
        .map(|_| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

/// A running balancer before two Tomcats.
#[derive(Debug)]
pub struct Balancer {
    kind: Kind,
    process: Process,
    address: SocketAddr,
    directory: PathBuf,
    nodes: [Node; 2],
}

impl Balancer {
    /// Starts it with the documented configuration, changed by `edit`, below `directory`, and waits until
    /// it accepts connections.
    ///
    /// # Errors
    /// Its configuration is refused, or it does not start.
    pub fn start(
        kind: Kind,
        directory: &Path,
        nodes: [Node; 2],
        secret: &str,
        edit: impl FnOnce(String) -> String,
    ) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let directory = directory.join(kind.word());
        fs::create_dir_all(&directory).map_err(text)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, steady_port()));
        let end = if kind == Kind::Haproxy { "cfg" } else { "conf" };
        let name = format!("{}.{end}", kind.word());
        let documented = build::root().join("docs/balancers");
        let file = directory.join(&name);
        let configuration = edit(fs::read_to_string(documented.join(&name)).map_err(text)?);
        fs::write(&file, in_place(configuration, &directory, address, &nodes)).map_err(text)?;
        let command = |check: bool| {
            let mut command = Command::new(kind.program());
            match kind {
                Kind::Haproxy => {
                    command.args(if check { &["-c"][..] } else { &["-db"] }).arg("-f").arg(&file)
                }
                Kind::Nginx => {
                    command.arg("-c").arg(&file).arg("-e").arg(directory.join("error.log"));
                    command.args(if check { &["-t"][..] } else { &["-g", "daemon off;"] })
                }
                _ => command.arg("-f").arg(&file).arg(if check { "-t" } else { "-DFOREGROUND" }),
            };
            let host = Ipv4Addr::LOCALHOST.to_string();
            for (node, which) in nodes.iter().zip(["A", "B"]) {
                let port = if kind == Kind::HttpdAjp { node.ajp_port } else { node.http_port };
                command.env(format!("NODE_{which}"), format!("{host}:{port}"));
                command.env(format!("HOST_{which}"), &host);
                command.env(format!("AJP_{which}"), node.ajp_port.to_string());
            }
            command
                .env("LISTEN", address.to_string())
                .env("MODULES", MODULES)
                .env("RUN", &directory)
                .env("SECRET", secret)
                .env("WORKERS", documented.join("workers.properties"))
                .env("ADMIN", directory.join("admin.sock"))
                .stdin(Stdio::null());
            command
        };
        let checked = command(true).output().map_err(text)?;
        if !checked.status.success() {
            let said = String::from_utf8_lossy(&checked.stderr).into_owned();
            return Err(format!("{name} is refused: {said}"));
        }
        let mut command = command(false);
        command.stderr(fs::File::create(directory.join("stderr.txt")).map_err(text)?);
        let process = Process::start(kind.word(), command)?;
        let balancer = Self { kind, process, address, directory, nodes };
        balancer.await_open()?;
        Ok(balancer)
    }

    fn await_open(&self) -> Result<(), String> {
        let until = Instant::now() + START_WITHIN;
        while TcpStream::connect(self.address).is_err() {
            if Instant::now() > until {
                return Err(format!(
                    "{} does not listen; see {:?}",
                    self.kind.word(),
                    self.directory
                ));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Which it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it gives new clients to the node.
    #[must_use]
    pub fn gives_to(&self, node: &str) -> bool {
        let mut browser = Browser::default();
        let answer = browser.get(self.address, "/app/s/set?k=probe&v=1&maxInactive=5");
        let is_answered = answer.is_ok_and(|answer| answer.status == 200);
        is_answered && browser.session().is_some_and(|id| id.ends_with(&format!(".{node}")))
    }

    /// Tells HAProxy, by its socket, to pass over a node that has no readyPath, or not any more.
    ///
    /// # Errors
    /// It is another balancer, or did not do it.
    pub fn maintain(&self, node: usize, in_service: bool) -> Result<(), String> {
        self.maintain_route(self.nodes[node].route, in_service)
    }

    /// As [`Balancer::maintain`], by jvmRoute: an edited configuration may have more nodes.
    ///
    /// # Errors
    /// It is another balancer, or did not do it.
    pub fn maintain_route(&self, route: &str, in_service: bool) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let state = if in_service { "ready" } else { "maint" };
        let mut stream = UnixStream::connect(self.directory.join("admin.sock")).map_err(text)?;
        writeln!(stream, "set server ringtribe/{route} state {state}").map_err(text)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(text)?;
        // It answers nothing but complaints.
        if answer.trim().is_empty() { Ok(()) } else { Err(answer) }
    }

    /// What an administrator does to have it pass over the node, where it does not ask readyPath.
    ///
    /// # Errors
    /// It did not do so.
    pub fn take_out(&self, node: usize) -> Result<(), String> {
        self.set_in_service(node, false)
    }

    /// Takes [`Balancer::take_out`] back.
    ///
    /// # Errors
    /// It did not do so.
    pub fn put_back(&self, node: usize) -> Result<(), String> {
        self.set_in_service(node, true)
    }

    fn set_in_service(&self, node: usize, in_service: bool) -> Result<(), String> {
        let route = self.nodes[node].route;
        match self.kind {
            // They ask readyPath.
            Kind::Haproxy | Kind::HttpdHttp => Ok(()),
            Kind::HttpdAjp => self.manage(node, in_service),
            Kind::ModJk => {
                let activation = if in_service { 0 } else { 2 };
                let path = format!(
                    "/jk-status?cmd=update&from=list&w=ringtribe&sw={route}&vwa={activation}&mime=txt"
                );
                let answer = Browser::default().get(self.address, &path)?;
                let is_done = answer.body.contains("type=OK");
                if is_done { Ok(()) } else { Err(format!("mod_jk: {}", answer.body)) }
            }
            Kind::Nginx => {
                let file = self.directory.join("nginx.conf");
                let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
                let server =
                    format!("server {}:{}", Ipv4Addr::LOCALHOST, self.nodes[node].http_port);
                let text = text.replace(&format!("{server} down"), &server);
                let text = if in_service {
                    text
                } else {
                    text.replace(&server, &format!("{server} down"))
                };
                fs::write(&file, text).map_err(|error| error.to_string())?;
                // nginx -s reload
                self.process.signal(Signal::SIGHUP)
            }
        }
    }

    /// The form of httpd's balancer-manager.
    fn manage(&self, node: usize, in_service: bool) -> Result<(), String> {
        let page = Browser::default().get(self.address, "/balancer-manager")?.body;
        let nonce = page.split_once("nonce=").and_then(|(_, rest)| rest.split('"').next());
        let nonce = nonce.ok_or("no nonce in balancer-manager")?;
        let disabled = u8::from(!in_service);
        let form = format!(
            "b=ringtribe&w=ajp://{}:{}&nonce={nonce}&w_status_D={disabled}",
            Ipv4Addr::LOCALHOST,
            self.nodes[node].ajp_port
        );
        let text = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(self.address).map_err(text)?;
        write!(
            stream,
            "POST /balancer-manager HTTP/1.1\r\nHost: {at}\r\nReferer: http://{at}/balancer-manager\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{form}",
            form.len(),
            at = self.address
        )
        .map_err(text)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(text)?;
        let is_disabled = answer.contains("Dis ");
        if is_disabled == (disabled == 1) {
            Ok(())
        } else {
            Err(format!("balancer-manager did not do it: {answer}"))
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // In order, so that the children of httpd and nginx end with it.
        let _ = self.process.stop(STOP_WITHIN);
    }
}

/// nginx has no variables where they are needed.
fn in_place(text: String, directory: &Path, address: SocketAddr, nodes: &[Node; 2]) -> String {
    let node = |node: &Node| format!("{}:{}", Ipv4Addr::LOCALHOST, node.http_port);
    text.replace("@LISTEN@", &address.to_string())
        .replace("@NODE_A@", &node(&nodes[0]))
        .replace("@NODE_B@", &node(&nodes[1]))
        .replace("@RUN@", &directory.display().to_string())
}
