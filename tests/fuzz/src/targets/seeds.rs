//! Inputs to begin with: the vectors of the wire formats, and scripts that do what members do.

use std::path::{Path, PathBuf};

/// All files of a directory, in order of their names.
///
/// # Panics
/// It cannot be read.
#[must_use]
pub fn files(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

fn vectors_in(root: &Path, directory: &str) -> Vec<Vec<u8>> {
    let found = files(&root.join("wire/testdata").join(directory));
    assert!(!found.is_empty(), "{directory} has vectors");
    found
}

/// Raw bytes on one new connection, as a script of `world`.
fn on_a_connection(prefix: &[u8], bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len().min(60_000)).unwrap_or(0).to_le_bytes();
    [prefix, &[255], &length, &bytes[..usize::from(u16::from_le_bytes(length))]].concat()
}

const SERVER_XML: [&str; 4] = [
    r#"<Server><Service><Engine><Cluster className="org.apache.catalina.cluster.tcp.SimpleTcpCluster">
    <Membership className="x" mcastAddr="228.0.0.4" mcastPort="45564" mcastFrequency="500" mcastDropTime="3000"/>
    <Receiver className="x" tcpListenAddress="auto" tcpListenPort="4001" tcpThreadCount="6"/>
    <Sender className="x" replicationMode="pooled" ackTimeout="15000" waitForAck="true"/>
    <Valve className="x" filter=".*"/></Cluster></Engine></Service></Server>"#,
    r#"<Server><Service><Engine><Host><Cluster channelSendOptions="8" clusterName="a"><Channel>
    <Membership address="228.0.0.4" port="${port}" frequency="500" dropTime="3000"/>
    <Receiver address="127.0.0.1" port="${x:-4000}" autoBind="100" maxThreads="6"/>
    <Sender><Transport timeout="60000" poolSize="25"/></Sender>
    <Interceptor className="org.apache.catalina.tribes.group.interceptors.StaticMembershipInterceptor">
    <Member host="{127,0,0,1}" port="4002" uniqueId="{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}"/></Interceptor>
    <Interceptor className="MessageDispatchInterceptor" maxQueueSize="67108864"/></Channel></Cluster></Host></Engine></Service></Server>"#,
    r#"<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><Engine><Cluster x="&c;" port="${loop}"/></Engine>"#,
    "<Engine><Cluster/><Cluster/></Engine>",
];

/// The seeds of a target; `root` is the repository's.
#[must_use]
pub fn of(root: &Path, target: &str) -> Vec<Vec<u8>> {
    let vectors = |directory| vectors_in(root, directory);
    match target {
        "tribes_frames" => vectors("tribes"),
        "tribes_datagram" => [vectors("tribes"), vectors("native")].concat(),
        "java_payload" => vectors("java"),
        "native_frames" | "native_hello" | "round_trip" => vectors("native"),
        "worker_accept" => {
            // Open a connection, then raw bytes as they are or with sound checksums.
            let raw = |bytes: &Vec<u8>| on_a_connection(&[0, 0, 1, 0, 0], bytes);
            let mut seeds: Vec<Vec<u8>> = vectors("tribes").iter().map(raw).collect();
            seeds.extend(vectors("native").iter().map(raw));
            // A hello, then three messages, the outcomes, an hour of nothing.
            seeds.push(
                [
                    &[0, 0, 2, 0, 0, 0, 0, 0, 1, 0][..],
                    &[3, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0].repeat(3),
                    &[16, 16, 18, 0, 0, 18, 0, 0, 18, 0, 0, 14, 200],
                ]
                .concat(),
            );
            seeds
        }
        "worker_send" => {
            let raw = |bytes: &Vec<u8>| on_a_connection(&[0, 0, 0, 2, 20, 1, 0, 9, 0, 0], bytes);
            let mut seeds: Vec<Vec<u8>> = vectors("tribes").iter().map(raw).collect();
            seeds.extend(vectors("native").iter().map(raw));
            seeds
        }
        "membership" => vectors("native"),
        "server_xml" => SERVER_XML.iter().map(|text| text.as_bytes().to_vec()).collect(),
        _ => vec![vec![0], vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]],
    }
}
