//! Whose systemd it is.

use std::fs;

/// The user id by which the rest of the machine knows this process. In a user namespace, as of
/// podman without root, that is not the one which the process sees.
pub fn real_uid() -> u32 {
    let own = nix::unistd::geteuid().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(own, &map).unwrap_or(own)
}

/// Whether it is an ordinary user's.
pub fn is_ordinary() -> bool {
    real_uid() != 0
}

/// By the lines of `uid_map`: first id inside, first id outside, how many.
fn outside(uid: u32, map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
        );
        let at = uid.checked_sub(inside).filter(|at| *at < count)?;
        outside.checked_add(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn through_the_map() {
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(outside(0, rootless), Some(1000));
        assert_eq!(outside(1, rootless), Some(100_000));
        assert_eq!(outside(65_537, rootless), None);
        assert_eq!(outside(7, "0 0 4294967295\n"), Some(7));
        assert_eq!(outside(0, ""), None);
    }
}
