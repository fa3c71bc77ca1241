//! What is measured, and on what.

/// Length of every payload.
pub(crate) const SIZE_BYTES: u64 = 1024;
/// USE_ACK and SYNCHRONIZED_ACK: acknowledged when the listener has returned.
pub(crate) const APPLIED: u64 = 6;
/// Queued, and nobody waits.
pub(crate) const ASYNCHRONOUS: u64 = 8;

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) options: u64,
    pub(crate) callers: u64,
    /// A multiple of the callers.
    pub(crate) messages_count: u64,
}

impl Case {
    /// Sync applied with so many callers.
    pub(crate) const fn applied(callers: u64, messages_count: u64) -> Self {
        Self { name: "sync applied", options: APPLIED, callers, messages_count }
    }

    /// Async from one caller.
    pub(crate) const fn asynchronous(messages_count: u64) -> Self {
        Self { name: "async", options: ASYNCHRONOUS, callers: 1, messages_count }
    }

    /// Of a case, so many messages first that are not counted: code gets compiled, pools fill.
    pub(crate) const fn warming(self) -> Self {
        let count = self.messages_count / 4;
        Self { messages_count: count - count % self.callers, ..self }
    }
}

/// Who carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Tomcat's own, in JVMs.
    Stock,
    /// Ringtribe below Tomcat's channel, in JVMs.
    Jvm,
    /// The engine alone, on io_uring.
    Ring,
    /// The engine alone, on epoll.
    Epoll,
}

impl Transport {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock Tribes (JVM)",
            Self::Jvm => "Ringtribe (JVM)",
            Self::Ring => "Ringtribe engine (ring)",
            Self::Epoll => "Ringtribe engine (epoll)",
        }
    }
}

/// What one run of a case measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Messages a second: until the last caller returned, or, asynchronous, until the last message
    /// was delivered at the last member.
    pub(crate) rate: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}
