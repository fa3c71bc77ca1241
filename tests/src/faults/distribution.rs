//! Figures of many trials.

use std::fmt;

/// Times of trials, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    micros: Vec<u64>,
}

impl Distribution {
    /// Adds a trial.
    pub fn add(&mut self, micros: u64) {
        self.micros.push(micros);
    }

    /// Adds the trials of another.
    pub fn append(&mut self, other: &Self) {
        self.micros.extend_from_slice(&other.micros);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }

    /// The time that so many of a thousand trials did not exceed; 0 without trials.
    #[must_use]
    pub fn permille(&self, permille: usize) -> u64 {
        let mut micros = self.micros.clone();
        micros.sort_unstable();
        let last = micros.len().saturating_sub(1);
        micros.get((micros.len() * permille / 1_000).min(last)).copied().unwrap_or(0)
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.permille(1_000)
    }

    /// How many took longer.
    #[must_use]
    pub fn above(&self, micros: u64) -> usize {
        self.micros.iter().filter(|is| **is > micros).count()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |micros: u64| format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10);
        let (p50, p99, max) = (self.permille(500), self.permille(990), self.max());
        write!(f, "p50 {}, p99 {}, max {} of {}", ms(p50), ms(p99), ms(max), self.len())
    }
}
