//! Which goroutines are drawn one by one where there are too many for that.

use std::cmp::Reverse;

use rustc_hash::FxHashSet;

use super::GoroutineLine;
use crate::{
    correlate::{SpanState, replay::Replayed},
    id::{Goid, Tgid},
};

/// What decides whether a goroutine is drawn.
#[derive(Clone, Copy)]
struct Weight {
    leaks: bool,
    lived_ns: u64,
    blocked_ns: u64,
}

/// At most so many: those that leak, the longest-lived and the most blocked. By the goroutines' place in the timeline.
pub fn choose(replayed: &Replayed, lines: &[GoroutineLine], leaking: &FxHashSet<(Tgid, Goid)>, most: usize) -> Vec<bool> {
    let weight = |line: &GoroutineLine| {
        let tgid = replayed.engine.processes().of_image(line.who.image).tgid;
        let blocked = line.spans.iter().filter(|span| span.state == SpanState::Blocked);
        Weight {
            leaks: leaking.contains(&(tgid, line.who.goid)),
            lived_ns: line.life.ended_at.since(line.who.since),
            blocked_ns: blocked.map(|span| span.end.since(span.start)).sum(),
        }
    };
    let weights: Vec<Weight> = lines.iter().map(weight).collect();
    heaviest(&weights, most)
}

/// A third for each kind.
fn heaviest(weights: &[Weight], most: usize) -> Vec<bool> {
    if weights.len() <= most {
        return vec![true; weights.len()];
    }
    let leaks: Vec<usize> = (0..weights.len()).filter(|index| weights[*index].leaks).collect();
    let longest_lived = longest(weights, |weight| weight.lived_ns);
    let most_blocked = longest(weights, |weight| weight.blocked_ns);
    let mut chosen = vec![false; weights.len()];
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
fn longest(weights: &[Weight], number: impl Fn(&Weight) -> u64) -> Vec<usize> {
    let mut ranked: Vec<(Reverse<u64>, usize)> =
        weights.iter().enumerate().map(|(index, weight)| (Reverse(number(weight)), index)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether one leaks, how long it lived, and how long of that it was blocked.
    type Life = (bool, u64, u64);

    /// The longest-lived are 0, 5 and 6, the most blocked 7, 8, 9 and 1, and 2, 3 and 4 leak.
    const LIVES: [Life; 10] = [
        (false, 9, 0),
        (false, 1, 1),
        (true, 1, 0),
        (true, 2, 0),
        (true, 3, 0),
        (false, 8, 0),
        (false, 7, 0),
        (false, 6, 6),
        (false, 5, 5),
        (false, 4, 4),
    ];

    /// The places of those that are drawn.
    fn drawn(lives: &[Life], most: usize) -> Vec<usize> {
        let weight = |&(leaks, lived_ns, blocked_ns): &Life| Weight { leaks, lived_ns, blocked_ns };
        let weights: Vec<Weight> = lives.iter().map(weight).collect();
        let chosen = heaviest(&weights, most);
        assert_eq!(chosen.len(), lives.len());
        (0..lives.len()).filter(|index| chosen[*index]).collect()
    }

    /// Check that each kind has a third, those that were blocked longest also what cannot be divided by three.
    #[test]
    fn thirds() {
        assert_eq!(drawn(&LIVES, 6), [0, 2, 3, 5, 7, 8]);
        assert_eq!(drawn(&LIVES, 7), [0, 2, 3, 5, 7, 8, 9]);
        assert_eq!(drawn(&LIVES, 8), [0, 1, 2, 3, 5, 7, 8, 9]);
        assert_eq!(drawn(&LIVES, 2), [7, 8]);
    }

    /// Check that what a kind leaves goes to those that lived longest: where few leak, and where one goroutine is of more than one kind.
    #[test]
    fn rest_goes_to_the_longest_lived() {
        let mut one_leaks = LIVES;
        (one_leaks[2].0, one_leaks[3].0) = (false, false);
        assert_eq!(drawn(&one_leaks, 6), [0, 4, 5, 6, 7, 8]);
        let none_leaks = LIVES.map(|(_, lived, blocked)| (false, lived, blocked));
        assert_eq!(drawn(&none_leaks, 6), [0, 5, 6, 7, 8, 9]);
        // The first is of all three kinds; 4 was blocked longer than 1 to 3.
        let overlapping = [(true, 9, 9), (false, 8, 0), (false, 7, 0), (false, 6, 0), (false, 5, 5)];
        assert_eq!(drawn(&overlapping, 3), [0, 1, 2]);
    }

    /// Check that always as many are drawn as may be, all where there are no more, and of equals the first.
    #[test]
    fn as_many_as_may_be() {
        for most in 0..=LIVES.len() + 1 {
            assert_eq!(drawn(&LIVES, most).len(), most.min(LIVES.len()), "{most}");
        }
        assert_eq!(drawn(&[(false, 5, 2); 5], 3), [0, 1, 2]);
    }
}
