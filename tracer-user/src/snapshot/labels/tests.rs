use super::{super::memory::fake::Fake, *};

const TEXTS: u64 = 0x10_0000;

/// Memory with texts one behind the other.
struct World {
    memory: Fake,
    texts: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let memory = Fake::default();
        memory.block(0x1000, vec![0; 0x8000]);
        Self { memory, texts: Vec::new() }
    }

    fn words(&self, address: u64, words: &[u64]) {
        self.memory.write(address, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
    }

    /// The two words of a Go string.
    fn text(&mut self, text: &str) -> [u64; 2] {
        let at = TEXTS + self.texts.len() as u64;
        self.texts.extend(text.bytes());
        [at, text.len() as u64]
    }

    fn list(&mut self, at: u64, array: u64, labels: &[(&str, &str)]) {
        let words: Vec<u64> = labels.iter().flat_map(|(key, value)| [self.text(key), self.text(value)].concat()).collect();
        self.words(at, &[array, labels.len() as u64, labels.len() as u64]);
        self.words(array, &words);
    }

    /// A bucket of a map: the bytes of the hashes, labels in the first cells, where the chain goes on.
    fn bucket(&mut self, at: u64, hashes: [u8; 8], labels: &[(&str, &str)], overflow: u64) {
        let mut words = vec![0u64; 34];
        words[0] = u64::from_le_bytes(hashes);
        for (cell, (key, value)) in labels.iter().enumerate() {
            words[1 + cell * 2..][..2].copy_from_slice(&self.text(key));
            words[17 + cell * 2..][..2].copy_from_slice(&self.text(value));
        }
        words[33] = overflow;
        self.words(at, &words);
    }

    /// A map's header, and the word that points to it.
    fn map(&self, at: u64, count: u64, flags: u8, log: u8, buckets: u64, old: u64) {
        self.words(at, &[at + 8, count, u64::from_le_bytes([flags, log, 0, 0, 0, 0, 0, 0]), buckets, old, 0, 0]);
    }

    fn read(&self, representation: Representation, addresses: &[u64]) -> Vec<Option<LabelSet>> {
        self.memory.block(TEXTS, self.texts.clone());
        let mut labels = Labels::new(representation);
        labels.read(&self.memory, addresses.iter().copied()).unwrap();
        let set = |address| match labels.of(address) {
            LabelsRead::None => Some(LabelSet::new()),
            LabelsRead::Known(index) => Some(labels.all[index as usize].clone()),
            LabelsRead::Unknown => None,
        };
        addresses.iter().map(|&address| set(address)).collect()
    }
}

fn set(labels: &[(&str, &str)]) -> Option<LabelSet> {
    Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

/// Check lists: with labels, without, with an empty text, and nil.
#[test]
fn lists() {
    let mut world = World::new();
    world.list(0x1000, 0x2000, &[("a", "1"), ("b", "")]);
    world.list(0x1100, 0x2100, &[]);
    let expected = [set(&[("a", "1"), ("b", "")]), set(&[]), set(&[])];
    assert_eq!(world.read(Representation::List, &[0x1000, 0x1100, 0]), expected);
}

/// Check that lists which cannot be are unknown, and that the good one beside them is read.
#[test]
fn odd_lists() {
    let mut world = World::new();
    world.list(0x1000, 0x2000, &[("a", "1")]);
    world.words(0x1100, &[0x2000, 2, 1]);
    world.words(0x1200, &[0x2000, u64::MAX, u64::MAX]);
    world.words(0x1300, &[u64::MAX - 7, 1, 1]);
    world.words(0x1400, &[0x2100, 1, 1]);
    world.words(0x2100, &[TEXTS, u64::MAX, TEXTS, 1]);
    world.words(0x1500, &[0x2200, 1, 1]);
    world.words(0x1600, &[0x7777_0000, 1, 1]);
    world.words(0x2200, &[0x7777_0000, 5, TEXTS, 1]);
    let addresses = [0x1000, 0x1100, 0x1200, 0x1300, 0x1400, 0x1500, 0x1600, u64::MAX];
    let read = world.read(Representation::List, &addresses);
    assert_eq!(read[0], set(&[("a", "1")]));
    assert!(read[1..].iter().all(Option::is_none), "{read:?}");
}

/// Check that texts beyond what is read at once leave their sets unknown, not others.
#[test]
fn long_texts() {
    let mut world = World::new();
    let long = "x".repeat(MAX_TEXT as usize);
    world.list(0x1000, 0x2000, &[("a", &long)]);
    world.list(0x1100, 0x2100, &[("a", &format!("{long}x"))]);
    let read = world.read(Representation::List, &[0x1000, 0x1100]);
    assert_eq!(read, [set(&[("a", &long)]), None]);
}

/// Check a map of one bucket, one with a chain, an empty one and none.
#[test]
fn maps() {
    let mut world = World::new();
    world.map(0x1000, 2, 0, 0, 0x3000, 0);
    world.bucket(0x3000, [0x40, 0xff, 0, 0, 0, 0, 0, 0], &[("a", "1"), ("b", "2")], 0);
    world.map(0x1100, 3, 0, 1, 0x4000, 0);
    world.bucket(0x4000, [9, 1, 0, 0, 0, 0, 0, 0], &[("a", "1"), ("removed", "")], 0x5000);
    world.bucket(0x4110, [1, 7, 0, 0, 0, 0, 0, 0], &[("removed", ""), ("b", "2")], 0);
    world.bucket(0x5000, [5, 0, 0, 0, 0, 0, 0, 0], &[("c", "3")], 0);
    world.map(0x1200, 0, 0, 0, 0, 0);
    world.words(0x1300, &[0]);
    let three = set(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let expected = [set(&[("a", "1"), ("b", "2")]), three, set(&[]), set(&[])];
    assert_eq!(world.read(Representation::Map, &[0x1000, 0x1100, 0x1200, 0x1300]), expected);
}

/// Check a map that grows: what was moved is taken from the new buckets, the rest from the old ones.
#[test]
fn growing_map() {
    let mut world = World::new();
    world.map(0x1000, 2, 0, 1, 0x3000, 0x4000);
    world.bucket(0x3000, [9, 0, 0, 0, 0, 0, 0, 0], &[("moved", "1")], 0);
    world.bucket(0x3110, [0; 8], &[], 0);
    world.bucket(0x4000, [2, 8, 0, 0, 0, 0, 0, 0], &[("moved", "1"), ("waits", "2")], 0);
    assert_eq!(world.read(Representation::Map, &[0x1000]), [set(&[("moved", "1"), ("waits", "2")])]);
}

/// Check that maps which cannot be are unknown: a count that is wrong or huge, one being written, a chain that ends nowhere.
#[test]
fn odd_maps() {
    let mut world = World::new();
    world.bucket(0x3000, [9, 0, 0, 0, 0, 0, 0, 0], &[("a", "1")], 0);
    world.bucket(0x4000, [0; 8], &[], 0x4000);
    world.bucket(0x5000, [9; 8], &[("a", "1"); 8], 0x5000);
    world.bucket(0x6000, [0; 8], &[], 0x7777_0000);
    let maps = [
        (2, 0, 0, 0x3000),
        (u64::MAX, 0, 0, 0x3000),
        (1, 4, 0, 0x3000),
        (1, 0, 255, 0x3000),
        (1, 0, 0, 0),
        (1, 0, 0, u64::MAX - 7),
        (0, 0, 0, 0x4000),
        (8, 0, 0, 0x5000),
        (0, 0, 0, 0x6000),
    ];
    let at = |index: usize| 0x1000 + index as u64 * 0x40;
    for (index, (count, flags, log, buckets)) in maps.into_iter().enumerate() {
        world.map(at(index), count, flags, log, buckets, 0);
    }
    let addresses: Vec<u64> = (0..maps.len()).map(at).collect();
    let read = world.read(Representation::Map, &addresses);
    assert!(read.iter().all(Option::is_none), "{read:?}");
    assert!(*world.memory.asked.borrow() < 1 << 20);
}
