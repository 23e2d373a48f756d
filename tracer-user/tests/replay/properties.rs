//! What must hold for any order of arrival, and whatever was lost.

use proptest::prelude::*;
use tracer_user::{
    correlate::{Life, Sink, Span, goroutine::Who, replay::replay},
    event::Event,
};

use crate::{open, report_json, scene::Scene, timeline};

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

/// Fails on a span or life that cannot be.
struct Possible;

impl Sink for Possible {
    fn span(&mut self, who: &Who, span: &Span) {
        assert!(span.start <= span.end && who.since <= span.start, "{who:?} {span:?}");
    }
    fn life(&mut self, who: &Who, life: &Life) {
        assert!(who.since <= life.ended_at, "{who:?} {life:?}");
        assert!(who.born_at.is_none_or(|born| born <= life.ended_at), "{who:?} {life:?}");
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

    /// Check that events that come twice make no second life.
    #[test]
    fn duplicated(twice in any::<prop::sample::Index>()) {
        let mut events = two_shops().events;
        events.push(events[twice.index(events.len())].clone());
        let report = report_json(&rearranged(events));
        prop_assert!(report["goroutines"]["born"].as_u64().unwrap() <= 7);
    }
}
