//! Whether what was acknowledged was applied: what members noted on disk is compared.
//!
//! A member notes a message before its listener returns (`HOST-LIFE.applied`: key, number), and what
//! was acknowledged after the call returned (`HOST-LIFE.acked`: key, number, address). The notes
//! outlive it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use super::cluster::host_at;

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
}

impl Judgement {
    /// Adds another.
    pub fn append(&mut self, other: Self) {
        self.acked_count += other.acked_count;
        self.applied_count += other.applied_count;
        self.lost.extend(other.lost);
        self.disordered.extend(other.disordered);
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked_count, applied_count, lost, disordered } = self;
        write!(
            f,
            "{applied_count} applied, {acked_count} acknowledged as applied, of which {} are lost; {} \
             twice or out of order",
            lost.len(),
            disordered.len()
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
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for line in lines(&path)? {
            let (key, number) = message(&line).ok_or_else(|| format!("{stem}: {line}"))?;
            if last.insert(key, number).is_some_and(|before| before >= number) {
                judgement.disordered.push(format!("{stem}: key {key:#x} number {number}"));
            }
            applied.entry(host).or_default().insert((key, number));
            judgement.applied_count += 1;
        }
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
