//! Builds what the Java side needs, and names what is missing on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Whose transport a Tomcat or a peer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Stock Tribes.
    Stock,
    /// Ringtribe.
    Ringtribe,
}

impl Flavour {
    /// The word for it in arguments.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Ringtribe => "ringtribe",
        }
    }
}

/// A line of Tomcat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// 9.0: javax.servlet, Java 8.
    V9_0,
    /// 10.1: jakarta.servlet, Java 11.
    V10_1,
    /// 11.0: jakarta.servlet, Java 17.
    V11_0,
}

impl Line {
    /// All of them, the oldest first.
    pub const ALL: [Self; 3] = [Self::V9_0, Self::V10_1, Self::V11_0];

    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::V9_0 => "9.0",
            Self::V10_1 => "10.1",
            Self::V11_0 => "11.0",
        }
    }

    /// Its jars, for a class path.
    #[must_use]
    pub fn libraries(self) -> String {
        format!("{}/*", self.directory().join("lib").display())
    }

    fn directory(self) -> PathBuf {
        root().join("tests/java/target").join(self.word())
    }

    /// The programs and servlets of the tests, built for it.
    pub(crate) fn peers(self) -> PathBuf {
        self.directory().join("ringtribe-test-peers-0.1.0.jar")
    }
}

/// The project's root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where runs leave their files: below the build directory, so that nothing is tracked.
#[must_use]
pub fn run_directory() -> PathBuf {
    root().join("target").join("run")
}

fn missing() -> Vec<&'static str> {
    let works = |program: &str, argument: &str| {
        Command::new(program)
            .arg(argument)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let tools = [
        ("cargo", "--version", "cargo: install Rust 1.91 or newer (https://rustup.rs)"),
        ("cc", "--version", "a C compiler: apt-get install -y gcc libc6-dev"),
        ("javac", "-version", "JDK 17: apt-get install -y openjdk-17-jdk-headless"),
        ("mvn", "--version", "Maven: apt-get install -y maven"),
    ];
    tools.iter().filter(|(tool, ask, _)| !works(tool, ask)).map(|(.., say)| *say).collect()
}

fn run(doing: &str, command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{doing} could not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{doing} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn maven(project: &Path, goals: &[&str]) -> Result<(), String> {
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(project.join("pom.xml")).args(goals);
    run(&format!("mvn {} in {}", goals.join(" "), project.display()), &mut command)
}

/// The native library, the jar with it, and the Java programs of the tests under Tomcat 10.1; built
/// once a process.
///
/// # Errors
/// What is missing with the line that installs it, or the output of the tool that failed.
pub fn everything() -> Result<(), String> {
    everything_for(Line::V10_1)
}

/// As [`everything`], with the jars and programs of a line of Tomcat.
///
/// # Errors
/// See [`everything`].
pub fn everything_for(line: Line) -> Result<(), String> {
    static BUILT: [OnceLock<Result<(), String>>; 3] = [const { OnceLock::new() }; 3];
    BUILT[line as usize].get_or_init(|| build_everything(line)).clone()
}

fn build_everything(line: Line) -> Result<(), String> {
    let missing = missing();
    if !missing.is_empty() {
        return Err(format!("missing on this machine:\n  {}", missing.join("\n  ")));
    }
    std::fs::create_dir_all(run_directory()).map_err(|error| error.to_string())?;
    // Several test programs may come here at once.
    let lock = std::fs::File::create(run_directory().join("build.lock"))
        .map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--quiet", "-p", "ringtribe-jni"]).current_dir(root());
    // The jar looks for the library where a plain build leaves it.
    cargo.env("CARGO_TARGET_DIR", root().join("target"));
    run("cargo build --release -p ringtribe-jni", &mut cargo)?;
    if !is_fresh(&jar(), &["ffi/java/src/main", "ffi/java/pom.xml"], Some(&library())) {
        maven(&root().join("ffi/java"), &["package", "-DskipTests"])?;
    }
    if !is_fresh(&line.peers(), &["tests/java/src", "tests/java/pom.xml"], None) {
        let profile = format!("-Ptomcat-{}", line.word());
        maven(&root().join("tests/java"), &[&profile, "package"])?;
    }
    Ok(())
}

fn library() -> PathBuf {
    root().join("target/release/libringtribe_jni.so")
}

/// The jar for Tomcat's lib directory.
#[must_use]
pub fn jar() -> PathBuf {
    root().join("ffi/java/target/ringtribe-tomcat-0.1.0.jar")
}

/// Whether `product` is newer than all of its sources.
fn is_fresh(product: &Path, sources: &[&str], other: Option<&Path>) -> bool {
    fn newest(path: &Path) -> Option<std::time::SystemTime> {
        let entry = std::fs::metadata(path).ok()?;
        let mut newest_time = entry.modified().ok()?;
        if entry.is_dir() {
            for child in std::fs::read_dir(path).ok()?.flatten() {
                newest_time = newest_time.max(newest(&child.path())?);
            }
        }
        Some(newest_time)
    }
    let Some(made) = std::fs::metadata(product).ok().and_then(|m| m.modified().ok()) else {
        return false;
    };
    sources
        .iter()
        .map(|source| root().join(source))
        .chain(other.map(Path::to_path_buf))
        .all(|source| newest(&source).is_some_and(|time| time < made))
}

/// The class path of Tomcats and peers of a line.
#[must_use]
pub fn class_path(line: Line) -> String {
    format!("{}:{}:{}", line.peers().display(), jar().display(), line.libraries())
}

/// A JVM with the class path of Tomcat 10.1, on IPv4, small.
#[must_use]
pub fn java() -> Command {
    java_for(Line::V10_1)
}

/// A JVM with the class path of a line of Tomcat, on IPv4, small.
#[must_use]
pub fn java_for(line: Line) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4"])
        .arg("-Djava.net.preferIPv4Stack=true")
        .arg("-cp")
        .arg(class_path(line));
    command
}
