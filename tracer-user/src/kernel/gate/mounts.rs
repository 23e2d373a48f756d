//! The file systems that programs can be executed from.

use std::path::PathBuf;

/// File systems that are marked. Local ones only: the listener opens each file it is asked about, and on a file system that
/// is served by a process (FUSE) or a network, that could hang or be refused, and the exec with it.
const LOCAL: [&str; 14] = [
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "rootfs", "squashfs", "tmpfs", "xfs", "zfs",
];

/// A mounted file system, and where it is mounted: one of these may be covered by another mount.
pub struct FileSystem {
    pub device: String,
    pub points: Vec<PathBuf>,
}

/// The local file systems in the text of `/proc/self/mountinfo` (see proc_pid_mountinfo(5)).
pub fn file_systems(mountinfo: &str) -> Vec<FileSystem> {
    let mut found: Vec<FileSystem> = Vec::new();
    for (_, device, point) in lines(mountinfo).filter(|(kind, _, _)| LOCAL.contains(kind)) {
        match found.iter_mut().find(|known| known.device == device) {
            Some(known) => known.points.push(point),
            None => found.push(FileSystem { device: device.to_owned(), points: vec![point] }),
        }
    }
    found
}

/// Where control groups are mounted.
pub fn control_groups(mountinfo: &str) -> Vec<PathBuf> {
    lines(mountinfo).filter(|(kind, _, _)| matches!(*kind, "cgroup" | "cgroup2")).map(|(_, _, point)| point).collect()
}

/// Kind, device and mount point of each line.
fn lines(mountinfo: &str) -> impl Iterator<Item = (&str, &str, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(2);
        let (device, _root, point) = (fields.next()?, fields.next()?, fields.next()?);
        Some((right.split(' ').next()?, device, PathBuf::from(unescape(point))))
    })
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

    /// Check that each local device is named once with its mount points, kernel and served file systems never, and escapes
    /// are undone.
    #[test]
    fn points_of_each_file_system() {
        let text = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    23 22 0:5 / /proc rw - proc proc rw\n\
                    24 22 254:0 /home /home rw shared:1 - ext4 /dev/vda rw\n\
                    25 22 0:30 / /mnt/a\\040b rw - tmpfs tmpfs rw\n\
                    26 22 0:31 / /mnt/remote rw - nfs4 host:/ rw\n\
                    27 22 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                    garbage\n";
        let found = file_systems(text);
        let points: Vec<_> = found.iter().map(|system| (system.device.as_str(), system.points.clone())).collect();
        assert_eq!(points, [("254:0", vec!["/".into(), "/home".into()]), ("0:30", vec![PathBuf::from("/mnt/a b")])]);
        assert_eq!(control_groups(text), [PathBuf::from("/sys/fs/cgroup")]);
    }
}
