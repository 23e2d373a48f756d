//! The lanes of goroutines, by what they have in common: their creation site, or the value of a label.

use std::{cmp::Reverse, collections::BTreeMap};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    columns::{Lane, More, Span},
    drawing::Drawing,
};
use crate::{
    correlate::{LifeEnd, WokenBy, goroutine::SiteKey, process::ProcessId},
    id::{Goid, Tgid},
    timeline::{GoroutineLine, State, human, single, site::Site},
};

/// Goroutines that have a lane.
const MOST_LANES: usize = 120_000;

/// What the lanes of a group have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Common {
    title: String,
    by: String,
}

/// One of them.
pub(super) struct Member<'a> {
    line: &'a GoroutineLine,
    /// It has a lane.
    drawn: bool,
    leaks: bool,
    /// Where it was made and what it runs.
    site: u32,
}

/// The goroutines of a process, by what they have in common.
pub(super) type Sites<'a> = BTreeMap<ProcessId, Vec<(Common, Vec<Member<'a>>)>>;

/// What is said of a lane as a whole, a bit each; data.js knows them.
const BIRTH_SEEN: u8 = 1;
const LEAKING: u8 = 2;
/// How it ended, shifted by two.
fn end(of: LifeEnd) -> u8 {
    match of {
        LifeEnd::RecordingEnd => 0,
        LifeEnd::Exit => 1,
        LifeEnd::ProcessEnd => 2,
        LifeEnd::Gone => 3,
    }
}

impl<'a> Drawing<'a> {
    /// Who belongs together: the largest groups first.
    pub fn sites(&mut self, leaking: &FxHashSet<(Tgid, Goid)>) -> Sites<'a> {
        let timeline = self.timeline;
        let all = timeline.replayed.engine.processes();
        let lines = &timeline.goroutines;
        let single = single::choose(timeline.replayed, lines, leaking, MOST_LANES);
        self.left_out.goroutines = single.iter().filter(|drawn| !**drawn).count();
        let mut names: FxHashMap<SiteKey, (Common, u32)> = FxHashMap::default();
        let mut groups: FxHashMap<(ProcessId, Common), Vec<Member<'a>>> = FxHashMap::default();
        for (line, drawn) in lines.iter().zip(single) {
            let process = all.image(line.who.image).process;
            let key = SiteKey::of(&line.who);
            let (site, number) = names.entry(key).or_insert_with(|| {
                let Site { runs, made_at, .. } = Site::named(key, &self.symbols);
                let number = self.sites.number(&(runs.clone(), made_at.clone()));
                (Common { title: runs, by: made_at }, number)
            });
            let common = match timeline.group(line) {
                Some((key, value)) => {
                    let value = value.map_or("(not seen with it)".to_owned(), human::plain);
                    Common { title: format!("{}: {value}", human::plain(key)), by: String::new() }
                }
                None => site.clone(),
            };
            let site = *number;
            let leaks = leaking.contains(&(all.process(process).tgid, line.who.goid));
            groups.entry((process, common)).or_default().push(Member { line, drawn, leaks, site });
        }
        let mut sites: Sites<'a> = BTreeMap::new();
        for ((process, common), members) in groups {
            sites.entry(process).or_default().push((common, members));
        }
        for groups in sites.values_mut() {
            groups
                .sort_by(|(one, of_one), (other, of_other)| (Reverse(of_one.len()), one).cmp(&(Reverse(of_other.len()), other)));
        }
        sites
    }

    pub fn goroutines(&mut self, id: ProcessId, common: &Common, members: &[Member<'a>]) {
        self.group_of_goroutines(id, common.title.clone(), common.by.clone(), members.len());
        members.iter().filter(|member| member.drawn).for_each(|member| self.goroutine(member));
    }

    fn goroutine(&mut self, Member { line, leaks, site, .. }: &Member<'a>) {
        let timeline = self.timeline;
        let replayed = timeline.replayed;
        let image = line.who.image;
        let mut spans: Vec<Span> = Vec::with_capacity(line.spans.len());
        for row in timeline.rows(line).into_iter().filter(|row| row.state != State::Lost) {
            let Some(span) = row.span else { continue };
            let reason = span.reason.map(|reason| replayed.engine.reason(reason));
            let stack = span.stack.and_then(|stack| self.stack(image, stack));
            let detail = self.detail(row.state.name(), reason, stack);
            spans.push(self.span((row.start, row.end), detail, woken(span.woken_by)));
        }
        let labels = line.labels.last().map(|(_, labels)| replayed.engine.labels().get(*labels)).filter(|set| !set.is_empty());
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(line.who.born_at.is_some(), BIRTH_SEEN) | flag(*leaks, LEAKING) | end(line.life.end) << 2;
        let lane = Lane {
            id: line.who.goid.0,
            since_ns: replayed.since_zero(line.who.since),
            flags,
            parent: line.who.origin.and_then(|origin| origin.parent).map_or(0, |parent| parent.0),
            labels: labels.map_or(0, |set| u64::from(self.labels.number(set)) + 1),
            site: u64::from(*site) + 1,
        };
        self.lane(lane, spans.into_iter());
    }
}

/// Who ended a span, as its lane tells it.
fn woken(by: Option<WokenBy>) -> More {
    match by {
        None => More::Nothing,
        Some(WokenBy::Goroutine(goid)) => More::Goroutine(goid.0),
        Some(WokenBy::Netpoll) => More::Part(1),
        Some(WokenBy::Timer) => More::Part(2),
        Some(WokenBy::Gc) => More::Part(3),
        Some(WokenBy::Scheduler) => More::Part(4),
        Some(WokenBy::Unknown) => More::Part(5),
    }
}
