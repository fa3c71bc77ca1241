//! Rounds of figures: their median, with the least and the most.

use serde_json::{Value, json};

use crate::cases::{Case, Figures, Transport};

/// All rounds of one case on one transport.
pub(crate) struct Row {
    pub(crate) receivers_count: usize,
    pub(crate) case: Case,
    pub(crate) transport: Transport,
    pub(crate) rounds: Vec<Figures>,
}

/// Median, least and most.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: u64,
    pub(crate) least: u64,
    pub(crate) most: u64,
}

impl Spread {
    fn json(self) -> Value {
        json!({"median": self.median, "least": self.least, "most": self.most})
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, least, most } = self;
        write!(f, "{} [{}..{}]", grouped(*median), grouped(*least), grouped(*most))
    }
}

impl Row {
    pub(crate) fn spread(&self, pick: impl Fn(&Figures) -> u64) -> Spread {
        let mut values: Vec<u64> = self.rounds.iter().map(pick).collect();
        values.sort_unstable();
        let at = |place: usize| values.get(place).copied().unwrap_or(0);
        Spread {
            median: at(values.len() / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "receivers_count": self.receivers_count, "mode": self.case.name,
            "callers_count": self.case.callers, "messages_count": self.case.messages_count,
            "transport": self.transport.name(),
            "messages_per_second": self.spread(|f| f.rate).json(),
            "p50_us": self.spread(|f| f.p50_us).json(),
            "p99_us": self.spread(|f| f.p99_us).json(),
        })
    }
}

/// A number with a comma after every three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
