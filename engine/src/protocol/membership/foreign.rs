//! Who heartbeats in the group and can be no member: Tomcat 5.5, and nodes that offer TLS alone.

use std::net::SocketAddr;

use ringtribe_wire::tribes::{Member, Tomcat55};

use super::{Membership, Output};
use crate::event::LogLevel;
use crate::protocol::foreign::of_tomcat_55;

impl Membership {
    /// Whether a packet is a heartbeat of Tomcat 5.5: counted, and named once.
    pub(super) fn is_of_tomcat_55(
        &mut self,
        bytes: &[u8],
        from: SocketAddr,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some((release, name)) = Tomcat55::of_heartbeat(bytes) else { return false };
        self.counters.tomcat_55_heartbeats_count += 1;
        self.name_once(
            format!("5.5 {name}"),
            || {
                format!(
                    "{name} (its heartbeat came from {from}) is no member: it runs Tomcat {}, {}",
                    release.releases(),
                    of_tomcat_55()
                )
            },
            out,
        );
        true
    }

    /// Whether a member offers a port with TLS and none in plain: counted, and named once.
    pub(super) fn has_tls_alone(
        &mut self,
        member: &Member<'_>,
        from: SocketAddr,
        out: &mut Vec<Output>,
    ) -> bool {
        if member.port > 0 || member.secure_port <= 0 {
            return false;
        }
        self.counters.tls_members_count += 1;
        let (host, port, secure_port) = (member.host, member.port, member.secure_port);
        self.name_once(
            format!("tls {host:?} {secure_port}"),
            || {
                format!(
                    "a member whose heartbeat came from {from} is no member here: it offers TLS alone \
                     (securePort {secure_port}, port {port}), which is not spoken here; give its Receiver \
                     a port in plain TCP too, and leave the pskKey of a later Tomcat's Channel out"
                )
            },
            out,
        );
        true
    }

    fn name_once(&mut self, key: String, text: impl FnOnce() -> String, out: &mut Vec<Output>) {
        if self.foreign.is_first(key) {
            out.push(Output::Log { level: LogLevel::Warn, text: text() });
        }
    }
}
