//! Lives of goroutines, with the sums of what they did.

use rustc_hash::FxHashMap;

use super::{
    layout::Of,
    names::{Names, SiteId, TestId},
    spans::SpanRow,
    stacks::line,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{
        Life, LifeEnd, ReasonId, Slots,
        goroutine::{SiteKey, Who},
        process::ImageId,
    },
    id::Goid,
    recording::contract::Tier,
    timeline::State,
};

/// What one that lives did so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Living {
    /// Its number in the export.
    pub number: u64,
    goid: Goid,
    pub spans: u64,
    /// It was seen with labels.
    pub labelled: bool,
    waits: u64,
    blocked_ns: u64,
    longest_wait_ns: u64,
    awake_ns: u64,
    runnable_ns: u64,
    running_ns: u64,
    syscall_ns: u64,
    unknown_ns: u64,
    last: Option<Last>,
}

/// The newest span.
#[derive(Clone, Copy, Debug)]
struct Last {
    state: State,
    since: KtimeNs,
    reason: Option<ReasonId>,
    stack: Option<u32>,
}

impl Living {
    fn new(number: u64, goid: Goid) -> Self {
        Self {
            number,
            goid,
            spans: 0,
            labelled: false,
            waits: 0,
            blocked_ns: 0,
            longest_wait_ns: 0,
            awake_ns: 0,
            runnable_ns: 0,
            running_ns: 0,
            syscall_ns: 0,
            unknown_ns: 0,
            last: None,
        }
    }

    pub fn add(&mut self, span: &SpanRow) {
        let ns = span.lasted_ns();
        self.spans += 1;
        self.last = Some(Last { state: span.state, since: span.start, reason: span.reason, stack: span.stack });
        let sum = match span.state {
            State::Blocked => {
                self.waits += 1;
                self.longest_wait_ns = self.longest_wait_ns.max(ns);
                &mut self.blocked_ns
            }
            State::Runnable => &mut self.runnable_ns,
            State::Running => &mut self.running_ns,
            State::Syscall => &mut self.syscall_ns,
            State::Awake | State::Alive => &mut self.awake_ns,
            _ => &mut self.unknown_ns,
        };
        *sum = sum.saturating_add(ns);
    }
}

/// Who lives.
#[derive(Default)]
pub(super) struct Population {
    living: FxHashMap<ImageId, Slots<Living>>,
    next: u64,
}

impl Population {
    /// That one; its number is the next where it has none yet.
    pub fn of(&mut self, who: &Who) -> &mut Living {
        let place = self.living.entry(who.image).or_default().place(who.slot);
        if place.is_none_or(|living| living.goid != who.goid) {
            *place = Some(Living::new(self.next, who.goid));
            self.next += 1;
        }
        place.get_or_insert(Living::new(self.next, who.goid))
    }

    /// Its life is over.
    pub fn take(&mut self, who: &Who) -> Living {
        let living = *self.of(who);
        if let Some(slots) = self.living.get_mut(&who.image) {
            slots.take(who.slot);
        }
        living
    }
}

pub(super) struct GoroutineRow {
    living: Living,
    who: Who,
    life: Life,
    site: SiteId,
    creation: Option<u32>,
    test: Option<TestId>,
    /// What the tiers at which it was followed can tell.
    tier: Option<Tier>,
    doubtful: bool,
}

impl GoroutineRow {
    pub fn new(living: Living, who: &Who, life: &Life, names: &mut Names<'_>) -> Self {
        Self {
            living,
            who: *who,
            life: *life,
            site: names.site_id(SiteKey::of(who)),
            creation: who.origin.as_ref().map(|origin| names.creation(who.image, origin)),
            test: names.test_id(who.image, who.goid),
            tier: names.image(who.image).tier,
            doubtful: names.is_doubtful(who.image, life.last_known),
        }
    }

    fn end(&self) -> &'static str {
        match self.life.end {
            LifeEnd::Exit => "exit",
            LifeEnd::ProcessEnd => "process end",
            LifeEnd::RecordingEnd => "recording end",
            LifeEnd::Gone => "gone",
        }
    }

    /// A sum that is told from a tier on.
    fn told(&self, tier: Tier, value: fn(&Living) -> u64) -> Option<u64> {
        (self.tier >= Some(tier)).then(|| value(&self.living))
    }

    fn identity() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("goroutine", "its number in this export: one life each", |row, _| Some(row.living.number))
                .always(),
            Column::<Self>::integer("process", "its process, in `processes`", |row, names| {
                Some(names.image(row.who.image).process)
            })
            .always(),
            Column::<Self>::integer(
                "image",
                "the program that the process ran, in `images`: goids are an image's own",
                |row, _| Some(row.who.image.0),
            )
            .always(),
            Column::<Self>::integer("tgid", "", |row, names| Some(names.image(row.who.image).tgid)).always(),
            Column::<Self>::bigint("goid", "Go's number", |row, _| Some(row.who.goid.0)).always(),
            Column::<Self>::bigint("parent_goid", "who executed the `go` statement", |row, _| Some(row.who.origin?.parent?.0)),
            Column::<Self>::text(
                "created_function",
                "where the `go` statement is; null: its birth was not seen",
                |row, names| names.site(row.site).created_by.as_ref().map(|frame| frame.function.as_str()),
            ),
            Column::<Self>::text("created_file", "", |row, names| {
                names.site(row.site).created_by.as_ref().map(|frame| frame.file.as_str())
            }),
            Column::<Self>::integer("created_line", "", |row, names| names.site(row.site).created_by.as_ref().and_then(line)),
            Column::<Self>::text("start_function", "what it runs", |row, names| names.site(row.site).start_function.as_deref()),
            Column::<Self>::boolean("system", "one of the runtime's own", |row, names| Some(names.site(row.site).system))
                .always(),
            Column::<Self>::integer(
                "depth",
                "in the tree of creation: 0 for main, and where its parent is not known",
                |row, _| Some(row.who.depth),
            )
            .always(),
            Column::<Self>::bigint("creation_stack_id", "the stack that executed the `go` statement", |row, _| {
                row.creation.map(u64::from)
            }),
            Column::<Self>::text("test", "the Go test under which it was born", |row, names| {
                row.test.map(|test| names.test(test))
            }),
        ]
    }

    fn life() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::time("born_at_ns", "null: its birth was not seen", |row, names| {
                row.who.born_at.map(|at| names.since_zero(at))
            }),
            Column::<Self>::time(
                "born_by_ns",
                "its birth was lost, or no probe was there: a snapshot found it by then",
                |row, names| row.who.born_by.map(|at| names.since_zero(at)),
            ),
            Column::<Self>::time("first_seen_ns", "its birth, or from when on anything can be said of it", |row, names| {
                Some(names.since_zero(row.who.since))
            })
            .always(),
            Column::<Self>::time("ended_at_ns", "null: the recording ended while it lived", |row, names| {
                (row.life.end != LifeEnd::RecordingEnd).then(|| names.since_zero(row.life.ended_at))
            }),
            Column::<Self>::text(
                "ended",
                "`exit`, `process end`, `recording end`, or `gone` (its exit was lost: it had ended by then)",
                |row, _| Some(row.end()),
            )
            .always(),
            Column::<Self>::boolean("alive", "it lived when its process or the recording ended", |row, _| {
                Some(row.life.alive_at_end())
            })
            .always(),
            Column::<Self>::boolean("unconfirmed", "of `alive`: records were lost since it was last known to live", |row, _| {
                Some(row.life.alive_at_end() && row.doubtful)
            })
            .always(),
            Column::<Self>::time("last_known_ns", "when it was last known to live", |row, names| {
                Some(names.since_zero(row.life.last_known))
            })
            .always(),
        ]
    }

    fn sums() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("spans", "", |row, _| Some(row.living.spans)).always(),
            Column::<Self>::bigint("waits", "how often it blocked (T2)", |row, _| row.told(Tier::T2, |living| living.waits)),
            Column::<Self>::bigint("blocked_ns", "(T2)", |row, _| row.told(Tier::T2, |living| living.blocked_ns)),
            Column::<Self>::bigint("longest_wait_ns", "(T2)", |row, _| row.told(Tier::T2, |living| living.longest_wait_ns)),
            Column::<Self>::bigint("runnable_ns", "(T3)", |row, _| row.told(Tier::T3, |living| living.runnable_ns)),
            Column::<Self>::bigint("running_ns", "(T3)", |row, _| row.told(Tier::T3, |living| living.running_ns)),
            Column::<Self>::bigint("syscall_ns", "(T3)", |row, _| row.told(Tier::T3, |living| living.syscall_ns)),
            Column::<Self>::bigint("awake_ns", "`awake` and `alive`", |row, _| Some(row.living.awake_ns)).always(),
            Column::<Self>::bigint("unknown_ns", "nothing is known of that time", |row, _| Some(row.living.unknown_ns)).always(),
            Column::<Self>::text("last_state", "of its newest span", |row, _| row.living.last.map(|last| last.state.name())),
            Column::<Self>::text("last_reason", "", |row, names| Some(names.reason(row.living.last?.reason?))),
            Column::<Self>::time("last_since_ns", "", |row, names| row.living.last.map(|last| names.since_zero(last.since))),
            Column::<Self>::bigint("last_stack_id", "", |row, _| row.living.last?.stack.map(u64::from)),
        ]
    }
}

impl Row for GoroutineRow {
    const TABLE: &'static str = "goroutines";
    const ABOUT: &'static str = "Every goroutine that was seen: where it comes from, how it ended, and what it did in sum.";

    fn of(&self) -> Of {
        Of::Image(self.who.image)
    }

    fn columns() -> Vec<Column<Self>> {
        let parts = [Self::identity(), Self::life(), Self::sums()];
        parts.into_iter().flatten().collect()
    }
}
