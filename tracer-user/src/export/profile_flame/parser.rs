//! Reads a gzipped `profile.proto` that a target gave, field by field, into no more than is asked for.
//!
//! The answer may be anything: each limit below is on what is kept, not on what is claimed. Source:
//! <https://github.com/google/pprof/blob/main/proto/profile.proto>.

use std::io::Read;

use flate2::read::GzDecoder;
use pprof::protos::{Function, Line, Location, Message, Sample, ValueType};
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};
use rustc_hash::FxHashMap;

use super::labels::{Set, Sets};
use crate::recording::contract::Frame;

/// Bytes of a profile, unpacked. One of a hundred thousand stacks has about ten million.
const MAX_BYTES: u64 = 64 << 20;
/// Bytes of one message in it. What a message unpacks to is at most a few dozen times as much.
const MAX_MESSAGE: usize = 1 << 20;
/// Samples, locations, functions and strings, each.
const MAX_ENTRIES: usize = 1 << 20;
/// Frames of all stacks together.
const MAX_FRAMES: usize = 8 << 20;
/// Bytes of the names of all frames.
const MAX_TEXT: usize = 64 << 20;
/// Frames of one stack; what is deeper is cut at the root.
const MAX_DEPTH: usize = 512;

/// Why a profile cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("it is no gzip")]
    Gzip,
    #[error("it is larger than {} MiB", MAX_BYTES >> 20)]
    Large,
    #[error("it makes no sense")]
    Nonsense,
    #[error("it has too many {0}")]
    Many(&'static str),
    #[error("it has no {0}")]
    NoValue(&'static str),
}

impl From<prost::DecodeError> for ProfileError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Nonsense
    }
}

/// What a profile says of one kind of value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub samples: Vec<Sampled>,
    pub frames: Vec<Frame>,
    pub labels: Vec<Set>,
    /// Samples of which labels were too many or too long, and left out.
    pub cut: usize,
}

/// A sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// Frames from the root to the leaf, as ids of [`Parsed::frames`].
    pub stack: Box<[u32]>,
    /// Id of a set of [`Parsed::labels`].
    pub labels: u32,
    pub value: i64,
}

/// Reads the values of type `value` (`inuse_space`). Of several samples that are alike each is kept.
pub fn parse(gzipped: &[u8], value: &'static str) -> Result<Parsed, ProfileError> {
    let mut bytes = Vec::new();
    GzDecoder::new(gzipped).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|_| ProfileError::Gzip)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ProfileError::Large);
    }
    let raw = Raw::read(&bytes)?;
    let index = raw.types.iter().position(|ty| raw.string(ty.ty) == value).ok_or(ProfileError::NoValue(value))?;
    let (mut names, mut sets) = (Names::default(), Sets::default());
    let mut kept = 0;
    let mut samples = Vec::new();
    for sample in &raw.samples {
        let sample = Sample::decode(*sample)?;
        let Some(value) = sample.value.get(index).copied().filter(|value| *value != 0) else { continue };
        // The wire has the leaf first, and of inlined functions the innermost.
        let mut stack: Vec<u32> = Vec::new();
        for id in sample.location_id.iter().take(MAX_DEPTH) {
            if let Some(location) = raw.locations.get(id) {
                stack.extend(names.of(&raw, *id, location)?.iter().take(MAX_DEPTH - stack.len()));
            }
        }
        stack.reverse();
        kept += stack.len();
        if kept > MAX_FRAMES {
            return Err(ProfileError::Many("frames"));
        }
        let labels = sets.number(&raw, &sample.label);
        samples.push(Sampled { stack: stack.into_boxed_slice(), labels, value });
    }
    Ok(Parsed { samples, frames: names.frames, cut: sets.cut, labels: sets.into_all() })
}

/// The messages of a profile, taken apart as far as they are needed.
#[derive(Default)]
pub(super) struct Raw<'a> {
    types: Vec<ValueType>,
    samples: Vec<&'a [u8]>,
    locations: FxHashMap<u64, &'a [u8]>,
    functions: FxHashMap<u64, (i64, i64)>,
    strings: Vec<&'a [u8]>,
}

impl<'a> Raw<'a> {
    fn read(mut rest: &'a [u8]) -> Result<Self, ProfileError> {
        let mut raw = Self::default();
        while !rest.is_empty() {
            let (tag, wire) = decode_key(&mut rest)?;
            if wire != WireType::LengthDelimited {
                skip_field(wire, tag, &mut rest, prost::encoding::DecodeContext::default())?;
                continue;
            }
            let len = usize::try_from(decode_varint(&mut rest)?).map_err(|_| ProfileError::Nonsense)?;
            let (message, behind) = rest.split_at_checked(len).ok_or(ProfileError::Nonsense)?;
            rest = behind;
            if message.len() > MAX_MESSAGE {
                return Err(ProfileError::Many("bytes in one message"));
            }
            raw.take(tag, message)?;
        }
        Ok(raw)
    }

    fn take(&mut self, tag: u32, message: &'a [u8]) -> Result<(), ProfileError> {
        let room = |len: usize, what| if len < MAX_ENTRIES { Ok(()) } else { Err(ProfileError::Many(what)) };
        match tag {
            1 => {
                room(self.types.len(), "types of values")?;
                self.types.push(ValueType::decode(message)?);
            }
            2 => {
                room(self.samples.len(), "samples")?;
                self.samples.push(message);
            }
            4 => {
                room(self.locations.len(), "locations")?;
                let mut id = message;
                self.locations.insert(first_varint(&mut id)?, message);
            }
            5 => {
                room(self.functions.len(), "functions")?;
                let function = Function::decode(message)?;
                self.functions.insert(function.id, (function.name, function.filename));
            }
            6 => {
                room(self.strings.len(), "strings")?;
                self.strings.push(message);
            }
            _ => {}
        }
        Ok(())
    }

    /// A string as it came; `None`: there is none.
    pub(super) fn bytes(&self, index: i64) -> Option<&'a [u8]> {
        usize::try_from(index).ok().and_then(|index| self.strings.get(index)).copied()
    }

    fn string(&self, index: i64) -> String {
        self.bytes(index).map_or(String::new(), |bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// A message's field 1, a number; 0 where it has none.
fn first_varint(message: &mut &[u8]) -> Result<u64, ProfileError> {
    while !message.is_empty() {
        let (tag, wire) = decode_key(message)?;
        if (tag, wire) == (1, WireType::Varint) {
            return Ok(decode_varint(message)?);
        }
        skip_field(wire, tag, message, prost::encoding::DecodeContext::default())?;
    }
    Ok(0)
}

/// Frames, each once.
#[derive(Default)]
struct Names {
    frames: Vec<Frame>,
    /// By function, file and line: indices of strings, which many functions may share.
    ids: FxHashMap<(i64, i64, i64), u32>,
    /// By location, innermost first.
    of_location: FxHashMap<u64, Box<[u32]>>,
    text_bytes: usize,
}

impl Names {
    fn of(&mut self, raw: &Raw<'_>, id: u64, location: &[u8]) -> Result<&[u32], ProfileError> {
        if !self.of_location.contains_key(&id) {
            let lines = Location::decode(location)?.line;
            let frame = |line: &Line| {
                let (name, file) = raw.functions.get(&line.function_id).copied().unwrap_or_default();
                self.intern(raw, (name, file, line.line))
            };
            let frames = lines.iter().take(MAX_DEPTH).map(frame).collect::<Result<_, _>>()?;
            self.of_location.insert(id, frames);
        }
        Ok(&self.of_location[&id])
    }

    fn intern(&mut self, raw: &Raw<'_>, key: (i64, i64, i64)) -> Result<u32, ProfileError> {
        if let Some(id) = self.ids.get(&key) {
            return Ok(*id);
        }
        let function = Some(raw.string(key.0)).filter(|name| !name.is_empty()).unwrap_or_else(|| "?".into());
        let frame = Frame { function, file: raw.string(key.1), line: u32::try_from(key.2).unwrap_or(0) };
        self.text_bytes += frame.function.len() + frame.file.len();
        if self.text_bytes > MAX_TEXT {
            return Err(ProfileError::Many("bytes of names"));
        }
        let id = self.frames.len() as u32;
        self.frames.push(frame);
        self.ids.insert(key, id);
        Ok(id)
    }
}
