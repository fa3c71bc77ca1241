//! The `<Cluster>` element of Tomcat's `server.xml`, read into a [`Config`].
//!
//! Two forms are understood, below `Engine` or `Host`: that of Tomcat 5.5 (2007), with
//! `Membership`, `Receiver` and `Sender` directly below `Cluster`, and today's, with a `Channel`
//! around them and `Transport`, `Interceptor` and `Member` inside. Class names are not looked at:
//! stock's and Ringtribe's elements have the same attributes. The engine's attributes may also stand
//! on the `Cluster` element itself.

mod error;
mod known;
pub mod migrate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use roxmltree::{Attribute, Document, Node};

use crate::config::{Config, ConfigError, nearest};

pub use error::ServerXmlError;

/// Longest server.xml, bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Most elements, attributes and texts of one.
const NODES_LIMIT_COUNT: u32 = 100_000;

/// An attribute that went into the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The engine's name of it.
    pub attribute: String,
    /// Its value, with placeholders replaced.
    pub value: String,
    /// Line in the file, from 1.
    pub line: u32,
    /// The element that has it, from `Cluster` down.
    pub element: String,
}

/// Something that did not go into the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The attribute, or an element in angle brackets.
    pub what: String,
    /// Line in the file, from 1.
    pub line: u32,
    /// The element that has it, from `Cluster` down.
    pub element: String,
    /// Why.
    pub why: String,
}

/// What was read, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Line of the `Cluster` element.
    pub cluster_line: u32,
    /// What went into the configuration.
    pub set: Vec<Set>,
    /// What did not.
    pub ignored: Vec<Ignored>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Set { attribute, value, line, element } in &self.set {
            writeln!(f, "line {line}: {attribute}=\"{value}\" from {element}")?;
        }
        for Ignored { what, line, element, why } in &self.ignored {
            writeln!(f, "line {line}: {what} of {element} is ignored: {why}")?;
        }
        Ok(())
    }
}

/// Reads the file at `path`; see [`read`].
///
/// # Errors
/// As [`read`], and a file that cannot be read.
pub fn load(path: &Path, config: &mut Config) -> Result<Summary, ServerXmlError> {
    load_with(path, &BTreeMap::new(), config)
}

/// Reads the file at `path`; see [`read_with`].
///
/// # Errors
/// As [`read_with`], and a file that cannot be read.
pub fn load_with(
    path: &Path,
    properties: &BTreeMap<String, String>,
    config: &mut Config,
) -> Result<Summary, ServerXmlError> {
    read_with(&text_of(path)?, properties, config)
}

/// The text of the file at `path`, of at most [`MAX_FILE_BYTES`].
///
/// # Errors
/// A file that cannot be read, is longer, or is not UTF-8.
pub fn text_of(path: &Path) -> Result<String, ServerXmlError> {
    use std::io::Read as _;
    let unreadable = |error| ServerXmlError::Unreadable { path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than is accepted; the rest of a file that never ends is not read.
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(ServerXmlError::TooLong { bytes: bytes.len() });
    }
    String::from_utf8(bytes)
        .map_err(|error| ServerXmlError::NotUtf8 { offset: error.utf8_error().valid_up_to() })
}

/// Reads a server.xml without placeholders; see [`read_with`].
///
/// # Errors
/// See [`ServerXmlError`]; `config` is as before then.
pub fn read(text: &str, config: &mut Config) -> Result<Summary, ServerXmlError> {
    read_with(text, &BTreeMap::new(), config)
}

/// Reads a server.xml. `${name}` and `${name:-default}` in values are replaced by `properties`,
/// as Tomcat does with system properties.
///
/// # Errors
/// See [`ServerXmlError`]; `config` is as before then.
pub fn read_with(
    text: &str,
    properties: &BTreeMap<String, String>,
    config: &mut Config,
) -> Result<Summary, ServerXmlError> {
    let document = parsed(text)?;
    let mut clusters = document.descendants().filter(|node| {
        let below = |parent: Node<'_, '_>| matches!(parent.tag_name().name(), "Engine" | "Host");
        node.has_tag_name("Cluster") && node.parent_element().is_some_and(below)
    });
    let cluster = clusters.next().ok_or(ServerXmlError::NoCluster)?;
    if let Some(second) = clusters.next() {
        return Err(ServerXmlError::TwoClusters {
            first_line: line_of(cluster),
            second_line: line_of(second),
        });
    }
    let mut reader = Reader {
        properties,
        config: config.clone(),
        summary: Summary { cluster_line: line_of(cluster), ..Summary::default() },
        has_static_list: false,
    };
    reader.cluster(cluster)?;
    *config = reader.config;
    Ok(reader.summary)
}

/// Files of Windows editors begin with a mark of their encoding.
const MARK: char = '\u{feff}';

/// The document, within its bounds; ranges count from behind the mark of the encoding.
fn parsed(text: &str) -> Result<Document<'_>, ServerXmlError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(ServerXmlError::TooLong { bytes: text.len() });
    }
    // A document type could define entities that grow without end, or name other files.
    let options = roxmltree::ParsingOptions {
        allow_dtd: false,
        nodes_limit: NODES_LIMIT_COUNT,
        ..roxmltree::ParsingOptions::default()
    };
    let text = text.strip_prefix(MARK).unwrap_or(text);
    Document::parse_with_options(text, options).map_err(ServerXmlError::xml)
}

fn line_of(node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(node.range().start).row
}

/// `Cluster/Channel/Membership`.
fn path_of(node: Node<'_, '_>) -> String {
    let mut names = vec![node.tag_name().name()];
    for parent in node.ancestors().skip(1) {
        if names.last() == Some(&"Cluster") {
            break;
        }
        names.push(parent.tag_name().name());
    }
    names.reverse();
    names.join("/")
}

struct Reader<'p> {
    properties: &'p BTreeMap<String, String>,
    config: Config,
    summary: Summary,
    /// A staticMembers attribute or a Member element was read.
    has_static_list: bool,
}

impl Reader<'_> {
    fn cluster(&mut self, cluster: Node<'_, '_>) -> Result<(), ServerXmlError> {
        self.attributes(cluster, known::CLUSTER, false)?;
        for child in cluster.children().filter(Node::is_element) {
            match child.tag_name().name() {
                "Channel" => {
                    self.attributes(child, known::CHANNEL, false)?;
                    for part in child.children().filter(Node::is_element) {
                        self.part(part)?;
                    }
                }
                _ => self.part(child)?,
            }
        }
        Ok(())
    }

    /// What stands below Cluster in 2007 and below Channel today.
    fn part(&mut self, part: Node<'_, '_>) -> Result<(), ServerXmlError> {
        match part.tag_name().name() {
            "Membership" => {
                self.attributes(part, known::MEMBERSHIP, true)?;
                self.children(part)
            }
            "Receiver" => {
                self.attributes(part, known::RECEIVER, true)?;
                self.children(part)
            }
            "Sender" => {
                self.attributes(part, known::SENDER, true)?;
                for child in part.children().filter(Node::is_element) {
                    if child.has_tag_name("Transport") {
                        self.attributes(child, known::SENDER, true)?;
                    } else {
                        self.ignore_element(child);
                    }
                }
                Ok(())
            }
            "Interceptor" => {
                self.attributes(part, known::INTERCEPTOR, false)?;
                self.children(part)
            }
            _ => {
                self.ignore_element(part);
                Ok(())
            }
        }
    }

    /// Static members stand below the interceptor, or below a static membership service.
    fn children(&mut self, part: Node<'_, '_>) -> Result<(), ServerXmlError> {
        for child in part.children().filter(Node::is_element) {
            if child.has_tag_name("Member") {
                self.member(child)?;
            } else {
                self.ignore_element(child);
            }
        }
        Ok(())
    }

    fn member(&mut self, member: Node<'_, '_>) -> Result<(), ServerXmlError> {
        let line = line_of(member);
        let of = |name: &str| member.attributes().find(|attribute| attribute.name() == name);
        let value = |name: &'static str| {
            of(name).map(|attribute| self.value(attribute, member)).transpose()
        };
        let (host, port, unique_id) = (value("host")?, value("port")?, value("uniqueId")?);
        let (Some(host), Some(port)) = (host, port) else {
            let remedy = "a Member needs host and port".to_owned();
            let error = ConfigError { attribute: "Member".into(), value: String::new(), remedy };
            return Err(ServerXmlError::Value { error, line, element: path_of(member) });
        };
        let (host, port) = (host.trim(), port.trim());
        let mut entry = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        if let Some(unique_id) = unique_id {
            entry = format!("{entry}/{}", unique_id.trim());
        }
        if !std::mem::replace(&mut self.has_static_list, true) {
            self.config.static_members.clear();
        }
        self.config.add_static_member(&entry).map_err(|error| ServerXmlError::Value {
            error,
            line,
            element: path_of(member),
        })?;
        let attribute = "staticMembers".to_owned();
        self.summary.set.push(Set { attribute, value: entry, line, element: path_of(member) });
        for attribute in member.attributes() {
            if !matches!(attribute.name(), "className" | "host" | "port" | "uniqueId") {
                self.ignore(attribute, member, "a member tells it itself".into());
            }
        }
        Ok(())
    }

    /// Reads the attributes of an element. On the engine's own elements what nobody knows is an
    /// error, on others it is another's business.
    fn attributes(
        &mut self,
        node: Node<'_, '_>,
        known: &known::Element,
        is_engines: bool,
    ) -> Result<(), ServerXmlError> {
        for attribute in node.attributes() {
            let name = attribute.name();
            if name == "className" {
                continue;
            }
            if let Some(why) = known.ignored(name) {
                self.ignore(attribute, node, why.to_owned());
            } else if let Some(knob) = known.knob(name) {
                let value = self.value(attribute, node)?;
                let at = |error: ConfigError| ServerXmlError::Value {
                    error: ConfigError { attribute: name.to_owned(), ..error },
                    line: line_at(attribute, node),
                    element: path_of(node),
                };
                self.config.set(knob, &value).map_err(at)?;
                self.has_static_list |= knob == "staticMembers";
                self.summary.set.push(Set {
                    attribute: knob.to_owned(),
                    value,
                    line: line_at(attribute, node),
                    element: path_of(node),
                });
            } else {
                let near = nearest(name, known.names());
                if is_engines {
                    let error = ConfigError {
                        attribute: name.to_owned(),
                        value: attribute.value().to_owned(),
                        remedy: format!("no such attribute; did you mean {near}?"),
                    };
                    let line = line_at(attribute, node);
                    return Err(ServerXmlError::Value { error, line, element: path_of(node) });
                }
                let why = format!("not an attribute of the engine; the nearest is {near}");
                self.ignore(attribute, node, why);
            }
        }
        Ok(())
    }

    fn ignore(&mut self, attribute: Attribute<'_, '_>, node: Node<'_, '_>, why: String) {
        let (what, line) = (attribute.name().to_owned(), line_at(attribute, node));
        self.summary.ignored.push(Ignored { what, line, element: path_of(node), why });
    }

    fn ignore_element(&mut self, node: Node<'_, '_>) {
        let name = node.tag_name().name();
        let why = known::element_is_whose(name).to_owned();
        let parent = node.parent_element().map(path_of).unwrap_or_default();
        let what = format!("<{name}>");
        self.summary.ignored.push(Ignored { what, line: line_of(node), element: parent, why });
    }

    /// The value of an attribute, with its placeholders replaced; what replaces them is not
    /// looked at again.
    fn value(
        &self,
        attribute: Attribute<'_, '_>,
        node: Node<'_, '_>,
    ) -> Result<String, ServerXmlError> {
        let mut value = String::new();
        let mut rest = attribute.value();
        while let Some((before, after)) = rest.split_once("${") {
            value.push_str(before);
            let Some((inside, after)) = after.split_once('}') else {
                value.push_str("${");
                rest = after;
                continue;
            };
            let (name, default) = match inside.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            let found = self.properties.get(name).map(String::as_str).or(default);
            let found = found.ok_or_else(|| ServerXmlError::Unresolved {
                attribute: attribute.name().to_owned(),
                property: name.to_owned(),
                line: line_at(attribute, node),
            })?;
            value.push_str(found);
            rest = after;
        }
        value.push_str(rest);
        Ok(value)
    }
}

fn line_at(attribute: Attribute<'_, '_>, node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(attribute.range().start).row
}
