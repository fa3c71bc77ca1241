//! Debian's package `tomcat10` as it stands, with a catalina.base of a test: the package's own files, our jar in
//! its `lib`, the one line in server.xml, started by the package's script.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::build::{self, Line};
use crate::tomcat::Setup;

const HOME: &str = "/usr/share/tomcat10";
/// What the package's systemd unit runs.
const START: &str = "/usr/libexec/tomcat10/tomcat-start.sh";
/// What it says when HTTP is open.
pub(crate) const STARTED: &str = "Server startup in";

/// Whether it is installed; if not, that it is skipped, and the line that installs it, stands on the standard
/// error even of a test that passes.
#[must_use]
pub fn is_installed() -> bool {
    let is_here = Path::new(START).exists() && Path::new(HOME).join("lib/catalina-ha.jar").exists();
    if !is_here {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: Debian's Tomcat is not installed; apt-get install -y --no-install-recommends tomcat10"
        );
    }
    is_here
}

/// The package's configuration, with the Cluster element where its comment shows stock's, this run's ports, and
/// a background thread that looks every second.
fn server_xml(cluster: &str, http_port: u16, route: &str) -> Result<String, String> {
    let mut text = fs::read_to_string(Path::new(HOME).join("etc/server.xml"))
        .map_err(|error| format!("the package's server.xml: {error}"))?;
    let engine = "<Engine name=\"Catalina\" defaultHost=\"localhost\">";
    let stock = "<!--\n      <Cluster className=\"org.apache.catalina.ha.tcp.SimpleTcpCluster\"/>\n      -->";
    let connector = "    <Connector port=\"8080\" protocol=\"HTTP/1.1\"";
    for (was, is) in [
        (stock, cluster.to_owned()),
        (
            engine,
            engine.replace('>', &format!(" jvmRoute=\"{route}\" backgroundProcessorDelay=\"1\">")),
        ),
        (connector, connector.replace("8080", &format!("{http_port}\" address=\"127.0.0.1"))),
    ] {
        if text.matches(was).count() != 1 {
            return Err(format!("not once in the package's server.xml: {was}"));
        }
        text = text.replace(was, &is);
    }
    Ok(text)
}

/// Writes what the package has in /var/lib/tomcat10: configuration, lib, webapps, logs, work. `fill` replaces
/// what stands for ports.
pub(crate) fn write_base(
    base: &Path,
    setup: &Setup,
    http_port: u16,
    fill: impl Fn(&str) -> String,
) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", base.display());
    for directory in ["lib", "work", "webapps/app/WEB-INF/lib"] {
        fs::create_dir_all(base.join(directory)).map_err(text)?;
    }
    for entry in fs::read_dir(Path::new(HOME).join("etc")).map_err(text)?.flatten() {
        let target = base.join("conf").join(entry.file_name());
        // The test's own comes first.
        if !target.exists() {
            fs::copy(entry.path(), target).map_err(text)?;
        }
    }
    let jar = build::jar();
    fs::copy(&jar, base.join("lib").join(jar.file_name().unwrap_or_default())).map_err(text)?;
    let peers = Line::V10_1.peers();
    for application in fs::read_dir(base.join("webapps")).map_err(text)?.flatten() {
        let lib = application.path().join("WEB-INF/lib");
        fs::create_dir_all(&lib).map_err(text)?;
        fs::copy(&peers, lib.join("servlets.jar")).map_err(text)?;
    }
    let cluster = setup.cluster.as_deref().ok_or("Debian's Tomcat gets its Cluster element")?;
    let server = server_xml(&fill(cluster), http_port, &setup.name)?;
    fs::write(base.join("conf/server.xml"), server).map_err(text)
}

/// As systemd starts it, with the memory of a test.
pub(crate) fn command(base: &Path, setup: &Setup, log: File) -> Command {
    let mut command = Command::new("/bin/sh");
    let properties = setup.properties.iter().map(|(name, value)| format!(" -D{name}={value}"));
    let properties: String = properties.collect();
    let options =
        "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true";
    command
        .arg(START)
        .env_remove("JAVA_OPTS")
        .env("CATALINA_HOME", HOME)
        .env("CATALINA_BASE", base)
        .env("CATALINA_TMPDIR", base.join("temp"))
        .env("CATALINA_OPTS", format!("{options} -Droute={}{properties}", setup.name))
        .stderr(log);
    command
}
