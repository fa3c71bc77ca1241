//! The main job holds, and does not hold when the replication is taken away.

use std::process::Command;

fn failover(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_failover"))
        .args(arguments)
        .output()
        .expect("the main job runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn no_session_is_lost_and_that_is_because_of_the_replication() {
    let (held, text) = failover(&[]);
    assert!(held, "{text}");
    assert_eq!(text.matches('✓').count(), 3, "{text}");
    for taken_away in ["--without-cluster", "--drop-replication"] {
        let (held, text) = failover(&[taken_away]);
        assert!(!held, "{taken_away}: {text}");
        assert!(text.contains("only 0 of 100 sessions"), "{taken_away}: {text}");
    }
}

#[test]
fn it_holds_where_io_uring_is_refused_and_each_node_says_why_in_a_line() {
    let (held, text) = failover(&["--refuse-io-uring"]);
    assert!(held, "{text}");
    assert_eq!(text.matches('✓').count(), 3, "{text}");
    // Three starts of two nodes.
    for node in ["tomcat-a", "tomcat-b"] {
        let starts_count = if node == "tomcat-a" { 2 } else { 1 };
        let backend = format!("· {node}: engine open, backend=epoll");
        assert_eq!(text.matches(&backend).count(), starts_count, "{text}");
        let start = format!("· {node}: this node runs on epoll: ");
        let whys: Vec<&str> = text.lines().filter(|line| line.contains(&start)).collect();
        assert_eq!(whys.len(), starts_count, "{text}");
        for why in whys {
            assert!(why.contains("Operation not permitted"), "{why}");
        }
    }
}
