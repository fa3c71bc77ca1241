//! How a node is set up: defaults, the file over them, the command line over both.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringtribe::config::{Backend, Config, ReplicationMode};
use ringtribe::protocol::membership::StaticMember;
use ringtribe::server_xml;
use serde_json::{Value, json};

/// What the command line says of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) server_xml: Option<PathBuf>,
    pub(crate) set: Vec<(String, String)>,
}

/// A configuration, and where each value of it came from.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// By attribute; what is missing is a default.
    origins: BTreeMap<&'static str, String>,
    /// What the file says and the engine has no use for, with why.
    pub(crate) ignored: Vec<String>,
}

impl Request {
    /// The settings.
    ///
    /// # Errors
    /// What is refused, with its range and the remedy.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let mut config = Config::default();
        let mut origins = BTreeMap::new();
        let mut ignored = Vec::new();
        if let Some(path) = &self.server_xml {
            let read = server_xml::load(path, &mut config).map_err(|error| error.to_string())?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            for set in read.set {
                if let Some(attribute) = Config::canonical(&set.attribute) {
                    origins.insert(attribute, format!("{name}:{}", set.line));
                }
            }
            ignored.extend(read.ignored.into_iter().map(|ignored| {
                let server_xml::Ignored { what, line, element, why } = ignored;
                format!("{name}:{line}: {what} of {element} is ignored: {why}")
            }));
        }
        for (attribute, value) in &self.set {
            config.set(attribute, value).map_err(|error| format!("--set {error}"))?;
            if let Some(attribute) = Config::canonical(attribute) {
                origins.insert(attribute, "--set".to_owned());
            }
        }
        config.check().map_err(|error| error.to_string())?;
        Ok(Settings { config, origins, ignored })
    }
}

impl Settings {
    /// One line: what was stated with where it was, then the defaults.
    pub(crate) fn text(&self) -> String {
        let (stated, defaults): (Vec<_>, Vec<_>) = values(&self.config)
            .into_iter()
            .partition(|(attribute, _)| self.origins.contains_key(attribute));
        let stated = stated.into_iter().map(|(attribute, value)| {
            format!("{attribute}=\"{value}\" ({})", self.origins[attribute])
        });
        let defaults = defaults.into_iter().map(|(name, value)| format!("{name}=\"{value}\""));
        let words: Vec<String> =
            stated.chain(std::iter::once("by default".to_owned())).chain(defaults).collect();
        words.join(" ")
    }

    /// Attribute to value and origin.
    pub(crate) fn json(&self) -> Value {
        let all = values(&self.config).into_iter().map(|(attribute, value)| {
            let from = self.origins.get(attribute).map_or("default", String::as_str);
            (attribute.to_owned(), json!({"value": value, "from": from}))
        });
        Value::Object(all.collect())
    }
}

/// Every attribute under its name, as [`Config::set`] takes it.
fn values(config: &Config) -> Vec<(&'static str, String)> {
    // Without `..`, so that an attribute more is not forgotten here.
    let Config {
        mcast_addr,
        mcast_port,
        mcast_frequency_ms,
        mcast_drop_time_ms,
        mcast_bind_addr,
        mcast_ttl,
        tcp_listen_address,
        tcp_listen_port,
        auto_bind,
        tcp_selector_timeout_ms,
        tcp_thread_count,
        replication_mode,
        ack_timeout_ms,
        wait_for_ack,
        pool_size,
        max_queue_bytes,
        max_message_bytes,
        max_receive_bytes,
        max_connections,
        connect_timeout_ms,
        membership: _,
        mcast_stated: _,
        static_members,
        cluster_name,
        backend,
    } = config;
    let membership = if config.uses_multicast() { "multicast" } else { "static" };
    let backend = match backend {
        Backend::Auto => "auto",
        Backend::IoUring => "io_uring",
        Backend::Epoll => "epoll",
    };
    let members: Vec<String> = static_members.iter().map(member).collect();
    let mode = match replication_mode {
        ReplicationMode::Pooled => "pooled",
        ReplicationMode::Synchronous => "synchronous",
        ReplicationMode::Asynchronous => "asynchronous",
        ReplicationMode::FastAsyncQueue => "fastasyncqueue",
    };
    vec![
        ("mcastAddr", mcast_addr.to_string()),
        ("mcastPort", mcast_port.to_string()),
        ("mcastBindAddr", mcast_bind_addr.map(|address| address.to_string()).unwrap_or_default()),
        ("mcastTTL", mcast_ttl.to_string()),
        ("mcastFrequency", mcast_frequency_ms.to_string()),
        ("mcastDropTime", mcast_drop_time_ms.to_string()),
        (
            "tcpListenAddress",
            tcp_listen_address.map_or("auto".to_owned(), |address| address.to_string()),
        ),
        ("tcpListenPort", tcp_listen_port.to_string()),
        ("autoBind", auto_bind.to_string()),
        ("tcpThreadCount", tcp_thread_count.to_string()),
        ("tcpSelectorTimeout", tcp_selector_timeout_ms.to_string()),
        ("replicationMode", mode.to_owned()),
        ("ackTimeout", ack_timeout_ms.to_string()),
        ("waitForAck", wait_for_ack.to_string()),
        ("poolSize", pool_size.to_string()),
        ("maxQueueSize", max_queue_bytes.to_string()),
        ("maxMessageBytes", max_message_bytes.to_string()),
        ("maxReceiveBytes", max_receive_bytes.to_string()),
        ("maxConnections", max_connections.to_string()),
        ("connectTimeout", connect_timeout_ms.to_string()),
        ("membership", membership.to_owned()),
        ("staticMembers", members.join(" ")),
        ("clusterName", cluster_name.clone()),
        ("backend", backend.to_owned()),
    ]
}

/// As staticMembers takes it.
fn member(member: &StaticMember) -> String {
    let StaticMember { address, unique_id } = member;
    unique_id.map_or_else(
        || address.to_string(),
        |id| format!("{address}/{{{}}}", id.map(|byte| byte.to_string()).join(",")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_shown_under_a_name_that_sets_it() {
        let mut config = Config::default();
        for (attribute, value) in values(&Config::default()) {
            assert_eq!(Config::canonical(attribute), Some(attribute));
            config.set(attribute, &value).expect("its own value");
        }
        // What is said is said.
        config.membership = None;
        config.mcast_stated = false;
        assert_eq!(config, Config::default());
    }

    #[test]
    fn each_value_says_where_it_came_from() {
        let set = [("frequency", "250"), ("mcastAddr", "228.0.0.4")];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let settings = Request { server_xml: None, set }.settings().expect("in range");
        let json = settings.json();
        assert_eq!(json["mcastFrequency"], json!({"value": "250", "from": "--set"}));
        assert_eq!(json["mcastAddr"]["from"], "--set", "stated, though it is the default");
        assert_eq!(json["mcastPort"], json!({"value": "45564", "from": "default"}));
        let text = settings.text();
        let (stated, defaults) = text.split_once(" by default ").expect("both");
        assert_eq!(stated, "mcastAddr=\"228.0.0.4\" (--set) mcastFrequency=\"250\" (--set)");
        assert!(defaults.contains("mcastPort=\"45564\""), "{text}");
    }
}
