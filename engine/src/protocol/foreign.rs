//! Peers that speak something known which is not spoken here: each is named once, and all are counted.

use std::collections::BTreeSet;

use ringtribe_wire::tribes::Tomcat55;

use crate::shared::{Counters, count};

/// Peers that are named in the log; what comes after so many is counted only.
const NAMED_LIMIT_COUNT: usize = 256;

/// Who was named.
#[derive(Debug)]
pub(crate) struct Named<K>(BTreeSet<K>);

impl<K> Default for Named<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord> Named<K> {
    /// Whether this one is to be named now.
    pub(crate) fn is_first(&mut self, peer: K) -> bool {
        self.0.len() < NAMED_LIMIT_COUNT && self.0.insert(peer)
    }
}

/// What a connection spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Foreign {
    Tls,
    Tomcat55Early,
    Tomcat55Late,
}

impl From<Tomcat55> for Foreign {
    fn from(release: Tomcat55) -> Self {
        match release {
            Tomcat55::Early => Self::Tomcat55Early,
            Tomcat55::Late => Self::Tomcat55Late,
        }
    }
}

impl Foreign {
    pub(crate) fn count(self, counters: &Counters) {
        let counter = match self {
            Self::Tls => &counters.tls_hellos_count,
            Self::Tomcat55Early | Self::Tomcat55Late => &counters.tomcat_55_frames_count,
        };
        count(counter, 1);
    }

    pub(crate) fn fault(self) -> String {
        let release = match self {
            Self::Tls => {
                return "a TLS hello: no TLS is spoken here, connect to this port in plain TCP (without \
                        securePort, and without the pskKey of a later Tomcat's Channel)"
                    .into();
            }
            Self::Tomcat55Early => Tomcat55::Early,
            Self::Tomcat55Late => Tomcat55::Late,
        };
        format!("a frame of Tomcat {}: {}", release.releases(), of_tomcat_55())
    }
}

/// Why Tomcat 5.5 is no member, and what to do.
pub(crate) const fn of_tomcat_55() -> &'static str {
    "this node speaks as Tomcat 7.0 to 11 do, which share neither heartbeats nor messages with 5.5; give \
     the old cluster a group and ports of its own until its nodes are replaced"
}

/// What is wrong with what came on a connection.
#[derive(Debug)]
pub(crate) enum Fault {
    Foreign(Foreign),
    Text(String),
}

impl Fault {
    /// Why these bytes are no frame.
    pub(crate) fn of_frame(bytes: &[u8], error: &ringtribe_wire::Error) -> Self {
        let release = Tomcat55::of_frame(bytes);
        release
            .map_or_else(|| Self::Text(error.to_string()), |release| Self::Foreign(release.into()))
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_once_and_not_more_than_there_is_room_for() {
        let mut named = Named::default();
        let first_count = (0..2 * NAMED_LIMIT_COUNT).filter(|peer| named.is_first(*peer)).count();
        assert_eq!(first_count, NAMED_LIMIT_COUNT);
        assert!(!named.is_first(0));
    }
}
