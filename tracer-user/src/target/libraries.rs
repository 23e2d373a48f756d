//! Where the loader will find the libraries of a program that is about to start, before it looks for them itself.
//!
//! As ld.so(8) does it, near enough: the program's own paths, `LD_LIBRARY_PATH`, the folders of `/etc/ld.so.conf`, the usual ones. What is
//! found otherwise, or loaded later, is seen once it is mapped.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

use crate::id::Tgid;

const USUAL: [&str; 6] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
/// How much of the loader's settings is read.
const MAX_FOLDERS: usize = 256;
const MAX_BYTES: u64 = 1 << 20;

/// A process's view of files, and where its loader looks.
pub struct Root {
    folder: OwnedFd,
    /// `LD_LIBRARY_PATH`.
    first: Vec<String>,
    configured: Vec<String>,
}

impl Root {
    /// Files as a process sees them, with its environment.
    pub fn of_process(tgid: Tgid) -> io::Result<Self> {
        let mut environ = Vec::new();
        let read = File::open(format!("/proc/{tgid}/environ")).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut environ));
        let path = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"LD_LIBRARY_PATH="));
        let path = path.filter(|_| read.is_ok()).map(|path| String::from_utf8_lossy(path).into_owned());
        Self::at(Path::new(&format!("/proc/{tgid}/root")), path.as_deref())
    }

    /// Files as we see them, with our environment.
    pub fn ours() -> io::Result<Self> {
        let path = std::env::var_os("LD_LIBRARY_PATH").map(|path| path.to_string_lossy().into_owned());
        Self::at(Path::new("/"), path.as_deref())
    }

    fn at(folder: &Path, library_path: Option<&str>) -> io::Result<Self> {
        let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let first = library_path.unwrap_or_default().split([':', ';']).filter(|path| path.starts_with('/'));
        let first = first.take(MAX_FOLDERS).map(str::to_owned).collect();
        let mut this = Self { folder, first, configured: Vec::new() };
        this.configured = this.configured_folders();
        Ok(this)
    }

    /// A regular file; links lead to where the process would be led.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(&self.folder, path, how)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// The library of a name that a file at `origin` needs, which names folders of its own.
    pub fn library(&self, name: &str, origin: &Path, own: &[String]) -> Option<(File, PathBuf)> {
        let found = |path: PathBuf| self.open(&path).ok().map(|file| (file, path));
        if name.contains('/') {
            return found(PathBuf::from(name));
        }
        let beside = origin.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let own = own.iter().map(|path| path.replace("${ORIGIN}", &beside).replace("$ORIGIN", &beside));
        let others = self.first.iter().chain(&self.configured).cloned().chain(USUAL.map(str::to_owned));
        own.chain(others).find_map(|folder| found(Path::new(&folder).join(name)))
    }

    /// What `/etc/ld.so.conf` names, and the files of the one folder that it includes everywhere.
    fn configured_folders(&self) -> Vec<String> {
        let mut texts = vec![self.text(Path::new("/etc/ld.so.conf"))];
        if texts[0].contains("include") {
            let folder = openat2(
                &self.folder,
                "/etc/ld.so.conf.d",
                OpenHow::new()
                    .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                    .resolve(ResolveFlag::RESOLVE_IN_ROOT),
            );
            let entries = folder.ok().and_then(|folder| {
                use std::os::fd::AsRawFd;
                fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok().map(|entries| {
                    entries.take(MAX_FOLDERS).filter_map(|entry| Some(entry.ok()?.file_name())).collect::<Vec<_>>()
                })
            });
            let mut names = entries.unwrap_or_default();
            names.sort();
            let conf = names.into_iter().filter(|name| name.as_bytes().ends_with(b".conf"));
            texts.extend(conf.map(|name| self.text(&Path::new("/etc/ld.so.conf.d").join(name))));
        }
        let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
        lines.filter(|line| line.starts_with('/')).take(MAX_FOLDERS).map(str::to_owned).collect()
    }

    fn text(&self, path: &Path) -> String {
        let mut bytes = Vec::new();
        let read = self.open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a library is found beside its program, in a folder that it names, and not at all; and that links stay in the root.
    #[test]
    fn found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["opt/app/bin", "opt/app/lib", "usr/lib", "etc"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("opt/app/lib/liba.so"), "a").unwrap();
        fs::write(root.join("usr/lib/libb.so.1"), "bb").unwrap();
        std::os::unix::fs::symlink("/usr/lib/libb.so.1", root.join("usr/lib/libb.so")).unwrap();
        let view = Root::at(root, None).unwrap();
        let origin = Path::new("/opt/app/bin/app");
        let path = |name: &str, own: &[&str]| {
            let own: Vec<String> = own.iter().map(|path| (*path).to_owned()).collect();
            view.library(name, origin, &own).map(|(file, path)| (path, file.metadata().unwrap().len()))
        };
        assert_eq!(path("liba.so", &["$ORIGIN/../lib"]).map(|found| found.1), Some(1));
        assert_eq!(path("liba.so", &["${ORIGIN}/../lib"]).map(|found| found.1), Some(1));
        assert_eq!(path("liba.so", &[]), None);
        assert_eq!(path("libb.so", &[]), Some((PathBuf::from("/usr/lib/libb.so"), 2)));
        assert_eq!(path("/opt/app/lib/liba.so", &[]).map(|found| found.1), Some(1));
        assert_eq!(path("/etc", &[]), None);
    }
}
