//! Why a node does not open.

use crate::config::ConfigError;
use crate::ring::RingError;

/// Why a node does not open. Each names the cause and what to do.
#[derive(Debug)]
pub enum OpenError {
    /// The configuration does not hold together.
    Config(ConfigError),
    /// io_uring is refused or lacks what the engine needs.
    Ring(RingError),
    /// The control thread could not start.
    Control(String),
    /// The operating system refused a thread or random numbers.
    System(std::io::Error),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Ring(error) => write!(f, "{error}; or set backend=\"epoll\""),
            Self::Control(text) => write!(f, "the control thread could not start: {text}"),
            Self::System(error) => write!(f, "the operating system refused: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}
