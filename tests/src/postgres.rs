//! A PostgreSQL server of the test's own, from Debian's package, in a directory that is removed with it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use crate::process::Process;
use crate::tomcat::free_port;

const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// It refuses to run as root.
const ACCOUNT: &str = "postgres";

/// A running server; everybody on this machine may log in as `ringtribe`.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
}

/// Where the programs of the newest version are, if it is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.flatten().map(|version| version.path().join("bin"));
    found.filter(|path| path.join("initdb").exists()).max()
}

/// As an account that may run it.
fn command(program: &Path) -> Result<Command, String> {
    let mut command = Command::new(program);
    if Uid::effective().is_root() {
        let user = User::from_name(ACCOUNT).ok().flatten();
        let user = user.ok_or_else(|| format!("there is no account {ACCOUNT}"))?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Ok(command)
}

fn run(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(text).ok_or_else(|| format!("{command:?}: {errors}"))
}

impl Postgres {
    /// Starts one; `None` where it is not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn start() -> Result<Option<Self>, String> {
        let Some(programs) = programs() else { return Ok(None) };
        // The account may not enter the directory of the build.
        let directory = std::env::temp_dir().join(format!("ringtribe-pg-{}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|error| format!("{directory:?}: {error}"))?;
        if let (true, Ok(Some(user))) = (Uid::effective().is_root(), User::from_name(ACCOUNT)) {
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            chown(&directory, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
        }
        let data = directory.join("data");
        let mut made = command(&programs.join("initdb"))?;
        made.args(["--no-sync", "-A", "trust", "-U", "ringtribe", "-D"]).arg(&data);
        run(made)?;
        let port = free_port()?;
        let mut server = command(Path::new("/bin/sh"))?;
        server.args(["-c", "exec \"$0\" \"$@\" 2>&1"]).arg(programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(&directory);
        server.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F", "-c", "log_line_prefix="]);
        let process = Process::start("postgres", server)?;
        process.await_line("LOG:  database system is ready", START_WITHIN)?;
        Ok(Some(Self { process, programs, directory, port }))
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Runs a statement in the database `postgres`; its rows, without decoration.
    ///
    /// # Errors
    /// It is refused.
    pub fn run(&self, statement: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        psql.args(["-U", "ringtribe", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        run(psql)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT: it does not wait for those that are connected.
        let _ = self.process.signal(Signal::SIGINT);
        let _ = self.process.stop(STOP_WITHIN);
        let _ = fs::remove_dir_all(&self.directory);
    }
}
