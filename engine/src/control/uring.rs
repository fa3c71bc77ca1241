//! The control thread's runtime on io_uring.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tokio_uring::net::{TcpListener, TcpStream};

use super::descriptor;
use super::net::Net;

/// tokio-uring.
pub(super) struct Uring(tokio_uring::Runtime);

impl Net for Uring {
    type Listener = TcpListener;
    type Stream = TcpStream;

    fn new() -> std::io::Result<Self> {
        // `tokio_uring::start` would panic where io_uring is refused.
        tokio_uring::Runtime::new(&tokio_uring::builder()).map(Self)
    }

    fn block_on(self, work: impl Future<Output = ()>) {
        self.0.block_on(work);
    }

    fn listener(socket: std::net::TcpListener) -> std::io::Result<TcpListener> {
        Ok(TcpListener::from_std(socket))
    }

    async fn accept(listener: &TcpListener) -> std::io::Result<(OwnedFd, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        Ok((descriptor::duplicate(&stream)?, peer))
    }

    async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn into_descriptor(stream: TcpStream) -> std::io::Result<OwnedFd> {
        descriptor::duplicate(&stream)
    }

    async fn write_all(stream: &TcpStream, bytes: Vec<u8>) -> std::io::Result<()> {
        stream.write_all(bytes).await.0
    }

    async fn read(stream: &TcpStream, most_bytes: usize) -> std::io::Result<Vec<u8>> {
        let (result, mut bytes) = stream.read(vec![0; most_bytes]).await;
        bytes.truncate(result?);
        Ok(bytes)
    }
}
