//! Whose business each attribute is: names of Tomcat 5.5 to 11.

use crate::config::Config;

/// What may stand on an element.
pub(super) struct Element {
    /// Names that mean an attribute of the engine which has another name there.
    renamed: &'static [(&'static str, &'static str)],
    /// Names that mean nothing to the engine, with why.
    ignored: &'static [(&'static [&'static str], &'static str)],
    /// Engine attributes that mean something else here.
    not: &'static [&'static str],
}

impl Element {
    /// The engine's attribute of this name.
    pub(super) fn knob(&self, name: &str) -> Option<&'static str> {
        let renamed = self.renamed.iter().find(|(is, _)| *is == name).map(|(_, knob)| *knob);
        let plain = || Config::attributes().find(|knob| *knob == name && !self.not.contains(knob));
        renamed.or_else(plain)
    }

    /// Why an attribute is ignored, if it is known.
    pub(super) fn ignored(&self, name: &str) -> Option<&'static str> {
        self.ignored.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why)
    }

    /// All that may stand here.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let renamed = self.renamed.iter().map(|(name, _)| *name);
        let plain = Config::attributes().filter(|knob| !self.not.contains(knob));
        let ignored = self.ignored.iter().flat_map(|(names, _)| names.iter().copied());
        renamed.chain(plain.filter(|name| !name.contains('.'))).chain(ignored)
    }
}

const MANAGERS: &str = "the session manager's, on the Java side";
const BRIDGE: &str = "the channel's, on the Java side";
const SOCKETS: &str = "the engine sets the options of its sockets itself";
const THREADS: &str = "threads of listeners are the Java side's; workers are tcpThreadCount";
const NOT_THERE: &str = "the engine has no such function";
const BY_ITSELF: &str = "the engine decides it by itself";

pub(super) const CLUSTER: &Element = &Element {
    renamed: &[],
    ignored: &[
        (
            &[
                "managerClassName",
                "expireSessionsOnShutdown",
                "useDirtyFlag",
                "notifyListenersOnReplication",
                "notifySessionListenersOnReplication",
                "notifyLifecycleListenerOnFailure",
                "heartbeatBackgroundEnabled",
                "doClusterLog",
                "clusterLogName",
                "printToScreen",
                "service",
                "protocol",
            ],
            MANAGERS,
        ),
        (&["channelSendOptions", "channelStartOptions"], BRIDGE),
    ],
    // On Membership and Receiver these are clear.
    not: &["bind", "ttl", "timeout", "frequency", "dropTime", "soTimeout"],
};

pub(super) const CHANNEL: &Element = &Element {
    renamed: &[],
    ignored: &[(
        &[
            "heartbeat",
            "heartbeatSleeptime",
            "optionCheck",
            "utilityThreads",
            "name",
            "jmxEnabled",
            "jmxDomain",
            "jmxPrefix",
        ],
        BRIDGE,
    )],
    not: CLUSTER.not,
};

pub(super) const MEMBERSHIP: &Element = &Element {
    renamed: &[("address", "mcastAddr"), ("port", "mcastPort")],
    ignored: &[
        (&["domain", "mcastClusterDomain", "payload"], BRIDGE),
        (
            &["recoveryEnabled", "recoveryCounter", "recoverySleepTime", "localLoopbackDisabled"],
            BY_ITSELF,
        ),
        (&["expirationTime", "rpcTimeout", "useThread", "pingInterval"], BY_ITSELF),
        (&["membershipProviderClassName"], "clouds are not looked up yet; use staticMembers"),
    ],
    not: &["timeout"],
};

pub(super) const RECEIVER: &Element = &Element {
    renamed: &[("address", "tcpListenAddress"), ("port", "tcpListenPort")],
    ignored: &[
        (&["maxThreads", "minThreads", "maxIdleTime", "maxTasks"], THREADS),
        (
            &[
                "direct",
                "ooBInline",
                "rxBufSize",
                "txBufSize",
                "soKeepAlive",
                "soLingerOn",
                "soLingerTime",
                "soReuseAddress",
                "soTrafficClass",
                "tcpNoDelay",
                "useBufferPool",
                "udpRxBufSize",
                "udpTxBufSize",
                "bufSize",
            ],
            SOCKETS,
        ),
        (&["timeout"], "a receiver's idle time; connections are kept while they are open"),
        (&["securePort", "udpPort"], NOT_THERE),
        (
            &["sendAck", "isSenderSynchronized", "synchronized", "compress", "useClusterPool"],
            "each message says itself what it wants",
        ),
    ],
    not: &["bind", "timeout"],
};

pub(super) const SENDER: &Element = &Element {
    renamed: &[],
    ignored: &[
        (
            &[
                "direct",
                "ooBInline",
                "rxBufSize",
                "txBufSize",
                "soKeepAlive",
                "soLingerOn",
                "soLingerTime",
                "soReuseAddress",
                "soTrafficClass",
                "tcpNoDelay",
                "udpRxBufSize",
                "udpTxBufSize",
            ],
            SOCKETS,
        ),
        (
            &[
                "maxRetryAttempts",
                "keepAliveCount",
                "keepAliveTime",
                "keepAliveTimeout",
                "keepAliveMaxRequestCount",
                "maxWait",
                "removeSuspects",
                "throwOnFailedAck",
                "autoConnect",
                "compress",
                "resend",
                "queueCheckLock",
                "queueDoStats",
                "queueTimeWait",
                "recoverTimeout",
                "recoverCounter",
                "threadPriority",
                "maxQueueLength",
            ],
            BY_ITSELF,
        ),
        (
            &[
                "doTransmitterProcessingStats",
                "doProcessingStats",
                "doWaitAckStats",
                "processSenderFrequency",
            ],
            "the engine always counts",
        ),
    ],
    not: &["bind"],
};

pub(super) const INTERCEPTOR: &Element = &Element {
    renamed: &[],
    ignored: &[(&["optionFlag"], BRIDGE)],
    not: &["bind", "timeout", "ttl", "frequency", "dropTime", "soTimeout"],
};

/// Why an element is not read.
pub(super) fn element_is_whose(name: &str) -> &'static str {
    match name {
        "Manager" => MANAGERS,
        "Valve" => "a valve's, on the Java side",
        "Deployer" => "the deployer's, on the Java side",
        "ClusterListener" | "LifecycleListener" | "ChannelListener" | "MembershipListener" => {
            "a listener's, on the Java side"
        }
        "LocalMember" => "this node is told by tcpListenAddress and tcpListenPort",
        _ => "not an element of the engine",
    }
}
