//! The main job: two real Tomcats share their sessions through the engine, one is killed, and
//! nothing that a client was answered is lost.
//!
//! `--transport stock` runs it on stock Tribes. `--without-cluster` and `--drop-replication` take
//! the replication away; then it must fail, which shows that it can. `--refuse-io-uring` runs it where
//! io_uring is refused, as in a container.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use ringtribe_tests::build::{self, Flavour};
use ringtribe_tests::http::Browser;
use ringtribe_tests::refuse::refuse;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port};

const SESSIONS_COUNT: usize = 100;
const UPDATES_COUNT: usize = 3;

struct Stage {
    colour: bool,
    started: Instant,
}

impl Stage {
    fn say(&self, mark: &str, colour: &str, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.colour {
            println!("\x1b[2m{seconds:6.1} s\x1b[0m  \x1b[{colour}m{mark}\x1b[0m {text}");
        } else {
            println!("{seconds:6.1} s  {mark} {text}");
        }
    }

    fn step(&self, text: &str) {
        self.say("·", "36", text);
    }

    fn holds(&self, text: &str) {
        self.say("✓", "32", text);
    }
}

struct Visitor {
    browser: Browser,
    answered: String,
}

fn set(node: &Tomcat, visitor: &mut Visitor, value: &str) -> Result<(), String> {
    let answer = node.ask(&mut visitor.browser, &format!("/set?k=basket&v={value}"))?;
    if answer.status != 200 || answer.body != value {
        return Err(format!("a request to change a session was answered {answer:?}"));
    }
    // From here on the client may rely on it.
    visitor.answered = value.to_owned();
    Ok(())
}

/// Counts the visitors whose last answered value the node has.
fn count_right(node: &Tomcat, visitors: &mut [Visitor]) -> Result<usize, String> {
    let mut right_count = 0;
    for visitor in visitors {
        let answer = node.ask(&mut visitor.browser, "/get?k=basket")?;
        right_count += usize::from(answer.status == 200 && answer.body == visitor.answered);
    }
    Ok(right_count)
}

fn expect_all(node: &Tomcat, visitors: &mut [Visitor], what: &str) -> Result<(), String> {
    let right_count = count_right(node, visitors)?;
    if right_count == visitors.len() {
        return Ok(());
    }
    Err(format!(
        "{what}: only {right_count} of {} sessions have the value that was last answered 200",
        visitors.len()
    ))
}

fn run(stage: &Stage, arguments: &[String]) -> Result<(), String> {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let stock = arguments.windows(2).any(|pair| pair[0] == "--transport" && pair[1] == "stock");
    let flavour = if stock { Flavour::Stock } else { Flavour::Ringtribe };
    stage.step("building the engine, the jar and the application");
    build::everything()?;
    if has("--refuse-io-uring") {
        // What is started from here on inherits it.
        refuse("eperm", "io_uring_setup")?;
    }

    let mcast_port = free_mcast_port();
    let setup = |name: &str| Setup {
        clustered: !has("--without-cluster"),
        drop_replication: has("--drop-replication"),
        ..Setup::new(name, flavour, mcast_port)
    };
    let start = |name: &str| {
        let tomcat = Tomcat::start(&setup(name))?;
        stage.step(&format!("{name} answers at {}, pid {}", tomcat.address(), tomcat.pid()));
        // The engine says it when it opens, and why it is not the first choice.
        for part in ["engine open, backend=", "this node runs on epoll: "] {
            if let Some(line) = tomcat.log_from(part) {
                let line = line.split_once(", configured").map_or(&*line, |(backend, _)| backend);
                stage.step(&format!("{name}: {line}"));
            }
        }
        Ok::<_, String>(tomcat)
    };
    let first = start("tomcat-a")?;
    let second = start("tomcat-b")?;
    if first.pid() == second.pid() {
        return Err("both Tomcats have one pid".into());
    }

    let mut visitors: Vec<Visitor> = (0..SESSIONS_COUNT)
        .map(|_| Visitor { browser: Browser::default(), answered: String::new() })
        .collect();
    let clock = Instant::now();
    for update in 0..UPDATES_COUNT {
        for (number, visitor) in visitors.iter_mut().enumerate() {
            set(&first, visitor, &format!("v{update}-{number}"))?;
        }
    }
    let requests_count = SESSIONS_COUNT * UPDATES_COUNT;
    stage.step(&format!(
        "{SESSIONS_COUNT} sessions made and changed on tomcat-a by {requests_count} requests, {:.1} ms each",
        clock.elapsed().as_secs_f64() * 1000.0 / requests_count as f64
    ));

    let pid = first.pid();
    first.kill()?;
    stage.step(&format!("tomcat-a killed: SIGKILL to pid {pid}"));
    expect_all(&second, &mut visitors, "after the kill, on tomcat-b")?;
    stage.holds(&format!(
        "tomcat-b has all {SESSIONS_COUNT} sessions, each with the last value that was answered 200"
    ));

    for (number, visitor) in visitors.iter_mut().enumerate() {
        set(&second, visitor, &format!("after-{number}"))?;
    }
    stage.step("every session changed once more, on tomcat-b alone");

    stage.step("tomcat-a started again");
    let again = start("tomcat-a")?;
    if again.pid() == pid {
        return Err("the new tomcat-a has the pid of the dead one".into());
    }
    // The first requests it is ever asked: it opened HTTP with the state or without it.
    expect_all(&again, &mut visitors, "the first answers of the tomcat-a that came back")?;
    stage.holds("its first answers have every session: it had the state before it opened HTTP");

    second.kill()?;
    expect_all(&again, &mut visitors, "after the second kill, on tomcat-a")?;
    stage.holds("tomcat-b killed too: tomcat-a alone still has every session");
    again.stop()?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let stage = Stage { colour: std::io::stdout().is_terminal(), started: Instant::now() };
    match run(&stage, &arguments) {
        Ok(()) => {
            println!("\nIt held: two Tomcats, two kills, no session lost.");
            ExitCode::SUCCESS
        }
        Err(text) => {
            stage.say("✗", "31", &text);
            println!("\nIt did not hold.");
            ExitCode::FAILURE
        }
    }
}
