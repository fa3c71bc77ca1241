//! No panic crosses the border: unwinding into C or Java is undefined, or ends the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; `otherwise` is the answer if it panics. State behind locks survives a panic, since
/// every lock of the engine is taken whether poisoned or not.
pub fn guarded<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_panic_becomes_an_answer() {
        assert_eq!(super::guarded(401, || 0), 0);
        assert_eq!(super::guarded(401, || panic!("a defect")), 401);
    }
}
