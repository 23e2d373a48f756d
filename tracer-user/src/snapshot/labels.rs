//! Labels of goroutines (`runtime/pprof`), out of the target's memory.
//!
//! A set of labels is never changed once a goroutine has it: it is read between two looks at the goroutine, and belongs to it if
//! both saw the same set. Up to Go 1.23 it is a map of the runtime's old kind (`runtime/map.go`, `hmap`), from 1.24 on a sorted
//! list (`runtime/pprof/label.go`). Sets that are too large, or that hold together nowhere, are unknown.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{
    LabelsRead,
    memory::{Memory, MemoryError, Piece, Reading},
};
use crate::golang::GoVersion;

mod map;

/// More labels than this in one set are not read.
const MAX_LABELS: usize = 128;
/// Longer keys and values are not read.
const MAX_TEXT: u64 = 4096;
/// Keys and values read at once.
const MAX_BATCH: u64 = 16 << 20;
/// Keys and values that are kept, with the room that a label takes.
const MAX_KEPT: usize = 256 << 20;
const ROOM: usize = 128;

/// Labels by key.
pub type LabelSet = BTreeMap<String, String>;

/// How a Go version keeps a set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// `map[string]string`.
    Map,
    /// `struct { list []struct { key, value string } }`.
    List,
}

impl Representation {
    pub fn of(version: &GoVersion) -> Self {
        if version.release() < (1, 24) { Self::Map } else { Self::List }
    }
}

/// Where a key and its value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    key: Text,
    value: Text,
}

/// A Go string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Text {
    address: u64,
    len: u64,
}

/// A set being read: where it is, and its entries; `None` as soon as something is wrong with it.
struct Draft {
    address: u64,
    entries: Option<Vec<Entry>>,
}

/// Different sets of labels.
pub struct Labels {
    representation: Representation,
    all: Vec<LabelSet>,
    indices: FxHashMap<LabelSet, u32>,
    kept: usize,
    /// What was read last, by address: later another set may be there.
    last: FxHashMap<u64, LabelsRead>,
    reading: Reading,
}

impl Labels {
    pub fn new(representation: Representation) -> Self {
        Self {
            representation,
            all: Vec::new(),
            indices: FxHashMap::default(),
            kept: 0,
            last: FxHashMap::default(),
            reading: Reading::default(),
        }
    }

    /// Reads the sets at `addresses`, for [`Self::of`]. Answers how many bytes that took.
    pub fn read(&mut self, memory: &impl Memory, addresses: impl Iterator<Item = u64>) -> Result<u64, MemoryError> {
        self.last.clear();
        let mut addresses: Vec<u64> = addresses.filter(|address| *address != 0).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Ok(0);
        }
        let mut fetch = Fetch { memory, reading: std::mem::take(&mut self.reading), bytes: 0 };
        let mut drafts = match self.representation {
            Representation::Map => map::entries(&mut fetch, &addresses)?,
            Representation::List => list(&mut fetch, &addresses)?,
        };
        let texts = drafts.iter_mut().flat_map(Draft::affordable_texts);
        let mut left = MAX_BATCH;
        let texts: Vec<Piece> = texts.filter(|piece| spend(&mut left, piece.len as u64)).collect();
        fetch.fetch(texts)?;
        let bytes = fetch.bytes;
        self.reading = fetch.reading;
        for draft in drafts {
            let set = draft.entries.and_then(|entries| self.set(&entries));
            let read = set.map_or(LabelsRead::Unknown, |set| self.keep(set));
            self.last.insert(draft.address, read);
        }
        Ok(bytes)
    }

    /// The labels at an address that was read last.
    pub fn of(&self, address: u64) -> LabelsRead {
        if address == 0 { LabelsRead::None } else { self.last.get(&address).copied().unwrap_or(LabelsRead::Unknown) }
    }

    pub fn into_sets(self) -> Vec<LabelSet> {
        self.all
    }

    fn set(&self, entries: &[Entry]) -> Option<LabelSet> {
        let text = |text: Text| match text.len {
            0 => Some(String::new()),
            len => Some(String::from_utf8_lossy(self.reading.at(text.address, usize::try_from(len).ok()?)?).into_owned()),
        };
        entries.iter().map(|entry| Some((text(entry.key)?, text(entry.value)?))).collect()
    }

    fn keep(&mut self, set: LabelSet) -> LabelsRead {
        if set.is_empty() {
            return LabelsRead::None;
        }
        if let Some(index) = self.indices.get(&set) {
            return LabelsRead::Known(*index);
        }
        let bytes = set.iter().fold(0, |sum, (key, value)| sum + ROOM + key.len() + value.len());
        let Ok(index) = u32::try_from(self.all.len()) else { return LabelsRead::Unknown };
        if self.kept + bytes > MAX_KEPT {
            return LabelsRead::Unknown;
        }
        self.kept += bytes;
        self.all.push(set.clone());
        self.indices.insert(set, index);
        LabelsRead::Known(index)
    }
}

impl Draft {
    /// Where its keys and values are; nothing, and no entries any more, if one of them is too long.
    fn affordable_texts(&mut self) -> Vec<Piece> {
        let texts = self.entries.iter().flatten().flat_map(|entry| [entry.key, entry.value]);
        if texts.clone().any(|text| text.len > MAX_TEXT) {
            self.entries = None;
            return Vec::new();
        }
        texts.filter(|text| text.len > 0).map(|text| Piece { address: text.address, len: text.len as usize }).collect()
    }
}

fn spend(left: &mut u64, bytes: u64) -> bool {
    let rest = left.checked_sub(bytes);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

/// Reads pieces in whatever order they come.
struct Fetch<'m, M> {
    memory: &'m M,
    reading: Reading,
    bytes: u64,
}

impl<M: Memory> Fetch<'_, M> {
    fn fetch(&mut self, mut pieces: Vec<Piece>) -> Result<(), MemoryError> {
        pieces.sort_unstable_by_key(|piece| piece.address);
        self.bytes += self.reading.read_merged(self.memory, pieces)?;
        Ok(())
    }

    fn words<const N: usize>(&self, address: u64) -> Option<[u64; N]> {
        let bytes = self.reading.at(address, N * 8)?;
        let (words, _) = bytes.as_chunks::<8>();
        let mut out = [0; N];
        out.iter_mut().zip(words).for_each(|(out, word)| *out = u64::from_le_bytes(*word));
        Some(out)
    }
}

/// Lists: a slice's header at each address, and its array.
fn list<M: Memory>(fetch: &mut Fetch<'_, M>, addresses: &[u64]) -> Result<Vec<Draft>, MemoryError> {
    fetch.fetch(addresses.iter().map(|&address| Piece { address, len: 24 }).collect())?;
    let slice = |address| {
        let [array, len, capacity] = fetch.words(address)?;
        (len <= capacity && len <= MAX_LABELS as u64).then_some((array, len as usize))
    };
    let slices: Vec<_> = addresses.iter().map(|&address| slice(address)).collect();
    let arrays = slices.iter().flatten().filter(|(_, len)| *len > 0);
    fetch.fetch(arrays.map(|&(address, len)| Piece { address, len: len * 32 }).collect())?;
    let entry = |address: u64| {
        let [key, key_len, value, value_len] = fetch.words(address)?;
        Some(Entry { key: Text { address: key, len: key_len }, value: Text { address: value, len: value_len } })
    };
    let entries = |(array, len): (u64, usize)| (0..len as u64).map(|i| entry(array.checked_add(i * 32)?)).collect();
    let drafts = addresses.iter().zip(slices);
    Ok(drafts.map(|(&address, slice)| Draft { address, entries: slice.and_then(entries) }).collect())
}

#[cfg(test)]
mod tests;
