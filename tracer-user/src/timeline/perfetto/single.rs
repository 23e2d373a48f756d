//! Which goroutines get a track of their own where there are too many for that.

use std::cmp::Reverse;

use rustc_hash::FxHashSet;

use super::super::GoroutineLine;
use crate::{
    correlate::{SpanState, replay::Replayed},
    id::{Goid, Tgid},
};

/// Tracks of goroutines: a person scrolls through some hundreds of them at most, and the Perfetto UI draws some thousands well.
pub(super) const MOST: usize = 1500;

/// By the goroutines' place in the timeline.
pub(super) fn choose(replayed: &Replayed, lines: &[GoroutineLine], leaking: &FxHashSet<(Tgid, Goid)>) -> Vec<bool> {
    if lines.len() <= MOST {
        return vec![true; lines.len()];
    }
    let tgid = |line: &GoroutineLine| replayed.engine.processes().of_image(line.who.image).tgid;
    let lived = |line: &GoroutineLine| line.life.ended_at.since(line.who.since);
    let blocked = |line: &GoroutineLine| -> u64 {
        line.spans.iter().filter(|span| span.state == SpanState::Blocked).map(|span| span.end.since(span.start)).sum()
    };
    let leaks: Vec<usize> =
        (0..lines.len()).filter(|index| leaking.contains(&(tgid(&lines[*index]), lines[*index].who.goid))).collect();
    let mut chosen = vec![false; lines.len()];
    for (share, ranked) in [(MOST / 3, leaks), (MOST / 3, longest(lines, lived)), (MOST - MOST / 3 * 2, longest(lines, blocked))]
    {
        ranked.into_iter().take(share).for_each(|index| chosen[index] = true);
    }
    chosen
}

/// Places by a number, the largest first; of equals the first.
fn longest(lines: &[GoroutineLine], number: impl Fn(&GoroutineLine) -> u64) -> Vec<usize> {
    let mut ranked: Vec<(Reverse<u64>, usize)> =
        lines.iter().enumerate().map(|(index, line)| (Reverse(number(line)), index)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, index)| index).collect()
}
