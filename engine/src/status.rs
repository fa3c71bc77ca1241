//! The stable numbers of outcomes and errors, the same in Rust, C and Java.

use core::fmt;

/// Whose fault a status is; what a caller should do depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: it went well.
    None,
    /// The caller's: the same call will fail again.
    Caller,
    /// A peer's, or the network's towards it.
    Peer,
    /// This machine or a configured bound: later may go well.
    Resource,
    /// Ours. The node closes itself; the process lives on.
    Bug,
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $fault:ident, $text:literal;)*) => {
        /// Outcome of a message at one member, or of a call.
        ///
        /// Numbers never change their meaning. 1 to 99 are reserved, the hundreds tell the fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Status { $($(#[$doc])* $name = $number,)* }

        impl Status {
            /// Every status, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The status of a number; `None` for one that no version has given out.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Whose fault.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// A sentence for a log.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

statuses! {
    /// Accepted: as far as the mode of the message asks.
    Ok = 0, None, "accepted";
    /// The node is closing or closed.
    Closed = 101, Caller, "the node is closed";
    /// The handle names a member that this node no longer has.
    StaleMember = 102, Caller, "no such member any more; look the member up again";
    /// An argument is out of its range.
    BadArgument = 103, Caller, "an argument is out of its range";
    /// Longer than maxMessageBytes.
    TooBig = 104, Caller, "the message is longer than maxMessageBytes; raise it on every node";
    /// There is nobody to send to.
    NoMembers = 105, Caller, "no members, and copies were asked for";
    /// Asked for something that this engine does not do.
    Unsupported = 106, Caller, "not supported";
    /// No acknowledgement within ackTimeout: unknown; it may still be delivered, once.
    Timeout = 201, Peer, "no acknowledgement within ackTimeout; it may still be applied";
    /// The peer's listener failed (FAIL_ACK).
    RemoteFailed = 202, Peer, "the listener of the member failed";
    /// The peer's host refused the connection: nobody listens there.
    Refused = 203, Peer, "connection refused: nothing listens at the member's address";
    /// The member was cut: silent, stalled or expelled.
    Cut = 204, Peer, "the member was dropped from the cluster";
    /// The member said goodbye.
    Goodbye = 205, Peer, "the member left the cluster";
    /// No connection could be made or kept.
    Unreachable = 206, Peer, "the member cannot be reached";
    /// The peer broke the protocol.
    Protocol = 207, Peer, "the member broke the protocol";
    /// The member accepts nothing any more: its credit was not raised for ackTimeout.
    Stalled = 208, Peer, "the member stalled: it accepted nothing for ackTimeout";
    /// Another incarnation lives at the member's address.
    WrongIncarnation = 209, Peer, "another incarnation lives at the member's address";
    /// No room in the member's queue within the deadline.
    QueueFull = 301, Resource, "the queue to the member stayed full (maxQueueSize)";
    /// The operating system refused.
    System = 302, Resource, "the operating system refused";
    /// This machine lacks what the engine needs.
    Absent = 303, Resource, "this machine does not offer what is needed";
    /// The delivery was given back without an outcome.
    Abandoned = 304, Resource, "the poller went away without reporting an outcome";
    /// A defect of this engine.
    Bug = 401, Bug, "a defect in the engine";
}

impl Status {
    /// The stable number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Whether this is [`Status::Ok`].
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Ok)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.number())
    }
}
