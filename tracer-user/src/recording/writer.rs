//! Writes a recording, one whole block at a time.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    BLOCK_HEADER_LEN, BLOCK_MAGIC, Codec, FILE_MAGIC, FORMAT_VERSION, Kind, MAX_PAYLOAD,
    contract::{
        Adopted, Binary, CgroupNamed, ChildrenSeen, Code, Counters, Drained, DumpBegins, End, Found, Gone, GoroutineDump, Index,
        Joined, KeptAt, LoadAt, MemoryAt, Meta, NativeCode, Note, Profile, Summed, TestsSeen, ThreadsMet, UsdtFile,
    },
    place::{Place, PlaceError, expect_own},
    reader::Stored,
};

const ZSTD_LEVEL: i32 = 1;

/// Why a recording cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot create recording {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("recording {path} is a symbolic link; lifetrace does not write through links")]
    Symlink { path: PathBuf },
    #[error("recording {path} is not a regular file")]
    NotAFile { path: PathBuf },
    #[error(
        "recording {path} is a file that has other names as well (hard links), which would be overwritten: remove it, or name another"
    )]
    HardLinked { path: PathBuf },
    #[error(transparent)]
    Place(PlaceError),
    #[error("cannot write recording {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write recording {path}: an earlier write failed")]
    Broken { path: PathBuf },
    #[error("a block of {len} bytes is too large for a recording")]
    TooLarge { len: usize },
    #[error("cannot encode a block of the recording")]
    Encode(#[source] serde_json::Error),
}

/// A recording in the making. After a failed write every further one fails too: blocks behind a torn one would be lost.
pub struct Writer<W: Write> {
    out: W,
    path: PathBuf,
    written: u64,
    broken: bool,
    block: Vec<u8>,
    /// `None` if it could not be set up: then blocks are stored raw.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Writer<File> {
    /// Creates the file (mode 0600) and writes the meta block. An existing regular file is overwritten if it is ours and has one name;
    /// a symbolic link is refused, and so is a way through another user's.
    pub fn create(path: &Path, meta: &Meta) -> Result<Self, WriteError> {
        let file = open_private(path)?;
        Self::start(file, path, meta)
    }

    /// The file, for `fsync` or `fchown`.
    pub fn file(&self) -> &File {
        &self.out
    }
}

fn open_private(path: &Path) -> Result<File, WriteError> {
    let create = |source| WriteError::Create { path: path.into(), source };
    let misplaced = |error| match error {
        PlaceError::Io(error) => create(error),
        PlaceError::Directory => create(io::ErrorKind::IsADirectory.into()),
        stranger => WriteError::Place(stranger),
    };
    let place = Place::named(path).map_err(misplaced)?;
    // Of another user's link the kernel may only say that it may not be used.
    if std::fs::symlink_metadata(place.path()).is_ok_and(|found| found.is_symlink()) {
        return Err(WriteError::Symlink { path: path.into() });
    }
    // O_NONBLOCK: opening a FIFO nobody reads must fail, not hang. It means nothing to a regular file.
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(place.path());
    let file = match opened {
        Ok(file) => file,
        Err(err) if err.raw_os_error() == Some(libc::ELOOP) => return Err(WriteError::Symlink { path: path.into() }),
        Err(err) => return Err(create(err)),
    };
    let metadata = file.metadata().map_err(create)?;
    if !metadata.is_file() {
        return Err(WriteError::NotAFile { path: path.into() });
    }
    if metadata.nlink() > 1 {
        return Err(WriteError::HardLinked { path: path.into() });
    }
    expect_own(&file, path).map_err(misplaced)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(create)?;
    }
    file.set_len(0).map_err(create)?;
    Ok(file)
}

impl<W: Write> Writer<W> {
    /// Writes the file header and the meta block to `out`; `path` is what errors call it.
    pub fn start(out: W, path: &Path, meta: &Meta) -> Result<Self, WriteError> {
        let mut writer = Self {
            out,
            path: path.into(),
            written: 0,
            broken: false,
            block: Vec::new(),
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(),
        };
        writer.block.extend_from_slice(&FILE_MAGIC);
        writer.block.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        writer.block.extend_from_slice(&[0; 4]);
        writer.flush_block()?;
        writer.json(Kind::Meta, meta)?;
        Ok(writer)
    }

    /// Writes a block as it was in another recording.
    pub fn stored(&mut self, stored: &Stored) -> Result<(), WriteError> {
        self.block.clear();
        stored.bytes().into_iter().for_each(|part| self.block.extend_from_slice(part));
        self.flush_block()
    }

    /// Writes a run of records, each framed by [`super::frame_record`]. An empty run writes nothing.
    pub fn records(&mut self, framed: &[u8]) -> Result<(), WriteError> {
        if framed.is_empty() { Ok(()) } else { self.write_block(Kind::Records, framed) }
    }

    pub fn binary(&mut self, binary: &Binary) -> Result<(), WriteError> {
        self.json(Kind::Binary, binary)
    }

    pub fn code(&mut self, code: &Code) -> Result<(), WriteError> {
        self.json(Kind::Code, code)
    }

    pub fn note(&mut self, note: &Note) -> Result<(), WriteError> {
        self.json(Kind::Note, note)
    }

    pub fn counters(&mut self, counters: &Counters) -> Result<(), WriteError> {
        self.json(Kind::Counters, counters)
    }

    pub fn joined(&mut self, joined: &Joined) -> Result<(), WriteError> {
        self.json(Kind::Joined, joined)
    }

    pub fn dump(&mut self, dump: &GoroutineDump) -> Result<(), WriteError> {
        let packed = dump.pack().map_err(WriteError::Encode)?;
        self.write_block(Kind::PackedDump, &packed)
    }

    pub fn dump_begins(&mut self, begins: &DumpBegins) -> Result<(), WriteError> {
        self.json(Kind::DumpBegins, begins)
    }

    pub fn drained(&mut self, drained: &Drained) -> Result<(), WriteError> {
        self.json(Kind::Drained, drained)
    }

    pub fn memory(&mut self, memory: &MemoryAt) -> Result<(), WriteError> {
        self.json(Kind::Memory, memory)
    }

    pub fn usdt(&mut self, file: &UsdtFile) -> Result<(), WriteError> {
        self.json(Kind::Usdt, file)
    }

    pub fn found(&mut self, found: &Found) -> Result<(), WriteError> {
        self.json(Kind::Found, found)
    }

    pub fn adopted(&mut self, adopted: &Adopted) -> Result<(), WriteError> {
        self.json(Kind::Adopted, adopted)
    }

    pub fn cgroup(&mut self, cgroup: &CgroupNamed) -> Result<(), WriteError> {
        self.json(Kind::Cgroup, cgroup)
    }

    pub fn gone(&mut self, gone: &Gone) -> Result<(), WriteError> {
        self.json(Kind::Gone, gone)
    }

    pub fn load(&mut self, load: &LoadAt) -> Result<(), WriteError> {
        self.json(Kind::Load, load)
    }

    pub fn native_code(&mut self, code: &NativeCode) -> Result<(), WriteError> {
        self.json(Kind::NativeCode, code)
    }

    pub fn threads_met(&mut self, met: &ThreadsMet) -> Result<(), WriteError> {
        self.json(Kind::ThreadsMet, met)
    }

    pub fn tests_seen(&mut self, seen: &TestsSeen) -> Result<(), WriteError> {
        self.json(Kind::TestsSeen, seen)
    }

    /// Of the records that follow.
    pub fn index(&mut self, index: &Index) -> Result<(), WriteError> {
        self.json(Kind::Index, index)
    }

    pub fn summed(&mut self, summed: &Summed) -> Result<(), WriteError> {
        self.json(Kind::Summed, summed)
    }

    pub fn kept(&mut self, kept: &KeptAt) -> Result<(), WriteError> {
        self.json(Kind::Kept, kept)
    }

    pub fn children_seen(&mut self, seen: &ChildrenSeen) -> Result<(), WriteError> {
        self.json(Kind::ChildrenSeen, seen)
    }

    /// One line of JSON, then the profile as it came.
    pub fn profile(&mut self, profile: &Profile) -> Result<(), WriteError> {
        let mut payload = serde_json::to_vec(profile).map_err(WriteError::Encode)?;
        payload.push(b'\n');
        payload.extend_from_slice(&profile.data);
        self.write_block(Kind::Profile, &payload)
    }

    /// The last block: with it the recording counts as complete.
    pub fn end(&mut self, end: &End) -> Result<(), WriteError> {
        self.json(Kind::End, end)?;
        self.out.flush().map_err(|source| WriteError::Write { path: self.path.clone(), source })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn into_inner(self) -> W {
        self.out
    }

    fn json(&mut self, kind: Kind, value: &impl Serialize) -> Result<(), WriteError> {
        let payload = serde_json::to_vec(value).map_err(WriteError::Encode)?;
        self.write_block(kind, &payload)
    }

    fn write_block(&mut self, kind: Kind, raw: &[u8]) -> Result<(), WriteError> {
        if raw.len() > MAX_PAYLOAD {
            return Err(WriteError::TooLarge { len: raw.len() });
        }
        // A failing compressor costs space, not data.
        let packed = self.zstd.as_mut().and_then(|zstd| zstd.compress(raw).ok()).filter(|packed| packed.len() < raw.len());
        let (codec, stored) = packed.as_deref().map_or((Codec::Raw, raw), |packed| (Codec::Zstd, packed));
        self.block.extend_from_slice(&BLOCK_MAGIC.to_le_bytes());
        self.block.extend_from_slice(&[kind as u8, codec as u8, 0, 0]);
        self.block.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.block);
        crc.update(stored);
        self.block.extend_from_slice(&crc.finalize().to_le_bytes());
        debug_assert_eq!(self.block.len(), BLOCK_HEADER_LEN);
        self.block.extend_from_slice(stored);
        self.flush_block()
    }

    fn flush_block(&mut self) -> Result<(), WriteError> {
        if self.broken {
            self.block.clear();
            return Err(WriteError::Broken { path: self.path.clone() });
        }
        let result = self.out.write_all(&self.block);
        self.written += self.block.len() as u64;
        self.block.clear();
        result.map_err(|source| {
            self.broken = true;
            WriteError::Write { path: self.path.clone(), source }
        })
    }
}
