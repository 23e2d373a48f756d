//! The hierarchies of cgroups: where they are mounted, and where in them the paths of `/proc/PID/cgroup` lead.
//!
//! The kernel shows paths as seen from where the reader's own cgroup namespace begins (cgroup_namespaces(7)): for a reader in a container, those of others
//! climb (`/../../pod`), and lie outside of what is mounted there. Who sees the host's processes sees the whole through theirs.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

/// `FILEID_KERNFS` of `include/linux/exportfs.h`.
const FILEID_KERNFS: i32 = 0xfe;
/// Who sees the host's files where our pid namespace is the host's: its first process, and the kernel's own thread that makes others, which nobody can
/// keep from being looked at.
const OF_HOST: [&str; 2] = ["1", "2"];

/// One hierarchy, and the part of it that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// As the lines of `/proc/PID/cgroup` have it: 0 is the unified one.
    pub number: u32,
    /// Empty for the unified one; `name=systemd` for one without a controller.
    pub controllers: String,
    mount: PathBuf,
    /// The part that is mounted, as /proc shows it to us.
    root: PathBuf,
    /// Where our own cgroup namespace begins, below `mount`, if that is not the hierarchy's top.
    own: Option<PathBuf>,
}

/// `struct file_handle` of open_by_handle_at(2), with the eight bytes that kernfs takes.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: u64,
}

impl Hierarchy {
    /// Those that are mounted: as the host has them if we are in a cgroup namespace of our own and may look there.
    pub fn all() -> Vec<Self> {
        let lines = text("/proc/self/cgroup");
        let here = Self::parse(&lines, &text("/proc/self/mountinfo"));
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/cgroup")).ok();
        let own = namespace("self");
        let is_outside = |process: &&str| namespace(process).is_some_and(|other| Some(other) != own);
        // Elsewhere the second process is anybody's, and runs a file.
        let is_hosts = fs::read_link("/proc/2/exe").is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let Some(host) = OF_HOST.into_iter().find(is_outside).filter(|_| is_hosts) else { return here };
        let outside = Self::parse(&lines, &text(&format!("/proc/{host}/mountinfo")));
        let files = PathBuf::from(format!("/proc/{host}/root"));
        let seen = |ours: &Self| Some(ours.through(outside.iter().find(|all| all.number == ours.number)?, &files));
        here.into_iter().map(|ours| seen(&ours).flatten().unwrap_or(ours)).collect()
    }

    /// proc_pid_mountinfo(5): root and mount point are fields 4 and 5; behind the dash stand type, source and options.
    pub(super) fn parse(own: &str, mounts: &str) -> Vec<Self> {
        let mount_of = |controllers: &str| {
            mounts.lines().find_map(|line| {
                let (fields, of) = line.split_once(" - ")?;
                let mut fields = fields.split(' ').skip(3);
                let (root, mount) = (fields.next()?, fields.next()?);
                let mut of = of.split(' ');
                let (kind, options) = (of.next()?, of.nth(1)?);
                let ours = match kind {
                    "cgroup2" => controllers.is_empty(),
                    "cgroup" => {
                        !controllers.is_empty() && controllers.split(',').all(|one| options.split(',').any(|two| one == two))
                    }
                    _ => false,
                };
                ours.then(|| (PathBuf::from(mount), PathBuf::from(root)))
            })
        };
        let lines = own.lines().filter_map(split);
        lines
            .filter_map(|(number, controllers, _)| {
                let (mount, root) = mount_of(controllers)?;
                Some(Self { number, controllers: controllers.to_owned(), mount, root, own: None })
            })
            .collect()
    }

    /// The same one through a mount of all of it, if it can be told where in it ours begins.
    fn through(&self, all: &Self, files: &Path) -> Option<Self> {
        let climbs = all.root.components().filter(|part| *part == Component::ParentDir).count();
        if self.root != Path::new("/") || climbs + 1 != all.root.components().count() {
            return None;
        }
        let mut whole = Self { mount: files.join(all.mount.strip_prefix("/").ok()?), root: "/".into(), ..self.clone() };
        let own = whole.path_of(fs::metadata(&self.mount).ok()?.ino())?;
        let own = PathBuf::from(own.strip_prefix('/')?);
        if own.components().count() != climbs {
            return None;
        }
        whole.own = Some(own);
        Some(whole)
    }

    /// Whether it has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|one| one == controller)
    }

    /// The path that `/proc/PID/cgroup` shows of a process, by the lines of that file.
    pub fn shown<'a>(&self, lines: &'a str) -> Option<&'a str> {
        lines.lines().filter_map(split).find_map(|(number, _, path)| (number == self.number).then_some(path))
    }

    /// Where a path that /proc shows is below [`Self::mount`]; `None` if that is not mounted.
    pub fn below(&self, shown: &str) -> Option<PathBuf> {
        let (mut below, rest) = match &self.own {
            Some(own) => (own.clone(), Path::new(shown).strip_prefix("/").ok()?),
            None => (PathBuf::new(), Path::new(shown).strip_prefix(&self.root).ok()?),
        };
        for part in rest.components() {
            match part {
                Component::Normal(name) => below.push(name),
                Component::ParentDir if self.own.is_some() && below.pop() => {}
                _ => return None,
            }
        }
        Some(below)
    }

    /// The path from the hierarchy's top that a path which /proc shows stands for, as far as we can tell.
    pub fn whole(&self, shown: &str) -> String {
        self.below(shown).map_or_else(|| shown.to_owned(), |below| self.named(&below))
    }

    /// The path from the hierarchy's top of what is below [`Self::mount`].
    pub fn named(&self, below: &Path) -> String {
        name(&self.root.join(below))
    }

    /// Where it is mounted, as we can open it.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The path of the cgroup of this id, from the hierarchy's top. An id is the number of a kernfs node, and with it the kernel opens the directory
    /// at once, as a file handle (open_by_handle_at(2); `kernfs_fh_to_dentry` in fs/kernfs/mount.c; needs CAP_DAC_READ_SEARCH).
    pub fn path_of(&self, id: u64) -> Option<String> {
        let mount = File::open(&self.mount).ok()?;
        let path = shown_as(&open_by_id(&mount, id).ok()?)?;
        Some(self.named(path.strip_prefix(shown_as(&mount)?).ok()?))
    }
}

/// A controller, in the one hierarchy that has it: where version 1 has it, version 2 has not.
#[derive(Clone, Debug)]
pub struct Controller {
    pub hierarchy: Hierarchy,
    /// Files and units of version 1.
    pub old: bool,
}

impl Controller {
    pub fn of(controller: &str, hierarchies: &[Hierarchy]) -> Option<Self> {
        let version_1 = hierarchies.iter().find(|one| one.has(controller));
        let found = version_1.or(hierarchies.iter().find(|one| one.number == 0))?;
        Some(Self { hierarchy: found.clone(), old: version_1.is_some() })
    }
}

/// What a cgroup is called. One that is being removed is shown with a remark behind it.
fn name(path: &Path) -> String {
    match path.to_string_lossy().trim_end_matches(" (deleted)").trim_end_matches('/') {
        "" => "/".to_owned(),
        name => name.to_owned(),
    }
}

/// What a file of /proc says: whoever may mount chooses names that are no UTF-8.
pub fn text(path: &str) -> String {
    fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn open_by_id(mount: &File, id: u64) -> io::Result<OwnedFd> {
    let mut handle = Handle { bytes: size_of::<u64>() as u32, kind: FILEID_KERNFS, id };
    // SAFETY: the handle is laid out as open_by_handle_at(2) says, and says itself how long it is.
    let fd = unsafe {
        libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just opened, and that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel calls an open file: from the root of whoever mounted it, where that is not below ours.
fn shown_as(file: &impl AsRawFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

/// A line of `/proc/PID/cgroup`: `NUMBER:CONTROLLERS:PATH`.
fn split(line: &str) -> Option<(u32, &str, &str)> {
    let mut fields = line.splitn(3, ':');
    Some((fields.next()?.parse().ok()?, fields.next()?, fields.next()?))
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
                      33 29 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\nnonsense";
        let found = Hierarchy::parse(own, mounts);
        let told: Vec<_> =
            found.iter().map(|one| (one.number, one.mount.to_str().unwrap(), one.root.to_str().unwrap())).collect();
        assert_eq!(
            told,
            [
                (4, "/sys/fs/cgroup/memory", "/"),
                (2, "/sys/fs/cgroup/cpu", "/part"),
                (1, "/sys/fs/cgroup/systemd", "/"),
                (0, "/sys/fs/cgroup/unified", "/")
            ]
        );
        assert!(found[1].has("cpu") && !found[1].has("memory") && !found[3].has("cpu"));
        assert_eq!(found[1].shown(own), Some("/"));
        assert_eq!(Hierarchy::parse(own, ""), []);
    }

    /// Check where paths lead: below what is mounted, also where they climb out of our own namespace, and nowhere else.
    #[test]
    fn paths() {
        let one = |root: &str, own: Option<&str>| Hierarchy {
            number: 0,
            controllers: String::new(),
            mount: "/m".into(),
            root: root.into(),
            own: own.map(PathBuf::from),
        };
        let below = |one: &Hierarchy, path: &str| one.below(path).map(|path| path.to_str().unwrap().to_owned());
        let whole = one("/", None);
        assert_eq!(below(&whole, "/pod/app").as_deref(), Some("pod/app"));
        assert_eq!(below(&whole, "/").as_deref(), Some(""));
        assert_eq!(below(&whole, "/../pod"), None);
        assert_eq!(below(&one("/pod", None), "/pod/app").as_deref(), Some("app"));
        assert_eq!(below(&one("/pod", None), "/other"), None);
        assert_eq!(
            (one("/pod", None).whole("/pod"), whole.whole("/"), whole.whole("/../x")),
            ("/pod".into(), "/".into(), "/../x".into())
        );
        let inside = one("/", Some("kube/agent/ctr"));
        assert_eq!(inside.whole("/../../pod/a"), "/kube/pod/a");
        for (shown, is) in
            [("/", "kube/agent/ctr"), ("/x", "kube/agent/ctr/x"), ("/../../pod/a", "kube/pod/a"), ("/../../..", "")]
        {
            assert_eq!(below(&inside, shown).as_deref(), Some(is), "{shown}");
        }
        for shown in ["/../../../..", "/../../../../x", "relative"] {
            assert_eq!(below(&inside, shown), None, "{shown}");
        }
    }
}
