//! Labels on the timeline: which goroutines had them, and in which groups they stand.

use super::{GoroutineLine, Timeline};
use crate::{clock::KtimeNs, correlate::LabelsId};

impl GoroutineLine {
    /// The newest labels that were seen on it up to a time.
    pub fn labels_at(&self, at: KtimeNs) -> Option<LabelsId> {
        self.labels.iter().take_while(|(since, _)| *since <= at).last().map(|(_, labels)| *labels)
    }
}

impl Timeline<'_> {
    /// Keeps the goroutines that were seen with each of these labels. Where any is asked for, processes and their runtimes are left out.
    pub fn keep_labelled(&mut self, wanted: &[(String, String)]) {
        if wanted.is_empty() {
            return;
        }
        let sets = self.replayed.engine.labels();
        let has = |line: &GoroutineLine, (key, value): &(String, String)| {
            line.labels.iter().any(|(_, labels)| sets.value(*labels, key) == Some(value))
        };
        self.goroutines.retain(|line| wanted.iter().all(|label| has(line, label)));
        self.processes.clear();
        self.tracks.clear();
        self.units.clear();
    }

    /// Puts goroutines with one value of a label together, by value; those that were not seen with it come last.
    pub fn group_by(&mut self, key: &str) {
        let sets = self.replayed.engine.labels();
        self.group_by = Some(key.to_owned());
        self.goroutines.sort_by_cached_key(|line| {
            let value = group_of(line, |labels| sets.value(labels, key));
            (value.is_none(), value.map(str::to_owned))
        });
    }

    /// The value by which a goroutine is grouped, if there are groups.
    pub fn group(&self, line: &GoroutineLine) -> Option<(&str, Option<&str>)> {
        let key = self.group_by.as_deref()?;
        Some((key, group_of(line, |labels| self.replayed.engine.labels().value(labels, key))))
    }
}

/// The newest value that it had.
fn group_of<'s>(line: &GoroutineLine, value: impl Fn(LabelsId) -> Option<&'s str>) -> Option<&'s str> {
    line.labels.iter().rev().find_map(|(_, labels)| value(*labels))
}
