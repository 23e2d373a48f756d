//! Which goroutines are drawn one by one where there are too many for that.

use std::cmp::Reverse;

use rustc_hash::FxHashSet;

use super::GoroutineLine;
use crate::{
    correlate::{SpanState, replay::Replayed},
    id::{Goid, Tgid},
};

/// At most so many: those that leak, the longest-lived and the most blocked. By the goroutines' place in the timeline.
pub fn choose(replayed: &Replayed, lines: &[GoroutineLine], leaking: &FxHashSet<(Tgid, Goid)>, most: usize) -> Vec<bool> {
    if lines.len() <= most {
        return vec![true; lines.len()];
    }
    let tgid = |line: &GoroutineLine| replayed.engine.processes().of_image(line.who.image).tgid;
    let lived = |line: &GoroutineLine| line.life.ended_at.since(line.who.since);
    let blocked = |line: &GoroutineLine| -> u64 {
        line.spans.iter().filter(|span| span.state == SpanState::Blocked).map(|span| span.end.since(span.start)).sum()
    };
    let leaks: Vec<usize> =
        (0..lines.len()).filter(|index| leaking.contains(&(tgid(&lines[*index]), lines[*index].who.goid))).collect();
    let (longest_lived, most_blocked) = (longest(lines, lived), longest(lines, blocked));
    let mut chosen = vec![false; lines.len()];
    let mut left = most;
    // Some are of more than one kind, and what that leaves goes to those that lived longest.
    for (share, ranked) in
        [(most / 3, leaks), (most / 3, longest_lived.clone()), (most - most / 3 * 2, most_blocked), (most, longest_lived)]
    {
        for index in ranked.into_iter().take(share) {
            if left > 0 && !std::mem::replace(&mut chosen[index], true) {
                left -= 1;
            }
        }
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
