//! The streams from other members that one worker has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use ringtribe_wire::native::{Hello, HelloStatus};

use crate::ids::{BootId, Epoch, Instant};
use crate::io::ConnId;
use crate::shared::{Shared, planted};

use super::core::Crew;
use super::stream::greeting::Refusal;
use super::stream::receiving::ReceiveStream;

/// Streams that are kept though no connection carries them; beyond it the longest idle one goes.
const IDLE_LIMIT_COUNT: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    by_number: BTreeMap<u64, ReceiveStream>,
    by_name: BTreeMap<(BootId, u16), u64>,
}

/// A hello that is taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// The stream.
    pub(super) number: u64,
    /// The connection that carried it before: to be closed, its bytes unread.
    pub(super) former: Option<ConnId>,
}

impl Inbound {
    pub(super) fn get(&mut self, number: u64) -> Option<&mut ReceiveStream> {
        self.by_number.get_mut(&number)
    }

    /// Begins or resumes the stream that a hello names.
    pub(super) fn hello(
        &mut self,
        hello: &Hello<'_>,
        conn: ConnId,
        peer: SocketAddr,
        worker: u16,
        crew: &Crew,
        shared: &Shared,
    ) -> Result<Taken, (Refusal, u64)> {
        let name = (BootId(hello.boot_id), hello.stream);
        let follows = |number: &&u64| {
            !planted!(shared, OldLaneRead) || !self.by_number[*number].is_before(hello)
        };
        let number = match self.by_name.get(&name).filter(follows) {
            Some(number) => {
                let known = &self.by_number[number];
                known.judge(hello).map_err(|refusal| (refusal, hello.epoch))?;
                *number
            }
            None if hello.next_sequence > 1 => {
                let reason = "nothing is known here of what went before".into();
                let refusal = Refusal { status: HelloStatus::Reset, reason };
                return Err((refusal, hello.epoch));
            }
            None => {
                self.make_room(shared);
                let number = crew.accepted_number.fetch_add(1, Ordering::Relaxed);
                let stream = ReceiveStream::new(number, worker, hello, peer);
                self.by_number.insert(number, stream);
                self.by_name.insert(name, number);
                number
            }
        };
        if hello.after_cut {
            shared.epoch_after_cut(name.0, Epoch(hello.epoch));
        }
        let stream = self.by_number.get_mut(&number);
        let former = stream.and_then(|stream| stream.attach(conn, hello, peer, shared));
        Ok(Taken { number, former: former.filter(|former| *former != conn) })
    }

    /// Forgets the longest idle stream if there are too many. Its sender, if it lives, begins a new
    /// epoch.
    fn make_room(&mut self, shared: &Shared) {
        if self.by_number.len() < IDLE_LIMIT_COUNT {
            return;
        }
        let idle = self.by_number.values().filter(|stream| stream.is_idle());
        let oldest = idle.min_by_key(|stream| stream.idle_since).map(|stream| stream.number);
        if let Some(mut gone) = oldest.and_then(|number| self.by_number.remove(&number)) {
            gone.drop_open(shared);
            self.by_name.remove(&(gone.boot_id, gone.stream));
        }
    }

    /// Since when the oldest message of all streams waits for its outcome.
    pub(super) fn oldest_since(&self) -> Option<Instant> {
        self.by_number.values().filter_map(ReceiveStream::oldest_since).min()
    }
}
