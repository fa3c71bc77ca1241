//! Child processes that do not outlive the test, whatever becomes of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// A clock that all processes of this machine share, in microseconds.
///
/// # Panics
/// There is no such clock.
#[must_use]
pub fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    u64::try_from(Duration::from(now).as_micros()).unwrap_or(u64::MAX)
}

/// How long something may take that is looked at again and again, since nobody tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// It has to happen within this.
    pub within: Duration,
    /// How long after a look the next one is.
    pub pause: Duration,
}

impl Patience {
    /// Waits until it has happened; returns how long that took.
    ///
    /// # Panics
    /// It did not happen in time.
    pub fn until(&self, what: &str, mut happened: impl FnMut() -> bool) -> Duration {
        let begun = Instant::now();
        while !happened() {
            let within = self.within;
            assert!(begun.elapsed() < within, "{what} did not happen within {within:?}");
            std::thread::park_timeout(self.pause);
        }
        begun.elapsed()
    }
}

/// A running program whose standard output is read line by line.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    name: String,
}

impl Process {
    /// Starts `command`; its standard error goes where the command says.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (line_in, lines) = channel();
        let output = child.stdout.take().ok_or("no standard output")?;
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line_in.send(line).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        Ok(Self { child, input, lines, name: name.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, line: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        writeln!(input, "{line}").map_err(|error| format!("{}: {error}", self.name))
    }

    /// The next line that starts with `prefix`, without it; others are passed over.
    ///
    /// # Errors
    /// It has ended, or none came in time.
    pub fn await_line(&self, prefix: &str, within: Duration) -> Result<String, String> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok(rest.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let name = &self.name;
                    return Err(format!("{name} did not say \"{prefix}\" within {within:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("{} ended before it said \"{prefix}\"", self.name));
                }
            }
        }
    }

    /// Sends a signal to its process id.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.pid()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), signal).map_err(|error| format!("{}: {error}", self.name))
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().map(drop).map_err(|error| error.to_string())
    }

    /// SIGTERM, and waits for an orderly end.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn stop(&mut self, within: Duration) -> Result<(), String> {
        self.signal(Signal::SIGTERM)?;
        let until = Instant::now() + within;
        while Instant::now() < until {
            if self.child.try_wait().map_err(|error| error.to_string())?.is_some() {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Err(format!("{} did not stop within {within:?}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
