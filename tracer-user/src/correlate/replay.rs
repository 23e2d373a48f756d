//! Runs a whole recording through decode, order and correlate, and keeps what outputs need to explain the result.

use std::thread;

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    event::{CodeOf, Top},
    id::{Address, BinaryId, StackId},
    index::Only,
    order::OrderReport,
    recording::{
        Completeness, RecordingError,
        contract::{Binary, Code, Counters, End, LoadAt, MemoryAt, Meta, NativeCode, Note, Profile, Tier, UsdtFile},
        reader::{Recording, Source},
    },
};

use super::{
    Engine, Sink,
    cgroup::Cgroups,
    feed::feed,
    process::{Image, ImageId},
    replaying::Replaying,
};

/// A stack of runtime addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Return addresses, innermost first, but for what `top` says.
    pub pcs: Box<[Address]>,
    /// The walk stopped with frames left at the root.
    pub truncated: bool,
    pub top: Top,
    pub of: CodeOf,
}

/// Everything a recording said, besides the spans and lives that went to the sink.
pub struct Replayed {
    pub meta: Meta,
    pub view: View,
    pub completeness: Completeness,
    pub binaries: FxHashMap<BinaryId, Binary>,
    pub code: Vec<Code>,
    pub native: Vec<NativeCode>,
    pub stacks: FxHashMap<StackId, Stack>,
    pub notes: Vec<Note>,
    /// In the order in which they came.
    pub profiles: Vec<Profile>,
    pub memory: Vec<MemoryAt>,
    /// Files whose USDT probes were set.
    pub usdt: Vec<UsdtFile>,
    /// The names of cgroups.
    pub cgroups: Cgroups,
    /// What cgroups had to bear, in the order in which it was looked at.
    pub load: Vec<LoadAt>,
    /// The newest counters, if any were written.
    pub counters: Option<Counters>,
    pub end: Option<End>,
    /// When the recording ended: its end block, else the newest event or counters.
    pub ended_at: KtimeNs,
    pub order: OrderReport,
    /// Records that could not be decoded.
    pub undecodable: u64,
    pub engine: Engine,
}

/// What of a recording is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Events, held against what looks at the processes found.
    #[default]
    Repaired,
    /// Events alone, and what was read of processes when they were joined.
    EventsOnly,
}

/// Replays `recording` into `sink`.
pub fn replay<R: Source + Send>(recording: Recording<R>, sink: &mut impl Sink) -> Result<Replayed, RecordingError> {
    replay_as(recording, View::default(), sink)
}

/// The same, seen in one way or the other.
pub fn replay_as<R: Source + Send>(
    recording: Recording<R>,
    view: View,
    sink: &mut impl Sink,
) -> Result<Replayed, RecordingError> {
    replay_only(recording, view, None, sink)
}

/// The same; with `only`, what is told of that goroutine is whole, and of others there may be anything.
pub fn replay_only<R: Source + Send>(
    recording: Recording<R>,
    view: View,
    only: Option<Only>,
    sink: &mut impl Sink,
) -> Result<Replayed, RecordingError> {
    let mut replaying = Replaying::begin(recording.meta().clone(), view, sink);
    let completeness = thread::scope(|scope| {
        for step in feed(scope, recording, only)? {
            if let Some(end) = replaying.step(step, sink) {
                return end;
            }
        }
        // The thread that reads has panicked, which the scope passes on.
        Ok(Completeness::NotEnded)
    })?;
    Ok(replaying.finish(completeness, sink))
}

/// A stretch of time in which an image was followed in some detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub tier: Tier,
    pub from: KtimeNs,
    pub to: KtimeNs,
}

/// From when to when an image was followed at which tier, up to `until`. Empty for one without probes.
pub(super) fn coverage(image: &Image, notes: &[Note], tier: Tier, until: KtimeNs) -> Vec<Coverage> {
    // Without a hit it is a fork's copy of its parent's image, about to execute another.
    let Some((binary, first_hit)) = image.binary.zip(image.first_hit) else { return Vec::new() };
    let (begin, end) = (image.since, image.until.unwrap_or(until));
    let mut steps: Vec<(KtimeNs, Tier)> = notes
        .iter()
        .filter_map(|note| match note {
            Note::Coverage { at, binary: of, tier, .. } if *of == binary => Some((*at, *tier)),
            _ => None,
        })
        .collect();
    steps.sort_by_key(|(at, _)| *at);
    if steps.is_empty() {
        steps.push((first_hit, tier));
    }
    let ends = steps.iter().skip(1).map(|(at, _)| *at).chain([KtimeNs::MAX]);
    let spans =
        steps.iter().zip(ends).map(|((from, tier), to)| Coverage { tier: *tier, from: (*from).max(begin), to: to.min(end) });
    spans.filter(|span| span.from < span.to).collect()
}

impl Replayed {
    /// Nanoseconds since the recording's zero.
    pub fn since_zero(&self, at: KtimeNs) -> u64 {
        at.since(self.meta.clock.ktime_ns)
    }

    /// Whether a fact of the kernel is in this recording.
    pub fn tells(&self, fact: &str) -> bool {
        let told = self.notes.iter().filter_map(|note| match note {
            Note::Facts { told, .. } => Some(told),
            _ => None,
        });
        told.flatten().any(|told| told.fact == fact && told.through != "none")
    }

    pub fn duration_ns(&self) -> u64 {
        self.since_zero(self.ended_at)
    }

    /// From when to when an image was followed at which tier. Empty for one without probes.
    pub fn coverage(&self, image: ImageId) -> Vec<Coverage> {
        coverage(self.engine.processes().image(image), &self.notes, self.meta.tier, self.ended_at)
    }

    /// The end of the last time in which no probe told of an image, where there is one; its own end, if none does any more.
    pub fn untold_until(&self, image: ImageId) -> Option<KtimeNs> {
        self.coverage(image).into_iter().filter(|span| span.tier == Tier::T0).map(|span| span.to).max()
    }

    /// The best tier that an image was ever followed at.
    pub fn tier(&self, image: ImageId) -> Option<Tier> {
        self.coverage(image).iter().map(|span| span.tier).max()
    }

    /// Path and Go version of an image's binary, where it was probed.
    pub fn binary(&self, image: &Image) -> Option<&Binary> {
        self.binaries.get(&image.binary?)
    }

    /// How CPUs were sampled; `None`: they were not.
    pub fn sampling(&self) -> Option<Sampling> {
        let mut all: Option<Sampling> = None;
        for note in &self.notes {
            let Note::Sampling { at, hz, cpus } = note else { continue };
            if let Some(sampling) = &mut all {
                sampling.stop(*at);
            }
            if *hz > 0 {
                let sampling = all.get_or_insert_with(Sampling::default);
                (sampling.hz, sampling.cpus, sampling.since) = (*hz, *cpus, Some(*at));
            }
        }
        if let Some(sampling) = &mut all {
            sampling.stop(self.ended_at);
        }
        all
    }
}

/// What the notes tell of the sampling clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// The newest frequency, a CPU.
    pub hz: u32,
    pub cpus: u32,
    /// Ticks that should have come, on all CPUs.
    pub expected_ticks: u64,
    since: Option<KtimeNs>,
}

impl Sampling {
    fn stop(&mut self, at: KtimeNs) {
        if let Some(since) = self.since.take() {
            let ticks = u128::from(at.since(since)) * u128::from(self.hz) * u128::from(self.cpus) / 1_000_000_000;
            self.expected_ticks = self.expected_ticks.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX));
        }
    }
}
