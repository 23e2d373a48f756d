//! A `map[string]string` of Go up to 1.23 (`runtime/map.go`): buckets of eight, each with a chain of further ones.

use super::{Draft, Entry, Fetch, MAX_LABELS, Text};
use crate::snapshot::memory::{Memory, MemoryError, Piece};

/// `hmap`: count, flags and B, buckets, oldbuckets.
const HEADER: usize = 48;
/// `hmap.flags`: somebody writes to it; it grows without getting larger.
const WRITING: u8 = 4;
const SAME_SIZE: u8 = 8;
/// `bmap`: one byte of the hash for each of eight, eight keys, eight values, and where the chain goes on.
const CELLS: u64 = 8;
const KEYS: u64 = 8;
const VALUES: u64 = KEYS + CELLS * 16;
const OVERFLOW: u64 = VALUES + CELLS * 16;
const BUCKET: u64 = OVERFLOW + 8;
/// Smaller bytes of a hash mark what is empty or was moved.
const MIN_TOP_HASH: u8 = 5;
/// Logarithm of the most buckets: more than enough for [`MAX_LABELS`].
const MAX_B: u8 = 6;
/// The longest chain.
const MAX_CHAIN: usize = 8;

struct Map {
    draft: Draft,
    count: usize,
    /// Buckets to be read next.
    next: Vec<u64>,
}

/// The entries of the maps that the words at `addresses` point to.
pub fn entries<M: Memory>(fetch: &mut Fetch<'_, M>, addresses: &[u64]) -> Result<Vec<Draft>, MemoryError> {
    fetch.fetch(addresses.iter().map(|&address| Piece { address, len: 8 }).collect())?;
    let places: Vec<_> = addresses.iter().map(|&address| (address, fetch.words::<1>(address).map(|[map]| map))).collect();
    let headers = places.iter().filter_map(|(_, map)| map.filter(|map| *map != 0));
    fetch.fetch(headers.map(|address| Piece { address, len: HEADER }).collect())?;
    let mut maps: Vec<Map> = places.into_iter().map(|(address, map)| Map::at(fetch, address, map)).collect();
    for _ in 0..MAX_CHAIN {
        let buckets = maps.iter().flat_map(|map| map.next.iter().copied());
        let pieces: Vec<_> = buckets.map(|address| Piece { address, len: BUCKET as usize }).collect();
        if pieces.is_empty() {
            break;
        }
        fetch.fetch(pieces)?;
        maps.iter_mut().for_each(|map| map.advance(fetch));
    }
    Ok(maps.into_iter().map(Map::finish).collect())
}

impl Map {
    /// What its header says.
    fn at<M: Memory>(fetch: &Fetch<'_, M>, address: u64, map: Option<u64>) -> Self {
        let header = match map {
            Some(0) => Some((0, Vec::new())),
            Some(map) => Self::header(fetch, map),
            None => None,
        };
        let entries = header.as_ref().map(|_| Vec::new());
        let (count, next) = header.unwrap_or_default();
        Self { draft: Draft { address, entries }, count, next }
    }

    fn header<M: Memory>(fetch: &Fetch<'_, M>, map: u64) -> Option<(usize, Vec<u64>)> {
        let [count, bits, buckets, old] = fetch.words(map)?;
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_LABELS)?;
        let [flags, log, ..] = bits.to_le_bytes();
        if flags & WRITING != 0 || log > MAX_B {
            return None;
        }
        let array = |start: u64, len: u64| (0..len).map(move |i| start.wrapping_add(i * BUCKET)).filter(move |_| start != 0);
        let size = 1u64 << log;
        // While it grows, what was not moved yet is in the old buckets.
        let old_size = if flags & SAME_SIZE != 0 { size } else { size / 2 };
        Some((count, array(buckets, size).chain(array(old, old_size)).collect()))
    }

    /// Takes the entries of the buckets just read, and goes on along their chains.
    fn advance<M: Memory>(&mut self, fetch: &Fetch<'_, M>) {
        let Some(entries) = &mut self.draft.entries else { return };
        let mut next = Vec::new();
        for bucket in std::mem::take(&mut self.next) {
            let overflow = take(fetch, bucket, entries);
            let Some(overflow) = overflow.filter(|_| entries.len() <= self.count) else {
                self.draft.entries = None;
                return;
            };
            next.extend(Some(overflow).filter(|overflow| *overflow != 0));
        }
        self.next = next;
    }

    /// Whole only if all chains ended, with as many entries as the map says it has.
    fn finish(mut self) -> Draft {
        let (count, ended) = (self.count, self.next.is_empty());
        self.draft.entries = self.draft.entries.filter(|entries| ended && entries.len() == count);
        self.draft
    }
}

/// Adds a bucket's entries; answers where its chain goes on.
fn take<M: Memory>(fetch: &Fetch<'_, M>, bucket: u64, entries: &mut Vec<Entry>) -> Option<u64> {
    let hashes: [u8; CELLS as usize] = *fetch.reading.at(bucket, BUCKET as usize)?.first_chunk()?;
    let text = |place: u64| fetch.words(bucket.checked_add(place)?).map(|[address, len]| Text { address, len });
    for (cell, _) in (0..CELLS).zip(hashes).filter(|(_, hash)| *hash >= MIN_TOP_HASH) {
        entries.push(Entry { key: text(KEYS + cell * 16)?, value: text(VALUES + cell * 16)? });
    }
    fetch.words(bucket.checked_add(OVERFLOW)?).map(|[overflow]| overflow)
}
