//! Labels of samples: what the program said of them (`pprof.Do`), and what Go adds itself (`bytes`, the size of a heap's objects).

use std::sync::Arc;

use pprof::protos;
use rustc_hash::FxHashMap;

use super::parser::Raw;
use crate::export::interned::Interned;

/// Labels of one sample: as many as are read of a goroutine in memory.
const MAX_SET: usize = 128;
/// Bytes of a key, a text or a unit.
const MAX_TEXT: usize = 1024;
/// Labels of all samples together: as many as there may be samples.
const MAX_LABELS: usize = 1 << 20;

/// A label as profiles write it: a text, or a number with its unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    pub key: Arc<str>,
    pub text: Arc<str>,
    pub number: i64,
    pub unit: Arc<str>,
}

/// The labels of a sample, sorted.
pub type Set = Box<[Label]>;

/// The sets of a profile, each once.
#[derive(Default)]
pub(super) struct Sets {
    sets: Interned<Set>,
    /// By index of the string; `None` is too long.
    texts: FxHashMap<i64, Option<Arc<str>>>,
    labels: usize,
    /// Samples of which labels were left out.
    pub cut: usize,
}

impl Sets {
    /// The number of a sample's set; what is too much of it is left out.
    pub fn number(&mut self, raw: &Raw<'_>, labels: &[protos::Label]) -> u32 {
        let room = MAX_SET.min(MAX_LABELS - self.labels);
        let mut set: Vec<Label> = labels.iter().take(room).filter_map(|label| self.label(raw, label)).collect();
        self.labels += set.len();
        self.cut += usize::from(set.len() < labels.len());
        set.sort_unstable();
        self.sets.number(&set.into_boxed_slice())
    }

    pub fn into_all(self) -> Vec<Set> {
        self.sets.into_all()
    }

    fn label(&mut self, raw: &Raw<'_>, label: &protos::Label) -> Option<Label> {
        Some(Label {
            key: self.text(raw, label.key)?,
            text: self.text(raw, label.str)?,
            number: label.num,
            unit: self.text(raw, label.num_unit)?,
        })
    }

    fn text(&mut self, raw: &Raw<'_>, index: i64) -> Option<Arc<str>> {
        let Some(bytes) = raw.bytes(index) else { return Some(Arc::default()) };
        let read = || (bytes.len() <= MAX_TEXT).then(|| String::from_utf8_lossy(bytes).into());
        self.texts.entry(index).or_insert_with(read).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use pprof::protos::{Message, Profile, Sample, ValueType};

    use super::*;
    use crate::export::profile_flame::parser::{Parsed, Sampled, parse};

    /// Of samples with these labels, and these strings from the second on.
    fn parsed(samples: Vec<Vec<protos::Label>>, strings: &[&str]) -> Parsed {
        let strings = ["", "cpu"].iter().chain(strings).map(|text| (*text).to_owned()).collect();
        let sample = |label| Sample { value: vec![1], label, location_id: Vec::new() };
        let profile = Profile {
            sample_type: vec![ValueType { ty: 1, unit: 0 }],
            sample: samples.into_iter().map(sample).collect(),
            string_table: strings,
            ..Profile::default()
        };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&profile.encode_to_vec()).unwrap();
        parse(&gzip.finish().unwrap(), "cpu").unwrap()
    }

    fn text(key: i64, str: i64) -> protos::Label {
        protos::Label { key, str, ..protos::Label::default() }
    }

    fn number(key: i64, num: i64, num_unit: i64) -> protos::Label {
        protos::Label { key, num, num_unit, ..protos::Label::default() }
    }

    fn label(key: &str, text: &str, number: i64, unit: &str) -> Label {
        Label { key: key.into(), text: text.into(), number, unit: unit.into() }
    }

    /// Check that texts and numbers come back, and that samples with the same labels in another order share a set.
    #[test]
    fn sets() {
        let strings = ["endpoint", "/pay", "size", "bytes"];
        let samples = vec![vec![text(2, 3), number(4, 48, 5)], vec![number(4, 48, 5), text(2, 3)], vec![], vec![text(2, 0)]];
        let parsed = parsed(samples, &strings);
        let sets: Vec<&[Label]> = parsed.samples.iter().map(|sample| &*parsed.labels[sample.labels as usize]).collect();
        let both = [label("endpoint", "/pay", 0, ""), label("size", "", 48, "bytes")];
        assert_eq!(sets, [&both[..], &both, &[], &[label("endpoint", "", 0, "")]]);
        assert_eq!((parsed.labels.len(), parsed.cut), (3, 0));
    }

    /// Check that what is too long and too many is left out and counted, and that strings that are none are empty.
    #[test]
    fn bounds() {
        let long = "ä".repeat(MAX_TEXT / 2 + 1);
        let many: Vec<_> = (0..10_000).map(|num| number(2, num, 0)).collect();
        let samples =
            vec![many, vec![text(2, 3), text(2, 2)], vec![text(3, 2)], vec![text(i64::MIN, i64::MAX), number(-1, -1, 99)]];
        let parsed = parsed(samples, &["key", &long]);
        let sets: Vec<&[Label]> = parsed.samples.iter().map(|sample| &*parsed.labels[sample.labels as usize]).collect();
        assert_eq!(sets[0].len(), MAX_SET);
        assert_eq!(sets[1..], [&[label("key", "key", 0, "")][..], &[], &[label("", "", -1, ""), label("", "", 0, "")]]);
        assert_eq!(parsed.cut, 3);
    }

    /// Check that a profile whose every sample has many others is read all the same, without labels from the bound on.
    #[test]
    fn too_many() {
        let of = |sample: usize| (0..MAX_SET).map(|label| number(2, (sample * MAX_SET + label) as i64, 0)).collect();
        let most = MAX_LABELS / MAX_SET;
        let parsed = parsed((0..most + 2).map(of).collect(), &["key"]);
        let count = |sample: &Sampled| parsed.labels[sample.labels as usize].len();
        assert_eq!((parsed.samples.len(), parsed.cut), (most + 2, 2));
        assert_eq!(parsed.samples.iter().map(count).sum::<usize>(), MAX_LABELS);
        assert_eq!(parsed.samples.last().map(count), Some(0));
    }
}
