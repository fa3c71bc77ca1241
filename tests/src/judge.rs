//! The outside judge, `tests/judge`: porcupine, a checker of histories written in Go.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::build;

/// What the judge said.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// Histories that it judged.
    pub judged_count: u64,
    /// A line for each log that is not good: history, log, and where porcupine could not go on.
    pub bad: Vec<String>,
    /// Its last line, with counts and times.
    pub summary: String,
}

impl Verdicts {
    /// Whether all histories are good.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bad.is_empty()
    }
}

/// The judge, built.
#[derive(Debug)]
pub struct Judge {
    program: PathBuf,
}

/// What the go command says when it could not get a module.
const NO_NETWORK: [&str; 4] =
    ["dial tcp", "no such host", "module lookup disabled", "connection refused"];

impl Judge {
    /// Where pages of bad histories go.
    #[must_use]
    pub fn pictures() -> PathBuf {
        build::run_directory().join("judge").join("pictures")
    }

    /// Builds it; `None`, said on standard output, where there is no Go, or, outside of CI, no way to get
    /// porcupine.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn build() -> Result<Option<Self>, String> {
        let directory = build::run_directory().join("judge");
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        // Several test programs may come here at once.
        let lock = std::fs::File::create(directory.join("build.lock"))
            .map_err(|error| error.to_string())?;
        lock.lock().map_err(|error| error.to_string())?;
        let program = directory.join("judge");
        let output = Command::new("go")
            .args(["build", "-buildvcs=false", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(build::root().join("tests").join("judge"))
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else {
            println!("SKIPPED: go is missing, nothing is judged: apt-get install -y golang");
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(Some(Self { program }));
        }
        let is_offline = NO_NETWORK.iter().any(|part| text.contains(part));
        if is_offline && std::env::var_os("CI").is_none() {
            println!(
                "SKIPPED: porcupine is not there: (cd tests/judge && go mod download)\n{text}"
            );
            return Ok(None);
        }
        Err(format!("go build in tests/judge failed:\n{text}"))
    }

    /// Judges the histories that `write` writes, by calls from any thread.
    ///
    /// # Errors
    /// The judge cannot be started, says that its input is none, or `write` failed.
    pub fn judge(
        &self,
        write: impl FnOnce(&(dyn Fn(&str) -> Result<(), String> + Sync)) -> Result<(), String>,
    ) -> Result<Verdicts, String> {
        let mut child = Command::new(&self.program)
            .arg("-pictures")
            .arg(Self::pictures())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the judge cannot be started: {error}"))?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let input = Mutex::new(child.stdin.take().ok_or("no standard input")?);
        let (written, verdicts) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| read(BufReader::new(output)));
            let written = write(&|history| {
                let mut input = input.lock().map_err(|_| "another writer panicked")?;
                input
                    .write_all(history.as_bytes())
                    .map_err(|error| format!("the judge takes no more: {error}"))
            });
            drop(input);
            (written, reading.join().map_err(|_| "its output cannot be read".to_owned()))
        });
        let status = child.wait().map_err(|error| error.to_string())?;
        written?;
        let verdicts = verdicts?;
        match status.code() {
            Some(0) if verdicts.is_good() => Ok(verdicts),
            Some(1) if !verdicts.is_good() => Ok(verdicts),
            _ => Err(format!("the judge ended with {status}: {verdicts:?}")),
        }
    }
}

fn read(output: impl BufRead) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for line in output.lines().map_while(Result::ok) {
        if let Some(bad) = line.strip_prefix("bad: ") {
            verdicts.bad.push(bad.to_owned());
        } else if let Some(summary) = line.strip_prefix("judged: ") {
            let count = summary.split(' ').next().and_then(|count| count.parse().ok());
            verdicts.judged_count = count.unwrap_or(0);
            summary.clone_into(&mut verdicts.summary);
        }
    }
    verdicts
}
