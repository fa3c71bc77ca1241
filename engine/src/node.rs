//! A member of a cluster, as its application holds it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as WallInstant};

use ringtribe_wire::tribes;

use crate::backend::{self, Substrate};
use crate::closing::Closing;
use crate::config::Config;
use crate::control::{ControlHandle, ControlSink, ListenError, MulticastError};
use crate::delivery::{PollEnd, Polled, PollerClass};
use crate::directory::{Identity, MemberEntry};
use crate::epoll::EpollIo;
use crate::error::OpenError;
use crate::event::{Event, LogLevel};
use crate::ids::{BootId, Instant, Key, MemberId};
use crate::io::{Errno, Evidence};
use crate::message::Waiter;
use crate::order::{Order, Orders};
use crate::protocol::membership::{LocalMember, Output};
use crate::ring::{self, RingIo};
use crate::shared::{Bounds, Shared};
use crate::start;
use crate::status::Status;
use crate::submit::{Envelope, MessageBuilder, SendFailure};
use crate::worker::{Driver, DriverSettings, Inbox, Input, Upcalls};

/// Extra time of a caller beyond the deadline of its message, in which a worker may still write
/// an outcome that it knows better.
const DEADLINE_GRACE: Duration = Duration::from_millis(50);

/// A running node. All methods may be called from any thread; dropping it closes it at once.
#[derive(Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    control: ControlHandle,
    inboxes: Arc<Inboxes>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    started: WallInstant,
    closing: Closing,
    backend: String,
}

/// The inboxes of the workers, known once all rings are made.
#[derive(Default)]
struct Inboxes {
    all: OnceLock<Vec<Arc<Inbox<Input<Order>>>>>,
    next_accepted: AtomicUsize,
}

impl std::fmt::Debug for Inboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inboxes")
    }
}

impl Inboxes {
    fn send(&self, worker: usize, input: Input<Order>) {
        if let Some(inbox) = self.all.get().and_then(|all| all.get(worker)) {
            // After the worker has ended the input is dropped, which gives back what it owns.
            let _ = inbox.push(input);
        }
    }

    fn count(&self) -> usize {
        self.all.get().map_or(0, Vec::len)
    }
}

impl Orders for Inboxes {
    fn push(&self, worker: u16, order: Order) {
        self.send(usize::from(worker), Input::Order(order));
    }
}

/// What control found goes into the directory, to the workers and to the pollers.
struct Sink {
    shared: Arc<Shared>,
    inboxes: Arc<Inboxes>,
}

impl ControlSink for Sink {
    fn accepted(&self, fd: OwnedFd, peer: SocketAddr) {
        let turn = self.inboxes.next_accepted.fetch_add(1, Ordering::Relaxed);
        let worker = turn % self.inboxes.count().max(1);
        self.inboxes.send(worker, Input::Accepted { fd, peer });
    }

    fn connected(&self, worker: u16, request: u64, result: Result<OwnedFd, Errno>) {
        let input = match result {
            Ok(fd) => Input::Connected { request, fd },
            Err(error) => Input::ConnectFailed { request, error },
        };
        self.inboxes.send(usize::from(worker), input);
    }

    fn membership(&self, output: Output) {
        self.shared.apply(output);
    }

    fn oldest_unfinished_ms(&self, now: Instant) -> u32 {
        u32::try_from(self.shared.oldest_unfinished_ms(now)).unwrap_or(u32::MAX)
    }

    fn failed(&self, text: String) {
        self.shared.deliveries.event(Event::Log { level: LogLevel::Error, text });
    }
}

/// What a ring asks of control and of the other workers.
struct ToControl {
    control: ControlHandle,
    shared: Arc<Shared>,
    inboxes: Arc<Inboxes>,
}

impl Upcalls for ToControl {
    fn connect(&mut self, worker: u16, request: u64, address: SocketAddr, timeout_ms: u64) {
        self.control.connect(worker, request, address, timeout_ms);
    }

    fn hand_over(&mut self, worker: u16, fd: OwnedFd, peer: SocketAddr, read: Vec<u8>) {
        self.inboxes.send(usize::from(worker), Input::HandedOver { fd, peer, read });
    }

    fn report(&mut self, member: MemberId, evidence: Evidence) {
        if let Some(entry) = self.shared.directory.get(member) {
            self.control.evidence(entry.identity.clone(), evidence);
        }
    }
}

impl Node {
    /// Starts the workers and the control thread. Nothing listens and nobody is told yet.
    ///
    /// # Errors
    /// A configuration that does not hold together, a machine without io_uring where it is asked
    /// for by name ([`crate::config::Backend`]), or one that is out of something; the error names
    /// the cause and the remedy.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        config.check().map_err(OpenError::Config)?;
        let (node, notice) = backend::choose(config.backend, ring::probe, |substrate| {
            // A worker's loop is compiled for its driver; nothing is decided while it runs.
            match substrate {
                Substrate::IoUring => Self::start_on(config, substrate, |settings, upcalls| {
                    RingIo::new(settings, upcalls).map_err(OpenError::Ring)
                }),
                Substrate::Epoll => Self::start_on(config, substrate, |settings, upcalls| {
                    EpollIo::new(settings, upcalls).map_err(OpenError::System)
                }),
            }
        })?;
        if let Some(text) = notice {
            node.inner.shared.deliveries.event(Event::Log { level: LogLevel::Warn, text });
        }
        Ok(node)
    }

    /// Starts a node whose workers have drivers of `make`; on failure nothing is left.
    pub(crate) fn start_on<D: Driver>(
        config: &Config,
        substrate: Substrate,
        make: impl Fn(DriverSettings, Box<dyn Upcalls>) -> Result<D, OpenError> + Copy + Send + 'static,
    ) -> Result<Self, OpenError> {
        let started = WallInstant::now();
        let inboxes = Arc::new(Inboxes::default());
        let orders: Arc<dyn Orders> = Arc::clone(&inboxes) as Arc<dyn Orders>;
        let boot_id = BootId(ring::random_bytes().map_err(OpenError::System)?);
        let shared = Shared::new(Bounds::from(config), boot_id, orders);
        let sink = Sink { shared: Arc::clone(&shared), inboxes: Arc::clone(&inboxes) };
        let control = ControlHandle::start(config, boot_id, Arc::new(sink), started, substrate)?;
        let upcalls = || -> Box<dyn Upcalls> {
            Box::new(ToControl {
                control: control.clone(),
                shared: Arc::clone(&shared),
                inboxes: Arc::clone(&inboxes),
            })
        };
        let workers = start::workers(&shared, started, upcalls, make);
        let _ = inboxes.all.set(workers.inboxes);
        let (backend, failed) = match workers.outcome {
            Ok(features) => (features, None),
            Err(error) => (String::new(), Some(error)),
        };
        let node = Self {
            inner: Arc::new(Inner {
                shared,
                control,
                inboxes,
                workers: Mutex::new(workers.threads),
                started,
                closing: Closing::default(),
                backend,
            }),
        };
        // Dropping the node closes it.
        failed.map_or(Ok(node), Err)
    }

    /// This incarnation.
    #[must_use]
    pub fn boot_id(&self) -> BootId {
        self.inner.shared.boot_id
    }

    /// What moves the bytes, with the kernel features in use; begins with `io_uring` or `epoll`.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.inner.backend
    }

    fn now(&self) -> Instant {
        let nanos = self.inner.started.elapsed().as_nanos();
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Binds tcpListenAddress and the first free of tcpListenPort .. + autoBind; from now on peers
    /// can connect.
    ///
    /// # Errors
    /// The address is not this machine's (those that are, are named), or no port is free.
    pub fn listen(&self) -> Result<SocketAddr, ListenError> {
        self.inner.control.listen()
    }

    /// Stops listening and closes the connections that peers opened.
    pub fn stop_listening(&self) {
        self.inner.control.stop_listening();
        for worker in 0..self.inner.shared.bounds.worker_count {
            self.inner.shared.orders().push(worker, Order::CloseAccepted);
        }
    }

    /// Says who this node is: goes with each message and in the heartbeats.
    pub fn set_local_member(&self, local: LocalMember) {
        let alive_ms = i64::try_from(self.now().0 / 1_000_000).unwrap_or(i64::MAX);
        self.inner.shared.set_local_package(local.package(alive_ms).into());
        self.inner.control.set_local(local);
    }

    /// Joins the multicast group and learns members (`MembershipService.MBR_RX`).
    ///
    /// # Errors
    /// The group cannot be joined: not a multicast address, no route, no such interface.
    pub fn start_receiving(&self) -> Result<(), MulticastError> {
        self.inner.control.start_receiving()
    }

    /// Sends heartbeats (`MembershipService.MBR_TX`).
    ///
    /// # Errors
    /// As [`Node::start_receiving`].
    pub fn start_sending(&self) -> Result<(), MulticastError> {
        self.inner.control.start_sending()
    }

    /// Stops the heartbeats; if nothing is received either, says goodbye.
    pub fn stop_sending(&self) {
        self.inner.control.stop_sending();
    }

    /// Leaves the group; if no heartbeats are sent either, says goodbye.
    pub fn stop_receiving(&self) {
        self.inner.control.stop_receiving();
    }

    /// Sends a message as one datagram to the group (`Channel.SEND_OPTIONS_MULTICAST`): no order,
    /// no acknowledgement.
    ///
    /// # Errors
    /// [`Status::TooBig`] above 65,507 bytes with its frame, [`Status::System`] if the kernel
    /// refuses.
    pub fn broadcast(&self, payload: &[u8], envelope: &Envelope) -> Result<(), Status> {
        let package = self.inner.shared.local_package();
        let mut datagram = Vec::new();
        tribes::encode_data_head(
            &mut datagram,
            envelope.options,
            envelope.timestamp_ms,
            &envelope.unique_id,
            &package,
            payload.len(),
        );
        datagram.extend_from_slice(payload);
        datagram.extend_from_slice(&tribes::FOOTER);
        if datagram.len() > 65_507 {
            return Err(Status::TooBig);
        }
        self.inner.control.broadcast(datagram).map_err(|_| Status::System)
    }

    /// All destinations, known by membership or entered by hand, in no promised order.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<MemberEntry>> {
        self.inner.shared.directory.entries()
    }

    /// The destination of a handle; `None` if it has gone.
    #[must_use]
    pub fn member(&self, member: MemberId) -> Option<Arc<MemberEntry>> {
        self.inner.shared.directory.get(member)
    }

    /// The destination with an identity, if there is one.
    #[must_use]
    pub fn find(&self, identity: &Identity) -> Option<Arc<MemberEntry>> {
        self.inner.shared.directory.find(identity)
    }

    /// The handle of a member, also of one that membership does not know (a static one).
    ///
    /// # Errors
    /// [`Status::BadArgument`]: address or port cannot be connected to. [`Status::StaleMember`]:
    /// membership dropped it less than a minute ago.
    pub fn enter(&self, identity: &Identity, package: &[u8]) -> Result<MemberId, Status> {
        let entered = self.inner.shared.directory.enter_by_hand(identity, package);
        entered.map(|entry| entry.id)
    }

    /// Drops a member that was entered by hand; what is queued for it fails by name.
    pub fn forget(&self, member: MemberId) {
        self.inner.shared.cut(member, Status::Cut);
    }

    /// Room for a message; fill [`MessageBuilder::payload_mut`] and send it.
    ///
    /// # Errors
    /// As [`Shared::compose`].
    pub fn compose(
        &self,
        payload_bytes: usize,
        envelope: &Envelope,
    ) -> Result<MessageBuilder, Status> {
        self.inner.shared.compose(payload_bytes, envelope)
    }

    /// A message whose payload is handed over without a copy.
    ///
    /// # Errors
    /// As [`Shared::compose`].
    pub fn compose_shared(
        &self,
        payload: bytes::Bytes,
        envelope: &Envelope,
    ) -> Result<MessageBuilder, Status> {
        self.inner.shared.compose_shared(payload, envelope)
    }

    /// Sends and waits until every member is done as the options of the message ask: applied,
    /// received, or handed to the kernel. One deadline, `timeout_ms` (ackTimeout if `None`), covers
    /// admission and acknowledgement; where there are several members a quarter of it is kept for
    /// the second, so that one whose queue is full does not make the others fail.
    ///
    /// # Errors
    /// Each failed member with why; the others have the message.
    pub fn send(
        &self,
        builder: MessageBuilder,
        key: Option<Key>,
        reply: bool,
        destinations: &[MemberId],
        timeout_ms: Option<u64>,
    ) -> Result<(), SendFailure> {
        let waiter = Waiter::Thread(std::thread::current());
        let (message, until) = self.start(builder, key, reply, destinations, timeout_ms, waiter)?;
        message.wait(until + DEADLINE_GRACE);
        let failures = message.failures();
        if failures.is_empty() { Ok(()) } else { Err(SendFailure { failures }) }
    }

    /// Queues and returns; order is the order of these calls. With a `token` a completion event
    /// follows when all members are done. Waits only for room, up to the deadline.
    ///
    /// # Errors
    /// Without a token: members that have failed already. With one, failures come with the event,
    /// and an error here means that nothing was queued and no event follows.
    pub fn submit(
        &self,
        builder: MessageBuilder,
        key: Option<Key>,
        reply: bool,
        destinations: &[MemberId],
        timeout_ms: Option<u64>,
        token: Option<u64>,
    ) -> Result<(), SendFailure> {
        let waiter = token.map_or(Waiter::None, Waiter::Token);
        let (message, _) = self.start(builder, key, reply, destinations, timeout_ms, waiter)?;
        if token.is_none() {
            let failures = message.failures();
            if !failures.is_empty() {
                return Err(SendFailure { failures });
            }
        }
        Ok(())
    }

    fn start(
        &self,
        builder: MessageBuilder,
        key: Option<Key>,
        reply: bool,
        destinations: &[MemberId],
        timeout_ms: Option<u64>,
        waiter: Waiter,
    ) -> Result<(Arc<crate::message::Message>, WallInstant), SendFailure> {
        let shared = &self.inner.shared;
        if self.inner.closing.has_begun() {
            return Err(SendFailure::all(destinations, Status::Closed));
        }
        let timeout_ms = timeout_ms.unwrap_or(shared.bounds.ack_timeout_ms);
        let until = WallInstant::now() + Duration::from_millis(timeout_ms);
        let deadline = self.now().plus_ms(timeout_ms);
        let mut routed = shared.route(builder, key, reply, destinations, deadline, waiter);
        // Who has no room must not use up the time that the others have to answer.
        let kept_ms = if destinations.len() > 1 { timeout_ms / 4 } else { 0 };
        let tokens = routed.admit(shared, until - Duration::from_millis(kept_ms));
        let message = Arc::clone(&routed.message);
        shared.dispatch_unless_closed(&self.inner.closing, routed, tokens);
        Ok((message, until))
    }

    /// Asks every Ringtribe member whether all that it submitted before it saw this node is finished,
    /// and waits until they say so, or `timeout`. After it a copy of a member's state holds
    /// everything that was not sent to this node. Returns who did not answer.
    #[must_use]
    pub fn join_barrier(&self, timeout: Duration) -> Vec<MemberId> {
        self.inner.shared.join_barrier(WallInstant::now() + timeout)
    }

    /// Says that what `member` and this node missed of each other ([`Event::Gap`]) is repaired.
    pub fn repaired(&self, member: MemberId) {
        self.inner.shared.repaired(member);
    }

    /// Takes deliveries: see [`crate::delivery::DeliveryQueue::poll`].
    pub fn poll(
        &self,
        class: PollerClass,
        room_bytes: usize,
        most_count: usize,
        timeout: Duration,
        out: &mut Vec<Polled>,
    ) -> PollEnd {
        self.inner.shared.deliveries.poll(
            class,
            room_bytes,
            most_count,
            timeout,
            || self.now(),
            out,
        )
    }

    /// What the node counts, by name.
    #[must_use]
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let shared = &self.inner.shared;
        let deliveries = &shared.deliveries;
        let mut list = shared.counters.list();
        list.push(("delivered_count", deliveries.delivered_count.load(Ordering::Relaxed)));
        list.push(("delivery_failures_count", deliveries.failed_count.load(Ordering::Relaxed)));
        list.push(("undelivered_bytes", deliveries.used_bytes() as u64));
        let queued: usize =
            self.members().iter().map(|entry| entry.budget.used_and_most_bytes().0).sum();
        list.push(("queued_bytes", queued as u64));
        list.extend(shared.held());
        list.extend(self.inner.control.counters());
        list
    }

    /// Closes in order: goodbye, so that peers address this node no more; no new messages; what is
    /// queued goes out, and what peers sent is delivered and acknowledged, until `grace` ends; the
    /// rest fails by name, pollers get what is left and then [`PollEnd::Closed`].
    pub fn close(&self, grace: Duration) {
        let inner = &self.inner;
        if !inner.closing.begin() {
            return;
        }
        let until = WallInstant::now() + grace;
        let wait_for = |done: &dyn Fn() -> bool| {
            while WallInstant::now() < until && !done() {
                std::thread::park_timeout(Duration::from_millis(2));
            }
        };
        // Peers stop addressing us, and finish what is on the way.
        inner.control.set_draining();
        inner.shared.orders().push(0, Order::Goodbye { is_final: false });
        inner.control.stop_sending();
        let is_received =
            || self.members().iter().all(|entry| entry.budget.used_and_most_bytes().0 == 0);
        wait_for(&is_received);
        wait_for(&|| inner.shared.deliveries.is_idle());
        inner.shared.orders().push(0, Order::Goodbye { is_final: true });
        inner.control.stop_receiving();
        inner.control.stop_listening();
        for worker in 0..inner.inboxes.count() {
            inner.inboxes.send(worker, Input::Order(Order::Close { status: Status::Closed }));
        }
        let workers =
            std::mem::take(&mut *inner.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            let _ = worker.join();
        }
        inner.control.close();
        inner.shared.deliveries.close();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
