//! Which file a row goes to: one a table, or, in a segment, one a table and program.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::correlate::{
    process::{ImageId, ProcessId},
    replay::Replayed,
};

/// Bytes of a partition's value: a file's name has 255, and each of these stands for one.
const MAX_VALUE: usize = 180;
/// What is of no program: the recording itself, and processes of which none is known.
const NOBODY: &str = "_";
/// Programs that have no files of their own. No encoded value begins with an underscore.
const OTHER: &str = "_other";

/// Whose a row is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Recording,
    Image(ImageId),
    /// That of its last program.
    Process(ProcessId),
    Program(ProgramId),
}

/// A program that has files of its own; outside of segments there is one, everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ProgramId(u32);

/// A recording's tables as a part of something larger (docs/fleet.md).
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// In the column `segment` of each row, and in the names of files.
    pub name: &'a str,
    /// The partitions below a table and above its programs: `date=2026-11-29/node=n1`.
    pub within: &'a str,
    /// Programs that have files of their own at most; the others share some.
    pub programs: usize,
}

/// Where files go.
pub(super) struct Layout<'a> {
    dir: &'a Path,
    segment: Option<Segment<'a>>,
    /// Values of the partition `program`.
    values: Vec<String>,
    of_images: Vec<ProgramId>,
    of_processes: Vec<ProgramId>,
}

impl<'a> Layout<'a> {
    /// A file a table.
    pub fn plain(dir: &'a Path) -> Self {
        Self { dir, segment: None, values: Vec::new(), of_images: Vec::new(), of_processes: Vec::new() }
    }

    /// A file a table and program.
    pub fn of_segment(dir: &'a Path, segment: Segment<'a>, replayed: &Replayed) -> Self {
        let processes = replayed.engine.processes();
        let mut programs = Programs::new(segment.programs);
        let mut of_processes = vec![ProgramId::default(); processes.processes().len()];
        let of_images = processes.images().map(|(_, image)| {
            let path = replayed.binary(image).map_or(&*image.exe, |binary| &*binary.path);
            let program = programs.of(path);
            if let (Some(last), false) = (of_processes.get_mut(image.process.0 as usize), path.is_empty()) {
                *last = program;
            }
            program
        });
        let of_images = of_images.collect();
        Self { dir, segment: Some(segment), values: programs.values, of_images, of_processes }
    }

    pub fn segment(&self) -> Option<&str> {
        self.segment.map(|segment| segment.name)
    }

    pub fn program_of(&self, of: Of) -> ProgramId {
        let found = match of {
            Of::Recording => None,
            Of::Image(image) => self.of_images.get(image.0 as usize).copied(),
            Of::Process(process) => self.of_processes.get(process.0 as usize).copied(),
            Of::Program(program) => Some(program),
        };
        found.unwrap_or_default()
    }

    /// Makes the folder of a file, and says where that is: the `part`th of a table and program, from 0.
    pub fn place(&self, table: &str, program: ProgramId, part: u32) -> io::Result<PathBuf> {
        let Some(segment) = self.segment else { return Ok(self.dir.join(format!("{table}.parquet"))) };
        let value = self.values.get(program.0 as usize).map_or(NOBODY, String::as_str);
        let folder = self.dir.join(table).join(segment.within).join(format!("program={value}"));
        fs::create_dir_all(&folder)?;
        let part = if part == 0 { String::new() } else { format!("-{}", part + 1) };
        Ok(folder.join(format!("{}{part}.parquet", segment.name)))
    }
}

/// Programs by path, in order of appearance. The first are nobody, and all that are too many.
struct Programs {
    most: usize,
    values: Vec<String>,
    known: BTreeMap<String, ProgramId>,
}

impl Programs {
    fn new(most: usize) -> Self {
        Self { most, values: vec![NOBODY.to_owned(), OTHER.to_owned()], known: BTreeMap::new() }
    }

    fn of(&mut self, path: &str) -> ProgramId {
        if path.is_empty() {
            return ProgramId(0);
        }
        if let Some(id) = self.known.get(path) {
            return *id;
        }
        if self.known.len() >= self.most {
            return ProgramId(1);
        }
        let id = ProgramId(self.values.len() as u32);
        self.values.push(partition(path));
        self.known.insert(path.to_owned(), id);
        id
    }
}

/// A value as it stands in a path, whatever it is: letters, digits, dots, dashes and underscores; other bytes as `%XX`, as Hive and its heirs
/// read them. Of one that is too long the beginning, `~` and 16 digits of its SHA-256.
pub fn partition(value: &str) -> String {
    let mut text = String::new();
    for (at, byte) in value.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') || (byte == b'_' && at > 0) {
            text.push(char::from(byte));
        } else {
            // Nothing fails that writes into a string.
            let _ = write!(text, "%{byte:02X}");
        }
        if text.len() > MAX_VALUE {
            break;
        }
    }
    if text.len() <= MAX_VALUE {
        return text;
    }
    let mut end = MAX_VALUE - 17;
    // Not within an escape.
    while text.as_bytes()[end.saturating_sub(2)..end].contains(&b'%') {
        end -= 1;
    }
    text.truncate(end);
    text.push('~');
    Sha256::digest(value).iter().take(8).for_each(|byte| {
        let _ = write!(text, "{byte:02x}");
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a value stays one part of a path, whatever a program is called, and that two are never the same.
    #[test]
    fn partitions() {
        for (value, expected) in [
            ("/usr/bin/my-app_2.1", "%2Fusr%2Fbin%2Fmy-app_2.1"),
            ("_other", "%5Fother"),
            ("../..", "..%2F.."),
            ("a=b\n%<é>\u{1b}", "a%3Db%0A%25%3C%C3%A9%3E%1B"),
        ] {
            assert_eq!(partition(value), expected);
        }
        let long = ["é".repeat(2000), format!("{}a", "é".repeat(2000)), format!("x{}", "é".repeat(2000)), "y".repeat(181)]
            .map(|path| partition(&path));
        for value in &long {
            assert!((MAX_VALUE - 20..=MAX_VALUE).contains(&value.len()), "{value}");
            let (begin, _) = value.split_once('~').unwrap();
            assert!(!begin.ends_with('%') && !begin[..begin.len() - 1].ends_with('%'), "{value}");
        }
        assert!((0..4).all(|a| (0..a).all(|b| long[a] != long[b])));
        assert_eq!(partition(&"y".repeat(180)).len(), 180);
    }

    /// Check that programs that are too many share what there is.
    #[test]
    fn too_many() {
        let mut programs = Programs::new(2);
        let ids = ["/a", "/b", "/c", "", "/a", "/d"].map(|path| programs.of(path).0);
        assert_eq!(ids, [2, 3, 1, 0, 2, 1]);
        assert_eq!(programs.values, ["_", "_other", "%2Fa", "%2Fb"]);
    }
}
