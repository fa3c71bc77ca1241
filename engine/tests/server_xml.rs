//! server.xml: the first user's file of 2007, today's form, and what is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringtribe::config::{Config, ReplicationMode};
use ringtribe::server_xml::{MAX_FILE_BYTES, ServerXmlError, Summary, load, read, read_with};

fn file(cluster: &str) -> String {
    format!("<Server>\n<Service>\n<Engine>\n{cluster}\n</Engine>\n</Service>\n</Server>\n")
}

fn accepted(cluster: &str) -> (Config, Summary) {
    let mut config = Config::default();
    let summary = read(&file(cluster), &mut config).unwrap_or_else(|e| panic!("{cluster}: {e}"));
    (config, summary)
}

fn refused(text: &str) -> ServerXmlError {
    let mut config = Config::default();
    let error = read(text, &mut config).expect_err(text);
    assert_eq!(config, Config::default(), "nothing of a file that is refused");
    error
}

#[test]
fn the_words_of_2007_are_understood() {
    let mut config = Config::default();
    let text = include_str!("../../tests/testdata/seed-server.xml");
    let summary = read(text, &mut config).expect("the first user's file");
    config.check().expect("holds together");
    let expected = Config {
        mcast_addr: IpAddr::from([224, 0, 0, 5]),
        mcast_port: 46_002,
        mcast_frequency_ms: 500,
        mcast_drop_time_ms: 3_000,
        mcast_stated: true,
        tcp_listen_address: Some(IpAddr::from([192, 168, 1, 109])),
        tcp_listen_port: 4_002,
        tcp_selector_timeout_ms: 100,
        tcp_thread_count: 6,
        replication_mode: ReplicationMode::Pooled,
        ack_timeout_ms: 15_000,
        wait_for_ack: true,
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert_eq!(summary.cluster_line, 18);
    assert_eq!(summary.set.len(), 11);
    let text = summary.to_string();
    assert!(text.contains("line 25: mcastPort=\"46002\" from Cluster/Membership"), "{text}");
    let ignored: Vec<_> = summary.ignored.iter().map(|ignored| ignored.what.as_str()).collect();
    let words = [
        "managerClassName",
        "expireSessionsOnShutdown",
        "useDirtyFlag",
        "notifyListenersOnReplication",
        "<Valve>",
        "<Deployer>",
        "<ClusterListener>",
    ];
    assert_eq!(ignored, words);
    assert!(summary.ignored.iter().all(|ignored| !ignored.why.is_empty()));
}

#[test]
fn todays_words_are_understood() {
    let (config, summary) = accepted(
        r#"<Cluster className="org.ringtribe.tomcat.RingtribeCluster" channelSendOptions="6"
             clusterName="shop" maxReceiveBytes="1000000" colour="blue">
          <Channel className="org.apache.catalina.tribes.group.GroupChannel">
            <Membership address="228.0.0.9" port="45565" frequency="250" dropTime="2000"
                        bind="127.0.0.1" ttl="2" soTimeout="500" domain="shop"/>
            <Receiver address="auto" port="4100" autoBind="7" selectorTimeout="5000"
                      maxThreads="6" timeout="5000"/>
            <Sender><Transport timeout="9000" poolSize="12" maxRetryAttempts="1"/></Sender>
            <Interceptor className="TcpFailureDetector" connectTimeout="750" optionFlag="1"/>
            <Interceptor className="MessageDispatchInterceptor" maxQueueSize="123456"/>
            <Interceptor className="StaticMembershipInterceptor">
              <LocalMember className="StaticMember" domain="staging"/>
              <Member className="StaticMember" host="10.0.0.7" port="4001" securePort="-1"
                      uniqueId="{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}"/>
              <Member className="StaticMember" host="2001:db8::7" port="4002"/>
            </Interceptor>
          </Channel>
          <Manager className="DeltaManager" expireSessionsOnShutdown="false"/>
        </Cluster>"#,
    );
    assert_eq!(config.mcast_addr, IpAddr::from([228, 0, 0, 9]));
    assert_eq!((config.mcast_port, config.mcast_frequency_ms, config.mcast_ttl), (45_565, 250, 2));
    assert_eq!(config.mcast_drop_time_ms, 2_000);
    assert_eq!(config.mcast_bind_addr, Some(IpAddr::from([127, 0, 0, 1])));
    assert_eq!((config.tcp_listen_address, config.tcp_listen_port), (None, 4_100));
    assert_eq!((config.auto_bind, config.tcp_selector_timeout_ms), (7, 5_000));
    assert_eq!(
        (config.ack_timeout_ms, config.pool_size),
        (9_000, 12),
        "not the receiver's timeout"
    );
    assert_eq!((config.connect_timeout_ms, config.max_queue_bytes), (750, 123_456));
    assert_eq!((config.max_receive_bytes, config.cluster_name.as_str()), (1_000_000, "shop"));
    let members: Vec<_> = config
        .static_members
        .iter()
        .map(|member| (member.address.to_string(), member.unique_id.map(|id| id[15])))
        .collect();
    let expected =
        [("10.0.0.7:4001".to_owned(), Some(15)), ("[2001:db8::7]:4002".to_owned(), None)];
    assert_eq!(members, expected);
    assert!(config.uses_multicast(), "members besides the group, as in Tomcat");
    let place = |what: &str| {
        let found = summary.ignored.iter().find(|ignored| ignored.what == what);
        let found = found.unwrap_or_else(|| panic!("{what} in {summary}"));
        (found.line, found.element.as_str(), found.why.as_str())
    };
    let (line, element, why) = place("colour");
    assert_eq!((line, element), (5, "Cluster"));
    assert!(why.contains("nearest"), "{why}");
    assert_eq!(place("maxThreads").1, "Cluster/Channel/Receiver");
    assert_eq!(place("maxRetryAttempts").1, "Cluster/Channel/Sender/Transport");
    assert_eq!(place("<Manager>").1, "Cluster");
    for what in ["channelSendOptions", "domain", "timeout", "optionFlag", "securePort"] {
        place(what);
    }
    assert_eq!(place("<LocalMember>").1, "Cluster/Channel/Interceptor");
}

#[test]
fn static_members_alone_need_no_group() {
    let (config, _) = accepted(r#"<Cluster staticMembers="10.0.0.1:4000 10.0.0.2:4000"/>"#);
    assert_eq!(config.static_members.len(), 2);
    assert!(!config.uses_multicast());
    let (config, _) = accepted(
        r#"<Cluster><Channel><Membership className="StaticMembershipService">
             <Member host="10.0.0.1" port="4000"/></Membership></Channel></Cluster>"#,
    );
    assert!(!config.uses_multicast());
}

#[test]
fn placeholders_come_from_properties_or_have_a_default() {
    let cluster =
        r#"<Cluster><Receiver address="${here}" port="${port:-4}00${digit:-7}"/></Cluster>"#;
    let text = file(cluster);
    let mut config = Config::default();
    let properties = BTreeMap::from([("here", "10.1.2.3"), ("digit", "9")])
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let summary = read_with(&text, &properties, &mut config).expect("all have values");
    assert_eq!(config.tcp_listen_address, Some(IpAddr::from([10, 1, 2, 3])));
    assert_eq!(config.tcp_listen_port, 4_009);
    assert_eq!(summary.set[1].value, "4009");
    let error = refused(&text).to_string();
    assert!(error.contains("address") && error.contains("-Dhere=VALUE"), "{error}");
    // What nobody reads needs no value.
    accepted(r#"<Cluster managerClassName="${unknown}"/>"#);
}

#[test]
fn what_is_wrong_names_its_place_and_the_remedy() {
    for (text, says) in [
        ("<Server>\n<Engine></Server>", &["not XML at line 2, column 9"][..]),
        ("", &["not XML"]),
        ("<Server><Engine/></Server>", &["no <Cluster>", "<Engine>", "commented out"]),
        ("<Cluster/>", &["no <Cluster>"]),
        (
            "<a><Engine>\n<Cluster/><Host>\n<Cluster/></Host></Engine></a>",
            &["line 2 and at line 3"],
        ),
        (
            &file("<Cluster>\n<Receiver\n tcpListenPort='70000'/></Cluster>"),
            &["line 6", "Cluster/Receiver", "tcpListenPort=\"70000\"", "1 to 65535"],
        ),
        (
            &file("<Cluster><Channel><Membership port='x'/></Channel></Cluster>"),
            &["Cluster/Channel/Membership", "port=\"x\"", "1 to 65535"],
        ),
        (
            &file("<Cluster><Membership mcastFreqency='5'/></Cluster>"),
            &["mcastFreqency=\"5\"", "did you mean mcastFrequency?"],
        ),
        (
            &file("<Cluster><Sender><Transport poolsize='5'/></Sender></Cluster>"),
            &["did you mean poolSize?"],
        ),
        (
            &file("<Cluster><Interceptor><Member port='4000'/></Interceptor></Cluster>"),
            &["line 4", "needs host and port"],
        ),
        (
            &file("<Cluster><Interceptor><Member host='a' port='4000'/></Interceptor></Cluster>"),
            &["a:4000", "in digits"],
        ),
        (&file("<Cluster><Receiver port='${'/></Cluster>"), &["port=\"${\""]),
    ] {
        let error = refused(text).to_string();
        for part in says {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }
}

#[test]
fn bombs_and_oddities_are_survived() {
    let mut laughs = "<!DOCTYPE lolz [<!ENTITY lol0 'lol'>".to_owned();
    for level in 1..10 {
        let ten = format!("&lol{};", level - 1).repeat(10);
        laughs += &format!("<!ENTITY lol{level} '{ten}'>");
    }
    laughs += "]><Engine><Cluster clusterName='&lol9;'/></Engine>";
    assert!(matches!(refused(&laughs), ServerXmlError::Doctype), "{}", refused(&laughs));
    let other_file = "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><Engine>&e;</Engine>";
    assert!(matches!(refused(other_file), ServerXmlError::Doctype));
    let long = format!("<Engine>{}</Engine>", " ".repeat(MAX_FILE_BYTES));
    assert!(refused(&long).to_string().contains("1048576"));
    // Deep, and many.
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert!(matches!(refused(&deep), ServerXmlError::NotXml { .. }));
    let deep = format!("{}{}", "<a>".repeat(90_000), "</a>".repeat(90_000));
    assert!(matches!(refused(&deep), ServerXmlError::NoCluster));
    let many = format!("<Engine>{}</Engine>", "<a/>".repeat(200_000));
    assert!(matches!(refused(&many), ServerXmlError::NotXml { .. }));
    let members: String = (0..2_000)
        .map(|n| format!("<Member host='10.0.{}.{}' port='1'/>", n / 250, n % 250))
        .collect();
    let error = refused(&file(&format!("<Cluster><Interceptor>{members}</Interceptor></Cluster>")));
    assert!(error.to_string().contains("at most 1024"), "{error}");
    accepted("<!-- <Cluster/> --><Cluster/>");
    let mut config = Config::default();
    read(&format!("\u{feff}{}", file("<Cluster/>")), &mut config).expect("a byte order mark");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let mut config = Config::default();
    let path = std::path::Path::new("/nowhere/conf/server.xml");
    let error = load(path, &mut config).expect_err("not there").to_string();
    assert!(
        error.contains("/nowhere/conf/server.xml") && error.contains("No such file"),
        "{error}"
    );
    let error = load(std::path::Path::new("/proc"), &mut config).expect_err("a directory");
    assert!(error.to_string().contains("/proc"), "{error}");
    // A file that never ends.
    let error = load(std::path::Path::new("/dev/zero"), &mut config).expect_err("zeroes");
    assert!(matches!(error, ServerXmlError::TooLong { .. }), "{error}");
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/testdata/seed-server.xml");
    load(std::path::Path::new(seed), &mut config).expect("the first user's file");
    assert_eq!(config.mcast_port, 46_002);
    let path = std::env::temp_dir().join(format!("ringtribe-latin-{}.xml", std::process::id()));
    std::fs::write(&path, b"<Engine name='caf\xe9'/>").expect("a file");
    let error = load(&path, &mut config).expect_err("not UTF-8").to_string();
    std::fs::remove_file(&path).expect("removed");
    assert!(error.contains("byte 17"), "{error}");
}
