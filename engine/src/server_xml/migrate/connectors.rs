//! Connectors: attributes that are gone, and what AJP demands since 9.0.31.

use roxmltree::Node;

use super::edits::escaped;
use super::known::{self, Fate};
use super::{MigrateError, Migration, of};
use crate::server_xml::line_of;

impl Migration<'_, '_> {
    pub(super) fn connector(&mut self, node: Node<'_, '_>) -> Result<(), MigrateError> {
        let named = of(node, "protocol").or_else(|| of(node, "protocolHandlerClassName"));
        let mut protocol = named.map_or("HTTP/1.1", |named| named.value());
        if let Some(named) = named
            && let Some(Fate::Now(now, why)) = known::protocol(protocol, self.to)
        {
            self.set(named, node, now, why);
            protocol = now;
        }
        let is_ajp = protocol.to_ascii_lowercase().contains("ajp");
        for attribute in node.attributes() {
            let fate = known::connector(attribute.name(), self.to);
            self.apply(attribute, node, fate);
        }
        if let Some(address) = of(node, "address") {
            self.address(address, node);
        }
        if is_ajp { self.ajp(node) } else { self.tls(node) }
    }

    fn ajp(&mut self, node: Node<'_, '_>) -> Result<(), MigrateError> {
        let says = |name: &str| of(node, name).map(|attribute| attribute.value());
        let is_open = says("secretRequired").is_some_and(|value| value.trim() == "false");
        let given = of(node, "secret").or_else(|| of(node, "requiredSecret"));
        if is_open || given.is_some_and(|given| !given.value().is_empty()) {
            return Ok(());
        }
        let line = line_of(node);
        let secret = match self.secret.take() {
            Some(secret) => secret,
            None => self
                .surroundings
                .secret()
                .map_err(|error| MigrateError::NoSecret { line, error })?,
        };
        let mut added = Vec::new();
        match given {
            // Empty is as good as none to Tomcat.
            Some(given) => self.edits.value(given, &secret),
            None => added.push(format!("secret=\"{}\"", escaped(&secret))),
        }
        let port = says("port").unwrap_or_default();
        let was = format!("<Connector port=\"{port}\"> (AJP)");
        let is = format!("{was} secret=\"{secret}\"");
        let why = "AJP starts with a secret only, since 9.0.31; give the balancer the same: \
                   worker.NAME.secret=... (mod_jk), ProxyPass ... secret=... (mod_proxy_ajp)";
        self.row(line, was.clone(), Some(is), why);
        if says("address").is_none() {
            added.push("address=\"0.0.0.0\"".to_owned());
            let is = format!("{was} address=\"0.0.0.0\"");
            let why = "5.5 listened on all addresses, AJP of today on loopback alone; narrow it to \
                       the address that the balancer uses";
            self.row(line, was, Some(is), why);
        }
        self.edits.add_attributes(node, &added, false);
        self.secret = Some(secret);
        Ok(())
    }
}
