//! What the control thread needs of a runtime: connections, and a thread to run on.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// A runtime of one thread. Tasks are spawned with `tokio::task::spawn_local` on either, and timers,
/// channels and the membership socket are tokio's.
///
/// A future of these may own what the kernel writes to: once polled it is never dropped before it
/// has ended (see the module).
pub(super) trait Net: Sized + 'static {
    /// A port where peers connect.
    type Listener;
    /// A connection.
    type Stream: AsRawFd;

    /// Makes the runtime, on its thread.
    fn new() -> std::io::Result<Self>;

    /// Runs `work` to its end, with the tasks it spawns.
    fn block_on(self, work: impl Future<Output = ()>);

    /// Takes a listening socket over.
    fn listener(socket: std::net::TcpListener) -> std::io::Result<Self::Listener>;

    /// The next connection and who opened it; EINVAL after the socket was shut down.
    async fn accept(listener: &Self::Listener) -> std::io::Result<(OwnedFd, SocketAddr)>;

    /// Opens a connection.
    async fn connect(address: SocketAddr) -> std::io::Result<Self::Stream>;

    /// The connection, for a worker.
    fn into_descriptor(stream: Self::Stream) -> std::io::Result<OwnedFd>;

    /// Writes all of `bytes`.
    async fn write_all(stream: &Self::Stream, bytes: Vec<u8>) -> std::io::Result<()>;

    /// Reads at least one and at most `most_bytes`; none at the end.
    async fn read(stream: &Self::Stream, most_bytes: usize) -> std::io::Result<Vec<u8>>;
}
