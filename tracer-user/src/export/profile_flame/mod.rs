//! Flamegraphs of the profiles that a target gave: heap, mutex, block, CPU, leaked goroutines; of one moment, or of the growth
//! between two.
//!
//! [`parser`] reads one profile and [`labels`] those of its samples, [`choice`] says which of a recording's are meant, [`write`]
//! draws. What a profile says is the target's word, not what was traced.

use rustc_hash::FxHashMap;

use crate::{
    correlate::replay::Replayed,
    export::interned::Interned,
    id::Tgid,
    recording::contract::{Frame, Profile, ProfileKind},
    timeline::human,
};

pub mod choice;
pub mod labels;
pub mod parser;
mod write;

use choice::Chosen;
use labels::Set;
use parser::{Parsed, ProfileError};

/// What the widths are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    InuseSpace,
    InuseObjects,
    AllocSpace,
    AllocObjects,
    Mutex,
    Block,
    Cpu,
    GoroutineLeak,
}

impl By {
    /// The type and unit of the value in the profile.
    pub fn value(self) -> (&'static str, &'static str) {
        match self {
            Self::InuseSpace => ("inuse_space", "bytes"),
            Self::InuseObjects => ("inuse_objects", "objects"),
            Self::AllocSpace => ("alloc_space", "bytes"),
            Self::AllocObjects => ("alloc_objects", "objects"),
            Self::Mutex | Self::Block => ("delay", "ns"),
            Self::Cpu => ("cpu", "ns"),
            Self::GoroutineLeak => ("goroutineleak", "goroutines"),
        }
    }

    /// The unit as profiles write it.
    fn proto_unit(self) -> &'static str {
        match self.value().1 {
            "ns" => "nanoseconds",
            "bytes" => "bytes",
            _ => "count",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::InuseSpace => "Heap in use",
            Self::InuseObjects => "Objects in use",
            Self::AllocSpace => "Heap allocated",
            Self::AllocObjects => "Objects allocated",
            Self::Mutex => "Time waited for mutexes",
            Self::Block => "Time blocked (the program's own profile)",
            Self::Cpu => "CPU time (the program's own profile)",
            Self::GoroutineLeak => "Leaked goroutines",
        }
    }

    /// The value counts from the program's start on.
    fn is_cumulative(self) -> bool {
        matches!(self, Self::AllocSpace | Self::AllocObjects | Self::Mutex | Self::Block)
    }

    /// An allocs profile holds what a heap profile holds.
    fn is_in(self, kind: ProfileKind) -> bool {
        match self {
            Self::InuseSpace | Self::InuseObjects | Self::AllocSpace | Self::AllocObjects => {
                matches!(kind, ProfileKind::Heap | ProfileKind::Allocs)
            }
            Self::Mutex => kind == ProfileKind::Mutex,
            Self::Block => kind == ProfileKind::Block,
            Self::Cpu => kind == ProfileKind::Cpu,
            Self::GoroutineLeak => kind == ProfileKind::GoroutineLeak,
        }
    }

    /// What profiles of this kind are called, and how they come into a recording.
    fn wanted(self) -> (&'static str, &'static str) {
        match self {
            Self::InuseSpace | Self::InuseObjects | Self::AllocSpace | Self::AllocObjects => ("heap", "--heap-every 30s"),
            Self::Mutex => ("mutex", "--profile mutex"),
            Self::Block => ("block", "--profile block"),
            Self::Cpu => ("cpu", "--profile cpu"),
            Self::GoroutineLeak => ("goroutineleak", "--profile goroutineleak"),
        }
    }
}

/// The recording cannot answer the question.
#[derive(Debug, thiserror::Error)]
pub enum Unanswerable {
    #[error("the recording holds no {kind} profiles: record with --pprof auto {how}")]
    None { kind: &'static str, how: &'static str },
    #[error("the recording holds no {kind} profile of {before} or earlier: the first is of {first}", before = human::duration(*at_ns), first = human::duration(*first_ns))]
    NotYet { kind: &'static str, at_ns: u64, first_ns: u64 },
    #[error(
        "a difference needs two {kind} profiles of a process, and the recording holds one of each: record longer, or more often (--pprof auto {how}), or name a second recording"
    )]
    One { kind: &'static str, how: &'static str },
    #[error("the {kind} profile that process {tgid} gave cannot be read")]
    Unreadable {
        kind: &'static str,
        tgid: u32,
        #[source]
        source: ProfileError,
    },
}

/// A value at two moments; where there is only one, `before` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub before: u64,
    pub after: u64,
}

/// A flamegraph's content.
pub struct Flame {
    pub by: By,
    /// It shows growth: from `before` to `after`.
    pub differential: bool,
    frames: Interned<Frame>,
    labels: Interned<Set>,
    stacks: FxHashMap<Stack, Weight>,
    total: Weight,
    /// What must be known to read it.
    pub notes: Vec<String>,
    command: String,
    zero_unix_ns: u64,
    duration_ns: u64,
}

/// Where, and with which labels: numbers of a flame's frames from the root to the leaf, and of its labels.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Stack {
    frames: Box<[u32]>,
    labels: u32,
}

/// Which of the two moments.
#[derive(Clone, Copy)]
enum Moment {
    Before,
    After,
}

/// The values at one moment: of each process, the newest profile that is not of later than `at_ns`.
pub fn at(replayed: &Replayed, by: By, at_ns: Option<u64>) -> Result<Flame, Unanswerable> {
    let chosen = choice::newest(replayed, by, at_ns)?;
    let mut flame = Flame::new(replayed, by, false);
    flame.notes.push(format!("as of {}", choice::times(replayed, &chosen)));
    flame.fill(replayed, &chosen, Moment::After, chosen.len() > 1)?;
    Ok(flame.finish(replayed))
}

/// The growth within a recording: of each process, from its first profile to its newest.
pub fn growth(replayed: &Replayed, by: By, at_ns: Option<u64>) -> Result<Flame, Unanswerable> {
    let (first, last, alone) = choice::first_and_last(replayed, by, at_ns)?;
    let mut flame = Flame::new(replayed, by, true);
    flame.notes.push(format!("growth from {} to {}", choice::times(replayed, &first), choice::times(replayed, &last)));
    if alone > 0 {
        flame.notes.push(format!("left out: {alone} processes with one profile"));
    }
    flame.fill(replayed, &first, Moment::Before, first.len() > 1)?;
    flame.fill(replayed, &last, Moment::After, last.len() > 1)?;
    Ok(flame.finish(replayed))
}

/// The growth from one recording's newest profiles to another's. Their processes are not told apart: these have other numbers there.
pub fn growth_between(old: &Replayed, new: &Replayed, by: By, at_ns: Option<u64>) -> Result<Flame, Unanswerable> {
    let (first, last) = (choice::newest(old, by, at_ns)?, choice::newest(new, by, at_ns)?);
    let mut flame = Flame::new(new, by, true);
    let (from, to) = (choice::times(old, &first), choice::times(new, &last));
    flame.notes.push(format!("growth from the first recording at {from} to the second at {to}"));
    flame.fill(old, &first, Moment::Before, false)?;
    flame.fill(new, &last, Moment::After, false)?;
    Ok(flame.finish(new))
}

impl Flame {
    fn new(replayed: &Replayed, by: By, differential: bool) -> Self {
        let cumulative = by.is_cumulative() && !differential;
        Self {
            by,
            differential,
            frames: Interned::default(),
            labels: Interned::default(),
            stacks: FxHashMap::default(),
            total: Weight::default(),
            notes: cumulative.then(|| "counted since the program's start".to_owned()).into_iter().collect(),
            command: human::plain(&replayed.meta.command.join(" ")),
            zero_unix_ns: replayed.meta.clock.wall_ns.0,
            duration_ns: replayed.duration_ns(),
        }
    }

    /// Adds profiles; one that cannot be read spoils nothing but itself, unless it is the only one.
    fn fill(&mut self, replayed: &Replayed, chosen: &[Chosen<'_>], moment: Moment, roots: bool) -> Result<(), Unanswerable> {
        let mut unreadable = None;
        let mut read = false;
        for one in chosen {
            let root = roots.then(|| self.frames.number(&one.root(replayed)));
            let added = parser::parse(&one.profile.data, self.by.value().0)
                .and_then(|parsed| self.add(&parsed, moment, root).map(|()| parsed.cut));
            match added {
                Ok(cut) => {
                    read = true;
                    self.notes.extend((cut > 0).then(|| left_out(cut, one.profile.tgid)));
                }
                Err(error) => {
                    self.notes.push(format!("the profile of process {} cannot be read: {error}", one.profile.tgid));
                    unreadable.get_or_insert((one.profile, error));
                }
            }
        }
        match unreadable {
            Some((Profile { tgid, .. }, source)) if !read => {
                Err(Unanswerable::Unreadable { kind: self.by.wanted().0, tgid: tgid.0, source })
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, parsed: &Parsed, moment: Moment, root: Option<u32>) -> Result<(), ProfileError> {
        // All or nothing: a profile that is found to be nonsense has added none of it.
        let sum = parsed.samples.iter().try_fold(0u64, |sum, sample| sum.checked_add(u64::try_from(sample.value).unwrap_or(0)));
        let total = match moment {
            Moment::Before => &mut self.total.before,
            Moment::After => &mut self.total.after,
        };
        let sum = sum.and_then(|sum| total.checked_add(sum)).filter(|sum| *sum <= MAX_TOTAL).ok_or(ProfileError::Nonsense)?;
        *total = sum;
        let ids: Vec<u32> = parsed.frames.iter().map(|frame| self.frames.number(frame)).collect();
        let labels: Vec<u32> = parsed.labels.iter().map(|set| self.labels.number(set)).collect();
        for sample in &parsed.samples {
            let value = u64::try_from(sample.value).unwrap_or(0);
            let frames = root.into_iter().chain(sample.stack.iter().map(|id| ids[*id as usize])).collect();
            let stack = Stack { frames, labels: labels[sample.labels as usize] };
            let weight: &mut Weight = self.stacks.entry(stack).or_default();
            match moment {
                Moment::Before => weight.before += value,
                Moment::After => weight.after += value,
            }
        }
        Ok(())
    }

    /// By stack, whatever the labels.
    fn unlabelled(&self) -> FxHashMap<&[u32], Weight> {
        let mut stacks: FxHashMap<&[u32], Weight> = FxHashMap::default();
        for (stack, weight) in &self.stacks {
            let sum = stacks.entry(&stack.frames).or_default();
            sum.before += weight.before;
            sum.after += weight.after;
        }
        stacks
    }

    fn finish(mut self, replayed: &Replayed) -> Self {
        let vanished: u64 = self.unlabelled().values().filter(|weight| weight.after == 0).map(|weight| weight.before).sum();
        if vanished > 0 {
            let amount = match self.by.value().1 {
                "bytes" => human::bytes(vanished),
                "ns" => human::duration(vanished),
                unit => format!("{} {unit}", human::count(vanished)),
            };
            self.notes.push(format!("{amount} are gone from stacks that have none left: these have no width"));
        }
        self.notes.push(replayed.trust());
        self
    }
}

fn left_out(samples: usize, tgid: Tgid) -> String {
    format!("labels of {samples} samples of process {tgid} are too many or too long: left out")
}

/// More than any program has, and a sum that can be calculated with.
const MAX_TOTAL: u64 = 1 << 62;
