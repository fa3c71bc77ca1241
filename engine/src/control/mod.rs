//! The control thread: what is slow and likes async/await, on tokio-uring.
//!
//! It accepts and connects and hands the descriptors to the workers, sends and receives heartbeats,
//! and probes members. It drives the [`Membership`] state machine; the data of connections never
//! passes here. A future of tokio-uring that is in flight is never dropped: each is owned by a task
//! that runs to its end, and a result that comes too late is ignored.

mod descriptor;
mod sockets;
pub mod trial;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio_uring::net::{TcpListener, TcpStream};

use crate::config::Config;
use crate::directory::Identity;
use crate::event::LogLevel;
use crate::ids::Instant;
use crate::io::{Errno, Evidence};
use crate::protocol::membership::{
    Input, LocalMember, Membership, MembershipCounters, Output, ProbeResult,
};

pub use sockets::{ListenError, MulticastError};

/// Descriptors below which a node of a large cluster may run out.
const FEW_DESCRIPTORS_COUNT: u64 = 4_096;
/// Pause after a receive error on the group, as stock's.
const RECEIVE_ERROR_PAUSE: Duration = Duration::from_millis(500);
/// Largest packet of the group.
const DATAGRAM_BYTES: usize = 65_536;

/// Where the control thread hands things to. Called on the control thread: must not block.
pub trait ControlSink: Send + Sync + 'static {
    /// A peer connected.
    fn accepted(&self, fd: OwnedFd, peer: SocketAddr);
    /// A connection that a worker asked for is open, or is not.
    fn connected(&self, worker: u16, request: u64, result: Result<OwnedFd, Errno>);
    /// The view changed, a broadcast came, or there is something to say.
    fn membership(&self, output: Output);
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
    Join(std::net::UdpSocket),
    Leave(Done<()>),
    StartReceiving(Done<()>),
    StartSending(Done<()>),
    StopReceiving(Done<()>),
    StopSending(Done<()>),
    Broadcast(Vec<u8>),
    Datagram { bytes: Vec<u8>, from: SocketAddr },
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
    /// Starts the control thread of a node that opened at `started`.
    ///
    /// # Errors
    /// io_uring is refused, or the operating system refuses a thread.
    pub fn start(
        config: &Config,
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
        let membership = Membership::new(config.mcast_frequency_ms, config.mcast_drop_time_ms);
        let thread = {
            let (commands, counters) = (commands.clone(), Arc::clone(&counters));
            std::thread::Builder::new().name("ringtribe-control".into()).spawn(move || {
                // `tokio_uring::start` would panic where io_uring is refused.
                let runtime = match tokio_uring::Runtime::new(&tokio_uring::builder()) {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let _ = ready.send(Ok(()));
                let report = Arc::clone(&sink);
                let run = std::panic::AssertUnwindSafe(|| {
                    let control = Control {
                        membership,
                        sink,
                        commands,
                        counters,
                        started,
                        group: None,
                        group_address,
                        receiving: None,
                        accepting: None,
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

    fn join(&self, state: &mut HandleState) -> Result<(), MulticastError> {
        if !state.joined {
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
    /// Membership is not started.
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

struct Control {
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
}

impl Control {
    fn now(&self) -> Instant {
        let nanos = self.started.elapsed().as_nanos();
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Command>) {
        loop {
            let wait = self.membership.next_deadline().map_or(Duration::from_secs(3600), |due| {
                Duration::from_nanos(due.0.saturating_sub(self.now().0))
            });
            let command = tokio::select! {
                command = inputs.recv() => command,
                () = tokio::time::sleep(wait) => {
                    self.feed(Input::Tick).await;
                    continue;
                }
            };
            match command {
                None | Some(Command::Close) => return,
                Some(command) => self.carry_out(command).await,
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
            Command::Datagram { bytes, from } => {
                self.feed(Input::Datagram { bytes: &bytes, from }).await;
            }
            Command::ProbeEnded { probe, result } => {
                self.feed(Input::ProbeEnded { probe, result }).await;
            }
            Command::Close => {}
        }
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
        tokio_uring::spawn(async move {
            let listener = TcpListener::from_std(listener);
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if let Ok(fd) = descriptor::duplicate(&stream) {
                            sink.accepted(fd, peer);
                        }
                    }
                    // The port was closed.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => break,
                    // Out of descriptors, or a connection that ended while it queued.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
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
        self.receiving = Some(tokio_uring::spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES];
            loop {
                match group.recv_from(&mut buffer).await {
                    Ok((length_bytes, from)) => {
                        let bytes = buffer[..length_bytes].to_vec();
                        if commands.send(Command::Datagram { bytes, from }).is_err() {
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
        let open = async move {
            let stream = TcpStream::connect(address).await?;
            descriptor::duplicate(&stream)
        };
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
        // A peer that accepts and never answers is left by closing our side of the connection.
        let opened: Rc<RefCell<Option<OwnedFd>>> = Rc::default();
        let kept = Rc::clone(&opened);
        let ask = async move {
            let stream = TcpStream::connect(address).await?;
            let Some(frame) = frame else { return Ok(()) };
            *kept.borrow_mut() = Some(descriptor::duplicate(&stream)?);
            stream.write_all(frame).await.0?;
            let mut answered_bytes = 0;
            while answered_bytes < ringtribe_wire::tribes::ACK.len() {
                let (result, _) = stream.read(vec![0; 64]).await;
                match result? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    more_bytes => answered_bytes += more_bytes,
                }
            }
            Ok(())
        };
        with_deadline(ask, timeout_ms, move |result| {
            if let (None, Some(fd)) = (&result, opened.borrow_mut().take()) {
                let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Both);
            }
            let result = match result {
                Some(Ok(())) => ProbeResult::Answered,
                Some(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    ProbeResult::Refused
                }
                Some(Err(_)) => ProbeResult::Unreachable,
                None => ProbeResult::TimedOut,
            };
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
    tokio_uring::spawn(async move {
        let _ = result.send(work.await);
    });
    tokio_uring::spawn(async move {
        let deadline = tokio::time::timeout(Duration::from_millis(timeout_ms), when_ended);
        ended(deadline.await.ok().and_then(Result::ok));
    });
}
