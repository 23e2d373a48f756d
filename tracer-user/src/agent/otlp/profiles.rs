//! Goroutines that live, as profiles: how many by where they were made, and for how long those that wait have waited, by where.
//!
//! OTLP's profiles are in development, and so is this: receivers take one version of them (here 1.10 of the protocol, `v1development`).

use std::{collections::BTreeMap, time::Duration};

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    profiles::v1development::{
        Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles, Sample,
        ScopeProfiles, Stack, ValueType,
    },
};
use rustc_hash::FxHashMap;

use super::{
    Instant,
    attributes::{digest, scope},
    batch::{Request, Signal},
    resource::Host,
    stats::Stats,
};
use crate::{
    correlate::{
        SpanState,
        process::{ImageId, ProcessId},
    },
    recording::contract::Frame,
    symbolize::{FrameId, Symbolizer},
    timeline::human::plain,
    top::{model::Model, short},
};

/// Stacks of all processes that are told at once.
const MAX_STACKS: usize = 2000;
/// Frames of a stack that are told.
const MAX_FRAMES: usize = 128;

/// What is summed by stack.
#[derive(Default)]
struct Sums {
    goroutines: FxHashMap<Vec<FrameId>, i64>,
    blocked_ns: FxHashMap<Vec<FrameId>, i64>,
}

/// Of those who live now.
pub fn request(model: &Model, host: &Host, now: &Instant, interval: Duration, stats: &Stats) -> Option<Request> {
    let symbols = Symbolizer::so_far(model.replaying());
    let sums = sums(model, &symbols, now, stats);
    if sums.is_empty() {
        return None;
    }
    let mut dictionary = Dictionary::default();
    let mut resource_profiles = Vec::new();
    for (id, sums) in sums {
        let time = Time { at: now.wall(now.at), interval };
        let identity = host.identity(model.replaying().engine().processes().process(id));
        let mut profile = |kind: &str, unit: &str, sums| dictionary.profile((kind, unit), sums, &symbols, &time, &identity);
        let profiles = vec![profile("goroutines", "count", sums.goroutines), profile("blocked", "nanoseconds", sums.blocked_ns)];
        let profiles = profiles.into_iter().filter(|profile| !profile.samples.is_empty()).collect();
        resource_profiles.push(ResourceProfiles {
            resource: Some(host.process(id, model)),
            scope_profiles: vec![ScopeProfiles { scope: Some(scope()), profiles, ..ScopeProfiles::default() }],
            ..ResourceProfiles::default()
        });
    }
    let dictionary = Some(dictionary.whole());
    Some(Request::Profiles(ExportProfilesServiceRequest { resource_profiles, dictionary }))
}

fn sums(model: &Model, symbols: &Symbolizer<'_>, now: &Instant, stats: &Stats) -> BTreeMap<ProcessId, Sums> {
    let (engine, mut stacks) = (model.replaying().engine(), 0);
    let mut all: BTreeMap<ProcessId, Sums> = BTreeMap::new();
    let mut add = |sums: &mut FxHashMap<Vec<FrameId>, i64>, frames: Vec<FrameId>, value: i64| {
        if let Some(sum) = sums.get_mut(&frames) {
            *sum = sum.saturating_add(value);
        } else if stacks < MAX_STACKS {
            stacks += 1;
            sums.insert(frames, value);
        } else {
            stats.leave_out(Signal::Profiles, 1);
        }
    };
    let mut creations: FxHashMap<(ImageId, _), Vec<FrameId>> = FxHashMap::default();
    for goroutine in engine.living() {
        let who = &goroutine.who;
        let sums = all.entry(engine.processes().image(who.image).process).or_default();
        if let Some(origin) = &who.origin {
            let frames = creations.entry((who.image, (origin.gopc, origin.stack))).or_insert_with(|| {
                let mut frames = symbols.creation(who.image, origin).0;
                frames.truncate(MAX_FRAMES);
                frames
            });
            add(&mut sums.goroutines, frames.clone(), 1);
        }
        let doing = goroutine.doing();
        if doing.state == SpanState::Blocked
            && let Some((mut frames, _)) = doing.stack.and_then(|stack| symbols.stack(who.image, stack))
        {
            frames.truncate(MAX_FRAMES);
            add(&mut sums.blocked_ns, frames, i64::try_from(now.at.since(doing.since)).unwrap_or(i64::MAX));
        }
    }
    all
}

struct Time {
    at: u64,
    interval: Duration,
}

/// Tables that samples point into. The first entry of each means nothing.
#[derive(Default)]
struct Dictionary {
    strings: Table<String>,
    functions: Table<(i32, i32)>,
    locations: Table<(i32, i64)>,
    stacks: Table<Vec<i32>>,
}

struct Table<T> {
    all: Vec<T>,
    ids: FxHashMap<T, i32>,
}

impl<T: Default + Clone + Eq + std::hash::Hash> Default for Table<T> {
    fn default() -> Self {
        Self { all: vec![T::default()], ids: [(T::default(), 0)].into_iter().collect() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Table<T> {
    fn id(&mut self, one: T) -> i32 {
        if let Some(id) = self.ids.get(&one) {
            return *id;
        }
        let id = i32::try_from(self.all.len()).unwrap_or_default();
        self.all.push(one.clone());
        self.ids.insert(one, id);
        id
    }
}

impl Dictionary {
    fn profile(
        &mut self,
        (kind, unit): (&str, &str),
        sums: FxHashMap<Vec<FrameId>, i64>,
        symbols: &Symbolizer<'_>,
        time: &Time,
        process: &[u8; 32],
    ) -> Profile {
        let mut samples = Vec::with_capacity(sums.len());
        for (frames, value) in sums {
            let locations = frames.into_iter().map(|id| self.location(&symbols.frame(id))).collect();
            samples.push(Sample { stack_index: self.stacks.id(locations), values: vec![value], ..Sample::default() });
        }
        let sample_type =
            ValueType { type_strindex: self.strings.id(kind.to_owned()), unit_strindex: self.strings.id(unit.to_owned()) };
        let duration_nano = u64::try_from(time.interval.as_nanos()).unwrap_or(u64::MAX);
        Profile {
            sample_type: Some(sample_type),
            samples,
            time_unix_nano: time.at,
            duration_nano,
            profile_id: digest(&[process, kind.as_bytes(), &time.at.to_le_bytes()])[..16].to_vec(),
            ..Profile::default()
        }
    }

    fn location(&mut self, frame: &Frame) -> i32 {
        let name = self.strings.id(short(&plain(&frame.function)).to_string());
        let file = self.strings.id(short(&plain(&frame.file)).to_string());
        let function = self.functions.id((name, file));
        self.locations.id((function, i64::from(frame.line)))
    }

    fn whole(self) -> ProfilesDictionary {
        let function = |(name, file)| Function { name_strindex: name, filename_strindex: file, ..Function::default() };
        let location = |(function, line)| match function {
            0 => Location::default(),
            _ => Location { lines: vec![Line { function_index: function, line, column: 0 }], ..Location::default() },
        };
        ProfilesDictionary {
            mapping_table: vec![Mapping::default()],
            location_table: self.locations.all.into_iter().map(location).collect(),
            function_table: self.functions.all.into_iter().map(function).collect(),
            link_table: vec![Link::default()],
            string_table: self.strings.all,
            attribute_table: vec![KeyValueAndUnit::default()],
            stack_table: self.stacks.all.into_iter().map(|location_indices| Stack { location_indices }).collect(),
        }
    }
}
