//! A server.xml of 2007 made one of today: the first user's file whole, what each thing became, and
//! that nothing else is touched.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use ringtribe::config::{Config, ReplicationMode};
use ringtribe::server_xml::ServerXmlError;
use ringtribe::server_xml::migrate::{Line, MigrateError, Migrated, Row, Surroundings, migrate};
use ringtribe::server_xml::read;
use roxmltree::{Document, Node};

const SEED: &str = include_str!("../../tests/testdata/seed-server.xml");
const LINES: [Line; 3] = [Line::V9_0, Line::V10_1, Line::V11_0];
const CLUSTER: &str = "org.ringtribe.tomcat.RingtribeCluster";

/// A machine without randomness unless it has a secret, whose addresses are those of 10.0.0.x.
#[derive(Default)]
struct Machine {
    secret: Option<&'static str>,
    not_copied: Vec<(String, String)>,
}

impl Surroundings for Machine {
    fn secret(&self) -> std::io::Result<String> {
        let none = || std::io::Error::other("no randomness here");
        self.secret.map(str::to_owned).ok_or_else(none)
    }

    fn is_here(&self, address: IpAddr) -> bool {
        address.is_unspecified() || address.to_string().starts_with("10.0.0.")
    }

    fn not_copied(&self, app_base: &str) -> Vec<(String, String)> {
        assert_eq!(app_base, "webapps");
        self.not_copied.clone()
    }
}

const WITH_SECRET: Machine = Machine { secret: Some("0123abcd"), not_copied: Vec::new() };

fn migrated(text: &str, to: Line) -> Migrated {
    migrate(text, to, &WITH_SECRET).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A whole file around what stands in the Service.
fn file(service: &str) -> String {
    format!("<Server>\n<Service name=\"Catalina\">\n{service}\n</Service>\n</Server>\n")
}

fn host(inside: &str) -> String {
    file(&format!("<Engine>\n<Host appBase=\"webapps\">\n{inside}\n</Host>\n</Engine>"))
}

fn attributes(document: &Document<'_>, path: &[&str]) -> BTreeMap<String, String> {
    let mut node: Node<'_, '_> = document.root();
    for name in path {
        node = node.children().find(|child| child.has_tag_name(*name)).expect(name);
    }
    node.attributes().map(|a| (a.name().to_owned(), a.value().to_owned())).collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn row<'r>(out: &'r Migrated, was: &str) -> &'r Row {
    let found: Vec<_> = out.rows.iter().filter(|row| row.was.contains(was)).collect();
    assert!(!found.is_empty(), "no row of {was}: {:#?}", out.rows);
    found[0]
}

#[test]
fn the_first_users_file_keeps_every_value() {
    for to in LINES {
        let out = migrated(SEED, to);
        let document = Document::parse(&out.text).expect("XML");
        let engine = ["Server", "Service", "Engine"];
        let below = |names: &[&'static str]| {
            attributes(&document, &[&engine[..], &["Host"], names].concat())
        };
        let cluster = [
            ("className", CLUSTER),
            ("managerClassName", "org.ringtribe.tomcat.RingtribeDeltaManager"),
            ("expireSessionsOnShutdown", "false"),
            ("useDirtyFlag", "true"),
            ("notifyListenersOnReplication", "true"),
            ("mcastAddr", "224.0.0.5"),
            ("mcastPort", "46002"),
            ("mcastFrequency", "500"),
            ("mcastDropTime", "3000"),
            ("tcpListenAddress", "192.168.1.109"),
            ("tcpListenPort", "4002"),
            ("tcpSelectorTimeout", "100"),
            ("tcpThreadCount", "6"),
            ("replicationMode", "pooled"),
            ("ackTimeout", "15000"),
            ("waitForAck", "true"),
        ];
        assert_eq!(below(&["Cluster"]), expected(&cluster));
        let filter = r".*\.gif|.*\.js|.*\.jpg|.*\.png|.*\.htm|.*\.html|.*\.css|.*\.txt";
        let valve = "org.ringtribe.tomcat.RingtribeReplicationValve";
        let valve = expected(&[("className", valve), ("filter", filter)]);
        assert_eq!(below(&["Cluster", "Valve"]), valve);
        let deployer = [
            ("className", "org.ringtribe.tomcat.RingtribeFarmWarDeployer"),
            ("tempDir", "/tmp/war-temp/"),
            ("deployDir", "/tmp/war-deploy/"),
            ("watchDir", "/tmp/war-listen/"),
            ("watchEnabled", "false"),
        ];
        assert_eq!(below(&["Cluster", "Deployer"]), expected(&deployer));
        let listener = "org.apache.catalina.ha.session.ClusterSessionListener";
        let listener = expected(&[("className", listener)]);
        assert_eq!(below(&["Cluster", "ClusterListener"]), listener);
        let host = [
            ("name", "localhost"),
            ("appBase", "webapps"),
            ("unpackWARs", "true"),
            ("autoDeploy", "true"),
        ];
        assert_eq!(below(&[]), expected(&host));
        let log = [
            ("className", "org.apache.catalina.valves.AccessLogValve"),
            ("directory", "/backup/app_log/tomcat/"),
            ("prefix", "localhost_access_log."),
            ("suffix", ".txt"),
            ("pattern", "combined"),
        ];
        assert_eq!(below(&["Valve"]), expected(&log));
        let connectors: Vec<_> =
            document.descendants().filter(|node| node.has_tag_name("Connector")).collect();
        let said = |node: Node<'_, '_>, name| node.attribute(name).map(str::to_owned);
        assert_eq!(connectors.len(), 2);
        let http = connectors[0];
        for (name, value) in [
            ("port", "8080"),
            ("maxHttpHeaderSize", "8192"),
            ("maxThreads", "1024"),
            ("minSpareThreads", "150"),
            ("enableLookups", "false"),
            ("redirectPort", "8443"),
            ("acceptCount", "100"),
            ("connectionTimeout", "20000"),
            ("disableUploadTimeout", "true"),
        ] {
            assert_eq!(said(http, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(http.attributes().len(), 9);
        assert_eq!(said(connectors[1], "secret").as_deref(), Some("0123abcd"));
        assert_eq!(said(connectors[1], "address").as_deref(), Some("0.0.0.0"));
        assert_eq!(connectors[1].attributes().len(), 6);
        assert_eq!(out.secret.as_deref(), Some("0123abcd"));
        for gone in ["Membership", "Receiver", "Sender"] {
            assert!(!document.descendants().any(|node| node.has_tag_name(gone)), "{gone}");
        }
    }
}

/// Each attribute of a document as element, name and value.
fn all_of(text: &str) -> Vec<(String, String, String)> {
    let document = Document::parse(text).expect("XML");
    let elements = document.descendants().filter(Node::is_element);
    elements
        .flat_map(|node| {
            let element = node.tag_name().name().to_owned();
            node.attributes().map(move |attribute| {
                (element.clone(), attribute.name().to_owned(), attribute.value().to_owned())
            })
        })
        .collect()
}

#[test]
fn nothing_of_the_first_users_file_goes_without_a_row() {
    let removed = [
        (5, "<Listener className=\"org.apache.catalina.mbeans.ServerLifecycleListener\">"),
        (11, "maxSpareThreads=\"300\""),
        (17, "xmlValidation=\"false\""),
        (17, "xmlNamespaceAware=\"false\""),
        (23, "<Membership className="),
        (28, "<Receiver className="),
        (33, "<Sender className="),
        (48, "resolveHosts=\"false\""),
    ];
    let warned = [
        (7, "StoreConfigLifecycleListener", "catalina-storeconfig.jar"),
        (24, "mcastAddr=\"224.0.0.5\"", "OSPF"),
        (29, "tcpListenAddress=\"192.168.1.109\"", "not an address of this machine"),
    ];
    for to in LINES {
        let out = migrated(SEED, to);
        let gone: Vec<_> = out.rows.iter().filter(|row| row.is.is_none()).collect();
        assert_eq!(gone.len(), removed.len(), "{gone:#?}");
        for (found, (line, was)) in gone.iter().zip(removed) {
            assert_eq!(found.line, line, "{was}");
            assert!(found.was.contains(was), "{was}: {found:?}");
        }
        for (line, what, why) in warned {
            let stays = |row: &&Row| row.is.as_ref() == Some(&row.was) && row.was.contains(what);
            let found: Vec<_> = out.rows.iter().filter(stays).collect();
            assert_eq!(found.len(), 1, "{what}");
            assert!(found[0].line == line && found[0].why.contains(why), "{:?}", found[0]);
        }
        // By the documents, not by the table: whatever is no more has a row that shows it.
        let after = all_of(&out.text);
        for old in all_of(SEED) {
            let (element, name, value) = &old;
            let as_attribute = format!("<{element}> {name}=\"{value}\"");
            let as_class = format!("<{element} {name}=\"{value}\"");
            let has_row = out
                .rows
                .iter()
                .any(|row| row.was == as_attribute || row.was.starts_with(&as_class));
            assert!(after.contains(&old) || has_row, "{as_attribute} went without a row");
        }
        let jakarta = out.rows.iter().any(|row| row.why.contains("jakarta"));
        assert_eq!(jakarta, to != Line::V9_0);
        assert!(out.rows.iter().all(|row| !row.why.is_empty()));
        assert!(out.rows.is_sorted_by_key(|row| row.line));
    }
}

#[test]
fn what_comes_out_needs_no_second_migration_and_the_engine_reads_it() {
    for to in LINES {
        let once = migrated(SEED, to);
        let twice = migrate(&once.text, to, &Machine::default()).expect("it needs no secret");
        assert_eq!(twice.text, once.text);
        let is_warning = |row: &Row| row.is.as_ref() == Some(&row.was);
        assert!(twice.rows.iter().all(is_warning), "{:#?}", twice.rows);
        let (mut before, mut after) = (Config::default(), Config::default());
        read(SEED, &mut before).expect("the old one");
        read(&once.text, &mut after).expect("the new one");
        assert_eq!(after, before);
        assert_eq!(after.replication_mode, ReplicationMode::Pooled);
    }
}

/// What is written today, with the things that a change must not touch.
const MODERN: &str = r#"<?xml version='1.0' encoding='UTF-8'?>
<!-- <Cluster className="org.apache.catalina.cluster.tcp.SimpleTcpCluster"/> is only spoken of -->
<Server port="8005" shutdown="SHUTDOWN" >
	<Listener className='org.apache.catalina.startup.VersionLoggerListener'  />
  <Service   name="Catalina">
    <Connector port="8080" protocol="HTTP/1.1"
               connectionTimeout="20000"
               redirectPort="8443" maxParameterCount="1000" />
    <Connector port="8443" protocol="org.apache.coyote.http11.Http11NioProtocol" SSLEnabled="true">
      <SSLHostConfig><Certificate certificateKeystoreFile="conf/a&amp;b.jks" /></SSLHostConfig>
    </Connector>
    <Connector protocol="AJP/1.3" address="::1" port="8009" secretRequired="false" />
    <Connector protocol="AJP/1.3" address="10.0.0.3" port="8010" secret="x" />
    <Engine name="Catalina" defaultHost="localhost">
      <Realm className="org.apache.catalina.realm.LockOutRealm"><!-- kept -->
      </Realm>
      <Host name="localhost"  appBase="webapps" unpackWARs="true" autoDeploy="true">
        <Cluster className="org.apache.catalina.ha.tcp.SimpleTcpCluster" channelSendOptions="6">
          <Manager className="org.apache.catalina.ha.session.DeltaManager"/>
          <Channel className="org.apache.catalina.tribes.group.GroupChannel">
            <Membership className="org.apache.catalina.tribes.membership.McastService"
                        address="228.0.0.4" port="45564" frequency="500" dropTime="3000"/>
            <Receiver address="auto" port="4000"/>
            <Sender><Transport/></Sender>
          </Channel>
          <Valve className="org.apache.catalina.ha.tcp.ReplicationValve" filter=".*\.gif|.*;x"/>
          <Valve className="org.apache.catalina.valves.RemoteAddrValve" allow="10\.\d{1,3}\..*"/>
        </Cluster>
      </Host>
    </Engine>
  </Service>
</Server>
"#;

#[test]
fn a_modern_file_comes_out_as_it_went_in() {
    let modern = MODERN.replace("|.*;x", "|.*\\.x").replace("\"::1\"", "\"10.0.0.1\"");
    for to in LINES {
        for text in [
            modern.clone(),
            modern.replace('\n', "\r\n"),
            format!("\u{feff}{modern}"),
            modern
                .replace("ha.tcp.SimpleTcpCluster", "none")
                .replace("org.apache.catalina.none", CLUSTER),
        ] {
            let out = migrate(&text, to, &Machine::default()).expect("nothing to do");
            assert_eq!(out.rows, [], "{to}");
            assert_eq!(out.text, text);
            assert_eq!(out.secret, None);
        }
        // And that this file would show it if something were touched.
        let out = migrate(MODERN, to, &Machine::default()).expect("no secret is needed");
        assert_eq!(out.rows.len(), 2, "{:#?}", out.rows);
        assert!(out.text.contains(r#"filter=".*\.gif|.*|x""#));
        assert_eq!(out.text.replace(".*|x", ".*;x"), MODERN);
    }
}

#[test]
fn comments_and_what_is_between_stay() {
    let text = host(concat!(
        "  <!-- above -->\r\n",
        "  <Cluster className=\"org.apache.catalina.cluster.tcp.SimpleTcpCluster\"><!-- in -->\r\n",
        "    <!-- of the group -->\r\n",
        "    <Membership mcastAddr='228.0.0.9'><!-- inside -->\r\n    <!-- and more --></Membership>",
        " <!-- behind -->\r\n",
        "    <Receiver tcpListenPort=\"4002\" tcpListenAddress='10.0.0.7'/>   \r\n",
        "    text <Sender\r\n replicationMode = \"pooled\" /> more\r\n",
        "  </Cluster>"
    ));
    let out = migrated(&text, Line::V9_0);
    let whole = host(&format!(
        "{}{}{}",
        "  <!-- above -->\r\n",
        format_args!(
            "  <Cluster className=\"{CLUSTER}\"\r\n           mcastAddr=\"228.0.0.9\"\r\n           \
             tcpListenPort=\"4002\"\r\n           tcpListenAddress=\"10.0.0.7\"\r\n           \
             replicationMode=\"pooled\"><!-- in -->\r\n"
        ),
        concat!(
            "    <!-- of the group -->\r\n",
            "    <!-- inside -->\r\n    <!-- and more --> <!-- behind -->\r\n",
            "    text  more\r\n",
            "  </Cluster>"
        )
    ));
    assert_eq!(out.text, whole);
}

#[test]
fn what_broken_files_say() {
    let refused = |text: &str| migrate(text, Line::V10_1, &WITH_SECRET).expect_err(text);
    let error = refused(&host("<Cluster>\n<Membership></Cluster>"));
    let MigrateError::Refused(ServerXmlError::NotXml { line, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(*line, 6);
    assert!(error.to_string().contains("line 6"), "{error}");
    let error = refused("<?xml version=\"1.0\"?>\n<web-app/>");
    assert!(
        error.to_string().contains("<web-app> at line 2; give a file with a <Server>"),
        "{error}"
    );
    let error = refused("<!DOCTYPE Server [<!ENTITY a 'b'>]><Server/>");
    assert!(matches!(error, MigrateError::Refused(ServerXmlError::Doctype)), "{error}");
    let twice = "<Cluster>\n<Membership mcastPort=\"1\"/>\n<Membership mcastPort=\"2\"/></Cluster>";
    let error = refused(&host(twice)).to_string();
    assert!(error.contains("line 7, Cluster/Membership: mcastPort=\"2\""), "{error}");
    assert!(error.contains("line 6 says mcastPort=\"1\"; leave one of them out"), "{error}");
    let ajp = file("<Connector port=\"8009\" protocol=\"AJP/1.3\"/>");
    let error = migrate(&ajp, Line::V10_1, &Machine::default()).expect_err("no secret");
    let text = error.to_string();
    assert!(text.contains("line 3") && text.contains("give it one: secret="), "{text}");
}

#[test]
fn words_go_where_they_are_understood() {
    let text = host(concat!(
        "<Cluster className=\"org.apache.catalina.cluster.tcp.SimpleTcpCluster\" doClusterLog=\"true\"",
        " manager.checkInterval=\"9\" manager.maxActiveSessions=\"7\" tcpListenPort=\"4002\">\n",
        "<Membership address=\"228.0.0.9\" mcastSoTimeout=\"1\" mcastTTL=\"2\" mcastAdr=\"x\"/>\n",
        "<Receiver port=\"4001\" compress=\"true\" tcpListenPort=\"4002\"/>\n",
        "<Sender timeout=\"3000\" compress=\"false\" keepAliveTimeout=\"5\" maxQueueLength=\"3\"/>\n",
        "<Valve className=\"org.apache.catalina.cluster.session.JvmRouteBinderValve\"/>\n",
        "<ClusterListener ",
        "className=\"org.apache.catalina.cluster.session.JvmRouteSessionIDBinderListener\"/>\n",
        "<Valve className=\"org.apache.catalina.cluster.our.OwnValve\"/>\n",
        "</Cluster>"
    ));
    let out = migrated(&text, Line::V11_0);
    let document = Document::parse(&out.text).expect("XML");
    let cluster = attributes(&document, &["Server", "Service", "Engine", "Host", "Cluster"]);
    let words = [
        ("className", CLUSTER),
        ("manager.maxActiveSessions", "7"),
        ("tcpListenPort", "4002"),
        ("membership.address", "228.0.0.9"),
        ("mcastTTL", "2"),
        ("receiver.port", "4001"),
        ("sender.timeout", "3000"),
    ];
    assert_eq!(cluster, expected(&words));
    for (gone, why) in [
        ("doClusterLog", "Tomcat's"),
        ("manager.checkInterval", "Context"),
        ("mcastSoTimeout", "without effect"),
        ("mcastAdr", "did it mean mcastAddr?"),
        ("compress", "GzipInterceptor"),
        ("keepAliveTimeout", "stay open"),
        ("maxQueueLength", "bounded in bytes"),
        ("JvmRouteSessionIDBinderListener", "needs no listener"),
    ] {
        let row = row(&out, gone);
        assert!(row.is.is_none() && row.why.contains(why), "{row:?}");
    }
    assert_eq!(out.rows.iter().filter(|row| row.was.contains("compress=")).count(), 2);
    let own = row(&out, "our.OwnValve");
    assert!(own.is.as_ref() == Some(&own.was) && own.why.contains("will not start"), "{own:?}");
    assert!(
        out.text
            .contains("<Valve className=\"org.apache.catalina.ha.session.JvmRouteBinderValve\"/>")
    );
    assert!(!out.text.contains("ClusterListener"));
}

#[test]
fn other_things_that_are_gone() {
    let text = host(concat!(
        "<Valve className=\"org.apache.catalina.valves.FastCommonAccessLogValve\" pattern=\"common\"/>\n",
        "<Logger className=\"org.apache.catalina.logger.FileLogger\"/>\n",
        "<Valve className=\"org.apache.catalina.valves.RemoteAddrValve\" allow=\"127.0.0.1,10.*,&amp;&lt;\"/>\n",
        "<Realm className=\"org.apache.catalina.realm.JDBCRealm\" debug=\"9\"/>"
    ));
    for to in LINES {
        let out = migrated(&text, to);
        let log =
            "<Valve className=\"org.apache.catalina.valves.AccessLogValve\" pattern=\"common\"/>";
        assert!(out.text.contains(log), "{}", out.text);
        assert_eq!(row(&out, "FastCommon").line, 5);
        assert!(!out.text.contains("Logger"));
        assert_eq!(row(&out, "FileLogger").is, None);
        assert!(out.text.contains("allow=\"127.0.0.1|10.*|&amp;&lt;\""));
        assert_eq!(row(&out, "debug=\"9\"").is, None);
        let realm = out.rows.iter().any(|row| row.why.contains("DataSourceRealm"));
        assert_eq!(realm, to != Line::V9_0, "9.0 has it yet");
    }
}

#[test]
fn tls_of_2007_goes_where_each_line_has_it() {
    let text = file(concat!(
        "    <Connector port=\"8443\" scheme=\"https\" secure=\"true\" clientAuth=\"want\"\n",
        "               sslProtocol=\"TLS\" keystoreFile=\"a&amp;b.jks\" keystorePass='it\"s'/>"
    ));
    let old = migrated(&text, Line::V9_0);
    let connector = "keystorePass='it\"s' SSLEnabled=\"true\"/>";
    assert!(old.text.contains(connector), "{}", old.text);
    assert_eq!(old.rows.len(), 1);
    for to in [Line::V10_1, Line::V11_0] {
        let out = migrated(&text, to);
        let expected = file(concat!(
            "    <Connector port=\"8443\" scheme=\"https\" secure=\"true\" SSLEnabled=\"true\">\n",
            "      <SSLHostConfig certificateVerification=\"optional\" sslProtocol=\"TLS\">\n",
            "        <Certificate certificateKeystoreFile=\"a&amp;b.jks\" ",
            "certificateKeystorePassword='it\"s'/>\n",
            "      </SSLHostConfig>\n",
            "    </Connector>"
        ));
        assert!(!out.rows.iter().any(|row| format!("{row:?}").contains("it\\\"s")), "a password");
        // A gap with a line end before it stays where the last attribute stood.
        let without_gaps = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(without_gaps(&out.text), without_gaps(&expected));
        assert_eq!(out.rows.len(), 5);
    }
}

#[test]
fn applications_that_are_not_copied_are_named() {
    let shop = ("shop".to_owned(), "no <distributable/>".to_owned());
    let machine = Machine { not_copied: vec![shop], ..Machine::default() };
    let clustered = host("<Cluster className=\"org.ringtribe.tomcat.RingtribeCluster\"/>");
    let out = migrate(&clustered, Line::V10_1, &machine).expect("a file");
    assert_eq!(out.text, clustered);
    assert_eq!(out.rows.len(), 1);
    assert!(
        out.rows[0].line == 4 && out.rows[0].was.contains("application shop"),
        "{:?}",
        out.rows
    );
    let alone = migrate(&host(""), Line::V10_1, &machine).expect("a file");
    assert_eq!(alone.rows, [], "without a cluster nobody expects copies");
}

const JAVA_WORDS: &str =
    include_str!("../../ffi/java/src/main/java/org/ringtribe/tomcat/Words.java");
const JAVA_CLASSES: &str =
    include_str!("../../ffi/java/src/main/java/org/ringtribe/tomcat/OldClasses.java");

/// The strings of a piece of Java.
fn strings(java: &str) -> impl Iterator<Item = &str> {
    java.split('"').skip(1).step_by(2)
}

#[test]
fn the_words_are_those_that_the_cluster_element_takes() {
    let not_on_cluster = JAVA_WORDS.split("NOT_ON_CLUSTER = ").nth(1).expect("the set");
    let not_on_cluster: Vec<&str> =
        strings(not_on_cluster.split(';').next().expect("its end")).collect();
    let mut words_count = 0;
    for part in ["Membership", "Receiver", "Sender"] {
        let start = format!("new Words(\"{part}\")");
        let words = JAVA_WORDS.split(start.as_str()).nth(1).expect(part);
        let words = words.split(";\n").next().expect("its end");
        let steps = words.split("\n            .").skip(1);
        for (step, name) in steps.flat_map(|step| strings(step).map(move |name| (step, name))) {
            // Reasons are sentences.
            if name.contains(' ') {
                continue;
            }
            let out = migrated(
                &host(&format!("<Cluster>\n<{part} {name}=\"1\"/></Cluster>")),
                Line::V10_1,
            );
            let row = row(&out, &format!("<{part}> {name}="));
            if step.starts_with("without") {
                assert!(row.is.is_none() && row.why.contains("without effect"), "{row:?}");
            } else {
                let prefix = if not_on_cluster.contains(&name) {
                    format!("{}.", part.to_lowercase())
                } else {
                    String::new()
                };
                let is = format!("<Cluster> {prefix}{name}=\"1\"");
                assert_eq!(row.is.as_ref(), Some(&is), "{part}");
            }
            words_count += 1;
        }
    }
    assert!(words_count > 60, "{words_count} words are read of {}", JAVA_WORDS.len());
}

#[test]
fn the_classes_are_those_that_the_config_file_gets() {
    let mut classes_count = 0;
    for line in JAVA_CLASSES.lines().filter(|line| line.contains("TODAY.put(OLD")) {
        let mut names = strings(line);
        let old = format!("org.apache.catalina.cluster.{}", names.next().expect("the old name"));
        let today = match names.next() {
            Some(name) => format!("org.apache.catalina.ha.{name}"),
            None if line.contains("ManagerWords.standard()") => {
                "org.ringtribe.tomcat.RingtribeDeltaManager".to_owned()
            }
            None => {
                let class = line.split(", ").nth(1).and_then(|rest| rest.split(".class").next());
                format!("org.ringtribe.tomcat.{}", class.expect("a class"))
            }
        };
        if ["Cluster", "Membership", "Receiver", "Sender"].iter().any(|part| today.ends_with(part))
        {
            continue;
        }
        let out = migrated(&host(&format!("<Valve className=\"{old}\"/>")), Line::V9_0);
        assert!(out.text.contains(&format!("className=\"{today}\"")), "{old}: {}", out.text);
        classes_count += 1;
    }
    assert_eq!(classes_count, 7);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is taken out of or put between the parts of the old file: XML comes out, comments
    /// stay, and a second run finds nothing more to change.
    #[test]
    fn any_part_of_the_old_file_migrates(
        kept in proptest::collection::vec(any::<bool>(), 60),
        comment in "[a-zA-Z<>&;=\"' \n]{0,20}",
        to in proptest::sample::select(LINES.to_vec()),
    ) {
        let mut text = String::new();
        let mut comments_count = 0;
        let document = Document::parse(SEED).expect("XML");
        let parts: Vec<_> = document
            .descendants()
            .filter(|node| node.is_element() && !node.has_children())
            .collect();
        let mut done = 0;
        for (part, kept) in parts.iter().zip(&kept) {
            text.push_str(&SEED[done..part.range().start]);
            if *kept {
                text.push_str(&SEED[part.range()]);
            } else {
                text.push_str(&format!("<!--{comment}-->"));
                comments_count += 1;
            }
            done = part.range().end;
        }
        text.push_str(&SEED[done..]);
        let out = migrated(&text, to);
        let comments = |text: &str| {
            let document = Document::parse(text).expect("XML");
            document.descendants().filter(Node::is_comment).count()
        };
        prop_assert_eq!(comments(&out.text), comments_count + 1);
        let again = migrated(&out.text, to);
        prop_assert_eq!(again.text, out.text);
    }
}
