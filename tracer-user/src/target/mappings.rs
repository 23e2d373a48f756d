//! The files that a process has mapped to execute them.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use crate::id::Tgid;

/// Bytes of `/proc/PID/maps` that are read, and files that are told.
const MAX_BYTES: u64 = 8 << 20;
const MAX_FILES: usize = 1024;

/// A file that is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFile {
    /// As `/proc/PID/map_files` names it.
    pub range: String,
    /// As the kernel numbers the file: what `stat` says of it may differ on overlays.
    pub device: String,
    pub inode: u64,
    /// As the process sees it.
    pub path: String,
}

impl MappedFile {
    /// The very file, wherever it is now.
    pub fn open(&self, tgid: Tgid) -> io::Result<File> {
        let exactly = File::open(format!("/proc/{tgid}/map_files/{}", self.range));
        // Without CAP_SYS_ADMIN there is only its path.
        exactly.or_else(|_| File::open(Path::new(&format!("/proc/{tgid}/root")).join(self.path.trim_start_matches('/'))))
    }
}

/// The files that a process can execute code of, each once.
pub fn of(tgid: Tgid) -> io::Result<Vec<MappedFile>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{tgid}/maps"))?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The files in the text of `/proc/PID/maps`.
pub fn parse(text: &str) -> Vec<MappedFile> {
    let mut files: Vec<MappedFile> = Vec::new();
    for line in text.lines() {
        let Some(file) = line_of(line) else { continue };
        let known = files.iter().any(|known| known.inode == file.inode && known.device == file.device);
        if !known && files.len() < MAX_FILES {
            files.push(file);
        }
    }
    files
}

/// `5581c0-5581d0 r-xp 00001000 fe:00 1234   /usr/bin/java`
fn line_of(line: &str) -> Option<MappedFile> {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest.trim_start().split_once(' ')?;
        rest = behind;
        Some(word)
    };
    let (range, rights, _, device, inode) = (word()?, word()?, word()?, word()?, word()?);
    let path = rest.trim_start();
    let inode: u64 = inode.parse().ok().filter(|inode| *inode != 0)?;
    let executable = rights.as_bytes().get(2) == Some(&b'x');
    let (start, end) = range.split_once('-')?;
    let hexadecimal = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (executable && path.starts_with('/') && hexadecimal(start) && hexadecimal(end)).then(|| MappedFile {
        range: range.to_owned(),
        device: device.to_owned(),
        inode,
        path: path.strip_suffix(" (deleted)").unwrap_or(path).to_owned(),
    })
}

/// The path of a process's program, as the process sees it.
pub fn program(tgid: Tgid) -> io::Result<String> {
    let path = fs::read_link(format!("/proc/{tgid}/exe"))?.to_string_lossy().into_owned();
    Ok(path.strip_suffix(" (deleted)").map_or(path.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which lines are files that can be executed, and that each is told once.
    #[test]
    fn lines() {
        let text = "5581c000-5581d000 r--p 00000000 fe:00 1234   /usr/bin/java\n\
                    5581d000-5581e000 r-xp 00001000 fe:00 1234                      /usr/bin/java\n\
                    5581e000-5581f000 r-xp 00002000 fe:00 1234                      /usr/bin/java\n\
                    7f000000-7f001000 r-xp 00000000 fe:00 77                        /opt/a b.so (deleted)\n\
                    7f002000-7f003000 r-xp 00000000 00:00 0                         [vdso]\n\
                    7f004000-7f005000 rwxp 00000000 00:00 0 \n\
                    ../../x r-xp 0 0 5 /etc/passwd\n\nnonsense\n";
        let files = parse(text);
        assert_eq!(
            files.iter().map(|file| (file.inode, file.path.as_str())).collect::<Vec<_>>(),
            [(1234, "/usr/bin/java"), (77, "/opt/a b.so")]
        );
        assert_eq!(files[0].range, "5581d000-5581e000");
    }

    /// Check that our own program is among the files that we have mapped, and can be opened.
    #[test]
    fn ourselves() {
        let me = Tgid(std::process::id());
        let own = program(me).unwrap();
        let file = of(me).unwrap().into_iter().find(|file| file.path == own).unwrap();
        assert!(file.open(me).unwrap().metadata().unwrap().len() > 0);
    }
}
