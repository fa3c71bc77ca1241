//! A farm of real Tomcats, two with Ringtribe and one with stock's parts: WARs of sizes that matter,
//! both ways, undeployment, and nodes killed half-way.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringtribe_tests::build::{self, Flavour};
use ringtribe_tests::http::Browser;
use ringtribe_tests::process::Patience;
use ringtribe_tests::tomcat::{Setup, Tomcat, free_mcast_port, one_element};

const PATIENCE: Patience =
    Patience { within: Duration::from_secs(60), pause: Duration::from_millis(2) };
/// What one message of a farm carries.
const PIECE_BYTES: usize = 10_240;
const LARGE_BYTES: usize = 60 << 20;

const DEPLOYER: &str = "<Deployer className=\"org.apache.catalina.ha.deploy.FarmWarDeployer\" \
    tempDir=\"farm-temp\" deployDir=\"webapps\" watchDir=\"farm-watch\" watchEnabled=\"true\" \
    processDeployFrequency=\"1\"/>";
const STOCK: &str = "<Cluster className=\"org.apache.catalina.ha.tcp.SimpleTcpCluster\" \
    channelSendOptions=\"6\"><Manager className=\"org.apache.catalina.ha.session.DeltaManager\"/>\
    <Channel className=\"@CHANNEL@\"><Membership className=\"@MEMBERSHIP@\" address=\"228.0.0.4\" port=\"@MCAST_PORT@\" \
    bind=\"127.0.0.1\"/><Receiver className=\"@RECEIVER@\" address=\"127.0.0.1\" \
    port=\"@TCP_PORT@\"/><Sender className=\"@SENDER@\"/></Channel>@DEPLOYER@</Cluster>";

fn crc32(bytes: &[u8]) -> u32 {
    let byte = |mut crc: u32| {
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    };
    let table: Vec<u32> = (0..256).map(byte).collect();
    !bytes.iter().fold(!0, |crc, b| (crc >> 8) ^ table[((crc ^ u32::from(*b)) & 0xff) as usize])
}

/// An archive of these files, as they are.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut directory: Vec<u8> = Vec::new();
    let u32_of = |length: usize| u32::try_from(length).expect("small").to_le_bytes();
    let u16_of = |length: usize| u16::try_from(length).expect("small").to_le_bytes();
    for (name, content) in files {
        // Version, flags, method, time and date are all there is nothing to say of.
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc32(content).to_le_bytes());
        common.extend(u32_of(content.len()));
        common.extend(u32_of(content.len()));
        common.extend(u16_of(name.len()));
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(u32_of(out.len()));
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(common);
        out.extend(name.as_bytes());
        out.extend_from_slice(content);
    }
    let start = out.len();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend([u16_of(files.len()), u16_of(files.len())].concat());
    out.extend([u32_of(directory.len()), u32_of(start)].concat());
    out.extend([0, 0]);
    out
}

/// The application of the tests, of exactly so many bytes.
fn war(bytes: usize) -> Vec<u8> {
    let data = build::root().join("tests/testdata/web.xml");
    let web_xml = fs::read(data).expect("web.xml");
    let files = |padding: &[u8]| zip(&[("WEB-INF/web.xml", &web_xml), ("padding", padding)]);
    let mut state = 0x9e37_79b9_u32;
    let padding: Vec<u8> = (files(&[]).len()..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect();
    let whole = files(&padding);
    assert_eq!(whole.len(), bytes);
    whole
}

/// Puts it there as an administrator would: under another name first.
fn put(node: &Tomcat, name: &str, war: &[u8]) -> PathBuf {
    let directory = node.base().join("farm-watch");
    let written = directory.join(format!("{name}.uploading"));
    fs::write(&written, war).expect("written");
    let path = directory.join(format!("{name}.war"));
    fs::rename(written, &path).expect("renamed");
    path
}

fn is_served(node: &Tomcat, name: &str) -> bool {
    let answer = Browser::default().get(node.address(), &format!("/{name}/s/set?k=of&v={name}"));
    answer.is_ok_and(|answer| (answer.status, answer.body.as_str()) == (200, name))
}

fn names(directory: &Path) -> Vec<String> {
    let all = fs::read_dir(directory).expect("a directory");
    let names = all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

fn parts(node: &Tomcat) -> Vec<String> {
    let mut all = names(&node.base().join("farm-temp"));
    all.extend(
        names(&node.base().join("webapps")).into_iter().filter(|name| name.contains(".part")),
    );
    all
}

#[test]
fn wars_reach_every_node_and_nothing_is_left_of_half_of_one() {
    let mcast_port = free_mcast_port();
    let setup = |name: &str, flavour: Flavour| Setup {
        cluster: Some(
            if flavour == Flavour::Stock {
                STOCK.replace("@DEPLOYER@", DEPLOYER)
            } else {
                one_element("", DEPLOYER)
            }
            .replace("@MCAST_PORT@", &mcast_port.to_string()),
        ),
        ..Setup::new(name, flavour, mcast_port)
    };
    let of_b = setup("node-b", Flavour::Ringtribe);
    let a = Tomcat::start(&setup("node-a", Flavour::Ringtribe)).expect("A starts");
    let b = Tomcat::start(&of_b).expect("B starts");
    let c = Tomcat::start(&setup("node-c", Flavour::Stock)).expect("C starts");
    for directory in ["farm-temp", "farm-watch"] {
        // Stock does not make them.
        fs::create_dir_all(c.base().join(directory)).expect("a directory");
    }

    let large = war(LARGE_BYTES);
    let begun = Instant::now();
    for (name, bytes) in [("small", PIECE_BYTES), ("whole", 4 * PIECE_BYTES), ("odd", 25_000)] {
        put(&a, name, &war(bytes));
    }
    let of_large = put(&a, "large", &large);
    for name in ["small", "whole", "odd", "large"] {
        for node in [&a, &b, &c] {
            PATIENCE.until(&format!("{name} at {:?}", node.base()), || is_served(node, name));
        }
    }
    println!("four WARs, one of 60 MiB, served by three nodes after {:?}", begun.elapsed());
    assert_eq!(fs::read(b.base().join("webapps/large.war")).expect("it is there"), large);

    // Stock never sends the end of this one, and never takes it from another.
    put(&c, "stocks", &war(3 * PIECE_BYTES));
    for node in [&a, &b, &c] {
        PATIENCE.until(&format!("stocks at {:?}", node.base()), || is_served(node, "stocks"));
    }

    fs::remove_file(of_large).expect("it was there");
    for node in [&a, &b, &c] {
        PATIENCE.until(&format!("undeployed at {:?}", node.base()), || !is_served(node, "large"));
        assert!(is_served(node, "small"));
    }
    assert_eq!((parts(&a), parts(&b)), (vec![], vec![]));

    // A receiver is killed half-way; the others get it, and it has nothing of it when it is back.
    put(&a, "second", &large);
    PATIENCE.until("a part at B", || !parts(&b).is_empty());
    b.kill().expect("B runs");
    PATIENCE.until("second at C", || is_served(&c, "second"));
    let b = Tomcat::start(&of_b).expect("B starts again");
    assert_eq!(parts(&b), Vec::<String>::new());
    assert!(!is_served(&b, "second") && is_served(&b, "whole"));

    // A sender is killed half-way.
    put(&a, "third", &large);
    PATIENCE.until("a part at B", || !parts(&b).is_empty());
    a.kill().expect("A runs");
    PATIENCE.until("it is gone at B", || parts(&b).is_empty());
    assert!(!names(&b.base().join("webapps")).contains(&"third.war".to_owned()));
    assert!(!is_served(&b, "third") && is_served(&b, "stocks"));
    let why = b.log_from("does not become complete, and is deleted:").expect("a line");
    assert!(why.contains("is gone"), "{why}");
}
