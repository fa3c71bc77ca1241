//! The story of `nine_steps` with three nodes, for each line of Tomcat, each replicationMode, and both
//! managers. A test plays one cell of them; all: `RINGTRIBE_MATRIX=all`; some: words that their names
//! have, as `RINGTRIBE_MATRIX="V11_0 pooled"`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use ringtribe_tests::build::Flavour::Ringtribe;
use ringtribe_tests::build::Line;
use ringtribe_tests::story::{Cast, play};
use ringtribe_tests::tomcat::{Setup, free_mcast_port, one_element};

const LINES: [Line; 3] = [Line::V9_0, Line::V10_1, Line::V11_0];
/// The modes, and whether a request waits for the other nodes there.
const MODES: [(&str, bool); 4] =
    [("pooled", true), ("synchronous", true), ("asynchronous", false), ("fastasyncqueue", false)];
const MANAGERS: [&str; 2] =
    ["org.ringtribe.tomcat.RingtribeDeltaManager", "org.apache.catalina.ha.session.BackupManager"];

/// Without JvmRouteBinderValve, which would change the id of a session whenever another node is asked.
const VALVE: &str = "<Valve className=\"org.ringtribe.tomcat.RingtribeReplicationValve\"/>";

fn cell(line: Line, (mode, waits): (&str, bool), manager: &str) {
    let mcast_port = free_mcast_port();
    let words = format!("replicationMode=\"{mode}\" managerClassName=\"{manager}\"");
    let setup = |name: &str| Setup {
        line,
        cluster: Some(one_element(&words, VALVE)),
        ..Setup::new(name, Ringtribe, mcast_port)
    };
    play(&Cast {
        a: setup("node-a"),
        b: setup("node-b"),
        c: Some(setup("node-c")),
        waits,
        one_copy: manager == MANAGERS[1],
    });
}

#[test]
fn three_nodes_live_the_story_in_each_mode_with_each_manager() {
    let words = std::env::var("RINGTRIBE_MATRIX")
        .unwrap_or_else(|_| "V10_1 fastasyncqueue BackupManager".into());
    let (mut played_count, mut failed_count) = (0, 0);
    for (line, mode, manager) in LINES
        .iter()
        .flat_map(|line| MODES.iter().map(move |mode| (line, mode)))
        .flat_map(|(line, mode)| MANAGERS.iter().map(move |manager| (line, mode, manager)))
    {
        let name = format!("all {line:?} {} {manager}", mode.0);
        if words.split_whitespace().all(|word| name.contains(word)) {
            let begun = Instant::now();
            // The others are played all the same.
            let played = catch_unwind(AssertUnwindSafe(|| cell(*line, *mode, manager)));
            played_count += 1;
            failed_count += usize::from(played.is_err());
            println!(
                "cell | {} | {} | {} | {} | {} s",
                line.word(),
                manager.rsplit('.').next().unwrap_or(manager),
                mode.0,
                if played.is_ok() { "ok" } else { "FAILED" },
                begun.elapsed().as_secs()
            );
        }
    }
    println!("{played_count} of 24 cells; others: RINGTRIBE_MATRIX=all, or words of their names");
    assert!(played_count > 0, "RINGTRIBE_MATRIX={words} names no cell");
    assert_eq!(failed_count, 0, "cells that failed; what each said stands before its line");
}
