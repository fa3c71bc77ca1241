//! Lanes that this worker opens to members.

use super::*;

impl WorkerCore {
    pub(super) fn enqueue(&mut self, message: &Arc<Message>, destination: Destination) {
        let Destination { index, entry, token } = destination;
        let queued = Queued { message: Arc::clone(message), index, token };
        // A cut may have overtaken the message: then it fails by name and nothing waits.
        if let Some(status) = self.closing.or(entry.ended()) {
            queued.end(status, &self.shared);
            self.shared.missed(&entry, 1);
            return;
        }
        let id = entry.id;
        let own = entry.boot_id();
        let address = entry.address;
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(entry));
        if let Some(boot_id) = own {
            let (class, lane) = if message.manner.reply && !planted!(self.shared, ReplyBehindData) {
                (LaneClass::Reply, LaneRef::Reply)
            } else {
                (LaneClass::Data, LaneRef::Data)
            };
            peer.stream(boot_id, class, self.index, &self.shared).push(queued);
            self.to_pump.push((id, lane));
            return;
        }
        let settled = self.settling.get(&address).copied();
        message.prepare_tribes(&self.shared.local_package());
        let peer = peer.with_tribes(self.lanes_count, settled);
        let lane = if planted!(self.shared, AnyLane) {
            index.wrapping_add(message.payload_bytes()) % peer.tribes_count()
        } else {
            peer.choose(message)
        };
        peer.push_tribes(lane, queued);
        self.to_pump.push((id, LaneRef::Tribes(lane)));
    }

    /// The reply lane of a member that speaks the own format.
    pub(super) fn reply_lane(&mut self, entry: &Arc<MemberEntry>) {
        let Some(boot_id) = entry.boot_id() else { return };
        if self.index != 0 || self.closing.is_some() || entry.ended().is_some() {
            return;
        }
        let peer = self.peers.entry(entry.id).or_insert_with(|| Peer::new(Arc::clone(entry)));
        peer.stream(boot_id, LaneClass::Reply, 0, &self.shared);
        self.to_pump.push((entry.id, LaneRef::Reply));
    }

    pub(super) fn cut(&mut self, member: MemberId, status: Status, io: &mut impl Io) {
        let Some(mut peer) = self.peers.remove(&member) else { return };
        let now = io.now();
        self.settling.retain(|_, until| *until > now);
        if peer.has_tribes_conn() {
            self.settling.insert(peer.entry.address, now.plus_ms(SETTLE_MS));
        }
        for conn in peer.conns() {
            self.conns.insert(conn, Role::Leaving);
        }
        peer.cut(status, &self.shared, io);
        self.requests.retain(|_, (of, _)| *of != member);
    }

    pub(super) fn connected(&mut self, request: u64, conn: ConnId, io: &mut impl Io) {
        let shared = Arc::clone(&self.shared);
        let wanted = self.requests.remove(&request).filter(|(member, lane)| {
            self.peers.get_mut(member).is_some_and(|peer| match lane {
                LaneRef::Tribes(at) => {
                    peer.tribes(*at).is_some_and(|lane| lane.connected(request, conn, io))
                }
                own => {
                    peer.own(*own).is_some_and(|lane| lane.connected(request, conn, &shared, io))
                }
            })
        });
        if let Some((member, lane)) = wanted {
            count(&self.shared.counters.connects_count, 1);
            self.conns.insert(conn, Role::Lane { member, lane });
            self.to_pump.push((member, lane));
        } else {
            self.conns.insert(conn, Role::Leaving);
            io.close(conn, false);
        }
    }

    pub(super) fn connect_failed(&mut self, request: u64, error: Errno, io: &mut impl Io) {
        let Some((member, lane)) = self.requests.remove(&request) else { return };
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if let LaneRef::Tribes(at) = lane {
            if let Some(lane) = peer.tribes(at) {
                lane.connect_failed(request, error, &self.shared, io);
            }
        } else if let Some(lane) = peer.own(lane) {
            lane.connect_failed(request, error, &self.shared, io);
        }
        self.to_pump.push((member, lane));
    }

    /// Bytes came on a connection that this worker opened.
    pub(super) fn lane_received(&mut self, conn: ConnId, bytes: &[u8], io: &mut impl Io) {
        let Some((member, lane)) = self.lane(conn) else { return };
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if let LaneRef::Tribes(at) = lane {
            let ask = peer
                .tribes(at)
                .map_or(Ask::Nothing, |found| found.received(conn, bytes, &self.shared, io));
            self.ask(ask, member, lane);
        } else if let Some(found) = peer.own(lane) {
            found.received(conn, bytes, &self.shared, io);
            self.to_pump.push((member, lane));
        }
    }

    pub(super) fn pump(&mut self, io: &mut impl Io) {
        let mut to_pump = std::mem::take(&mut self.to_pump);
        to_pump.sort_unstable();
        to_pump.dedup();
        for (member, lane) in to_pump.drain(..) {
            self.pump_lane(member, lane, io);
        }
        self.to_pump = to_pump;
    }

    pub(super) fn pump_lane(&mut self, member: MemberId, lane: LaneRef, io: &mut impl Io) {
        let is_held = planted!(self.shared, StallHoldsAll)
            && self.peers.iter().any(|(id, peer)| *id != member && peer.is_starved());
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let draining = peer.draining.is_some();
        if draining && (peer.is_idle() || peer.conns().next().is_none()) {
            self.cut(member, Status::Goodbye, io);
            return;
        }
        if peer.change_over(&self.shared, io) {
            for own in [LaneRef::Data, LaneRef::Reply] {
                self.pump_lane(member, own, io);
            }
            return;
        }
        let request = self.next_request;
        let shared = &self.shared;
        let (asked, due) = match lane {
            LaneRef::Tribes(at) => {
                let Some(found) = peer.tribes(at) else { return };
                let asked = found.pump(shared, request, io);
                let due = found.deadline().filter(|due| found.timer.is_none_or(|set| *due < set));
                found.timer = due.or(found.timer);
                (asked, due)
            }
            own => {
                let Some(found) = peer.own(own) else { return };
                let asked = !is_held && found.pump(shared, request, io);
                let due =
                    found.deadline(shared).filter(|due| found.timer.is_none_or(|set| *due < set));
                found.timer = due.or(found.timer);
                (asked, due)
            }
        };
        if asked {
            self.requests.insert(request, (member, lane));
            self.next_request += 1;
        }
        self.dues.extend(due.map(|due| Reverse((due, Due::Lane(member, lane)))));
    }

    pub(super) fn goodbye(&mut self, is_final: bool, io: &mut impl Io) {
        for (member, peer) in &mut self.peers {
            if let Some(reply) = peer.own(LaneRef::Reply) {
                reply.say_goodbye(is_final);
                self.to_pump.push((*member, LaneRef::Reply));
            }
        }
        // At once: the next order may close everything.
        self.pump(io);
    }
}
