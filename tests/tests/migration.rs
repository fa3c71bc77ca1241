//! Three nodes replaced one by one under clients that check each answer, each manager, in clear and
//! encrypted, on each line of Tomcat and from one to the next; and the pairs that cannot be, by name.
//! All of it, as a table: `RINGTRIBE_ROLLING=full`. Cells with these words in their row:
//! `RINGTRIBE_ROLLING="10.1 Backup encrypted"`.

use std::fs;
use std::time::{Duration, Instant};

use ringtribe_tests::balancer::{Balancer, Kind, Node, balanced_server, steady_port};
use ringtribe_tests::build::Flavour::{self, Ringtribe, Stock};
use ringtribe_tests::build::{self, Line};
use ringtribe_tests::clients::{Clients, Seen};
use ringtribe_tests::http::Browser;
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(60), pause: Duration::from_millis(20) };
/// A pair that is refused is named by then.
const NAMED: Patience =
    Patience { within: Duration::from_secs(5), pause: Duration::from_millis(20) };
const ROUTES: [&str; 3] = ["node-a", "node-b", "node-c"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Delta,
    Backup,
}

/// What all nodes of a cell have in common.
#[derive(Clone, Copy, Debug)]
struct Kept {
    manager: Manager,
    encrypted: bool,
}

type Form = (Flavour, Line);

const KEY: &str = "000102030405060708090a0b0c0d0e0f";

/// The long form; `more` stands behind the Channel.
fn long_form(kept: Kept, more: &str) -> String {
    let tribes = "org.apache.catalina.tribes.group.interceptors";
    let encrypt =
        format!("<Interceptor className=\"{tribes}.EncryptInterceptor\" encryptionKey=\"{KEY}\"/>");
    format!(
        "<Cluster className=\"org.apache.catalina.ha.tcp.SimpleTcpCluster\" channelSendOptions=\"6\">\
         <Manager className=\"org.apache.catalina.ha.session.{:?}Manager\"/>\
         <Channel className=\"@CHANNEL@\"><Membership className=\"@MEMBERSHIP@\" address=\"228.0.0.4\" \
         port=\"@MCAST_PORT@\" bind=\"127.0.0.1\"/><Receiver className=\"@RECEIVER@\" \
         address=\"127.0.0.1\" port=\"@TCP_PORT@\"/><Sender className=\"@SENDER@\"/>{}\
         <Interceptor className=\"{tribes}.TcpFailureDetector\"/>\
         <Interceptor className=\"{tribes}.MessageDispatchInterceptor\"/></Channel>{more}</Cluster>",
        kept.manager,
        if kept.encrypted { &encrypt } else { "" }
    )
}

/// With Ringtribe in clear the one element, else the long form with other classes.
fn cluster(flavour: Flavour, kept: Kept) -> String {
    match (flavour, kept.encrypted, kept.manager) {
        (Ringtribe, false, Manager::Delta) => one_element("", ""),
        (Ringtribe, false, Manager::Backup) => {
            let class = "org.apache.catalina.ha.session.BackupManager";
            one_element(&format!("managerClassName=\"{class}\""), "")
        }
        _ => long_form(kept, ""),
    }
}

fn setup((flavour, line): Form, kept: Kept, node: &Node, mcast_port: u16) -> Setup {
    Setup {
        line,
        server: Some(balanced_server().expect("a file")),
        cluster: Some(cluster(flavour, kept)),
        http_port: Some(node.http_port),
        ..Setup::new(node.route, flavour, mcast_port)
    }
}

fn word((flavour, line): Form) -> String {
    format!("{} {}", flavour.word(), line.word())
}

/// What one way of a cell showed.
struct Row {
    text: String,
    seen: Seen,
    /// Only stock nodes took part.
    is_stocks: bool,
}

/// Starts three nodes of the first form, and makes `steps_count` of them the second one, then those
/// the third one, and so on. Prints a row for each way.
fn roll(forms: &[Form], kept: Kept, clients_count: usize, steps_count: usize) -> Vec<Row> {
    let mcast_port = free_mcast_port();
    let nodes = ROUTES.map(|route| Node { route, http_port: steady_port(), ajp_port: 0 });
    let start = |index: usize, form: Form| {
        Tomcat::start(&setup(form, kept, &nodes[index], mcast_port)).expect("it starts")
    };
    let mut tomcats = [0, 1, 2].map(|index| Some(start(index, forms[0])));
    let directory = tomcats[0].as_ref().and_then(|node| node.base().parent()).expect("a directory");
    println!("{}, {kept:?}: logs in {}", word(forms[0]), directory.display());
    let pair = [nodes[0].clone(), nodes[1].clone()];
    let balancer = Balancer::start(Kind::Haproxy, directory, pair, "", |text| {
        // Stock has no readyPath: the check asks the application.
        let check = "uri /ringtribe-ready ";
        let server = "server node-b \"${NODE_B}\"";
        let sticky = "use-server node-b if { req.cook(JSESSIONID) -m end .node-b }";
        assert!([check, server, sticky].iter().all(|part| text.contains(part)));
        let third = format!("{server}\n    server node-c 127.0.0.1:{}", nodes[2].http_port);
        text.replace(check, "uri /app/s/jmx?bean=Catalina:type=Server&get=port ")
            .replace(sticky, &format!("{sticky}\n    {}", sticky.replace("node-b", "node-c")))
            .replace(server, &third)
    });
    let balancer = balancer.expect("it starts");
    for node in ROUTES {
        PATIENCE.until(&format!("{node} is in service"), || balancer.gives_to(node));
    }
    let clients = Clients::start(balancer.address(), clients_count, Duration::from_millis(500));
    PATIENCE.until("each client has answers", || clients.fewest_answers() > 2);
    let mut rows = Vec::new();
    for way in forms.windows(2) {
        let begun = Instant::now();
        let _ = clients.take();
        for index in 0..steps_count {
            let route = ROUTES[index];
            balancer.maintain_route(route, false).expect("HAProxy takes it out");
            PATIENCE.until(&format!("nobody is at {route}"), || clients.routed_count(route) == 0);
            tomcats[index].take().expect("it runs").stop().expect("it stops");
            tomcats[index] = Some(start(index, way[1]));
            balancer.maintain_route(route, true).expect("HAProxy puts it back");
            PATIENCE.until(&format!("{route} is in service"), || balancer.gives_to(route));
        }
        // What the last one has is seen where the others are not.
        for route in &ROUTES[1..] {
            balancer.maintain_route(route, false).expect("HAProxy takes it out");
        }
        let all = || clients.routed_count(ROUTES[0]) == clients_count;
        PATIENCE.until("all are at one node", all);
        for route in &ROUTES[1..] {
            balancer.maintain_route(route, true).expect("HAProxy puts it back");
        }
        let mut seen = Seen::default();
        clients.take().iter().for_each(|client| seen.add(client));
        let text = format!(
            "cell | {} -> {} | {:?} | {} | {} answers | {} missing | {} stale | {} failed | {:.0} s |",
            word(way[0]),
            word(way[1]),
            kept.manager,
            if kept.encrypted { "encrypted" } else { "clear" },
            seen.answered_count,
            seen.lost_count,
            seen.stale_count,
            seen.failed_count,
            begun.elapsed().as_secs_f64()
        );
        println!("{text}");
        assert!(seen.answered_count > 0, "the clients live");
        let is_stocks = way.iter().all(|(flavour, _)| *flavour == Stock);
        rows.push(Row { text, seen, is_stocks });
    }
    rows
}

/// What is asked for beyond the slice.
fn asked() -> Option<String> {
    std::env::var("RINGTRIBE_ROLLING").ok()
}

fn is_full() -> bool {
    asked().is_some_and(|words| words == "full")
}

/// From stock to Ringtribe and back on each line, and from line to line where both sides can read each
/// other; each beside stock alone.
fn all_cells() -> Vec<(Vec<Form>, Kept)> {
    let kept = |manager, encrypted| Kept { manager, encrypted };
    let kinds = [
        kept(Manager::Backup, true),
        kept(Manager::Delta, true),
        kept(Manager::Backup, false),
        kept(Manager::Delta, false),
    ];
    let of_line = |line: Line| {
        kinds.into_iter().flat_map(move |kept| {
            let there_and_back = vec![(Stock, line), (Ringtribe, line), (Stock, line)];
            [(there_and_back, kept), (vec![(Stock, line), (Stock, line)], kept)]
        })
    };
    let [v9_0, v10_1, v11_0] = Line::ALL;
    let between = [
        (vec![v9_0, v10_1, v11_0], kept(Manager::Delta, false)),
        (vec![v10_1, v11_0], kept(Manager::Backup, false)),
        // 10.1.56 encrypts otherwise than both.
        (vec![v9_0, v11_0], kept(Manager::Delta, true)),
    ];
    let between = |flavour: Flavour| {
        between.iter().map(move |(lines, kept)| {
            let forms: Vec<Form> = lines.iter().map(|line| (flavour, *line)).collect();
            (forms, *kept)
        })
    };
    // One of each kind comes early.
    let first = between(Ringtribe).chain(of_line(v10_1));
    first.chain(between(Stock)).chain(of_line(v9_0)).chain(of_line(v11_0)).collect()
}

/// Whether a cell has all these words.
fn is_meant(words: &str, forms: &[Form], kept: Kept) -> bool {
    let forms: Vec<_> = forms.iter().map(|form| word(*form)).collect();
    let encrypted = if kept.encrypted { "encrypted" } else { "clear" };
    let row = format!("{} {:?} {encrypted}", forms.join(" "), kept.manager);
    words == "full" || words.split_whitespace().all(|word| row.contains(word))
}

#[test]
fn nothing_is_lost_whatever_the_manager_and_the_encryption() {
    if !Kind::Haproxy.is_installed() {
        return;
    }
    let mut rows = Vec::new();
    if let Some(words) = asked() {
        // Whatever changes in the sources while this runs.
        for line in Line::ALL {
            build::everything_for(line).expect("it builds");
        }
        let meant = |(forms, kept): &(Vec<Form>, Kept)| is_meant(&words, forms, *kept);
        let cells: Vec<_> = all_cells().into_iter().filter(meant).collect();
        assert!(!cells.is_empty(), "no cell has the words {words}");
        for (forms, kept) in cells {
            rows.extend(roll(&forms, kept, 200, ROUTES.len()));
        }
    } else {
        let line = Line::V11_0;
        let kept = Kept { manager: Manager::Backup, encrypted: true };
        rows.extend(roll(&[(Stock, line), (Ringtribe, line)], kept, 20, 1));
    }
    for row in &rows {
        println!("{}", row.text);
    }
    let is_whole =
        |seen: &Seen| (seen.failed_count, seen.lost_count, seen.stale_count) == (0, 0, 0);
    let broken: Vec<_> = rows
        .iter()
        .filter(|row| !row.is_stocks && !is_whole(&row.seen))
        .map(|row| format!("{}\n{:?}", row.text, row.seen.complaints))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Two nodes of two lines with this Cluster element.
fn two(flavour: Flavour, lines: [Line; 2], cluster: &str) -> [Tomcat; 2] {
    let mcast_port = free_mcast_port();
    let mut starts = lines.iter().zip(ROUTES).map(|(line, name)| {
        let (line, cluster) = (*line, Some(cluster.to_owned()));
        Tomcat::start(&Setup { line, cluster, ..Setup::new(name, flavour, mcast_port) })
            .expect("it starts")
    });
    [starts.next().expect("a"), starts.next().expect("b")]
}

/// What both say of each other; they have said it within 5 s.
fn both_say(nodes: &[Tomcat; 2]) -> [String; 2] {
    [0, 1].map(|index| {
        let node = &nodes[index];
        NAMED.until(&format!("{:?} names the other", node.base()), || said(node).is_some());
        said(node).expect("a line")
    })
}

/// What it says of a member that it cannot be paired with.
fn said(node: &Tomcat) -> Option<String> {
    let log = node.log().expect("a log");
    let line = log
        .lines()
        .find(|line| line.contains("Member tcp://") && line.contains("this node Apache"))?;
    Some(line.to_owned())
}

fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

/// A session of the first node is unknown at the second.
fn has_no_copy(nodes: &[Tomcat; 2]) {
    let mut browser = Browser::default();
    let told = nodes[0].ask(&mut browser, "/set?k=x&v=1").expect("an answer");
    assert_eq!((told.status, told.body.as_str()), (200, "1"));
    assert_eq!(nodes[1].ask(&mut browser, "/get?k=x").expect("an answer").status, 404);
}

#[test]
fn two_generations_of_encryption_are_named_by_both() {
    let kept = Kept { manager: Manager::Delta, encrypted: true };
    // A session manager that waits a minute for a state that it cannot read would hold up the test.
    let element =
        long_form(kept, "").replace("DeltaManager\"", "DeltaManager\" stateTransferTimeout=\"2\"");
    let mut pairs = vec![([Line::V9_0, Line::V10_1], true)];
    if is_full() {
        pairs.push(([Line::V10_1, Line::V11_0], false));
    }
    for (lines, first_is_old) in pairs {
        let nodes = two(Ringtribe, lines, &element);
        has_no_copy(&nodes);
        let [of_a, of_b] = both_say(&nodes);
        let old = "encrypts as the EncryptInterceptor of Tomcat 9.0.13 to 9.0.118";
        let new = "encrypts as the EncryptInterceptor of Tomcat 9.0.119, 10.1.56";
        let (of_old, of_new) = if first_is_old { (of_a, of_b) } else { (of_b, of_a) };
        has_all(&of_old, &[new, "run releases of one kind"]);
        has_all(&of_new, &[old, "run releases of one kind"]);
        for (line, text) in
            lines.iter().zip(if first_is_old { [&of_old, &of_new] } else { [&of_new, &of_old] })
        {
            has_all(text, &[&format!("this node Apache Tomcat/{}", line.word())]);
            println!("{text}");
        }
        if is_full() {
            let stocks = two(Stock, lines, &element);
            has_no_copy(&stocks);
            assert_eq!([said(&stocks[0]), said(&stocks[1])], [None, None]);
            println!(
                "stock {} beside {}: the copy is missing, and no line names the pair",
                lines[0].word(),
                lines[1].word()
            );
        }
    }
}

const DEPLOYER: &str = "<Deployer className=\"org.apache.catalina.ha.deploy.FarmWarDeployer\" \
    tempDir=\"farm-temp\" deployDir=\"webapps\" watchDir=\"farm-watch\" watchEnabled=\"true\" \
    processDeployFrequency=\"1\"/>";

#[test]
fn single_sign_on_and_undeployment_across_two_generations_are_named() {
    let kept = Kept { manager: Manager::Delta, encrypted: false };
    let lines = [Line::V9_0, Line::V10_1];
    let sign_on = "<Valve className=\"org.apache.catalina.ha.authenticator.ClusterSingleSignOn\"/>";
    let with_sign_on = long_form(kept, "") + sign_on;
    let parts = ["serialVersionUID", "ClusterSingleSignOn", "undeployment in a farm"];
    let [of_a, of_b] = both_say(&two(Ringtribe, lines, &with_sign_on));
    for (text, there, here) in
        [(of_a, "10.1 or 11.0 of a later", "Tomcat/9.0"), (of_b, "8.5 or 9.0", "Tomcat/10.1")]
    {
        has_all(&text, &[&format!("runs Tomcat {there}"), &format!("this node Apache {here}")]);
        has_all(&text, &parts);
    }

    let undeployed = |flavour: Flavour| {
        let nodes = two(flavour, lines, &long_form(kept, DEPLOYER));
        for node in &nodes {
            for directory in ["farm-temp", "farm-watch"] {
                fs::create_dir_all(node.base().join(directory)).expect("a directory");
            }
        }
        let [a, b] = &nodes;
        // Any archive does: an empty one.
        let war = a.base().join("farm-watch/gone.war");
        fs::write(&war, [b"PK\x05\x06".as_slice(), &[0; 18]].concat()).expect("written");
        let arrived = b.base().join("webapps/gone.war");
        PATIENCE.until("the WAR at B", || arrived.exists());
        assert_eq!(said(b), None, "deployment works");
        fs::remove_file(war).expect("it was there");
        PATIENCE.until("undeployed at A", || !a.base().join("webapps/gone.war").exists());
        nodes
    };
    let [_a, b] = undeployed(Ringtribe);
    NAMED.until("B names A", || said(&b).is_some());
    let text = said(&b).expect("a line");
    has_all(&text, &["runs Tomcat 8.5 or 9.0 ", "this node Apache Tomcat/10.1"]);
    has_all(&text, &parts);
    println!("{text}");
    if is_full() {
        let [_a, b] = undeployed(Stock);
        assert_eq!(said(&b), None);
        assert!(b.base().join("webapps/gone.war").exists(), "stock cannot either");
        println!("stock 9.0 beside 10.1: the WAR stays where it was to go");
    }
}
