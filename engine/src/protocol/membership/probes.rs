//! Connecting to members to see whether they live.

use ringtribe_wire::native::extension::{Extension, PROBE_ID};
use ringtribe_wire::tribes::{
    FOOTER, Member, TCP_FAILURE_DETECTOR_MAGIC, encode_data_head, options,
};

use super::{Identity, Known, Membership, Output, ProbeResult};
use crate::ids::{BootId, Instant};
use crate::status::Status;

/// Longest wait for a probe. `TcpFailureDetector.connectTimeout` is 1 s, and mcastDropTime + 1 s is what
/// is promised: the rest is for timers and threads that are late.
const PROBE_TIMEOUT_MS: u64 = 900;
/// The same for static members: one that dies is noticed mcastDropTime + 1 s later, with the time
/// that a stock member is given to say more than its acknowledgement.
pub(super) const STATIC_PROBE_TIMEOUT_MS: u64 = 800;
/// Probes in flight at a time.
pub(super) const PROBES_LIMIT_COUNT: usize = 64;
/// Time between probes of a member that said goodbye.
const GOODBYE_PROBE_MS: u64 = 100;
/// The kernel closes the sockets of a killed process one after the other, on io_uring up to 35 ms
/// after its end, and accepts for it meanwhile. So who lost a connection and accepts another is looked
/// at again: after this, twice and four times as long.
const SECOND_LOOK_MS: u64 = 15;
pub(super) const SECOND_LOOKS_COUNT: u8 = 3;
/// How long a look waits while others can follow: twice and four times as long as well. A listener that
/// is being closed may swallow a connection's first packet, which the kernel sends again after 1 s.
const LOOK_TIMEOUT_MS: u64 = 20;
/// So many acknowledgements without a word of its incarnation mean that a stock node has taken a
/// Ringtribe node's place. One may mean that the word came late.
const SILENT_ANSWERS_COUNT: u8 = 2;

/// What a probe in flight is for.
#[derive(Debug)]
pub(super) enum Target {
    /// Somebody known; whether the frame has to be acknowledged, and whether this is a look that is
    /// over soon since others follow.
    Known { identity: Identity, acked: bool, is_look: bool },
    /// A static member that is not known yet.
    Endpoint(std::net::SocketAddr),
}

impl Known {
    /// The next look at a member that lost a connection, if any is left.
    fn look_again(&mut self, now: Instant) {
        if self.second_looks_count > 0 {
            let pause_ms = SECOND_LOOK_MS << (SECOND_LOOKS_COUNT - self.second_looks_count);
            self.second_looks_count -= 1;
            self.next_probe = Some(now.plus_ms(pause_ms));
        }
    }
}

impl Membership {
    pub(super) fn probe(
        &mut self,
        identity: &Identity,
        acked: bool,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let is_static = self.is_static(identity);
        let Some(known) = self.known.get_mut(identity) else { return };
        if known.probe.is_some() {
            // Its end decides what is next. A time that has passed would come again and again.
            known.next_probe = None;
            return;
        }
        let Some(address) = identity.address() else { return };
        if self.probes.len() >= PROBES_LIMIT_COUNT {
            known.next_probe = Some(now.plus_ms(self.frequency_ms));
            return;
        }
        known.probe = Some(self.next_probe);
        known.next_probe = None;
        // Silence is judged by a probe that waits long enough.
        let is_look = !is_static
            && known.leaving.is_none()
            && known.second_looks_count > 0
            && now.ms_since(known.last_sign()) < self.drop_time_ms;
        let target = Target::Known { identity: identity.clone(), acked, is_look };
        let timeout_ms = if is_look {
            LOOK_TIMEOUT_MS << (SECOND_LOOKS_COUNT - known.second_looks_count)
        } else if is_static {
            STATIC_PROBE_TIMEOUT_MS
        } else {
            PROBE_TIMEOUT_MS
        };
        self.send_probe(target, address, acked, timeout_ms, now, out);
    }

    /// After how much silence a member of the group is asked for a sign: half of mcastDropTime, unless
    /// that is a matter of two heartbeats.
    pub(super) fn early_ms(&self) -> Option<u64> {
        let early_ms = (self.drop_time_ms / 2).max(5 * self.frequency_ms / 2);
        Some(early_ms).filter(|early_ms| *early_ms < self.drop_time_ms)
    }

    pub(super) fn is_due_early(&self, known: &Known, now: Instant) -> bool {
        let silent_ms = now.ms_since(known.last_sign());
        self.early_ms().is_some_and(|early_ms| silent_ms >= early_ms)
            && !known.was_asked_early()
            && known.probe.is_none()
            && known.next_probe.is_none()
    }

    /// Asks a silent member for a sign before it is silent for too long. A process that stands still,
    /// runs for a moment and stands still again may use that moment to answer what waits for it in its
    /// kernel: one heartbeat, which may be lost, would be all otherwise.
    pub(super) fn probe_early(&mut self, identity: &Identity, now: Instant, out: &mut Vec<Output>) {
        let is_static = self.is_static(identity);
        let Some(known) = self.known.get_mut(identity) else { return };
        known.asked_early = Some(known.last_sign());
        let Some(address) = identity.address() else { return };
        if is_static || self.probes.len() >= PROBES_LIMIT_COUNT {
            return;
        }
        known.probe = Some(self.next_probe);
        // It ends when a probe would that began at mcastDropTime.
        let left_ms = self.drop_time_ms.saturating_sub(now.ms_since(known.last_sign()));
        let target = Target::Known { identity: identity.clone(), acked: true, is_look: false };
        self.send_probe(target, address, true, left_ms + PROBE_TIMEOUT_MS, now, out);
    }

    pub(super) fn send_probe(
        &mut self,
        target: Target,
        address: std::net::SocketAddr,
        acked: bool,
        timeout_ms: u64,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let probe = self.next_probe;
        self.next_probe += 1;
        self.counters.probes_count += 1;
        self.probes.insert(probe, target);
        let frame = acked.then(|| self.probe_frame(now));
        out.push(Output::Probe { probe, address, frame, timeout_ms });
    }

    /// A frame that stock's `TcpFailureDetector` swallows and every receiver acknowledges; a
    /// Ringtribe node says behind the acknowledgement who it is.
    fn probe_frame(&self, now: Instant) -> Vec<u8> {
        let package = self.local.package(self.alive_ms(now));
        let mut frame = Vec::new();
        encode_data_head(
            &mut frame,
            options::BYTE_MESSAGE | options::USE_ACK,
            self.alive_ms(now),
            &PROBE_ID,
            &package,
            TCP_FAILURE_DETECTOR_MAGIC.len(),
        );
        frame.extend_from_slice(&TCP_FAILURE_DETECTOR_MAGIC);
        frame.extend_from_slice(&FOOTER);
        frame
    }

    pub(super) fn probe_ended(
        &mut self,
        probe: u64,
        result: ProbeResult,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        match self.probes.remove(&probe) {
            None => {}
            Some(Target::Endpoint(address)) => self.endpoint_probed(address, result, now, out),
            Some(Target::Known { identity, acked, is_look }) => {
                let Some(known) = self.known.get_mut(&identity) else { return };
                known.probe = None;
                if known.is_member {
                    if is_look && matches!(result, ProbeResult::TimedOut) {
                        known.second_looks_count = known.second_looks_count.saturating_sub(1);
                        known.next_probe = Some(now);
                        return;
                    }
                    self.member_probed(&identity, acked, result, now, out);
                } else if let ProbeResult::Answered { extension } = result {
                    if acked && self.is_denied(&identity, extension.as_deref()) {
                        self.forget(&identity);
                        return;
                    }
                    if acked && extension.is_none() && self.is_silent_once(&identity, now) {
                        return;
                    }
                    self.announce(&identity, now, out);
                } else {
                    known.asked_in_vain(self.drop_time_ms, now);
                }
            }
        }
    }

    /// Whether a Ringtribe member that lives has this address: then who lives there has to say himself
    /// that he is another now, since anybody can send a heartbeat.
    pub(super) fn is_taken(&self, identity: &Identity) -> bool {
        self.known.iter().any(|(other, known)| {
            known.is_member && known.spoken.incarnation.is_some() && other.shares_address(identity)
        })
    }

    /// Where a Ringtribe member lives one answer without a word of it may have come too early: the
    /// candidate is asked again.
    fn is_silent_once(&mut self, identity: &Identity, now: Instant) -> bool {
        if !self.is_taken(identity) {
            return false;
        }
        let Some(known) = self.known.get_mut(identity) else { return false };
        known.spoken.silent_answers_count += 1;
        known.next_probe = Some(now.plus_ms(known.back_off_ms));
        known.spoken.silent_answers_count < SILENT_ANSWERS_COUNT
    }

    /// Whether the answer from a candidate's address says that somebody else lives there.
    fn is_denied(&self, identity: &Identity, answer: Option<&[u8]>) -> bool {
        let Ok(Some(extension)) = Extension::decode(answer.unwrap_or_default()) else {
            return false;
        };
        let limits = ringtribe_wire::Limits::default();
        match extension.package.map(|package| Member::decode(package, &limits)) {
            Some(Ok((member, _))) => Identity::of(&member) != *identity,
            _ => self.known.values().any(|known| {
                known.is_member && known.spoken.boot_id() == Some(BootId(extension.boot_id))
            }),
        }
    }

    fn member_probed(
        &mut self,
        identity: &Identity,
        acked: bool,
        result: ProbeResult,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if let (true, ProbeResult::Answered { extension }) = (acked, &result)
            && !self.answered(identity, extension.as_deref(), now, out)
        {
            return;
        }
        let is_static = self.is_static(identity);
        let (frequency_ms, drop_time_ms) = (self.frequency_ms, self.drop_time_ms);
        let Some(known) = self.known.get_mut(identity) else { return };
        let leaving = known.leaving.is_some();
        let silent = now.ms_since(known.last_sign()) >= drop_time_ms;
        if acked && matches!(result, ProbeResult::Answered { .. }) {
            known.acknowledged = Some(now);
        }
        // It ran a moment ago; or this node did not, and may not have read the answer.
        let runs = known.acknowledged.is_some_and(|at| now.ms_since(at) < drop_time_ms)
            || self.woke.is_some_and(|at| now.ms_since(at) < PROBE_TIMEOUT_MS);
        match result {
            ProbeResult::Answered { .. } if leaving => {
                let pause_ms = GOODBYE_PROBE_MS.min(frequency_ms);
                known.next_probe = Some(now.plus_ms(pause_ms));
            }
            ProbeResult::Answered { .. } if is_static => {
                known.heard = now;
                known.suspect_since = None;
                known.next_probe = Some(now.plus_ms(frequency_ms));
            }
            ProbeResult::Answered { .. } if silent => {
                known.suspect_since.get_or_insert(now);
                known.next_probe = Some(now.plus_ms(drop_time_ms));
            }
            ProbeResult::Answered { .. } => known.look_again(now),
            ProbeResult::Refused => {
                let cause = if leaving { Status::Goodbye } else { Status::Refused };
                self.gone(identity, cause, now, out);
            }
            ProbeResult::TimedOut if silent && runs && !leaving && !is_static => {
                known.next_probe = Some(now);
            }
            ProbeResult::Unreachable | ProbeResult::TimedOut if silent || leaving => {
                let cause = if leaving { Status::Goodbye } else { Status::Cut };
                self.gone(identity, cause, now, out);
            }
            // At the latest when it has been silent for too long, it is asked once more.
            ProbeResult::Unreachable if is_static => {
                let last = known.last_sign().plus_ms(drop_time_ms);
                known.next_probe = Some(now.plus_ms(frequency_ms).min(last));
            }
            ProbeResult::TimedOut if is_static => known.next_probe = Some(now),
            // One that accepts and hangs up: so what waits in a listener is treated that is closed.
            ProbeResult::Unreachable => known.look_again(now),
            // It still speaks: a lost packet, or a full accept queue.
            ProbeResult::TimedOut => {}
        }
    }

    /// A member has acknowledged, and may have said who it is. Returns whether it is still the
    /// one that was asked.
    fn answered(
        &mut self,
        identity: &Identity,
        bytes: Option<&[u8]>,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(address) = identity.address() else { return false };
        let extension = match Extension::decode(bytes.unwrap_or_default()) {
            Ok(extension) => extension,
            Err(error) => {
                self.log(now, format!("{address} answers a probe with {error}"), out);
                None
            }
        };
        let Some(known) = self.known.get_mut(identity) else { return false };
        let Some(extension) = extension else {
            if known.spoken.incarnation.is_none() {
                return true;
            }
            known.spoken.silent_answers_count += 1;
            if known.spoken.silent_answers_count < SILENT_ANSWERS_COUNT {
                return true;
            }
            self.cut(identity, Status::Cut, now, out);
            return false;
        };
        if self.is_foreign(&extension, identity, address, now, out) {
            self.cut(identity, Status::Cut, now, out);
            return false;
        }
        let known = self.known.get(identity).map(|known| known.spoken.boot_id());
        let is_other = known.flatten().is_some_and(|is| is != BootId(extension.boot_id));
        if !extension.ready {
            // It has stopped to announce itself; or another life has begun, and does not yet.
            let cause = if is_other { Status::Cut } else { Status::Goodbye };
            self.cut(identity, cause, now, out);
            return false;
        }
        let limits = ringtribe_wire::Limits::default();
        let member = extension.package.map(|package| Member::decode(package, &limits));
        let Some(Ok((member, package_bytes))) = member else {
            if is_other {
                self.cut(identity, Status::Cut, now, out);
            }
            return !is_other;
        };
        if is_other || Identity::of(&member) != *identity {
            self.cut(identity, Status::Cut, now, out);
            self.endpoint_answered(address, bytes, now, out);
            return false;
        }
        let package = extension.package.and_then(|package| package.get(..package_bytes));
        let package = package.unwrap_or_default();
        self.update(identity, member.alive_ms, package, Some(&extension), now, out);
        true
    }
}

/// The member package of somebody who has told nothing but his address.
pub(super) fn bare_package(identity: &Identity) -> Vec<u8> {
    let mut package = Vec::new();
    Member {
        alive_ms: 0,
        port: identity.port,
        secure_port: -1,
        udp_port: -1,
        host: &identity.host,
        command: b"",
        domain: b"",
        unique_id: &identity.unique_id,
        payload: b"",
    }
    .encode(&mut package);
    package
}
