//! What a node tells the layer above, beside messages.

use std::sync::Arc;

use crate::ids::MemberId;
use crate::status::Status;

/// Something for the layer above that is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member can be addressed (`MembershipListener.memberAdded`).
    MemberAdded {
        /// Its handle.
        member: MemberId,
        /// Its member package.
        package: Arc<[u8]>,
    },
    /// A known member changed its payload or command.
    MemberChanged {
        /// Its handle.
        member: MemberId,
        /// Its new member package.
        package: Arc<[u8]>,
    },
    /// A member has gone (`MembershipListener.memberDisappeared`); what was queued for it failed.
    MemberGone {
        /// Its handle, stale from now on.
        member: MemberId,
        /// Its last member package; with the shutdown command if it said goodbye.
        package: Arc<[u8]>,
        /// Why.
        cause: Status,
    },
    /// A message submitted with a token is complete.
    Completed {
        /// From the submission.
        token: u64,
        /// Members that failed, with why; empty if all went well.
        failures: Vec<(MemberId, Status)>,
    },
    /// Messages between a member and this node are missing. Whoever keeps state above should
    /// repair it and then call `Node::repaired`; until then further gaps of the member are merged
    /// into this one.
    Gap {
        /// The member.
        member: MemberId,
        /// This node missed messages of the member; else the member missed messages of this node.
        here: bool,
        /// How many at most; 0 if it is not known.
        messages_count: u64,
    },
    /// Something an operator should read.
    Log {
        /// How grave.
        level: LogLevel,
        /// The text.
        text: String,
    },
}

/// How grave a log record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For those who look closely.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is wrong, and handled.
    Warn,
    /// Something is lost or broken.
    Error,
}
