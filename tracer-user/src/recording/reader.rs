//! Reads a recording from front to back, with bounded memory, trusting no byte of it.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use tracer_common::header::Header;

use super::{
    BLOCK_HEADER_LEN, BLOCK_MAGIC, Block, Codec, Completeness, Damage, FILE_HEADER_LEN, FILE_MAGIC, FORMAT_VERSION, Kind,
    MAX_PAYLOAD, RecordingError,
    contract::{GoroutineDump, Index, Meta, Profile},
};

/// A framed record has its length and its header at least.
const LEAST_RECORD: usize = 2 + size_of::<Header>();

/// An open recording: an iterator over its blocks. After the last one [`Recording::completeness`] says how it ended.
pub struct Recording<R: Read = BufReader<File>> {
    input: R,
    path: PathBuf,
    meta: Meta,
    /// Where the next block begins.
    offset: u64,
    /// A header that was read before its block was wanted.
    waiting: Option<BlockHeader>,
    unpacker: Unpacker,
    state: State,
    tap: Option<Tap>,
}

/// Sees every block but the first on its way, as it is in the file.
pub type Tap = Box<dyn FnMut(&Arc<Stored>) + Send>;

/// A block as it is in the file: whole, and its checksum matches. [`Unpacker`] makes a [`Block`] of it.
pub struct Stored {
    header: BlockHeader,
    payload: Vec<u8>,
    /// Where it begins.
    at: u64,
}

impl Stored {
    /// Whether it is an index of the records that follow.
    pub fn is_index(&self) -> bool {
        self.kind() == Some(Kind::Index)
    }

    /// What it holds; `None`: a kind that we do not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.header.kind)
    }

    /// Its bytes in the file.
    pub fn bytes(&self) -> [&[u8]; 2] {
        [&self.header.bytes, &self.payload]
    }
}

/// What a recording is read from.
pub trait Source: Read + Sized {
    /// Passes over so many bytes; how many there were.
    fn pass(&mut self, bytes: u64) -> io::Result<u64> {
        io::copy(&mut self.by_ref().take(bytes), &mut io::sink())
    }
}

impl Source for &[u8] {}

impl Source for BufReader<io::Take<File>> {}

/// What comes through a pipe.
impl Source for BufReader<Box<dyn Read + Send>> {}

impl Source for BufReader<File> {
    /// Without reading them.
    fn pass(&mut self, bytes: u64) -> io::Result<u64> {
        let file = self.get_ref().metadata()?;
        if !file.is_file() {
            // A pipe has no place to go to.
            return io::copy(&mut self.by_ref().take(bytes), &mut io::sink());
        }
        let at = self.stream_position()?;
        let there = file.len().saturating_sub(at).min(bytes);
        self.seek_relative(i64::try_from(there).map_err(io::Error::other)?)?;
        Ok(there)
    }
}

/// Unpacks blocks, on whatever thread.
pub struct Unpacker {
    /// What errors call the recording.
    path: PathBuf,
    /// Made once: setting one up costs more than a small block does.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading { ended: bool },
    Done(Completeness),
}

/// The fixed part of a block.
struct BlockHeader {
    bytes: [u8; BLOCK_HEADER_LEN],
    kind: u8,
    codec: u8,
    stored_len: usize,
    raw_len: usize,
    crc: u32,
}

impl Recording {
    /// Opens a recording and reads its header and its meta block.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let io = |source| RecordingError::Io { path: path.into(), source };
        Self::of_file(File::open(path).map_err(io)?, path)
    }

    /// The same of a file that is open.
    pub fn of_file(file: File, path: &Path) -> Result<Self, RecordingError> {
        if file.metadata().map_err(|source| RecordingError::Io { path: path.into(), source })?.is_dir() {
            return Err(RecordingError::Foreign { path: path.into() });
        }
        Recording::from_reader(BufReader::with_capacity(1 << 20, file), path)
    }
}

impl<R: Read> Recording<R> {
    /// The same for bytes that are no file; `path` is what errors call them.
    pub fn from_reader(mut input: R, path: &Path) -> Result<Self, RecordingError> {
        let path = path.to_path_buf();
        let mut header = [0; FILE_HEADER_LEN];
        let got = fill(&mut input, &mut header).map_err(|source| RecordingError::Io { path: path.clone(), source })?;
        let magic = FILE_MAGIC.len().min(got);
        if got == 0 || header[..magic] != FILE_MAGIC[..magic] {
            return Err(RecordingError::Foreign { path });
        }
        if got < FILE_HEADER_LEN {
            return Err(RecordingError::Empty { path });
        }
        let (version, reserved) = (le_u32(&header[8..12]), le_u32(&header[12..16]));
        if version != FORMAT_VERSION {
            return Err(RecordingError::Version { path, found: version });
        }
        if reserved != 0 {
            return Err(RecordingError::Foreign { path });
        }
        let mut first = Recording {
            input,
            path: path.clone(),
            meta: no_meta(),
            offset: FILE_HEADER_LEN as u64,
            waiting: None,
            unpacker: Unpacker::new(path),
            state: State::Reading { ended: false },
            tap: None,
        };
        match first.read_block()? {
            Some(Block::Meta(meta)) => first.meta = meta,
            Some(_) => return Err(RecordingError::NoMeta { path: first.path }),
            None => return Err(RecordingError::Empty { path: first.path }),
        }
        Ok(first)
    }

    /// Has somebody else see the blocks that are read from here on.
    pub fn tapped(self, tap: Tap) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// Who recorded what, when, where.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What errors call it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the recording ended; `None` before its last block has been read.
    pub fn completeness(&self) -> Option<Completeness> {
        match self.state {
            State::Reading { .. } => None,
            State::Done(completeness) => Some(completeness),
        }
    }

    fn damaged(&self, what: Damage) -> RecordingError {
        RecordingError::Damaged { path: self.path.clone(), at: self.offset, what }
    }

    fn read_block(&mut self) -> Result<Option<Block>, RecordingError> {
        let Some(stored) = self.read_stored()? else { return Ok(None) };
        self.unpacker.unpack(&stored).map(Some)
    }

    /// The next block, unread; `None` behind the last one. Nothing behind damage can be trusted: after an error there is no more.
    pub fn next_stored(&mut self) -> Result<Option<Arc<Stored>>, RecordingError> {
        let stored = self.read_stored().map(|stored| stored.map(Arc::new));
        if stored.is_err() {
            self.state = State::Done(Completeness::Truncated { at: self.offset });
        }
        if let (Some(tap), Ok(Some(stored))) = (&mut self.tap, &stored) {
            tap(stored);
        }
        stored
    }

    /// Passes over the next block if it holds the records of an index; whether it did. Its checksum is not looked at. An index of more
    /// records, or processes, than the block can hold is damage.
    pub fn pass_records(&mut self, index: &Index) -> Result<bool, RecordingError>
    where
        R: Source,
    {
        let Some(header) = self.read_header()? else { return Ok(false) };
        if header.kind != Kind::Records as u8 {
            self.waiting = Some(header);
            return Ok(false);
        }
        let most = (header.raw_len / LEAST_RECORD) as u64;
        let records = index.runs.iter().fold(0, |sum: u64, run| sum.saturating_add(run.count));
        if records.max(index.processes.len() as u64).max(index.runs.len() as u64) > most {
            return Err(self.damaged(Damage::Content));
        }
        let passed = self.input.pass(header.stored_len as u64).map_err(|source| self.io(source))?;
        if passed < header.stored_len as u64 {
            // Whether blocks hide in what there is, nobody has looked.
            self.state = State::Done(Completeness::Truncated { at: self.offset });
            return Ok(false);
        }
        self.offset += (BLOCK_HEADER_LEN + header.stored_len) as u64;
        Ok(true)
    }

    /// The header of the next block; `None` behind the last one.
    fn read_header(&mut self) -> Result<Option<BlockHeader>, RecordingError> {
        let State::Reading { ended } = self.state else { return Ok(None) };
        if let Some(header) = self.waiting.take() {
            return Ok(Some(header));
        }
        let mut bytes = [0; BLOCK_HEADER_LEN];
        let got = fill(&mut self.input, &mut bytes).map_err(|source| self.io(source))?;
        let magic = BLOCK_MAGIC.to_le_bytes();
        let known = got.min(magic.len());
        if bytes[..known] != magic[..known] {
            return Err(self.damaged(Damage::Magic));
        }
        if got < BLOCK_HEADER_LEN {
            let whole = if ended { Completeness::Complete } else { Completeness::NotEnded };
            self.state = State::Done(if got == 0 { whole } else { Completeness::Truncated { at: self.offset } });
            return Ok(None);
        }
        let header = BlockHeader::parse(&bytes);
        if header.stored_len > MAX_PAYLOAD || header.raw_len > MAX_PAYLOAD {
            return Err(self.damaged(Damage::Length));
        }
        Ok(Some(header))
    }

    fn read_stored(&mut self) -> Result<Option<Stored>, RecordingError> {
        let Some(header) = self.read_header()? else { return Ok(None) };
        let mut payload = Vec::new();
        // read_to_end: memory grows with what is there, not with what a damaged length promises.
        let read = self.input.by_ref().take(header.stored_len as u64).read_to_end(&mut payload);
        let read = read.map_err(|source| self.io(source))?;
        if read < header.stored_len {
            if holds_block(&payload) {
                return Err(self.damaged(Damage::Swallows));
            }
            self.state = State::Done(Completeness::Truncated { at: self.offset });
            return Ok(None);
        }
        if checksum(&header.bytes, &payload) != header.crc {
            return Err(self.damaged(Damage::Checksum));
        }
        self.state = State::Reading { ended: header.kind == Kind::End as u8 };
        let at = self.offset;
        self.offset += (BLOCK_HEADER_LEN + header.stored_len) as u64;
        Ok(Some(Stored { header, payload, at }))
    }

    fn io(&self, source: io::Error) -> RecordingError {
        RecordingError::Io { path: self.path.clone(), source }
    }
}

impl Unpacker {
    /// `path` is what errors call the recording.
    pub fn new(path: PathBuf) -> Self {
        Self { path, zstd: None }
    }

    /// What a block says.
    pub fn unpack(&mut self, Stored { header, payload, at }: &Stored) -> Result<Block, RecordingError> {
        self.content(header, payload).map_err(|what| RecordingError::Damaged { path: self.path.clone(), at: *at, what })
    }

    fn content(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<Block, Damage> {
        let raw = match header.codec {
            codec if codec == Codec::Raw as u8 => Cow::Borrowed(payload),
            codec if codec == Codec::Zstd as u8 => {
                Cow::Owned(self.decompress(payload, header.raw_len).map_err(|_| Damage::Payload)?)
            }
            codec => return Err(Damage::Codec(codec)),
        };
        if raw.len() != header.raw_len {
            return Err(Damage::Payload);
        }
        Ok(match Kind::from_u8(header.kind).ok_or(Damage::Kind(header.kind))? {
            Kind::Meta => Block::Meta(json(&raw)?),
            Kind::Records => Block::Records(raw.into_owned()),
            Kind::Binary => Block::Binary(json(&raw)?),
            Kind::Code => Block::Code(json(&raw)?),
            Kind::Note => Block::Note(json(&raw)?),
            Kind::Counters => Block::Counters(json(&raw)?),
            Kind::End => Block::End(json(&raw)?),
            Kind::Joined => Block::Joined(json(&raw)?),
            Kind::Dump => Block::Dump(json(&raw)?),
            Kind::PackedDump => Block::Dump(GoroutineDump::unpack(&raw).ok_or(Damage::Content)?),
            Kind::DumpBegins => Block::DumpBegins(json(&raw)?),
            Kind::Drained => Block::Drained(json(&raw)?),
            Kind::Profile => Block::Profile(profile(&raw)?),
            Kind::Memory => Block::Memory(json(&raw)?),
            Kind::Usdt => Block::Usdt(json(&raw)?),
            Kind::Found => Block::Found(json(&raw)?),
            Kind::Adopted => Block::Adopted(json(&raw)?),
            Kind::Cgroup => Block::Cgroup(json(&raw)?),
            Kind::Load => Block::Load(json(&raw)?),
            Kind::Gone => Block::Gone(json(&raw)?),
            Kind::TestsSeen => Block::TestsSeen(json(&raw)?),
            Kind::ChildrenSeen => Block::ChildrenSeen(json(&raw)?),
            Kind::Index => Block::Index(json(&raw)?),
            Kind::Summed => Block::Summed(json(&raw)?),
            Kind::Kept => Block::Kept(json(&raw)?),
            Kind::NativeCode => Block::NativeCode(json(&raw)?),
            Kind::ThreadsMet => Block::ThreadsMet(json(&raw)?),
        })
    }

    fn decompress(&mut self, payload: &[u8], raw_len: usize) -> io::Result<Vec<u8>> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        zstd.decompress(payload, raw_len)
    }
}

fn json<T: DeserializeOwned>(raw: &[u8]) -> Result<T, Damage> {
    serde_json::from_slice(raw).map_err(|_| Damage::Content)
}

fn profile(raw: &[u8]) -> Result<Profile, Damage> {
    let end = raw.iter().position(|byte| *byte == b'\n').ok_or(Damage::Content)?;
    let profile: Profile = json(&raw[..end])?;
    Ok(Profile { data: raw[end + 1..].to_vec(), ..profile })
}

impl<R: Read> Iterator for Recording<R> {
    type Item = Result<Block, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.read_block().transpose();
        if let Some(Err(_)) = block {
            // Nothing behind damage can be trusted.
            self.state = State::Done(Completeness::Truncated { at: self.offset });
        }
        block
    }
}

impl BlockHeader {
    fn parse(bytes: &[u8; BLOCK_HEADER_LEN]) -> Self {
        Self {
            bytes: *bytes,
            kind: bytes[4],
            codec: bytes[5],
            stored_len: le_u32(&bytes[8..12]) as usize,
            raw_len: le_u32(&bytes[12..16]) as usize,
            crc: le_u32(&bytes[16..20]),
        }
    }
}

fn checksum(header: &[u8; BLOCK_HEADER_LEN], stored: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..16]);
    crc.update(stored);
    crc.finalize()
}

/// Whether whole blocks hide in bytes that claim to be the cut end of one: then its length was damaged, and nothing was cut.
fn holds_block(bytes: &[u8]) -> bool {
    let magic = BLOCK_MAGIC.to_le_bytes();
    let mut tried = 0;
    for (at, _) in bytes.windows(4).enumerate().filter(|(_, window)| *window == magic) {
        let Some(header) = bytes[at..].first_chunk::<BLOCK_HEADER_LEN>() else { return false };
        let parsed = BlockHeader::parse(header);
        let payload = &bytes[at + BLOCK_HEADER_LEN..];
        if payload.get(..parsed.stored_len).is_some_and(|stored| checksum(header, stored) == parsed.crc) {
            return true;
        }
        tried += 1;
        if tried == 64 {
            return false;
        }
    }
    false
}

/// Reads until `buf` is full or the input ends; how many bytes that were.
fn fill(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match input.read(&mut buf[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(got)
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Stands in for the meta block while it is being read; never handed out.
fn no_meta() -> Meta {
    use crate::{
        clock::{ClockTie, KtimeNs, WallTime},
        recording::contract::Tier,
    };
    Meta {
        lifetrace: String::new(),
        hostname: String::new(),
        kernel: String::new(),
        cpus: 0,
        clock: ClockTie { ktime_ns: KtimeNs(0), wall_ns: WallTime(0), error_ns: 0 },
        tier: Tier::T0,
        command: Vec::new(),
        target: None,
        budget_ppm: None,
        hit_cost_ns: None,
        threads: super::contract::Threads::Off,
        min_block_ns: None,
        cut: None,
    }
}
