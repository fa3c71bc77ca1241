//! Members that are configured (staticMembers): found by probes instead of heartbeats.
//!
//! One that is absent is probed every mcastFrequency, then ever less often down to every
//! mcastDropTime. Who acknowledges is announced: a Ringtribe node says behind the acknowledgement
//! who it is, a stock node is known by its address and the configured unique id, or 16 zero bytes.
//! One that is present is probed every mcastFrequency, so it is dropped when it has not answered
//! for mcastDropTime, at once if its port refuses.

use std::net::{IpAddr, SocketAddr};

use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::tribes::Member;

use super::probes::{PROBES_LIMIT_COUNT, STATIC_PROBE_TIMEOUT_MS, Target, bare_package};
use super::{Identity, Known, Membership, Output, ProbeResult};
use crate::directory::MAX_MEMBERS_COUNT;
use crate::ids::{BootId, Instant};

/// A place where a member may be.
#[derive(Debug)]
pub(super) struct Endpoint {
    unique_id: Option<[u8; 16]>,
    /// Who is there.
    present: Option<Identity>,
    probing: bool,
    pub(super) next_probe: Option<Instant>,
    back_off_ms: u64,
}

impl Endpoint {
    pub(super) const fn new(unique_id: Option<[u8; 16]>) -> Self {
        Self { unique_id, present: None, probing: false, next_probe: None, back_off_ms: 0 }
    }

    pub(super) fn stop(&mut self) {
        *self = Self::new(self.unique_id);
    }
}

impl Membership {
    pub(super) fn is_static(&self, identity: &Identity) -> bool {
        let is_here = |address| self.endpoints.contains_key(&address);
        !self.endpoints.is_empty() && identity.address().is_some_and(is_here)
    }

    /// Looks at all places where nobody is known.
    pub(super) fn wake_endpoints(&mut self, now: Instant) {
        if !self.receiving {
            return;
        }
        for endpoint in self.endpoints.values_mut() {
            if endpoint.present.is_none() && !endpoint.probing {
                endpoint.back_off_ms = self.frequency_ms;
                endpoint.next_probe = Some(now);
            }
        }
    }

    pub(super) fn probe_endpoints(&mut self, now: Instant, out: &mut Vec<Output>) {
        let due: Vec<SocketAddr> = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.next_probe.is_some_and(|due| due <= now))
            .map(|(address, _)| *address)
            .collect();
        for address in due {
            let here = Identity {
                host: self.local.host.clone(),
                port: self.local.port,
                unique_id: self.local.unique_id,
            };
            let Some(endpoint) = self.endpoints.get_mut(&address) else { continue };
            endpoint.next_probe = None;
            if here.address() == Some(address) {
                continue;
            }
            // The other half is for those who are members.
            if self.probes.len() >= PROBES_LIMIT_COUNT / 2 {
                endpoint.next_probe = Some(now.plus_ms(self.frequency_ms));
                continue;
            }
            endpoint.probing = true;
            let target = Target::Endpoint(address);
            self.send_probe(target, address, true, STATIC_PROBE_TIMEOUT_MS, now, out);
        }
    }

    pub(super) fn endpoint_probed(
        &mut self,
        address: SocketAddr,
        result: ProbeResult,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(&address) else { return };
        endpoint.probing = false;
        if endpoint.present.is_some() {
            return;
        }
        match result {
            ProbeResult::Answered { extension } => {
                self.endpoint_answered(address, extension.as_deref(), now, out);
            }
            _ => self.back_off(address, now),
        }
    }

    fn back_off(&mut self, address: SocketAddr, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(&address) else { return };
        endpoint.next_probe = Some(now.plus_ms(endpoint.back_off_ms));
        endpoint.back_off_ms = (2 * endpoint.back_off_ms).min(self.drop_time_ms);
    }

    /// Somebody at a configured address has acknowledged.
    pub(super) fn endpoint_answered(
        &mut self,
        address: SocketAddr,
        bytes: Option<&[u8]>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(endpoint) = self.endpoints.get(&address) else { return };
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let unique_id = endpoint.unique_id.unwrap_or_default();
        let stock = Identity { host, port: i32::from(address.port()), unique_id };
        let extension = match Extension::decode(bytes.unwrap_or_default()) {
            Ok(extension) => extension,
            Err(error) => {
                self.log(now, format!("{address} answers a probe with {error}"), out);
                self.back_off(address, now);
                return;
            }
        };
        let Some(extension) = extension else {
            let package = bare_package(&stock);
            self.enter_static(stock, package, 0, None, now, out);
            return;
        };
        if self.is_of_other_cluster(&extension, address, out) {
            self.back_off(address, now);
            return;
        }
        if self.own.is_some_and(|own| own.boot_id == BootId(extension.boot_id)) {
            // This node under another of its addresses.
            return;
        }
        let limits = ringtribe_wire::Limits::default();
        let Some(package) = extension.package.filter(|_| extension.ready) else {
            // It is starting or leaving.
            self.back_off(address, now);
            return;
        };
        let fault = match Member::decode(package, &limits) {
            Ok((member, package_bytes)) => {
                let identity = Identity::of(&member);
                if identity.address() == Some(address) {
                    let (package, alive_ms) = (package[..package_bytes].to_vec(), member.alive_ms);
                    let extension = Some(&extension);
                    self.enter_static(identity, package, alive_ms, extension, now, out);
                    return;
                }
                let told = super::name(&identity);
                format!("says that it is {told}; give staticMembers the address that it names")
            }
            Err(error) => format!("answers a probe with a member package that is wrong: {error}"),
        };
        self.log(now, format!("the static member {address} {fault}"), out);
        self.back_off(address, now);
    }

    fn enter_static(
        &mut self,
        identity: Identity,
        package: Vec<u8>,
        alive_ms: i64,
        extension: Option<&Extension<'_>>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let is_full = self.known.len() >= MAX_MEMBERS_COUNT;
        if is_full && !self.known.contains_key(&identity) {
            self.log(now, format!("{} is ignored: too many members", super::name(&identity)), out);
        } else {
            let former = self.judge_life(&identity, alive_ms, extension, true, now, out).flatten();
            let frequency_ms = self.frequency_ms;
            let known = self.known.entry(identity.clone()).or_insert_with(|| {
                let mut known = Known::new(package.clone(), alive_ms, frequency_ms, now);
                known.spoken.former = former;
                known
            });
            known.heard = now;
            if known.is_member {
                self.update(&identity, alive_ms, &package, extension, now, out);
            } else {
                self.spoke(&identity, extension, now, out);
                self.announce(&identity, now, out);
            }
        }
        if let (Some(address), None) = (identity.address(), self.known.get(&identity)) {
            self.back_off(address, now);
        }
    }

    /// A member is announced: if it is a static one, its place is taken.
    pub(super) fn enter_endpoint(&mut self, identity: &Identity, now: Instant) {
        let Some(address) = identity.address() else { return };
        let Some(endpoint) = self.endpoints.get_mut(&address) else { return };
        endpoint.present = Some(identity.clone());
        endpoint.next_probe = None;
        endpoint.back_off_ms = self.frequency_ms;
        if let Some(known) = self.known.get_mut(identity) {
            known.next_probe = Some(now.plus_ms(self.frequency_ms));
        }
    }

    /// A member has gone: its place is looked at again.
    pub(super) fn leave_endpoint(&mut self, identity: &Identity, now: Instant) {
        let Some(address) = identity.address() else { return };
        let Some(endpoint) = self.endpoints.get_mut(&address) else { return };
        if endpoint.present.take_if(|present| present == identity).is_some() && !endpoint.probing {
            self.back_off(address, now);
        }
    }
}
