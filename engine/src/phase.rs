//! The join barrier: when is all that was submitted before a moment finished?
//!
//! Each message belongs to the phase in which it was submitted, until every member has finished
//! it. A newcomer's question ends the present phase; it is answered when the last message of that
//! phase and of those before it has gone.

use std::sync::{Arc, PoisonError, Weak};

use crate::order::{Order, Orders};
use crate::sync::{Mutex, RwLock};

/// A question that is answered when a phase is over.
#[derive(Debug)]
struct Question {
    stream: u64,
    token: u64,
}

/// A stretch of time between two questions. Messages hold it; the last to let go answers.
pub struct Phase {
    questions: Mutex<Vec<Question>>,
    /// Held until then, so that phases end in their order.
    next: Mutex<Option<Arc<Self>>>,
    /// Weak: a message in an inbox holds its phase, which must not hold the inboxes.
    orders: Weak<dyn Orders>,
}

impl std::fmt::Debug for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Phase")
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        let questions =
            std::mem::take(self.questions.get_mut().unwrap_or_else(PoisonError::into_inner));
        let Some(orders) = self.orders.upgrade() else { return };
        for Question { stream, token } in questions {
            // Reply lanes belong to the first worker.
            orders.push(0, Order::Joined { stream, token });
        }
    }
}

/// The phases of one node.
#[derive(Debug)]
pub struct Phases {
    present: RwLock<Arc<Phase>>,
}

impl Phases {
    /// The first phase.
    #[must_use]
    pub fn new(orders: &Arc<dyn Orders>) -> Self {
        Self { present: RwLock::new(Arc::new(Phase::new(Arc::downgrade(orders)))) }
    }

    /// The present phase, for a message that is being submitted.
    pub(crate) fn present(&self) -> Arc<Phase> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the present phase. When it is over, JOINED with `token` is due on `stream`.
    pub(crate) fn ask(&self, stream: u64, token: u64) {
        let ended = {
            let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
            let next = Arc::new(Phase::new(Weak::clone(&present.orders)));
            // The next one cannot be over before this one is.
            *present.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&next));
            std::mem::replace(&mut *present, next)
        };
        ended
            .questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Question { stream, token });
    }
}

impl Phase {
    fn new(orders: Weak<dyn Orders>) -> Self {
        Self { questions: Mutex::default(), next: Mutex::default(), orders }
    }
}
