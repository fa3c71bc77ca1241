//! Connections that members open to this node.

use super::*;

impl WorkerCore {
    /// Notices that this worker stood still, as that of a stopped process does. Those who gave it up
    /// meanwhile have reported what its connections still hold as failed, so not a byte of that may
    /// be delivered: every stream begins with a new hello. Who has not given it up goes on where the
    /// engine stopped. What was received before and not delivered waits for that hello as well.
    pub(super) fn look(&mut self, io: &mut impl Io) {
        let now = io.now();
        self.shared.deliveries.beat(now);
        for stream in self.shared.deliveries.overdue(now) {
            if let Some(stream) = self.inbound.get(stream) {
                stream.drop_failed(&self.shared);
            }
        }
        let still_ms = now.ms_since(std::mem::replace(&mut self.looked, now));
        if still_ms < self.shared.bounds.standstill_ms() || self.streams_count == 0 {
            return;
        }
        count(&self.shared.counters.standstills_count, 1);
        let text = format!(
            "worker {} stood still for {still_ms} ms: what members sent it meanwhile is not read",
            self.index
        );
        self.shared.deliveries.event(Event::Log { level: LogLevel::Info, text });
        self.close_streams(true, io);
        // A hello from before would be taken for one of now.
        self.close_greetings(|greeting| !greeting.read.is_empty(), true, io);
    }

    /// Closes the connections of all streams from members.
    fn close_streams(&mut self, reset: bool, io: &mut impl Io) {
        let now = io.now();
        let streams: Vec<(ConnId, u64)> = self
            .conns
            .iter()
            .filter_map(|(conn, role)| match role {
                Role::Stream(number) => Some((*conn, *number)),
                _ => None,
            })
            .collect();
        for (conn, number) in streams {
            if let Some(stream) = self.inbound.get(number) {
                stream.detach(now);
            }
            self.watch(number);
            self.leave(conn, reset, io);
        }
    }

    /// Closes those connections of which it is not known yet what they are.
    fn close_greetings(
        &mut self,
        which: impl Fn(&Greeting) -> bool,
        reset: bool,
        io: &mut impl Io,
    ) {
        let greetings: Vec<ConnId> = self
            .conns
            .iter()
            .filter_map(|(conn, role)| match role {
                Role::Greeting(greeting) if which(greeting) => Some(*conn),
                _ => None,
            })
            .collect();
        for conn in greetings {
            self.leave(conn, reset, io);
        }
    }

    pub(super) fn accept(&mut self, conn: ConnId, peer: SocketAddr, io: &mut impl Io) {
        if self.has_place(conn, io) {
            count(&self.shared.counters.accepted_count, 1);
            self.greet(conn, peer, io);
        }
    }

    /// Waits for the first bytes of a connection.
    pub(super) fn greet(&mut self, conn: ConnId, peer: SocketAddr, io: &mut impl Io) {
        self.accepted_count += 1;
        self.note_stranger(conn);
        let until = io.now().plus_ms(self.shared.bounds.ack_timeout_ms);
        self.conns.insert(conn, Role::Greeting(Box::new(Greeting::new(peer, until))));
        self.dues.push(Reverse((until, Due::Greeting(conn))));
        io.arm_receive(conn);
    }

    /// A connection says which format it speaks, or more is needed.
    pub(super) fn greeting(&mut self, conn: ConnId, bytes: &[u8], io: &mut impl Io) {
        let Some(Role::Greeting(greeting)) = self.conns.get_mut(&conn) else { return };
        if greeting.refused {
            return;
        }
        greeting.read.extend_from_slice(bytes);
        let peer = greeting.peer;
        let workers_count = self.shared.bounds.worker_count;
        match greeting.look() {
            Greeted::More => {}
            Greeted::Other => {
                let read = std::mem::take(&mut greeting.read);
                let number = self.crew.accepted_number.fetch_add(1, Ordering::Relaxed);
                let accepted = Accepted::new(self.index, conn, peer, number);
                self.conns.insert(conn, Role::Accepted(Box::new(accepted)));
                self.tribes_received(conn, &read, io);
            }
            Greeted::Broken(text) => self.broken(conn, peer, &text, io),
            Greeted::Known(foreign) => {
                self.shared.name_foreign(peer, foreign);
                self.leave(conn, true, io);
            }
            Greeted::Foreign(reason) => {
                self.refuse(conn, peer, &Refusal { status: HelloStatus::Version, reason }, 0, io);
            }
            Greeted::Hello(hello) => {
                let worker = worker_of(&hello, workers_count);
                if worker == self.index {
                    let read = std::mem::take(&mut greeting.read);
                    self.hello(conn, peer, &read, io);
                } else {
                    greeting.moving_to = Some(worker);
                    io.pause_receive(conn);
                }
            }
        }
    }

    pub(super) fn broken(&mut self, conn: ConnId, peer: SocketAddr, text: &str, io: &mut impl Io) {
        self.shared.accuse(format_args!("from {peer}"), text);
        self.leave(conn, true, io);
    }

    pub(super) fn hello(&mut self, conn: ConnId, peer: SocketAddr, read: &[u8], io: &mut impl Io) {
        let Ok(Some((hello, _))) = ringtribe_wire::native::decode_hello(read) else { return };
        let shared = Arc::clone(&self.shared);
        let taken = greeting::check(&hello, &shared)
            .map_err(|refusal| (refusal, hello.epoch))
            .and_then(|()| {
                self.inbound.hello(&hello, conn, peer, self.index, &self.crew, &shared, io.now())
            });
        match taken {
            Ok(taken) => {
                if let Some(former) = taken.former {
                    self.leave(former, true, io);
                }
                self.conns.insert(conn, Role::Stream(taken.number));
                self.streams_count += 1;
                self.to_flush.push(conn);
            }
            Err((refusal, epoch)) => self.refuse(conn, peer, &refusal, epoch, io),
        }
    }

    /// An incarnation began an epoch, as another of its streams said.
    pub(super) fn epoch_begins(&mut self, boot_id: BootId, epoch: Epoch, io: &mut impl Io) {
        let shared = Arc::clone(&self.shared);
        for (number, conn) in self.inbound.epoch_begins(boot_id, epoch, &shared, io.now()) {
            self.watch(number);
            self.leave(conn, true, io);
        }
    }

    /// Answers a hello with why it is refused; the connection closes when that is out.
    pub(super) fn refuse(
        &mut self,
        conn: ConnId,
        peer: SocketAddr,
        refusal: &Refusal,
        epoch: u64,
        io: &mut impl Io,
    ) {
        let answer = refusal.answer(peer, epoch, &self.shared);
        if let Some(Role::Greeting(greeting)) = self.conns.get_mut(&conn) {
            greeting.refused = true;
        }
        io.send(conn, answer);
    }

    pub(super) fn tribes_received(&mut self, conn: ConnId, bytes: &[u8], io: &mut impl Io) {
        let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) else { return };
        let (shared, lines) = (&self.shared, &self.crew.lines);
        accepted.received(bytes, &mut self.items, lines, shared, io);
        shared.deliveries.push(&mut self.items);
        let due = accepted.came(bytes.len(), shared.bounds.ack_timeout_ms, io.now());
        self.dues.extend(due.map(|due| Reverse((due, Due::HalfFrame(conn)))));
        accepted.hold_back(lines, shared, io);
        self.to_flush.push(conn);
    }

    pub(super) fn stream_received(
        &mut self,
        conn: ConnId,
        number: u64,
        bytes: &[u8],
        io: &mut impl Io,
    ) {
        let Some(stream) = self.inbound.get(number) else { return };
        let (peer, boot_id, now) = (stream.peer, stream.boot_id, io.now());
        let (items, asked) = (&mut self.items, &mut self.asked);
        let mut result = stream.received(bytes, items, asked, &self.shared, now);
        if result.is_ok() && stream.is_over_limit() {
            result = Err("acknowledgements of failures that its sender does not confirm".into());
        }
        // What came whole before a fault was taken, and is delivered.
        self.shared.deliveries.push(&mut self.items);
        let limit_ms = self.shared.bounds.ack_timeout_ms;
        let due = stream.came(bytes.len(), limit_ms, now);
        self.dues.extend(due.map(|due| Reverse((due, Due::HalfFrame(conn)))));
        if let Err(text) = &result {
            self.end_stream(conn, number, peer, text, io);
        }
        self.watch(number);
        self.to_flush.push(conn);
        for asked in std::mem::take(&mut self.asked) {
            match asked {
                Asked::Join { token } => {
                    if self.questions.len() < QUESTIONS_LIMIT_COUNT {
                        self.questions.push(Question { boot_id, stream: number, token });
                    }
                    let entry = self.shared.directory.find_boot(boot_id);
                    if let Some(entry) = entry.filter(|entry| entry.is_shown()) {
                        self.newcomer(entry.id);
                    }
                }
                Asked::Goodbye { .. } => {
                    if let Some(entry) = self.shared.directory.find_boot(boot_id) {
                        io.report(entry.id, Evidence::Ended(Status::Goodbye));
                    }
                }
            }
        }
    }

    /// The application has seen a member: its questions count from now on.
    pub(super) fn newcomer(&mut self, member: MemberId) {
        let Some(entry) = self.shared.directory.get(member) else { return };
        entry.set_shown();
        let boot_id = entry.boot_id();
        let shared = &self.shared;
        self.questions.retain(|question| {
            let asks = Some(question.boot_id) == boot_id;
            if asks && planted!(shared, BarrierEarly) {
                let (stream, token) = (question.stream, question.token);
                shared.orders().push(0, Order::Joined { stream, token });
            } else if asks {
                shared.phases.ask(question.stream, question.token);
            }
            !asks
        });
    }

    pub(super) fn paused(&mut self, conn: ConnId, io: &mut impl Io) {
        match self.conns.get_mut(&conn) {
            Some(Role::Accepted(accepted)) => {
                accepted.paused(io);
                let held = accepted.held_until;
                self.dues.extend(held.map(|due| Reverse((due, Due::Release(conn)))));
            }
            Some(Role::Greeting(greeting)) => {
                if let Some(worker) = greeting.moving_to {
                    let (peer, read) = (greeting.peer, std::mem::take(&mut greeting.read));
                    self.conns.remove(&conn);
                    self.accepted_count -= 1;
                    io.hand_over(conn, worker, peer, read);
                }
            }
            _ => {}
        }
    }

    pub(super) fn close_accepted(&mut self, io: &mut impl Io) {
        for role in self.conns.values_mut() {
            if let Role::Accepted(accepted) = role {
                accepted.close(false, &self.crew.lines, &self.shared, io);
            }
        }
        self.close_greetings(|_| true, false, io);
        self.close_streams(false, io);
    }

    /// Closes an accepted connection that nobody needs.
    pub(super) fn leave(&mut self, conn: ConnId, reset: bool, io: &mut impl Io) {
        let former = self.conns.insert(conn, Role::Leaving);
        if matches!(former, Some(Role::Greeting(_) | Role::Stream(_))) {
            self.accepted_count -= 1;
        }
        self.streams_count -= usize::from(matches!(former, Some(Role::Stream(_))));
        io.close(conn, reset);
    }
}
