//! The members of one cluster, each a process, driven line by line.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::sample::{self, Figures};
use crate::process::Process;

/// Members that live through everything.
pub const STAYING_COUNT: usize = 2;
/// Places for members, the staying ones first.
pub const PLACES_COUNT: usize = 4;
/// Longest wait for an answer; the members' own waits are shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Ports of a place: who restarts takes the address of the one before.
const PORTS_COUNT: u16 = 4;

/// What the members are.
#[derive(Clone, Debug)]
pub enum Program {
    /// The engine alone.
    Native {
        /// The program with the command `member`.
        executable: PathBuf,
        /// The engine's attribute.
        backend: &'static str,
    },
    /// A JVM each, with a channel of Tribes on Ringtribe.
    Java {
        /// Where the programs are.
        class_path: String,
    },
}

/// How to run a cluster.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name in files and reports.
    pub name: String,
    /// What its members are.
    pub program: Program,
    /// Its heartbeats.
    pub mcast_port: u16,
    /// Messages that each member sends a second.
    pub rate: u32,
    /// For what members write.
    pub directory: PathBuf,
}

impl Setup {
    fn command(&self, place: usize) -> Result<Command, String> {
        let place = u16::try_from(place).map_err(|error| error.to_string())?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join(format!("{}-{place}.log", self.name)))
            .map_err(|error| error.to_string())?;
        let places = u16::try_from(PLACES_COUNT).map_err(|error| error.to_string())?;
        let port = 10_000 + self.mcast_port % 500 * places * PORTS_COUNT + place * PORTS_COUNT;
        let (rate, mcast) = (self.rate.to_string(), self.mcast_port);
        let mut command = match &self.program {
            Program::Native { executable, backend } => {
                let mut command = Command::new(executable);
                command.args(["member", &(place + 1).to_string(), &rate]);
                command.args([
                    format!("backend={backend}"),
                    format!("mcastPort={mcast}"),
                    format!("tcpListenPort={port}"),
                    format!("autoBind={}", PORTS_COUNT - 1),
                    "tcpListenAddress=127.0.0.1".into(),
                    "mcastBindAddress=127.0.0.1".into(),
                    "mcastFrequency=250".into(),
                    "tcpThreadCount=2".into(),
                ]);
                command
            }
            Program::Java { class_path } => {
                let mut command = Command::new("java");
                // Each of many threads at once would get an arena of the C library's, which keeps it.
                command.env("MALLOC_ARENA_MAX", "2");
                // What the JVM itself takes with time would hide what leaks: so its heap is all there
                // from the beginning, and it keeps no profiles of methods.
                command.args([
                    "-Xms128m",
                    "-Xmx128m",
                    "-XX:+AlwaysPreTouch",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-XX:-UseDynamicNumberOfCompilerThreads",
                ]);
                command.arg("-Djava.net.preferIPv4Stack=true");
                // Tribes keeps as many send buffers as were ever used at a time, each as large as the
                // largest message it had, up to 100 MiB: not what this looks for.
                command.arg("-Dorg.apache.catalina.tribes.io.BufferPool.DEFAULT_POOL_SIZE=0");
                command.args(["-cp", class_path, "org.ringtribe.test.SoakPeer"]).args([
                    "flavour=ringtribe".into(),
                    format!("mcast={mcast}"),
                    format!("port={port}"),
                    format!("rate={rate}"),
                    format!("name={place}"),
                    "frequency=250".into(),
                    "drop=3000".into(),
                ]);
                command
            }
        };
        command.stderr(log);
        Ok(command)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    setup: Setup,
    places: [Option<Process>; PLACES_COUNT],
    /// Joins, orderly leaves and kills so far.
    pub events: [u64; 3],
    started: Instant,
}

/// One look at one member.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since the start of the cluster.
    pub at_s: f64,
    /// Whose.
    pub place: usize,
    /// What was going on: samples of one phase can be compared.
    pub phase: &'static str,
    /// What was found.
    pub figures: Figures,
}

impl Cluster {
    /// A cluster without members.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { setup, places: Default::default(), events: [0; 3], started: Instant::now() }
    }

    /// How it is run.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Seconds since its start.
    #[must_use]
    pub fn at_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Places that are taken.
    pub fn members(&self) -> impl Iterator<Item = usize> + use<> {
        let taken: Vec<usize> =
            (0..PLACES_COUNT).filter(|place| self.places[*place].is_some()).collect();
        taken.into_iter()
    }

    /// Starts a member, under load at once.
    ///
    /// # Errors
    /// It does not start.
    pub fn join(&mut self, place: usize) -> Result<(), String> {
        let name = format!("{}-{place}", self.setup.name);
        let process = Process::start(&name, self.setup.command(place)?)?;
        process.await_line("> started", ANSWER_WITHIN)?;
        self.places[place] = Some(process);
        self.events[0] += 1;
        self.ask(place, "resume").map(drop)
    }

    /// A member leaves in order.
    ///
    /// # Errors
    /// It does not.
    pub fn leave(&mut self, place: usize) -> Result<(), String> {
        let left = self.ask(place, "leave");
        self.places[place] = None;
        self.events[1] += 1;
        left.map(drop)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// There is no such member.
    pub fn kill(&mut self, place: usize) -> Result<(), String> {
        let mut process = self.places[place].take().ok_or("nobody is there")?;
        self.events[2] += 1;
        process.kill()
    }

    /// Gives a command to a member and waits for its answer.
    ///
    /// # Errors
    /// It has ended, said nothing, or something went wrong there.
    pub fn ask(&mut self, place: usize, command: &str) -> Result<String, String> {
        let process = self.places[place].as_mut().ok_or("nobody is there")?;
        process.tell(command)?;
        let answer = process.await_line("> ", ANSWER_WITHIN)?;
        match answer.strip_prefix("error ") {
            Some(text) => Err(format!("{}-{place}: {command}: {text}", self.setup.name)),
            None => Ok(answer),
        }
    }

    /// Waits until every member sees all others.
    ///
    /// # Errors
    /// One does not in time.
    pub fn await_view(&mut self) -> Result<(), String> {
        let others_count = self.members().count() - 1;
        for place in self.members() {
            self.ask(place, &format!("members count={others_count}"))?;
        }
        Ok(())
    }

    /// Looks at a member.
    ///
    /// # Errors
    /// It has ended.
    pub fn sample(&mut self, place: usize, phase: &'static str) -> Result<Sample, String> {
        let said = self.ask(place, "stats")?;
        let pid = self.places[place].as_ref().ok_or("nobody is there")?.pid();
        let mut figures = sample::of_process(pid)?;
        figures.extend(sample::of_line(&said));
        // A JVM goes on compiling for hours what is called seldom, up to a bound of its own: that is
        // told beside what it holds otherwise.
        let code_kib = figures.get("code_kib").copied().unwrap_or(0.0);
        for name in ["rss_kib", "pss_kib", "anonymous_kib"] {
            figures.entry(name.into()).and_modify(|kib| *kib -= code_kib);
        }
        Ok(Sample { at_s: self.at_s(), place, phase, figures })
    }

    /// Ends whoever is no staying member.
    pub fn clear(&mut self) {
        for place in &mut self.places[STAYING_COUNT..] {
            *place = None;
        }
    }
}
