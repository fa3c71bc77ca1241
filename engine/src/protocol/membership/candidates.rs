//! How many may wait to be announced: anybody can send the heartbeat of somebody who does not exist,
//! and must not keep those that do out.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Candidates of one host that speaks for itself: so many processes of it may start at a time.
const HOST_LIMIT_COUNT: usize = 64;
/// Candidates whose heartbeats come from elsewhere, all together. Their addresses may answer nothing,
/// so they may not have all the probes that can be in flight.
const FOREIGN_LIMIT_COUNT: usize = 16;
/// All candidates.
const LIMIT_COUNT: usize = 1_024;

/// Candidates by the host that they and their heartbeats have; `None`: the two differ.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    counts: BTreeMap<Option<IpAddr>, usize>,
    all_count: usize,
}

impl Candidates {
    /// A new candidate; false: there is no room for it.
    pub(super) fn take(&mut self, source: Option<IpAddr>) -> bool {
        let limit_count = if source.is_some() { HOST_LIMIT_COUNT } else { FOREIGN_LIMIT_COUNT };
        let count = self.counts.get(&source).copied().unwrap_or(0);
        let has_room = count < limit_count && self.all_count < LIMIT_COUNT;
        if has_room {
            self.keep(source);
        }
        has_room
    }

    /// A member that is a candidate again has its place.
    pub(super) fn keep(&mut self, source: Option<IpAddr>) {
        *self.counts.entry(source).or_default() += 1;
        self.all_count += 1;
    }

    /// It is announced, or forgotten.
    pub(super) fn give_back(&mut self, source: Option<IpAddr>) {
        if let Some(count) = self.counts.get_mut(&source) {
            *count = count.saturating_sub(1);
            self.all_count = self.all_count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_host_keeps_no_other_out_and_foreign_ones_keep_none_out() {
        let host = |last: u8| Some(IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
        let mut candidates = Candidates::default();
        let taken = (0..1_000).filter(|_| candidates.take(None)).count();
        assert_eq!(taken, FOREIGN_LIMIT_COUNT);
        let taken = (0..1_000).filter(|_| candidates.take(host(1))).count();
        assert_eq!(taken, HOST_LIMIT_COUNT);
        assert!(candidates.take(host(2)), "another host");
        candidates.give_back(host(1));
        assert!(candidates.take(host(1)) && !candidates.take(host(1)), "one place came free");
        let hosts = (3..=255).filter(|last| (0..8).all(|_| candidates.take(host(*last)))).count();
        assert_eq!(hosts, (LIMIT_COUNT - FOREIGN_LIMIT_COUNT - HOST_LIMIT_COUNT - 1) / 8);
    }
}
