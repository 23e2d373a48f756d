//! What is known while a recording is made, in bounded memory, and the pictures that are taken of it.

use std::{collections::VecDeque, mem};

use rustc_hash::FxHashSet;

use super::{
    census::Census,
    names::Names,
    picture::{Focus, Header, Picture, ProcessRow},
    suspicion::Suspicions,
    tally::Tally,
};
use crate::{
    clock::KtimeNs,
    correlate::{Both, Sink, feed::Step, goroutine::SiteKey, process::ImageId, replay::View, replaying::Replaying},
    recording::{
        Completeness, RecordingError,
        contract::{Counters, Meta, Tier},
    },
    timeline::human::plain,
};

/// Images that have ended and are shown all the same, the newest.
const MAX_ENDED: usize = 32;
/// Notes that are kept.
const MAX_NOTES: usize = 1024;
/// How far the numbers lie back that those of now are compared with.
const BACK_NS: u64 = 5_000_000_000;

/// A recording that is looked at while it goes by.
pub struct Model {
    pub(super) replaying: Replaying,
    pub(super) tally: Tally,
    pub(super) names: Names,
    pub(super) suspicions: Suspicions,
    /// What was counted when, for what is counted a second.
    history: VecDeque<Sample>,
    over: Option<String>,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Default)]
struct Sample {
    at: KtimeNs,
    events: u64,
    cost_ns: u64,
    cpu_ns: u64,
}

impl Model {
    pub fn begin(meta: Meta) -> Self {
        let mut tally = Tally::default();
        let replaying = Replaying::begin(meta, View::Repaired, &mut tally);
        Self {
            replaying,
            tally,
            names: Names::default(),
            suspicions: Suspicions::default(),
            history: VecDeque::new(),
            over: None,
        }
    }

    /// Takes the next step; false: that was the last one.
    pub fn step(&mut self, step: Step) -> bool {
        let end = self.replaying.step(step, &mut self.tally);
        self.take_end(end)
    }

    fn take_end(&mut self, end: Option<Result<Completeness, RecordingError>>) -> bool {
        if let Some(end) = end {
            self.over = Some(self.why_over(&end));
            return false;
        }
        true
    }

    /// The same, while somebody else listens as well.
    pub fn step_with<S: Sink + Default>(&mut self, step: Step, also: &mut S) -> bool {
        let mut both = Both(mem::take(&mut self.tally), mem::take(also));
        let end = self.replaying.step(step, &mut both);
        Both(self.tally, *also) = both;
        self.take_end(end)
    }

    /// No step will come any more, and nobody told why.
    pub fn cut_off(&mut self) {
        self.over.get_or_insert_with(|| "the recording broke off".to_owned());
    }

    fn why_over(&self, end: &Result<Completeness, RecordingError>) -> String {
        match (end, self.replaying.end().map(|end| end.reason.as_str())) {
            (Err(error), _) => plain(&error.to_string()),
            (Ok(_), Some("exited")) => "the process has ended".to_owned(),
            (Ok(Completeness::Complete), _) => "end of the recording".to_owned(),
            (Ok(_), _) => "end of what was recorded".to_owned(),
        }
    }

    /// Takes a picture of now.
    pub fn picture(&mut self, focus: &Focus) -> Picture {
        self.forget();
        self.tally.watch(focus.goroutine);
        let keys: FxHashSet<SiteKey> = self
            .replaying
            .engine()
            .living()
            .map(|goroutine| SiteKey::of(&goroutine.who))
            .chain(self.tally.sites.keys().copied())
            .collect();
        self.names.learn(keys.iter().copied(), &self.replaying);
        let now = self.replaying.now();
        self.suspicions.renew(now, &self.replaying, &self.tally, &self.names);
        let census = Census::of(keys, &self.replaying, now);
        let processes = self.processes(&census);
        let sites = self.sites(&census);
        let goroutines = focus.site.map_or_else(Vec::new, |site| self.goroutines(site, &census));
        let goroutine = focus.goroutine.and_then(|who| self.detail(who, &census));
        Picture { header: self.header(&processes, now), processes, sites, goroutines, goroutine }
    }

    /// Lets go of what would grow without bound.
    fn forget(&mut self) {
        self.replaying.forget_past(MAX_NOTES);
        let processes = self.replaying.engine().processes();
        let images: FxHashSet<ImageId> = self.tally.sites.keys().map(|site| site.image).collect();
        let mut ended: Vec<(KtimeNs, ImageId)> =
            images.into_iter().filter_map(|image| Some((processes.image(image).until?, image))).collect();
        if ended.len() > MAX_ENDED {
            ended.sort_unstable();
            let old = ended.len() - MAX_ENDED;
            self.tally.forget(&ended.into_iter().take(old).map(|(_, image)| image).collect());
        }
    }

    fn header(&mut self, processes: &[ProcessRow], now: KtimeNs) -> Header {
        let counters = self.replaying.counters();
        let paid = |of: fn(&Counters) -> u64| counters.map_or(0, of);
        let sample = Sample {
            at: now,
            events: self.replaying.events_taken(),
            cost_ns: paid(|counters| sum(counters.paid.iter().flat_map(|paid| paid.cost_ns))),
            cpu_ns: paid(|counters| sum(counters.paid.iter().map(|paid| paid.cpu_ns))),
        };
        let before = self.since_before(sample);
        let running = processes.iter().filter(|process| process.ended.is_none());
        let meta = self.replaying.meta();
        let losses = self.replaying.losses();
        let kinds: Vec<String> = losses.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let mut header = Header {
            target: plain(&meta.target.clone().unwrap_or_else(|| meta.command.join(" "))),
            now_ns: now.since(meta.clock.ktime_ns),
            budget: meta.budget_ppm.map(|ppm| f64::from(ppm) / 1e6),
            price: share(sample.cost_ns, sample.cpu_ns),
            price_now: before.and_then(|before| share(sample.cost_ns - before.cost_ns, sample.cpu_ns - before.cpu_ns)),
            events_per_s: before.map(|before| (sample.events - before.events) as f64 * 1e9 / now.since(before.at) as f64),
            lost: losses.events,
            lost_kinds: plain(&kinds.join(", ")),
            over: self.over.clone(),
            alive: processes.iter().map(|process| process.alive).sum(),
            ..Header::default()
        };
        for process in running {
            header.processes += 1;
            *header.tiers.entry(process.tier.unwrap_or(Tier::T0)).or_default() += 1;
        }
        header
    }

    /// Notes a sample, and gives the one that lies far enough back, as long as nothing in it is larger.
    fn since_before(&mut self, sample: Sample) -> Option<Sample> {
        if self.history.back().is_none_or(|last| sample.at.since(last.at) >= BACK_NS / 10) {
            self.history.push_back(sample);
        }
        while self.history.get(1).is_some_and(|next| sample.at.since(next.at) >= BACK_NS) {
            self.history.pop_front();
        }
        let grew = |before: &Sample| before.at < sample.at && before.cost_ns <= sample.cost_ns && before.cpu_ns <= sample.cpu_ns;
        self.history.front().copied().filter(grew)
    }
}

/// A sum that stays at the most there can be.
pub(super) fn sum(all: impl IntoIterator<Item = u64>) -> u64 {
    all.into_iter().fold(0, u64::saturating_add)
}

/// What was paid as a share of CPU time, where there was any.
pub(super) fn share(cost_ns: u64, cpu_ns: u64) -> Option<f64> {
    (cpu_ns > 0).then(|| cost_ns as f64 / cpu_ns as f64)
}
