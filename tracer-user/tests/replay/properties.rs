//! What must hold for any order of arrival, and whatever was lost.

use std::{collections::BTreeSet, path::Path};

use proptest::prelude::*;
use tracer_user::{
    clock::KtimeNs,
    correlate::{
        Life, Sink, Span,
        goroutine::Who,
        process::ImageId,
        replay::{View, replay, replay_only},
    },
    event::Event,
    id::{Goid, Tgid},
    index::Only,
    recording::{contract::Drained, reader::Recording},
};

use crate::{
    open, report_json,
    scene::{Scene, ZERO},
    timeline,
};

fn two_shops() -> Scene {
    let mut scene = Scene::default();
    scene.shop(1000).shop(1001);
    scene
}

fn rearranged(events: Vec<Event>) -> Scene {
    let mut scene = two_shops();
    scene.events = events;
    scene
}

/// Events by time, and numbered so: what marks say holds for no others.
fn numbered(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|event| event.at);
    let mut seqs = [0; 2];
    for event in &mut events {
        event.seq = seqs[event.cpu as usize];
        seqs[event.cpu as usize] += 1;
    }
    events
}

/// Two shops for much longer than the window: the second one begins three seconds later.
fn far_apart() -> Vec<Event> {
    let mut events = two_shops().events;
    let half = events.len() / 2;
    events[half..].iter_mut().for_each(|event| event.at = KtimeNs(event.at.0 + 3_000_000_000));
    numbered(events)
}

/// Marks behind so many events, each the latest that is true there; the first one says that there are marks.
fn marked(events: Vec<Event>, places: &[usize]) -> Scene {
    let mut scene = rearranged(events);
    let first = Drained { at: KtimeNs(0), next_seq: Vec::new() };
    scene.marks =
        std::iter::once((0, first)).chain(places.iter().map(|place| (*place, true_mark(&scene.events, *place)))).collect();
    scene
}

/// The latest mark that is true of all events behind the first so many.
fn true_mark(events: &[Event], place: usize) -> Drained {
    let to_come = &events[place.min(events.len())..];
    let at = to_come.iter().map(|event| event.at.0).min().unwrap_or(ZERO * 100) - 1;
    let next =
        |cpu| events.iter().filter(|event| event.cpu == cpu && event.at.0 <= at).map(|event| event.seq + 1).max().unwrap_or(0);
    Drained { at: KtimeNs(at), next_seq: (0..2).map(next).collect() }
}

/// Fails on a span or life that cannot be.
pub struct Possible;

impl Sink for Possible {
    fn span(&mut self, who: &Who, span: &Span) {
        assert!(span.start <= span.end && who.since <= span.start, "{who:?} {span:?}");
    }
    fn life(&mut self, who: &Who, life: &Life) {
        assert!(who.since <= life.ended_at, "{who:?} {life:?}");
        assert!(who.born_at.is_none_or(|born| born <= life.ended_at), "{who:?} {life:?}");
    }
}

/// Goroutines alive at the end, by process and goid: those that no lost record can have told of, and the others.
#[derive(Default)]
struct Alive {
    at_end: Vec<(ImageId, Goid, KtimeNs)>,
    sure: BTreeSet<(u32, Goid)>,
    unsure: BTreeSet<(u32, Goid)>,
}

impl Sink for Alive {
    fn span(&mut self, _: &Who, _: &Span) {}
    fn life(&mut self, who: &Who, life: &Life) {
        if life.alive_at_end() {
            self.at_end.push((who.image, who.goid, life.last_known));
        }
    }
}

impl Alive {
    fn of(scene: &Scene) -> Self {
        let mut alive = Self::default();
        let replayed = replay(open(&scene.bytes()), &mut alive).unwrap();
        assert_eq!(replayed.order.late, 0);
        for (image, goid, known) in std::mem::take(&mut alive.at_end) {
            let sure = known >= replayed.lost_until();
            let into = if sure { &mut alive.sure } else { &mut alive.unsure };
            into.insert((replayed.engine.processes().of_image(image).tgid.0, goid));
        }
        alive
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Check that any order of arrival within the window gives the same timeline and the same report.
    #[test]
    fn order_of_arrival(events in Just(two_shops().events).prop_shuffle()) {
        let (sorted, shuffled) = (two_shops(), rearranged(events));
        prop_assert_eq!(timeline(&sorted, None), timeline(&shuffled, None));
        prop_assert_eq!(report_json(&sorted), report_json(&shuffled));
    }

    /// Check that any order of arrival that the marks allow for gives the same timeline and the same report, however far apart; and that
    /// without marks it would not.
    #[test]
    fn order_of_arrival_with_marks(
        events in Just(far_apart()).prop_shuffle(),
        places in proptest::collection::vec(0..=far_apart().len(), 0..6),
    ) {
        let (sorted, shuffled) = (marked(far_apart(), &[]), marked(events.clone(), &places));
        prop_assert_eq!(timeline(&sorted, None), timeline(&shuffled, None));
        let report = report_json(&shuffled);
        prop_assert_eq!(&report_json(&sorted), &report);
        prop_assert_eq!(&report["lost"]["late"], 0);
        prop_assert!(report_json(&rearranged(events))["lost"]["late"] != 0);
    }

    /// Check that dropping any events gives no negative time, no exit before birth, and no panic, and is counted.
    #[test]
    fn dropped(keep in proptest::collection::vec(any::<bool>(), 64)) {
        let all = two_shops().events;
        let kept: Vec<Event> = all.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(event, _)| event.clone()).collect();
        let scene = rearranged(kept);
        replay(open(&scene.bytes()), &mut Possible).unwrap();
        prop_assert!(timeline(&scene, None).is_ok());
        let report = report_json(&scene);
        let gaps = report["lost"]["events"].as_u64().unwrap();
        prop_assert!(gaps <= (all.len() - scene.events.len()) as u64);
        let count = |what: &str| report["goroutines"][what].as_u64().unwrap();
        // Without its load bias, the runtime's goroutine of a process counts as the program's.
        prop_assert!(count("born") + count("system") <= 8, "nothing is born that was not");
    }

    /// Check that a goroutine's timeline is the same where blocks that say nothing of it are left out, whatever was lost and wherever marks
    /// stand.
    #[test]
    fn blocks_left_out(
        keep in proptest::collection::vec(prop::bool::weighted(0.8), 64),
        places in proptest::collection::vec(0..two_shops().events.len(), 0..4),
    ) {
        let all = two_shops().events;
        let kept: Vec<Event> = all.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(event, _)| event.clone()).collect();
        let whole = marked(kept, &places);
        let mut indexed = whole.clone();
        indexed.indexed = true;
        for id in ["go:1@1000", "go:2@1001", "go:17@1000", "go:18@1001", "go:17"] {
            prop_assert_eq!(timeline(&whole, Some(id)), timeline(&indexed, Some(id)), "{}", id);
        }
        prop_assert_eq!(report_json(&whole), report_json(&indexed));
    }

    /// Check that whoever a damaged recording shows as surely alive at the end is alive in the whole one, whatever was dropped: marks tell
    /// even of a CPU whose last records are all gone.
    #[test]
    fn no_false_leak(
        keep in proptest::collection::vec(prop::bool::weighted(0.7), 64),
        places in proptest::collection::vec(0..two_shops().events.len(), 0..4),
    ) {
        let all = numbered(two_shops().events);
        let whole = Alive::of(&marked(all.clone(), &[all.len()]));
        prop_assert!(whole.unsure.is_empty());
        let kept = |events: &[Event]| -> Vec<Event> {
            events.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(event, _)| event.clone()).collect()
        };
        let mut damaged = rearranged(kept(&all));
        let first = Drained { at: KtimeNs(0), next_seq: Vec::new() };
        let mark = |place: &usize| (kept(&all[..*place]).len(), true_mark(&all, *place));
        damaged.marks = std::iter::once((0, first)).chain(places.iter().chain([&all.len()]).map(mark)).collect();
        let damaged = Alive::of(&damaged);
        prop_assert!(damaged.sure.is_subset(&whole.sure), "{:?}, of {:?}", damaged.sure, whole.sure);
    }

    /// Check that events that come twice make no second life.
    #[test]
    fn duplicated(twice in any::<prop::sample::Index>()) {
        let mut events = two_shops().events;
        events.push(events[twice.index(events.len())].clone());
        let report = report_json(&rearranged(events));
        prop_assert!(report["goroutines"]["born"].as_u64().unwrap() <= 7);
    }
}

/// Check that a block that says nothing of a goroutine is not looked at for its timeline: one that is damaged stands in nobody's way.
#[test]
fn left_out_unread() {
    let mut scene = two_shops();
    scene.indexed = true;
    let bytes = scene.bytes();
    let read = |bytes: &[u8], only| {
        let recording = Recording::from_reader(bytes, Path::new("scene.rec"))?;
        replay_only(recording, View::default(), only, &mut Possible).map(drop)
    };
    let only = Some(Only { goid: Goid(17), tgid: Some(Tgid(1000)) });
    // One byte damaged at a time: those that only the whole reading minds lie in blocks that were left out.
    let unread = (0..bytes.len()).step_by(8).filter(|at| {
        let mut damaged = bytes.clone();
        damaged[*at] ^= 1;
        read(&damaged, None).is_err() && read(&damaged, only).is_ok()
    });
    let unread = unread.count();
    assert!(unread * 8 * 20 > bytes.len(), "{unread} of {} bytes are not read", bytes.len() / 8);
}
