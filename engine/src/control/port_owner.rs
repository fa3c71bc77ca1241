//! Who listens on a port of this machine, for an error text.

use std::fs;
use std::path::Path;

/// `process 123 (java)`, if this user may know it.
pub(super) fn of(port: u16) -> Option<String> {
    let socket = listening_inode(port)?;
    let wanted = format!("socket:[{socket}]");
    // Beside the processes there are names for the reader itself.
    let is_process = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.parse::<u32>().is_ok()
    };
    let all = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    for process in all.filter(|path| is_process(path)) {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { continue };
        let holds =
            |path: &Path| fs::read_link(path).is_ok_and(|link| link.as_os_str() == &*wanted);
        if descriptors.flatten().any(|descriptor| holds(&descriptor.path())) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let id = process.file_name()?.to_str()?;
            return Some(format!("process {id} ({})", name.trim()));
        }
    }
    None
}

/// The number of the socket, from the kernel's tables of TCP sockets: the second field is the local
/// address, the fourth the state, the tenth the number.
fn listening_inode(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let end = format!(":{port:04X}");
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..]
                && local.ends_with(&end)
            {
                return Some(inode.to_owned());
            }
        }
    }
    None
}
