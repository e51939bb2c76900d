//! What the system says of this process.

use std::fs;

/// The memory that the process holds, in bytes; `None` where the system does not say (anything but Linux).
pub(super) fn resident_bytes() -> Option<u64> {
    resident_bytes_in(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Reads the line `VmRSS:   1234 kB` (proc(5); the unit is fixed, and means KiB).
fn resident_bytes_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The open files and sockets.
pub(super) fn open_files() -> Option<u64> {
    u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_memory_is_read_off_its_line() {
        assert_eq!(resident_bytes_in("Name:\tx\nVmRSS:\t    2048 kB\nVmSwap:\t 0 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes_in("Name:\tx\n"), None);
        assert_eq!(resident_bytes_in("VmRSS:\tmuch\n"), None);
    }
}
