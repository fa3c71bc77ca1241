//! Asking a member whether it lives, and who it is.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ringtribe_wire::native::extension::wants_more;
use ringtribe_wire::tribes::ACK;
use socket2::SockRef;

use super::net::Net;
use super::{descriptor, with_deadline};
use crate::protocol::membership::ProbeResult;

/// A Ringtribe node sends what it says of itself together with its acknowledgement; a stock node
/// sends nothing, and is waited for so long.
const EXTENSION_WAIT_MS: u64 = 100;
/// Longest answer: an acknowledgement and a block whose length is two bytes.
const ANSWER_BYTES: usize = ACK.len() + u16::MAX as usize;

/// Connects; with a frame, sends it and waits for its acknowledgement and for what comes behind.
pub(super) fn ask<N: Net>(
    address: SocketAddr,
    frame: Option<Vec<u8>>,
    timeout_ms: u64,
    ended: impl FnOnce(ProbeResult) + 'static,
) {
    // A peer that accepts and never answers is left by closing our side of the connection, which
    // ends what is in flight.
    let opened: Rc<RefCell<Option<OwnedFd>>> = Rc::default();
    let kept = Rc::clone(&opened);
    let acknowledged = async move {
        let stream = N::connect(address).await?;
        let Some(frame) = frame else { return Ok(None) };
        *kept.borrow_mut() = Some(descriptor::duplicate(&stream)?);
        N::write_all(&stream, frame).await?;
        let mut answer = Vec::new();
        while answer.len() < ACK.len() {
            if !read_more::<N>(&stream, &mut answer).await? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some((stream, answer)))
    };
    with_deadline(acknowledged, timeout_ms, move |result| match result {
        Some(Ok(Some((stream, answer)))) => {
            if answer.starts_with(&ACK) {
                read_extension::<N>(stream, answer, opened, ended);
            } else {
                ended(ProbeResult::Unreachable);
            }
        }
        Some(Ok(None)) => ended(ProbeResult::Answered { extension: None }),
        Some(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            ended(ProbeResult::Refused);
        }
        Some(Err(_)) => ended(ProbeResult::Unreachable),
        None => {
            shut_down(&opened);
            ended(ProbeResult::TimedOut);
        }
    });
}

fn read_extension<N: Net>(
    stream: N::Stream,
    answer: Vec<u8>,
    opened: Rc<RefCell<Option<OwnedFd>>>,
    ended: impl FnOnce(ProbeResult) + 'static,
) {
    let answer = Rc::new(RefCell::new(answer));
    let read = Rc::clone(&answer);
    let said = async move {
        let mut bytes = read.take();
        while bytes.len() < ANSWER_BYTES
            && wants_more(&bytes[ACK.len()..])
            && read_more::<N>(&stream, &mut bytes).await?
        {}
        *read.borrow_mut() = bytes;
        Ok(())
    };
    with_deadline(said, EXTENSION_WAIT_MS, move |result| {
        if result.is_none() {
            shut_down(&opened);
        }
        // A block of which a part came within the time is as none.
        let bytes = answer.take();
        let extension = bytes.get(ACK.len()..).filter(|extension| !extension.is_empty());
        ended(ProbeResult::Answered { extension: extension.map(<[u8]>::to_vec) });
    });
}

/// Adds what arrives; false at the end of the stream.
async fn read_more<N: Net>(stream: &N::Stream, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let more = N::read(stream, 4_096).await?;
    bytes.extend_from_slice(&more);
    Ok(!more.is_empty())
}

fn shut_down(opened: &RefCell<Option<OwnedFd>>) {
    if let Some(fd) = opened.borrow_mut().take() {
        let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Both);
    }
}
