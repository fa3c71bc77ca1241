//! The story every node must live, with two real Tomcats: both on Ringtribe, and one of them stock; and
//! on the other lines of Tomcat.

use ringtribe_tests::build::Flavour::{Ringtribe, Stock};
use ringtribe_tests::build::Line;
use ringtribe_tests::story::nine_steps;

#[test]
fn two_ringtribe_nodes() {
    nine_steps(Line::V10_1, Ringtribe, Ringtribe);
}

#[test]
fn a_ringtribe_node_and_a_stock_node() {
    nine_steps(Line::V10_1, Ringtribe, Stock);
}

#[test]
fn a_stock_node_and_a_ringtribe_node() {
    nine_steps(Line::V10_1, Stock, Ringtribe);
}

#[test]
fn two_ringtribe_nodes_of_tomcat_9_0() {
    nine_steps(Line::V9_0, Ringtribe, Ringtribe);
}

#[test]
fn two_ringtribe_nodes_of_tomcat_11_0() {
    nine_steps(Line::V11_0, Ringtribe, Ringtribe);
}
