//! The end of a node: a message that is submitted meanwhile has its outcome too.

use std::sync::Arc;

use crate::budget::BudgetToken;
use crate::message::{AckMode, PerMember};
use crate::shared::Shared;
use crate::status::Status;
use crate::submit::Routed;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Whether a node closes. Who closes it begins here, and gives the workers their last order after it.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    begun: AtomicBool,
}

impl Closing {
    /// Begins. False if it had begun: one closes.
    pub(crate) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

impl Shared {
    /// As [`Shared::dispatch`]. A message behind the worker's last order, which nobody answers, fails.
    pub(crate) fn dispatch_unless_closed(
        &self,
        closing: &Closing,
        routed: Routed,
        tokens: PerMember<BudgetToken>,
    ) {
        let message = Arc::clone(&routed.message);
        self.dispatch(routed, tokens);
        // The worker had its last order before this message only if closing had begun before that.
        if closing.has_begun() && message.mode != AckMode::None {
            for index in 0..message.destinations.len() {
                self.complete(&message, index, Status::Closed);
            }
        }
    }
}
