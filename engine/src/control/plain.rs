//! The control thread's runtime on epoll: no system call of io_uring.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::net::Net;

/// Plain tokio.
pub(super) struct Plain(Runtime);

impl Net for Plain {
    type Listener = TcpListener;
    type Stream = TcpStream;

    fn new() -> std::io::Result<Self> {
        Builder::new_current_thread().enable_io().enable_time().build().map(Self)
    }

    fn block_on(self, work: impl Future<Output = ()>) {
        LocalSet::new().block_on(&self.0, work);
    }

    fn listener(socket: std::net::TcpListener) -> std::io::Result<TcpListener> {
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    }

    async fn accept(listener: &TcpListener) -> std::io::Result<(OwnedFd, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        Ok((stream.into_std()?.into(), peer))
    }

    async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn into_descriptor(stream: TcpStream) -> std::io::Result<OwnedFd> {
        stream.into_std().map(Into::into)
    }

    async fn write_all(stream: &TcpStream, bytes: Vec<u8>) -> std::io::Result<()> {
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            stream.writable().await?;
            match stream.try_write(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written_bytes) => left = &left[written_bytes..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read(stream: &TcpStream, most_bytes: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; most_bytes];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut bytes) {
                Ok(read_bytes) => {
                    bytes.truncate(read_bytes);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
