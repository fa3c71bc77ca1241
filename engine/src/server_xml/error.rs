use std::fmt;
use std::path::PathBuf;

use super::MAX_FILE_BYTES;
use crate::config::ConfigError;

/// Why a server.xml is refused. Each names the place and what to do.
#[derive(Debug)]
pub enum ServerXmlError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not text in UTF-8.
    NotUtf8 {
        /// Where it ceases to be, in bytes.
        offset: usize,
    },
    /// Longer than [`MAX_FILE_BYTES`].
    TooLong {
        /// Its length, or what was read of it.
        bytes: usize,
    },
    /// Not well-formed XML.
    NotXml {
        /// What is wrong.
        text: String,
        /// From 1.
        line: u32,
        /// From 1.
        column: u32,
    },
    /// A document type, which could define entities.
    Doctype,
    /// No `Cluster` element below an Engine or a Host.
    NoCluster,
    /// More than one.
    TwoClusters {
        /// Line of the first.
        first_line: u32,
        /// Line of the second.
        second_line: u32,
    },
    /// Its first element is another one.
    NotServer {
        /// The element.
        element: String,
        /// Its line.
        line: u32,
    },
    /// A value is refused.
    Value {
        /// The attribute, its value and the remedy.
        error: ConfigError,
        /// Its line.
        line: u32,
        /// The element that has it.
        element: String,
    },
    /// A placeholder has no value.
    Unresolved {
        /// The attribute.
        attribute: String,
        /// The name inside the braces.
        property: String,
        /// Its line.
        line: u32,
    },
}

impl ServerXmlError {
    pub(super) fn xml(error: roxmltree::Error) -> Self {
        if matches!(error, roxmltree::Error::DtdDetected) {
            return Self::Doctype;
        }
        let at = error.pos();
        Self::NotXml { text: error.to_string(), line: at.row, column: at.col }
    }
}

impl fmt::Display for ServerXmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            Self::NotUtf8 { offset } => write!(
                f,
                "server.xml is not text in UTF-8 from byte {offset} on; save it in that encoding"
            ),
            Self::TooLong { bytes } => {
                write!(f, "server.xml has {bytes} bytes or more; at most {MAX_FILE_BYTES} are read")
            }
            Self::NotXml { text, line, column } => {
                write!(f, "server.xml is not XML at line {line}, column {column}: {text}")
            }
            Self::Doctype => f.write_str(
                "server.xml has a DOCTYPE, which is refused because it can define entities; take \
                 it out and write the entities out",
            ),
            Self::NoCluster => f.write_str(
                "server.xml has no <Cluster> element below an <Engine> or a <Host>; is it \
                 commented out?",
            ),
            Self::TwoClusters { first_line, second_line } => write!(
                f,
                "server.xml has two <Cluster> elements, at line {first_line} and at line \
                 {second_line}; a node is in one cluster, take one out"
            ),
            Self::NotServer { element, line } => write!(
                f,
                "server.xml begins with <{element}> at line {line}; give a file with a <Server>"
            ),
            Self::Value { error, line, element } => {
                write!(f, "server.xml, line {line}, {element}: {error}")
            }
            Self::Unresolved { attribute, property, line } => write!(
                f,
                "server.xml, line {line}: {attribute} names the property {property}, which has \
                 no value; give -D{property}=VALUE, or a default: ${{{property}:-VALUE}}"
            ),
        }
    }
}

impl std::error::Error for ServerXmlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { error, .. } => Some(error),
            _ => None,
        }
    }
}
