//! Counts what lives when, while a recording is replayed: its memory does not grow with the number of lives.

use rustc_hash::FxHashMap;

use super::steps::{Clock, Steps};
use crate::{
    clock::KtimeNs,
    correlate::{
        Census, Life, LifeEnd,
        gc::{Cycle, Pause},
        goroutine::{SiteKey, Who},
        process::ImageId,
    },
};

/// Creation sites that are counted one by one: a program may make up as many as it likes.
const MAX_SITES: usize = 4096;

/// The goroutines of one creation site.
#[derive(Clone, Debug, Default)]
pub struct SiteSteps {
    /// Who came and went.
    pub alive: Steps<i64>,
    /// Of those who came, the ones whose birth was not seen.
    pub met: Steps<i64>,
    /// What was set aside for their stacks, when somebody looked.
    pub stack_bytes: Steps<Option<u64>>,
}

/// What a runtime's collector did.
#[derive(Clone, Debug, Default)]
pub struct GcSteps {
    pub cycles: Steps<u64>,
    pub pauses: Steps<u64>,
    pub pause_ns: Steps<u64>,
}

/// The sink's part.
#[derive(Clone, Debug)]
pub struct SeriesTally {
    pub clock: Clock,
    pub sites: FxHashMap<SiteKey, SiteSteps>,
    /// Goroutines of sites beyond [`MAX_SITES`].
    pub other_sites: FxHashMap<ImageId, SiteSteps>,
    pub gc: FxHashMap<ImageId, GcSteps>,
    /// How many goroutines were seen by who looked.
    pub looks: FxHashMap<ImageId, Steps<Option<u64>>>,
}

impl Default for SeriesTally {
    fn default() -> Self {
        let (sites, other_sites, gc, looks) = Default::default();
        Self { clock: Clock::new(KtimeNs(0)), sites, other_sites, gc, looks }
    }
}

impl SeriesTally {
    /// Where time begins; before anything else is told.
    pub fn begin(&mut self, zero: KtimeNs) {
        self.clock = Clock::new(zero);
    }

    pub fn life(&mut self, who: &Who, life: &Life) {
        let from = self.step(who.since);
        // Those that outlived their process are not taken away: it is not shown any more.
        let to = matches!(life.end, LifeEnd::Exit | LifeEnd::Gone).then(|| self.step(life.ended_at));
        // The second may have stretched the steps.
        let from = if to.is_some() { self.clock.step(who.since) } else { from };
        let key = SiteKey::of(who);
        let full = self.sites.len() >= MAX_SITES && !self.sites.contains_key(&key);
        let site = if full { self.other_sites.entry(who.image).or_default() } else { self.sites.entry(key).or_default() };
        site.alive.add(from, 1);
        if who.born_at.or(who.born_by).is_none() {
            site.met.add(from, 1);
        }
        if let Some(to) = to {
            site.alive.add(to, -1);
        }
    }

    /// A look that tells of stacks.
    pub fn census(&mut self, image: ImageId, census: &Census) {
        let step = self.step(census.to);
        let goroutines = census.sites.values().fold(0, |sum: u64, site| sum.saturating_add(site.goroutines));
        self.looks.entry(image).or_default().add(step, Some(goroutines));
        // Who is not in it has no stack any more.
        for (_, site) in self.sites.iter_mut().filter(|(key, _)| key.image == image) {
            site.stack_bytes.add(step, Some(0));
        }
        for ((gopc, startpc), found) in &census.sites {
            let key = SiteKey { image, gopc: Some(*gopc), startpc: Some(*startpc) };
            if self.sites.len() < MAX_SITES || self.sites.contains_key(&key) {
                self.sites.entry(key).or_default().stack_bytes.add(step, Some(found.stack_bytes));
            }
        }
    }

    pub fn pause(&mut self, image: ImageId, pause: &Pause) {
        if !pause.end_seen {
            return; // how long it was is not known
        }
        let step = self.step(pause.end);
        let gc = self.gc.entry(image).or_default();
        gc.pauses.add(step, 1);
        gc.pause_ns.add(step, pause.end.since(pause.start));
    }

    pub fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        let step = self.step(cycle.end);
        self.gc.entry(image).or_default().cycles.add(step, 1);
    }

    /// The step of a time; all steps are stretched until there is one.
    pub fn step(&mut self, at: KtimeNs) -> u64 {
        (0..self.clock.stretch(at)).for_each(|_| self.halve());
        self.clock.step(at)
    }

    /// Makes steps twice as long.
    pub fn coarsen(&mut self) {
        self.clock.step_ns = self.clock.step_ns.saturating_mul(2);
        self.halve();
    }

    fn halve(&mut self) {
        self.looks.values_mut().for_each(Steps::halve);
        for site in self.sites.values_mut().chain(self.other_sites.values_mut()) {
            site.alive.halve();
            site.met.halve();
            site.stack_bytes.halve();
        }
        for gc in self.gc.values_mut() {
            gc.cycles.halve();
            gc.pauses.halve();
            gc.pause_ns.halve();
        }
    }
}
