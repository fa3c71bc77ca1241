//! What the operating system says of this machine and this process, and asks of it.
//!
//! For programs around the engine; the engine itself asks only what it must, where it must.

use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};

/// A limit of this process; `None` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is in force.
    pub soft: Option<u64>,
    /// What the process may raise it to.
    pub hard: Option<u64>,
}

impl Limit {
    fn of(resource: Resource) -> std::io::Result<Self> {
        let (soft, hard) = getrlimit(resource)?;
        let bounded = |value| (value != RLIM_INFINITY).then_some(value);
        Ok(Self { soft: bounded(soft), hard: bounded(hard) })
    }

    /// Open descriptors (`ulimit -n`). A node raises the soft limit to the hard one when it opens.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn descriptors() -> std::io::Result<Self> {
        Self::of(Resource::RLIMIT_NOFILE)
    }

    /// Locked memory, bytes (`ulimit -l`).
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn locked_bytes() -> std::io::Result<Self> {
        Self::of(Resource::RLIMIT_MEMLOCK)
    }
}

/// The value of a kernel setting by its dotted name, as `net.core.rmem_max`; `None` if this kernel
/// has no such one.
#[must_use]
pub fn sysctl(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The kernel's release, as `6.1.0-13-amd64`, and its first two numbers.
#[must_use]
pub fn kernel() -> Option<(String, (u32, u32))> {
    let release = sysctl("kernel.osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((release, version))
}

/// Whether a seccomp filter stands between this process and the kernel, as in containers.
#[must_use]
pub fn has_seccomp_filter() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim().parse() == Ok(2)))
}

/// Memory that this process may use, bytes, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub limit_bytes: u64,
    /// A control group, as a container has one, allows less than the machine has.
    pub is_contained: bool,
}

/// The least of the machine's memory and the limits of the control groups around this process.
#[must_use]
pub fn memory() -> Option<Memory> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let contained = group_limit(Path::new("/sys/fs/cgroup"), &groups);
    let machine = total_bytes(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
    match (contained, machine) {
        (Some(limit_bytes), machine) if machine.is_none_or(|total| limit_bytes < total) => {
            Some(Memory { limit_bytes, is_contained: true })
        }
        (_, machine) => Some(Memory { limit_bytes: machine?, is_contained: false }),
    }
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the groups in `/proc/self/cgroup` and those around them; both versions of
/// control groups. A group that cannot be seen from inside a container is passed over.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (mount, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let below = Path::new(group.trim_start_matches('/'));
        for around in below.ancestors() {
            let limit = std::fs::read_to_string(mount.join(around).join(file)).ok();
            // "max" is no number, and is no limit.
            if let Some(limit) = limit.and_then(|text| text.trim().parse().ok()) {
                least = Some(least.map_or(limit, |least| least.min(limit)));
            }
        }
    }
    least
}

/// SIGTERM and SIGINT, taken by a thread that waits for them instead of ending the process.
#[derive(Debug)]
pub struct EndSignals(SigSet);

impl EndSignals {
    /// Keeps both signals for [`EndSignals::wait`]. To be called before any other thread starts:
    /// threads inherit it, and one that does not would end the process.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn keep() -> std::io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Waits for the next of them and returns its name.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn wait(&self) -> std::io::Result<&'static str> {
        Ok(self.0.wait()?.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_around_counts() {
        let root = std::env::temp_dir().join(format!("ringtribe-groups-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
            std::fs::write(path, text).expect("a new file");
        };
        write("a/memory.max", "1000000\n");
        write("a/b/memory.max", "max\n");
        write("memory/c/memory.limit_in_bytes", "900000\n");
        assert_eq!(group_limit(&root, "0::/a/b\n"), Some(1_000_000));
        assert_eq!(group_limit(&root, "0::/\n1:cpu,cpuacct:/c\n"), None);
        assert_eq!(group_limit(&root, "4:memory:/c/gone\n0::/a\n"), Some(900_000));
        assert_eq!(group_limit(&root, "nonsense"), None);
        std::fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn the_machine_tells_of_itself() {
        let (release, version) = kernel().expect("Linux");
        assert!(release.starts_with(&format!("{}.{}", version.0, version.1)), "{release}");
        assert_eq!(total_bytes("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert!(memory().expect("some").limit_bytes > 1 << 20);
        assert_eq!(sysctl("no.such.setting"), None);
        let descriptors = Limit::descriptors().expect("told");
        assert!(descriptors.hard.is_none_or(|hard| descriptors.soft.expect("less") <= hard));
    }
}
