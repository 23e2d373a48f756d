//! Goroutines: by creation site, in tracks of their own or counted, with arrows between them.

use std::cmp::Reverse;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Event, MOST, Says, Trace, Track,
    counter::Steps,
    proto::{ChildTracksOrdering, TrackDescriptor, Unit},
};
use crate::{
    clock::KtimeNs,
    correlate::{Span, SpanState, WokenBy, goroutine::SiteKey, process::ImageId},
    id::{Goid, Tgid},
    timeline::{GoroutineLine, Row, single, site::Site},
};

impl<'a> Trace<'a> {
    pub fn goroutines(&mut self, leaking: &FxHashSet<(Tgid, Goid)>) {
        let timeline = self.timeline;
        let lines = &timeline.goroutines;
        let single = single::choose(self.replayed, lines, leaking, MOST);
        // By what people call them: a `go` statement that was compiled twice is one.
        let mut names: FxHashMap<SiteKey, Site> = FxHashMap::default();
        let mut sites: FxHashMap<Site, Vec<usize>> = FxHashMap::default();
        for (index, line) in lines.iter().enumerate() {
            let key = SiteKey::of(&line.who);
            let site = names.entry(key).or_insert_with(|| Site::named(key, &self.symbols));
            match sites.get_mut(site) {
                Some(of) => of.push(index),
                None => _ = sites.insert(site.clone(), vec![index]),
            }
        }
        let mut sites: Vec<(Site, Vec<usize>)> = sites.into_iter().collect();
        // The largest first, within their process.
        sites.sort_unstable_by(|(one, of_one), (other, of_other)| {
            (one.image, Reverse(of_one.len()), one).cmp(&(other.image, Reverse(of_other.len()), other))
        });
        let mut groups: FxHashMap<ImageId, Track> = FxHashMap::default();
        let mut of_image: FxHashMap<ImageId, Vec<&GoroutineLine>> = FxHashMap::default();
        for line in lines {
            of_image.entry(line.who.image).or_default().push(line);
        }
        // By place in the timeline, and the newest of each id.
        let mut own: Vec<Option<Track>> = vec![None; lines.len()];
        let mut by_goid: FxHashMap<(ImageId, Goid), Track> = FxHashMap::default();
        for (site, of) in &sites {
            let group = match groups.get(&site.image) {
                Some(group) => *group,
                None => {
                    let process = self.of_image(site.image);
                    let group = self.describe(TrackDescriptor {
                        parent_uuid: Some(process),
                        name: Some("goroutines".to_owned()),
                        child_ordering: Some(ChildTracksOrdering::Explicit as i32),
                        ..TrackDescriptor::default()
                    });
                    self.counts(group, of_image.remove(&site.image).unwrap_or_default().into_iter());
                    groups.insert(site.image, group);
                    group
                }
            };
            let name = site.titled(of.len());
            let track = self.describe(TrackDescriptor {
                parent_uuid: Some(group),
                name: Some(name),
                child_ordering: Some(ChildTracksOrdering::Chronological as i32),
                ..TrackDescriptor::default()
            });
            if of.iter().any(|index| !single[*index]) {
                self.counts(track, of.iter().map(|index| &lines[*index]));
            }
            for index in of.iter().filter(|index| single[**index]) {
                let line = &lines[*index];
                let track = self.track(Some(track), format!("go:{}", line.who.goid));
                own[*index] = Some(track);
                by_goid.insert((line.who.image, line.who.goid), track);
            }
        }
        for (line, track) in lines.iter().zip(own) {
            if let Some(track) = track {
                self.goroutine(line, track, &by_goid);
            }
        }
    }

    /// How many of some goroutines live, and what they do.
    fn counts(&mut self, parent: Track, lines: impl Iterator<Item = &'a GoroutineLine>) {
        let [mut alive, mut blocked, mut runnable] = [Steps::default(), Steps::default(), Steps::default()];
        for line in lines {
            alive.during(line.who.since, line.life.ended_at);
            for span in &line.spans {
                match span.state {
                    SpanState::Blocked => blocked.during(span.start, span.end),
                    SpanState::Runnable => runnable.during(span.start, span.end),
                    _ => {}
                }
            }
        }
        for (name, steps) in [("alive", alive), ("blocked", blocked), ("runnable", runnable)] {
            self.counter(Some(parent), name, Unit::Count, steps.values());
        }
    }

    /// The slices of one goroutine, and the arrows that end there.
    fn goroutine(&mut self, line: &'a GoroutineLine, track: Track, by_goid: &FxHashMap<(ImageId, Goid), Track>) {
        let image = line.who.image;
        let of = |goid: Goid| by_goid.get(&(image, goid)).copied();
        // A birth that is told late may lie behind the first span.
        let behind = |born_at: KtimeNs| line.spans.iter().find(|span| span.start >= born_at);
        if let Some((born_at, first)) = line.who.born_at.and_then(|born_at| Some((born_at, behind(born_at)?)))
            && let Some(parent) = line.who.origin.and_then(|origin| of(origin.parent?))
        {
            self.flow(("go", born_at, parent), line.who.goid, first);
        }
        for pair in line.spans.windows(2) {
            if let Some(WokenBy::Goroutine(waker)) = pair[0].woken_by
                && let Some(waker) = of(waker)
            {
                self.flow(("wake", pair[0].end, waker), line.who.goid, &pair[1]);
            }
        }
        for Row { state, start, end, span, .. } in self.timeline.rows(line) {
            if let Some(span) = span {
                self.slice(track, start, end, Says::Goroutine(line, span, state));
            }
        }
    }

    /// An arrow from an instant on a track to where a span begins.
    fn flow(&mut self, (name, at, from): (&'static str, KtimeNs, Track), to: Goid, span: &'a Span) {
        self.flows += 1;
        let flow = self.flows;
        self.events.push(Event { at, track: from, says: Says::Flow { name, flow, to } });
        self.ends.entry(span).or_default().push(flow);
    }
}
