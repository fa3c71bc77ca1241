//! TLS of a connector: on the Connector element up to 9.0, in elements of its own since.

use roxmltree::{Attribute, Node};

use super::{Line, MigrateError, Migration, covered, of, told};
use crate::server_xml::{line_at, line_of};

/// Old name, element, name there.
const NAMES: &[(&str, Place, &str)] = &[
    ("keystoreFile", Place::Certificate, "certificateKeystoreFile"),
    ("keystorePass", Place::Certificate, "certificateKeystorePassword"),
    ("keystoreType", Place::Certificate, "certificateKeystoreType"),
    ("keystoreProvider", Place::Certificate, "certificateKeystoreProvider"),
    ("keyAlias", Place::Certificate, "certificateKeyAlias"),
    ("keyPass", Place::Certificate, "certificateKeyPassword"),
    ("SSLCertificateFile", Place::Certificate, "certificateFile"),
    ("SSLCertificateKeyFile", Place::Certificate, "certificateKeyFile"),
    ("SSLCertificateChainFile", Place::Certificate, "certificateChainFile"),
    ("SSLPassword", Place::Certificate, "certificateKeyPassword"),
    ("clientAuth", Place::Config, "certificateVerification"),
    ("sslProtocol", Place::Config, "sslProtocol"),
    ("sslEnabledProtocols", Place::Config, "protocols"),
    ("SSLProtocol", Place::Config, "protocols"),
    ("ciphers", Place::Config, "ciphers"),
    ("SSLCipherSuite", Place::Config, "ciphers"),
    ("SSLCACertificateFile", Place::Config, "caCertificateFile"),
    ("SSLCACertificatePath", Place::Config, "caCertificatePath"),
    ("SSLCARevocationFile", Place::Config, "certificateRevocationListFile"),
    ("crlFile", Place::Config, "certificateRevocationListFile"),
    ("algorithm", Place::Config, "keyManagerAlgorithm"),
    ("truststoreFile", Place::Config, "truststoreFile"),
    ("truststorePass", Place::Config, "truststorePassword"),
    ("truststoreType", Place::Config, "truststoreType"),
    ("sessionTimeout", Place::Config, "sessionTimeout"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Config,
    Certificate,
}

const ENABLED: &str = "5.5 took secure=\"true\" for TLS; today SSLEnabled says it";
const MOVED: &str = "on a Connector it is gone since 10.0; TLS has an element of its own";

impl Migration<'_, '_> {
    /// Moves TLS into its elements where the line has them alone, or where the file is 5.5's.
    pub(super) fn tls(&mut self, node: Node<'_, '_>) -> Result<(), MigrateError> {
        let old: Vec<_> = node
            .attributes()
            .filter_map(|attribute| {
                let known = NAMES.iter().find(|(name, ..)| *name == attribute.name())?;
                Some((attribute, known.1, known.2))
            })
            .collect();
        let is_secure = of(node, "secure").is_some_and(|secure| secure.value().trim() == "true");
        let is_own = node.children().any(|child| child.has_tag_name("SSLHostConfig"));
        if is_secure && !old.is_empty() && of(node, "SSLEnabled").is_none() {
            let added = "SSLEnabled=\"true\"".to_owned();
            let is = Some(format!("<Connector {added}>"));
            self.row(line_of(node), "<Connector secure=\"true\">".to_owned(), is, ENABLED);
            self.edits.add_attributes(node, &[added], false);
        }
        if self.to == Line::V9_0 || old.is_empty() {
            return Ok(());
        }
        let (mut config, mut certificate) = (Vec::new(), Vec::new());
        for (attribute, place, name) in old {
            if is_own {
                let why = "on a Connector it is gone since 10.0; write it into the SSLHostConfig \
                           that is there";
                self.warn(line_at(attribute, node), told(attribute, node), why);
                continue;
            }
            self.edits.remove_attribute(attribute);
            let (all, element) = match place {
                Place::Config => (&mut config, "SSLHostConfig"),
                Place::Certificate => (&mut certificate, "SSLHostConfig/Certificate"),
            };
            let value = moved_value(attribute, self.edits.raw(attribute.range_value()));
            let quote = if value.contains('"') { '\'' } else { '"' };
            all.push(format!(" {name}={quote}{value}{quote}"));
            let is = format!("<{element}> {name}=\"{}\"", covered(name, &value));
            self.row(line_at(attribute, node), told(attribute, node), Some(is), MOVED);
        }
        if !is_own {
            let open = format!("<SSLHostConfig{}>", config.concat());
            let inner = format!("  <Certificate{}/>", certificate.concat());
            self.edits.add_child(node, &[open, inner, "</SSLHostConfig>".to_owned()]);
        }
        Ok(())
    }
}

/// The value in its new place, as it is written in XML.
fn moved_value(attribute: Attribute<'_, '_>, raw: &str) -> String {
    match (attribute.name(), attribute.value().trim()) {
        ("clientAuth", "true") => "required",
        ("clientAuth", "want") => "optional",
        ("clientAuth", _) => "none",
        _ => raw,
    }
    .to_owned()
}
