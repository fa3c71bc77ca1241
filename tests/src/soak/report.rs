//! Judges a run.

use std::fmt::Write;

use super::cluster::{STAYING_COUNT, Sample};
use super::course::Record;
use super::slope::{DAY_KIB, DAY_SHARE, Finding, Slope};

/// What a member may not hold when nothing is sent and nothing on the way.
pub const ZERO_WHEN_QUIET: &[&str] = &[
    "queued_bytes",
    "undelivered_bytes",
    "reserved_bytes",
    "delivery_lines_count",
    "lent_buffers_count",
    "connecting_count",
    "orphans_count",
    "app_pending",
];

/// What has to come back to what it was, at the same place of a cycle.
pub const COMES_BACK: &[&str] = &[
    "descriptors",
    "threads",
    "open_connections_count",
    "known_connections_count",
    "operations_in_flight_count",
    "linked_members_count",
    "directory_members_count",
    "buffers_used_bytes",
];

/// What is measured by its slope.
const SLOPES: &[&str] = &[
    "rss_kib",
    "pss_kib",
    "anonymous_kib",
    "descriptors",
    "threads",
    "heap_kib",
    "metaspace_kib",
    "code_kib",
    "classes",
    "java_threads",
    "direct_kib",
    "direct_buffers",
    "buffers_used_bytes",
    "buffers_idle_bytes",
    "remembered_lives_count",
    "remembered_senders_count",
    "open_gaps_count",
    "kept_streams_count",
    "deadlines_count",
];
/// Those of them that must be flat. Idle buffers may fill their pool, and what is remembered of lives
/// that ended has a bound of its own.
const FLAT: &[&str] = &[
    "rss_kib",
    "pss_kib",
    "anonymous_kib",
    "descriptors",
    "threads",
    "heap_kib",
    "metaspace_kib",
    "classes",
    "java_threads",
    "direct_kib",
    "direct_buffers",
    "buffers_used_bytes",
    "kept_streams_count",
    "deadlines_count",
];

/// What a sample may catch in use for a moment. What leaks raises the least of neighbouring samples;
/// a moment's use is no growth, whenever it comes.
const IN_FLIGHT: &str = "buffers_used_bytes";
/// Neighbouring samples of which the least is taken.
const FLOOR_OF_COUNT: usize = 4;

fn floors(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let least = |group: &[(f64, f64)]| {
        (group[0].0, group.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min))
    };
    points.chunks_exact(FLOOR_OF_COUNT).map(least).collect()
}

/// What would break a promise, as the members count it.
pub const BROKEN: &[&str] = &["app_lost", "app_duplicates", "app_disorder", "app_damaged"];

/// What a run says.
#[derive(Debug, Default)]
pub struct Verdict {
    /// For people.
    pub text: String,
    /// For programs: name, value.
    pub figures: Vec<(String, f64)>,
    /// What is not as it should be.
    pub complaints: Vec<String>,
}

/// A figure of one staying member over time, where `wanted` holds.
fn series(
    samples: &[Sample],
    place: usize,
    name: &str,
    wanted: impl Fn(&Sample) -> bool,
) -> Vec<(f64, f64)> {
    samples
        .iter()
        .filter(|sample| sample.place == place && wanted(sample))
        .filter_map(|sample| Some((sample.at_s, *sample.figures.get(name)?)))
        .collect()
}

fn least(points: &[(f64, f64)], from_s: f64, to_s: f64) -> Option<f64> {
    let inside = points.iter().filter(|(at, _)| (from_s..to_s).contains(at));
    inside.map(|(_, value)| *value).reduce(f64::min)
}

/// Judges what was sampled; the first quarter is left out, in which memory warms up.
#[must_use]
pub fn judge(name: &str, record: &Record, events: [u64; 3]) -> Verdict {
    let mut verdict = Verdict::default();
    let samples = &record.samples;
    let end_s = samples.last().map_or(0.0, |sample| sample.at_s);
    let warm_s = end_s / 4.0;
    let [joins, leaves, kills] = events;
    verdict.line(format!(
        "{name}: {:.1} min, {} cycles, {joins} joins, {leaves} leaves, {kills} kills, {} samples",
        end_s / 60.0,
        record.cycles_count,
        samples.len()
    ));
    for place in 0..STAYING_COUNT {
        let member = format!("{name} member {place}");
        for figure in SLOPES {
            // Of the same moment of each cycle: what members and load take besides is not growth.
            let points = series(samples, place, figure, |sample| {
                sample.at_s >= warm_s && sample.phase == "quiet"
            });
            let points = if *figure == IN_FLIGHT { floors(&points) } else { points };
            let Some(slope) = Slope::of(&points) else { continue };
            verdict.note(&member, figure, "mean", slope.mean);
            verdict.note(&member, figure, "per_hour", slope.per_hour);
            verdict.note(&member, figure, "margin", slope.margin);
            let least_a_day = if figure.ends_with("_kib") { DAY_KIB } else { 0.0 };
            let finding = FLAT.contains(figure).then(|| slope.finding(least_a_day));
            let judged = finding.map_or_else(String::new, |finding| format!(": {finding}"));
            verdict.line(format!(
                "{member}: {figure}: mean {:.0}, {:+.1} +- {:.1} an hour{judged}",
                slope.mean, slope.per_hour, slope.margin
            ));
            if finding == Some(Finding::Grows) {
                verdict.complaints.push(format!("{member}: {figure} grows"));
            }
        }
        for phase in ["quiet", "full"] {
            verdict.comes_back(samples, place, &member, phase, end_s);
        }
        for figure in ZERO_WHEN_QUIET {
            let points = series(samples, place, figure, |sample| sample.phase == "quiet");
            let over = points.iter().filter(|(_, value)| *value != 0.0).count();
            if over > 0 {
                verdict.complaints.push(format!(
                    "{member}: {figure} is not 0 in {over} of {} quiet samples",
                    points.len()
                ));
            }
        }
        verdict.traffic(samples, place, &member);
    }
    verdict.complaints.extend(record.troubles.iter().map(|text| format!("{name}: {text}")));
    verdict
}

impl Verdict {
    fn line(&mut self, line: String) {
        let _ = writeln!(self.text, "{line}");
    }

    fn note(&mut self, member: &str, figure: &str, what: &str, value: f64) {
        self.figures.push((format!("{member} {figure} {what}").replace(' ', "."), value));
    }

    /// Counts at the same place of the cycle: no more in the last quarter than in the second. The
    /// least of each is compared, since a heartbeat may be on its way in any sample.
    fn comes_back(
        &mut self,
        samples: &[Sample],
        place: usize,
        member: &str,
        phase: &str,
        end_s: f64,
    ) {
        let mut words = Vec::new();
        let is_java = samples.iter().any(|sample| sample.figures.contains_key("java_threads"));
        for figure in COMES_BACK {
            let points = series(samples, place, figure, |sample| sample.phase == phase);
            let early = least(&points, end_s * 0.25, end_s * 0.5);
            let late = least(&points, end_s * 0.75, end_s + 1.0);
            let Some((early, late)) = early.zip(late) else { continue };
            self.note(member, figure, &format!("{phase} second_quarter"), early);
            self.note(member, figure, &format!("{phase} last_quarter"), late);
            words.push(format!("{figure} {early}/{late}"));
            // Under load buffers and connections are on the way. A JVM has as many threads as it
            // needed lately: their slope is judged.
            let is_counted = if is_java {
                phase == "quiet" && *figure != "threads"
            } else {
                phase == "quiet" || matches!(*figure, "descriptors" | "threads")
            };
            if is_counted && late > early {
                self.complaints.push(format!(
                    "{member}: {figure} {phase}: {late} in the last quarter, {early} in the second"
                ));
            }
        }
        if !words.is_empty() {
            self.line(format!(
                "{member}: least in the second / last quarter, {phase}: {}",
                words.join(", ")
            ));
        }
    }

    /// What was sent and acknowledged, and what must never be.
    fn traffic(&mut self, samples: &[Sample], place: usize, member: &str) {
        let Some(last) = samples.iter().rev().find(|sample| sample.place == place) else { return };
        let counts: Vec<String> = last
            .figures
            .iter()
            .filter_map(|(name, value)| Some(format!("{} {value}", name.strip_prefix("app_")?)))
            .collect();
        self.line(format!("{member}: {}", counts.join(", ")));
        let processor_s = last.figures.get("processor_s").copied().unwrap_or_default();
        self.line(format!("{member}: {:.1} % of a core", 100.0 * processor_s / last.at_s));
        for (name, value) in &last.figures {
            if name.starts_with("app_") {
                self.note(member, name, "total", *value);
            }
            if BROKEN.contains(&name.as_str()) && *value != 0.0 {
                self.complaints.push(format!("{member}: {name} = {value}"));
            }
        }
        if last.figures.get("app_checked").is_none_or(|checked| *checked == 0.0) {
            self.complaints.push(format!("{member}: no acknowledgement was checked"));
        }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let figures: Vec<String> =
            self.figures.iter().map(|(name, value)| format!("    {name:?}: {value}")).collect();
        let complaints: Vec<String> =
            self.complaints.iter().map(|text| format!("    {text:?}")).collect();
        format!(
            "{{\n  \"flat_means_a_day_below\": {DAY_SHARE},\n  \"figures\": {{\n{}\n  }},\n  \
             \"complaints\": [\n{}\n  ]\n}}",
            figures.join(",\n"),
            complaints.join(",\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::slope::Finding;

    #[test]
    fn a_moments_use_is_no_growth_and_a_leak_below_it_is() {
        let count = 180;
        let of = |leak: f64| -> Vec<(f64, f64)> {
            (0..count)
                .map(|n| {
                    let at = f64::from(n) * 20.0;
                    // The later, the more often a sample comes in the middle of something.
                    let caught = if n > 120 && n % 9 == 0 { 1024.0 } else { 0.0 };
                    (at, caught + leak * at)
                })
                .collect()
        };
        let finding =
            |points: &[(f64, f64)]| Slope::of(points).expect("enough points").finding(0.0);
        assert_eq!(finding(&of(0.0)), Finding::Grows, "as it stands");
        assert_eq!(finding(&floors(&of(0.0))), Finding::Flat);
        assert_eq!(finding(&floors(&of(0.1))), Finding::Grows);
    }
}
