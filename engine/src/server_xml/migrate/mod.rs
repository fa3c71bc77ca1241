//! A server.xml of Tomcat 5.5 (2007) made one for a line of today, with a table of what changed.
//!
//! Only what must change is touched: everything else, comments included, stays byte for byte. A
//! file that needs nothing comes out as it went in, with an empty table.

mod cluster;
mod connectors;
mod edits;
mod known;
mod tls;

use std::fmt;
use std::net::IpAddr;

use roxmltree::{Attribute, Node};

use super::{MARK, ServerXmlError, line_at, line_of, parsed};
use edits::Edits;
use known::Fate;

/// A line of Tomcat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// 9.0, the last with `javax.servlet`.
    V9_0,
    /// 10.1
    V10_1,
    /// 11.0
    V11_0,
}

impl Line {
    /// The line of this name: `9.0`, `10.1` or `11.0`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::V9_0, Self::V10_1, Self::V11_0].into_iter().find(|line| line.to_string() == name)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V9_0 => "9.0",
            Self::V10_1 => "10.1",
            Self::V11_0 => "11.0",
        })
    }
}

/// What the file does not tell, and who knows it.
pub trait Surroundings {
    /// The secret for AJP connectors that have none. It is asked for at most once, and must not be
    /// guessable.
    ///
    /// # Errors
    /// There is no source of randomness.
    fn secret(&self) -> std::io::Result<String>;

    /// Whether an address is one of the machine that will run this Tomcat.
    fn is_here(&self, address: IpAddr) -> bool;

    /// The applications below an `appBase`, as it stands in the file, whose sessions are not copied
    /// or of which that is not known: a name and why. None if the directory cannot be read.
    fn not_copied(&self, app_base: &str) -> Vec<(String, String)>;
}

/// One thing that changed, or that stays and needs a hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Line of the file that was read, from 1.
    pub line: u32,
    /// What stood there.
    pub was: String,
    /// What stands there now; none if nothing does, the same as `was` if it stays.
    pub is: Option<String>,
    /// Why, or what to do.
    pub why: String,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// The new server.xml.
    pub text: String,
    /// What changed, in the order of the lines.
    pub rows: Vec<Row>,
    /// The secret that AJP connectors were given, for the balancer.
    pub secret: Option<String>,
}

/// Why a server.xml is not migrated.
#[derive(Debug)]
pub enum MigrateError {
    /// The file is refused.
    Refused(ServerXmlError),
    /// An AJP connector needs a secret and there is no randomness to make one.
    NoSecret {
        /// Line of the connector.
        line: u32,
        /// Why.
        error: std::io::Error,
    },
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::NoSecret { line, error } => write!(
                f,
                "server.xml, line {line}: the AJP connector needs a secret and none can be made \
                 ({error}); give it one: secret=\"...\""
            ),
        }
    }
}

impl std::error::Error for MigrateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::NoSecret { error, .. } => Some(error),
        }
    }
}

impl From<ServerXmlError> for MigrateError {
    fn from(error: ServerXmlError) -> Self {
        Self::Refused(error)
    }
}

/// Makes of a server.xml one for the line `to`.
///
/// # Errors
/// It is not XML, not a server.xml, or says two things of one; or no secret can be made.
pub fn migrate(
    text: &str,
    to: Line,
    surroundings: &dyn Surroundings,
) -> Result<Migrated, MigrateError> {
    let document = parsed(text)?;
    let root = document.root_element();
    if !root.has_tag_name("Server") {
        let element = root.tag_name().name().to_owned();
        return Err(ServerXmlError::NotServer { element, line: line_of(root) }.into());
    }
    let body = text.strip_prefix(MARK).unwrap_or(text);
    let is_old = root
        .descendants()
        .filter_map(|node| of(node, "className"))
        .any(|class| class.value().starts_with("org.apache.catalina.cluster."));
    let edits = Edits::new(body);
    let mut migration = Migration { to, surroundings, is_old, edits, rows: vec![], secret: None };
    migration.element(root)?;
    let Migration { edits, mut rows, secret, .. } = migration;
    let body = edits.apply();
    let text = if text.starts_with(MARK) { format!("{MARK}{body}") } else { body };
    // What is written is read again before anybody relies on it.
    parsed(&text)?;
    rows.sort_by_key(|row| row.line);
    Ok(Migrated { text, rows, secret })
}

struct Migration<'t, 's> {
    to: Line,
    surroundings: &'s dyn Surroundings,
    /// It has a cluster of 5.5.
    is_old: bool,
    edits: Edits<'t>,
    rows: Vec<Row>,
    secret: Option<String>,
}

impl Migration<'_, '_> {
    fn row(&mut self, line: u32, was: String, is: Option<String>, why: impl Into<String>) {
        self.rows.push(Row { line, was, is, why: why.into() });
    }

    /// Something stays, and needs a hand.
    fn warn(&mut self, line: u32, what: String, why: impl Into<String>) {
        self.row(line, what.clone(), Some(what), why);
    }

    fn element(&mut self, node: Node<'_, '_>) -> Result<(), MigrateError> {
        let name = node.tag_name().name();
        let has_class = matches!(
            name,
            "Listener" | "Valve" | "Realm" | "Deployer" | "ClusterListener" | "Manager"
        );
        if has_class && !self.class(node) {
            return Ok(());
        }
        match name {
            "Cluster" if is_below_container(node) => self.cluster(node)?,
            "Connector" => self.connector(node)?,
            "Logger" => {
                self.remove(node, "gone since 5.5: conf/logging.properties says what is logged");
                return Ok(());
            }
            _ => {}
        }
        if matches!(
            name,
            "Server" | "Service" | "Engine" | "Host" | "Context" | "Realm" | "Valve" | "Manager"
        ) {
            self.attributes(node);
        }
        match name {
            "Valve" => self.valve(node),
            "Host" => self.host(node),
            _ => {}
        }
        for child in node.children().filter(Node::is_element) {
            if !cluster::is_moved(child) {
                self.element(child)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, node: Node<'_, '_>, why: &str) {
        self.edits.remove_element(node);
        self.row(line_of(node), shown(node), None, why);
    }

    /// Looks at the class of an element; false if the element is gone.
    fn class(&mut self, node: Node<'_, '_>) -> bool {
        let Some(attribute) = of(node, "className") else { return true };
        match known::class(attribute.value(), self.to) {
            None => {}
            Some(Fate::Gone(why)) => {
                self.remove(node, why);
                return false;
            }
            Some(Fate::Now(class, why)) => self.set(attribute, node, class, why),
            Some(Fate::Stays(why)) => self.warn(line_at(attribute, node), shown(node), why),
        }
        true
    }

    fn attributes(&mut self, node: Node<'_, '_>) {
        for attribute in node.attributes() {
            let fate = known::attribute(node.tag_name().name(), attribute.name());
            self.apply(attribute, node, fate);
        }
    }

    fn apply(&mut self, attribute: Attribute<'_, '_>, node: Node<'_, '_>, fate: Option<Fate>) {
        match fate {
            None => {}
            Some(Fate::Gone(why)) => self.drop_attribute(attribute, node, why),
            Some(Fate::Now(name, why)) => {
                self.edits.replace(attribute.range_qname(), name);
                let is = format!("<{}> {name}=\"{}\"", node.tag_name().name(), attribute.value());
                self.row(line_at(attribute, node), told(attribute, node), Some(is), why);
            }
            Some(Fate::Stays(why)) => {
                self.warn(line_at(attribute, node), told(attribute, node), why);
            }
        }
    }

    fn drop_attribute(
        &mut self,
        attribute: Attribute<'_, '_>,
        node: Node<'_, '_>,
        why: impl Into<String>,
    ) {
        self.edits.remove_attribute(attribute);
        self.row(line_at(attribute, node), told(attribute, node), None, why);
    }

    /// Gives an attribute another value.
    fn set(&mut self, attribute: Attribute<'_, '_>, node: Node<'_, '_>, value: &str, why: &str) {
        self.edits.value(attribute, value);
        let element = node.tag_name().name();
        let is = format!("<{element}> {}=\"{value}\"", attribute.name());
        self.row(line_at(attribute, node), told(attribute, node), Some(is), why);
    }

    fn valve(&mut self, node: Node<'_, '_>) {
        let class = of(node, "className").map_or("", |attribute| attribute.value());
        if class.ends_with("ReplicationValve") {
            if let Some(filter) = of(node, "filter")
                && filter.value().contains(';')
            {
                let regex = alternatives(filter.value(), ';');
                let why = "a list between semicolons is one regular expression today; with a \
                           semicolon in it nothing matches";
                self.set(filter, node, &regex, why);
            }
        } else if class.ends_with(".RemoteAddrValve") || class.ends_with(".RemoteHostValve") {
            for attribute in node.attributes() {
                let value = attribute.value();
                // A comma between braces is a regular expression's own.
                if matches!(attribute.name(), "allow" | "deny")
                    && value.contains(',')
                    && !value.contains('{')
                {
                    let why = "a list between commas is one regular expression today; with a \
                               comma in it nothing matches";
                    self.set(attribute, node, &alternatives(value, ','), why);
                }
            }
        }
    }

    /// Warns of an address that only another machine has.
    fn address(&mut self, attribute: Attribute<'_, '_>, node: Node<'_, '_>) {
        let is_elsewhere = |address| !self.surroundings.is_here(address);
        if attribute.value().trim().parse().is_ok_and(is_elsewhere) {
            let why = "not an address of this machine: right if the file is for another one; else \
                       give one of this";
            self.warn(line_at(attribute, node), told(attribute, node), why);
        }
    }

    /// Warns of applications that a cluster does not copy.
    fn host(&mut self, node: Node<'_, '_>) {
        let clusters = |parent: Node<'_, '_>| parent.children().any(|c| c.has_tag_name("Cluster"));
        if !clusters(node) && !node.parent_element().is_some_and(clusters) {
            return;
        }
        let app_base = of(node, "appBase");
        let (line, value) =
            app_base.map_or((line_of(node), "webapps"), |base| (line_at(base, node), base.value()));
        if self.is_old && self.to != Line::V9_0 {
            let why = "this line runs jakarta.servlet: put applications of javax.servlet into \
                       webapps-javaee beside it (legacyAppBase), where Tomcat converts them";
            self.warn(line, format!("<Host> appBase=\"{value}\""), why);
        }
        for (name, why) in self.surroundings.not_copied(value) {
            self.warn(line, format!("<Host> appBase=\"{value}\", application {name}"), why);
        }
    }
}

fn is_below_container(node: Node<'_, '_>) -> bool {
    node.parent_element()
        .is_some_and(|parent| matches!(parent.tag_name().name(), "Engine" | "Host"))
}

fn of<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Attribute<'a, 'i>> {
    node.attributes().find(|attribute| attribute.name() == name)
}

/// An attribute as the table shows it.
fn told(attribute: Attribute<'_, '_>, node: Node<'_, '_>) -> String {
    let (name, value) = (attribute.name(), attribute.value());
    format!("<{}> {name}=\"{}\"", node.tag_name().name(), covered(name, value))
}

/// A value as the table shows it: tables are sent around, passwords are not.
fn covered<'v>(name: &str, value: &'v str) -> &'v str {
    if name.to_ascii_lowercase().contains("pass") { "***" } else { value }
}

/// An element as the table shows it.
fn shown(node: Node<'_, '_>) -> String {
    let name = node.tag_name().name();
    of(node, "className").map_or_else(
        || format!("<{name}>"),
        |class| format!("<{name} className=\"{}\">", class.value()),
    )
}

/// A list as one regular expression that matches what any of the list does.
fn alternatives(list: &str, separator: char) -> String {
    let parts: Vec<String> = list
        .split(separator)
        .map(str::trim)
        .filter(|part| !part.is_empty())
        // A flag inside one part must not reach the next.
        .map(|part| if part.contains("(?") { format!("(?:{part})") } else { part.to_owned() })
        .collect();
    parts.join("|")
}
