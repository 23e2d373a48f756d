//! Findings: a goroutine that a timer wakes regularly was woken late, or could not run at once, and a pause of its process or the wait for a CPU
//! covers most of that time.
//!
//! Nothing tells when a timer is due. But a goroutine that does its work at each tick wakes at even times, and so its own wakes say when the
//! next one was due: on a grid, as `time.Ticker` keeps it (a late tick does not move those behind it; `src/time/tick.go`), or a fixed time after
//! it began to wait, as in a loop around `time.Sleep`. Whichever of the two explains more of the wakes is taken, and none if neither
//! explains half of them. What else made it late (a lock, a slow disk, a stopped process) is covered by nothing here, and no finding.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{Evidence, Finding, is_systems, pause::PauseTally};
use crate::{
    clock::KtimeNs,
    correlate::{
        Span, SpanState, WokenBy,
        gc::{Cycle, Pause},
        goroutine::Who,
        process::ImageId,
        replay::Replayed,
    },
    id::{Address, Goid},
    symbolize::Symbolizer,
    timeline::human::{duration, plain},
};

/// Fewer wakes say nothing of a period.
const MIN_TICKS: usize = 8;
/// Wakes of one goroutine that are kept at once; then they are judged, and the newest of them go on.
const MAX_TICKS: usize = 4096;
const KEPT_TICKS: usize = 64;
/// Goroutines that are watched for it.
const MAX_GOROUTINES: usize = 20_000;
/// Late wakes of one image.
const MAX_LATE: usize = 10_000;
/// Cycles of the collector that are remembered of one image.
const MAX_CYCLES: usize = 100_000;
/// Half of the wakes come within this part of the period.
const ON_TIME_PART: u64 = 10;
/// What is late by less is told by nobody: this time, and this part of the period.
const MIN_LATE_NS: u64 = 10_000_000;
const LATE_PART: u64 = 5;
/// What covers so many hundredths of the lateness is its cause.
const COVERED: u64 = 80;

/// Collects wakes by timers.
#[derive(Default)]
pub(super) struct TimerTally {
    goroutines: FxHashMap<(ImageId, Goid), Ticks>,
    late: FxHashMap<ImageId, Vec<Late>>,
    cycles: FxHashMap<ImageId, Vec<Cycle>>,
}

/// The wakes of one goroutine.
#[derive(Default)]
struct Ticks {
    startpc: Option<Address>,
    ticks: Vec<Tick>,
    /// So many of them were judged before.
    judged: usize,
}

/// It waited from a time on, was woken by a timer, and ran: at once, as far as is known, where that is not told.
#[derive(Clone, Copy, Debug)]
struct Tick {
    start: KtimeNs,
    woke: KtimeNs,
    ran: KtimeNs,
}

/// A wake that was late.
#[derive(Clone, Copy, Debug)]
struct Late {
    goid: Goid,
    startpc: Option<Address>,
    tick: Tick,
    due: KtimeNs,
    period_ns: u64,
}

impl TimerTally {
    pub fn span(&mut self, who: &Who, span: &Span) {
        let key = (who.image, who.goid);
        match (span.state, span.woken_by) {
            (SpanState::Blocked, Some(WokenBy::Timer)) => {
                if self.goroutines.len() >= MAX_GOROUTINES && !self.goroutines.contains_key(&key) {
                    return;
                }
                let ticks = self.goroutines.entry(key).or_default();
                ticks.startpc = who.origin.map(|origin| origin.startpc);
                ticks.ticks.push(Tick { start: span.start, woke: span.end, ran: span.end });
                if ticks.ticks.len() >= MAX_TICKS {
                    let late = ticks.judge(who.goid);
                    self.keep(who.image, late);
                }
            }
            (SpanState::Runnable, _) => {
                let ticks = self.goroutines.get_mut(&key).and_then(|ticks| ticks.ticks.last_mut());
                if let Some(tick) = ticks.filter(|tick| tick.woke == span.start) {
                    tick.ran = span.end;
                }
            }
            _ => {}
        }
    }

    pub fn life(&mut self, who: &Who) {
        if let Some(mut ticks) = self.goroutines.remove(&(who.image, who.goid)) {
            let late = ticks.judge(who.goid);
            self.keep(who.image, late);
        }
    }

    pub fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        let cycles = self.cycles.entry(image).or_default();
        if cycles.len() < MAX_CYCLES {
            cycles.push(*cycle);
        }
    }

    fn keep(&mut self, image: ImageId, late: Vec<Late>) {
        let all = self.late.entry(image).or_default();
        all.extend(late.into_iter().take(MAX_LATE.saturating_sub(all.len())));
    }
}

impl Ticks {
    /// The late ones among those that are new; the newest stay to say when the next are due.
    fn judge(&mut self, goid: Goid) -> Vec<Late> {
        let judged = self.judged;
        let late = late(&self.ticks).into_iter().filter(|(index, _, _)| *index >= judged);
        let startpc = self.startpc;
        let late = late.map(|(index, due, period_ns)| Late { goid, startpc, tick: self.ticks[index], due, period_ns }).collect();
        self.ticks.drain(..self.ticks.len().saturating_sub(KEPT_TICKS));
        self.judged = self.ticks.len();
        late
    }
}

/// Which ticks were late, when they were due, and the period.
fn late(ticks: &[Tick]) -> Vec<(usize, KtimeNs, u64)> {
    if ticks.len() < MIN_TICKS {
        return Vec::new();
    }
    let grid = on_grid(ticks);
    let slept = after_sleep(ticks);
    // Where both explain it, a grid is what most programs mean.
    let best = if slept.on_time > grid.on_time { slept } else { grid };
    if best.on_time * 2 < ticks.len() {
        return Vec::new();
    }
    let threshold = MIN_LATE_NS.max(best.period_ns / LATE_PART);
    let late = best.due.iter().filter(|(index, due)| ticks[*index].ran.since(*due) >= threshold);
    late.map(|(index, due)| (*index, *due, best.period_ns)).collect()
}

/// What one idea of when ticks are due makes of them.
struct Explained {
    period_ns: u64,
    /// When each was due, where the idea says it.
    due: Vec<(usize, KtimeNs)>,
    on_time: usize,
}

/// Ticks are due on a grid, which is corrected by those that come on time.
fn on_grid(ticks: &[Tick]) -> Explained {
    let period_ns = median(ticks.windows(2).map(|pair| pair[1].woke.since(pair[0].woke))).max(1);
    let tolerance = period_ns / ON_TIME_PART;
    let mut explained = Explained { period_ns, due: Vec::new(), on_time: 0 };
    // Two in a row that are a period apart are both on time.
    let apart = |pair: &[Tick]| pair[1].woke.since(pair[0].woke).abs_diff(period_ns) <= tolerance / 2;
    let Some(first) = ticks.windows(2).position(apart) else { return explained };
    let mut anchor = ticks[first].woke;
    for (index, tick) in ticks.iter().enumerate().skip(first + 1) {
        // One that fell due before it began to wait would have been there at once.
        let waited_from = tick.start.since(anchor).saturating_sub(tolerance);
        let due = KtimeNs(anchor.0.saturating_add((waited_from / period_ns + 1).saturating_mul(period_ns)));
        if tick.woke.0.saturating_add(tolerance) < due.0 {
            anchor = tick.woke;
            continue;
        }
        let late_ns = tick.woke.since(due);
        if late_ns <= tolerance {
            explained.on_time += 1;
            // The period is measured, and off by a little: what comes on time leads.
            anchor = if tick.woke < due { tick.woke } else { KtimeNs(due.0 + late_ns / 8) };
        } else {
            anchor = due;
        }
        explained.due.push((index, due));
    }
    explained
}

/// Ticks are due a fixed time after the wait for them began.
fn after_sleep(ticks: &[Tick]) -> Explained {
    let period_ns = median(ticks.iter().map(|tick| tick.woke.since(tick.start))).max(1);
    let tolerance = period_ns / ON_TIME_PART;
    let due: Vec<(usize, KtimeNs)> =
        ticks.iter().enumerate().map(|(index, tick)| (index, KtimeNs(tick.start.0.saturating_add(period_ns)))).collect();
    let on_time = due.iter().filter(|(index, due)| ticks[*index].woke.0.abs_diff(due.0) <= tolerance).count();
    Explained { period_ns, due, on_time }
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// A late timer, and what covers the time that it was late.
#[derive(Serialize)]
pub struct LateTimer {
    /// The time from one wake to the next, as most of them have it.
    pub period_ns: u64,
    pub due_ns: u64,
    pub woken_ns: u64,
    /// When it ran; `null`: not told at this tier.
    pub ran_ns: Option<u64>,
    pub late_ns: u64,
    /// How much of `late_ns` the cause covers.
    pub covered_ns: u64,
    /// The pause that covers most of it.
    pub pause: Option<PauseOut>,
    /// The collector's cycle that the pause belongs to.
    pub cycle: Option<CycleOut>,
    /// How long it could run and did not.
    pub runnable_ns: Option<u64>,
}

#[derive(Serialize)]
pub struct PauseOut {
    pub start_ns: u64,
    pub end_ns: u64,
    pub reason: String,
}

#[derive(Serialize)]
pub struct CycleOut {
    pub start_ns: u64,
    pub end_ns: u64,
}

/// Those that something covers.
pub(super) fn findings(replayed: &Replayed, symbols: &Symbolizer<'_>, tally: &TimerTally, pauses: &PauseTally) -> Vec<Finding> {
    let mut found = Vec::new();
    for (image, late) in &tally.late {
        let cycles = tally.cycles.get(image).map_or(&[][..], Vec::as_slice);
        let own = late.iter().filter(|late| !is_systems(symbols, *image, late.startpc));
        found.extend(own.filter_map(|late| finding(replayed, *image, late, pauses.pauses(*image), cycles)));
    }
    found
}

fn finding(replayed: &Replayed, image: ImageId, late: &Late, pauses: &[Pause], cycles: &[Cycle]) -> Option<Finding> {
    let Late { tick, due, .. } = *late;
    let late_ns = tick.ran.since(due);
    let first = pauses.partition_point(|pause| pause.end <= due);
    let touching = || pauses.get(first..).unwrap_or_default().iter().take_while(|pause| pause.start < tick.ran);
    let within = |pause: &Pause| pause.end.min(tick.ran).since(pause.start.max(due));
    let paused_ns: u64 = touching().map(within).sum();
    // What of the wait for a CPU lies behind the pauses.
    let runnable_ns = tick.ran.since(tick.woke);
    let behind_ns =
        runnable_ns.saturating_sub(touching().map(|pause| pause.end.min(tick.ran).since(pause.start.max(tick.woke))).sum());
    let enough = |ns: u64| ns.saturating_mul(100) >= late_ns.saturating_mul(COVERED);
    let (covered_ns, by_pause, by_runnable) = match (paused_ns, runnable_ns) {
        (paused_ns, _) if enough(paused_ns) => (paused_ns, true, false),
        (_, runnable_ns) if enough(runnable_ns) => (runnable_ns, false, true),
        (paused_ns, _) if enough(paused_ns + behind_ns) => (paused_ns + behind_ns, true, true),
        _ => return None,
    };
    let pause = touching().max_by_key(|pause| within(pause)).filter(|_| by_pause);
    let cycle = pause.and_then(|pause| cycles.iter().find(|cycle| cycle.start <= pause.end && pause.start <= cycle.end));
    let since = |at: KtimeNs| replayed.since_zero(at);
    let reason = |pause: &Pause| plain(replayed.engine.reason(pause.reason));
    let mut causes = Vec::new();
    if let Some(pause) = pause {
        let of = if cycle.is_some() { " of the collector's cycle" } else { "" };
        causes.push(format!("a pause of {} for {}{of}", duration(pause.end.since(pause.start)), reason(pause)));
    }
    if by_runnable {
        causes.push(format!("a wait of {} for a CPU", duration(runnable_ns)));
    }
    let told = replayed.tier(image) >= Some(crate::recording::contract::Tier::T3);
    Some(Finding {
        kind: "late_timer",
        id: format!("go:{}", late.goid),
        tgid: replayed.engine.processes().of_image(image).tgid.0,
        start_ns: since(due),
        end_ns: since(tick.ran),
        cause: format!("{} covers {} of {}", causes.join(" and "), duration(covered_ns), duration(late_ns)),
        evidence: Evidence::Timer(LateTimer {
            period_ns: late.period_ns,
            due_ns: since(due),
            woken_ns: since(tick.woke),
            ran_ns: told.then(|| since(tick.ran)),
            late_ns,
            covered_ns,
            pause: pause.map(|pause| PauseOut { start_ns: since(pause.start), end_ns: since(pause.end), reason: reason(pause) }),
            cycle: cycle.map(|cycle| CycleOut { start_ns: since(cycle.start), end_ns: since(cycle.end) }),
            runnable_ns: told.then_some(runnable_ns),
        }),
        weight: late_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Ticks at these milliseconds, each waited for since the one before, or since it was done with that.
    fn ticks(at_ms: &[u64], work_ms: u64) -> Vec<Tick> {
        let mut before = 0;
        let tick = |at: &u64| {
            let tick = Tick { start: KtimeNs(before), woke: KtimeNs(at * MS), ran: KtimeNs(at * MS) };
            before = (at + work_ms) * MS;
            tick
        };
        at_ms.iter().map(tick).collect()
    }

    fn late_ms(ticks: &[Tick]) -> Vec<(usize, u64)> {
        late(ticks).into_iter().map(|(index, due, _)| (index, due.0 / MS)).collect()
    }

    /// Check that a tick that comes late is found with the time it was due, that those behind it are not, and neither is a steady one.
    #[test]
    fn tickers() {
        let steady = [50, 100, 150, 200, 250, 300, 350, 400, 450, 500];
        assert_eq!(late_ms(&ticks(&steady, 1)), []);
        let one = [50, 100, 150, 200, 250, 340, 350, 400, 450, 500, 550];
        assert_eq!(late_ms(&ticks(&one, 1)), [(5, 300)]);
        // Two ticks fell due within one delay: only one is kept for the program.
        let two = [50, 100, 150, 200, 250, 420, 450, 500, 550, 600, 650];
        assert_eq!(late_ms(&ticks(&two, 1)), [(5, 300)]);
        // While it works, a tick falls due: it is there when it waits again, and no wake tells of it.
        let busy = [50, 100, 150, 200, 300, 350, 400, 450, 500, 550];
        let mut missed = ticks(&busy, 1);
        missed[4].start = KtimeNs(265 * MS);
        assert_eq!(late_ms(&missed), []);
    }

    /// Check that a loop around a sleep is late where the sleep was long, not where the work was.
    #[test]
    fn sleeps() {
        let mut at = 0;
        let mut loops = Vec::new();
        for (work_ms, slept_ms) in [(5, 100), (40, 100), (5, 101), (60, 100), (90, 100), (5, 160), (20, 100), (70, 100), (1, 100)]
        {
            let start = at + work_ms;
            at = start + slept_ms;
            loops.push(Tick { start: KtimeNs(start * MS), woke: KtimeNs(at * MS), ran: KtimeNs(at * MS) });
        }
        let found = late(&loops);
        assert_eq!(found.iter().map(|(index, _, _)| *index).collect::<Vec<_>>(), [5]);
        assert_eq!(loops[5].woke.since(found[0].1), 60 * MS);
    }

    /// Check that what has no period has no late ticks.
    #[test]
    fn irregular() {
        assert_eq!(late_ms(&ticks(&[3, 50, 300, 310, 900, 1000, 1700, 1800, 4000], 1)), []);
        assert_eq!(late_ms(&ticks(&[50, 100, 190], 1)), []);
        assert_eq!(late_ms(&[]), []);
        let same = vec![Tick { start: KtimeNs(7), woke: KtimeNs(7), ran: KtimeNs(7) }; 20];
        assert_eq!(late_ms(&same), []);
        let extreme = vec![Tick { start: KtimeNs(0), woke: KtimeNs(u64::MAX), ran: KtimeNs(u64::MAX) }; 20];
        let _ = late(&extreme);
    }
}
