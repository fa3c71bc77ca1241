//! Porcupine judges histories, and is judged itself: by planted bugs, and by histories written by hand.

use std::path::Path;
use std::process::Command;

use ringtribe::shared::Planted;
use ringtribe_tests::history::Told;
use ringtribe_tests::judge::{Judge, Verdicts};
use ringtribe_tests::sim::{Faults, Plan, record};
use ringtribe_tests::{build, storm};

const SIMULATED_COUNT: u64 = 100;
const REAL_COUNT: u64 = 5;

fn judge() -> Option<Judge> {
    Judge::build().expect("the judge is built")
}

fn simulated(judge: &Judge, seeds: std::ops::Range<u64>, planted: Option<Planted>) -> Verdicts {
    let verdicts = judge.judge(|write| {
        for seed in seeds {
            let mut plan = Plan { planted, ..Plan::of(seed) };
            if planted.is_some() {
                // These bugs are in the Tribes format, most where connections are lost.
                plan.faults = Faults {
                    lose_connection: 60,
                    short_io: 200,
                    fail_listener: 50,
                    ..Faults::NONE
                };
                (plan.scene.formats, plan.scene.members) = (1, 3);
            }
            let (_, history) = record(&plan);
            write(&history.lines())?;
        }
        Ok(())
    });
    let verdicts = verdicts.expect("it judges");
    println!("{planted:?}: {}", verdicts.summary);
    verdicts
}

#[test]
fn simulated_histories_are_good() {
    let Some(judge) = judge() else { return };
    let verdicts = simulated(&judge, 0..SIMULATED_COUNT, None);
    assert_eq!(verdicts.bad, [""; 0]);
    assert_eq!(verdicts.judged_count, SIMULATED_COUNT);
}

/// A history with a planted bug that is bad, and where porcupine could not go on.
fn is_found(judge: &Judge, bug: Planted, within_seeds_count: u64, step: &str) {
    for first in (0..within_seeds_count).step_by(5) {
        let verdicts = simulated(judge, first..within_seeds_count.min(first + 5), Some(bug));
        if let Some(bad) = verdicts.bad.first() {
            assert!(verdicts.bad.iter().any(|bad| bad.contains(step)), "{bug:?}: {verdicts:?}");
            println!("{bug:?}: {bad}");
            return;
        }
    }
    panic!("{bug:?} was not found in {within_seeds_count} histories");
}

#[test]
fn planted_bugs_make_bad_histories() {
    let Some(judge) = judge() else { return };
    is_found(&judge, Planted::AckBeforeApply, 5, "(applied): ok");
    is_found(&judge, Planted::ForgottenResend, 5, "(applied): ok");
    is_found(&judge, Planted::DuplicateDelivered, 5, "takes");
    is_found(&judge, Planted::AnyLane, 5, "takes");
    is_found(&judge, Planted::ReversedOnReconnect, 20, "takes");
}

#[test]
fn histories_of_real_processes_are_good() {
    let Some(judge) = judge() else { return };
    let directory = build::run_directory().join("judge").join("tests");
    let mut kills_count = 0;
    let verdicts = judge.judge(|write| {
        for seed in 0..REAL_COUNT {
            let played = storm::play(seed, Path::new(env!("CARGO_BIN_EXE_judge")), &directory)?;
            assert_eq!(played.trouble, None, "real-{seed}");
            let history = &played.history;
            let applied_count = history.told_count("applied", Told::Ok);
            println!(
                "real-{seed}: {} deliveries, {applied_count} acknowledged as applied, {} SIGKILLs, {} \
                 SIGSTOPs, {} cuts",
                history.takes_count(),
                history.kills_count(),
                played.stops_count,
                played.cuts_count
            );
            // The history contains what it is about.
            assert!(applied_count > 50 && history.takes_count() > 100, "real-{seed}");
            kills_count += history.kills_count();
            write(&history.lines())?;
        }
        Ok(())
    });
    let verdicts = verdicts.expect("it judges");
    println!("{}", verdicts.summary);
    assert_eq!(verdicts.bad, [""; 0]);
    assert_eq!(verdicts.judged_count, REAL_COUNT);
    assert!(kills_count > 0, "somebody is killed");
}

#[test]
fn histories_written_by_hand_are_judged_right() {
    // Builds it, or says why there is nothing to test.
    if judge().is_none() {
        return;
    }
    let directory = build::root().join("tests").join("judge");
    for arguments in [&["vet", "."][..], &["test", "-count=1", "."]] {
        let output = Command::new("go").args(arguments).current_dir(&directory).output();
        let output = output.expect("go starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "go {arguments:?}: {text}{errors}");
    }
    let output = Command::new("gofmt").arg("-l").arg(&directory).output();
    let output = output.expect("gofmt comes with go");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "gofmt would change these");
}
