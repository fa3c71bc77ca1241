//! What a process uses, as the kernel tells it, and what it says of itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Figures by name. Kilobytes end in `_kib`, times in `_s`.
pub type Figures = BTreeMap<String, f64>;

/// What the kernel says of a process: memory (resident, proportional, anonymous), descriptors,
/// threads, processor time.
///
/// # Errors
/// It has ended.
pub fn of_process(pid: u32) -> Result<Figures, String> {
    let directory = Path::new("/proc").join(pid.to_string());
    let text = |name: &str| {
        fs::read_to_string(directory.join(name)).map_err(|error| format!("process {pid}: {error}"))
    };
    let mut figures = Figures::new();
    for line in text("smaps_rollup")?.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let name = match name {
            "Rss" => "rss_kib",
            "Pss" => "pss_kib",
            "Anonymous" => "anonymous_kib",
            _ => continue,
        };
        let kib = rest.split_whitespace().next().and_then(|word| word.parse().ok());
        figures.insert(name.into(), kib.ok_or("smaps_rollup has no number")?);
    }
    let descriptors = fs::read_dir(directory.join("fd")).map_err(|error| error.to_string())?;
    figures.insert("descriptors".into(), count(descriptors.count()));
    let threads = fs::read_dir(directory.join("task")).map_err(|error| error.to_string())?;
    figures.insert("threads".into(), count(threads.count()));
    // Behind the name, which may hold anything: the 12th and 13th field are ticks of 10 ms.
    let stat = text("stat")?;
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|word| word.parse::<f64>().ok());
    let ticks = ticks(11).zip(ticks(12)).ok_or("stat has no times")?;
    figures.insert("processor_s".into(), (ticks.0 + ticks.1) / 100.0);
    Ok(figures)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
const fn count(count: usize) -> f64 {
    count as f64
}

/// The figures in a line of words name=value; other words are passed over.
#[must_use]
pub fn of_line(line: &str) -> Figures {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_and_a_thread_more_are_seen() {
        let pid = std::process::id();
        let before = of_process(pid).expect("we run");
        assert!(before["rss_kib"] >= before["anonymous_kib"] && before["anonymous_kib"] > 100.0);
        let file = fs::File::open("/proc/self/status").expect("procfs");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv().is_err());
        let with = of_process(pid).expect("we run");
        // Other tests run beside this one.
        assert!(with["descriptors"] >= 1.0 && with["threads"] >= 2.0);
        drop((file, stop));
        assert!(thread.join().expect("no panic"));
        assert!(of_process(u32::MAX).is_err());
        assert_eq!(
            of_line("a=1 b b=x c=2.5"),
            Figures::from([("a".into(), 1.0), ("c".into(), 2.5)])
        );
    }
}
