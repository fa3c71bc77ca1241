//! Names of Tomcat 5.5 that are gone, and what has taken their place in each line.

use super::Line;

/// What became of a name.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// It is left out.
    Gone(&'static str),
    /// Another one does the same.
    Now(&'static str, &'static str),
    /// It stays, and needs a hand.
    Stays(&'static str),
}

use Fate::{Gone, Now, Stays};

pub(super) const CLUSTER: &str = "org.ringtribe.tomcat.RingtribeCluster";
const MANAGER: &str = "org.ringtribe.tomcat.RingtribeDeltaManager";
const FILTER_VALVE: &str = "org.ringtribe.tomcat.RingtribeReplicationValve";
const RENAMED: &str = "the package of 5.5's cluster is gone; this class has taken its place";

/// What became of a class.
pub(super) fn class(name: &str, to: Line) -> Option<Fate> {
    let rest = name.strip_prefix("org.apache.catalina.")?;
    Some(match rest {
        "mbeans.ServerLifecycleListener" => {
            Gone("the class is gone: Tomcat registers its MBeans without a listener")
        }
        "core.JasperListener" => Gone("the class is gone: Jasper needs no listener"),
        "valves.RequestDumperValve" => {
            Gone("the class is gone; RequestDumperFilter in an application does the same")
        }
        "storeconfig.StoreConfigLifecycleListener" => Stays(
            "Tomcat starts only with catalina-storeconfig.jar (Maven: tomcat-storeconfig) in its \
             lib; the full distribution has it, else take this line out",
        ),
        "valves.FastCommonAccessLogValve" => Now(
            "org.apache.catalina.valves.AccessLogValve",
            "the class is gone; AccessLogValve is as fast and writes the same patterns",
        ),
        "realm.JDBCRealm" if to != Line::V9_0 => Stays(
            "this line has no JDBCRealm and will not start with it; put a DataSourceRealm in its \
             place",
        ),
        "cluster.session.DeltaManager" | "cluster.session.SimpleTcpReplicationManager" => {
            Now(MANAGER, RENAMED)
        }
        "cluster.session.JvmRouteBinderValve" => {
            Now("org.apache.catalina.ha.session.JvmRouteBinderValve", RENAMED)
        }
        "cluster.session.ClusterSessionListener" => {
            Now("org.apache.catalina.ha.session.ClusterSessionListener", RENAMED)
        }
        "cluster.session.JvmRouteSessionIDBinderListener"
        | "ha.session.JvmRouteSessionIDBinderListener" => {
            Gone("the class is gone: the JvmRouteBinderValve needs no listener")
        }
        "cluster.tcp.ReplicationValve" => Now(FILTER_VALVE, RENAMED),
        "cluster.deploy.FarmWarDeployer" => {
            Now("org.ringtribe.tomcat.RingtribeFarmWarDeployer", RENAMED)
        }
        "cluster.authenticator.ClusterSingleSignOn" => {
            Now("org.apache.catalina.ha.authenticator.ClusterSingleSignOn", RENAMED)
        }
        _ if rest.starts_with("cluster.") => Stays(
            "the package is gone and Tomcat will not start with it; give the class that does its \
             work today, or take the element out",
        ),
        _ => return None,
    })
}

const SCHEMA: &str = "gone: web.xml is checked if the Context says xmlValidation";
const DEBUG: &str = "gone: conf/logging.properties sets the level of the log";
const RESOURCES: &str = "gone: it belongs to a Resources element in the Context";

/// What became of an attribute that is no connector's.
pub(super) fn attribute(element: &str, name: &str) -> Option<Fate> {
    Some(match (element, name) {
        (_, "debug") => Gone(DEBUG),
        ("Host", "xmlValidation" | "xmlNamespaceAware") => Gone(SCHEMA),
        ("Host", "liveDeploy") => Gone("gone: autoDeploy says it"),
        ("Context", "caseSensitive" | "allowLinking") => Gone(RESOURCES),
        ("Context", "cachingAllowed" | "cacheMaxSize" | "cacheTTL") => Gone(RESOURCES),
        ("Context", "tldNamespaceAware" | "processTlds") => {
            Gone("gone: Jasper reads its tag libraries by itself")
        }
        ("Context", "managerChecksFrequency") => {
            Gone("gone: processExpiresFrequency of the Manager says it")
        }
        ("Valve", "resolveHosts") => Gone("gone: the Connector's enableLookups says it"),
        ("Manager", "algorithm") => Now("secureRandomAlgorithm", "renamed"),
        ("Manager", "randomClass") => Now("secureRandomClass", "renamed"),
        ("Manager", "entropy" | "randomFile" | "sessionIdLength") => {
            Gone("gone: a SessionIdGenerator element makes session ids")
        }
        ("Manager", "checkInterval" | "maxInactiveInterval" | "distributable") => {
            Gone("gone: the Context and its web.xml say it")
        }
        ("Manager", "sendClusterDomainOnly" | "domainReplication") => {
            Gone("gone: mcastClusterDomain separates domains")
        }
        _ => return None,
    })
}

/// What became of an attribute of a connector, those of TLS aside.
pub(super) fn connector(name: &str, to: Line) -> Option<Fate> {
    Some(match name {
        "className" => Gone("gone: protocol says what the connector speaks"),
        "debug" => Gone(DEBUG),
        "maxSpareThreads" | "maxProcessors" | "minProcessors" => {
            Gone("gone: threads beyond minSpareThreads end when they were idle for a minute")
        }
        "emptySessionPath" => {
            Gone("gone: sessionCookiePath=\"/\" on the Context puts the cookie at the root")
        }
        "bufferSize" | "socketBuffer" => Gone("gone: socket.appWriteBufSize sizes the buffer"),
        "strategy" | "pollTime" | "pollerSize" | "firstReadTimeout" => {
            Gone("gone: the connector does not wait with a thread a connection")
        }
        "compressableMimeType" => Now("compressibleMimeType", "renamed"),
        "pollerThreadCount" | "acceptorThreadCount" if to != Line::V9_0 => {
            Gone("gone: there is one such thread")
        }
        "noCompressionStrongETag" if to != Line::V9_0 => Gone("gone: it is always so"),
        "requiredSecret" if to == Line::V11_0 => Now("secret", "renamed"),
        "allowHostHeaderMismatch" | "rejectIllegalHeader" | "rejectIllegalHeaderName"
            if to == Line::V11_0 =>
        {
            Gone("gone: what it could allow is always refused")
        }
        _ => return None,
    })
}

/// What became of a connector's protocol.
pub(super) fn protocol(name: &str, to: Line) -> Option<Fate> {
    const NIO: &str = "org.apache.coyote.http11.Http11NioProtocol";
    Some(match name {
        "org.apache.coyote.http11.Http11Protocol" => {
            Now(NIO, "the class is gone: no connector waits with a thread a connection")
        }
        "org.apache.jk.server.JkCoyoteHandler" | "org.apache.coyote.ajp.AjpProtocol" => {
            Now("AJP/1.3", "the class is gone")
        }
        "org.apache.coyote.http11.Http11AprProtocol" if to != Line::V9_0 => {
            Now(NIO, "the class is gone; with an OpenSSL listener TLS stays OpenSSL's")
        }
        "org.apache.coyote.ajp.AjpAprProtocol" if to != Line::V9_0 => {
            Now("AJP/1.3", "the class is gone")
        }
        _ => return None,
    })
}

/// Where a word stands on the Cluster element.
pub(super) enum Word {
    /// Under this name.
    Under(String),
    /// It has no effect any more.
    Without(&'static str),
    /// Nobody knows it.
    Unknown,
}

/// Words of 5.5's parts of a cluster that stand on `Cluster` under their own name.
const MEMBERSHIP: &[&str] = &[
    "mcastAddr",
    "mcastPort",
    "mcastFrequency",
    "mcastDropTime",
    "mcastBindAddr",
    "mcastBindAddress",
    "mcastTTL",
    "mcastClusterDomain",
    "membership",
    "staticMembers",
];
const RECEIVER: &[&str] = &[
    "tcpListenAddress",
    "tcpListenPort",
    "tcpSelectorTimeout",
    "tcpThreadCount",
    "selectorTimeout",
    "autoBind",
    "backend",
    "maxReceiveBytes",
    "maxConnections",
];
const SENDER: &[&str] = &[
    "replicationMode",
    "ackTimeout",
    "waitForAck",
    "maxPoolSocketLimit",
    "poolSize",
    "maxQueueSize",
    "maxMessageBytes",
    "connectTimeout",
];
/// Names of today, which mean one thing on one part and another on the next: with a prefix.
const PREFIXED: &[(&str, &[&str])] = &[
    ("Membership", &["address", "port", "frequency", "dropTime", "bind", "ttl", "domain"]),
    ("Receiver", &["address", "port"]),
    ("Sender", &["timeout"]),
];
/// What Cluster itself has.
const OWN: &[&str] = &[
    "className",
    "clusterName",
    "config",
    "nativeRequired",
    "channelSendOptions",
    "channelStartOptions",
    "heartbeatBackgroundEnabled",
    "notifyLifecycleListenerOnFailure",
    "managerClassName",
    "expireSessionsOnShutdown",
    "useDirtyFlag",
    "notifyListenersOnReplication",
];

const CLUSTER_LOG: &str = "without effect: the log of the cluster is Tomcat's";
const BY_ITSELF: &str = "without effect: the engine decides it by itself";

/// What has no effect any more, on any part.
fn without(name: &str) -> Option<&'static str> {
    Some(match name {
        "mcastSoTimeout" | "soTimeout" => {
            "without effect: heartbeats are awaited without a time limit"
        }
        "recoveryEnabled" | "recoveryCounter" | "recoverySleepTime" | "localLoopbackDisabled" => {
            BY_ITSELF
        }
        "tcpListenMaxPort" => "without effect: autoBind says how many ports are tried",
        "sendAck" | "isSenderSynchronized" | "synchronized" => {
            "without effect: each message says itself what it wants"
        }
        "compress" => "without effect: a GzipInterceptor in a Channel compresses messages",
        "autoConnect" => "without effect: connections are opened when a member is seen",
        "keepAliveTimeout" | "keepAliveMaxRequestCount" | "keepAliveTime" | "keepAliveCount" => {
            "without effect: connections stay open"
        }
        "resend" | "recoverTimeout" | "recoverCounter" | "maxRetryAttempts" => {
            "without effect: what was not acknowledged is always sent again after a lost connection"
        }
        "maxQueueLength" | "queueCheckLock" | "queueDoStats" | "queueTimeWait"
        | "threadPriority" => {
            "without effect: the queue is bounded in bytes, by maxQueueSize, and nothing is dropped"
        }
        "doTransmitterProcessingStats"
        | "doProcessingStats"
        | "doWaitAckStats"
        | "doReceivedProcessingStats"
        | "processSenderFrequency" => "without effect: the engine always counts",
        "doClusterLog" | "clusterLogName" | "printToScreen" | "debug" => CLUSTER_LOG,
        "protocol" | "service" => "without effect: there is one protocol and one service",
        _ => return None,
    })
}

/// Where a word of a part stands.
pub(super) fn word(element: &str, name: &str) -> Word {
    let own = part(element);
    if own.contains(&name) {
        return Word::Under(name.to_owned());
    }
    let prefixed = PREFIXED.iter().find(|(part, _)| *part == element);
    if prefixed.is_some_and(|(_, names)| names.contains(&name)) {
        return Word::Under(format!("{}.{name}", element.to_ascii_lowercase()));
    }
    without(name).map_or(Word::Unknown, Word::Without)
}

/// Whether a word may stand on Cluster, where it stands.
pub(super) fn on_cluster(name: &str) -> Word {
    let is_parts = ["Membership", "Receiver", "Sender"].iter().any(|one| part(one).contains(&name));
    if OWN.contains(&name) || is_parts || name.contains('.') {
        return Word::Under(name.to_owned());
    }
    without(name).map_or(Word::Unknown, Word::Without)
}

fn part(element: &str) -> &'static [&'static str] {
    match element {
        "Membership" => MEMBERSHIP,
        "Receiver" => RECEIVER,
        "Sender" => SENDER,
        _ => &[],
    }
}

/// All that may stand on an element, to find what is meant.
pub(super) fn names(element: &str) -> impl Iterator<Item = &'static str> {
    let own = if element == "Cluster" { OWN } else { part(element) };
    own.iter().copied()
}
