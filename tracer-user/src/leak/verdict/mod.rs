//! Verdicts: who is there for good, how sure that is, and on what that stands.
//!
//! One file a kind: [`goroutine`], [`thread`], [`process`] (and zombies), [`fd`]. Here is what a verdict says of any of them.

mod fd;
mod goroutine;
mod process;
mod thread;

use std::cmp::Reverse;

use rustc_hash::FxHashSet;

use super::{fingerprint::Fingerprint, growth::Growth, tally::LeakTally, tests::ByTest};
use crate::{
    correlate::replay::Replayed,
    id::{Goid, Tgid},
    recording::contract::Frame,
    symbolize::Symbolizer,
    timeline::Id,
};

pub use goroutine::{Blocked, LastTouch, Objects, Stacks};

/// Members of a group that are named in a verdict.
const MAX_NAMED: usize = 5;

/// How sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// Alive at the end; no more is known.
    Watched,
    /// Blocked, and their number grows without bound ([`super::growth`]); or born under a test that they outlived.
    Suspected,
    /// Go's collector found that nobody can wake them, or a parent has left its dead children unreaped while they became more.
    Proven,
}

/// What a strength above the lowest stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Because {
    /// Their number grows without bound.
    Growth,
    /// They were born under a test, and outlived it.
    Test,
    /// Go's garbage collector proved it.
    Collector,
    /// Zombies that their parent has left for long, while they became more.
    Unreaped,
}

/// What leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Goroutine,
    Thread,
    Process,
    Zombie,
    Fd,
}

/// Which processes are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Where any of them ran tests, those that did; otherwise all.
    Tests,
    All,
}

impl Strength {
    pub fn name(self) -> &'static str {
        match self {
            Self::Watched => "watched",
            Self::Suspected => "suspected",
            Self::Proven => "proven",
        }
    }
}

impl Because {
    pub fn name(self) -> &'static str {
        match self {
            Self::Growth => "growth",
            Self::Test => "test",
            Self::Collector => "collector",
            Self::Unreaped => "unreaped",
        }
    }

    fn strength(self) -> Strength {
        match self {
            Self::Growth | Self::Test => Strength::Suspected,
            Self::Collector | Self::Unreaped => Strength::Proven,
        }
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Goroutine => "goroutine",
            Self::Thread => "thread",
            Self::Process => "process",
            Self::Zombie => "zombie",
            Self::Fd => "fd",
        }
    }
}

/// A group of the same kind and the same process that came from one place and is stuck in one place.
#[derive(Clone, Debug)]
pub struct Leak {
    pub kind: Kind,
    pub strength: Strength,
    /// `None`: watched.
    pub because: Option<Because>,
    /// Under which tests they were born, as far as under any.
    pub tests: ByTest,
    pub fingerprint: Fingerprint,
    /// Whose they are: of processes and zombies, their parent's.
    pub tgid: Tgid,
    /// What they are called, where no `go` statement says where they come from: a thread's name, a program, a kind of descriptor.
    pub name: Option<String>,
    pub created_by: Option<Frame>,
    /// Who called, innermost first; `created_by` is its first.
    pub creation: Vec<Frame>,
    pub start_function: Option<String>,
    /// Where that begins: of a closure that a timer runs, the only place in the program's own code.
    pub starts_at: Option<Frame>,
    /// `None`: not known to be blocked.
    pub blocked: Option<Blocked>,
    pub count: usize,
    /// Of these, those that Go's collector proved to be leaked.
    pub proven: usize,
    /// Of these, those that may have ended: records were lost since they were last seen.
    pub unconfirmed: usize,
    pub oldest_ns: u64,
    pub growth: Growth,
    /// Without what was lost the strength would be higher.
    pub weakened_by_loss: bool,
    /// Their newest labels, and how many have each, the most frequent first.
    pub labels: Vec<LabelCount>,
    /// `None`: nobody looked.
    pub stacks: Option<Stacks>,
    /// Of descriptors: how many there were when, in nanoseconds since the recording's zero.
    pub counts: Vec<(u64, u64)>,
    pub advice: Option<&'static str>,
    /// The oldest, as `timeline --id` takes them.
    pub ids: Vec<String>,
}

/// How many of a group have a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelCount {
    pub key: String,
    pub value: String,
    pub count: usize,
}

/// The oldest goroutines of what is suspected or proven.
pub fn leaking(leaks: &[Leak]) -> FxHashSet<(Tgid, Goid)> {
    let strong = leaks.iter().filter(|leak| leak.kind == Kind::Goroutine && leak.strength > Strength::Watched);
    let ids = strong.flat_map(|leak| leak.ids.iter().map(move |id| (leak.tgid, id)));
    ids.filter_map(|(of, id)| match id.parse() {
        Ok(Id::Goroutine(goid, tgid)) => Some((tgid.unwrap_or(of), goid)),
        _ => None,
    })
    .collect()
}

/// All groups of the processes that are judged, the strongest and largest first.
pub fn leaks(replayed: &Replayed, tally: &LeakTally, judged: Judged) -> Vec<Leak> {
    let symbols = Symbolizer::new(replayed);
    let is_judged = |image| judged == Judged::All || tally.tests.is_empty() || tally.tests.has(image);
    let mut leaks = goroutine::leaks(replayed, &symbols, tally, &is_judged);
    leaks.extend(thread::leaks(replayed, &symbols, tally, &is_judged));
    leaks.extend(process::leaks(replayed, &is_judged));
    leaks.extend(fd::leaks(replayed, &is_judged));
    leaks.sort_by_cached_key(|leak| (Reverse((leak.strength, leak.count)), leak.kind, leak.fingerprint.clone(), leak.tgid));
    leaks
}
