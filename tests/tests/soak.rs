//! A slice of the soak: what members hold comes back when others have come, were killed and left.

use std::time::{Duration, Instant};

use ringtribe_tests::build;
use ringtribe_tests::soak::cluster::{Cluster, PLACES_COUNT, Program, STAYING_COUNT, Setup};
use ringtribe_tests::soak::report::{BROKEN, ZERO_WHEN_QUIET};
use ringtribe_tests::soak::sample::Figures;
use ringtribe_tests::tomcat::free_mcast_port;

/// Longest wait for what was closed to be gone.
const WITHIN: Duration = Duration::from_secs(30);
/// Two members with two workers each: two streams and a reply lane, each way.
const CONNECTIONS: f64 = 6.0;
/// What is the same whenever the same members are there.
const SAME: &[&str] = &["descriptors", "threads"];

/// Looks at a quiet member until it holds nothing but its connections to the other one, `operations`
/// in the kernel, and what
/// `like` had, if that is given.
fn settled(
    cluster: &mut Cluster,
    place: usize,
    operations: f64,
    like: Option<&Figures>,
) -> Figures {
    let until = Instant::now() + WITHIN;
    loop {
        let figures = cluster.sample(place, "quiet").expect("it lives").figures;
        let mut wrong: Vec<(&str, f64, f64)> = Vec::new();
        let mut wanted = |name: &'static str, value: f64| {
            let found = *figures.get(name).unwrap_or_else(|| panic!("a figure {name}"));
            if found != value {
                wrong.push((name, found, value));
            }
        };
        ZERO_WHEN_QUIET.iter().for_each(|name| wanted(name, 0.0));
        wanted("buffers_used_bytes", 0.0);
        wanted("open_connections_count", CONNECTIONS);
        wanted("known_connections_count", CONNECTIONS);
        wanted("operations_in_flight_count", operations);
        wanted("directory_members_count", 1.0);
        // Each of the two workers has the other member.
        wanted("linked_members_count", 2.0);
        for name in SAME {
            like.into_iter().for_each(|like| wanted(name, like[*name]));
        }
        if wrong.is_empty() {
            return figures;
        }
        assert!(Instant::now() < until, "member {place}: found, and wanted: {wrong:?}");
        // Nobody tells another process that a descriptor was closed.
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Members come, one is killed under load, one comes back in its place and leaves in order.
fn come_and_go(cluster: &mut Cluster) -> Result<(), String> {
    for place in STAYING_COUNT..PLACES_COUNT {
        cluster.join(place)?;
    }
    cluster.await_view()?;
    for place in cluster.members() {
        cluster.ask(place, "received more=100")?;
    }
    cluster.kill(STAYING_COUNT)?;
    cluster.join(STAYING_COUNT)?;
    cluster.await_view()?;
    cluster.kill(STAYING_COUNT)?;
    for place in STAYING_COUNT + 1..PLACES_COUNT {
        cluster.leave(place)?;
    }
    cluster.await_view()
}

fn slice(backend: &'static str, operations: f64) {
    let directory = build::run_directory().join("soak-slice");
    std::fs::create_dir_all(&directory).expect("a directory");
    let setup = Setup {
        name: backend.into(),
        program: Program::Native { executable: env!("CARGO_BIN_EXE_soak").into(), backend },
        mcast_port: free_mcast_port(),
        rate: 200,
        directory,
    };
    let mut cluster = Cluster::new(setup);
    for place in 0..STAYING_COUNT {
        cluster.join(place).expect("it starts");
    }
    let mut first: [Option<Figures>; STAYING_COUNT] = Default::default();
    for _ in 0..3 {
        come_and_go(&mut cluster).expect("all in time");
        for place in 0..STAYING_COUNT {
            cluster.ask(place, "pause").expect("what was sent ends");
        }
        for (place, first) in first.iter_mut().enumerate() {
            let figures = settled(&mut cluster, place, operations, first.as_ref());
            for name in BROKEN {
                assert_eq!(figures[*name], 0.0, "{name} at member {place}");
            }
            assert!(figures["app_checked"] > 0.0 && figures["app_acknowledged"] > 0.0);
            first.get_or_insert(figures);
        }
        for place in 0..STAYING_COUNT {
            cluster.ask(place, "resume").expect("it lives");
        }
    }
    for place in 0..STAYING_COUNT {
        cluster.leave(place).expect("in order");
    }
}

#[test]
fn what_members_hold_on_the_ring_comes_back() {
    // A receive waits on each.
    slice("io_uring", CONNECTIONS);
}

#[test]
fn what_members_hold_on_epoll_comes_back() {
    slice("epoll", 0.0);
}
