//! The goroutines of one image.

use std::array;

use rustc_hash::FxHashMap;

use super::{
    goroutine::{Goroutine, Look},
    process::ImageId,
    sink::Census,
    slots::Slots,
};
use crate::{
    clock::KtimeNs,
    id::{Goid, Tid},
};

/// The live goroutines of one image.
#[derive(Default)]
pub(super) struct Population {
    pub live: Live,
    pub dead: GoidSet,
    /// Who left a thread last by a coroutine switch or an exit, until another begins to run there: who a coroutine owes the thread to.
    pub left: FxHashMap<Tid, Goid>,
    /// The look that is under way, and what it has counted so far.
    pub looking: Option<(Look, Census)>,
    pub looks: u32,
    /// Since the newest look that saw every goroutine there was a time without probes.
    pub gap: bool,
    /// The process ran before it was followed, and no look has told yet what lived then.
    pub joining: bool,
    /// When the newest look began that saw every goroutine: one that it did not see was born later.
    pub all_seen_at: Option<KtimeNs>,
}

/// The populations of the images that have any, by number of the image.
#[derive(Default)]
pub(super) struct Populations(Vec<Option<Box<Population>>>);

impl Populations {
    /// That of an image; an empty one where there was none.
    pub fn of(&mut self, image: ImageId) -> &mut Population {
        let index = image.0 as usize;
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].get_or_insert_default()
    }

    pub fn get(&self, image: ImageId) -> Option<&Population> {
        self.0.get(image.0 as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, image: ImageId) -> Option<&mut Population> {
        self.0.get_mut(image.0 as usize)?.as_deref_mut()
    }

    pub fn remove(&mut self, image: ImageId) {
        if let Some(population) = self.0.get_mut(image.0 as usize) {
            *population = None;
        }
    }

    /// Those that have one.
    pub fn images(&self) -> impl Iterator<Item = ImageId> + '_ {
        (0..).map(ImageId).zip(&self.0).filter_map(|(image, population)| population.as_ref().map(|_| image))
    }
}

/// Goids that the runtime gives to one P at a time (`runtime/proc.go`, `_GoidCacheBatch`): they lie close together.
const BATCH: u64 = 16;
/// No slot.
const VACANT: u32 = u32::MAX;

/// The goroutines that live, each in a slot of its own ([`Who::slot`](super::goroutine::Who::slot)).
#[derive(Default)]
pub(super) struct Live {
    /// Slots by goid, a batch at a time.
    batches: FxHashMap<u64, [u32; BATCH as usize]>,
    goroutines: Slots<Goroutine>,
    /// Slots that were used and are free; from `fresh` on none was.
    free: Vec<u32>,
    fresh: u32,
}

impl Live {
    /// Where a goroutine is, if it lives.
    pub fn slot(&self, goid: Goid) -> Option<u32> {
        let slot = self.batches.get(&(goid.0 / BATCH))?[(goid.0 % BATCH) as usize];
        (slot != VACANT).then_some(slot)
    }

    pub fn at(&mut self, slot: u32) -> Option<&mut Goroutine> {
        self.goroutines.get_mut(slot)
    }

    pub fn get(&self, goid: Goid) -> Option<&Goroutine> {
        self.goroutines.get(self.slot(goid)?)
    }

    pub fn get_mut(&mut self, goid: Goid) -> Option<&mut Goroutine> {
        self.goroutines.get_mut(self.slot(goid)?)
    }

    /// Puts a goroutine in, which gets a slot; who was there with that id is out.
    pub fn insert(&mut self, mut goroutine: Goroutine) -> (Option<Goroutine>, &mut Goroutine) {
        let goid = goroutine.who.goid;
        let old = self.remove(goid);
        // Four thousand million of them do not live at once.
        let slot = self.free.pop().unwrap_or(self.fresh);
        self.fresh = self.fresh.max(slot + 1);
        self.batches.entry(goid.0 / BATCH).or_insert_with(|| array::from_fn(|_| VACANT))[(goid.0 % BATCH) as usize] = slot;
        goroutine.who.slot = slot;
        (old, self.goroutines.place(slot).insert(goroutine))
    }

    pub fn remove(&mut self, goid: Goid) -> Option<Goroutine> {
        let batch = self.batches.get_mut(&(goid.0 / BATCH))?;
        let slot = std::mem::replace(&mut batch[(goid.0 % BATCH) as usize], VACANT);
        if slot == VACANT {
            return None;
        }
        if batch.iter().all(|slot| *slot == VACANT) {
            self.batches.remove(&(goid.0 / BATCH));
        }
        self.free.push(slot);
        self.goroutines.take(slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Goroutine> {
        self.goroutines.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Goroutine> {
        self.goroutines.iter_mut()
    }

    pub fn into_values(self) -> impl Iterator<Item = Goroutine> {
        self.goroutines.into_values()
    }
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
