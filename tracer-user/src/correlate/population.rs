//! The goroutines of one image.

use rustc_hash::FxHashMap;

use super::{
    goroutine::{Goroutine, Look},
    sink::Census,
};
use crate::{
    clock::KtimeNs,
    id::{Goid, Tid},
};

/// The live goroutines of one image.
#[derive(Default)]
pub(super) struct Population {
    pub live: FxHashMap<Goid, Goroutine>,
    pub dead: GoidSet,
    /// Who left a thread last by a coroutine switch or an exit, until another begins to run there: who a coroutine owes the thread to.
    pub left: FxHashMap<Tid, Goid>,
    /// The look that is under way, and what it has counted so far.
    pub looking: Option<(Look, Census)>,
    pub looks: u32,
    /// The newest look was made without probes: no event tells of these goroutines (T0).
    pub looks_alone: bool,
    /// The process ran before it was followed, and no look has told yet what lived then.
    pub joining: bool,
    /// When the newest look began that saw every goroutine: one that it did not see was born later.
    pub all_seen_at: Option<KtimeNs>,
}

/// A set of goids. The runtime deals them out in batches, so they lie close together: a bitmap for every 4096.
#[derive(Default)]
pub(super) struct GoidSet {
    pages: FxHashMap<u64, Box<[u64; 64]>>,
}

impl GoidSet {
    pub fn insert(&mut self, goid: Goid) {
        let page = self.pages.entry(goid.0 >> 12).or_insert_with(|| Box::new([0; 64]));
        page[(goid.0 >> 6) as usize & 63] |= 1 << (goid.0 & 63);
    }

    pub fn contains(&self, goid: Goid) -> bool {
        let page = self.pages.get(&(goid.0 >> 12));
        page.is_some_and(|page| page[(goid.0 >> 6) as usize & 63] & 1 << (goid.0 & 63) != 0)
    }
}
