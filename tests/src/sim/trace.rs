//! What happened in a history, to be read.

use std::collections::VecDeque;
use std::fmt::Arguments;

/// Lines that are kept: the last ones.
const MOST_COUNT: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trace {
    is_on: bool,
    lines: VecDeque<String>,
    dropped_count: usize,
}

impl Trace {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }

    /// Writes down what happened at a node, in one of its lives.
    pub(super) fn say(&mut self, at: u64, node: usize, life: u32, what: Arguments<'_>) {
        if !self.is_on {
            return;
        }
        if self.lines.len() == MOST_COUNT {
            self.lines.pop_front();
            self.dropped_count += 1;
        }
        let (ms, ns) = (at / 1_000_000, at % 1_000_000);
        self.lines.push_back(format!("{ms:>6}.{ns:06} ms  node {node} life {life}: {what}"));
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        let mut lines = Vec::with_capacity(self.lines.len() + 1);
        if self.dropped_count > 0 {
            lines.push(format!("({} lines before these are not kept)", self.dropped_count));
        }
        lines.extend(self.lines.drain(..));
        lines
    }
}
