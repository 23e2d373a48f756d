//! What the probes cost each program, and the governor that keeps this within the budget.
//!
//! Owns the account: how often each program's probes were hit, what a hit costs, how much CPU time the program used. Which tier follows from
//! that is [`crate::governor`]'s business; a step is taken here, and told to the recording.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use anyhow::Result;
use aya::sys::{Stats, enable_stats};
use nix::{sys::time::TimeValLike, time::ClockId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Follower, attachment::Attachment, processes::Used};
use crate::{
    capture::Message,
    clock::{KtimeNs, ktime_now},
    governor::{self, Care, Governor, RUNAWAY, Reading, Step},
    id::{BinaryId, ProcessKey},
    kernel::{
        KernelError,
        calibrate::Traps,
        session::{Hits, RunTimes, Session, program_of},
    },
    recording::contract::{Note, Paid, Tier, Why},
};

/// What a program behind a probe takes until the kernel has told, ns.
const PROGRAM_NS: f64 = 500.0;
/// So many runs tell how long a program takes.
const TELLING_RUNS: u64 = 20;
/// The kernel measures its programs for so long after a step, and so long every now and then: measuring costs, too.
const MEASURED_NS: u64 = 1_000_000_000;
const MEASURED_EVERY_NS: u64 = 30_000_000_000;
/// A program pays more for a hit than the hit itself takes: what the trap leaves cold, what its own scheduler does about the delay. The governor
/// takes that to be as much again (docs/price.md).
const INDIRECT: f64 = 2.0;
/// How often the price is looked at.
const BOOKED_EVERY_NS: u64 = 250_000_000;
/// How often the CPU time is read of a program whose probes are not hit, and of which everything is followed that may be.
const READ_EVERY_NS: u64 = 1_000_000_000;
/// A kernel that cannot tell what a trap costs is taken for a slow one, ns.
const UNKNOWN_TRAP_NS: u64 = 2_000;

/// All programs that carry probes.
pub(super) struct Prices {
    traps: Option<Traps>,
    programs: BTreeMap<BinaryId, Priced>,
    /// How long each program behind a probe takes.
    run_ns: FxHashMap<&'static str, f64>,
    /// How often each ran while that was measured.
    run_counts: FxHashMap<&'static str, u64>,
    runs: RunTimes,
    /// The kernel measures as long as it is open.
    measuring: Option<OwnedFd>,
    measured_at: KtimeNs,
    booked_at: KtimeNs,
    /// What is left of each program's budget, as a part of it, so that all keep theirs together.
    cut: f64,
}

/// A program that carries probes.
struct Priced {
    /// `None`: USDT probes, which are counted and not governed.
    attachment: Option<Attachment>,
    /// Of the probes that are set.
    tier: Tier,
    governor: Option<Governor>,
    /// What may be followed, as far as its hooks go, and what that may cost.
    care: Care,
    /// What may be for a while, in place of that.
    meanwhile: Option<Care>,
    /// The kernel's count, when it was last looked at.
    hits: Hits,
    /// What they cost, ns: USDT, T1, T2, T3.
    paid_ns: [f64; 4],
    /// CPU time of its processes as last seen, and of all of them since they were met.
    used: FxHashMap<ProcessKey, u64>,
    cpu_ns: u64,
    /// When it was last seen, and whether probes were hit since.
    read_at: KtimeNs,
    was_hit: bool,
    /// Of USDT probes: what was paid when it was last looked at.
    usdt_paid: Option<(KtimeNs, f64)>,
}

impl Prices {
    pub fn new(traps: Option<Traps>) -> Self {
        Self {
            traps,
            programs: BTreeMap::new(),
            run_ns: FxHashMap::default(),
            run_counts: FxHashMap::default(),
            runs: RunTimes::default(),
            measuring: None,
            measured_at: KtimeNs(0),
            booked_at: KtimeNs(0),
            cut: 1.0,
        }
    }

    /// The probes of a program are gone, or about to go; what they cost stays.
    pub fn close(&mut self, binary: BinaryId) {
        if let Some(priced) = self.programs.get_mut(&binary) {
            (priced.attachment, priced.governor, priced.tier) = (None, None, Tier::T0);
        }
    }

    /// Every program that carries or carried probes.
    pub fn binaries(&self) -> impl Iterator<Item = BinaryId> + '_ {
        self.programs.keys().copied()
    }

    /// USDT probes have been set.
    pub fn open_usdt(&mut self, binary: BinaryId) {
        let care = Care { tier: Tier::T1, budget: None };
        self.programs.insert(binary, Priced::new(None, Tier::T1, None, care));
    }

    /// What each program paid so far.
    pub fn paid(&self) -> Vec<Paid> {
        let paid = |(binary, priced): (&BinaryId, &Priced)| Paid {
            binary: *binary,
            hits: priced.hits,
            cost_ns: priced.paid_ns.map(|ns| ns as u64),
            cpu_ns: priced.cpu_ns,
        };
        self.programs.iter().filter(|(_, priced)| priced.hits != Hits::default()).map(paid).collect()
    }

    /// Lets the kernel measure its programs, or no more; takes what it has measured.
    fn measure(&mut self, session: &Session, at: KtimeNs) {
        if self.measuring.is_some() {
            let runs = session.run_times();
            for (program, (ns, count)) in &runs {
                let (before_ns, before) = self.runs.get(program).copied().unwrap_or_default();
                let (ns, count) = (ns.saturating_sub(before_ns), count.saturating_sub(before));
                if count >= TELLING_RUNS {
                    self.run_ns.insert(program, ns as f64 / count as f64);
                    *self.run_counts.entry(program).or_default() += count;
                    self.runs.insert(program, (before_ns + ns, before + count));
                }
            }
            if at.since(self.measured_at) >= MEASURED_NS {
                self.measuring = None;
            }
        } else if at.since(self.measured_at) >= MEASURED_EVERY_NS && self.programs.values().any(|priced| priced.tier > Tier::T0) {
            self.measure_soon(session, at);
        }
    }

    fn measure_soon(&mut self, session: &Session, at: KtimeNs) {
        self.measured_at = at;
        if self.measuring.is_none() {
            self.measuring =
                enable_stats(Stats::RunTime).inspect_err(|error| tracing::debug!(%error, "programs are not measured")).ok();
            self.runs = session.run_times();
        }
    }

    /// What one hit costs at each tier of a program: the mean over its probes, weighed by how often the programs behind them ran.
    fn unit_ns(&self, priced: &Priced) -> [f64; 4] {
        let trap_ns = |trap: Option<u64>| trap.unwrap_or(UNKNOWN_TRAP_NS) as f64;
        let run_ns = |program: &str| self.run_ns.get(program).copied().unwrap_or(PROGRAM_NS);
        let mut unit = [trap_ns(self.traps.map(|traps| traps.nop)) + run_ns(crate::kernel::usdt::PROGRAM), 0.0, 0.0, 0.0];
        let Some(attachment) = &priced.attachment else { return unit };
        for tier in [Tier::T1, Tier::T2, Tier::T3] {
            let sites = attachment.sites.iter().filter(|(_, site)| site.hook.tier() == tier);
            let alike = |program| attachment.sites.iter().filter(|(_, site)| program_of(site) == program).count().max(1);
            let (sum, weights) = sites.fold((0.0, 0.0), |(sum, weights), (_, site)| {
                let program = program_of(site);
                let trap = trap_ns(self.traps.map(|traps| traps.of(&site.instruction, site.emulated)));
                let run = if attachment.empty { 0.0 } else { run_ns(program) };
                let runs = self.run_counts.get(program).map_or(1.0, |runs| *runs as f64);
                let weight = runs / alike(program) as f64;
                (sum + weight * (trap + run), weights + weight)
            });
            unit[usize::from(tier.number())] = if weights > 0.0 { sum / weights } else { 0.0 };
        }
        unit
    }
}

impl Priced {
    fn new(attachment: Option<Attachment>, tier: Tier, governor: Option<Governor>, care: Care) -> Self {
        Self {
            attachment,
            tier,
            governor,
            care,
            meanwhile: None,
            hits: Hits::default(),
            paid_ns: [0.0; 4],
            used: FxHashMap::default(),
            cpu_ns: 0,
            read_at: KtimeNs(0),
            was_hit: false,
            usdt_paid: None,
        }
    }

    /// What was hit since costs so much a hit.
    fn book(&mut self, hits: Hits, unit_ns: [f64; 4]) {
        for ((paid, unit), (now, before)) in self.paid_ns.iter_mut().zip(unit_ns).zip(hits.iter().zip(self.hits)) {
            *paid += now.saturating_sub(before) as f64 * unit;
        }
        self.was_hit |= hits != self.hits;
        self.hits = hits;
    }

    /// Whether its CPU time is to be read: where nothing is paid, that can wait.
    fn is_due(&self, at: KtimeNs) -> bool {
        let undecided = self.governor.as_ref().is_some_and(|governor| !governor.rests());
        self.was_hit || undecided || at.since(self.read_at) >= READ_EVERY_NS
    }

    /// It has USDT probes, and they are set.
    fn has_usdt(&self) -> bool {
        self.attachment.is_none() && self.tier > Tier::T0
    }

    /// What was paid so far, as a share of the CPU time; 0.01 is 1 %.
    fn share(&self) -> f64 {
        if self.cpu_ns == 0 { 0.0 } else { self.paid_ns.iter().sum::<f64>() / self.cpu_ns as f64 }
    }

    /// A process has used so much CPU time by now, and so much when it was met.
    fn use_cpu(&mut self, process: ProcessKey, cpu_ns: u64, met_ns: u64) {
        let before = self.used.insert(process, cpu_ns).unwrap_or(met_ns);
        self.cpu_ns += cpu_ns.saturating_sub(before);
    }

    /// What may be followed now.
    fn wanted(&self) -> Care {
        self.meanwhile.unwrap_or(self.care)
    }

    /// What that may cost.
    fn allowed(&self) -> Option<f64> {
        self.wanted().budget.or(self.care.budget)
    }

    fn reading(&self, at: KtimeNs) -> Reading {
        let [_, paid @ ..] = self.paid_ns.map(|ns| (INDIRECT * ns) as u64);
        Reading { at, paid_ns: paid, cpu_ns: self.cpu_ns }
    }
}

impl Follower {
    /// At which tier a program is followed now.
    pub fn tier_of(&self, binary: BinaryId) -> Tier {
        self.prices.programs.get(&binary).map_or(Tier::T0, |priced| priced.tier)
    }

    /// Sets the first probes of a program: all that may be followed, or none yet where there is a budget.
    pub(super) fn set_first(&mut self, attachment: Attachment, care: Care) -> Result<()> {
        let begin = Reading { at: ktime_now(), ..Reading::default() };
        let care = Care { tier: care.tier.min(attachment.most), ..care };
        let governor = care.budget.map(|budget| Governor::new(self.prices.cut * budget, care.tier, begin));
        let tier = if governor.is_some() { Tier::T0 } else { care.tier };
        let binary = attachment.id;
        attachment.bring_to(tier, &mut self.session)?;
        self.prices.measure_soon(&self.session, begin.at);
        self.prices.programs.insert(binary, Priced::new(Some(attachment), tier, governor, care));
        self.capture.send(Message::Note(Note::Coverage { at: ktime_now(), binary, tier, why: None, share_ppm: None }));
        Ok(())
    }

    /// Somebody runs the program of whom so much may be followed: where several ask, see [`Care::and`].
    pub(super) fn want(&mut self, binary: BinaryId, care: Care) {
        let Some(priced) = self.prices.programs.get_mut(&binary) else { return };
        priced.care = priced.care.and(care);
        self.heed_care(binary);
    }

    /// From here on so much may be followed of a program, whatever is wanted of it otherwise; `None`: as before.
    pub fn meanwhile(&mut self, binary: BinaryId, care: Option<Care>) {
        if let Some(priced) = self.prices.programs.get_mut(&binary) {
            priced.meanwhile = care;
            self.heed_care(binary);
        }
    }

    /// Hands on what may be followed: to the governor, or, where there is no budget, to the probes.
    fn heed_care(&mut self, binary: BinaryId) {
        let cut = self.prices.cut;
        let Some(priced) = self.prices.programs.get_mut(&binary) else { return };
        let Some(attachment) = &priced.attachment else { return };
        let (tier, allowed) = (priced.wanted().tier.min(attachment.most), priced.allowed());
        match (&mut priced.governor, allowed) {
            (Some(governor), Some(budget)) => governor.allow(tier, cut * budget),
            (None, Some(budget)) => {
                // It begins without a probe, as any does.
                self.step(binary, Step { tier: Tier::T0, why: Why::Asked });
                if let Some(priced) = self.prices.programs.get_mut(&binary) {
                    priced.governor = Some(Governor::new(cut * budget, tier, priced.reading(ktime_now())));
                }
            }
            (governor, None) => {
                *governor = None;
                if priced.tier != tier {
                    self.step(binary, Step { tier, why: Why::Asked });
                }
            }
        }
    }

    /// Cuts the budgets of all programs so that they keep one together, by the CPU time that they use of late.
    fn keep_together(&mut self) {
        let Some(all) = self.how.all else { return };
        let governed = || self.prices.programs.values().filter_map(|priced| Some((priced, priced.governor.as_ref()?)));
        let cut = governor::cut(governed().filter_map(|(priced, governor)| Some((priced.allowed()?, governor.cpus()))), all);
        // What changes little changes nothing: CPU time is never quite the same.
        if (cut - self.prices.cut).abs() < 0.05 * self.prices.cut && cut < 1.0 || cut == self.prices.cut {
            return;
        }
        self.prices.cut = cut;
        let binaries: Vec<BinaryId> = self.prices.binaries().collect();
        binaries.into_iter().for_each(|binary| self.heed_care(binary));
    }

    /// At which tier each program is followed that a budget is kept for.
    pub(super) fn governed(&self) -> impl Iterator<Item = Tier> {
        self.prices.programs.values().filter(|priced| priced.governor.is_some()).map(|priced| priced.tier)
    }

    /// Whether the price is to be looked at as often as can be.
    pub fn is_in_a_hurry(&self) -> bool {
        self.prices.programs.values().filter_map(|priced| priced.governor.as_ref()).any(Governor::in_a_hurry)
    }

    /// Keeps what the probes cost within the budget: looks at it four times a second, or more often where that is called for.
    pub fn keep_budget(&mut self) {
        let allowed = self.heed_guard();
        let at = ktime_now();
        if !self.is_in_a_hurry() && at.since(self.prices.booked_at) < BOOKED_EVERY_NS {
            return;
        }
        if let Err(error) = self.book(at) {
            tracing::warn!("the price is not known: {error}");
            return self.alarm(Why::Unknown);
        }
        // Not as of before the hits were read: in a moment more of them come.
        self.stop_usdt(ktime_now());
        if !allowed {
            return;
        }
        self.keep_together();
        if self.prices.programs.values().any(|priced| priced.cpu_ns == 0 && priced.hits != Hits::default()) {
            // Who runs it is not known, or not yet.
            self.scan_soon();
        }
        let mut steps = Vec::new();
        // Hits without the CPU time of who ran into them would seem to cost a fortune: it comes with the next look at who is followed.
        let known = |priced: &Priced| priced.read_at == at && (priced.cpu_ns > 0 || priced.hits == Hits::default());
        for (binary, priced) in self.prices.programs.iter_mut().filter(|(_, priced)| known(priced)) {
            let reading = priced.reading(at);
            tracing::trace!(binary = binary.0, tier = ?priced.tier, ?reading, "price");
            steps.extend(priced.governor.as_mut().and_then(|governor| governor.tick(reading)).map(|step| (*binary, step)));
        }
        steps.into_iter().for_each(|(binary, step)| self.step(binary, step));
    }

    /// USDT probes that cost many times the budget of one CPU go, and do not come again.
    fn stop_usdt(&mut self, at: KtimeNs) {
        let Some(budget) = self.how.care.budget else { return };
        let mut runaways = Vec::new();
        for (binary, priced) in self.prices.programs.iter_mut().filter(|(_, priced)| priced.has_usdt()) {
            let (since, paid_ns) = *priced.usdt_paid.get_or_insert((at, priced.paid_ns[0]));
            if at.since(since) < BOOKED_EVERY_NS {
                continue;
            }
            priced.usdt_paid = Some((at, priced.paid_ns[0]));
            let share = (priced.paid_ns[0] - paid_ns) / (at.since(since) as f64).max(1.0);
            if share > RUNAWAY * budget {
                runaways.push((*binary, share));
            }
        }
        for (binary, share) in runaways {
            self.let_usdt_go(binary, Why::Runaway);
            self.warn(format!("USDT probes took {:.0} % of a CPU: they are taken away for good", share * 100.0));
        }
    }

    /// USDT probes are not set a second time: what became of their units meanwhile would not be known.
    fn let_usdt_go(&mut self, binary: BinaryId, why: Why) {
        self.prices.close(binary);
        let at = ktime_now();
        self.capture.send(Message::Note(Note::Coverage { at, binary, tier: Tier::T0, why: Some(why), share_ppm: None }));
        self.session.detach_binary(binary);
    }

    /// Looks at what was paid.
    pub fn book(&mut self, at: KtimeNs) -> Result<(), KernelError> {
        self.prices.booked_at = at;
        let hits = self.session.hits()?;
        self.prices.measure(&self.session, at);
        for (binary, hits) in hits {
            let Some(priced) = self.prices.programs.get(&binary) else { continue };
            let unit = self.prices.unit_ns(priced);
            if let Some(priced) = self.prices.programs.get_mut(&binary) {
                priced.book(hits, unit);
            }
        }
        self.look_at_cpu_by_program(at);
        Ok(())
    }

    /// All probes go: the target is worse off, or it is not known what they cost.
    pub fn alarm(&mut self, why: Why) {
        let at = ktime_now();
        let governed = self.prices.programs.iter_mut();
        let steps: Vec<(BinaryId, Step)> =
            governed.filter_map(|(binary, priced)| Some((*binary, priced.governor.as_mut()?.alarm(at, why)?))).collect();
        steps.into_iter().for_each(|(binary, step)| self.step(binary, step));
        let usdt: Vec<BinaryId> =
            self.prices.programs.iter().filter(|(_, priced)| priced.has_usdt()).map(|(binary, _)| *binary).collect();
        for binary in usdt {
            self.let_usdt_go(binary, why);
            self.warn("USDT probes are taken away, too, and for good".to_owned());
        }
    }

    fn step(&mut self, binary: BinaryId, step: Step) {
        self.part_with_sums(binary, step.tier);
        let Some(priced) = self.prices.programs.get_mut(&binary) else { return };
        let Some(attachment) = &priced.attachment else { return };
        let from = std::mem::replace(&mut priced.tier, step.tier);
        let (name, share) = (attachment.name.clone(), priced.share());
        let share_ppm = Some((share * 1e6) as u32);
        let told = |at| Message::Note(Note::Coverage { at, binary, tier: step.tier, why: Some(step.why), share_ppm });
        if step.tier <= from {
            // Said first: while they are taken away, one after the other, they do not tell everything.
            self.capture.send(told(ktime_now()));
        }
        if step.tier != from
            && let Err(error) = attachment.bring_to(step.tier, &mut self.session)
        {
            // Nothing has changed.
            priced.tier = from;
            if let Some(governor) = &mut priced.governor {
                governor.refused(ktime_now());
            }
            return self.warn(format!("{name}: {:?} cannot be had now: {error:#}", step.tier));
        }
        if step.tier > from {
            self.capture.send(told(ktime_now()));
            let at = ktime_now();
            self.prices.measure_soon(&self.session, at);
            self.look_soon_at_all(binary);
            if let Err(error) = self.book(at) {
                tracing::warn!("the price is not known: {error}");
            }
            if let Some(priced) = self.prices.programs.get_mut(&binary) {
                let reading = priced.reading(at);
                priced.governor.iter_mut().for_each(|governor| governor.set(reading));
            }
        }
        let told = format!("{name}: {:?} from here on ({}), paid {:.3} % so far", step.tier, step.why.name(), share * 100.0);
        match step.why {
            // These come and go all the time.
            Why::Trial | Why::Window | Why::WindowOver => tracing::debug!("{told}"),
            _ => tracing::info!("{told}"),
        }
    }

    /// How much CPU time the processes of each program used whose time has come.
    fn look_at_cpu_by_program(&mut self, at: KtimeNs) {
        let due = self.prices.programs.iter().filter(|(_, priced)| priced.is_due(at)).map(|(binary, _)| *binary);
        let due: FxHashSet<BinaryId> = due.collect();
        if due.is_empty() {
            return;
        }
        let of_due = self.go_processes().filter(|process| due.contains(&process.binary));
        let processes: Vec<(ProcessKey, BinaryId)> = of_due.map(|process| (process.key, process.binary)).collect();
        for (key, binary) in &processes {
            if let Some(priced) = self.prices.programs.get_mut(binary)
                && let Some(cpu_ns) = cpu_ns(*key)
            {
                // One that was joined is met now; what it is charged by is exact to a hundredth of a second only.
                let from_start = self.metered.get(key).is_some_and(Used::is_from_start);
                let met_ns = if from_start { 0 } else { cpu_ns };
                priced.use_cpu(*key, cpu_ns, met_ns);
            }
        }
        let there: FxHashSet<ProcessKey> = processes.into_iter().map(|(key, _)| key).collect();
        for (_, priced) in self.prices.programs.iter_mut().filter(|(binary, _)| due.contains(binary)) {
            priced.used.retain(|key, _| there.contains(key));
            (priced.read_at, priced.was_hit) = (at, false);
        }
    }
}

/// CPU time of all threads of a process, those that have ended too, to the nanosecond. What the clock of a process is called stands in
/// linux/posix-timers.h (`make_process_cpuclock`, CPUCLOCK_SCHED): clock_getcpuclockid(3) would ask the kernel whether it is right.
fn cpu_ns(process: ProcessKey) -> Option<u64> {
    let clock = ClockId::from_raw(!process.tgid.0.cast_signed() << 3 | 2);
    u64::try_from(clock.now().ok()?.num_nanoseconds()).ok()
}
