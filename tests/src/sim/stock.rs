//! A stock member.

use super::*;

pub(super) struct Stock {
    pub(super) life: u32,
}

impl World {
    pub(super) fn start_stock(&mut self, _node: usize, _life: u32) {}
    pub(super) fn stock_event(&mut self, _place: Place, _what: Occurrence) {}
    pub(super) fn stock_turn(&mut self, _node: usize, _life: u32) {}
    pub(super) fn stock_datagram(&mut self, _node: usize, _bytes: &[u8]) {}
}
