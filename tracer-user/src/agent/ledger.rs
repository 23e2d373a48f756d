//! What outlives a recording: totals by program, and what is so now. Bounded, whatever comes.
//!
//! [`Fresh`] listens while events go by and knows sites by address. Now and then the [`Ledger`] takes what it has heard, finds names, and
//! adds it up. Creation sites that have series of their own are [`Program::sites`]; all others are told together, and what was counted
//! there stays there, so that no counter ever falls.

use std::{collections::BTreeMap, mem, sync::Arc};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    census::{Census, Kin},
    exponential::Exponential,
    kubernetes::{
        Places,
        subject::{Subject, Subjects},
    },
};
use crate::{
    correlate::{
        Life, LifeEnd, ReasonId, Sink, Span, SpanState, SumOfMany,
        gc::Pause,
        goroutine::{SiteKey, Who},
        process::{ImageId, ProcessId},
    },
    id::Tgid,
    recording::contract::Tier,
    top::{
        Paid,
        model::Model,
        picture::{Focus, Picture, Suspicion},
        short,
    },
};

/// Upper bounds of the classes that delays and pauses are counted in, in seconds.
pub const BOUNDS: [f64; 16] =
    [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0];
/// What programs and sites are called that have no series of their own.
pub const OTHER: &str = "other";
/// How those ended who did so between two recordings.
const UNSEEN: &str = "unseen";
/// Kinds of waits and ends that are told apart of one program.
const MAX_KINDS: usize = 64;

/// Times, counted by class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// The last one: longer than any bound.
    pub counts: [u64; BOUNDS.len() + 1],
    pub sum_ns: u64,
    /// The same times, in finer classes.
    pub exponential: Exponential,
}

impl Times {
    pub fn record(&mut self, ns: u64) {
        self.exponential.record(ns);
        let class = BOUNDS.partition_point(|bound| *bound < ns as f64 / 1e9);
        self.counts[class] = self.counts[class].saturating_add(1);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| count.saturating_add(sum))
    }

    fn add(&mut self, other: &Self) {
        self.exponential.add(&other.exponential);
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

/// What was heard since it was last taken.
#[derive(Default)]
pub struct Fresh {
    sites: FxHashMap<SiteKey, Lives>,
    images: FxHashMap<ImageId, Heard>,
}

#[derive(Clone, Copy, Default)]
struct Lives {
    born: u64,
    ended: u64,
}

#[derive(Default)]
struct Heard {
    blocked_ns: FxHashMap<Option<ReasonId>, u64>,
    delays: Times,
    pauses: Times,
}

impl Fresh {
    fn lives(&mut self, site: SiteKey) -> &mut Lives {
        self.sites.entry(site).or_default()
    }

    fn blocked(&mut self, image: ImageId, reason: Option<ReasonId>, ns: u64) {
        let total = self.images.entry(image).or_default().blocked_ns.entry(reason).or_default();
        *total = total.saturating_add(ns);
    }
}

impl Sink for Fresh {
    fn span(&mut self, who: &Who, span: &Span) {
        let ns = span.end.since(span.start);
        match span.state {
            SpanState::Blocked => self.blocked(who.image, span.reason, ns),
            SpanState::Runnable => self.images.entry(who.image).or_default().delays.record(ns),
            _ => {}
        }
    }

    fn born(&mut self, who: &Who) {
        self.lives(SiteKey::of(who)).born += 1;
    }

    fn life(&mut self, who: &Who, life: &Life) {
        if matches!(life.end, LifeEnd::Exit | LifeEnd::Gone) {
            self.lives(SiteKey::of(who)).ended += 1;
        }
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        if sum.lives {
            let lives = self.lives(sum.site);
            lives.born = lives.born.saturating_add(sum.count);
            lives.ended = lives.ended.saturating_add(sum.count);
        } else {
            self.blocked(sum.site.image, sum.reason, sum.total_ns);
        }
    }

    fn pause(&mut self, image: ImageId, pause: &Pause) {
        self.images.entry(image).or_default().pauses.record(pause.end.since(pause.start));
    }
}

/// All that is known of the programs.
pub struct Ledger {
    limits: Limits,
    /// By program, and by pod where they run in one.
    pub programs: BTreeMap<Subject, Program>,
    /// Who is in which pod.
    pub places: Places,
    /// Events that were lost, by kind: up to the recording before this one, and in this one.
    lost: [BTreeMap<String, u64>; 2],
    /// Processes of this recording whose end is in the totals.
    ended: FxHashSet<ProcessId>,
    /// Recordings that were begun.
    pub recordings: u64,
    /// Whether anything was taken since the newest began.
    has_taken: bool,
    /// Processes that are followed now, and what they run.
    living: Vec<(Tgid, Subject)>,
    /// Those that were when the recording before this one ended, and of which this one has not told yet.
    between: Vec<(Tgid, Subject)>,
}

/// How many have series of their own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub programs: usize,
    /// Of each program.
    pub sites: usize,
}

/// All processes that run one file, in one container of a pod or in none.
#[derive(Debug, Default)]
pub struct Program {
    pub sites: BTreeMap<Arc<str>, Site>,
    /// Those without a series of their own.
    pub others: Site,
    pub blocked_ns: BTreeMap<Arc<str>, u64>,
    pub delays: Times,
    pub pauses: Times,
    pub exits: BTreeMap<Arc<str>, u64>,
    /// What probes cost and what was used, ns: up to the recording before this one, and in this one. Probes are set on files: this is of all
    /// who run it, with those that are in no pod.
    paid: [[u64; 2]; 2],
    /// Processes now, by tier; `None`: no probe tells of them.
    pub tiers: BTreeMap<Option<Tier>, u64>,
    /// Goroutines now, by what they do.
    pub states: BTreeMap<&'static str, u64>,
    /// Of its processes, when last counted.
    pub kin: Option<Kin>,
    /// It was there, or something was heard of it, since this recording began.
    touched: bool,
}

/// A creation site.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Site {
    pub born: u64,
    pub ended: u64,
    pub alive: u64,
    /// By so many an hour its number grows; `None`: no sign of it.
    pub grows: Option<f64>,
}

/// What there is of a site now.
#[derive(Clone, Copy, Default)]
struct Now {
    alive: u64,
    grows: Option<f64>,
}

impl Program {
    pub fn paid_ns(&self) -> u64 {
        self.paid[0][0].saturating_add(self.paid[1][0])
    }

    pub fn cpu_ns(&self) -> u64 {
        self.paid[0][1].saturating_add(self.paid[1][1])
    }

    pub fn processes(&self) -> u64 {
        self.tiers.values().sum()
    }

    /// Chooses who has a series: everybody while there is room, then those of whom most live.
    fn choose(&mut self, now: &BTreeMap<Arc<str>, Now>, limit: usize) {
        while self.sites.len() > limit {
            self.sites.pop_last();
        }
        let mut largest: Vec<(&Arc<str>, u64)> = now.iter().map(|(name, now)| (name, now.alive)).collect();
        largest.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
        largest.truncate(limit);
        let wanted: FxHashSet<&Arc<str>> = largest.iter().map(|(name, _)| *name).collect();
        for (name, alive) in &largest {
            if self.sites.contains_key(*name) {
                continue;
            }
            if self.sites.len() >= limit {
                // The smallest of those that are not among the largest goes, if it is smaller.
                let alive_now = |shown: &Arc<str>| now.get(shown).map_or(0, |now| now.alive);
                let smallest = self.sites.keys().filter(|shown| !wanted.contains(shown)).min_by_key(|shown| alive_now(shown));
                let Some(smallest) = smallest.filter(|shown| alive_now(shown) < *alive).cloned() else { continue };
                self.sites.remove(&smallest);
            }
            self.sites.insert(Arc::clone(name), Site::default());
        }
    }

    fn site(&mut self, name: &Arc<str>, limit: usize) -> &mut Site {
        if self.sites.len() < limit || self.sites.contains_key(name) {
            return self.sites.entry(Arc::clone(name)).or_default();
        }
        &mut self.others
    }
}

impl Ledger {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            programs: BTreeMap::new(),
            places: Places::default(),
            lost: Default::default(),
            ended: FxHashSet::default(),
            recordings: 0,
            has_taken: false,
            living: Vec::new(),
            between: Vec::new(),
        }
    }

    /// From here on others have series of their own.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// A new recording begins: what was so in the one before is not known any more, totals stay.
    pub fn begin(&mut self) {
        self.recordings += 1;
        self.ended.clear();
        self.between.append(&mut self.living);
        let [before, last] = &mut self.lost;
        for (kind, count) in mem::take(last) {
            *before.entry(kind).or_default() += count;
        }
        // Totals of who comes once a night are kept as long as there is room; a pod that is gone does not come again. Who was there in a
        // recording that was over before anything was known of it, nobody can say.
        if mem::take(&mut self.has_taken) {
            let full = self.programs.len() >= self.limits.programs;
            self.programs.retain(|subject, program| mem::take(&mut program.touched) || !full && !subject.is_in_pod());
        }
        for program in self.programs.values_mut() {
            let [before, last] = &mut program.paid;
            for (total, more) in before.iter_mut().zip(mem::take(last)) {
                *total = total.saturating_add(more);
            }
        }
    }

    /// Adds what was heard, and looks at what is so now. `last`: names that have not come will not come any more.
    pub fn take(&mut self, fresh: &mut Fresh, model: &mut Model, last: bool) {
        self.has_taken = true;
        let Fresh { sites, images } = mem::take(fresh);
        model.learn(sites.keys().copied());
        let picture = model.picture(&Focus::default());
        let names = &mut Subjects::of_model(model, self.places.clone());
        self.take_now(&picture, names);
        fresh.sites = self.take_lives(sites, names, last);
        self.take_heard(images, names);
        self.take_ends(names);
        self.take_paid(model.paid());
        self.lost[1] = model.losses().by_kind;
    }

    /// Adds births and ends; those are left whose site has no name yet.
    fn take_lives(
        &mut self,
        sites: FxHashMap<SiteKey, Lives>,
        names: &mut Subjects<'_>,
        last: bool,
    ) -> FxHashMap<SiteKey, Lives> {
        let limit = self.limits.sites;
        let mut left = FxHashMap::default();
        for (key, lives) in sites {
            let Some(name) = names.model.site(&key).filter(|name| !name.system) else { continue };
            if name.is_incomplete() && !last {
                left.insert(key, lives);
                continue;
            }
            let site = self.program(&names.of(key.image)).site(&short(&name.line()), limit);
            site.born = site.born.saturating_add(lives.born);
            site.ended = site.ended.saturating_add(lives.ended);
        }
        left
    }

    fn take_heard(&mut self, images: FxHashMap<ImageId, Heard>, names: &mut Subjects<'_>) {
        for (image, Heard { blocked_ns, delays, pauses }) in images {
            let program = self.program(&names.of(image));
            program.delays.add(&delays);
            program.pauses.add(&pauses);
            for (reason, ns) in blocked_ns {
                let reason = reason.map_or_else(|| "unknown".into(), |reason| names.model.reason(reason));
                add(&mut program.blocked_ns, reason, ns);
            }
        }
    }

    fn take_ends(&mut self, names: &Subjects<'_>) {
        let told: FxHashSet<Tgid> = match self.between.is_empty() {
            true => FxHashSet::default(),
            false => {
                let ended = names.model.ended_processes().map(|ended| ended.tgid);
                ended.chain(self.living.iter().map(|(tgid, _)| *tgid)).collect()
            }
        };
        self.between.retain(|(tgid, _)| !told.contains(tgid));
        for ended in names.model.ended_processes() {
            if self.ended.insert(ended.process) {
                let subject = names.of_process(ended.program, ended.process);
                let program = if ended.is_go { self.program(&subject) } else { self.other_program(&subject) };
                add(&mut program.exits, ended.how.into(), 1);
            }
        }
    }

    /// Takes what was paid in this recording so far.
    fn take_paid(&mut self, paid: Vec<Paid>) {
        self.programs.values_mut().for_each(|program| program.paid[1] = [0; 2]);
        for Paid { program, cost_ns, cpu_ns } in paid {
            let [cost, cpu] = &mut self.program(&Subject::of(program)).paid[1];
            *cost = cost.saturating_add(cost_ns);
            *cpu = cpu.saturating_add(cpu_ns);
        }
    }

    fn take_now(&mut self, picture: &Picture, names: &mut Subjects<'_>) {
        for program in self.programs.values_mut() {
            program.tiers.clear();
            program.states.clear();
            for site in program.sites.values_mut().chain([&mut program.others]) {
                (site.alive, site.grows) = (0, None);
            }
        }
        self.living.clear();
        for process in picture.processes.iter().filter(|process| process.ended.is_none()) {
            let name = names.of(process.image);
            self.living.push((process.tgid, name.clone()));
            let program = self.program(&name);
            *program.tiers.entry(process.tier).or_default() += 1;
            let states = &process.states;
            let counts = [
                ("running", states.running),
                ("runnable", states.runnable),
                ("syscall", states.syscall),
                ("awake", states.awake),
                ("blocked", states.blocked),
                ("unknown", states.unknown),
            ];
            for (state, count) in counts {
                *program.states.entry(state).or_default() += count;
            }
        }
        let mut now: BTreeMap<Subject, BTreeMap<Arc<str>, Now>> = BTreeMap::new();
        for row in picture.sites.iter().filter(|row| !row.system) {
            let Some(states) = &row.states else { continue };
            let of = now.entry(names.of(row.image)).or_default().entry(short(&row.name)).or_default();
            of.alive = of.alive.saturating_add(states.alive());
            if let Suspicion::Grows(rate) = row.suspicion {
                of.grows = Some(of.grows.unwrap_or(0.0) + rate);
            }
        }
        let limit = self.limits.sites;
        for (name, sites) in now {
            let program = self.program(&name);
            program.choose(&sites, limit);
            for (name, now) in sites {
                let site = program.sites.get_mut(&name).unwrap_or(&mut program.others);
                site.alive = site.alive.saturating_add(now.alive);
                if let Some(rate) = now.grows {
                    site.grows = Some(site.grows.unwrap_or(0.0) + rate);
                }
            }
        }
    }

    /// Counts those who ended when nobody looked: the last recording had them, and of this one, which knows all who were there when it began, they
    /// are no part. Who is not gone is not followed any more, or again later.
    pub fn settle(&mut self, is_gone: impl Fn(Tgid) -> bool) {
        for (tgid, subject) in mem::take(&mut self.between) {
            if is_gone(tgid) {
                add(&mut self.program(&subject).exits, UNSEEN.into(), 1);
            }
        }
    }

    /// Counts threads and zombies of those who are followed now.
    pub fn count_kin(&mut self, census: &mut Census) {
        self.programs.values_mut().for_each(|program| program.kin = None);
        for (tgid, name) in mem::take(&mut self.living) {
            if let Some(kin) = census.of(tgid) {
                let of = self.program(&name).kin.get_or_insert(Kin::NONE);
                *of = of.plus(kin);
            }
            self.living.push((tgid, name));
        }
    }

    fn program(&mut self, subject: &Subject) -> &mut Program {
        self.program_of(subject, self.limits.programs)
    }

    /// One that is not Go's: those that somebody's children run, whatever they are called, must not take all the room.
    fn other_program(&mut self, subject: &Subject) -> &mut Program {
        self.program_of(subject, self.limits.programs / 4)
    }

    fn program_of(&mut self, subject: &Subject, limit: usize) -> &mut Program {
        let known = self.programs.contains_key(subject) || self.programs.len() < limit;
        let subject = if known { subject.clone() } else { OTHER.into() };
        let program = self.programs.entry(subject).or_default();
        program.touched = true;
        program
    }

    /// Lost events by kind.
    pub fn lost(&self) -> BTreeMap<&str, u64> {
        let mut sum: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in self.lost.iter().flatten() {
            *sum.entry(kind).or_default() += count;
        }
        sum
    }
}

/// Adds to a kind; of too many the last ones are told together.
fn add(to: &mut BTreeMap<Arc<str>, u64>, kind: Arc<str>, more: u64) {
    let kind = if to.len() < MAX_KINDS || to.contains_key(&kind) { kind } else { OTHER.into() };
    let total = to.entry(kind).or_default();
    *total = total.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(sites: &[(&str, u64)]) -> BTreeMap<Arc<str>, Now> {
        sites.iter().map(|(name, alive)| ((*name).into(), Now { alive: *alive, grows: None })).collect()
    }

    /// Begins another recording after one of which something was taken.
    fn begin(ledger: &mut Ledger) {
        ledger.has_taken = true;
        ledger.begin();
    }

    fn shown(program: &Program) -> Vec<&str> {
        program.sites.keys().map(|name| &**name).collect()
    }

    /// Check that times are counted in the class whose bound they do not exceed.
    #[test]
    fn classes() {
        let mut times = Times::default();
        for ns in [1, 10_000, 10_001, 1_000_000_000, 2_000_000_000] {
            times.record(ns);
        }
        assert_eq!((times.counts[0], times.counts[1], times.counts[15], times.counts[16]), (2, 1, 1, 1));
        assert_eq!(times.sum_ns, 3_000_020_002);
    }

    /// Check that of those who were followed in the last recording the ones that are gone are counted, once.
    #[test]
    fn ends_between_recordings() {
        let mut ledger = Ledger::new(Limits { programs: 10, sites: 10 });
        ledger.living = vec![(Tgid(7), "/app".into()), (Tgid(8), "/app".into())];
        ledger.begin();
        // One that ends before anything is known of it.
        ledger.begin();
        for _ in 0..2 {
            ledger.settle(|tgid| tgid == Tgid(7));
            assert_eq!(ledger.programs[&Subject::from("/app")].exits, [(Arc::from(UNSEEN), 1)].into());
        }
    }

    /// Check that the site that grows gets a series when there is no room left, at the expense of one that is small, and that what was
    /// counted among the others stays there.
    #[test]
    fn choice() {
        let mut program = Program::default();
        program.choose(&now(&[("a", 1), ("b", 2)]), 2);
        assert_eq!(shown(&program), ["a", "b"]);
        program.site(&"c".into(), 2).born += 5;
        assert_eq!(program.others.born, 5);
        program.choose(&now(&[("a", 1), ("b", 2), ("c", 1)]), 2);
        assert_eq!(shown(&program), ["a", "b"], "no larger than they are");
        program.choose(&now(&[("a", 1), ("b", 2), ("c", 900)]), 2);
        assert_eq!(shown(&program), ["b", "c"]);
        assert_eq!(program.others.born, 5, "a counter does not fall");
        assert_eq!(program.sites["c"].born, 0);
        program.choose(&now(&[("b", 2), ("c", 900)]), 1);
        assert_eq!(shown(&program), ["c"], "as few as are wanted now");
    }

    /// Check that of more programs than have series the last ones are told together, that those that are gone make room, and that totals
    /// go on over recordings.
    #[test]
    fn bounds() {
        let mut ledger = Ledger::new(Limits { programs: 2, sites: 2 });
        for name in ["/a", "/b", "/c", "/d"] {
            add(&mut ledger.program(&name.into()).exits, "exit 0".into(), 1);
        }
        let paid = |sums: &[(&str, u64)]| {
            sums.iter().map(|(name, ns)| Paid { program: (*name).into(), cost_ns: *ns, cpu_ns: 2 * ns }).collect()
        };
        ledger.take_paid(paid(&[("/a", 5), ("/c", 30), ("/d", 1)]));
        ledger.take_paid(paid(&[("/a", 5), ("/c", 30), ("/d", 2)]));
        assert_eq!(
            (ledger.programs[&OTHER.into()].paid_ns(), ledger.programs[&OTHER.into()].cpu_ns()),
            (32, 64),
            "those without a series together"
        );
        add(&mut ledger.other_program(&"/tmp/script".into()).exits, "exit 0".into(), 1);
        assert_eq!(ledger.programs.keys().map(Subject::to_string).collect::<Vec<_>>(), ["/a", "/b", OTHER]);
        assert_eq!(ledger.programs[&OTHER.into()].exits["exit 0"], 3);
        ledger.lost[1].insert("exit".to_owned(), 3);
        begin(&mut ledger);
        ledger.lost[1].insert("exit".to_owned(), 4);
        assert_eq!(ledger.lost()["exit"], 7);
        ledger.take_paid(paid(&[("/a", 1)]));
        assert_eq!((ledger.programs[&"/a".into()].paid_ns(), ledger.programs[&"/a".into()].cpu_ns()), (6, 12));
        begin(&mut ledger);
        assert_eq!(ledger.programs.len(), 1, "who was not there in a whole recording makes room");
        let in_pod = Subject { pod: "orders-0".into(), ..Subject::from("/a") };
        ledger.limit(Limits { programs: 10, sites: 2 });
        add(&mut ledger.program(&in_pod).exits, "exit 0".into(), 1);
        begin(&mut ledger);
        assert_eq!(ledger.programs.len(), 2, "once more than one recording");
        ledger.begin();
        assert_eq!(ledger.programs.len(), 2, "of a recording that was over at once nothing is known");
        begin(&mut ledger);
        assert_eq!(
            ledger.programs.keys().collect::<Vec<_>>(),
            [&Subject::from("/a")],
            "a pod that is gone, though there is room"
        );
        let mut kinds = BTreeMap::new();
        for kind in 0..200 {
            add(&mut kinds, format!("{kind}").into(), 1);
        }
        assert_eq!((kinds.len(), kinds[OTHER]), (MAX_KINDS + 1, 136));
    }
}
