//! The name of a node's cluster, and those that it met beside it.

use std::collections::BTreeSet;

/// Other clusters that are named in the log; what comes after so many is counted only.
const MAX_OTHERS_COUNT: usize = 16;

/// A clusterName; empty: it was given none.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    name: Vec<u8>,
    others: BTreeSet<Vec<u8>>,
}

impl Cluster {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.as_bytes().to_vec(), others: BTreeSet::new() }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether another one is met for the first time.
    pub(super) fn is_first(&mut self, other: &[u8]) -> bool {
        self.others.len() < MAX_OTHERS_COUNT && self.others.insert(other.to_vec())
    }
}
