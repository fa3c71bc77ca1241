//! The reader of server.xml.

use std::collections::BTreeMap;

use ringtribe::config::Config;
use ringtribe::server_xml::{MAX_FILE_BYTES, read_with};

use super::allocations::within;

/// Memory that one byte of a file may take while it is read: a node of the tree for `<a/>`, and
/// what is said of an attribute that is ignored.
const BYTES_A_BYTE: usize = 600;

/// A file.
pub fn play(input: &[u8]) {
    let Ok(text) = core::str::from_utf8(input) else { return };
    let properties = BTreeMap::from([
        ("port".to_owned(), "4000".to_owned()),
        ("loop".to_owned(), "${loop}${loop}${port}".to_owned()),
    ]);
    let mut config = Config::default();
    let before = config.clone();
    let most_bytes = 256 * 1024 + BYTES_A_BYTE * text.len();
    let read = within(most_bytes, || read_with(text, &properties, &mut config));
    match read {
        Ok(summary) => {
            assert!(text.len() <= MAX_FILE_BYTES);
            let mut again = Config::default();
            let same = read_with(text, &properties, &mut again);
            assert_eq!(same.as_ref().ok(), Some(&summary), "the same file says the same");
            assert_eq!(again, config);
            for set in &summary.set {
                assert!(set.line >= 1 && set.element.starts_with("Cluster"), "{set:?}");
            }
            assert!(summary.to_string().len() <= most_bytes);
        }
        Err(error) => {
            assert_eq!(config, before, "a file that is refused changes nothing");
            assert!(!error.to_string().is_empty());
        }
    }
}
