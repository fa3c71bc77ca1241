//! What an operator gets wrong: each error names the attribute, its value and the remedy.

use std::net::TcpListener;
use std::process::Command;

use ringtribe::config::Config;
use ringtribe::node::Node;

fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    for (name, value) in [("tcpListenAddress", "127.0.0.1"), ("tcpThreadCount", "1")] {
        config.set(name, value).expect("a valid knob");
    }
    for (name, value) in settings {
        config.set(name, value).expect("a valid knob");
    }
    config
}

fn assert_says(error: &dyn std::error::Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part} in: {text}");
    }
}

#[test]
fn what_does_not_hold_together_does_not_open() {
    let error = Node::open(&config(&[("mcastAddr", "10.0.0.1")])).expect_err("unicast");
    assert_says(&error, &["mcastAddr=\"10.0.0.1\"", "224.0.0.0 to 239.255.255.255"]);
    let error = Node::open(&config(&[("membership", "static")])).expect_err("nobody");
    assert_says(&error, &["membership=\"static\"", "staticMembers"]);
    let error = Node::open(&config(&[("dropTime", "600")])).expect_err("too short");
    assert_says(&error, &["mcastDropTime=\"600\"", "2 x mcastFrequency"]);
}

#[test]
fn a_port_in_use_is_named_with_the_range_that_was_tried() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let node = Node::open(&config(&[("tcpListenPort", &port), ("autoBind", "0")])).expect("opens");
    let error = node.listen().expect_err("in use");
    let value = format!("tcpListenPort=\"{port}\"");
    assert_says(&error, &[&value, "127.0.0.1", "in use", "another tcpListenPort", "autoBind"]);
    assert_says(&error, &[&format!("by process {} (", std::process::id()), " is free)"]);
    // With room to look further it is no error.
    let node =
        Node::open(&config(&[("tcpListenPort", &port), ("autoBind", "900")])).expect("opens");
    assert_ne!(node.listen().expect("a port further on").port().to_string(), port);
}

#[test]
fn an_address_of_another_machine_is_named_with_those_there_are() {
    // 192.0.2.0/24 is for documentation: nobody has it.
    let node = Node::open(&config(&[("tcpListenAddress", "192.0.2.1")])).expect("opens");
    let error = node.listen().expect_err("not here");
    assert_says(&error, &["tcpListenAddress=\"192.0.2.1\"", "not an address of this machine"]);
    assert_says(&error, &["give auto or one of", "127.0.0.1"]);
    // The error was no end: the node can be told and closed as any other.
    assert!(node.members().is_empty());
}

#[test]
fn an_interface_of_another_machine_is_named_with_the_group() {
    let node = Node::open(&config(&[("mcastBindAddr", "192.0.2.1"), ("mcastPort", "45999")]));
    let node = node.expect("opens");
    for error in [
        node.start_receiving().expect_err("no such interface"),
        node.start_sending().expect_err("no such interface"),
    ] {
        assert_says(&error, &["mcastAddr=\"228.0.0.4\"", "mcastPort=\"45999\""]);
        assert_says(&error, &["mcastBindAddr=\"192.0.2.1\"", "set mcastBindAddr to one of"]);
    }
}

/// Set in the copy of this program that runs in a network of its own.
const ALONE: &str = "RINGTRIBE_TEST_ALONE";

#[test]
fn a_group_without_a_route_is_named_with_the_remedy() {
    if std::env::var_os(ALONE).is_none() {
        // A network namespace has no route, and its loopback interface is down.
        let test = "a_group_without_a_route_is_named_with_the_remedy";
        let output = Command::new("unshare")
            .arg("-rn")
            .arg(std::env::current_exe().expect("this program"))
            .args([test, "--exact", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap_or_else(|error| panic!("unshare is missing: {error}; apt install util-linux"));
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
        return;
    }
    let node = Node::open(&config(&[("mcastAddr", "228.0.0.9")])).expect("opens");
    let error = node.start_receiving().expect_err("no route");
    assert_says(&error, &["mcastAddr=\"228.0.0.9\"", "mcastPort=\"45564\"", "No such device"]);
    assert_says(&error, &["ip route add 224.0.0.0/4"]);
    // Static members need no group.
    let settings = [("staticMembers", "127.0.0.1:4999"), ("mcastAddr", "228.0.0.9")];
    let node = Node::open(&config(&[settings[0]])).expect("opens");
    node.start_receiving().expect("nothing is joined");
    let node = Node::open(&config(&settings)).expect("opens");
    node.start_receiving().expect_err("the group is stated, so it is meant");
}
