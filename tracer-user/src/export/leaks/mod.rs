//! Leaks in every format. Here as JSON: the contract `lifetrace.leaks/1`. Fields may be added, none renamed; what is not known is `null`.

use std::collections::BTreeSet;

use serde::Serialize;

pub mod flame;
pub mod github;
pub mod junit;
pub mod markdown;
pub mod sarif;
pub mod sources;
pub mod text;

use crate::{
    correlate::replay::Replayed,
    finding::Finding,
    leak::{
        gate::{Gate, Standing},
        growth::Growth,
        ignore::Entry,
        verdict::{Because, Blocked, LabelCount, Leak, Strength},
    },
    recording::contract::{Frame, Tier},
};

#[derive(Serialize)]
pub struct LeaksOut {
    pub schema: &'static str,
    pub summary: Summary,
    pub leaks: Vec<LeakOut>,
    /// What explains lateness and ends; no leaks.
    pub findings: Vec<Finding>,
    /// Packages that `go test` answered from its cache: their tests did not run.
    pub not_watched: BTreeSet<String>,
    /// What cannot be seen in a recording of this kind, for people.
    pub not_seen: Vec<&'static str>,
    /// Entries of the ignore file that count no more.
    pub expired: Vec<Entry>,
    /// The loss and coverage in a line.
    pub trust: String,
}

/// Groups of each strength. Those of the others that are `known` to the baseline, `ignored`, or make the gate fail are in the first numbers as well.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Summary {
    pub proven: usize,
    pub suspected: usize,
    pub watched: usize,
    pub known: usize,
    pub ignored: usize,
    pub failing: usize,
}

#[derive(Serialize)]
pub struct LeakOut {
    pub fingerprint: String,
    pub strength: &'static str,
    /// `collector`, `unreaped`, `growth` or `test`; `null`: watched.
    pub because: Option<&'static str>,
    /// `goroutine`, `thread`, `process`, `zombie` or `fd`.
    pub kind: &'static str,
    /// What they are called, where no `go` statement says it.
    pub name: Option<String>,
    /// The baseline has it.
    pub known: bool,
    /// Somebody decided to live with it for a while.
    pub ignored: Option<Entry>,
    /// The gate fails on it.
    pub fails: bool,
    pub tgid: u32,
    pub count: usize,
    /// Of `count`, those that Go's collector, or their parent, proved.
    pub proven: usize,
    /// Of `count`, those that may have ended: records were lost since.
    pub unconfirmed: usize,
    /// Without that loss it would be stronger.
    pub weakened_by_loss: bool,
    pub growth_per_hour: Option<f64>,
    pub oldest_ns: u64,
    pub created_by: Option<Frame>,
    pub creation: Vec<Frame>,
    pub start_function: Option<String>,
    /// Where that begins.
    pub starts_at: Option<Frame>,
    pub blocked_on: Option<BlockedOut>,
    pub test: TestOut,
    /// The most frequent, as snapshots saw them.
    pub labels: Vec<LabelOut>,
    /// Memory set aside for the stacks of `stacks_known` of them, those that a look found; `null`: nobody looked.
    pub stack_bytes: Option<u64>,
    pub stacks_known: usize,
    /// Of descriptors, how many there were when.
    pub counts: Vec<CountOut>,
    /// Under which of Go's tests they were born, as far as under any.
    pub born_under: Vec<BornUnderOut>,
    pub advice: Option<&'static str>,
    pub ids: Vec<String>,
}

#[derive(Serialize)]
pub struct BlockedOut {
    pub reason: String,
    /// That of most of them, and how many wait on it.
    pub object: Option<String>,
    pub object_waiters: Option<usize>,
    pub objects: Option<usize>,
    /// Who was last seen to do something about that one.
    pub last_touched: Option<TouchOut>,
    /// `null`: nothing tells of wakes, or of timers.
    pub never_woken: Option<usize>,
    pub by_timers: Option<usize>,
    pub longest_ns: u64,
    pub shortest_ns: u64,
    pub stack: Vec<Frame>,
}

/// Somebody waited on an object and went on.
#[derive(Serialize)]
pub struct TouchOut {
    pub by: String,
    pub woken_by: Option<String>,
    pub at_ns: u64,
}

#[derive(Serialize)]
pub struct LabelOut {
    pub key: String,
    pub value: String,
    pub count: usize,
}

#[derive(Serialize)]
pub struct CountOut {
    pub at_ns: u64,
    pub count: u64,
}

/// One of Go's tests.
#[derive(Serialize)]
pub struct BornUnderOut {
    /// As `go test -v` prints it; `?` for what is not known of it.
    pub name: String,
    /// All of the name is known.
    pub exact: bool,
    pub count: usize,
}

/// The test of growth, and its figures.
#[derive(Serialize)]
pub struct TestOut {
    pub unbounded: bool,
    /// Those who are older than `settled_ns`, which is twice as long as nine of ten of the ended lived.
    pub stuck: usize,
    pub settled_ns: u64,
    /// Births of these, by parts of `slice_ns` since the first.
    pub births: Vec<u64>,
    pub slice_ns: u64,
}

/// All verdicts.
pub fn leaks(replayed: &Replayed, leaks: &[Leak], gate: &Gate) -> LeaksOut {
    let mut summary = Summary::default();
    for leak in leaks {
        match leak.strength {
            Strength::Proven => summary.proven += 1,
            Strength::Suspected => summary.suspected += 1,
            Strength::Watched => summary.watched += 1,
        }
        let standing = gate.standing(leak);
        summary.known += usize::from(standing.known);
        summary.ignored += usize::from(standing.ignored.is_some());
        summary.failing += usize::from(standing.fails);
    }
    let leaks = leaks.iter().map(|leak| out(replayed, leak, gate.standing(leak))).collect();
    let expired = gate.expired().cloned().collect();
    let not_seen = not_seen(replayed);
    let (not_watched, findings) = Default::default();
    LeaksOut { schema: "lifetrace.leaks/1", summary, leaks, findings, not_watched, not_seen, expired, trust: replayed.trust() }
}

/// What the detail at which processes were followed leaves out.
fn not_seen(replayed: &Replayed) -> Vec<&'static str> {
    match replayed.meta.tier {
        Tier::T0 => vec![
            "goroutines that began and ended between two looks",
            "whether one went on and came back between two looks, who woke it, and what locks it waits on",
            "what happened after the last look before a process's end",
            "threads, and processes that are no children of the one that is watched",
        ],
        Tier::T1 => vec!["what goroutines wait for: followed at T1, nothing is suspected for its growth"],
        Tier::T2 | Tier::T3 => Vec::new(),
    }
}

fn out(replayed: &Replayed, leak: &Leak, standing: Standing<'_>) -> LeakOut {
    let Growth { stuck, settled_ns, slices, slice_ns, per_hour, unbounded } = leak.growth;
    LeakOut {
        fingerprint: leak.fingerprint.0.clone(),
        strength: leak.strength.name(),
        because: leak.because.map(Because::name),
        kind: leak.kind.name(),
        name: leak.name.clone(),
        known: standing.known,
        ignored: standing.ignored.cloned(),
        fails: standing.fails,
        tgid: leak.tgid.0,
        count: leak.count,
        proven: leak.proven,
        unconfirmed: leak.unconfirmed,
        weakened_by_loss: leak.weakened_by_loss,
        growth_per_hour: unbounded.then_some(per_hour),
        oldest_ns: leak.oldest_ns,
        created_by: leak.created_by.clone(),
        creation: leak.creation.clone(),
        start_function: leak.start_function.clone(),
        starts_at: leak.starts_at.clone(),
        blocked_on: leak.blocked.as_ref().map(|blocked| blocked_out(replayed, blocked)),
        born_under: leak
            .tests
            .0
            .iter()
            .map(|(name, test)| BornUnderOut { name: name.clone(), exact: test.exact, count: test.count })
            .collect(),
        test: TestOut { unbounded, stuck, settled_ns, births: slices.to_vec(), slice_ns },
        labels: leak
            .labels
            .iter()
            .map(|LabelCount { key, value, count }| LabelOut { key: key.clone(), value: value.clone(), count: *count })
            .collect(),
        stack_bytes: leak.stacks.map(|stacks| stacks.bytes),
        stacks_known: leak.stacks.map_or(0, |stacks| stacks.known),
        counts: leak.counts.iter().map(|(at_ns, count)| CountOut { at_ns: *at_ns, count: *count }).collect(),
        advice: leak.advice,
        ids: leak.ids.clone(),
    }
}

fn blocked_out(replayed: &Replayed, blocked: &Blocked) -> BlockedOut {
    let on = blocked.on.as_ref();
    let touched = on.and_then(|on| on.last_touched.as_ref());
    BlockedOut {
        reason: blocked.reason.clone(),
        object: on.map(|on| on.most_on.clone()),
        object_waiters: on.map(|on| on.waiters),
        objects: on.map(|on| on.objects),
        last_touched: touched.map(|touch| TouchOut {
            by: touch.by.clone(),
            woken_by: touch.woken_by.clone(),
            at_ns: replayed.since_zero(touch.at),
        }),
        never_woken: blocked.never_woken,
        by_timers: blocked.by_timers,
        longest_ns: blocked.longest_ns,
        shortest_ns: blocked.shortest_ns,
        stack: blocked.stack.clone(),
    }
}
