//! Whether the target itself is worse off with the probes than without: by what it answers to a question asked again and again.

use std::collections::VecDeque;

/// Answers without probes that are remembered, and so many are needed before anything is said.
const CALM: usize = 100;
const LEAST_CALM: usize = 10;
/// Of the last so many answers with probes, so many must be bad; a question that was given up counts twice.
const RECENT: usize = 4;
const BAD: u32 = 3;
/// So many times later than nearly all answers without probes, and by so much, is bad.
const LATER: f64 = 2.0;
const LATER_BY_NS: f64 = 1e6;
/// Less than this share of the throughput without probes is bad.
const LESS: f64 = 0.5;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// It was answered after so long, ns.
    After(u64),
    /// It was answered with a number: the more the better.
    Number(f64),
    /// It was refused, or answered with an error.
    Failed,
    /// No answer came in time.
    GivenUp,
}

/// What is remembered of a target's answers.
#[derive(Debug, Default)]
pub struct Vitals {
    calm: VecDeque<Answer>,
    /// How bad each answer was, with probes set.
    recent: VecDeque<u32>,
}

impl Vitals {
    /// Whether it is known how the target answers without probes.
    pub fn is_known(&self) -> bool {
        self.calm.len() >= LEAST_CALM
    }

    /// Takes an answer to a question that was asked with probes set, or without; whether the probes must go.
    pub fn hear(&mut self, answer: Answer, probed: bool) -> bool {
        if !probed {
            self.recent.clear();
            self.calm.push_back(answer);
            if self.calm.len() > CALM {
                self.calm.pop_front();
            }
            return false;
        }
        if !self.is_known() {
            return false;
        }
        self.recent.push_back(self.badness(answer));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.recent.iter().sum::<u32>() >= BAD
    }

    /// How long to wait for an answer, ns; `None`: it is not known yet how long they take.
    pub fn patience_ns(&self) -> Option<f64> {
        self.is_known().then(|| 2.0 * self.late_ns().unwrap_or(0.0))
    }

    fn badness(&self, answer: Answer) -> u32 {
        match answer {
            Answer::After(ns) => u32::from(self.late_ns().is_some_and(|late| ns as f64 > late)),
            Answer::Number(number) => u32::from(self.usual_number().is_some_and(|usual| number < LESS * usual)),
            Answer::Failed if self.fails_anyhow() => 0,
            Answer::GivenUp if self.fails_anyhow() => 0,
            Answer::Failed => 1,
            Answer::GivenUp => 2,
        }
    }

    /// An answer after so long is bad.
    fn late_ns(&self) -> Option<f64> {
        let after = |answer: &Answer| match answer {
            Answer::After(ns) => Some(*ns as f64),
            _ => None,
        };
        share_of(self.calm.iter().filter_map(after), 0.95).map(|ns| (LATER * ns).max(ns + LATER_BY_NS))
    }

    fn usual_number(&self) -> Option<f64> {
        let number = |answer: &Answer| match answer {
            Answer::Number(number) => Some(*number),
            _ => None,
        };
        share_of(self.calm.iter().filter_map(number), 0.5)
    }

    /// Without probes, too, a tenth of the questions has no answer.
    pub fn fails_anyhow(&self) -> bool {
        let failed = self.calm.iter().filter(|answer| matches!(answer, Answer::Failed | Answer::GivenUp)).count();
        failed * 10 > self.calm.len()
    }
}

/// The value that such a share of them does not exceed.
/// The value below which that share of them lies, the greatest of all left out: a single one says nothing.
fn share_of(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(2))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn calm(answer: impl Fn(u64) -> Answer) -> Vitals {
        let mut vitals = Vitals::default();
        (0..50).for_each(|n| assert!(!vitals.hear(answer(n), false)));
        vitals
    }

    /// How many answers it takes until the probes must go, of ten.
    fn alarm_after(vitals: &mut Vitals, answer: Answer) -> Option<usize> {
        (1..=10).find(|_| vitals.hear(answer, true))
    }

    /// Check what counts as worse: later, lower, failing; and what does not.
    #[test]
    fn worse() {
        let mut quick = calm(|n| Answer::After((2 + n % 3) * MS));
        assert_eq!(alarm_after(&mut quick, Answer::After(7 * MS)), None);
        assert_eq!(alarm_after(&mut quick, Answer::After(9 * MS)), Some(3));
        quick.hear(Answer::After(2 * MS), false);
        assert_eq!(alarm_after(&mut quick, Answer::GivenUp), Some(2));
        quick.hear(Answer::After(2 * MS), false);
        assert_eq!(alarm_after(&mut quick, Answer::Failed), Some(3));
        let mut tiny = calm(|_| Answer::After(100_000));
        assert_eq!(alarm_after(&mut tiny, Answer::After(1_000_000)), None, "less than a millisecond is nothing");
        let mut busy = calm(|n| Answer::Number(1000.0 + n as f64));
        assert_eq!(alarm_after(&mut busy, Answer::Number(600.0)), None);
        assert_eq!(alarm_after(&mut busy, Answer::Number(400.0)), Some(3));
        let mut broken = calm(|n| if n % 5 == 0 { Answer::Failed } else { Answer::After(MS) });
        assert_eq!(alarm_after(&mut broken, Answer::Failed), None);
    }

    /// Check that one late answer without probes does not make all that come later seem usual.
    #[test]
    fn one_late_answer() {
        let mut vitals = Vitals::default();
        (0..10).for_each(|n| assert!(!vitals.hear(Answer::After(if n == 3 { 400 * MS } else { 80 * MS }), false)));
        assert_eq!(alarm_after(&mut vitals, Answer::After(600 * MS)), Some(3));
    }

    /// Check that a single bad answer now and then is none, and that nothing is said before it is known what is usual.
    #[test]
    fn patient() {
        let mut vitals = calm(|_| Answer::After(2 * MS));
        let answers = (0..40).map(|n| if n % 3 == 0 { Answer::After(90 * MS) } else { Answer::After(2 * MS) });
        assert!(!answers.into_iter().any(|answer| vitals.hear(answer, true)));
        let mut fresh = Vitals::default();
        (0..5).for_each(|_| assert!(!fresh.hear(Answer::After(MS), false)));
        assert_eq!(alarm_after(&mut fresh, Answer::GivenUp), None);
    }
}
