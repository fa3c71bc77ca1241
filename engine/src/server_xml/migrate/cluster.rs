//! The Cluster element of 5.5, whose parts Tomcat's reader of today does not know.

use std::net::IpAddr;

use roxmltree::{Attribute, Node};

use super::known::{self, Fate, Word};
use super::{MigrateError, Migration, is_below_container, of, shown, told};
use crate::config::{ConfigError, nearest};
use crate::server_xml::{ServerXmlError, line_at, line_of, path_of};

const MOVED: &str = "Tomcat knows this element below Channel alone and drops it here; its words \
                     stand on Cluster";

/// Whether an element's words stand on the Cluster element above it today.
pub(super) fn is_moved(node: Node<'_, '_>) -> bool {
    let is_part = matches!(node.tag_name().name(), "Membership" | "Receiver" | "Sender");
    let above = node.parent_element();
    is_part && above.is_some_and(|one| one.has_tag_name("Cluster") && is_below_container(one))
}

/// A word, and where it stood.
struct Given<'a, 'i> {
    name: String,
    attribute: Attribute<'a, 'i>,
    node: Node<'a, 'i>,
}

impl Migration<'_, '_> {
    pub(super) fn cluster(&mut self, cluster: Node<'_, '_>) -> Result<(), MigrateError> {
        let class = of(cluster, "className");
        let is_old = class.is_some_and(|c| c.value().starts_with("org.apache.catalina.cluster."));
        let parts: Vec<_> = cluster.children().filter(|child| is_moved(*child)).collect();
        if !is_old && parts.is_empty() {
            return Ok(());
        }
        let mut added = Vec::new();
        match class {
            Some(class) if class.value() != known::CLUSTER => {
                let why = "the cluster of 5.5 is gone; this one takes its words and acknowledges \
                           what it replicates";
                self.set(class, cluster, known::CLUSTER, why);
            }
            Some(_) => {}
            None => {
                added.push(format!("className=\"{}\"", known::CLUSTER));
                let is = format!("<Cluster className=\"{}\">", known::CLUSTER);
                self.row(line_of(cluster), shown(cluster), Some(is), "Cluster needs a class");
            }
        }
        let mut given = self.own_words(cluster);
        for part in parts {
            self.part(part, &mut given, &mut added)?;
        }
        self.edits.add_attributes(cluster, &added, true);
        Ok(())
    }

    /// The words that stand on Cluster already.
    fn own_words<'a, 'i>(&mut self, cluster: Node<'a, 'i>) -> Vec<Given<'a, 'i>> {
        let mut given = Vec::new();
        for attribute in cluster.attributes() {
            let name = attribute.name();
            let fate = name
                .strip_prefix("manager.")
                .and_then(|rest| known::attribute("Manager", rest))
                .filter(|fate| matches!(fate, Fate::Gone(_)));
            if fate.is_some() {
                self.apply(attribute, cluster, fate);
                continue;
            }
            match known::on_cluster(name) {
                Word::Under(name) => given.push(Given { name, attribute, node: cluster }),
                Word::Without(why) => self.drop_attribute(attribute, cluster, why),
                Word::Unknown => self.drop_attribute(attribute, cluster, unknown(name, "Cluster")),
            }
            if name == "managerClassName"
                && let Some(Fate::Now(class, why)) = known::class(attribute.value(), self.to)
            {
                self.set(attribute, cluster, class, why);
            }
            self.place(attribute, cluster);
        }
        given
    }

    /// Moves the words of a part to Cluster.
    fn part<'a, 'i>(
        &mut self,
        part: Node<'a, 'i>,
        given: &mut Vec<Given<'a, 'i>>,
        added: &mut Vec<String>,
    ) -> Result<(), MigrateError> {
        let element = part.tag_name().name();
        self.remove(part, MOVED);
        for child in part.children().filter(Node::is_element) {
            // What 5.5 had there was for its own code.
            let why = "5.5 had no such element here; today's form needs a Channel around its parts";
            self.row(line_of(child), shown(child), None, why);
        }
        for attribute in part.attributes().filter(|attribute| attribute.name() != "className") {
            let line = line_at(attribute, part);
            let name = match known::word(element, attribute.name()) {
                Word::Under(name) => name,
                Word::Without(why) => {
                    self.row(line, told(attribute, part), None, why);
                    continue;
                }
                Word::Unknown => {
                    let why = unknown(attribute.name(), element);
                    self.row(line, told(attribute, part), None, why);
                    continue;
                }
            };
            let is = format!("<Cluster> {name}=\"{}\"", attribute.value());
            self.row(line, told(attribute, part), Some(is), MOVED);
            self.place(attribute, part);
            if let Some(before) = given.iter().find(|one| one.name == name) {
                if before.attribute.value().trim() != attribute.value().trim() {
                    return Err(contradiction(before, attribute, part).into());
                }
                continue;
            }
            // The value as it is written, with its quotes.
            let value = self.edits.raw(attribute.range_value());
            let quote = if value.contains('"') { '\'' } else { '"' };
            added.push(format!("{name}={quote}{value}{quote}"));
            given.push(Given { name, attribute, node: part });
        }
        Ok(())
    }

    /// Warns of addresses that are taken or elsewhere.
    fn place(&mut self, attribute: Attribute<'_, '_>, node: Node<'_, '_>) {
        match attribute.name() {
            "tcpListenAddress" | "mcastBindAddr" | "mcastBindAddress" => {
                self.address(attribute, node);
            }
            "mcastAddr" => {
                let Ok(IpAddr::V4(address)) = attribute.value().trim().parse() else { return };
                let why = match address.octets() {
                    [224, 0, 0, 5 | 6] => {
                        "kept, so that all nodes stay in one group; it is OSPF's: where routers \
                         speak OSPF, each node gets their packets too; better 228.0.0.4 on all nodes"
                    }
                    [224, 0, 0, _] => {
                        "kept, so that all nodes stay in one group; 224.0.0.x is for routers and \
                         never leaves a network; better 228.0.0.4 on all nodes"
                    }
                    _ => return,
                };
                self.warn(line_at(attribute, node), told(attribute, node), why);
            }
            _ => {}
        }
    }
}

fn unknown(name: &str, element: &str) -> String {
    let near = nearest(name, known::names(element));
    format!("5.5 knew no such attribute here and passed over it; did it mean {near}?")
}

fn contradiction(
    before: &Given<'_, '_>,
    attribute: Attribute<'_, '_>,
    node: Node<'_, '_>,
) -> ServerXmlError {
    let remedy = format!(
        "line {} says {}=\"{}\"; leave one of them out",
        line_at(before.attribute, before.node),
        before.attribute.name(),
        before.attribute.value()
    );
    let error = ConfigError {
        attribute: attribute.name().to_owned(),
        value: attribute.value().to_owned(),
        remedy,
    };
    ServerXmlError::Value { error, line: line_at(attribute, node), element: path_of(node) }
}
