//! What a process has mapped (`/proc/PID/maps`, proc_pid_maps(5)).

use std::{fs::File, io::Read};

use crate::id::Tgid;

/// Bytes of a map that are read, at about a hundred a mapping.
const MAX_BYTES: u64 = 8 << 20;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub start: u64,
    pub end: u64,
    pub executable: bool,
    /// Where in the file it begins.
    pub offset: u64,
    pub device: u64,
    /// 0: no file.
    pub inode: u64,
    pub path: String,
}

impl Mapping {
    pub fn file_offset(&self, address: u64) -> u64 {
        (address - self.start).saturating_add(self.offset)
    }
}

/// What one process has mapped, by address.
#[derive(Clone, Debug, Default)]
pub struct Maps(Vec<Mapping>);

impl Maps {
    /// Empty where nothing can be read: the process has ended.
    pub fn of(tgid: Tgid) -> Self {
        let mut bytes = Vec::new();
        let read = File::open(format!("/proc/{tgid}/maps")).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        if read.is_err() { Self::default() } else { Self::parse(&String::from_utf8_lossy(&bytes)) }
    }

    pub fn parse(text: &str) -> Self {
        let mut maps: Vec<Mapping> = text.lines().filter_map(mapping).collect();
        maps.sort_by_key(|mapping| mapping.start);
        Self(maps)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let before = self.0.partition_point(|mapping| mapping.start <= address);
        self.0[..before].last().filter(|mapping| address < mapping.end)
    }
}

/// `start-end perms offset major:minor inode path`, numbers but the inode in hex.
fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (first, others) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = others;
        first
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = field().split_once('-')?;
    let perms = field();
    let offset = hex(field())?;
    let (major, minor) = field().split_once(':')?;
    let inode = field().parse().ok()?;
    let path = rest.trim_start().trim_end_matches(" (deleted)").to_owned();
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        executable: perms.as_bytes().get(2) == Some(&b'x'),
        offset,
        device: hex(major)? << 32 | hex(minor)?,
        inode,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that lines of every kind are read, that nonsense is passed over, and what is found where.
    #[test]
    fn lines() {
        let maps = Maps::parse(
            "7f00-8f00 r-xp 00001000 fd:01 4242 /lib/a b.so\nnonsense\n9000-9100 rw-p 00000000 00:00 0 \n\
             a000-b000 r-xp 0 00:00 0                  [vdso]\n1000-2000 r-xp 0 00:1f 7 /x/y (deleted)\nf-\n",
        );
        assert_eq!(maps.0.len(), 4);
        let found = maps.find(0x7f10).unwrap();
        assert_eq!((found.path.as_str(), found.file_offset(0x7f10), found.executable), ("/lib/a b.so", 0x1010, true));
        assert_eq!((found.device, found.inode), (0xfd << 32 | 1, 4242));
        assert_eq!(maps.find(0x1fff).unwrap().path, "/x/y");
        assert_eq!((maps.find(0x2000), maps.find(0), maps.find(u64::MAX)), (None, None, None));
        assert_eq!(maps.find(0xa000).unwrap().path, "[vdso]");
    }
}
