//! Mixed load for an hour, with joins, leaves and kills; what the members that live through it hold
//! must not grow.
//!
//! `soak [--minutes N] [--backend ring|epoll|both] [--java] [--rate N] [--json]
//! [--directory PATH]`: members on loopback,
//! each a process (with `--java` a JVM); says what was found every ten minutes and at the end, and
//! leaves its samples in `target/run/soak` or that directory. `--class-path` names Java programs that were built before.
//! `soak member ID RATE NAME=VALUE ...` is a member.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ringtribe_tests::build;
use ringtribe_tests::soak::application::Application;
use ringtribe_tests::soak::cluster::{Cluster, Program, Setup};
use ringtribe_tests::soak::course::{Pace, run};
use ringtribe_tests::soak::report::{Verdict, judge};
use ringtribe_tests::tomcat::free_mcast_port;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages that a member sends a second.
const RATE: u32 = 40;
/// The same of a JVM, which starts slowly and needs more for each.
const JAVA_RATE: u32 = 20;
/// How often a run says how it stands.
const SAID_EVERY_S: f64 = 600.0;

fn member(arguments: &[String]) -> Result<(), String> {
    let [id, rate, settings @ ..] = arguments else { return Err("give an id and a rate".into()) };
    let id = id.parse().map_err(|error| format!("{id}: {error}"))?;
    let rate = rate.parse().map_err(|error| format!("{rate}: {error}"))?;
    let settings: Option<Vec<(&str, &str)>> =
        settings.iter().map(|setting| setting.split_once('=')).collect();
    let (application, port) =
        Application::start(id, rate, &settings.ok_or("settings are NAME=VALUE")?)?;
    println!("> started port={port}");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let done = match line.split_once('=') {
            Some(("members count", count)) => count
                .parse()
                .map_err(|error| format!("{count}: {error}"))
                .and_then(|count| application.await_members(count)),
            Some(("received more", count)) => count
                .parse()
                .map_err(|error| format!("{count}: {error}"))
                .and_then(|count| application.await_received(count)),
            _ => match line.as_str() {
                "stats" => {
                    println!("> {}", application.figures());
                    continue;
                }
                "pause" => application.pause(),
                "resume" => {
                    application.resume();
                    Ok(())
                }
                "leave" => {
                    application.leave();
                    println!("> left");
                    return Ok(());
                }
                _ => Err(format!("no such command: {line}")),
            },
        };
        match done {
            Ok(()) => println!("> done"),
            Err(text) => println!("> error {}", text.replace('\n', " ")),
        }
    }
    Ok(())
}

fn text<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str())
}

fn number<T: std::str::FromStr>(
    arguments: &[String],
    name: &str,
    otherwise: T,
) -> Result<T, String> {
    text(arguments, name).map_or(Ok(otherwise), |text| {
        text.parse().map_err(|_| format!("{name} {text}: give a number"))
    })
}

fn soak(name: String, program: Program, minutes: f64, rate: u32, directory: PathBuf) -> Verdict {
    let pace = match program {
        Program::Native { .. } => Pace {
            full: Duration::from_secs(8),
            after: Duration::from_secs(4),
            sample: Duration::from_secs(5),
        },
        Program::Java { .. } => Pace {
            full: Duration::from_secs(15),
            after: Duration::from_secs(8),
            sample: Duration::from_secs(7),
        },
    };
    let setup =
        Setup { name: name.clone(), program, mcast_port: free_mcast_port(), rate, directory };
    let mut cluster = Cluster::new(setup);
    let mut said_s = 0.0;
    let record =
        run(&mut cluster, pace, Duration::from_secs_f64(minutes * 60.0), |cluster, record| {
            if cluster.at_s() - said_s >= SAID_EVERY_S {
                said_s = cluster.at_s();
                let verdict = judge(&name, record, cluster.events);
                eprintln!("so far:\n{}complaints: {:#?}", verdict.text, verdict.complaints);
            }
        });
    match record {
        Ok(record) => judge(&name, &record, cluster.events),
        Err(text) => Verdict { complaints: vec![format!("{name}: {text}")], ..Verdict::default() },
    }
}

fn orchestrate(arguments: &[String]) -> Result<bool, String> {
    let minutes: f64 = number(arguments, "--minutes", 60.0)?;
    let otherwise = || build::run_directory().join("soak");
    let directory = text(arguments, "--directory").map_or_else(otherwise, PathBuf::from);
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let programs: Vec<(String, Program)> = if arguments.iter().any(|word| word == "--java") {
        let class_path = match text(arguments, "--class-path") {
            Some(given) => given.to_owned(),
            None => {
                build::everything()?;
                build::class_path(build::Line::V10_1)
            }
        };
        vec![("java".into(), Program::Java { class_path })]
    } else {
        let backends: &[&'static str] = match text(arguments, "--backend").unwrap_or("both") {
            "ring" => &["io_uring"],
            "epoll" => &["epoll"],
            "both" => &["io_uring", "epoll"],
            other => return Err(format!("--backend {other}: give ring, epoll or both")),
        };
        let executable = std::env::current_exe().map_err(|error| error.to_string())?;
        let program =
            |backend: &'static str| Program::Native { executable: executable.clone(), backend };
        backends.iter().map(|backend| ((*backend).to_owned(), program(backend))).collect()
    };
    let otherwise = if programs.iter().any(|(name, _)| name == "java") { JAVA_RATE } else { RATE };
    let rate = number(arguments, "--rate", otherwise)?;
    let runs: Vec<_> = programs
        .into_iter()
        .map(|(name, program)| {
            let directory = directory.clone();
            std::thread::spawn(move || soak(name, program, minutes, rate, directory))
        })
        .collect();
    let mut all = Verdict::default();
    for run in runs {
        let verdict = run.join().map_err(|_| "a run panicked")?;
        all.text += &verdict.text;
        all.figures.extend(verdict.figures);
        all.complaints.extend(verdict.complaints);
    }
    if arguments.iter().any(|word| word == "--json") {
        println!("{}", all.json());
    } else {
        print!("{}", all.text);
        all.complaints.iter().for_each(|text| println!("NOT GOOD: {text}"));
        println!("samples: {}", directory.display());
    }
    Ok(all.complaints.is_empty())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((word, rest)) if word == "member" => member(rest).map(|()| true),
        _ => orchestrate(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
