//! The program `ringtribe`, run as a user runs it: its output is read line by line.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::delivery::PollerClass;
use ringtribe::event::Event;
use ringtribe::ids::MemberId;
use ringtribe::node::Node;
use ringtribe::protocol::membership::LocalMember;
use ringtribe::submit::Envelope;
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(30);
const APPLIED: i32 = 6;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtribe"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The one object that a command prints.
fn object(output: &Output) -> Value {
    let out = text(&output.stdout);
    assert_eq!(out.lines().count(), 1, "{out}{}", text(&output.stderr));
    serde_json::from_str(out).expect("JSON")
}

/// A program that runs on, with its lines.
struct Running {
    child: Child,
    lines: Receiver<Value>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = program(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (line_in, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("an object a line");
                if line_in.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line with this event; others are passed over.
    fn next(&self, event: &str) -> Value {
        let until = Instant::now() + WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {event} line"));
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Sends SIGTERM and returns the exit status.
    fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(killed.success());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

/// The settings of a cluster on this machine, as arguments.
fn loopback(mcast_port: u16, drop_time_ms: u32) -> Vec<String> {
    let mut arguments = Vec::new();
    for pair in [
        "mcastAddr=228.0.0.9".to_owned(),
        format!("mcastPort={mcast_port}"),
        "mcastBindAddr=127.0.0.1".to_owned(),
        "mcastFrequency=100".to_owned(),
        format!("mcastDropTime={drop_time_ms}"),
        "tcpListenAddress=127.0.0.1".to_owned(),
        "tcpListenPort=20000".to_owned(),
        "autoBind=900".to_owned(),
        "tcpThreadCount=2".to_owned(),
    ] {
        arguments.extend(["--set".to_owned(), pair]);
    }
    arguments
}

fn start_node(settings: &[String]) -> Running {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Running::start(&[&["node", "--json"], settings.as_slice()].concat())
}

#[test]
fn the_demo_holds_and_says_so_in_figures() {
    let output = run(&["demo", "--json", "--messages", "300", "--size", "200"]);
    let report = object(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!(report["held"], true);
    let pids: std::collections::BTreeSet<u64> = report["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| member["pid"].as_u64().expect("a process"))
        .collect();
    assert_eq!(pids.len(), 3, "each a process of its own");
    assert!(pids.contains(&report["killed"]["pid"].as_u64().expect("one of them")));
    let noticed = report["killed"]["noticed"].as_array().expect("who noticed");
    assert_eq!(noticed.len(), 2);
    assert!(report["killed"]["own_acknowledged_count"].as_u64() >= Some(20));
    let measured = report["measurements"].as_array().expect("measurements");
    let counts: Vec<u64> =
        measured.iter().map(|one| one["messages_count"].as_u64().expect("a count")).collect();
    assert_eq!(counts, [300, 300, 3_000]);
    for one in measured {
        let rate = one["messages_per_second"].as_u64().expect("a rate");
        assert!(rate > 100, "{one}");
        if one["mode"] == "applied" {
            let (p50, p99) = (one["p50_us"].as_u64(), one["p99_us"].as_u64());
            assert!(Some(1) <= p50 && p50 <= p99, "{one}");
            let at_most = one["callers_count"].as_u64().expect("a count") * 1_000_000;
            assert!(rate * p50.expect("some") < 4 * at_most, "rate and latency agree: {one}");
        }
    }
    let verified = report["verified"].as_array().expect("the living");
    assert_eq!(verified.len(), 2);
    for one in verified {
        // Its own keys, and at member 2 those of member 1, which all the measurements wrote.
        let keys = one["keys_count"].as_u64().expect("a count");
        assert!(keys >= if one["member"] == 2 { 276 } else { 40 }, "{one}");
        for count in ["missing_count", "older_count", "damaged_count", "out_of_order_count"] {
            assert_eq!(one[count], 0, "{one}");
        }
    }
}

#[test]
fn a_demo_that_drops_what_it_acknowledges_fails() {
    let arguments = ["demo", "--json", "--messages", "300", "--members", "2"];
    let whole = run(&arguments);
    assert_eq!((whole.status.code(), &object(&whole)["held"]), (Some(0), &true.into()));
    let dropping = run(&[&arguments[..], &["--drop-replication"]].concat());
    assert_eq!((dropping.status.code(), &object(&dropping)["held"]), (Some(1), &false.into()));

    let output = run(&["demo", "--messages", "300", "--drop-replication"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    let line = |start: &str| out.lines().find(|line| line.trim_start().starts_with(start));
    assert!(line("NOT HELD: what was acknowledged").is_some(), "{out}");
    assert!(line("member 2   has ").is_some_and(|line| line.contains(" missing")), "{out}");
    assert!(line("member 1   has ").is_some_and(|line| !line.contains(" missing")), "{out}");
}

#[test]
fn nodes_see_each_other_come_and_go() {
    let settings = loopback(free_port(), 600);
    let mut first = start_node(&settings);
    let told = first.next("settings");
    assert_eq!(told["settings"]["mcastDropTime"]["value"], "600");
    assert_eq!(told["settings"]["mcastDropTime"]["from"], "--set");
    assert_eq!(told["settings"]["mcastTTL"]["from"], "default");
    let hello = first.next("node");
    assert_eq!(hello["boot_id"].as_str().expect("an id").len(), 32);
    let backend = hello["backend"].as_str().expect("a backend");
    assert!(backend.starts_with("io_uring") || backend.starts_with("epoll"), "{backend}");

    let mut second = start_node(&settings);
    let (second_hello, met) = (second.next("node"), first.next("member"));
    assert_ne!(second_hello["boot_id"], hello["boot_id"]);
    assert_eq!(met["change"], "added");
    assert_eq!(met["address"], second_hello["address"]);
    let third = start_node(&settings);
    let met = first.next("member");
    assert_eq!((&met["change"], &met["members_count"]), (&"added".into(), &2.into()));
    assert_eq!(met["address"], third.next("node")["address"]);

    // One goes without a word, one says goodbye.
    let third_address = met["address"].clone();
    drop(third);
    let gone = first.next("member");
    assert_eq!((&gone["change"], &gone["address"]), (&"gone".into(), &third_address));
    assert_ne!(gone["text"], "the member left the cluster");
    assert_eq!(second.terminate(), Some(0));
    assert_eq!(second.next("closed")["why"], "SIGTERM");
    let gone = first.next("member");
    assert_eq!((&gone["change"], &gone["address"]), (&"gone".into(), &second_hello["address"]));
    assert_eq!(gone["text"], "the member left the cluster");
    assert_eq!(gone["members_count"], 0);
    assert_eq!(first.terminate(), Some(0));
    assert_eq!(first.next("closed")["accepted_count"], 0);
}

/// A member in this process, that sends.
struct Sender {
    node: Node,
    id: MemberId,
}

impl Sender {
    fn start(settings: &[String]) -> Self {
        let mut config = Config::default();
        for pair in settings.iter().filter(|word| *word != "--set") {
            let (name, value) = pair.split_once('=').expect("a pair");
            config.set(name, value).expect("in range");
        }
        let node = Node::open(&config).expect("a node");
        let address = node.listen().expect("a free port");
        node.set_local_member(LocalMember {
            host: vec![127, 0, 0, 1],
            port: i32::from(address.port()),
            secure_port: -1,
            udp_port: -1,
            unique_id: [9; 16],
            ..LocalMember::default()
        });
        node.start_receiving().expect("multicast on loopback");
        node.start_sending().expect("multicast on loopback");
        let mut taken = Vec::new();
        let until = Instant::now() + WITHIN;
        loop {
            assert!(Instant::now() < until, "no member");
            let _ = node.poll(PollerClass::Reserved, 1 << 20, 1, WITHIN, &mut taken);
            for polled in taken.drain(..) {
                if let ringtribe::delivery::Polled::Event(Event::MemberAdded { member, .. }) =
                    polled
                {
                    return Self { node, id: member };
                }
            }
        }
    }

    fn send(&self, number: u8, payload_bytes: usize) {
        let envelope = Envelope { options: APPLIED, timestamp_ms: 1, unique_id: [number; 16] };
        let builder = self.node.compose(payload_bytes, &envelope).expect("in bounds");
        self.node.send(builder, None, false, &[self.id], None).expect("accepted");
    }
}

#[test]
fn a_node_accepts_messages_and_counts_them() {
    let settings = loopback(free_port(), 3_000);
    let mut receiver = start_node(&settings);
    let sender = Sender::start(&settings);
    let met = receiver.next("member");
    assert_eq!(met["change"], "added");
    for number in 0..20 {
        sender.send(number, 1_000);
    }
    let mut counted = (0, 0);
    while counted.0 < 20 {
        let traffic = receiver.next("traffic");
        counted.0 += traffic["in_count"].as_u64().expect("a count");
        counted.1 += traffic["in_bytes"].as_u64().expect("a count");
    }
    assert_eq!(counted, (20, 20_000));
    sender.send(20, 5);
    let traffic = receiver.next("traffic");
    assert_eq!((&traffic["in_count"], &traffic["in_bytes"]), (&1.into(), &5.into()));
    assert_eq!(receiver.terminate(), Some(0));
    let closed = receiver.next("closed");
    assert_eq!(
        (&closed["accepted_count"], &closed["accepted_bytes"]),
        (&21.into(), &20_005.into())
    );
}

/// What the doctor says of one thing.
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut all = report["findings"].as_array().expect("findings").iter();
    all.find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"))
}

#[test]
fn the_doctor_agrees_with_this_machine() {
    let loopback = loopback(free_port(), 3_000);
    let loopback: Vec<&str> = loopback.iter().map(String::as_str).collect();
    // In use, so that the next one is told.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let set_port = format!("tcpListenPort={port}");
    let settings = [loopback.as_slice(), &["--set", &set_port]].concat();
    let output = run(&[&["doctor", "--json"], settings.as_slice()].concat());
    let report = object(&output);
    let facts = &report["facts"];
    let read = |path: &str| std::fs::read_to_string(path).expect("Linux").trim().to_owned();
    assert_eq!(facts["kernel"], read("/proc/sys/kernel/osrelease"));
    assert_eq!(facts["rmem_max"].to_string(), read("/proc/sys/net/core/rmem_max"));
    let cores = std::thread::available_parallelism().expect("some").get();
    assert_eq!(facts["cores"], cores);
    let limits = read("/proc/self/limits");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let limit: Vec<&str> = limit.split_whitespace().collect();
    assert_eq!(facts["descriptors_soft"].to_string(), limit[3]);
    assert_eq!(facts["descriptors_hard"].to_string(), limit[4]);
    assert_eq!(facts["descriptors_needed"], 64 + 3 * 2 * 3);
    let opened = Node::open(&Config::default());
    assert_eq!(report["can_run"], opened.is_ok(), "{report}");
    assert_eq!(output.status.success(), opened.is_ok());
    if let Ok(node) = opened {
        assert_eq!(facts["backend"], node.backend());
        assert_eq!(facts["io_uring"], node.backend().starts_with("io_uring"));
    }
    let finding = |name| finding(&report, name);
    assert_eq!(finding("address")["grade"], "WARN", "loopback");
    assert_eq!(finding("multicast")["grade"], "OK");
    assert_eq!(finding("threads")["grade"], if cores < 2 { "WARN" } else { "OK" });
    assert_eq!(finding("port")["grade"], "WARN");
    assert!(finding("port")["what"].as_str().expect("text").contains(&port.to_string()));
    assert_ne!(facts["port"], port);

    let settings = [settings.as_slice(), &["--set", "autoBind=1"]].concat();
    let output = run(&[&["doctor", "--json"], settings.as_slice()].concat());
    let report = object(&output);
    assert_eq!((output.status.code(), &report["can_run"]), (Some(1), &false.into()));
    assert!(report["findings"].to_string().contains("is in use"), "{report}");
}

#[test]
fn the_doctor_names_what_keeps_a_node_from_running() {
    // TEST-NET-3: nobody's.
    for (setting, name, says) in [
        ("tcpListenAddress=203.0.113.9", "port", "203.0.113.9"),
        ("mcastBindAddr=203.0.113.9", "multicast", "mcastBindAddr"),
    ] {
        let output = run(&["doctor", "--json", "--set", setting]);
        let report = object(&output);
        assert_eq!(output.status.code(), Some(1), "{report}");
        let finding = finding(&report, name);
        assert_eq!(finding["grade"], "FAIL");
        assert!(finding["what"].as_str().expect("text").contains(says), "{finding}");
    }
    // A limit that is too low for anybody else.
    let doctor = format!("ulimit -n 60; exec {} doctor", env!("CARGO_BIN_EXE_ringtribe"));
    let output = Command::new("sh").args(["-c", &doctor]).output().expect("a shell");
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    let failed: Vec<&str> = out.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert_eq!(failed.len(), 1, "{out}");
    assert!(failed[0].contains("descriptors") && failed[0].contains("60"), "{out}");
    // Larger queues than any machine has memory.
    let output = run(&["doctor", "--json", "--set", "maxQueueSize=1000000000000"]);
    let report = object(&output);
    assert_eq!(finding(&report, "memory")["grade"], "WARN", "{report}");
    assert_eq!(report["facts"]["queues_bytes"], 3_000_000_000_000_u64 + (256 << 20));
}

#[test]
fn a_server_xml_is_read_and_the_command_line_stands_over_it() {
    let xml = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/testdata/seed-server.xml");
    let port = format!("mcastPort={}", free_port());
    let over =
        ["--set", "tcpListenAddress=127.0.0.1", "--set", "mcastBindAddr=127.0.0.1", "--set", &port];
    let arguments = [&["--server-xml", xml, "--json"][..], &over].concat();
    let mut node = Running::start(&[&["node"][..], &arguments].concat());
    let told = node.next("settings")["settings"].clone();
    let shown = |name: &str| (told[name]["value"].clone(), told[name]["from"].clone());
    assert_eq!(shown("mcastAddr"), ("224.0.0.5".into(), "seed-server.xml:24".into()));
    assert_eq!(shown("tcpThreadCount"), ("6".into(), "seed-server.xml:32".into()));
    assert_eq!(shown("tcpListenAddress"), ("127.0.0.1".into(), "--set".into()));
    assert_eq!(shown("poolSize"), ("25".into(), "default".into()));
    assert!(node.next("ignored")["text"].as_str().expect("text").contains("managerClassName"));
    assert!(node.next("node")["address"].as_str().expect("text").starts_with("127.0.0.1:40"));
    assert_eq!(node.terminate(), Some(0));
    // Without what the command line says, the address is another machine's.
    let report = object(&run(&["doctor", "--json", "--server-xml", xml]));
    assert_eq!(finding(&report, "port")["grade"], "FAIL");
    let ignored = report["facts"]["server_xml_ignored"].as_array().expect("what is ignored");
    assert_eq!(ignored.len(), 7, "{report}");
}

#[test]
fn a_file_of_2007_is_migrated_where_it_lies() {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    let base = std::env::temp_dir().join(format!("ringtribe-migrate-{}", std::process::id()));
    let path = |name: &str| base.join(name).display().to_string();
    let put = |name: &str, text: &str| {
        let path = base.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
        fs::write(path, text).expect("a new file");
    };
    let seed = include_str!("../../tests/testdata/seed-server.xml");
    let local = seed.replace("192.168.1.109", "127.0.0.1");
    put("conf/server.xml", &local);
    fs::set_permissions(path("conf/server.xml"), fs::Permissions::from_mode(0o640)).expect("ours");
    let old = "<!DOCTYPE web-app PUBLIC 'x' 'y'>\n<web-app>";
    put("webapps/shop/WEB-INF/web.xml", &format!("{old}<distributable/></web-app>"));
    put("webapps/wiki/WEB-INF/web.xml", &format!("{old}<!-- <distributable/> --></web-app>"));
    put("webapps/blog/index.html", "");
    put("webapps/broken/WEB-INF/web.xml", "<web-app>");
    put("webapps/packed.war", "PK");
    put("webapps/shop.war", "PK");
    let arguments = |output: &str| {
        ["migrate", &path("conf/server.xml"), "--to", "11.0", "--output", &path(output), "--json"]
            .map(str::to_owned)
    };
    let migrate = |output: &str| {
        let arguments = arguments(output);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let report = object(&migrate("conf/new.xml"));
    let rows = report["rows"].as_array().expect("rows");
    let applications: Vec<(&str, &str)> = rows
        .iter()
        .filter_map(|row| Some((row["was"].as_str()?.split_once("application ")?.1, row)))
        .map(|(name, row)| (name, row["why"].as_str().expect("why")))
        .collect();
    let names: Vec<&str> = applications.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["blog", "broken", "packed.war", "wiki"], "{report}");
    for ((_, why), says) in applications.iter().zip([
        "it has no WEB-INF/web.xml",
        "its web.xml is not XML",
        "archives are not looked into",
        "its web.xml has no <distributable/>",
    ]) {
        assert!(why.contains(says), "{why}");
    }
    // An address of this machine needs no word; the seed's is another's (if not, it may run here).
    assert!(!rows.iter().any(|row| row["why"].to_string().contains("not an address")), "{report}");
    let secret = report["secret"].as_str().expect("a secret");
    assert!(secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");
    let written = fs::read_to_string(path("conf/new.xml")).expect("written");
    assert!(written.contains(&format!("secret=\"{secret}\"")));
    let mode = fs::metadata(path("conf/new.xml")).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "who may not read the old one may not read the secret");
    // Nothing is written over, and each secret is a new one.
    let again = migrate("conf/new.xml");
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("new.xml: the file exists; name a new one"));
    assert_eq!(fs::read_to_string(path("conf/new.xml")).expect("still there"), written);
    assert_ne!(object(&migrate("conf/third.xml"))["secret"], report["secret"]);
    // Without a file the new one goes to standard output alone, byte for byte.
    let plain = run(&["migrate", &path("conf/new.xml"), "--to", "11.0"]);
    assert_eq!(text(&plain.stdout), written);
    let table = text(&plain.stderr);
    assert!(table.starts_with("line  was ") && table.contains("application wiki"), "{table}");
    put("conf/broken.xml", "<Server>\n<Service></Server>");
    let broken = run(&["migrate", &path("conf/broken.xml"), "--to", "9.0"]);
    let error = text(&broken.stderr);
    assert_eq!(broken.status.code(), Some(2));
    assert!(error.contains("broken.xml") && error.contains("line 2"), "{error}");
    fs::remove_dir_all(&base).expect("removed");
}

#[test]
fn the_doctor_looks_at_what_the_settings_use() {
    let set = ["--set", "backend=epoll", "--set", "staticMembers=127.0.0.1:4009"];
    let report = object(&run(&[&["doctor", "--json"][..], &set].concat()));
    assert_eq!(
        finding(&report, "multicast")["what"],
        "not used: members are found by staticMembers"
    );
    assert_eq!(finding(&report, "io_uring")["what"], "not used: backend is epoll");
    assert!(report["facts"]["backend"].as_str().expect("a backend").starts_with("epoll"));
    assert_eq!(report["facts"]["multicast"], Value::Null);
}

#[test]
fn arguments_that_are_refused_are_named() {
    for (arguments, says) in [
        (&["nod"][..], "nod is not known here; did you mean node?"),
        (&[], "node, demo, doctor, migrate"),
        (&["demo", "--mesages", "5"], "--mesages is not known here; did you mean --messages?"),
        (&["demo", "--members", "10"], "--members 10 is refused: give a number from 2 to 9"),
        (&["demo", "--messages"], "--messages needs a number"),
        (&["node", "--set", "mcastPort"], "--set mcastPort is refused: give NAME=VALUE"),
        (&["node", "--set", "mcastFreqency=5"], "did you mean mcastFrequency?"),
        (&["node", "--set", "tcpListenPort=70000"], "1 to 65535"),
        (&["node", "--set", "mcastAddr=10.0.0.1"], "224.0.0.0 to 239.255.255.255"),
        (&["doctor", "--server-xml", "/no/such.xml"], "/no/such.xml"),
        (&["--hlep"], "did you mean --help?"),
        (&["migrate", "--to", "10.1"], "migrate needs a server.xml"),
        (&["migrate", "server.xml"], "--to 9.0, 10.1 or 11.0"),
        (&["migrate", "server.xml", "--to", "10"], "--to 10 is refused: give a line of Tomcat"),
        (&["migrate", "a.xml", "b.xml"], "b.xml is a second file"),
        (&["migrate", "/no/such.xml", "--to", "10.1"], "/no/such.xml cannot be read"),
    ] {
        let output = run(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.starts_with("ringtribe: ") && error.contains(says), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["help"], &["demo", "--help"], &["node", "-h"]] {
        let output = run(arguments);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("--drop-replication  self-test"));
    }
    let output = run(&["--version"]);
    assert_eq!(text(&output.stdout).trim_end(), concat!("ringtribe ", env!("CARGO_PKG_VERSION")));
}
