//! Limits of the operating system: descriptors, memory, socket buffers.

use std::process::Stdio;
use std::time::Duration;

use ringtribe_tests::faults::cluster::{Cluster, or_skip};
use ringtribe_tests::faults::pass;

use super::{SLACK, field, judge, load, program};

#[test]
fn a_node_out_of_descriptors_says_so_and_goes_on_when_it_has_some() {
    for backend in ["backend=io_uring", "backend=epoll"] {
        let settings = ["mcastDropTime=1000", "mcastFrequency=200", "ackTimeout=1500", backend];
        let Some(mut cluster) = or_skip(Cluster::make(3, program(), &settings)) else { return };
        cluster.revive(0, &[]).expect("it listens");
        cluster.revive(1, &["limit-nofile=80"]).expect("it listens");
        cluster.all_see_all().expect("both");
        load(&mut cluster);
        let hogged: u32 = cluster.ask(1, "hog").expect("all that are left").parse().expect("some");
        assert!((10..80).contains(&hogged), "{hogged}");
        // A newcomer that it cannot accept a connection of.
        cluster.revive(2, &[]).expect("it listens");
        cluster.await_change(2, "added", 0, 1).expect("the other is there");
        cluster.ask(2, "load keys=2 bytes=400 pause=5000").expect("it sends");
        cluster.ask(1, "log cannot be accepted ulimit").expect("said, with a remedy");
        pass(Duration::from_millis(2_500));
        cluster.ask(1, "unhog").expect("done");
        cluster.all_see_all().expect("it goes on");
        let before = cluster.ask_all("sent").expect("they send");
        pass(Duration::from_millis(2_000));
        for (before, after) in before.iter().zip(cluster.ask_all("sent").expect("they send")) {
            println!("{backend}: {before}; then: {after}");
            assert!(field(&after, "acked") > field(before, "acked"));
        }
        for (observer, other) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            assert_eq!(cluster.count(observer, "gone", other), Ok(0), "nobody was given up");
        }
        judge(&mut cluster);
    }
}

/// What becomes of a member that is started on host 0: what it says, and why not.
fn try_start(cluster: &Cluster, more: &[&str]) -> Result<String, String> {
    let mut command = cluster.command(0);
    command.arg("1").args(cluster.arguments(0)).args(more);
    // It ends at the end of its input at the latest.
    let output = command.stdin(Stdio::null()).output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() {
        return Ok(said);
    }
    assert!(said.is_empty(), "{more:?}: {said}{why}");
    assert_eq!(why.trim().lines().count(), 1, "{more:?}: {why}");
    Err(why)
}

#[test]
fn a_node_without_memory_for_all_its_rings_is_refused_whole_with_a_remedy() {
    let Some(cluster) = or_skip(Cluster::make(1, program(), &["tcpThreadCount=3"])) else {
        return;
    };
    // Rings count for a user without CAP_IPC_LOCK; from none at all to all of them.
    let user = format!("user={}", 50_000 + std::process::id() % 10_000);
    for backend in ["backend=auto", "backend=io_uring"] {
        let mut refused_count = 0;
        // Up to the first that runs: what a node had that ended counts for a while.
        let runs_kib = (0..=1_200).step_by(100).find(|limit_kib| {
            let limit = format!("limit-memlock={}", limit_kib << 10);
            match try_start(&cluster, &[&limit, &user, backend]) {
                Ok(said) => {
                    assert!(said.contains("backend=io_uring"), "{said}");
                    true
                }
                Err(why) => {
                    assert!(why.contains("ulimit -l"), "{why}");
                    assert!(why.contains("backend=\"epoll\""), "the other way out: {why}");
                    refused_count += 1;
                    false
                }
            }
        });
        let runs_kib = runs_kib.expect("at last it runs");
        println!("{backend}: {refused_count} refused, runs with {runs_kib} KiB");
        assert!(refused_count > 2, "rings half-way: {refused_count}");
    }
    let why = try_start(&cluster, &["limit-as=300000000"]).expect_err("no room for rings");
    assert!(why.contains("memory") && why.contains("backend=\"epoll\""), "{why}");
}

#[test]
fn a_ring_refused_after_one_was_given_leads_to_epoll_for_the_whole_node() {
    let Some(mut cluster) = or_skip(Cluster::make(2, program(), &[])) else { return };
    // The small one that tries is given.
    for host in [0, 1] {
        cluster.revive(host, &["rings-above=64"]).expect("it listens");
        let backend = cluster.member(host).backend.clone();
        assert!(backend.starts_with("epoll"), "{backend}");
        cluster.ask(host, "log this node runs on epoll kernel.io_uring_disabled").expect("said");
        let logs = cluster.ask(host, "logs").expect("logs");
        assert_eq!(logs.matches("runs on epoll").count(), 1, "{logs}");
    }
    load(&mut cluster);
    pass(Duration::from_millis(300));
    judge(&mut cluster);
    let why = try_start(&cluster, &["rings-above=64", "backend=io_uring"]).expect_err("refused");
    assert!(why.contains("kernel.io_uring_disabled") && why.contains("backend=\"epoll\""), "{why}");
}

#[test]
fn a_listener_that_hangs_behind_full_socket_buffers_holds_nobody_else_up() {
    let settings = ["mcastDropTime=1000", "mcastFrequency=200", "ackTimeout=1500"];
    let Some(mut cluster) = or_skip(Cluster::make(3, program(), &settings)) else { return };
    let c = 2;
    cluster.network.set_sysctl(c, "net.ipv4.tcp_rmem", "4096 8192 16384").expect("small");
    for host in [0, 1, c] {
        cluster.revive(host, &[]).expect("it listens");
    }
    cluster.all_see_all().expect("all see all");
    cluster.ask_all("load keys=4 bytes=300000 pause=1000").expect("they send");
    pass(Duration::from_millis(700));
    cluster.ask(c, "hold value=1").expect("it hangs");
    pass(Duration::from_millis(4_000));
    let hanging = cluster.ask_all("sent").expect("they send");
    cluster.ask(c, "hold value=0").expect("it goes on");
    cluster.all_see_all().expect("all see all");
    pass(Duration::from_millis(2_000));
    for (hanging, after) in hanging.iter().zip(cluster.ask_all("sent").expect("they send")) {
        println!("hanging: {hanging}; after: {after}");
        assert!(field(&after, "acked") > field(hanging, "acked"), "it goes on");
        assert!(field(&after, "longest") <= 1_500 + u64::try_from(SLACK.as_millis()).unwrap_or(0));
    }
    for (a, b) in [(0, 1), (1, 0)] {
        for kind in ["gone", "gap-here", "gap-there"] {
            assert_eq!(cluster.count(a, kind, b), Ok(0), "{kind}: they have no part in it");
        }
    }
    judge(&mut cluster);
}
