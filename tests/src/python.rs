//! The member in Python, `tests/python/peer.py`: a second implementation of the own format.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::build;
use crate::process::Process;

/// Longest wait for an answer; the peer's own waits are shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// The interpreter with a program of `tests/python`; `None`, said on standard output, if this
/// machine has none.
///
/// # Panics
/// It is missing and CI is set: there nothing is skipped.
#[must_use]
pub fn command(program: &str) -> Option<Command> {
    let is_there = Command::new("python3")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_there {
        println!("skipped: python3 is missing: apt-get install -y python3");
        assert!(std::env::var_os("CI").is_none(), "nothing is skipped in CI");
        return None;
    }
    let directory: PathBuf = build::root().join("tests").join("python");
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(directory.join(program));
    Some(command)
}

/// A running peer.
#[derive(Debug)]
pub struct PythonPeer {
    process: Process,
    /// Answers that came before those that were waited for: sends run in the background.
    early: VecDeque<String>,
    /// Where it listens.
    pub port: u16,
}

impl PythonPeer {
    /// Starts a peer; `None` without an interpreter. `arguments` are name=value words.
    ///
    /// # Errors
    /// It cannot be started.
    ///
    /// # Panics
    /// As [`command`].
    pub fn start(name: &str, arguments: &[String]) -> Result<Option<Self>, String> {
        let Some(mut command) = command("peer.py") else { return Ok(None) };
        let directory = build::run_directory().join(format!("{}-python", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let log = File::create(directory.join(format!("{name}.txt")));
        command.args(arguments).stderr(log.map_err(|error| error.to_string())?);
        let process = Process::start(name, command)?;
        let started = process.await_line("> started", ANSWER_WITHIN)?;
        let port = crate::peer::number(&started, "port")?;
        let port = u16::try_from(port).map_err(|error| error.to_string())?;
        Ok(Some(Self { process, early: VecDeque::new(), port }))
    }

    /// Gives a command without waiting for its answer.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, command: &str) -> Result<(), String> {
        self.process.tell(command)
    }

    /// The next answer that starts with `prefix`; others are kept.
    ///
    /// # Errors
    /// It has ended, or did not say that.
    pub fn answer(&mut self, prefix: &str) -> Result<String, String> {
        if let Some(at) = self.early.iter().position(|answer| answer.starts_with(prefix)) {
            return self.early.remove(at).ok_or_else(|| "it was there".into());
        }
        loop {
            let answer = self.process.await_line("> ", ANSWER_WITHIN)?;
            if answer.starts_with(prefix) {
                return Ok(answer);
            }
            self.early.push_back(answer);
        }
    }

    /// Gives a command and waits for the answer that starts with `prefix`.
    ///
    /// # Errors
    /// It has ended, or did not say that.
    pub fn ask(&mut self, command: &str, prefix: &str) -> Result<String, String> {
        self.tell(command)?;
        self.answer(prefix)
    }
}
