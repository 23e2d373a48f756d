//! What Go's own collector proved, as processes told when they were asked for their profile `goroutineleak`.
//!
//! Such a profile counts goroutines by their stack, and names none: [`Proofs::count`] says how many there are at a place. Who they are
//! is told by a look at the process's memory at about the same time, where they have a state of their own.
//! Source: `runtime/mgc.go` and `runtime/mprof.go` of Go 1.26 and 1.27.

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    correlate::replay::Replayed,
    id::Tgid,
    pprof::profile::decode,
    recording::contract::{Frame, ProfileKind},
};

/// Where goroutines wait, as a profile and a recording both have it: functions and lines that are not the runtime's, innermost first.
pub type Place = Vec<(String, u64)>;

/// The newest profile of each process.
#[derive(Debug, Default)]
pub struct Proofs(FxHashMap<Tgid, Proof>);

#[derive(Debug)]
struct Proof {
    at: KtimeNs,
    counts: FxHashMap<Place, u64>,
}

impl Proofs {
    pub fn of(replayed: &Replayed) -> Self {
        let mut proofs = Self::default();
        for profile in replayed.profiles.iter().filter(|profile| profile.kind == ProfileKind::GoroutineLeak) {
            // One that cannot be read proves nothing.
            if let Ok(decoded) = decode(&profile.data) {
                proofs.0.insert(profile.tgid, Proof { at: profile.at, counts: counts(&decoded) });
            }
        }
        proofs
    }

    /// When a process told last.
    pub fn told_at(&self, tgid: Tgid) -> Option<KtimeNs> {
        self.0.get(&tgid).map(|proof| proof.at)
    }

    /// How many were proven to be leaked at a place.
    pub fn count(&self, tgid: Tgid, place: &Place) -> u64 {
        self.0.get(&tgid).and_then(|proof| proof.counts.get(place)).copied().unwrap_or(0)
    }
}

/// The place of a stack.
pub fn place(stack: &[Frame]) -> Place {
    let own = stack.iter().filter(|frame| !is_runtimes(&frame.function));
    own.map(|frame| (frame.function.clone(), u64::from(frame.line))).collect()
}

fn counts(profile: &pprof::protos::Profile) -> FxHashMap<Place, u64> {
    let name =
        |index: i64| usize::try_from(index).ok().and_then(|index| profile.string_table.get(index)).map_or("", String::as_str);
    let functions: FxHashMap<u64, &str> = profile.function.iter().map(|function| (function.id, name(function.name))).collect();
    let lines: FxHashMap<u64, Vec<(&str, u64)>> = profile
        .location
        .iter()
        .map(|location| {
            let line = |line: &pprof::protos::Line| {
                (functions.get(&line.function_id).copied().unwrap_or_default(), u64::try_from(line.line).unwrap_or(0))
            };
            (location.id, location.line.iter().map(line).collect())
        })
        .collect();
    let mut counts: FxHashMap<Place, u64> = FxHashMap::default();
    for sample in &profile.sample {
        let frames = sample.location_id.iter().filter_map(|id| lines.get(id)).flatten();
        let place = frames.filter(|(function, _)| !is_runtimes(function)).map(|(function, line)| ((*function).to_owned(), *line));
        let count = sample.value.first().and_then(|count| u64::try_from(*count).ok()).unwrap_or(0);
        let entry = counts.entry(place.collect()).or_default();
        *entry = entry.saturating_add(count);
    }
    counts
}

fn is_runtimes(function: &str) -> bool {
    function.starts_with("runtime.")
}

#[cfg(test)]
mod tests {
    use pprof::protos::{Function, Line, Location, Profile, Sample};

    use super::*;

    /// Check that a profile and a stack of the recording meet at the same place, whatever the runtime adds to either.
    #[test]
    fn places() {
        let names = ["", "runtime.gopark", "runtime.chanrecv1", "main.worker", "main.main.func1"];
        let location = |id: u64, lines: &[(u64, i64)]| Location {
            id,
            line: lines.iter().map(|(function_id, line)| Line { function_id: *function_id, line: *line }).collect(),
            ..Location::default()
        };
        let profile = Profile {
            string_table: names.iter().map(|name| (*name).to_owned()).collect(),
            function: (1..5).map(|id| Function { id, name: id as i64, ..Function::default() }).collect(),
            location: vec![location(1, &[(1, 400)]), location(2, &[(2, 500)]), location(3, &[(3, 33), (4, 70)])],
            sample: vec![
                Sample { location_id: vec![1, 2, 3], value: vec![7], ..Sample::default() },
                Sample { location_id: vec![2, 3, 99], value: vec![2], ..Sample::default() },
                Sample { location_id: vec![3], value: vec![-1], ..Sample::default() },
            ],
            ..Profile::default()
        };
        let frame = |function: &str, line| Frame { function: function.to_owned(), file: "x.go".to_owned(), line };
        let stack = [frame("runtime.chanrecv1", 509), frame("main.worker", 33), frame("main.main.func1", 70)];
        let counts = counts(&profile);
        assert_eq!(counts.get(&place(&stack)), Some(&9));
        assert_eq!(counts.get(&place(&stack[..2])), None);
    }
}
