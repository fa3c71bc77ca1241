//! Ways to keep sessions that are not the cluster's, in other applications of its Host: they work as
//! without it.

use std::time::Duration;

use ringtribe_tests::build::{Flavour::Ringtribe, root, run_directory};
use ringtribe_tests::http::Browser;
use ringtribe_tests::postgres::Postgres;
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(30), pause: Duration::from_millis(50) };

const TABLE: &str = "create table tomcat_sessions (session_id varchar(100) primary key, \
    app_name varchar(255), valid_session char(1), max_inactive int, last_access bigint, \
    session_data bytea)";

/// The applications beside the clustered one: name, and what its Context has.
type Applications = Vec<(&'static str, String)>;

fn persistent(store: &str) -> String {
    format!(
        "<Manager className=\"org.apache.catalina.session.PersistentManager\" maxIdleBackup=\"0\" \
         processExpiresFrequency=\"1\">{store}</Manager>"
    )
}

fn file_store(directory: &str) -> String {
    persistent(&format!(
        "<Store className=\"org.apache.catalina.session.FileStore\" directory=\"{directory}\"/>"
    ))
}

fn data_source_store(port: u16) -> String {
    let store = "<Store className=\"org.apache.catalina.session.DataSourceStore\" \
        dataSourceName=\"jdbc/sessions\" localDataSource=\"true\" sessionTable=\"tomcat_sessions\" \
        sessionIdCol=\"session_id\" sessionAppCol=\"app_name\" sessionValidCol=\"valid_session\" \
        sessionMaxInactiveCol=\"max_inactive\" sessionLastAccessedCol=\"last_access\" \
        sessionDataCol=\"session_data\"/>";
    format!(
        "<Resource name=\"jdbc/sessions\" type=\"org.postgresql.ds.PGSimpleDataSource\" \
         factory=\"org.postgresql.ds.common.PGObjectFactory\" serverName=\"127.0.0.1\" \
         portNumber=\"{port}\" databaseName=\"postgres\" user=\"ringtribe\"/>{}",
        persistent(store)
    )
}

fn setup(name: &str, mcast_port: u16, applications: &Applications) -> Setup {
    let web = std::fs::read_to_string(root().join("tests/testdata/web.xml")).expect("the web.xml");
    let plain = web.replace("<distributable/>", "");
    let mut files = Vec::new();
    for (application, context) in applications {
        let of = |file: &str| format!("../webapps/{application}/{file}");
        files.push((of("WEB-INF/web.xml"), plain.clone()));
        files.push((of("META-INF/context.xml"), format!("<Context>{context}</Context>")));
    }
    Setup {
        cluster: Some(one_element("", "")),
        properties: vec![("org.ringtribe.test.naming".into(), "true".into())],
        files,
        ..Setup::new(name, Ringtribe, mcast_port)
    }
}

fn ask(node: &Tomcat, browser: &mut Browser, path: &str) -> String {
    let answer = browser.get(node.address(), path).expect("an answer");
    format!("{} {}", answer.status, answer.body)
}

#[test]
fn persistent_managers_beside_the_cluster_work_as_without_it() {
    let mcast_port = free_mcast_port();
    let directory = run_directory().join(format!("{}-{mcast_port}-store", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory that both nodes see");
    let mut applications = vec![("file", file_store(&directory.display().to_string()))];
    let postgres = Postgres::start().expect("it starts where it is installed");
    if let Some(server) = &postgres {
        server.run(TABLE).expect("a table");
        applications.push(("database", data_source_store(server.port())));
    } else {
        println!("skipped: DataSourceStore (no PostgreSQL: apt-get install -y postgresql)");
    }
    let a = Tomcat::start(&setup("node-a", mcast_port, &applications)).expect("A starts");
    let b = Tomcat::start(&setup("node-b", mcast_port, &applications)).expect("B starts");
    let mut clustered = Browser::default();
    assert_eq!(ask(&a, &mut clustered, "/app/s/set?k=x&v=copied"), "200 copied");
    let mut stored = Vec::new();
    for (application, _) in &applications {
        let mut browser = Browser::default();
        let path = format!("/{application}/s/set?k=x&v=kept");
        assert_eq!(ask(&a, &mut browser, &path), "200 kept");
        let id = browser.session().expect("a session").to_owned();
        let is_stored = || match (&postgres, *application) {
            (Some(server), "database") => {
                let query = format!("select count(*) from tomcat_sessions where session_id='{id}'");
                server.run(&query).expect("an answer").trim() == "1"
            }
            _ => directory.join(format!("{id}.session")).exists(),
        };
        PATIENCE.until(&format!("{application}: its session stored"), is_stored);
        stored.push((*application, browser));
    }
    // What only A knew is in the store by now, and what the cluster copies is at B.
    a.kill().expect("A dies");
    assert_eq!(ask(&b, &mut clustered, "/app/s/get?k=x"), "200 copied");
    for (application, browser) in &mut stored {
        assert_eq!(ask(&b, browser, &format!("/{application}/s/get?k=x")), "200 kept");
    }
    // An orderly stop and start of the node itself.
    for (application, browser) in &mut stored {
        let path = format!("/{application}/s/set?k=x&v=again");
        assert_eq!(ask(&b, browser, &path), "200 again");
    }
    b.stop().expect("B stops");
    let b = Tomcat::start(&setup("node-b", mcast_port, &applications)).expect("B starts again");
    for (application, browser) in &mut stored {
        assert_eq!(ask(&b, browser, &format!("/{application}/s/get?k=x")), "200 again");
        let path = format!("/{application}/s/invalidate");
        assert_eq!(ask(&b, browser, &path), "200 gone");
    }
}
