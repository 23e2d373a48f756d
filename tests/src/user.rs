//! The user without rights, as the password file knows it.

use std::fs;

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

/// The user `nobody`.
#[must_use]
pub fn nobody() -> Option<User> {
    fs::read_to_string("/etc/passwd").ok()?.lines().find_map(|line| parse("nobody", line))
}

fn parse(name: &str, line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [who, _, uid, gid, _, home, _] = fields[..] else { return None };
    (who == name).then_some(())?;
    Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that ids and home are taken from the line of the user asked for, and from no other.
    #[test]
    fn passwd_line() {
        let line = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin";
        assert_eq!(parse("nobody", line), Some(User { uid: 65534, gid: 65533, home: "/nonexistent".to_owned() }));
        assert_eq!(parse("root", line), None);
    }
}
