//! Every knob under its Tomcat name: the words of a Tomcat 5.5 cluster element and today's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::protocol::membership::StaticMember;
use crate::shared::Bounds;

/// How a node behaves; fixed when it opens. Defaults are Tomcat's where Tomcat has the attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Heartbeat group (`McastService.address`): the cluster is who shares it.
    pub mcast_addr: IpAddr,
    /// Heartbeat port (`McastService.port`).
    pub mcast_port: u16,
    /// Time between heartbeats, ms (`McastService.frequency`).
    pub mcast_frequency_ms: u64,
    /// Silence after which a member is suspect, ms (`McastService.dropTime`).
    pub mcast_drop_time_ms: u64,
    /// Interface of the heartbeats (`McastService.bind`); any if empty.
    pub mcast_bind_addr: Option<IpAddr>,
    /// Hops of a heartbeat (`McastService.ttl`).
    pub mcast_ttl: u32,
    /// Where peers connect (`ReceiverBase.address`); `None` is "auto".
    pub tcp_listen_address: Option<IpAddr>,
    /// First port tried (`ReceiverBase.port`).
    pub tcp_listen_port: u16,
    /// Ports tried (`ReceiverBase.autoBind`).
    pub auto_bind: u64,
    /// Kept for its name: a worker sleeps until its next deadline (`ReceiverBase.selectorTimeout`).
    pub tcp_selector_timeout_ms: u64,
    /// Workers, and streams per link (5.5 `ReplicationListener.tcpThreadCount`).
    pub tcp_thread_count: u64,
    /// How messages use the streams (5.5 `ReplicationTransmitter.replicationMode`).
    pub replication_mode: ReplicationMode,
    /// Longest wait for an acknowledgement, ms (5.5 `ackTimeout`, today's `timeout`).
    pub ack_timeout_ms: u64,
    /// Whether senders wait for the listener's acknowledgement (5.5 `waitForAck`).
    pub wait_for_ack: bool,
    /// Connections to one member (`PooledSender.poolSize`).
    pub pool_size: u64,
    /// What may be queued for one member, bytes (`MessageDispatchInterceptor.maxQueueSize`).
    pub max_queue_bytes: u64,
    /// Longest message, bytes.
    pub max_message_bytes: u64,
    /// Received messages whose listener has not returned, bytes.
    pub max_receive_bytes: u64,
    /// Connections that peers may open to this node.
    pub max_connections: u64,
    /// Longest wait for a connection, ms (`TcpFailureDetector.connectTimeout`).
    pub connect_timeout_ms: u64,
    /// How members are found; `None`, where it is not stated, see [`Config::uses_multicast`].
    pub membership: Option<MembershipKind>,
    /// mcastAddr, mcastPort, mcastBindAddr or mcastTTL was stated.
    pub mcast_stated: bool,
    /// Members that are looked for at their addresses (`StaticMembershipInterceptor`).
    pub static_members: Vec<StaticMember>,
    /// The cluster's name: nodes of another name are refused (`SimpleTcpCluster.clusterName`).
    pub cluster_name: String,
    /// What moves the bytes.
    pub backend: Backend,
}

/// How members are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipKind {
    /// By heartbeats to the group; static members, if there are any, besides.
    Multicast,
    /// The static members alone; no group is joined.
    Static,
}

/// What moves the bytes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring; epoll where io_uring is absent.
    Auto,
    /// io_uring, or the node does not open.
    IoUring,
    /// epoll.
    Epoll,
}

/// How messages use the streams of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationMode {
    /// Several streams; a key keeps to one.
    Pooled,
    /// One stream.
    Synchronous,
    /// Queue and return.
    Asynchronous,
    /// Queue and return.
    FastAsyncQueue,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            mcast_addr: IpAddr::from([228, 0, 0, 4]),
            mcast_port: 45_564,
            mcast_frequency_ms: 500,
            mcast_drop_time_ms: 3_000,
            mcast_bind_addr: None,
            mcast_ttl: 1,
            tcp_listen_address: None,
            tcp_listen_port: 4_000,
            auto_bind: 100,
            tcp_selector_timeout_ms: 100,
            tcp_thread_count: cores.min(6) as u64,
            replication_mode: ReplicationMode::Pooled,
            ack_timeout_ms: 15_000,
            wait_for_ack: true,
            pool_size: 25,
            max_queue_bytes: 64 << 20,
            max_message_bytes: 256 << 20,
            max_receive_bytes: 256 << 20,
            max_connections: 4_096,
            connect_timeout_ms: 1_000,
            membership: None,
            mcast_stated: false,
            static_members: Vec::new(),
            cluster_name: String::new(),
            backend: Backend::Auto,
        }
    }
}

/// A value that is refused: which, what it may be, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The attribute, as the user wrote it.
    pub attribute: String,
    /// What was given.
    pub value: String,
    /// What is allowed, with its unit, and the remedy.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=\"{}\" is refused: {}", self.attribute, self.value, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// What kind of value a knob takes, and where it goes.
enum Kind {
    Number {
        least: u64,
        most: u64,
        unit: &'static str,
        store: fn(&mut Config, u64),
    },
    Flag(fn(&mut Config, bool)),
    /// An address; the word means "not stated".
    Address {
        unset: &'static str,
        store: fn(&mut Config, Option<IpAddr>),
    },
    Mode,
    /// How members are found.
    Source,
    Members,
    /// A text of at most so many bytes.
    Text {
        most_bytes: usize,
        store: fn(&mut Config, String),
    },
    Backend,
    /// Accepted for compatibility; its value changes nothing here.
    Ignored,
}

struct Knob {
    /// The 2007 name first, then today's.
    names: &'static [&'static str],
    kind: Kind,
}

#[allow(clippy::cast_possible_truncation, reason = "the ranges fit the fields")]
const KNOBS: &[Knob] = &[
    Knob {
        names: &["mcastAddr", "membership.address"],
        kind: Kind::Address {
            unset: "",
            store: |c, v| {
                c.mcast_addr = v.unwrap_or(c.mcast_addr);
                c.mcast_stated |= v.is_some();
            },
        },
    },
    Knob {
        names: &["mcastPort", "membership.port"],
        kind: number(1, 65_535, "a port", |c, v| {
            c.mcast_port = v as u16;
            c.mcast_stated = true;
        }),
    },
    Knob {
        names: &["mcastFrequency", "frequency"],
        kind: number(10, 3_600_000, "ms", |c, v| c.mcast_frequency_ms = v),
    },
    Knob {
        names: &["mcastDropTime", "dropTime"],
        kind: number(20, 86_400_000, "ms", |c, v| c.mcast_drop_time_ms = v),
    },
    Knob {
        names: &["mcastBindAddr", "mcastBindAddress", "bind"],
        kind: Kind::Address {
            unset: "",
            store: |c, v| {
                c.mcast_bind_addr = v;
                c.mcast_stated |= v.is_some();
            },
        },
    },
    Knob {
        names: &["mcastTTL", "ttl"],
        kind: number(0, 255, "hops", |c, v| {
            c.mcast_ttl = v as u32;
            c.mcast_stated = true;
        }),
    },
    Knob { names: &["mcastSoTimeout", "soTimeout"], kind: Kind::Ignored },
    Knob {
        names: &["tcpListenAddress", "receiver.address"],
        kind: Kind::Address { unset: "auto", store: |c, v| c.tcp_listen_address = v },
    },
    Knob {
        names: &["tcpListenPort", "receiver.port"],
        kind: number(1, 65_535, "a port", |c, v| c.tcp_listen_port = v as u16),
    },
    Knob {
        names: &["autoBind"],
        kind: number(0, 65_535, "ports to try; 0 means 1", |c, v| c.auto_bind = v),
    },
    Knob {
        names: &["tcpSelectorTimeout", "selectorTimeout"],
        kind: number(0, 3_600_000, "ms", |c, v| c.tcp_selector_timeout_ms = v),
    },
    Knob {
        names: &["tcpThreadCount"],
        kind: number(1, 64, "worker threads; Tomcat 5.5 received nothing with 0", |c, v| {
            c.tcp_thread_count = v;
        }),
    },
    Knob { names: &["replicationMode"], kind: Kind::Mode },
    Knob {
        names: &["ackTimeout", "timeout"],
        kind: number(1, 3_600_000, "ms; Tomcat 5.5 waited for ever with 0", |c, v| {
            c.ack_timeout_ms = v;
        }),
    },
    Knob { names: &["waitForAck"], kind: Kind::Flag(|c, v| c.wait_for_ack = v) },
    Knob {
        names: &["poolSize", "maxPoolSocketLimit"],
        kind: number(1, 1_024, "connections to one member", |c, v| c.pool_size = v),
    },
    Knob {
        names: &["maxQueueSize"],
        kind: number(1, 1 << 40, "bytes", |c, v| c.max_queue_bytes = v),
    },
    Knob {
        names: &["maxMessageBytes"],
        kind: number(1, 2_000_000_000, "bytes", |c, v| c.max_message_bytes = v),
    },
    Knob {
        names: &["maxReceiveBytes"],
        kind: number(1, 1 << 40, "bytes", |c, v| c.max_receive_bytes = v),
    },
    Knob {
        names: &["maxConnections"],
        kind: number(1, 1_000_000, "connections", |c, v| c.max_connections = v),
    },
    Knob {
        names: &["connectTimeout"],
        kind: number(1, 600_000, "ms", |c, v| c.connect_timeout_ms = v),
    },
    Knob { names: &["membership"], kind: Kind::Source },
    Knob { names: &["staticMembers"], kind: Kind::Members },
    Knob {
        names: &["clusterName"],
        kind: Kind::Text { most_bytes: 256, store: |c, v| c.cluster_name = v },
    },
    Knob { names: &["backend"], kind: Kind::Backend },
];

/// Most static members.
const STATIC_MEMBERS_LIMIT_COUNT: usize = 1_024;

const fn number(least: u64, most: u64, unit: &'static str, store: fn(&mut Config, u64)) -> Kind {
    Kind::Number { least, most, unit, store }
}

const MODES: [(&str, ReplicationMode); 4] = [
    ("pooled", ReplicationMode::Pooled),
    ("synchronous", ReplicationMode::Synchronous),
    ("asynchronous", ReplicationMode::Asynchronous),
    ("fastasyncqueue", ReplicationMode::FastAsyncQueue),
];

const BACKENDS: [(&str, Backend); 3] =
    [("auto", Backend::Auto), ("io_uring", Backend::IoUring), ("epoll", Backend::Epoll)];

/// The value of a word, or what to give instead of it.
fn value_of<T: Copy>(words: &[(&'static str, T)], text: &str) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let near = nearest(text, words.iter().copied());
        format!("give one of {}; did you mean {near}?", words.join(", "))
    })
}

impl Config {
    /// The names of all attributes, the 2007 name of each before today's.
    pub fn attributes() -> impl Iterator<Item = &'static str> {
        KNOBS.iter().flat_map(|knob| knob.names).copied()
    }

    /// The engine's name of an attribute given by any of its names; `None` if there is no such one.
    #[must_use]
    pub fn canonical(attribute: &str) -> Option<&'static str> {
        KNOBS.iter().find(|knob| knob.names.contains(&attribute)).map(|knob| knob.names[0])
    }

    /// Sets one attribute, by either of its names.
    ///
    /// # Errors
    /// An unknown attribute (the nearest name is told), or a value out of its range.
    pub fn set(&mut self, attribute: &str, value: &str) -> Result<(), ConfigError> {
        let refuse = |remedy: String| ConfigError {
            attribute: attribute.to_owned(),
            value: value.to_owned(),
            remedy,
        };
        let Some(knob) = KNOBS.iter().find(|knob| knob.names.contains(&attribute)) else {
            return Err(refuse(format!(
                "no such attribute; did you mean {}?",
                nearest(attribute, Self::attributes())
            )));
        };
        let text = value.trim();
        match &knob.kind {
            Kind::Number { least, most, unit, store } => {
                let number = text.parse().ok().filter(|number| (least..=most).contains(&number));
                let allowed = || refuse(format!("give a number from {least} to {most} ({unit})"));
                store(self, number.ok_or_else(allowed)?);
            }
            Kind::Flag(store) => match text {
                "true" => store(self, true),
                "false" => store(self, false),
                _ => return Err(refuse("give true or false".into())),
            },
            Kind::Address { unset, store } => {
                if text == *unset {
                    store(self, None);
                } else {
                    let address = text.parse().map_err(|_| {
                        refuse("give an IP address in digits, as in 192.168.1.109".into())
                    })?;
                    store(self, Some(address));
                }
            }
            Kind::Mode => self.replication_mode = value_of(&MODES, text).map_err(refuse)?,
            Kind::Backend => self.backend = value_of(&BACKENDS, text).map_err(refuse)?,
            Kind::Source => {
                self.membership = Some(match text {
                    "multicast" => MembershipKind::Multicast,
                    "static" => MembershipKind::Static,
                    _ => return Err(refuse("give multicast or static".into())),
                });
            }
            Kind::Members => {
                let former = std::mem::take(&mut self.static_members);
                let added = entries(text).try_for_each(|entry| self.add_static_member(entry));
                if let Err(error) = added {
                    self.static_members = former;
                    return Err(error);
                }
            }
            Kind::Text { most_bytes, store } => {
                if value.len() > *most_bytes {
                    return Err(refuse(format!(
                        "it has {} bytes; give at most {most_bytes}",
                        value.len()
                    )));
                }
                store(self, value.to_owned());
            }
            Kind::Ignored => {}
        }
        Ok(())
    }

    /// Adds one static member: `host:port` or `host:port/{0,1,...}` with the 16 bytes of a stock
    /// node's uniqueId. An IPv6 host stands in brackets.
    ///
    /// # Errors
    /// What is wrong with the entry; it was there already; there are too many.
    pub fn add_static_member(&mut self, entry: &str) -> Result<(), ConfigError> {
        let refuse = |remedy: String| ConfigError {
            attribute: "staticMembers".into(),
            value: entry.to_owned(),
            remedy,
        };
        let (place, unique_id) = match entry.split_once('/') {
            Some((place, id)) => (place, Some(id)),
            None => (entry, None),
        };
        let address = place.parse().ok().filter(|address: &SocketAddr| {
            address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
        });
        let address = address.ok_or_else(|| {
            refuse(
                "give members as address:port in digits, as in 192.168.1.110:4000 or \
                 [2001:db8::1]:4000"
                    .into(),
            )
        })?;
        let unique_id = match unique_id {
            None => None,
            Some(text) => Some(unique_id_of(text).ok_or_else(|| {
                refuse("give a uniqueId as 16 numbers from -128 to 255: {0,1,2,...}".into())
            })?),
        };
        if self.static_members.iter().any(|member| member.address == address) {
            return Err(refuse("it stands in the list twice; take one out".into()));
        }
        if self.static_members.len() == STATIC_MEMBERS_LIMIT_COUNT {
            return Err(refuse(format!("give at most {STATIC_MEMBERS_LIMIT_COUNT} members")));
        }
        self.static_members.push(StaticMember { address, unique_id });
        Ok(())
    }

    /// Whether the group is joined: if membership says so, or, where it says nothing, unless there
    /// are static members and nothing about the group (mcastAddr, mcastPort, mcastBindAddr,
    /// mcastTTL) is stated.
    #[must_use]
    pub fn uses_multicast(&self) -> bool {
        match self.membership {
            Some(kind) => kind == MembershipKind::Multicast,
            None => self.mcast_stated || self.static_members.is_empty(),
        }
    }

    /// Checks what concerns several attributes.
    ///
    /// # Errors
    /// The first pair that does not hold together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |attribute: &str, value: String, remedy: &str| {
            Err(ConfigError { attribute: attribute.into(), value, remedy: remedy.into() })
        };
        if self.membership == Some(MembershipKind::Static) && self.static_members.is_empty() {
            return refuse(
                "membership",
                "static".into(),
                "nobody would be found; name the members in staticMembers",
            );
        }
        if self.uses_multicast() && !self.mcast_addr.is_multicast() {
            return refuse(
                "mcastAddr",
                self.mcast_addr.to_string(),
                "it is no multicast address; give one from 224.0.0.0 to 239.255.255.255",
            );
        }
        if self.mcast_drop_time_ms < 2 * self.mcast_frequency_ms {
            return refuse(
                "mcastDropTime",
                self.mcast_drop_time_ms.to_string(),
                "one lost heartbeat would drop a member; give at least 2 x mcastFrequency (ms)",
            );
        }
        Ok(())
    }
}

impl From<&Config> for Bounds {
    fn from(config: &Config) -> Self {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        // One stream keeps one order for everything.
        let one_stream = config.replication_mode == ReplicationMode::Synchronous;
        #[allow(clippy::needless_update, reason = "there is a field more with planted bugs")]
        Self {
            worker_count: if one_stream {
                1
            } else {
                u16::try_from(config.tcp_thread_count).unwrap_or(1)
            },
            pool_size: if one_stream { 1 } else { size(config.pool_size) },
            ack_timeout_ms: config.ack_timeout_ms,
            connect_timeout_ms: config.connect_timeout_ms,
            max_message_bytes: size(config.max_message_bytes),
            max_queue_bytes: size(config.max_queue_bytes),
            max_receive_bytes: size(config.max_receive_bytes),
            max_connections: size(config.max_connections),
            cluster_name: config.cluster_name.clone(),
            echo_ms: config.mcast_frequency_ms,
            drop_time_ms: config.mcast_drop_time_ms,
            ..Self::default()
        }
    }
}

/// The parts between commas and white space that stand outside of braces.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth <= 0 && (c == ',' || c.is_whitespace())
    })
    .filter(|entry| !entry.is_empty())
}

/// `{0,1,...}`, as Tomcat writes arrays of bytes, which are signed.
fn unique_id_of(text: &str) -> Option<[u8; 16]> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut bytes = Vec::with_capacity(16);
    for part in inside.split(',') {
        let number: i16 = part.trim().parse().ok()?;
        let signed = i8::try_from(number).map(i8::cast_unsigned);
        bytes.push(u8::try_from(number).or(signed).ok()?);
        if bytes.len() > 16 {
            return None;
        }
    }
    bytes.try_into().ok()
}

/// The name with the smallest edit distance (Levenshtein) to `given`.
#[must_use]
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> &'a str {
    let distance = |name: &str| {
        let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
        let mut row: Vec<usize> = (0..=name.len()).collect();
        for (i, a) in given.chars().flat_map(char::to_lowercase).enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, b) in name.iter().enumerate() {
                let replaced = diagonal + usize::from(a != *b);
                diagonal = row[j + 1];
                row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
            }
        }
        row[name.len()]
    };
    names.min_by_key(|name| distance(name)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_the_range_and_the_remedy() {
        for (attribute, value, says) in [
            ("tcpListenPort", "70000", "1 to 65535"),
            ("tcpListenPort", "0", "a port"),
            ("tcpThreadCount", "0", "Tomcat 5.5 received nothing"),
            ("tcpThreadCount", "10000", "1 to 64"),
            ("ackTimeout", "0", "waited for ever"),
            ("ackTimeout", "soon", "ms"),
            ("replicationMode", "poled", "did you mean pooled"),
            ("backend", "uring", "did you mean io_uring"),
            ("waitForAck", "yes", "true or false"),
            ("mcastAddr", "somewhere", "IP address"),
            ("membership", "cloud", "multicast or static"),
            ("staticMembers", "10.0.0.2", "address:port"),
            ("staticMembers", "10.0.0.2:0", "address:port"),
            ("staticMembers", "host.example:4000", "in digits"),
            ("staticMembers", "10.0.0.2:4000/{0,1}", "16 numbers"),
            ("mcastFreqency", "500", "did you mean mcastFrequency"),
        ] {
            let error = Config::default().set(attribute, value).expect_err("refused").to_string();
            assert!(error.contains(attribute) && error.contains(value), "{error}");
            assert!(error.contains(says), "{error}");
        }
        let mut config = Config::default();
        config.set("membership.address", "10.0.0.1").expect("an address");
        assert!(config.check().expect_err("unicast").to_string().contains("224.0.0.0"));
        let mut config = Config::default();
        config.set("membership", "static").expect("a word");
        assert!(config.check().expect_err("nobody").to_string().contains("staticMembers"));
        let mut config = Config::default();
        config.set("dropTime", "999").expect("in range");
        assert!(config.check().expect_err("too short").to_string().contains("2 x mcastFrequency"));
    }

    #[test]
    fn static_members_take_the_groups_place_unless_it_is_stated() {
        let mut config = Config::default();
        assert!(config.uses_multicast());
        let list = "10.0.0.1:4000, [2001:db8::1]:4001\n10.0.0.2:4000/{0,1,2,3,4,5,6,7,8,9,10,11,12,13,-1,255}";
        config.set("staticMembers", list).expect("three members");
        let places: Vec<_> =
            config.static_members.iter().map(|member| member.address.to_string()).collect();
        assert_eq!(places, ["10.0.0.1:4000", "[2001:db8::1]:4001", "10.0.0.2:4000"]);
        let unique_id = config.static_members[2].unique_id.expect("given");
        assert_eq!(unique_id, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 255, 255]);
        assert!(!config.uses_multicast());
        config.check().expect("holds together");
        config.set("frequency", "100").expect("it concerns static members too");
        assert!(!config.uses_multicast());
        config.set("mcastPort", "45564").expect("a port");
        assert!(config.uses_multicast(), "as with Tomcat's interceptor beside McastService");
        config.set("membership", "static").expect("a word");
        assert!(!config.uses_multicast());
        let twice = config.set("staticMembers", "10.0.0.9:4000 10.0.0.1:4000,10.0.0.1:4000");
        let twice = twice.expect_err("twice").to_string();
        assert!(twice.contains("\"10.0.0.1:4000\"") && twice.contains("twice"), "{twice}");
        assert_eq!(config.static_members.len(), 3, "as before");
        let name = "n".repeat(257);
        assert!(config.set("clusterName", &name).expect_err("long").to_string().contains("256"));
    }
}
