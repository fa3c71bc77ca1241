//! The course of things: members come, are killed and leave, again and again, and are looked at.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use super::cluster::{Cluster, PLACES_COUNT, STAYING_COUNT, Sample};
use super::report::ZERO_WHEN_QUIET;

/// How long the parts of a cycle last.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// With all members.
    pub full: Duration,
    /// After a kill, and after a leave.
    pub after: Duration,
    /// Between samples.
    pub sample: Duration,
}

/// All samples of a run and what went wrong.
#[derive(Debug, Default)]
pub struct Record {
    /// In their order.
    pub samples: Vec<Sample>,
    /// What did not happen in time.
    pub troubles: Vec<String>,
    /// Cycles that were whole.
    pub cycles_count: u64,
}

/// Writes samples as they come, so that a run can be looked at before its end.
struct Table {
    file: BufWriter<File>,
    columns: Vec<String>,
    /// Until the first cycle has shown which figures there are.
    held: Vec<Sample>,
}

impl Table {
    fn write(&mut self, sample: &Sample) -> std::io::Result<()> {
        if self.columns.is_empty() {
            self.held.push(sample.clone());
            return if sample.phase == "quiet" { self.begin() } else { Ok(()) };
        }
        self.line(sample)?;
        self.file.flush()
    }

    fn begin(&mut self) -> std::io::Result<()> {
        let names: BTreeSet<&String> =
            self.held.iter().flat_map(|sample| sample.figures.keys()).collect();
        self.columns = names.into_iter().cloned().collect();
        writeln!(self.file, "at_s,place,phase,{}", self.columns.join(","))?;
        for sample in std::mem::take(&mut self.held) {
            self.line(&sample)?;
        }
        self.file.flush()
    }

    fn line(&mut self, sample: &Sample) -> std::io::Result<()> {
        write!(self.file, "{:.1},{},{}", sample.at_s, sample.place, sample.phase)?;
        for column in &self.columns {
            match sample.figures.get(column) {
                Some(value) => write!(self.file, ",{value}")?,
                None => write!(self.file, ",")?,
            }
        }
        writeln!(self.file)
    }
}

struct Run<'a> {
    cluster: &'a mut Cluster,
    pace: Pace,
    record: Record,
    table: Table,
}

/// Runs cycles for at least `duration`. `told` is called after each.
///
/// # Errors
/// A staying member was lost, or a file cannot be written.
pub fn run(
    cluster: &mut Cluster,
    pace: Pace,
    duration: Duration,
    mut told: impl FnMut(&Cluster, &Record),
) -> Result<Record, String> {
    let path = cluster.setup().directory.join(format!("{}.csv", cluster.setup().name));
    let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let table = Table { file: BufWriter::new(file), columns: Vec::new(), held: Vec::new() };
    let mut run = Run { cluster, pace, record: Record::default(), table };
    for place in 0..STAYING_COUNT {
        run.cluster.join(place)?;
    }
    run.cluster.await_view()?;
    while run.cluster.at_s() < duration.as_secs_f64() {
        match run.cycle() {
            Ok(()) => run.record.cycles_count += 1,
            Err(text) => {
                // Said, counted against the run, and the next cycle begins anew.
                eprintln!("{}: {text}", run.cluster.setup().name);
                run.record.troubles.push(text);
                run.cluster.clear();
                run.cluster.await_view()?;
            }
        }
        told(run.cluster, &run.record);
    }
    for place in 0..STAYING_COUNT {
        run.cluster.leave(place)?;
    }
    Ok(run.record)
}

impl Run<'_> {
    fn cycle(&mut self) -> Result<(), String> {
        for place in STAYING_COUNT..PLACES_COUNT {
            self.cluster.join(place)?;
        }
        self.cluster.await_view()?;
        self.hold(self.pace.full, "joined")?;
        self.look("full")?;
        self.cluster.kill(STAYING_COUNT)?;
        if self.record.cycles_count % 3 == 2 {
            // Back under its address before anybody may have noticed; the next one stays away.
            self.cluster.join(STAYING_COUNT)?;
            self.cluster.await_view()?;
            self.hold(self.pace.after, "restarted")?;
            self.cluster.kill(STAYING_COUNT)?;
        }
        self.cluster.await_view()?;
        self.hold(self.pace.after, "killed")?;
        for place in STAYING_COUNT + 1..PLACES_COUNT {
            self.cluster.leave(place)?;
        }
        self.cluster.await_view()?;
        self.hold(self.pace.after, "alone")?;
        self.quiet()
    }

    /// Nothing is sent any more; then nothing may be held.
    fn quiet(&mut self) -> Result<(), String> {
        for place in self.cluster.members() {
            self.cluster.ask(place, "pause")?;
        }
        for place in self.cluster.members() {
            for _ in 0..100 {
                let sample = self.cluster.sample(place, "quiet")?;
                let held: BTreeSet<&str> = ZERO_WHEN_QUIET
                    .iter()
                    .copied()
                    .filter(|name| sample.figures.get(*name).is_some_and(|value| *value != 0.0))
                    .collect();
                if held.is_empty() {
                    break;
                }
                // Acknowledgements that nobody waits for are up to 50 ms late.
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        // Connections of those who went are closed by now or never.
        self.hold(self.pace.after / 2, "pause")?;
        self.look("quiet")?;
        for place in self.cluster.members() {
            self.cluster.ask(place, "resume")?;
        }
        Ok(())
    }

    /// Lets time pass, with samples.
    fn hold(&mut self, duration: Duration, phase: &'static str) -> Result<(), String> {
        let until = self.cluster.at_s() + duration.as_secs_f64();
        loop {
            let left_s = until - self.cluster.at_s();
            if left_s <= 0.0 {
                return Ok(());
            }
            std::thread::park_timeout(self.pace.sample.min(Duration::from_secs_f64(left_s)));
            if until - self.cluster.at_s() > 0.0 {
                self.look(phase)?;
            }
        }
    }

    /// Looks at every member.
    fn look(&mut self, phase: &'static str) -> Result<(), String> {
        for place in self.cluster.members() {
            let sample = self.cluster.sample(place, phase)?;
            self.table.write(&sample).map_err(|error| error.to_string())?;
            if place < STAYING_COUNT {
                self.record.samples.push(sample);
            }
        }
        Ok(())
    }
}
