//! Which process listens on a port.

use std::fs;
use std::net::SocketAddr;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The process of this machine that listens on the port of `address`, as far as we may look.
pub(super) fn pid_of(address: SocketAddr) -> Option<u32> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(
            text.lines()
                .filter_map(|line| inode_of(line, address.port())),
        );
    }
    let wanted: Vec<String> = inodes.iter().map(|it| format!("socket:[{it}]")).collect();
    if wanted.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        files
            .any(|file| {
                fs::read_link(file.path())
                    .is_ok_and(|to| wanted.iter().any(|it| to.as_os_str() == it.as_str()))
            })
            .then_some(pid)
    })
}

/// The inode of a line of `/proc/net/tcp` that is a listener on `port`.
fn inode_of(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let (_, local_port) = local.rsplit_once(':')?;
    if state != LISTEN || u16::from_str_radix(local_port, 16).ok()? != port {
        return None;
    }
    fields.nth(5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let line = "   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        assert_eq!(inode_of(line, 1_883), Some(4_711));
        assert_eq!(inode_of(line, 1_884), None);
        assert_eq!(inode_of(&line.replace(" 0A ", " 01 "), 1_883), None);
        assert_eq!(
            inode_of("  sl  local_address rem_address   st", 1_883),
            None
        );
    }
}
