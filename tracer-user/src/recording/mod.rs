//! Recordings: one file of checksummed blocks.
//!
//! ```text
//! file   = header block*
//! header = magic [8]  version u32  zero u32                                          16 bytes
//! block  = magic u32  kind u8  codec u8  zero u16  stored_len u32  raw_len u32  crc u32   payload[stored_len]
//! ```
//! Integers are little-endian. `crc` is CRC-32 (IEEE) over the 16 header bytes before it and the stored payload. A
//! [`Kind::Records`] payload is a run of wire records, each behind its length as u16; every other payload is the JSON of
//! one type of [`contract`], behind which a [`Kind::Profile`] has a line feed and the profile itself, and a [`Kind::PackedDump`] its goroutines. The first block is [`Kind::Meta`]; the last one of a recording that was ended in order is
//! [`Kind::End`]. A block is written whole, so that a tracer that is killed leaves a readable prefix.
//!
//! This module owns the format. What the records mean is `decode`'s business.

use std::{io, path::PathBuf};

pub mod contract;
pub mod place;
pub mod reader;
pub mod writer;

use contract::{
    Adopted, Binary, CgroupNamed, ChildrenSeen, Code, Counters, Drained, DumpBegins, End, Found, Gone, GoroutineDump, Index,
    Joined, KeptAt, LoadAt, MemoryAt, Meta, NativeCode, Note, Profile, Summed, TestsSeen, ThreadsMet, UsdtFile,
};

/// What a recording begins with.
const FILE_MAGIC: [u8; 8] = *b"lifetrac";
/// The format this program writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 3;
const FILE_HEADER_LEN: usize = 16;
/// "LBLK" in the file.
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"LBLK");
const BLOCK_HEADER_LEN: usize = 20;
/// A payload larger than this, stored or raw, is no block of ours.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// What a block holds. Numbers are part of the format and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Meta = 1,
    Records = 2,
    Binary = 3,
    Code = 4,
    Note = 5,
    Counters = 6,
    End = 7,
    Joined = 8,
    Dump = 9,
    DumpBegins = 10,
    Drained = 11,
    Profile = 12,
    Memory = 13,
    Usdt = 20,
    Found = 30,
    Adopted = 31,
    Cgroup = 32,
    Load = 33,
    Gone = 34,
    NativeCode = 16,
    ThreadsMet = 17,
    TestsSeen = 18,
    PackedDump = 19,
    ChildrenSeen = 35,
    Summed = 36,
    Kept = 37,
    Index = 38,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        use Kind::*;
        let all = [
            Meta,
            Records,
            Binary,
            Code,
            Note,
            Counters,
            End,
            Joined,
            Dump,
            PackedDump,
            DumpBegins,
            Drained,
            Profile,
            Memory,
            NativeCode,
            ThreadsMet,
            TestsSeen,
            Usdt,
            Found,
            Adopted,
            Cgroup,
            Load,
            Gone,
            ChildrenSeen,
            Summed,
            Kept,
            Index,
        ];
        all.into_iter().find(|kind| *kind as u8 == value)
    }
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    Raw = 0,
    Zstd = 1,
}

/// One block, read. [`Kind::Meta`] is not among them: the reader hands it out at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Framed records: walk them with [`records`].
    Records(Vec<u8>),
    Binary(Binary),
    Code(Code),
    Note(Note),
    Counters(Counters),
    End(End),
    Joined(Joined),
    Dump(GoroutineDump),
    DumpBegins(DumpBegins),
    Drained(Drained),
    Profile(Profile),
    Memory(MemoryAt),
    Usdt(UsdtFile),
    Found(Found),
    Adopted(Adopted),
    Cgroup(CgroupNamed),
    Load(LoadAt),
    Gone(Gone),
    NativeCode(NativeCode),
    ThreadsMet(ThreadsMet),
    TestsSeen(TestsSeen),
    ChildrenSeen(ChildrenSeen),
    Summed(Summed),
    Kept(KeptAt),
    Index(Index),
    /// A second meta block (recordings joined by hand).
    Meta(Meta),
}

/// Whether a recording is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It was ended in order.
    Complete,
    /// Whole blocks to the end of the file, but the tracer never said that it was done: it was killed, or still runs.
    NotEnded,
    /// The file stops within the block that begins at this offset.
    Truncated { at: u64 },
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("cannot read {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a lifetrace recording")]
    Foreign { path: PathBuf },
    #[error(
        "{path} has recording format {found}, and this lifetrace reads format {FORMAT_VERSION}: use the lifetrace that wrote it"
    )]
    Version { path: PathBuf, found: u32 },
    #[error("{path} ends before its first block: the tracer was stopped before it recorded anything")]
    Empty { path: PathBuf },
    #[error("{path} does not begin with a meta block")]
    NoMeta { path: PathBuf },
    #[error("{path} is damaged in the block at byte {at}: {what}")]
    Damaged { path: PathBuf, at: u64, what: Damage },
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("no block begins here")]
    Magic,
    #[error("its lengths are beyond the limit")]
    Length,
    #[error("its checksum does not match")]
    Checksum,
    #[error("its kind {0} is unknown")]
    Kind(u8),
    #[error("its codec {0} is unknown")]
    Codec(u8),
    #[error("its payload does not unpack")]
    Payload,
    #[error("its content is not what its kind says")]
    Content,
    #[error("its length reaches beyond the blocks that follow")]
    Swallows,
}

/// Adds one wire record to a payload for [`writer::Writer::records`].
///
/// A record longer than a u16 can say is no record of ours (the largest is about a kilobyte); it is left out.
pub fn frame_record(payload: &mut Vec<u8>, record: &[u8]) {
    let Ok(len) = u16::try_from(record.len()) else { return };
    payload.extend_from_slice(&len.to_le_bytes());
    payload.extend_from_slice(record);
}

/// The records of a payload, in the order in which they were framed. A frame that the payload cuts short comes as it is:
/// `decode` counts it as short.
pub fn records(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let Some((len, rest)) = payload.split_first_chunk::<2>() else {
            return Some(std::mem::take(&mut payload));
        };
        let (record, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*len) as usize));
        payload = rest;
        Some(record)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that framed records come back as they went in, and that a cut frame ends the walk.
    #[test]
    fn frames_round_trip() {
        let mut payload = Vec::new();
        for record in [&b"one"[..], b"", b"three"] {
            frame_record(&mut payload, record);
        }
        assert_eq!(records(&payload).collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        for cut in 0..payload.len() {
            assert!(records(&payload[..cut]).count() <= 3, "cut at {cut}");
        }
    }
}
