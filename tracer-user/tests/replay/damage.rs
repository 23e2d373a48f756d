//! Recordings that are cut, flipped, foreign, or written to a full disk.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use proptest::prelude::*;
use tracer_user::recording::{
    Block, Completeness, Damage, RecordingError,
    reader::Recording,
    writer::{WriteError, Writer},
};

use crate::{open, scene::Scene};

fn shop() -> Vec<u8> {
    Scene::default().shop(1000).bytes()
}

/// All blocks, or those before an error and the error.
fn blocks(bytes: &[u8]) -> Result<(Vec<Block>, Completeness), (Vec<Block>, RecordingError)> {
    let mut recording = Recording::from_reader(bytes, Path::new("x.rec")).map_err(|err| (Vec::new(), err))?;
    let mut all = Vec::new();
    for block in &mut recording {
        match block {
            Ok(block) => all.push(block),
            Err(err) => return Err((all, err)),
        }
    }
    Ok((all, recording.completeness().expect("read to the end")))
}

/// Check that a whole recording reads as complete, and one without its end block as not ended.
#[test]
fn completeness() {
    assert_eq!(blocks(&shop()).unwrap().1, Completeness::Complete);
    let mut scene = Scene::default();
    scene.shop(1000).unended = true;
    assert_eq!(blocks(&scene.bytes()).unwrap().1, Completeness::NotEnded);
}

/// Check that a recording cut at any byte gives a prefix of its blocks and says where it was cut.
#[test]
fn truncated_everywhere() {
    let whole = shop();
    let (all, _) = blocks(&whole).unwrap();
    for cut in 0..whole.len() {
        match blocks(&whole[..cut]) {
            Ok((some, completeness)) => {
                assert!(all.starts_with(&some), "cut at {cut}");
                assert_ne!(completeness, Completeness::Complete, "cut at {cut}");
            }
            Err((_, err)) => {
                let early = matches!(err, RecordingError::Empty { .. } | RecordingError::Foreign { .. });
                assert!(early && cut < 600, "cut at {cut}: {err}");
            }
        }
    }
}

/// Check that what is no recording of ours is refused by name.
#[test]
fn foreign_files() {
    let refused = |bytes: &[u8]| blocks(bytes).unwrap_err().1.to_string();
    assert_eq!(refused(b""), "x.rec is not a lifetrace recording");
    assert_eq!(refused(b"\x7fELF and so on and so on"), "x.rec is not a lifetrace recording");
    let mut newer = shop();
    newer[8] = 9;
    assert!(refused(&newer).starts_with("x.rec has recording format 9"), "{}", refused(&newer));
    assert!(matches!(Recording::open(Path::new("/")), Err(RecordingError::Foreign { .. })));
    assert!(matches!(Recording::open(Path::new("/nonexistent")), Err(RecordingError::Io { .. })));
}

/// Check that damage in the middle is an error with its offset, also where a length swallows what follows.
#[test]
fn damaged_middle() {
    let whole = shop();
    let offsets: Vec<usize> = whole.windows(4).enumerate().filter(|(_, w)| *w == b"LBLK").map(|(at, _)| at).collect();
    let damage = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        match blocks(&bytes) {
            Err((_, RecordingError::Damaged { at, what, .. })) => (at as usize, what),
            other => panic!("{other:?}"),
        }
    };
    let third = offsets[2];
    assert_eq!(damage(third, b'X'), (third, Damage::Magic));
    assert_eq!(damage(third + 4, 99), (third, Damage::Checksum));
    assert_eq!(damage(third + 10, 1), (third, Damage::Swallows));
    assert_eq!(damage(third + 11, 0x7f), (third, Damage::Length));
    assert_eq!(damage(third + 25, whole[third + 25] ^ 1), (third, Damage::Checksum));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Check that flipped bits give an error, or what was written, or a prefix that says that it is one.
    #[test]
    fn flipped_bits(flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4)) {
        let mut bytes = shop();
        let (all, _) = blocks(&bytes).unwrap();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let (some, honest) = match blocks(&bytes) {
            Ok((some, completeness)) => {
                let cut = matches!(completeness, Completeness::Truncated { .. });
                let honest = cut || some == all;
                (some, honest)
            }
            Err((some, _)) => (some, true),
        };
        prop_assert!(honest && all.starts_with(&some));
    }
}

/// A disk with room for so many bytes.
struct Disk {
    room: usize,
    data: Vec<u8>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room - self.data.len());
        self.data.extend_from_slice(&bytes[..fits]);
        if fits == 0 && !bytes.is_empty() { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(fits) }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Check that a full disk is an error that names the file, that nothing follows it, and that a readable prefix is left.
#[test]
fn full_disk() {
    let meta = Scene::default().meta();
    let disk = Disk { room: 1000, data: Vec::new() };
    let mut writer = Writer::start(disk, Path::new("full.rec"), &meta).unwrap();
    let noise: Vec<u8> = (0..400u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let err = loop {
        if let Err(err) = writer.records(&noise[..200]) {
            break err;
        }
    };
    assert!(matches!(&err, WriteError::Write { path, .. } if path == Path::new("full.rec")), "{err}");
    assert!(matches!(writer.records(&noise), Err(WriteError::Broken { .. })));
    let data = writer.into_inner().data;
    assert!(matches!(blocks(&data), Ok((_, Completeness::Truncated { .. } | Completeness::NotEnded))));
    assert!(!open(&data).meta().command.is_empty());
}

/// Check that a recording is private, replaces an old one, and is never written through a link or into what is no file.
#[test]
fn creation() {
    let dir = tempfile::tempdir().unwrap();
    let meta = Scene::default().meta();
    let path = dir.path().join("a.rec");
    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    let writer = Writer::create(&path, &meta).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&path).unwrap().len(), writer.written());
    assert_eq!(Recording::open(&path).unwrap().meta(), &meta);
    let link = dir.path().join("link.rec");
    symlink(&path, &link).unwrap();
    assert!(matches!(Writer::create(&link, &meta), Err(WriteError::Symlink { .. })));
    assert!(matches!(Writer::create(Path::new("/dev/null"), &meta), Err(WriteError::NotAFile { .. })));
    let err = Writer::create(&dir.path().join("no/such/dir.rec"), &meta).err().unwrap();
    assert!(err.to_string().contains("no/such/dir.rec"), "{err}");
}
