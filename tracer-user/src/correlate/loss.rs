//! What a recording lacks: how many events, of which kinds, and when.

use std::{collections::BTreeMap, time::Duration};

use tracer_common::header::Kind;

use crate::{
    clock::KtimeNs,
    recording::{Completeness, contract::Counters},
};

use super::replay::Replayed;

/// More intervals than this are merged, nearest first: a reader needs to know where not to trust, not each hole.
const MAX_INTERVALS: usize = 1000;

/// Events that were recorded by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    pub events: u64,
    /// By name of the record kind. `unknown`: missing by their numbers, and in no counter.
    pub by_kind: BTreeMap<String, u64>,
    /// Of `events`, those whose time is not known: the gaps between what arrived do not hold them.
    pub undated: u64,
}

/// A time in which events are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostInterval {
    pub from: KtimeNs,
    pub to: KtimeNs,
    /// On which CPUs they were made: what happened on others meanwhile is all there. By number.
    pub cpus: Vec<u16>,
}

impl LostInterval {
    /// Stretches it to the end of a later one, whose losses are its own from here on.
    fn absorb(&mut self, other: &Self) {
        self.to = self.to.max(other.to);
        for cpu in &other.cpus {
            if let Err(place) = self.cpus.binary_search(cpu) {
                self.cpus.insert(place, *cpu);
            }
        }
    }
}

impl Losses {
    /// What the BPF side counted, what numbers are `missing`, and what does not decode.
    pub(super) fn of(counters: Option<&Counters>, missing: u64, undecodable: u64) -> Self {
        let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
        for lost in counters.into_iter().flat_map(|counters| &counters.lost).filter(|lost| lost.count > 0) {
            let name = Kind::from_u8(lost.kind).map_or_else(|| format!("kind_{}", lost.kind), |kind| kind.name().into());
            let sum: &mut u64 = by_kind.entry(name).or_default();
            *sum = sum.saturating_add(lost.count);
        }
        let counted = by_kind.values().fold(0u64, |sum, count| sum.saturating_add(*count));
        if missing > counted {
            by_kind.insert("unknown".into(), missing - counted);
        }
        if undecodable > 0 {
            by_kind.insert("undecodable".into(), undecodable);
        }
        Self { events: counted.max(missing).saturating_add(undecodable), by_kind, undated: counted.saturating_sub(missing) }
    }
}

impl Replayed {
    /// Counts losses: what the BPF side counted, checked against the gaps in the sequence numbers, and what does not decode.
    pub fn losses(&self) -> Losses {
        Losses::of(self.counters.as_ref(), self.order.missing(), self.undecodable)
    }

    /// By tracepoint: how many events the kernel did not tell our programs of, whichever process they were about.
    pub fn left_out(&self) -> BTreeMap<String, u64> {
        let counted = self.counters.iter().flat_map(|counters| &counters.left_out);
        counted.map(|left_out| (left_out.hook.clone(), left_out.runs)).collect()
    }

    /// No record made later than this is lost. Where some were lost nobody knows when, that is the end.
    pub fn lost_until(&self) -> KtimeNs {
        if self.losses().undated > 0 {
            return KtimeNs::MAX;
        }
        self.order.lost_until
    }

    /// When events are missing, and where: by start, apart from each other.
    pub fn lost_intervals(&self) -> Vec<LostInterval> {
        let mut merged: Vec<LostInterval> = Vec::new();
        for gap in &self.order.gaps {
            let interval = LostInterval { from: gap.from, to: gap.to, cpus: vec![gap.cpu] };
            match merged.last_mut() {
                Some(last) if gap.from <= last.to => last.absorb(&interval),
                _ => merged.push(interval),
            }
        }
        coarsen(merged)
    }

    /// One line for people: what is lost, what was followed, whether the recording is whole. Every output carries it.
    pub fn trust(&self) -> String {
        let losses = self.losses();
        let lost = match losses.events {
            0 => "no event lost".to_owned(),
            events => {
                let noun = if events == 1 { "event" } else { "events" };
                let kinds: Vec<String> = losses.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
                format!("{events} {noun} lost ({})", kinds.join(", "))
            }
        };
        let left_out: Vec<String> = self.left_out().iter().map(|(hook, runs)| format!("{hook} {runs}")).collect();
        let left_out = match left_out.is_empty() {
            true => String::new(),
            false => format!("; at most so many more, of any process, that the kernel did not tell of: {}", left_out.join(", ")),
        };
        let whole = match self.completeness {
            Completeness::Complete => String::new(),
            Completeness::NotEnded => "; the recording was not ended in order".to_owned(),
            Completeness::Truncated { at } => format!("; the recording is cut at byte {at}"),
        };
        let summed = self.meta.min_block_ns.map_or(String::new(), |ns| {
            format!(
                "; waits and lives under {} are summed, not told one by one",
                humantime::format_duration(Duration::from_nanos(ns))
            )
        });
        format!("{lost}{left_out}; coverage {}{summed}{whole}", self.coverage_summary())
    }

    /// The tiers at which images were followed, in short.
    fn coverage_summary(&self) -> String {
        let processes = self.engine.processes();
        let mut tiers: BTreeMap<String, usize> = BTreeMap::new();
        let mut partial = 0;
        for (id, image) in processes.images() {
            let coverage = self.coverage(id);
            let Some(first) = coverage.first() else { continue };
            *tiers.entry(format!("{:?}", coverage.iter().map(|span| span.tier).max().unwrap_or(first.tier))).or_default() += 1;
            partial += usize::from(coverage.len() > 1 || (image.first_hit.is_some_and(|hit| hit < first.from)));
        }
        let usdt = match self.usdt.len() {
            0 => None,
            1 => Some("USDT probes in 1 file".to_owned()),
            files => Some(format!("USDT probes in {files} files")),
        };
        if tiers.is_empty() {
            return usdt.unwrap_or_else(|| "none: no Go process was followed".to_owned());
        }
        let total: usize = tiers.values().sum();
        let names: Vec<String> = match total {
            1 => tiers.into_keys().collect(),
            _ => tiers.iter().map(|(tier, count)| format!("{tier} ({count} programs)")).collect(),
        };
        let partial = if partial > 0 { format!(", {partial} of them in part") } else { String::new() };
        let usdt = usdt.map_or(String::new(), |usdt| format!("; {usdt}"));
        format!("{}{partial}{usdt}", names.join(", "))
    }
}

/// Joins the intervals that lie nearest to each other until there are few enough.
fn coarsen(intervals: Vec<LostInterval>) -> Vec<LostInterval> {
    if intervals.len() <= MAX_INTERVALS {
        return intervals;
    }
    let mut spaces: Vec<u64> = intervals.windows(2).map(|pair| pair[1].from.since(pair[0].to)).collect();
    spaces.sort_unstable();
    let joined = spaces[intervals.len() - MAX_INTERVALS - 1];
    let mut coarse: Vec<LostInterval> = Vec::with_capacity(MAX_INTERVALS);
    for interval in intervals {
        match coarse.last_mut() {
            Some(last) if interval.from.since(last.to) <= joined => last.absorb(&interval),
            _ => coarse.push(interval),
        }
    }
    coarse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that many intervals become few, that the widest spaces between them stay, and that no CPU is forgotten.
    #[test]
    fn coarse_intervals() {
        let interval = |n: u64| {
            let from = n * 10 + n / 2500 * 100_000;
            LostInterval { from: KtimeNs(from), to: KtimeNs(from + 1), cpus: vec![(n % 3) as u16] }
        };
        let many: Vec<_> = (0..5000).map(interval).collect();
        let few = coarsen(many.clone());
        assert!(few.len() <= MAX_INTERVALS);
        assert_eq!((few[0].from, few.last().unwrap().to), (many[0].from, many[4999].to));
        assert!(few.windows(2).any(|pair| pair[1].from.since(pair[0].to) > 100_000));
        assert!(few.iter().any(|interval| interval.cpus == [0, 1, 2]));
    }
}
