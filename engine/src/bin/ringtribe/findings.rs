//! What the doctor found: a line each, and what follows from all of them.

use serde_json::{Map, Value, json};

use crate::output;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    Ok,
    /// A node runs, but not as it should, or not for long.
    Warn,
    /// No node can run.
    Fail,
}

impl Grade {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
struct Finding {
    grade: Grade,
    name: &'static str,
    what: String,
    /// What to do; none if all is well.
    remedy: Option<String>,
}

/// All of them, with the facts behind for programs.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    facts: Map<String, Value>,
}

impl Findings {
    /// Notes that something is as it should be.
    pub(crate) fn ok(&mut self, name: &'static str, what: impl Into<String>) {
        self.list.push(Finding { grade: Grade::Ok, name, what: what.into(), remedy: None });
    }

    /// Notes something that costs, with what to do.
    pub(crate) fn warn(&mut self, name: &'static str, what: String, remedy: impl Into<String>) {
        self.list.push(Finding { grade: Grade::Warn, name, what, remedy: Some(remedy.into()) });
    }

    /// Notes something that keeps a node from running; `what` tells what to do where `remedy` does
    /// not.
    pub(crate) fn fail(&mut self, name: &'static str, what: String, remedy: Option<String>) {
        self.list.push(Finding { grade: Grade::Fail, name, what, remedy });
    }

    /// Notes a fact by name.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// The gravest grade.
    pub(crate) fn worst(&self) -> Grade {
        self.list.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Ok)
    }

    /// Prints all findings.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn print(&self, json: bool) -> std::io::Result<()> {
        if json {
            let findings: Vec<Value> = self.list.iter().map(Finding::json).collect();
            return output::object(&json!({
                "can_run": self.worst() < Grade::Fail, "findings": findings, "facts": self.facts,
            }));
        }
        for finding in &self.list {
            let Finding { grade, name, what, remedy } = finding;
            output::line(&format!("{:<5} {name:<14} {what}", grade.word()))?;
            if let Some(remedy) = remedy {
                output::line(&format!("{:<20} {remedy}", ""))?;
            }
        }
        output::line(match self.worst() {
            Grade::Ok => "a node can run here",
            Grade::Warn => "a node can run here; see what is marked WARN",
            Grade::Fail => "no node can run here with these settings; see what is marked FAIL",
        })
    }
}

impl Finding {
    fn json(&self) -> Value {
        json!({
            "grade": self.grade.word(), "name": self.name, "what": self.what,
            "remedy": self.remedy,
        })
    }
}
