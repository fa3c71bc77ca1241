//! The control thread: what is slow and likes async/await, on tokio-uring, or on plain tokio where
//! io_uring is absent.
//!
//! It accepts and connects and hands the descriptors to the workers, sends and receives heartbeats,
//! and probes members. It drives the [`Membership`] state machine; the data of connections never
//! passes here. A future of tokio-uring that is in flight is never dropped: each is owned by a task
//! that runs to its end, and a result that comes too late is ignored.

mod descriptor;
mod net;
mod plain;
mod port_owner;
mod probe;
mod sockets;
pub mod trial;
mod uring;

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::backend::Substrate;
use crate::config::Config;
use crate::directory::{Identity, Incarnation};
use crate::error::OpenError;
use crate::event::LogLevel;
use crate::ids::{BootId, Instant};
use crate::io::{Errno, Evidence};
use crate::protocol::membership::{
    Input, LocalMember, Membership, MembershipCounters, Output, ProbeResult,
};
use crate::ring::RingError;

use net::Net;
pub use sockets::{ListenError, MulticastError};

/// Descriptors below which a node of a large cluster may run out.
const FEW_DESCRIPTORS_COUNT: u64 = 4_096;
/// Pause after a receive error on the group, as stock's.
const RECEIVE_ERROR_PAUSE: Duration = Duration::from_millis(500);
/// What keeps connections from being accepted is said so often.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(10);
/// Largest packet of the group.
const DATAGRAM_BYTES: usize = 65_536;
/// Packets of the group that may wait for membership.
const DATAGRAMS_LIMIT_COUNT: usize = 256;
/// Inputs that share one look at the deadlines.
const BATCH_COUNT: usize = 64;

/// Where the control thread hands things to. Called on the control thread: must not block.
pub trait ControlSink: Send + Sync + 'static {
    /// A peer connected.
    fn accepted(&self, fd: OwnedFd, peer: SocketAddr);
    /// A connection that a worker asked for is open, or is not.
    fn connected(&self, worker: u16, request: u64, result: Result<OwnedFd, Errno>);
    /// The view changed, a broadcast came, or there is something to say.
    fn membership(&self, output: Output);
    /// Age of the oldest delivery without outcome, ms.
    fn oldest_unfinished_ms(&self, now: Instant) -> u32;
    /// The control thread has ended by a defect.
    fn failed(&self, text: String);
}

type Done<T> = std::sync::mpsc::Sender<T>;

enum Command {
    Listen(std::net::TcpListener),
    StopListening(Done<()>),
    Connect { worker: u16, request: u64, address: SocketAddr, timeout_ms: u64 },
    ConnectEnded { worker: u16, request: u64, result: Result<OwnedFd, Errno> },
    Evidence { identity: Identity, evidence: Evidence },
    SetLocal(LocalMember),
    SetDraining,
    Join(std::net::UdpSocket),
    Leave(Done<()>),
    StartReceiving(Done<()>),
    StartSending(Done<()>),
    StopReceiving(Done<()>),
    StopSending(Done<()>),
    Broadcast(Vec<u8>),
    Datagram { bytes: Vec<u8>, from: SocketAddr, room: OwnedSemaphorePermit },
    ProbeEnded { probe: u64, result: ProbeResult },
    Close,
}

/// The way to a node's control thread; any thread may use it.
#[derive(Clone)]
pub struct ControlHandle {
    commands: mpsc::UnboundedSender<Command>,
    config: Arc<Config>,
    state: Arc<Mutex<HandleState>>,
    counters: Arc<Mutex<MembershipCounters>>,
}

#[derive(Default)]
struct HandleState {
    thread: Option<JoinHandle<()>>,
    listener: Option<std::net::TcpListener>,
    joined: bool,
    receiving: bool,
    sending: bool,
}

impl std::fmt::Debug for ControlHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ControlHandle")
    }
}

impl ControlHandle {
    /// Starts the control thread of a node that opened at `started`, on `substrate`.
    ///
    /// # Errors
    /// io_uring is refused, or the operating system refuses a thread or a descriptor.
    pub fn start(
        config: &Config,
        boot_id: BootId,
        sink: Arc<dyn ControlSink>,
        started: std::time::Instant,
        substrate: Substrate,
    ) -> Result<Self, OpenError> {
        let run = match substrate {
            Substrate::IoUring => Self::start_on::<uring::Uring>(config, boot_id, sink, started),
            Substrate::Epoll => Self::start_on::<plain::Plain>(config, boot_id, sink, started),
        };
        run.map_err(|error| match RingError::absence(&error) {
            Some(absence) if substrate == Substrate::IoUring => OpenError::Ring(absence),
            _ => OpenError::Control(error.to_string()),
        })
    }

    fn start_on<N: Net>(
        config: &Config,
        boot_id: BootId,
        sink: Arc<dyn ControlSink>,
        started: std::time::Instant,
    ) -> std::io::Result<Self> {
        if let Some(limit) = sockets::raise_descriptor_limit()
            && limit < FEW_DESCRIPTORS_COUNT
        {
            let text = format!(
                "this process may open {limit} descriptors; with many members raise it (ulimit -n)"
            );
            sink.membership(Output::Log { level: LogLevel::Warn, text });
        }
        let (commands, inputs) = mpsc::unbounded_channel();
        let counters = Arc::new(Mutex::new(MembershipCounters::default()));
        let (ready, when_ready) = std::sync::mpsc::channel();
        let group_address = SocketAddr::new(config.mcast_addr, config.mcast_port);
        let mut membership = Membership::new(config.mcast_frequency_ms, config.mcast_drop_time_ms)
            .speaking(Incarnation { boot_id, features: 0, version_min: 1, version_max: 1 })
            .of_cluster(&config.cluster_name)
            .with_static_members(&config.static_members);
        if !config.uses_multicast() {
            membership = membership.without_group();
        }
        let thread = {
            let (commands, counters) = (commands.clone(), Arc::clone(&counters));
            std::thread::Builder::new().name("ringtribe-control".into()).spawn(move || {
                let runtime = match N::new() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let _ = ready.send(Ok(()));
                let report = Arc::clone(&sink);
                let run = std::panic::AssertUnwindSafe(|| {
                    let control = Control::<N> {
                        membership,
                        sink,
                        commands,
                        counters,
                        started,
                        group: None,
                        group_address,
                        receiving: None,
                        accepting: None,
                        draining: false,
                        net: PhantomData,
                    };
                    runtime.block_on(control.run(inputs));
                });
                if std::panic::catch_unwind(run).is_err() {
                    report.failed("the control thread stopped because of a defect".into());
                }
            })?
        };
        match when_ready.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let _ = thread.join();
                return Err(error);
            }
            Err(_) => return Err(std::io::Error::other("the control thread ended at once")),
        }
        let state = HandleState { thread: Some(thread), ..HandleState::default() };
        Ok(Self {
            commands,
            config: Arc::new(config.clone()),
            state: Arc::new(Mutex::new(state)),
            counters,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, HandleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: Command) {
        // After the thread has ended there is nobody to tell.
        let _ = self.commands.send(command);
    }

    /// Sends a command and waits until it is carried out.
    fn ask(&self, command: impl FnOnce(Done<()>) -> Command) {
        let (done, when_done) = std::sync::mpsc::channel();
        self.send(command(done));
        let _ = when_done.recv();
    }

    /// Binds the first free port of the configured range and accepts from now on.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen(&self) -> Result<SocketAddr, ListenError> {
        let mut state = self.state();
        if let Some(listener) = &state.listener {
            return listener.local_addr().map_err(ListenError::System);
        }
        let listener = sockets::listen(&self.config)?;
        let address = listener.local_addr().map_err(ListenError::System)?;
        let kept = listener.try_clone().map_err(ListenError::System)?;
        state.listener = Some(kept);
        self.send(Command::Listen(listener));
        Ok(address)
    }

    /// Closes the port.
    pub fn stop_listening(&self) {
        let Some(listener) = self.state().listener.take() else { return };
        // Wakes the accept that is in flight; its future ends instead of being dropped.
        let _ = SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
        drop(listener);
        self.ask(Command::StopListening);
    }

    /// Opens a connection for a worker; answered by [`ControlSink::connected`].
    pub fn connect(&self, worker: u16, request: u64, address: SocketAddr, timeout_ms: u64) {
        self.send(Command::Connect { worker, request, address, timeout_ms });
    }

    /// Passes on what a worker noticed of a member.
    pub fn evidence(&self, identity: Identity, evidence: Evidence) {
        self.send(Command::Evidence { identity, evidence });
    }

    /// Says who this node is.
    pub fn set_local(&self, local: LocalMember) {
        self.send(Command::SetLocal(local));
    }

    /// This node wants no new messages; its heartbeats say so.
    pub fn set_draining(&self) {
        self.send(Command::SetDraining);
    }

    fn join(&self, state: &mut HandleState) -> Result<(), MulticastError> {
        if !state.joined && self.config.uses_multicast() {
            self.send(Command::Join(sockets::join(&self.config)?));
            state.joined = true;
        }
        Ok(())
    }

    /// Joins the group and learns members.
    ///
    /// # Errors
    /// See [`MulticastError`].
    pub fn start_receiving(&self) -> Result<(), MulticastError> {
        let mut state = self.state();
        self.join(&mut state)?;
        state.receiving = true;
        self.ask(Command::StartReceiving);
        Ok(())
    }

    /// Sends heartbeats.
    ///
    /// # Errors
    /// See [`MulticastError`].
    pub fn start_sending(&self) -> Result<(), MulticastError> {
        let mut state = self.state();
        self.join(&mut state)?;
        state.sending = true;
        self.ask(Command::StartSending);
        Ok(())
    }

    /// Stops learning; says goodbye if no heartbeats are sent either.
    pub fn stop_receiving(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.receiving) {
            self.ask(Command::StopReceiving);
            self.leave(&mut state);
        }
    }

    /// Stops the heartbeats; says goodbye if nothing is learnt either.
    pub fn stop_sending(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.sending) {
            self.ask(Command::StopSending);
            self.leave(&mut state);
        }
    }

    fn leave(&self, state: &mut HandleState) {
        if !state.receiving && !state.sending && std::mem::take(&mut state.joined) {
            self.ask(Command::Leave);
        }
    }

    /// Sends a packet to the group.
    ///
    /// # Errors
    /// Membership is not started, or has no group.
    pub fn broadcast(&self, datagram: Vec<u8>) -> std::io::Result<()> {
        if !self.state().joined {
            return Err(std::io::ErrorKind::NotConnected.into());
        }
        self.send(Command::Broadcast(datagram));
        Ok(())
    }

    /// What membership counts, by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let counters = *self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        vec![
            ("heartbeats_received_count", counters.heartbeats_received_count),
            ("heartbeats_sent_count", counters.heartbeats_sent_count),
            ("malformed_datagrams_count", counters.malformed_datagrams_count),
            ("probes_count", counters.probes_count),
            ("members_added_count", counters.members_added_count),
            ("members_gone_count", counters.members_gone_count),
            ("asymmetric_views_count", counters.asymmetric_views_count),
            ("foreign_boot_ids_count", counters.foreign_boot_ids_count),
            ("other_clusters_count", counters.other_clusters_count),
            ("tls_members_count", counters.tls_members_count),
            ("tomcat_55_heartbeats_count", counters.tomcat_55_heartbeats_count),
        ]
    }

    /// Ends the thread, after goodbye and with the port closed.
    pub fn close(&self) {
        self.stop_sending();
        self.stop_receiving();
        self.stop_listening();
        self.send(Command::Close);
        let thread = self.state().thread.take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

struct Control<N> {
    membership: Membership,
    sink: Arc<dyn ControlSink>,
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Mutex<MembershipCounters>>,
    started: std::time::Instant,
    group: Option<Rc<UdpSocket>>,
    group_address: SocketAddr,
    receiving: Option<tokio::task::JoinHandle<()>>,
    /// Ends when the accepting task has.
    accepting: Option<oneshot::Receiver<()>>,
    draining: bool,
    net: PhantomData<N>,
}

impl<N: Net> Control<N> {
    fn now(&self) -> Instant {
        let nanos = self.started.elapsed().as_nanos();
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Command>) {
        // Whoever probes before this node announces itself learns that it is there to come.
        self.feed(Input::Tick).await;
        loop {
            let wait = self.membership.next_deadline().map_or(Duration::from_secs(3600), |due| {
                Duration::from_nanos(due.0.saturating_sub(self.now().0))
            });
            let command = tokio::select! {
                command = inputs.recv() => command,
                () = tokio::time::sleep(wait) => {
                    self.feed_vitals().await;
                    continue;
                }
            };
            match command {
                None | Some(Command::Close) => return,
                Some(command) => self.carry_out(command).await,
            }
            // What is there already shares one look at the deadlines.
            for _ in 0..BATCH_COUNT {
                match inputs.try_recv() {
                    Ok(Command::Close) => return,
                    Ok(command) => self.carry_out(command).await,
                    Err(_) => break,
                }
            }
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Listen(listener) => self.accept(listener),
            Command::StopListening(done) => {
                if let Some(accepting) = self.accepting.take() {
                    let _ = accepting.await;
                }
                let _ = done.send(());
            }
            Command::Connect { worker, request, address, timeout_ms } => {
                self.connect(worker, request, address, timeout_ms);
            }
            Command::ConnectEnded { worker, request, result } => {
                self.sink.connected(worker, request, result);
            }
            Command::Evidence { identity, evidence } => {
                self.feed(Input::Evidence { identity: &identity, evidence }).await;
            }
            Command::SetLocal(local) => self.feed(Input::SetLocal(local)).await,
            Command::SetDraining => {
                self.draining = true;
                self.feed_vitals().await;
            }
            Command::Join(socket) => self.receive(socket),
            Command::Leave(done) => {
                self.group = None;
                if let Some(receiving) = self.receiving.take() {
                    receiving.abort();
                    let _ = receiving.await;
                }
                let _ = done.send(());
            }
            Command::StartReceiving(done) => {
                self.feed(Input::StartReceiving).await;
                let _ = done.send(());
            }
            Command::StartSending(done) => {
                self.feed(Input::StartSending).await;
                let _ = done.send(());
            }
            Command::StopReceiving(done) => {
                self.feed(Input::StopReceiving).await;
                let _ = done.send(());
            }
            Command::StopSending(done) => {
                self.feed(Input::StopSending).await;
                let _ = done.send(());
            }
            Command::Broadcast(datagram) => self.send_datagram(datagram).await,
            Command::Datagram { bytes, from, room: _room } => {
                self.feed(Input::Datagram { bytes: &bytes, from }).await;
            }
            Command::ProbeEnded { probe, result } => {
                self.feed(Input::ProbeEnded { probe, result }).await;
            }
            Command::Close => {}
        }
    }

    /// How this node is, for the heartbeat that may be due; and what else is due.
    async fn feed_vitals(&mut self) {
        let oldest_unfinished_ms = self.sink.oldest_unfinished_ms(self.now());
        let draining = self.draining;
        self.feed(Input::SetVitals { oldest_unfinished_ms, draining }).await;
    }

    async fn feed(&mut self, input: Input<'_>) {
        let mut outputs = Vec::new();
        self.membership.handle(input, self.now(), &mut outputs);
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = self.membership.counters();
        for output in outputs {
            match output {
                Output::SendDatagram(datagram) => self.send_datagram(datagram).await,
                Output::Probe { probe, address, frame, timeout_ms } => {
                    self.probe(probe, address, frame, timeout_ms);
                }
                other => self.sink.membership(other),
            }
        }
    }

    async fn send_datagram(&self, datagram: Vec<u8>) {
        if let Some(group) = &self.group
            && let Err(error) = group.send_to(&datagram, self.group_address).await
        {
            let text = format!("a packet to the membership group was not sent: {error}");
            self.sink.membership(Output::Log { level: LogLevel::Warn, text });
        }
    }

    fn accept(&mut self, listener: std::net::TcpListener) {
        let sink = Arc::clone(&self.sink);
        let (ended, accepting) = oneshot::channel();
        self.accepting = Some(accepting);
        let listener = match N::listener(listener) {
            Ok(listener) => listener,
            Err(error) => {
                let text = format!("the port cannot be used: {error}");
                self.sink.membership(Output::Log { level: LogLevel::Error, text });
                return;
            }
        };
        tokio::task::spawn_local(async move {
            let mut logged: Option<std::time::Instant> = None;
            loop {
                match N::accept(&listener).await {
                    Ok((fd, peer)) => sink.accepted(fd, peer),
                    // The port was closed.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => break,
                    // Out of descriptors, or a connection that ended while it queued.
                    Err(error) => {
                        let is_ended = error.kind() == std::io::ErrorKind::ConnectionAborted;
                        let is_due = logged.is_none_or(|at| at.elapsed() >= ACCEPT_LOG_EVERY);
                        if !is_ended && is_due {
                            logged = Some(std::time::Instant::now());
                            let text = format!(
                                "a connection cannot be accepted: {error}; peers wait until it can; \
                                 raise the limit of descriptors (ulimit -n) or of memory"
                            );
                            sink.membership(Output::Log { level: LogLevel::Error, text });
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
            let _ = ended.send(());
        });
    }

    /// The group is on plain tokio: a receive of tokio-uring cannot be ended from outside (it takes
    /// the sender's address for granted, and a shut-down socket gives none).
    fn receive(&mut self, socket: std::net::UdpSocket) {
        let ready = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket));
        let group = match ready {
            Ok(group) => Rc::new(group),
            Err(error) => {
                let text = format!("the membership group cannot be used: {error}");
                self.sink.membership(Output::Log { level: LogLevel::Error, text });
                return;
            }
        };
        self.group = Some(Rc::clone(&group));
        let commands = self.commands.clone();
        // More wait in the kernel, which drops what is too much.
        let rooms = Arc::new(Semaphore::new(DATAGRAMS_LIMIT_COUNT));
        self.receiving = Some(tokio::task::spawn_local(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES];
            while let Ok(room) = Arc::clone(&rooms).acquire_owned().await {
                match group.recv_from(&mut buffer).await {
                    Ok((length_bytes, from)) => {
                        let bytes = buffer[..length_bytes].to_vec();
                        if commands.send(Command::Datagram { bytes, from, room }).is_err() {
                            break;
                        }
                    }
                    Err(_) => tokio::time::sleep(RECEIVE_ERROR_PAUSE).await,
                }
            }
        }));
    }

    fn connect(&self, worker: u16, request: u64, address: SocketAddr, timeout_ms: u64) {
        let commands = self.commands.clone();
        let open = async move { N::into_descriptor(N::connect(address).await?) };
        with_deadline(open, timeout_ms, move |result| {
            let result = match result {
                Some(Ok(fd)) => Ok(fd),
                Some(Err(error)) => {
                    Err(Errno(error.raw_os_error().unwrap_or(nix::libc::EHOSTUNREACH)))
                }
                None => Err(Errno(nix::libc::ETIMEDOUT)),
            };
            let _ = commands.send(Command::ConnectEnded { worker, request, result });
        });
    }

    fn probe(&self, probe: u64, address: SocketAddr, frame: Option<Vec<u8>>, timeout_ms: u64) {
        let commands = self.commands.clone();
        probe::ask::<N>(address, frame, timeout_ms, move |result| {
            let _ = commands.send(Command::ProbeEnded { probe, result });
        });
    }
}

/// Runs `work` in a task of its own and calls `ended` with its result, or with `None` when the
/// deadline comes first. The work is not dropped: it ends by itself, and its result with it.
fn with_deadline<T: 'static>(
    work: impl Future<Output = std::io::Result<T>> + 'static,
    timeout_ms: u64,
    ended: impl FnOnce(Option<std::io::Result<T>>) + 'static,
) {
    let (result, when_ended) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let _ = result.send(work.await);
    });
    tokio::task::spawn_local(async move {
        let deadline = tokio::time::timeout(Duration::from_millis(timeout_ms), when_ended);
        ended(deadline.await.ok().and_then(Result::ok));
    });
}
