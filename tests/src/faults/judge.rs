//! Whether what was acknowledged was applied: what members noted on disk is compared.
//!
//! A member notes a message before its listener returns (`ID-LIFE.applied`: key, number; `gap`, address
//! for what it is told to have missed), and what was acknowledged after the call returned
//! (`ID-LIFE.acked`: key, number, address). The notes outlive it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use super::cluster::host_at;
use crate::driven::sender_of;

/// What was found.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Messages that a member was said to have applied; one to three members counts three.
    pub acked_count: u64,
    /// Messages noted by listeners.
    pub applied_count: u64,
    /// Acknowledged, and no listener of that host ever had it.
    pub lost: Vec<String>,
    /// Delivered twice in one life, or out of the order of the key.
    pub disordered: Vec<String>,
    /// Numbers missing in one life though no gap was told.
    pub untold: Vec<String>,
}

impl Judgement {
    /// Adds another.
    pub fn append(&mut self, other: Self) {
        self.acked_count += other.acked_count;
        self.applied_count += other.applied_count;
        self.lost.extend(other.lost);
        self.disordered.extend(other.disordered);
        self.untold.extend(other.untold);
    }

    /// All that should not be.
    pub fn faults(&self) -> impl Iterator<Item = &String> {
        self.lost.iter().chain(&self.disordered).chain(&self.untold)
    }
}

impl Judgement {
    /// Reads what a member noted in one life.
    fn applied(
        &mut self,
        stem: &str,
        lines: &[String],
        of_host: &mut BTreeSet<(u64, u64)>,
    ) -> Result<(), String> {
        let (mut last, mut missing) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
        let mut told = BTreeSet::new();
        for line in lines {
            if let Some(address) = line.strip_prefix("gap ") {
                told.extend(address.parse().ok().and_then(host_at));
                continue;
            }
            let (key, number) = message(line).ok_or_else(|| format!("{stem}: {line}"))?;
            match last.insert(key, number) {
                Some(before) if before >= number => {
                    self.disordered.push(format!("{stem}: key {key:#x} number {number}"));
                }
                Some(before) => *missing.entry(key).or_default() += number - before - 1,
                None => {}
            }
            of_host.insert((key, number));
            self.applied_count += 1;
        }
        for (key, count) in missing {
            let is_told = usize::try_from(sender_of(key)).is_ok_and(|of| told.contains(&of));
            if count > 0 && !is_told {
                self.untold.push(format!("{stem}: {count} messages of key {key:#x}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked_count, applied_count, lost, disordered, untold } = self;
        write!(
            f,
            "{applied_count} applied, {acked_count} acknowledged as applied, of which {} are lost; {} \
             twice or out of order; {} keys with something missing and no gap told",
            lost.len(),
            disordered.len(),
            untold.len()
        )
    }
}

/// Reads all notes of a directory.
///
/// # Errors
/// A note cannot be read, or says something else.
pub fn judge(directory: &Path) -> Result<Judgement, String> {
    let at = |error: std::io::Error| format!("{}: {error}", directory.display());
    let (mut applied_files, mut acked_files) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(at)? {
        let path = entry.map_err(at)?.path();
        match path.extension().and_then(|end| end.to_str()) {
            Some("applied") => applied_files.push(path),
            Some("acked") => acked_files.push(path),
            _ => {}
        }
    }
    let mut judgement = Judgement::default();
    let mut applied: BTreeMap<usize, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for path in applied_files {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let host = stem.split_once('-').and_then(|(host, _)| host.parse().ok());
        let host = host.ok_or_else(|| format!("{} is of no host", path.display()))?;
        let of_host = applied.entry(host).or_default();
        judgement.applied(stem, &lines(&path)?, of_host)?;
    }
    for path in acked_files {
        for line in lines(&path)? {
            let host = line.rsplit_once(' ').and_then(|(_, address)| {
                let address: SocketAddr = address.parse().ok()?;
                host_at(address)
            });
            let (Some(host), Some(message)) = (host, message(&line)) else {
                return Err(format!("{}: {line}", path.display()));
            };
            judgement.acked_count += 1;
            if !applied.get(&host).is_some_and(|applied| applied.contains(&message)) {
                judgement.lost.push(format!("{}: {line}", path.display()));
            }
        }
    }
    Ok(judgement)
}

/// Whole lines: a process may be killed in the middle of one.
fn lines(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(whole.lines().map(str::to_owned).collect())
}

fn message(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
