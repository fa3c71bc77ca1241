//! A running member of a cluster: a node with its pollers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ringtribe::config::Config;
use ringtribe::delivery::{Incoming, PollEnd, Polled, PollerClass};
use ringtribe::event::Event;
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::status::Status;

/// Deliveries that a poller takes at a time.
const BATCH_COUNT: usize = 64;
/// A poll without an end of its own ends when the node closes.
const POLL_TIMEOUT: Duration = Duration::from_secs(60);

/// A node that listens and is told to the group.
pub(crate) struct Member {
    pub(crate) node: Arc<Node>,
    pub(crate) address: SocketAddr,
    pollers: Vec<JoinHandle<()>>,
}

impl Member {
    /// Opens a node, listens, and joins the group. Messages go to `take_message`, one at a time;
    /// events to `take_event`, on a thread of their own. `unique_id` is the boot id if `None`.
    ///
    /// # Errors
    /// What is refused, with the remedy.
    pub(crate) fn start(
        config: &Config,
        unique_id: Option<[u8; 16]>,
        mut take_message: impl FnMut(&Incoming) -> Status + Send + 'static,
        mut take_event: impl FnMut(&Node, Event) + Send + 'static,
    ) -> Result<Self, String> {
        let node = Arc::new(Node::open(config).map_err(|error| error.to_string())?);
        let address = node.listen().map_err(|error| error.to_string())?;
        node.set_local_member(LocalMember {
            host: match address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            port: i32::from(address.port()),
            secure_port: -1,
            udp_port: -1,
            unique_id: unique_id.unwrap_or(node.boot_id().0),
            ..LocalMember::default()
        });
        let messages = poller(&node, PollerClass::General, move |_, polled| {
            if let Polled::Message(delivery) = polled {
                let status = take_message(delivery.incoming());
                delivery.complete(status);
            }
        });
        let events = poller(&node, PollerClass::Reserved, move |node, polled| match polled {
            Polled::Event(event) => take_event(node, event),
            // A reply, though nothing here asks: accepted, so that its sender is content.
            Polled::Message(delivery) => delivery.complete(Status::Ok),
        });
        let mut member = Self { node, address, pollers: Vec::new() };
        member.pollers.push(messages.map_err(|error| error.to_string())?);
        member.pollers.push(events.map_err(|error| error.to_string())?);
        member.node.start_receiving().map_err(|error| error.to_string())?;
        member.node.start_sending().map_err(|error| error.to_string())?;
        Ok(member)
    }

    /// Says goodbye, lets what is queued go out for at most `grace`, and ends the pollers.
    pub(crate) fn close(mut self, grace: Duration) {
        self.node.close(grace);
        for poller in self.pollers.drain(..) {
            // One that panicked has said so.
            let _ = poller.join();
        }
    }
}

fn poller(
    node: &Arc<Node>,
    class: PollerClass,
    mut take: impl FnMut(&Node, Polled) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let node = Arc::clone(node);
    std::thread::Builder::new().name("ringtribe-poller".into()).spawn(move || {
        let mut taken = Vec::new();
        loop {
            let end = node.poll(class, usize::MAX, BATCH_COUNT, POLL_TIMEOUT, &mut taken);
            taken.drain(..).for_each(|polled| take(&node, polled));
            if end == PollEnd::Closed {
                return;
            }
        }
    })
}
