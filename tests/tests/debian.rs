//! Debian's package `tomcat10`, whole, started by its own script, with our jar in its `lib` and the one line in
//! its server.xml: the nine steps, a login that the other node knows, and a drain.

use std::fs;
use std::time::Duration;

use ringtribe_tests::build::{self, Flavour::Ringtribe};
use ringtribe_tests::debian;
use ringtribe_tests::http::{Answer, Browser, Call};
use ringtribe_tests::process::Patience;
use ringtribe_tests::story::{Cast, play};
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(30), pause: Duration::from_millis(20) };
const WITHIN: Duration = Duration::from_secs(10);

fn setup(name: &str, mcast_port: u16, attributes: &str) -> Setup {
    Setup {
        cluster: Some(one_element(attributes, "")),
        is_debian: true,
        ..Setup::new(name, Ringtribe, mcast_port)
    }
}

#[test]
fn debians_tomcat_lives_the_nine_steps() {
    if !debian::is_installed() {
        return;
    }
    let mcast_port = free_mcast_port();
    let [a, b] = ["node-a", "node-b"].map(|name| setup(name, mcast_port, ""));
    play(&Cast { a, b, c: None, waits: true, one_copy: false });
}

/// Of the cluster of the Engine, where the package's file has its place.
fn managed(node: &Tomcat, what: &str) -> String {
    let path = format!("/jmx?bean=Catalina:type=Cluster&{what}");
    node.ask(&mut Browser::default(), &path).expect("an answer").body
}

fn basket(node: &Tomcat, browser: &mut Browser) -> Answer {
    browser.get(node.address(), "/shop/basket").expect("an answer")
}

fn post(node: &Tomcat, browser: &mut Browser, path: &str, body: &str) -> u16 {
    let media = "application/x-www-form-urlencoded";
    let call = Call { method: "POST", path, media, body };
    browser.call(node.address(), &call, WITHIN).expect("an answer").status
}

#[test]
fn debians_tomcat_copies_a_login_and_is_drained() {
    if !debian::is_installed() {
        return;
    }
    let mcast_port = free_mcast_port();
    let read = |name: &str| {
        let file = build::root().join("tests/testdata/shop").join(name);
        fs::read_to_string(file).expect("a file of the shop")
    };
    let [a, b] = ["node-a", "node-b"].map(|name| {
        let mut setup = setup(name, mcast_port, "readyPath=\"/ready\"");
        setup.files = vec![
            ("../webapps/shop/WEB-INF/web.xml".into(), read("web.xml")),
            ("tomcat-users.xml".into(), read("tomcat-users.xml")),
        ];
        Tomcat::start(&setup).expect("it starts")
    });
    let version = a.log_from("Server version name:").expect("the package logs it");
    println!("{version}");
    let engine = a.log_from("Ringtribe engine open").expect("a line");
    println!("{}", engine.split(',').next().unwrap_or_default());

    // The login page of one node, the password to the other, the basket of both.
    let mut browser = Browser::default();
    let asked = basket(&a, &mut browser);
    assert!(asked.body.contains("id=login"), "{asked:?}");
    let form = "j_username=maria&j_password=open+sesame+%26+more";
    assert_eq!(post(&b, &mut browser, "/shop/j_security_check", form), 303);
    for (node, item) in [(&b, "apples"), (&a, "pears")] {
        let page = basket(node, &mut browser);
        assert!(page.body.contains("<span id=user>maria"), "{page:?}");
        assert_eq!(post(node, &mut browser, "/shop/basket", &format!("item={item}")), 302);
    }
    let page = basket(&b, &mut browser).body;
    let items: Vec<&str> = page.split("<li class=item>").skip(1).collect();
    assert!(items.len() == 2 && items[0] == "apples" && items[1].starts_with("pears"), "{page}");

    let ready =
        |node: &Tomcat| Browser::default().get(node.address(), "/ready").expect("an answer").status;
    assert_eq!((ready(&a), ready(&b)), (200, 200));
    managed(&a, "call=stopAccepting");
    assert_eq!((ready(&a), ready(&b)), (503, 200));
    assert_eq!(post(&a, &mut browser, "/shop/basket", "item=plums"), 302);
    PATIENCE.until("A may be stopped", || managed(&a, "get=safeToStop") == "true");
    a.stop().expect("A stops in order");
    let page = basket(&b, &mut browser).body;
    assert!(
        page.contains("<span id=user>maria") && page.contains("<li class=item>plums"),
        "{page}"
    );
    b.stop().expect("B stops in order");
}
