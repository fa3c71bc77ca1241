//! A member of a Tribes cluster in its own JVM, driven line by line.

use std::fs::File;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::build::{self, Flavour};
use crate::process::Process;

/// Longest wait for an answer; the peers' own waits are shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(320);

/// A running peer: `org.ringtribe.test.TribesPeer` or `ClusterPeer`.
#[derive(Debug)]
pub struct Peer {
    process: Process,
}

impl Peer {
    /// Starts a peer on loopback; `arguments` are name=value words beside flavour and heartbeat port.
    ///
    /// # Errors
    /// What could not be built or started.
    pub fn start(
        program: &str,
        name: &str,
        flavour: Flavour,
        mcast_port: u16,
        arguments: &[&str],
    ) -> Result<Self, String> {
        build::everything()?;
        let directory = build::run_directory().join(format!("{}-peers", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let log = File::create(directory.join(format!("{mcast_port}-{name}.txt")))
            .map_err(|error| error.to_string())?;
        let mut command = build::java();
        command
            .arg(format!("org.ringtribe.test.{program}"))
            .arg(format!("flavour={}", flavour.word()))
            .arg(format!("mcast={mcast_port}"))
            .arg(format!("name={name}"))
            .arg(format!("base={}", directory.join(name).display()))
            .args(arguments)
            .stderr(log);
        // Ports of its own: a Tribes node is known by its address, and whoever takes over the port of
        // one that went would answer for it.
        static PEERS_COUNT: AtomicU16 = AtomicU16::new(0);
        let port = 21_000 + 50 * (PEERS_COUNT.fetch_add(1, Ordering::Relaxed) % 200);
        command.arg(format!("port={port}"));
        let process = Process::start(name, command)?;
        process.await_line("> started", Duration::from_secs(60))?;
        Ok(Self { process })
    }

    /// Gives a command without waiting for its answer.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, command: &str) -> Result<(), String> {
        self.process.tell(command)
    }

    /// The next answer.
    ///
    /// # Errors
    /// It has ended, or said nothing.
    pub fn answer(&self) -> Result<String, String> {
        self.process.await_line("> ", ANSWER_WITHIN)
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// It has ended, or said nothing.
    pub fn ask(&mut self, command: &str) -> Result<String, String> {
        self.tell(command)?;
        self.answer()
    }

    /// The process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The number behind `name=` in an answer.
///
/// # Errors
/// There is none.
pub fn number(answer: &str, name: &str) -> Result<u64, String> {
    answer
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("no number {name} in \"{answer}\""))
}
