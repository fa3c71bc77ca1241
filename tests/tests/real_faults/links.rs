//! Links that are cut, stall in one or both directions, or are slow.

use std::time::Duration;

use ringtribe_tests::faults::cluster::Cluster;
use ringtribe_tests::faults::pass;
use ringtribe_tests::netns::{Loss, Network, Way};
use ringtribe_tests::process::monotonic_micros;

use super::{DROP_MS, SLACK, cluster, judge, load};

/// The one whose link suffers.
const C: usize = 2;

/// All give C up in time; after `heal` all see all again, and both sides of each pair were told of one
/// gap in each direction at most, and of one at least that the other was told of as well.
fn is_cut_and_heals(fault: impl FnOnce(&Network), heal: impl FnOnce(&Network)) {
    let Some(mut cluster) = cluster(3, &[]) else { return };
    load(&mut cluster);
    pass(Duration::from_millis(700));
    let cut = monotonic_micros();
    fault(&cluster.network);
    for (observer, gone) in [(0, C), (1, C), (C, 0), (C, 1)] {
        let seen = cluster.await_change(observer, "gone", gone, 1).expect("it is given up");
        let took = Duration::from_micros(seen.saturating_sub(cut));
        println!("host {observer} gave host {gone} up after {took:?}");
        assert!(took <= Duration::from_millis(DROP_MS + 1_000) + SLACK, "{took:?}");
    }
    pass(Duration::from_millis(500));
    let healed = monotonic_micros();
    heal(&cluster.network);
    for (observer, added) in [(0, C), (1, C), (C, 0), (C, 1)] {
        let seen = cluster.await_change(observer, "added", added, 2).expect("it comes back");
        let took = Duration::from_micros(seen.saturating_sub(healed));
        println!("host {observer} saw host {added} again after {took:?}");
    }
    cluster.all_see_all().expect("all see all");
    pass(Duration::from_millis(500));
    has_one_gap_a_side(&mut cluster);
    // Nobody was given up but across the cut.
    for (observer, other) in [(0, 1), (1, 0)] {
        assert_eq!(cluster.count(observer, "gone", other).expect("a number"), 0);
    }
    let totals = judge(&mut cluster);
    let failed = |totals: &String| super::field(totals, "failed") > 0;
    assert!(totals.iter().all(failed), "what was on the way failed by name: {totals:?}");
}

fn has_one_gap_a_side(cluster: &mut Cluster) {
    for (a, b) in [(0, C), (1, C)] {
        for (from, to) in [(a, b), (b, a)] {
            let here = cluster.count(to, "gap-here", from).expect("a number");
            let there = cluster.count(from, "gap-there", to).expect("a number");
            assert_eq!((here, there), (1, 1), "messages of host {from} that host {to} missed");
        }
    }
}

#[test]
fn a_link_that_is_cut_and_heals() {
    is_cut_and_heals(
        |network| network.set_link(C, false).expect("down"),
        |network| network.set_link(C, true).expect("up"),
    );
}

#[test]
fn a_link_that_stalls_with_nobody_told_and_goes_on() {
    is_cut_and_heals(
        |network| {
            network.lose(C, Way::From, Loss::All).expect("dropped");
            network.lose(C, Way::To, Loss::All).expect("dropped");
        },
        |network| {
            network.lose_nothing(C, Way::From).expect("healed");
            network.lose_nothing(C, Way::To).expect("healed");
        },
    );
}

#[test]
fn a_link_that_carries_one_way_only_and_heals() {
    let Some(mut cluster) = cluster(3, &[]) else { return };
    load(&mut cluster);
    pass(Duration::from_millis(700));
    // C is heard but hears nothing.
    cluster.network.lose(C, Way::To, Loss::All).expect("dropped");
    for other in [0, 1] {
        cluster.await_change(C, "gone", other, 1).expect("silent for C");
    }
    // Longer than ackTimeout: what was on the way has failed.
    pass(Duration::from_millis(3_500));
    cluster.network.lose_nothing(C, Way::To).expect("healed");
    for other in [0, 1] {
        cluster.await_change(C, "added", other, 2).expect("it comes back");
        // C gave it up, so what C sent to others meanwhile is missing there, and both are told.
        assert_eq!(cluster.await_change(C, "gap-there", other, 1).map(drop), Ok(()));
        assert_eq!(cluster.await_change(other, "gap-here", C, 1).map(drop), Ok(()));
        // They heard C all the time; that C does not hear them is said.
        assert_eq!(cluster.count(other, "gone", C), Ok(0), "C was heard");
        cluster.ask(other, "log does not see the same members").expect("said");
    }
    cluster.all_see_all().expect("all see all");
    pass(Duration::from_millis(1_000));
    let totals = judge(&mut cluster);
    let failed = |totals: &String| super::field(totals, "failed") > 0;
    assert!(totals.iter().all(failed), "what was on the way failed by name: {totals:?}");
}

#[test]
fn a_slow_link_with_a_long_queue_costs_nobody_his_membership() {
    let Some(mut cluster) = cluster(3, &[]) else { return };
    load(&mut cluster);
    pass(Duration::from_millis(700));
    let before = cluster.ask_all("sent").expect("they send");
    // A quarter of a second when its queue is full.
    cluster.network.set_slow(C, Some((500, 16_000))).expect("slow");
    pass(Duration::from_millis(4 * DROP_MS));
    cluster.network.set_slow(C, None).expect("healed");
    for (before, after) in before.iter().zip(cluster.ask_all("sent").expect("they send")) {
        println!("before: {before}; after: {after}");
        assert!(super::field(&after, "acked") > super::field(before, "acked"));
    }
    for (observer, other) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        assert_eq!(cluster.count(observer, "gone", other).expect("a number"), 0);
    }
    for totals in judge(&mut cluster) {
        assert_eq!(super::field(&totals, "failed"), 0, "slow, no more");
    }
}
