//! One node at a time, under clients that check each answer: from stock Tomcats to Ringtribe and back, and
//! from one line of Tomcat to the next; docs/migrate.md.

use std::time::Duration;

use ringtribe_tests::balancer::{Balancer, Kind, Node, balanced_server, steady_port};
use ringtribe_tests::build::Flavour::{self, Ringtribe, Stock};
use ringtribe_tests::build::Line;
use ringtribe_tests::clients::{Clients, Seen};
use ringtribe_tests::http::Browser;
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(60), pause: Duration::from_millis(20) };
const ROUTES: [&str; 2] = ["node-a", "node-b"];
const CLIENTS_COUNT: usize = 20;

/// What a node is, and what it becomes.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// The long form with stock's classes.
    Stock,
    /// The same with the parts of the Channel exchanged.
    Long,
    /// The one element.
    OneLine,
}

fn setup(form: Form, line: Line, node: &Node, mcast_port: u16) -> Setup {
    let flavour = if matches!(form, Form::Stock) { Stock } else { Ringtribe };
    Setup {
        line,
        server: Some(balanced_server().expect("a file")),
        cluster: matches!(form, Form::OneLine).then(|| one_element("", "")),
        http_port: Some(node.http_port),
        ..Setup::new(node.route, flavour, mcast_port)
    }
}

fn roll(first: [(Form, Line); 2], steps: &[(usize, Form, Line)]) {
    if !Kind::Haproxy.is_installed() {
        return;
    }
    let mcast_port = free_mcast_port();
    let nodes = ROUTES.map(|route| Node { route, http_port: steady_port(), ajp_port: 0 });
    let start = |index: usize, form: Form, line: Line| {
        Tomcat::start(&setup(form, line, &nodes[index], mcast_port)).expect("it starts")
    };
    let mut tomcats = [0, 1].map(|index: usize| Some(start(index, first[index].0, first[index].1)));
    let directory = tomcats[0].as_ref().and_then(|node| node.base().parent()).expect("a directory");
    let balancer = Balancer::start(Kind::Haproxy, directory, nodes.clone(), "", |text| {
        // Stock has no readyPath: the check asks the application.
        let check = "uri /ringtribe-ready ";
        assert!(text.contains(check));
        text.replace(check, "uri /app/s/jmx?bean=Catalina:type=Server&get=port ")
    });
    let balancer = balancer.expect("it starts");
    for node in ROUTES {
        PATIENCE.until(&format!("{node} is in service"), || balancer.gives_to(node));
    }
    let clients = Clients::start(balancer.address(), CLIENTS_COUNT, Duration::from_millis(100));
    PATIENCE.until("each client has answers", || clients.fewest_answers() > 2);
    for (index, form, line) in steps {
        let (gone, other) = (ROUTES[*index], ROUTES[1 - *index]);
        balancer.maintain(*index, false).expect("HAProxy takes it out");
        PATIENCE
            .until(&format!("all go to {other}"), || clients.routed_count(other) == CLIENTS_COUNT);
        tomcats[*index].take().expect("it runs").stop().expect("it stops");
        tomcats[*index] = Some(start(*index, *form, *line));
        balancer.maintain(*index, true).expect("HAProxy puts it back");
        PATIENCE.until(&format!("{gone} is in service"), || balancer.gives_to(gone));
        let mut sum = Seen::default();
        clients.take().iter().for_each(|client| sum.add(client));
        println!(
            "{gone} is {form:?} {}: {} answers, {} failed, {} lost, {} stale",
            line.word(),
            sum.answered_count,
            sum.failed_count,
            sum.lost_count,
            sum.stale_count
        );
        let counts = (sum.failed_count, sum.lost_count, sum.stale_count);
        assert_eq!(counts, (0, 0, 0), "{gone} became {form:?} {line:?}: {sum:?}");
        assert!(sum.answered_count > 0, "the clients live");
    }
}

#[test]
fn from_stock_to_ringtribe_and_back_nothing_is_lost_and_nothing_fails() {
    let line = Line::V10_1;
    roll(
        [(Form::Stock, line), (Form::Stock, line)],
        &[
            (0, Form::Long, line),
            (1, Form::OneLine, line),
            (0, Form::OneLine, line),
            (0, Form::Stock, line),
            (1, Form::Stock, line),
        ],
    );
}

#[test]
fn from_one_line_of_tomcat_to_the_next_nothing_is_lost_and_nothing_fails() {
    let form = Form::OneLine;
    roll(
        [(form, Line::V9_0), (form, Line::V9_0)],
        &[
            (0, form, Line::V10_1),
            (1, form, Line::V10_1),
            (0, form, Line::V11_0),
            (1, form, Line::V11_0),
        ],
    );
}

const BACKUP: &str = "<Cluster className=\"org.apache.catalina.ha.tcp.SimpleTcpCluster\" channelSendOptions=\"6\">\
    <Manager className=\"org.apache.catalina.ha.session.BackupManager\" rpcTimeout=\"1000\"/>\
    <Channel className=\"@CHANNEL@\"><Membership className=\"@MEMBERSHIP@\" address=\"228.0.0.4\" port=\"@MCAST_PORT@\" \
    bind=\"127.0.0.1\"/><Receiver className=\"@RECEIVER@\" address=\"127.0.0.1\" port=\"@TCP_PORT@\"/>\
    <Sender className=\"@SENDER@\"/></Channel></Cluster>";

#[test]
fn two_generations_of_members_under_backup_manager_are_named_by_both() {
    let named = |flavour: Flavour| {
        let mcast_port = free_mcast_port();
        let start = |name: &str, line: Line| {
            let cluster = Some(BACKUP.to_owned());
            Tomcat::start(&Setup { line, cluster, ..Setup::new(name, flavour, mcast_port) })
                .expect("it starts")
        };
        let a = start("node-a", Line::V9_0);
        let mut browser = Browser::default();
        let told = a.ask(&mut browser, "/set?k=x&v=1").expect("an answer");
        assert_eq!((told.status, told.body.as_str()), (200, "1"));
        let b = start("node-b", Line::V10_1);
        // The first message of its manager names it, before HTTP is open.
        let answer = b.ask(&mut browser, "/get?k=x").expect("an answer");
        assert_eq!(answer.status, 404, "it cannot work, with stock neither");
        [&a, &b].map(|node| node.log_from("Member tcp://"))
    };
    let [of_a, of_b] = named(Ringtribe).map(|line| line.expect("a line"));
    for (line, theirs, here) in [
        (of_a, "10.1 or 11.0 of a later release", "Apache Tomcat/9.0"),
        (of_b, "8.5 or 9.0", "Apache Tomcat/10.1"),
    ] {
        for part in
            [format!("runs Tomcat {theirs} "), format!("this node {here}"), "BackupManager".into()]
        {
            assert!(line.contains(&part), "no {part} in {line}");
        }
    }
    assert_eq!(named(Stock), [None, None]);
}
