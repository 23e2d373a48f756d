//! The file systems that programs can be executed from.

use std::path::PathBuf;

/// File systems of the kernel's own that hold no programs.
const WITHOUT_PROGRAMS: [&str; 17] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// One mount point for each file system in the text of `/proc/self/mountinfo` (see proc_pid_mountinfo(5)).
pub fn file_systems(mountinfo: &str) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let mut points = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = left.split(' ').skip(2);
        let (Some(device), Some(_root), Some(point)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let kind = right.split(' ').next().unwrap_or_default();
        if WITHOUT_PROGRAMS.contains(&kind) || seen.contains(&device) {
            continue;
        }
        seen.push(device);
        points.push(PathBuf::from(unescape(point)));
    }
    points
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each device is named once, kernel file systems never, and escapes are undone.
    #[test]
    fn one_point_for_each_file_system() {
        let text = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    23 22 0:5 / /proc rw - proc proc rw\n\
                    24 22 254:0 /home /home rw shared:1 - ext4 /dev/vda rw\n\
                    25 22 0:30 / /mnt/a\\040b rw - tmpfs tmpfs rw\n\
                    garbage\n";
        assert_eq!(file_systems(text), [PathBuf::from("/"), PathBuf::from("/mnt/a b")]);
    }
}
