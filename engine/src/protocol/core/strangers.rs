//! Connections that cost more than they bring: frames that never come to their end, and more
//! connections of strangers than there is room for.

use super::*;
use crate::protocol::half_frame;

/// Connections of members looked at for one that comes when every place is taken.
const LOOKS_LIMIT_COUNT: usize = 64;

impl WorkerCore {
    /// Closes a stream's connection because of what came on it. Not another byte of it is looked at;
    /// the reason goes out first, if the peer takes it within ackTimeout at most.
    pub(super) fn end_stream(
        &mut self,
        conn: ConnId,
        number: u64,
        peer: SocketAddr,
        text: &str,
        io: &mut impl Io,
    ) {
        let Some(stream) = self.inbound.get(number) else { return };
        stream.end(text);
        self.shared.accuse(format_args!("from {peer}"), text);
        io.pause_receive(conn);
        let until = io.now().plus_ms(self.shared.bounds.ack_timeout_ms);
        self.dues.push(Reverse((until, Due::HalfFrame(conn))));
        self.to_flush.push(conn);
    }

    /// Looks whether the frame that has begun on a connection has come further.
    pub(super) fn half_frame(&mut self, conn: ConnId, due: Instant, io: &mut impl Io) {
        let now = io.now();
        let limit_ms = self.shared.bounds.ack_timeout_ms;
        // Who stood still himself has not read what came.
        let is_excused = now.ms_since(due) >= self.shared.bounds.drop_time_ms / 2;
        let again = match self.conns.get_mut(&conn) {
            Some(Role::Accepted(accepted)) => {
                accepted.look(is_excused, &self.crew.lines, &self.shared, io)
            }
            Some(Role::Stream(number)) => {
                let number = *number;
                let Some(stream) = self.inbound.get(number).filter(|s| s.conn == Some(conn)) else {
                    return;
                };
                if stream.is_ending() {
                    // The peer does not even take the reason.
                    stream.detach(now);
                    self.watch(number);
                    self.leave(conn, true, io);
                    return;
                }
                let peer = stream.peer;
                match stream.half.look(limit_ms, is_excused, now) {
                    Ok(again) => again,
                    Err(more_bytes) => {
                        let text = half_frame::fault(more_bytes, limit_ms);
                        self.end_stream(conn, number, peer, &text, io);
                        None
                    }
                }
            }
            _ => None,
        };
        self.dues.extend(again.map(|due| Reverse((due, Due::HalfFrame(conn)))));
    }

    /// Whether there is a place for one more connection of a peer, accepted here or by another worker;
    /// one for which there is none is closed.
    pub(super) fn has_place(&mut self, conn: ConnId, io: &mut impl Io) -> bool {
        let bounds = &self.shared.bounds;
        let most_count = bounds.max_connections.div_ceil(usize::from(bounds.worker_count));
        let is_full = self.accepted_count >= most_count;
        if self.closing.is_none() && (!is_full || self.displace(most_count, io)) {
            return true;
        }
        count(&self.shared.counters.refused_connections_count, 1);
        self.conns.insert(conn, Role::Leaving);
        io.close(conn, true);
        false
    }

    /// Notes an accepted connection; until something else is known it is a stranger's.
    pub(super) fn note_stranger(&mut self, conn: ConnId) {
        if self.strangers.len() >= 2 * self.shared.bounds.max_connections {
            let conns = &self.conns;
            self.strangers.retain(|conn| conns.contains_key(conn));
        }
        self.strangers.push_back(conn);
    }

    /// Every place is taken: closes the oldest connection that is of no member, so that a member can
    /// get in, whatever strangers hold. Returns whether one was found.
    pub(super) fn displace(&mut self, most_count: usize, io: &mut impl Io) -> bool {
        let mut looks_count = 0;
        while looks_count < LOOKS_LIMIT_COUNT {
            let Some(conn) = self.strangers.pop_front() else { return false };
            let shared = Arc::clone(&self.shared);
            match self.conns.get_mut(&conn) {
                // What goes to its worker, or waits for a refusal to go out, goes by itself.
                Some(Role::Greeting(greeting))
                    if greeting.moving_to.is_none() && !greeting.refused =>
                {
                    let peer = greeting.peer;
                    self.leave(conn, true, io);
                    self.displaced(peer, most_count);
                    return true;
                }
                Some(Role::Accepted(accepted)) if accepted.is_closing() => {}
                Some(Role::Accepted(accepted)) if !accepted.is_of_member(&shared) => {
                    let peer = accepted.peer();
                    accepted.close(true, &self.crew.lines, &shared, io);
                    self.displaced(peer, most_count);
                    return true;
                }
                Some(Role::Stream(number)) => {
                    let number = *number;
                    let Some(stream) = self.inbound.get(number) else { continue };
                    if shared.directory.find_boot(stream.boot_id).is_some() {
                        looks_count += 1;
                        self.strangers.push_back(conn);
                        continue;
                    }
                    let peer = stream.peer;
                    stream.detach(io.now());
                    self.watch(number);
                    self.leave(conn, true, io);
                    self.displaced(peer, most_count);
                    return true;
                }
                Some(Role::Greeting(_) | Role::Accepted(_)) => {
                    looks_count += 1;
                    self.strangers.push_back(conn);
                }
                // It has gone already, and is not met here again.
                Some(Role::Leaving | Role::Lane { .. }) | None => {}
            }
        }
        false
    }

    /// Said at the first, the second, the fourth, and so on.
    fn displaced(&self, peer: SocketAddr, most_count: usize) {
        let counter = &self.shared.counters.displaced_connections_count;
        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if number.is_power_of_two() {
            let text = format!(
                "connection from {peer} closed: it is of no member, and all {most_count} places of \
                 worker {} are taken (maxConnections); {number} so far. Keep strangers from this port, \
                 or raise maxConnections",
                self.index
            );
            self.shared.deliveries.event(Event::Log { level: LogLevel::Warn, text });
        }
    }
}
