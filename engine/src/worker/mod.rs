//! The loop of one worker: orders in, events in, one wait a turn.

mod driver;
mod inbox;
mod table;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gauges::Held;
use crate::ids::Instant;
use crate::io::{Errno, Io, IoEvent};

pub use driver::{Driver, DriverSettings, Upcalls};
pub use inbox::Inbox;
pub(crate) use table::{GENERATION_MASK, Table};

/// What a worker runs: a state machine over [`Io`]. The loop below runs it on a backend, and so does
/// the simulator's on none.
pub trait Core {
    /// What other threads ask of it.
    type Order;

    /// Takes an order.
    fn order<I: Io>(&mut self, order: Self::Order, io: &mut I);
    /// Takes an event.
    fn event<I: Io>(&mut self, event: IoEvent<'_>, io: &mut I);
    /// Ends a turn: sends what became ready, one vectored send a connection, and acts on deadlines
    /// that are due.
    fn finish_turn<I: Io>(&mut self, io: &mut I);
    /// When [`Core::finish_turn`] is due though nothing happens.
    fn next_deadline(&self) -> Option<Instant>;
    /// Whether it has closed everything and the loop may end.
    fn is_finished(&self) -> bool;
    /// Writes down what it and its driver hold, for whoever watches.
    fn note(&self, held: Held);
}

/// What comes in through an inbox: orders, and connections that control opened or accepted.
#[derive(Debug)]
pub enum Input<O> {
    /// For the core.
    Order(O),
    /// A peer connected.
    Accepted {
        /// The connection.
        fd: OwnedFd,
        /// Who.
        peer: SocketAddr,
    },
    /// A connection that another worker accepted belongs here.
    HandedOver {
        /// The connection.
        fd: OwnedFd,
        /// Who.
        peer: SocketAddr,
        /// What was read from it already.
        read: Vec<u8>,
    },
    /// A connection that was asked for is open.
    Connected {
        /// From the request.
        request: u64,
        /// The connection.
        fd: OwnedFd,
    },
    /// It could not be opened.
    ConnectFailed {
        /// From the request.
        request: u64,
        /// Why.
        error: Errno,
    },
}

/// Inputs taken before completions get their turn.
const INPUTS_A_TURN_COUNT: usize = 1024;

/// Runs a core on a backend until it is finished. What the backend calls the kernel is added to
/// `calls_count`.
///
/// # Errors
/// The text of a panic in the core. The backend is torn down safely all the same.
pub fn run<C: Core, D: Driver>(
    mut core: C,
    inbox: &Inbox<Input<C::Order>>,
    mut io: D,
    calls_count: &AtomicU64,
) -> Result<(), String> {
    let mut counted = 0;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        loop {
            for _ in 0..INPUTS_A_TURN_COUNT {
                let Some(input) = inbox.pop() else { break };
                take(&mut core, input, &mut io);
            }
            core.finish_turn(&mut io);
            if core.is_finished() {
                return;
            }
            core.note(io.held());
            let sleep = !io.has_events() && inbox.prepare_sleep();
            io.turn(if sleep { core.next_deadline() } else { Some(Instant(0)) });
            inbox.woke();
            io.deliver(|event, io| core.event(event, io));
            let calls = io.calls_count();
            calls_count
                .fetch_add(calls - std::mem::replace(&mut counted, calls), Ordering::Relaxed);
        }
    }));
    inbox.close();
    drop(core);
    io.shut_down();
    ended.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

fn take<C: Core, D: Driver>(core: &mut C, input: Input<C::Order>, io: &mut D) {
    match input {
        Input::Order(order) => core.order(order, io),
        Input::Accepted { fd, peer } => {
            let conn = io.adopt(fd);
            core.event(IoEvent::Accepted { conn, peer }, io);
        }
        Input::HandedOver { fd, peer, read } => {
            let conn = io.adopt(fd);
            core.event(IoEvent::HandedOver { conn, peer, read }, io);
        }
        Input::Connected { request, fd } => {
            let conn = io.adopt(fd);
            core.event(IoEvent::Connected { request, conn }, io);
        }
        Input::ConnectFailed { request, error } => {
            core.event(IoEvent::ConnectFailed { request, error }, io);
        }
    }
}
