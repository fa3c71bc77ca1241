//! As much of the core as threads share.

#[path = "../../../../engine/src/protocol/foreign.rs"]
pub(crate) mod foreign;
#[path = "../../../../engine/src/protocol/lately.rs"]
pub(crate) mod lately;
#[path = "../../../../engine/src/protocol/membership/mod.rs"]
pub(crate) mod membership;
pub mod stream;
