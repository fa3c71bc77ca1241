//! The engine's hand-written synchronisation, explored by loom in every order of its steps.

#[cfg(test)]
#[path = "../../../engine/src/worker/inbox.rs"]
#[allow(dead_code, unreachable_pub, reason = "only its protocol is explored")]
mod inbox;
