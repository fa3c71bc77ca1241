//! A million asynchronous updates of the same sessions from 8 threads, through Tomcat's
//! SimpleTcpCluster: none overtakes another between entry to the channel and the other node.

use ringtribe_tests::build::Flavour::{self, Ringtribe, Stock};
use ringtribe_tests::peer::{Peer, number};
use ringtribe_tests::tomcat::free_mcast_port;

const UPDATES_COUNT: u64 = 1_000_000;

fn count_inversions(flavour: Flavour) -> (u64, u64, String) {
    let mcast_port = free_mcast_port();
    let mut receiver =
        Peer::start("ClusterPeer", "receiver", flavour, mcast_port, &[]).expect("a receiver");
    let mut sender =
        Peer::start("ClusterPeer", "sender", flavour, mcast_port, &[]).expect("a sender");
    assert_eq!(sender.ask("members").expect("an answer"), "members=1");
    assert_eq!(receiver.ask("members").expect("an answer"), "members=1");
    let sent = sender.ask(&format!("update count={UPDATES_COUNT} threads=8")).expect("an answer");
    assert_eq!(number(&sent, "sent").expect("a number"), UPDATES_COUNT);
    let got = receiver.ask(&format!("received count={UPDATES_COUNT}")).expect("an answer");
    let received_count = number(&got, "received").expect("a number");
    (received_count, number(&got, "inversions").expect("a number"), sent)
}

#[test]
fn a_million_updates_keep_the_order_of_each_session() {
    let (received_count, inversions_count, sent) = count_inversions(Ringtribe);
    println!("Ringtribe: {sent}; received {received_count}, inversions {inversions_count}");
    assert_eq!(received_count, UPDATES_COUNT);
    assert_eq!(inversions_count, 0);
    // Beside it, what stock does with the same load: the measure can see inversions.
    let (received_count, inversions_count, sent) = count_inversions(Stock);
    println!("stock:     {sent}; received {received_count}, inversions {inversions_count}");
    assert!(inversions_count > 0, "the measure sees the inversions of stock Tribes");
}
