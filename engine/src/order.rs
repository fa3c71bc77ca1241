//! What other threads ask of a worker.

use std::sync::Arc;

use crate::budget::BudgetToken;
use crate::directory::MemberEntry;
use crate::ids::{BootId, Epoch, MemberId};
use crate::io::ConnId;
use crate::message::{Message, PerMember};
use crate::status::Status;

/// One destination of a message, with its place in the member's budget.
#[derive(Debug)]
pub struct Destination {
    /// Where in the message's list of destinations.
    pub index: usize,
    /// The member, as it was when the message was submitted.
    pub entry: Arc<MemberEntry>,
    /// The room it takes.
    pub token: BudgetToken,
}

/// An order to a worker. The order of the inbox is the order at every member.
#[derive(Debug)]
pub enum Order {
    /// Send a message: one order, whatever the number of members.
    Send {
        /// What.
        message: Arc<Message>,
        /// To whom.
        destinations: PerMember<Destination>,
    },
    /// A listener has ended.
    Outcome {
        /// The connection the message came by.
        conn: ConnId,
        /// Its number there.
        sequence: u64,
        /// How it ended.
        status: Status,
    },
    /// What held a connection back is gone.
    Resume {
        /// The connection.
        conn: ConnId,
    },
    /// The epoch of a member has ended: fail all that is queued for it, by name.
    Cut {
        /// The member.
        entry: Arc<MemberEntry>,
        /// Why.
        status: Status,
    },
    /// Deliveries of a stream from a member have ended, or it has room again: look there.
    Outcomes {
        /// The stream.
        stream: u64,
    },
    /// A member began an epoch after a cut: what its other streams hold of an earlier one ends.
    Epoch {
        /// The member's incarnation.
        boot_id: BootId,
        /// The epoch that it begins.
        epoch: Epoch,
    },
    /// A message in several frames has its room.
    Granted {
        /// The stream.
        stream: u64,
    },
    /// A member is seen, or is known to speak the own format now: open the reply lane.
    Seen {
        /// The member.
        entry: Arc<MemberEntry>,
    },
    /// Ask a member for the join barrier.
    AskJoin {
        /// The member.
        entry: Arc<MemberEntry>,
        /// Comes back with the answer.
        token: u64,
    },
    /// A question of the join barrier is to be put now: the application has seen the asker.
    Newcomer {
        /// Who asks.
        member: MemberId,
    },
    /// All that was submitted without the asker is finished: answer its question.
    Joined {
        /// The stream that asked.
        stream: u64,
        /// From the question.
        token: u64,
    },
    /// Tell all members that this node leaves.
    Goodbye {
        /// False: it drains.
        is_final: bool,
    },
    /// A member leaves: what is queued for it still goes, if it can.
    Drain {
        /// The member.
        entry: Arc<MemberEntry>,
    },
    /// Stop listening: close the connections that peers opened.
    CloseAccepted,
    /// Close everything; the worker ends when nothing is in flight.
    Close {
        /// What becomes of what is queued.
        status: Status,
    },
}

/// The way to the inboxes of a node's workers.
pub trait Orders: Send + Sync {
    /// Puts an order into the inbox of `worker`. After the worker has ended the order is dropped,
    /// which gives back what it owns.
    fn push(&self, worker: u16, order: Order);
}
