//! Goroutines grouped by the value of a label.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    correlate::{LabelsId, Span, SpanState, goroutine::Who, process::ImageId, replay::Replayed},
    id::Goid,
};

/// Groups shown in a report; the smaller ones are added up.
const MAX_GROUPS: usize = 1000;

/// Counts goroutines by their newest set of labels, while a recording is replayed. Does nothing unless it is asked to.
#[derive(Default)]
pub struct LabelTally {
    /// The label that they are grouped by.
    key: Option<String>,
    /// Of those that live: their labels, and how long they have been blocked since these were first seen.
    live: FxHashMap<(ImageId, Goid), (LabelsId, u64)>,
    closed: FxHashMap<(ImageId, LabelsId), Group>,
    /// Goroutines on which no look found any labels, or that no look found.
    unlabelled: FxHashMap<ImageId, u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    goroutines: u64,
    blocked_ns: u64,
}

/// Goroutines by the value of a label.
#[derive(Serialize)]
pub struct LabelsOut {
    pub key: String,
    pub groups: Vec<LabelGroupOut>,
}

/// Goroutines with one value of the label.
#[derive(Debug, Serialize)]
pub struct LabelGroupOut {
    pub tgid: u32,
    /// `null`: goroutines that were not seen with this label. `other`: the groups that are too small to be shown.
    pub value: Option<String>,
    pub other: bool,
    pub goroutines: u64,
    /// How long they were blocked after the label was first seen on them; `null` without a label.
    pub blocked_ns: Option<u64>,
}

impl LabelTally {
    pub fn by(key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..Self::default() }
    }

    pub fn labels(&mut self, who: &Who, labels: LabelsId) {
        if self.key.is_some() {
            let (newest, _) = self.live.entry((who.image, who.goid)).or_insert((labels, 0));
            *newest = labels;
        }
    }

    pub fn span(&mut self, who: &Who, span: &Span) {
        if self.key.is_some()
            && span.state == SpanState::Blocked
            && let Some((_, blocked_ns)) = self.live.get_mut(&(who.image, who.goid))
        {
            *blocked_ns = blocked_ns.saturating_add(span.end.since(span.start));
        }
    }

    pub fn life(&mut self, who: &Who) {
        if self.key.is_none() {
            return;
        }
        match self.live.remove(&(who.image, who.goid)) {
            Some((labels, blocked_ns)) => {
                let group = self.closed.entry((who.image, labels)).or_default();
                group.goroutines += 1;
                group.blocked_ns = group.blocked_ns.saturating_add(blocked_ns);
            }
            None => *self.unlabelled.entry(who.image).or_default() += 1,
        }
    }

    /// The groups, the largest first; `None` unless they were asked for.
    pub fn out(&self, replayed: &Replayed) -> Option<LabelsOut> {
        let key = self.key.as_ref()?;
        Some(LabelsOut { key: key.clone(), groups: self.groups(replayed, key) })
    }

    fn groups(&self, replayed: &Replayed, key: &str) -> Vec<LabelGroupOut> {
        let processes = replayed.engine.processes();
        let tgid = |image: ImageId| processes.of_image(image).tgid.0;
        let mut groups: BTreeMap<(u32, Option<&str>), Group> = BTreeMap::new();
        for ((image, labels), group) in &self.closed {
            let into = groups.entry((tgid(*image), replayed.engine.labels().value(*labels, key))).or_default();
            into.goroutines += group.goroutines;
            into.blocked_ns = into.blocked_ns.saturating_add(group.blocked_ns);
        }
        for (image, goroutines) in &self.unlabelled {
            groups.entry((tgid(*image), None)).or_default().goroutines += goroutines;
        }
        let mut out: Vec<LabelGroupOut> = groups
            .into_iter()
            .map(|((tgid, value), group)| LabelGroupOut {
                tgid,
                value: value.map(str::to_owned),
                other: false,
                goroutines: group.goroutines,
                blocked_ns: value.map(|_| group.blocked_ns),
            })
            .collect();
        out.sort_by_key(|group| std::cmp::Reverse((group.value.is_some(), group.goroutines, group.blocked_ns)));
        fold_rest(&mut out);
        out
    }
}

/// Adds up what is too small to be shown.
fn fold_rest(groups: &mut Vec<LabelGroupOut>) {
    let labelled = groups.iter().filter(|group| group.value.is_some()).count();
    if labelled <= MAX_GROUPS {
        return;
    }
    let mut rest: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for group in groups.drain(MAX_GROUPS..labelled) {
        let (goroutines, blocked_ns) = rest.entry(group.tgid).or_default();
        *goroutines += group.goroutines;
        *blocked_ns = blocked_ns.saturating_add(group.blocked_ns.unwrap_or(0));
    }
    groups.extend(rest.into_iter().map(|(tgid, (goroutines, blocked_ns))| LabelGroupOut {
        tgid,
        value: None,
        other: true,
        goroutines,
        blocked_ns: Some(blocked_ns),
    }));
}
