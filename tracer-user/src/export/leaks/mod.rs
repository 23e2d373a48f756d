//! Leaks in every format. Here as JSON: the contract `lifetrace.leaks/1`. Fields may be added, none renamed; what is not known is `null`.

use std::collections::BTreeSet;

use serde::Serialize;

pub mod github;
pub mod junit;
pub mod markdown;
pub mod sarif;
pub mod sources;
pub mod text;

use crate::{
    correlate::replay::Replayed,
    leak::{
        gate::{Gate, Standing},
        growth::Growth,
        ignore::Entry,
        verdict::{Because, Leak, Strength},
    },
    recording::contract::Frame,
};

#[derive(Serialize)]
pub struct LeaksOut {
    pub schema: &'static str,
    pub summary: Summary,
    pub leaks: Vec<LeakOut>,
    /// Packages that `go test` answered from its cache: their tests did not run.
    pub not_watched: BTreeSet<String>,
    /// Entries of the ignore file that count no more.
    pub expired: Vec<Entry>,
    /// The loss and coverage in a line.
    pub trust: String,
}

/// Groups of each strength. Those of the others that are `known` to the baseline, `ignored`, or make the gate fail are in the first numbers as well.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Summary {
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
    /// `growth` or `test`; `null`: watched.
    pub because: Option<&'static str>,
    pub kind: &'static str,
    /// The baseline has it.
    pub known: bool,
    /// Somebody decided to live with it for a while.
    pub ignored: Option<Entry>,
    /// The gate fails on it.
    pub fails: bool,
    pub tgid: u32,
    pub count: usize,
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
    pub objects: usize,
    pub never_woken: usize,
    pub by_timers: usize,
    pub longest_ns: u64,
    pub shortest_ns: u64,
    pub stack: Vec<Frame>,
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
            Strength::Suspected => summary.suspected += 1,
            Strength::Watched => summary.watched += 1,
        }
        let standing = gate.standing(leak);
        summary.known += usize::from(standing.known);
        summary.ignored += usize::from(standing.ignored.is_some());
        summary.failing += usize::from(standing.fails);
    }
    let leaks = leaks.iter().map(|leak| out(leak, gate.standing(leak))).collect();
    let expired = gate.expired().cloned().collect();
    LeaksOut { schema: "lifetrace.leaks/1", summary, leaks, not_watched: BTreeSet::new(), expired, trust: replayed.trust() }
}

fn out(leak: &Leak, standing: Standing<'_>) -> LeakOut {
    let Growth { stuck, settled_ns, slices, slice_ns, per_hour, unbounded } = leak.growth;
    let blocked_on = leak.blocked.as_ref().map(|blocked| BlockedOut {
        reason: blocked.reason.clone(),
        object: blocked.most_on.map(|(address, _)| format!("{:#x}", address.0)),
        object_waiters: blocked.most_on.map(|(_, count)| count),
        objects: blocked.objects,
        never_woken: blocked.never_woken,
        by_timers: blocked.by_timers,
        longest_ns: blocked.longest_ns,
        shortest_ns: blocked.shortest_ns,
        stack: blocked.stack.clone(),
    });
    LeakOut {
        fingerprint: leak.fingerprint.0.clone(),
        strength: leak.strength.name(),
        because: leak.because.map(Because::name),
        kind: "goroutine",
        known: standing.known,
        ignored: standing.ignored.cloned(),
        fails: standing.fails,
        tgid: leak.tgid.0,
        count: leak.count,
        unconfirmed: leak.unconfirmed,
        weakened_by_loss: leak.weakened_by_loss,
        growth_per_hour: unbounded.then_some(per_hour),
        oldest_ns: leak.oldest_ns,
        created_by: leak.created_by.clone(),
        creation: leak.creation.clone(),
        start_function: leak.start_function.clone(),
        starts_at: leak.starts_at.clone(),
        blocked_on,
        born_under: leak
            .tests
            .0
            .iter()
            .map(|(name, test)| BornUnderOut { name: name.clone(), exact: test.exact, count: test.count })
            .collect(),
        test: TestOut { unbounded, stuck, settled_ns, births: slices.to_vec(), slice_ns },
        advice: leak.advice,
        ids: leak.goids.iter().map(|goid| format!("go:{goid}@{}", leak.tgid)).collect(),
    }
}
