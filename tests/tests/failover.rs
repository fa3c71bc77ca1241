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
