//! A sender and its receivers, each a process of its own on this machine.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use ringtribe_tests::build::Flavour;
use ringtribe_tests::peer::{Peer, number};
use ringtribe_tests::process::Process;
use ringtribe_tests::tomcat::free_mcast_port;
use serde_json::Value;

use crate::cases::{ASYNCHRONOUS, Case, Figures, SIZE_BYTES, Transport};

const INTERCEPTORS: &str = "interceptors=MessageDispatchInterceptor,TcpFailureDetector";
/// Longest wait for an answer; a member's own waits are shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// One member: a JVM, or this program again.
enum Member {
    Jvm(Peer),
    Engine(Process),
}

impl Member {
    fn tell(&mut self, jvm: &str, engine: &str) -> Result<(), String> {
        match self {
            Self::Jvm(peer) => peer.tell(jvm),
            Self::Engine(process) => process.tell(engine),
        }
    }

    /// The answer; that of a JVM as an object of its numbers.
    fn answer(&self, names: &[&str]) -> Result<Value, String> {
        match self {
            Self::Jvm(peer) => {
                let answer = peer.answer()?;
                let read = |name: &&str| Ok(((*name).to_owned(), number(&answer, name)?.into()));
                names.iter().map(read).collect::<Result<_, String>>().map(Value::Object)
            }
            Self::Engine(process) => {
                let line = process.await_line("> ", ANSWER_WITHIN)?;
                serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))
            }
        }
    }
}

/// See the module.
pub(crate) struct Cluster {
    sender: Member,
    receivers: Vec<Member>,
    /// Streams of a link of the engine; 0 in JVMs.
    pub(crate) streams_count: u64,
    /// What moves the bytes of the engine.
    pub(crate) backend: String,
}

impl Cluster {
    /// Starts a sender and `receivers_count` receivers that it sees.
    ///
    /// # Errors
    /// What did not start, or was not seen.
    pub(crate) fn start(transport: Transport, receivers_count: usize) -> Result<Self, String> {
        let mut cluster = match transport {
            Transport::Stock => Self::of_jvms(Flavour::Stock, receivers_count)?,
            Transport::Jvm => Self::of_jvms(Flavour::Ringtribe, receivers_count)?,
            Transport::Ring => Self::of_engines("io_uring", receivers_count)?,
            Transport::Epoll => Self::of_engines("epoll", receivers_count)?,
        };
        let (jvm, engine) =
            (format!("members count={receivers_count}"), format!("members {receivers_count}"));
        cluster.sender.tell(&jvm, &engine)?;
        let seen = match &cluster.sender {
            Member::Jvm(_) => cluster.sender.answer(&["members"])?["members"].as_u64(),
            Member::Engine(_) => cluster.sender.answer(&[])?["members_count"].as_u64(),
        };
        if seen != Some(receivers_count as u64) {
            return Err(format!("the sender sees {seen:?} members instead of {receivers_count}"));
        }
        Ok(cluster)
    }

    fn of_jvms(flavour: Flavour, receivers_count: usize) -> Result<Self, String> {
        let port = free_mcast_port();
        let start = |name: &str| {
            Peer::start("TribesPeer", name, flavour, port, &[INTERCEPTORS]).map(Member::Jvm)
        };
        let receivers: Vec<Member> = (0..receivers_count)
            .map(|n| start(&format!("receiver-{n}")))
            .collect::<Result<_, _>>()?;
        let sender = start("sender")?;
        Ok(Self { sender, receivers, streams_count: 0, backend: String::new() })
    }

    fn of_engines(backend: &str, receivers_count: usize) -> Result<Self, String> {
        let ports = free_ports(receivers_count + 1)?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let start = |at: usize| {
            let others: Vec<String> = ports
                .iter()
                .filter(|port| **port != ports[at])
                .map(|port| format!("127.0.0.1:{port}"))
                .collect();
            let mut command = Command::new(&program);
            command.args(["member", "--backend", backend, "--port", &ports[at].to_string()]);
            command.args(["--others", &others.join(",")]);
            let process = Process::start(&format!("member {at}"), command)?;
            Ok::<_, String>(Member::Engine(process))
        };
        // The sender last: it finds all others at once.
        let mut receivers = Vec::new();
        for at in 1..=receivers_count {
            receivers.push(start(at)?);
            receivers[at - 1].answer(&[])?;
        }
        let sender = start(0)?;
        let ready = sender.answer(&[])?;
        Ok(Self {
            sender,
            receivers,
            streams_count: ready["streams_count"].as_u64().unwrap_or(0),
            backend: ready["backend"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Runs a case; the answer of the sender comes along.
    ///
    /// # Errors
    /// A message failed, or did not arrive as it was sent.
    pub(crate) fn measure(&mut self, case: Case) -> Result<(Figures, Value), String> {
        let Case { options, callers, messages_count, .. } = case;
        let clock = Instant::now();
        self.sender.tell(
            &format!(
                "bench size={SIZE_BYTES} options={options} callers={callers} count={messages_count}"
            ),
            &format!("bench {options} {callers} {messages_count}"),
        )?;
        let answer = self.sender.answer(&["rate", "p50_us", "p99_us", "failed"])?;
        let read = |value: &Value, name: &str| {
            value[name].as_u64().ok_or_else(|| format!("no {name} in {value}"))
        };
        if read(&answer, "failed")? != 0 {
            return Err(format!("messages failed: {}", answer["failed"]));
        }
        for receiver in &mut self.receivers {
            receiver.tell(
                &format!("received count={messages_count}"),
                &format!("received {messages_count}"),
            )?;
            let got = receiver.answer(&["received", "damaged"])?;
            if read(&got, "received")? < messages_count || read(&got, "damaged")? != 0 {
                return Err(format!("of {messages_count} messages came {got}"));
            }
        }
        let delivered_us = u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = if options == ASYNCHRONOUS {
            messages_count * 1_000_000 / delivered_us
        } else {
            read(&answer, "rate")?
        };
        let (p50_us, p99_us) = (read(&answer, "p50_us")?, read(&answer, "p99_us")?);
        Ok((Figures { rate, p50_us, p99_us }, answer))
    }

    /// What the first receiver, an engine, counted so far.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn sample_receiver(&mut self) -> Result<Value, String> {
        let receiver = self.receivers.first_mut().ok_or("no receiver")?;
        receiver.tell("", "sample")?;
        receiver.answer(&[])
    }

    /// What the sender, an engine, counted so far.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn sample_sender(&mut self) -> Result<Value, String> {
        self.sender.tell("", "sample")?;
        self.sender.answer(&[])
    }
}

/// Ports that nobody listens on: all are held until the last one is found.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = (0..count).map(bind).collect::<Result<Vec<_>, _>>();
    let listeners = listeners.map_err(|error| format!("no free port on 127.0.0.1: {error}"))?;
    let port = |listener: TcpListener| listener.local_addr().map(|address| address.port());
    let ports = listeners.into_iter().map(port).collect::<Result<_, _>>();
    ports.map_err(|error| error.to_string())
}
