//! What a gate makes of verdicts: what is known, what is ignored for a while, and what fails.

use super::{
    baseline::Baseline,
    ignore::{Entry, IgnoreList, today},
    verdict::{Leak, Strength},
};

/// What has been decided before.
#[derive(Debug, Default)]
pub struct Gate {
    pub baseline: Option<Baseline>,
    pub ignore: IgnoreList,
    /// From which strength on leaks fail; `None`: none does.
    pub fail_from: Option<Strength>,
    /// As [`today`] has it.
    today: String,
}

/// What became of a leak.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The baseline has it.
    pub known: bool,
    pub ignored: Option<&'a Entry>,
    pub fails: bool,
}

impl Gate {
    pub fn new(baseline: Option<Baseline>, ignore: IgnoreList, fail_from: Option<Strength>) -> Self {
        Self { baseline, ignore, fail_from, today: today() }
    }

    pub fn standing(&self, leak: &Leak) -> Standing<'_> {
        let known = self.baseline.as_ref().is_some_and(|baseline| baseline.knows(&leak.fingerprint));
        let ignored = self.ignore.about(leak, &self.today);
        Standing { known, ignored, fails: self.is_sure(leak) && !known && ignored.is_none() }
    }

    /// Whether it is as sure as what fails.
    pub fn is_sure(&self, leak: &Leak) -> bool {
        self.fail_from.is_some_and(|from| leak.strength >= from)
    }

    /// Decisions that count no more.
    pub fn expired(&self) -> impl Iterator<Item = &Entry> {
        self.ignore.expired(&self.today)
    }
}
