//! Bugs that a test can plant, to see that a checker finds them. Nothing of it is there without the
//! feature `planted-bugs`, which only the tests' crate asks for.

#[cfg(feature = "planted-bugs")]
macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A bug that a test can plant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Planted { $($(#[$doc])* $name,)* }

        impl Planted {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, as in the code.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

#[cfg(feature = "planted-bugs")]
bugs! {
    /// A message is acknowledged before its listener ran.
    AckBeforeApply,
    /// The applied point passes a failure that no acknowledgement has told.
    AppliedPastFailure,
    /// Failed outcomes that may be lost with their connection are not said again.
    FailureForgotten,
    /// What waits for its listener when the epoch ends is reported to nobody.
    FailureToNobody,
    /// What was unanswered on a lost connection is taken for done.
    ForgottenResend,
    /// A frame that was sent again is delivered again.
    DuplicateDelivered,
    /// What goes out again after a loss goes out in reverse.
    ReversedOnReconnect,
    /// Messages of one key take any lane.
    AnyLane,
    /// A message in several frames takes its place when it is whole, not with its first frame.
    LatePlace,
    /// A new connection does not wait for what a lost one still holds.
    NoSettling,
    /// Streams do not wait for the Tribes lanes that they follow in a change of format.
    NotHeld,
    /// The lane of a former epoch is read on when a new one has begun.
    OldLaneRead,
    /// Who missed something because an epoch ended is not told.
    GapNotRaised,
    /// A node takes what was meant for its former life, and the sender takes it for that life.
    FormerLifeBelieved,
    /// A lost connection is taken for a lost member.
    DroppedWhileReachable,
    /// A member whose epoch was ended is never let back.
    CutStaysOut,
    /// A Tribes connection whose answer is late goes on: the answer counts for the next message.
    AckOfAnother,
    /// A budget is never given back.
    BudgetKept,
    /// A budget is given back twice.
    BudgetTwice,
    /// A reply takes the stream of data.
    ReplyBehindData,
    /// Room that was waited for is not granted: a message in several frames never goes on.
    ChunksNeverFinish,
    /// A question of the join barrier is answered at once.
    BarrierEarly,
    /// A stream that gets no credit goes on waiting.
    StallUnnoticed,
    /// A worker of which one stream gets no credit sends nothing to anybody.
    StallHoldsAll,
    /// The listeners of one key's messages begin in order and run side by side.
    ListenersOverlap,
}

/// Whether a bug is planted; never without the feature.
macro_rules! planted {
    (in $planted:expr, $bug:ident) => {{
        #[cfg(feature = "planted-bugs")]
        let is_planted = $planted == Some($crate::planted::Planted::$bug);
        #[cfg(not(feature = "planted-bugs"))]
        let is_planted = false;
        is_planted
    }};
    ($shared:expr, $bug:ident) => {{
        let _ = &$shared.bounds;
        $crate::planted::planted!(in $shared.bounds.planted, $bug)
    }};
}
pub(crate) use planted;
