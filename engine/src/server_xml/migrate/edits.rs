//! Changes to a text by ranges of bytes: what no change touches stays as it is.

use std::ops::Range;

use roxmltree::{Attribute, Node};

/// Changes that are collected, in any order, and made at once.
pub(super) struct Edits<'t> {
    text: &'t str,
    /// None overlaps another.
    list: Vec<(Range<usize>, String)>,
}

impl<'t> Edits<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, list: Vec::new() }
    }

    /// What the text writes there.
    pub(super) fn raw(&self, range: Range<usize>) -> &'t str {
        &self.text[range]
    }

    /// The end of a line, as this file has it.
    pub(super) fn line_end(&self) -> &'static str {
        if self.text.contains("\r\n") { "\r\n" } else { "\n" }
    }

    pub(super) fn replace(&mut self, range: Range<usize>, with: impl Into<String>) {
        self.list.push((range, with.into()));
    }

    /// Gives an attribute another value, which is escaped.
    pub(super) fn value(&mut self, attribute: Attribute<'_, '_>, value: &str) {
        self.replace(attribute.range_value(), escaped(value));
    }

    /// Takes an attribute out, with the white space before it.
    pub(super) fn remove_attribute(&mut self, attribute: Attribute<'_, '_>) {
        let range = attribute.range();
        self.replace(range.start - self.gap_before(range.start).len()..range.end, "");
    }

    /// Takes an element out, with its line if it stands there alone. The comments inside stay.
    pub(super) fn remove_element(&mut self, node: Node<'_, '_>) {
        let range = node.range();
        let indent = self.indent(range.start);
        let comments: Vec<&str> = node
            .descendants()
            .filter(Node::is_comment)
            .map(|comment| self.raw(comment.range()))
            .collect();
        if !comments.is_empty() {
            let between = format!("{}{indent}", self.line_end());
            self.replace(range, comments.join(&between));
            return;
        }
        let line_start = range.start - indent.len();
        let is_first = line_start == 0 || self.text[..line_start].ends_with('\n');
        let rest = &self.text[range.end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let end_of_line = match &rest[blanks..] {
            behind if behind.starts_with("\r\n") => Some(2),
            behind if behind.starts_with('\n') => Some(1),
            _ => None,
        };
        match end_of_line {
            Some(length) if is_first => {
                self.replace(line_start..range.end + blanks + length, "");
            }
            _ => self.replace(range, ""),
        }
    }

    /// Adds attributes, `name="value"` each, behind those that the element has; each on a line of
    /// its own if asked for, else as the last one stands.
    pub(super) fn add_attributes(&mut self, node: Node<'_, '_>, all: &[String], on_lines: bool) {
        let last = node.attributes().map(|attribute| attribute.range()).max_by_key(|r| r.end);
        let at = names_end(node);
        let gap = last.map_or(" ", |range| self.gap_before(range.start));
        let own = format!("{}{}         ", self.line_end(), self.indent(node.range().start));
        let gap = if on_lines && !gap.contains('\n') { own.as_str() } else { gap };
        let added: String = all.iter().map(|attribute| format!("{gap}{attribute}")).collect();
        self.replace(at..at, added);
    }

    /// Adds a child before those that the element has. `lines` are indented below the element.
    pub(super) fn add_child(&mut self, node: Node<'_, '_>, lines: &[String]) {
        let range = node.range();
        let indent = self.indent(range.start);
        let end = self.line_end();
        let child: String =
            lines.iter().map(|line| format!("{end}{indent}  {line}")).collect::<Vec<_>>().concat();
        let tag = names_end(node);
        let rest = &self.text[tag..range.end];
        // Behind the attributes there is no quote in which another one could stand.
        let close = tag + rest.find('>').unwrap_or(rest.len() - 1);
        if self.text[..close].ends_with('/') {
            let name = node.tag_name().name();
            self.replace(close - 1..close + 1, format!(">{child}{end}{indent}</{name}>"));
        } else {
            self.replace(close + 1..close + 1, child);
        }
    }

    /// The white space before a place.
    fn gap_before(&self, at: usize) -> &'t str {
        let before = &self.text[..at];
        &before[before.trim_end().len()..]
    }

    /// The blanks between the line's beginning and a place, or the last thing before it.
    pub(super) fn indent(&self, at: usize) -> &'t str {
        let before = &self.text[..at];
        &before[before.trim_end_matches([' ', '\t']).len()..]
    }

    /// The text with all changes.
    pub(super) fn apply(mut self) -> String {
        // Of two at one place, an insertion is first; else the order they were asked for.
        self.list.sort_by_key(|(range, _)| (range.start, range.end));
        let (mut text, mut done) = (String::with_capacity(self.text.len() + 1024), 0);
        for (range, with) in &self.list {
            debug_assert!(range.start >= done, "two changes of {:?}", self.raw(range.clone()));
            text.push_str(self.text.get(done..range.start).unwrap_or_default());
            text.push_str(with);
            done = done.max(range.end);
        }
        text.push_str(&self.text[done..]);
        text
    }
}

/// Behind the last attribute of an element, or behind its name.
fn names_end(node: Node<'_, '_>) -> usize {
    let ends = node.attributes().map(|attribute| attribute.range().end);
    // A name with a prefix is longer, but no element that is changed has one.
    ends.max().unwrap_or(node.range().start + 1 + node.tag_name().name().len())
}

/// A value as it stands in XML between double or single quotes.
pub(super) fn escaped(value: &str) -> String {
    value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
        .replace('\n', "&#10;")
}
