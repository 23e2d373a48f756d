//! Everybody who lives, counted by creation site at one moment.

use std::{cell::RefCell, sync::Arc};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    picture::{Lasting, States},
    recent::window,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        Engine, LabelsId, ReasonId, SpanState,
        goroutine::{Doing, Goroutine, SiteKey},
        process::ImageId,
        replaying::Replaying,
    },
    recording::contract::Tier,
    timeline::human::plain,
};

/// Less covered time than this gives no rate.
const MIN_COVERED_NS: u64 = 500_000_000;
/// Labels of one goroutine that are shown, by length.
const MAX_LABELS: usize = 200;

/// The count, and texts that are wanted for many.
pub struct Census<'a> {
    engine: &'a Engine,
    pub now: KtimeNs,
    /// Every site of which anything is known.
    pub sites: FxHashMap<SiteKey, Count>,
    /// How long each image was covered in the time over which rates are taken.
    covered_ns: FxHashMap<ImageId, u64>,
    reasons: RefCell<FxHashMap<ReasonId, Arc<str>>>,
    labels: RefCell<FxHashMap<LabelsId, Arc<str>>>,
}

/// What the goroutines of a site do.
#[derive(Clone, Default)]
pub struct Count {
    running: u64,
    runnable: u64,
    syscall: u64,
    awake: u64,
    blocked: u64,
    unknown: u64,
    longest: Option<Lasting>,
    reasons: FxHashMap<Option<ReasonId>, u64>,
}

impl Count {
    fn take(&mut self, doing: &Doing, state: Option<SpanState>, now: KtimeNs) {
        let place = match state {
            None | Some(SpanState::Unknown) => &mut self.unknown,
            Some(SpanState::Awake) => &mut self.awake,
            Some(SpanState::Runnable) => &mut self.runnable,
            Some(SpanState::Running) => &mut self.running,
            Some(SpanState::Syscall) => &mut self.syscall,
            Some(SpanState::Blocked) => {
                *self.reasons.entry(doing.reason).or_default() += 1;
                self.longest = self.longest.max(Some(Lasting { ns: now.since(doing.since), at_least: doing.by_look }));
                &mut self.blocked
            }
        };
        *place += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.running += other.running;
        self.runnable += other.runnable;
        self.syscall += other.syscall;
        self.awake += other.awake;
        self.blocked += other.blocked;
        self.unknown += other.unknown;
        self.longest = self.longest.max(other.longest);
        for (reason, count) in &other.reasons {
            *self.reasons.entry(*reason).or_default() += count;
        }
    }

    pub fn alive(&self) -> u64 {
        self.running + self.runnable + self.syscall + self.awake + self.blocked + self.unknown
    }

    pub fn states(&self, census: &Census<'_>) -> States {
        let name = |reason: &Option<ReasonId>| reason.map_or_else(|| Arc::from("?"), |id| census.reason(id));
        let mut reasons: Vec<(Arc<str>, u64)> = self.reasons.iter().map(|(reason, count)| (name(reason), *count)).collect();
        reasons.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let Self { running, runnable, syscall, awake, blocked, unknown, longest, .. } = *self;
        States { running, runnable, syscall, awake, blocked, unknown, longest, reasons }
    }
}

impl<'a> Census<'a> {
    /// Counts at the sites of `keys`, which are all there are.
    pub fn of(keys: FxHashSet<SiteKey>, replaying: &'a Replaying, now: KtimeNs) -> Self {
        let engine = replaying.engine();
        let images: FxHashSet<ImageId> = keys.iter().map(|key| key.image).collect();
        let mut census = Self {
            engine,
            now,
            sites: keys.into_iter().map(|key| (key, Count::default())).collect(),
            covered_ns: images.into_iter().map(|image| (image, covered_ns(image, replaying, now))).collect(),
            reasons: RefCell::default(),
            labels: RefCell::default(),
        };
        for goroutine in engine.living() {
            let doing = goroutine.doing();
            let state = census.state(goroutine, &doing);
            census.sites.entry(SiteKey::of(&goroutine.who)).or_default().take(&doing, state, now);
        }
        census
    }

    /// What one does; `None`: nothing tells more than that it lives.
    pub fn state(&self, goroutine: &Goroutine, doing: &Doing) -> Option<SpanState> {
        let told = self.engine.tier(goroutine.who.image).is_none_or(|tier| tier >= Tier::T2);
        (told || doing.state != SpanState::Awake).then_some(doing.state).filter(|state| *state != SpanState::Unknown)
    }

    /// So many in the time over which rates are taken, a second; `None`: too little of that time was covered.
    pub fn rate(&self, image: ImageId, count: u64) -> Option<f64> {
        let covered = self.covered_ns.get(&image).copied().filter(|ns| *ns >= MIN_COVERED_NS)?;
        Some(count as f64 * 1e9 / covered as f64)
    }

    pub fn reason(&self, id: ReasonId) -> Arc<str> {
        let mut known = self.reasons.borrow_mut();
        Arc::clone(known.entry(id).or_insert_with(|| plain(self.engine.reason(id)).into()))
    }

    /// `key=value, …`.
    pub fn labels(&self, id: LabelsId) -> Arc<str> {
        let text = || {
            let pairs: Vec<String> = self.engine.labels().get(id).iter().map(|(key, value)| format!("{key}={value}")).collect();
            plain(&pairs.join(", ")).chars().take(MAX_LABELS).collect::<String>().into()
        };
        Arc::clone(self.labels.borrow_mut().entry(id).or_insert_with(text))
    }
}

/// How long births and exits of an image were told in the time over which rates are taken.
fn covered_ns(image: ImageId, replaying: &Replaying, now: KtimeNs) -> u64 {
    let (from, to) = window(now);
    let told = replaying.coverage(image).into_iter().filter(|span| span.tier >= Tier::T1);
    told.map(|span| span.to.min(to).since(span.from.max(from))).sum()
}
