//! The engine's hand-written synchronisation, explored by loom in every order of its steps.
//!
//! The modules named by paths are the engine's own files. They take their locks, conditions and
//! atomics from `crate::sync`, which is loom's here; what has none of these comes from the engine
//! as it is. A library, so that the tests inside those files are left out: `tests/models.rs` runs it.
#![allow(missing_docs, missing_debug_implementations, reason = "nobody uses it but its tests")]
#![allow(dead_code, unused_imports, unreachable_pub, reason = "only its protocols are explored")]
#![allow(unexpected_cfgs, reason = "nobody plants bugs here")]
#![allow(private_interfaces, reason = "what is public in the engine is not here")]

pub mod models;
pub mod protocol;
mod sync;

pub(crate) use ringtribe::{buffer, event, gauges, ids, io, status};

#[path = "../../../engine/src/budget.rs"]
mod budget;
#[path = "../../../engine/src/closing.rs"]
mod closing;
#[path = "../../../engine/src/delivery/mod.rs"]
mod delivery;
#[path = "../../../engine/src/directory.rs"]
mod directory;
#[path = "../../../engine/src/gaps.rs"]
mod gaps;
#[path = "../../../engine/src/worker/inbox.rs"]
mod inbox;
#[path = "../../../engine/src/joins.rs"]
mod joins;
#[path = "../../../engine/src/message.rs"]
mod message;
#[path = "../../../engine/src/order.rs"]
mod order;
#[path = "../../../engine/src/phase.rs"]
mod phase;
#[path = "../../../engine/src/planted.rs"]
mod planted;
#[path = "../../../engine/src/shared.rs"]
mod shared;
#[path = "../../../engine/src/submit.rs"]
mod submit;
#[path = "../../../engine/src/view.rs"]
mod view;
