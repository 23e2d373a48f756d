//! The names of cgroups that records give by id.
//!
//! An id is the number of a kernfs node, and with it the kernel opens the directory at once, as a file handle
//! (open_by_handle_at(2), `FILEID_KERNFS` of `include/linux/exportfs.h`; `kernfs_fh_to_dentry` in fs/kernfs/mount.c).

use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustc_hash::FxHashSet;
use tracer_common::process::Cgroup;

use crate::{id::Tgid, recording::contract::CgroupNamed};

/// `FILEID_KERNFS`.
const FILEID_KERNFS: i32 = 0xfe;
/// Cgroups that are named in one session.
const MAX_NAMES: usize = 100_000;

/// Where the cgroups of one hierarchy are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    number: u32,
    /// Empty for the unified one; `name=systemd` for one without a controller.
    controllers: String,
    mount: PathBuf,
    /// The part of the hierarchy that is mounted.
    root: PathBuf,
}

/// Finds names, each once.
pub struct Names {
    hierarchies: Vec<Hierarchy>,
    asked: FxHashSet<(u32, u64)>,
}

/// `struct file_handle` of open_by_handle_at(2), with the eight bytes that kernfs takes.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: u64,
}

impl Names {
    /// Learns what hierarchies there are.
    pub fn new() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { hierarchies: hierarchies(&own, &mounts), asked: FxHashSet::default() }
    }

    /// What is not named yet of where a process is.
    pub fn of(&mut self, cgroup: Cgroup) -> Vec<CgroupNamed> {
        let memory = self.memory().map(|memory| (memory, cgroup.memory));
        [Some((0, cgroup.unified)), memory].into_iter().flatten().filter_map(|(number, id)| self.name(number, id)).collect()
    }

    /// The name of one cgroup; `None` if it was asked for before, or if nobody knows.
    pub fn name(&mut self, number: u32, id: u64) -> Option<CgroupNamed> {
        if id == 0 || self.asked.len() >= MAX_NAMES || !self.asked.insert((number, id)) {
            return None;
        }
        let hierarchy = self.hierarchies.iter().find(|one| one.number == number)?;
        let path = hierarchy.path_of(id)?;
        Some(CgroupNamed { id, hierarchy: number, controllers: hierarchy.controllers.clone(), path })
    }

    /// The cgroups that a process is in, by /proc.
    pub fn of_process(&self, tgid: Tgid) -> Cgroup {
        let lines = fs::read_to_string(format!("/proc/{tgid}/cgroup")).unwrap_or_default();
        let id = |number: u32| {
            let hierarchy = self.hierarchies.iter().find(|one| one.number == number)?;
            let path = lines.lines().find_map(|line| {
                let (found, path) = split(line).map(|(number, _, path)| (number, path))?;
                (found == number).then_some(path)
            })?;
            let below = Path::new(path).strip_prefix(&hierarchy.root).ok()?;
            fs::metadata(hierarchy.mount.join(below)).ok().map(|metadata| metadata.ino())
        };
        let unified = id(0).unwrap_or(0);
        Cgroup { unified, memory: self.memory().map_or(unified, |memory| id(memory).unwrap_or(0)) }
    }

    /// The hierarchy of version 1 that has the memory controller.
    fn memory(&self) -> Option<u32> {
        let has = |one: &&Hierarchy| one.controllers.split(',').any(|controller| controller == "memory");
        self.hierarchies.iter().find(has).map(|one| one.number)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl Hierarchy {
    fn path_of(&self, id: u64) -> Option<String> {
        let mount = File::open(&self.mount).ok()?;
        let mut handle = Handle { bytes: size_of::<u64>() as u32, kind: FILEID_KERNFS, id };
        // SAFETY: the handle is laid out as open_by_handle_at(2) says, and says itself how long it is.
        let fd = unsafe {
            libc::open_by_handle_at(
                mount.as_raw_fd(),
                (&raw mut handle).cast(),
                libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return None;
        }
        // SAFETY: a descriptor that was just opened, and that nobody else has.
        let directory = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
        let path = self.root.join(path.strip_prefix(&self.mount).ok()?);
        // One that is being removed is shown with a remark behind it.
        Some(match path.to_string_lossy().trim_end_matches(" (deleted)").trim_end_matches('/') {
            "" => "/".to_owned(),
            path => path.to_owned(),
        })
    }
}

/// A line of `/proc/PID/cgroup`: `NUMBER:CONTROLLERS:PATH`.
fn split(line: &str) -> Option<(u32, &str, &str)> {
    let mut fields = line.splitn(3, ':');
    Some((fields.next()?.parse().ok()?, fields.next()?, fields.next()?))
}

/// proc_pid_mountinfo(5): root and mount point are fields 4 and 5; behind the dash stand type, source and options.
fn hierarchies(own: &str, mounts: &str) -> Vec<Hierarchy> {
    let mount_of = |controllers: &str| {
        mounts.lines().find_map(|line| {
            let (fields, of) = line.split_once(" - ")?;
            let mut fields = fields.split(' ').skip(3);
            let (root, mount) = (fields.next()?, fields.next()?);
            let mut of = of.split(' ');
            let (kind, options) = (of.next()?, of.nth(1)?);
            let ours = match kind {
                "cgroup2" => controllers.is_empty(),
                "cgroup" => !controllers.is_empty() && controllers.split(',').all(|one| options.split(',').any(|two| one == two)),
                _ => false,
            };
            ours.then(|| (PathBuf::from(mount), PathBuf::from(root)))
        })
    };
    let lines = own.lines().filter_map(split);
    lines
        .filter_map(|(number, controllers, _)| {
            let (mount, root) = mount_of(controllers)?;
            Some(Hierarchy { number, controllers: controllers.to_owned(), mount, root })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each hierarchy is found where it is mounted, by number, and that one which is mounted nowhere is left out.
    #[test]
    fn mounts() {
        let own = "4:memory:/a\n2:cpu,cpuacct:/\n1:name=systemd:/\n7:pids:/\n0::/x\nnonsense";
        let mounts = "30 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n\
                      31 29 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 29 0:29 /part /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct,cpu\n\
                      33 29 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let found = hierarchies(own, mounts);
        let found: Vec<_> =
            found.iter().map(|one| (one.number, one.mount.to_str().unwrap(), one.root.to_str().unwrap())).collect();
        assert_eq!(
            found,
            [
                (4, "/sys/fs/cgroup/memory", "/"),
                (2, "/sys/fs/cgroup/cpu", "/part"),
                (1, "/sys/fs/cgroup/systemd", "/"),
                (0, "/sys/fs/cgroup/unified", "/")
            ]
        );
    }

    /// Check that our own cgroups are named as /proc names them, each once, if we may open handles.
    #[test]
    fn own_names() {
        let mut names = Names::new();
        let cgroup = names.of_process(Tgid(std::process::id()));
        let named = names.of(cgroup);
        if !super::super::features::may_open_every_file() || cgroup == Cgroup::default() {
            println!("skipped: no cgroups, or not allowed to open handles");
            return;
        }
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(!named.is_empty());
        for CgroupNamed { hierarchy, path, .. } in named {
            assert!(
                own.lines().filter_map(split).any(|(number, _, told)| number == hierarchy && told == path),
                "{path} in {own}"
            );
        }
        assert_eq!(names.of(cgroup), []);
        assert_eq!(names.name(0, u64::MAX), None);
    }
}
