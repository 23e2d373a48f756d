//! Under which test a goroutine was born: by who made whom, up to the goroutine in which Go's test framework runs a test.
//!
//! `testing.(*T).Run` starts each test in a goroutine of its own, made on that function's only `go` statement; what it was called
//! came by as an event shortly before. Names follow `matcher.fullName` of Go's `src/testing/match.go`. Without probes, looks at the process's
//! memory tell which goroutines run tests, and what these are called.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    correlate::{Life, TestName, goroutine::Who, process::ImageId},
    id::{Address, Goid},
    symbolize::Symbolizer,
};

/// Where tests are started.
const RUN: &str = "testing.(*T).Run";
/// Longer names are cut.
const MAX_NAME: usize = 512;

/// What was seen of tests, by image. Images without tests are not kept.
#[derive(Default)]
pub(crate) struct Tests(FxHashMap<ImageId, TestBinary>);

#[derive(Default)]
struct TestBinary {
    goroutines: FxHashMap<Goid, Lineage>,
    /// What each goroutine has started, in order of time.
    started: FxHashMap<Goid, Vec<(KtimeNs, TestName)>>,
    /// In which goroutines looks found a test, and its whole name.
    seen: FxHashMap<Goid, Option<String>>,
}

#[derive(Clone, Copy)]
struct Lineage {
    born_at: KtimeNs,
    parent: Option<Goid>,
    gopc: Option<Address>,
    /// `None`: it was alive at the end.
    ended_at: Option<KtimeNs>,
}

/// The test under which a goroutine was born.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnderTest {
    /// As `go test -v` prints it; of a test whose start was lost what is known of its parents, and `?`.
    pub name: String,
    /// Nothing of the name was lost or cut.
    pub exact: bool,
    /// When the test's goroutine ended; `None`: it had not.
    pub ended_at: Option<KtimeNs>,
}

impl Tests {
    pub fn started(&mut self, image: ImageId, by: Option<Goid>, at: KtimeNs, name: &TestName) {
        let binary = self.0.entry(image).or_default();
        if let Some(by) = by {
            binary.started.entry(by).or_default().push((at, name.clone()));
        }
    }

    pub fn seen(&mut self, image: ImageId, goid: Goid, name: Option<&str>) {
        let seen = self.0.entry(image).or_default().seen.entry(goid).or_default();
        if seen.is_none() {
            *seen = name.map(str::to_owned);
        }
    }

    pub fn life(&mut self, who: &Who, life: &Life) {
        let Some(binary) = self.0.get_mut(&who.image) else { return };
        let origin = who.origin.as_ref();
        let lineage = Lineage {
            born_at: who.since,
            parent: origin.and_then(|origin| origin.parent),
            gopc: origin.map(|origin| origin.gopc),
            ended_at: (!life.alive_at_end()).then_some(life.ended_at),
        };
        binary.goroutines.insert(who.goid, lineage);
    }

    /// Whether an image ran tests.
    pub fn has(&self, image: ImageId) -> bool {
        self.0.contains_key(&image)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tests of an image.
    pub fn of<'a>(&'a self, image: ImageId, symbols: &'a Symbolizer<'a>) -> Option<TestsOf<'a>> {
        let binary = self.0.get(&image)?;
        Some(TestsOf { binary, image, symbols, runs: FxHashMap::default(), known: FxHashMap::default() })
    }
}

/// Answers for one image, and remembers.
pub(crate) struct TestsOf<'a> {
    binary: &'a TestBinary,
    image: ImageId,
    symbols: &'a Symbolizer<'a>,
    /// Whether a `go` statement is that of [`RUN`].
    runs: FxHashMap<Address, bool>,
    known: FxHashMap<Goid, UnderTest>,
}

impl TestsOf<'_> {
    /// Whether a test runs in this goroutine.
    pub fn is_test(&mut self, goid: Goid) -> bool {
        if self.binary.seen.contains_key(&goid) {
            return true;
        }
        let Some(gopc) = self.binary.goroutines.get(&goid).and_then(|lineage| lineage.gopc) else { return false };
        let (symbols, image) = (self.symbols, self.image);
        *self.runs.entry(gopc).or_insert_with(|| symbols.go_statement(image, gopc).function == RUN)
    }

    /// The test that made a goroutine, or made who made it; `None` where that is none, or its ancestors are not known.
    pub fn above(&mut self, goid: Goid) -> Option<UnderTest> {
        let test = self.nearest(goid)?;
        if let Some(known) = self.known.get(&test) {
            return Some(known.clone());
        }
        // From the outermost test inwards: each name begins with its parent's.
        let mut chain = vec![test];
        while let Some(outer) = chain.last().and_then(|inner| self.nearest(*inner)) {
            chain.push(outer);
        }
        let mut path: Option<(String, bool)> = None;
        for test in chain.into_iter().rev() {
            let named = self.named(test, path.as_ref());
            let ended_at = self.binary.goroutines.get(&test).and_then(|lineage| lineage.ended_at);
            self.known.insert(test, UnderTest { name: named.0.clone(), exact: named.1, ended_at });
            path = Some(named);
        }
        self.known.get(&test).cloned()
    }

    /// The nearest ancestor in which a test runs. Parents are older than their children: the way up ends.
    fn nearest(&mut self, goid: Goid) -> Option<Goid> {
        let mut at = goid;
        loop {
            let lineage = self.binary.goroutines.get(&at)?;
            let parent = lineage.parent?;
            let older = self.binary.goroutines.get(&parent)?.born_at <= lineage.born_at && parent != at;
            if !older {
                return None;
            }
            if self.is_test(parent) {
                return Some(parent);
            }
            at = parent;
        }
    }

    /// The full name of a test, and whether all of it is known.
    fn named(&self, test: Goid, parent: Option<&(String, bool)>) -> (String, bool) {
        if let Some(Some(name)) = self.binary.seen.get(&test) {
            return (name.chars().take(MAX_NAME).collect(), name.chars().nth(MAX_NAME).is_none());
        }
        let own = self.binary.goroutines.get(&test).and_then(|lineage| {
            let started = self.binary.started.get(&lineage.parent?)?;
            let index = started.partition_point(|(at, _)| *at <= lineage.born_at).checked_sub(1)?;
            Some((started, index))
        });
        let (name, exact) = match own {
            Some((started, index)) => (part(started, index, parent.is_some()), !started[index].1.cut),
            None => ("?".to_owned(), false),
        };
        let (mut name, exact) = match parent {
            Some((outer, outer_exact)) => (format!("{outer}/{name}"), exact && *outer_exact),
            None => (name, exact),
        };
        if let Some((end, _)) = name.char_indices().nth(MAX_NAME) {
            name.truncate(end);
            return (name, false);
        }
        (name, exact)
    }
}

/// A test's own part of its name: below the top level, blanks are replaced and names that come again are numbered.
fn part(started: &[(KtimeNs, TestName)], index: usize, below: bool) -> String {
    let name = &started[index].1.name;
    if !below {
        return name.clone();
    }
    let before = started[..index].iter().filter(|(_, other)| other.name == *name).count();
    let name = rewritten(name);
    if before == 0 && !name.is_empty() { name } else { format!("{name}#{before:02}") }
}

/// `rewrite` of `src/testing/match.go`.
fn rewritten(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            c if c.is_whitespace() => out.push('_'),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// How many of a group were born under each test, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByTest(pub BTreeMap<String, TestCount>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestCount {
    pub count: usize,
    pub exact: bool,
}

impl ByTest {
    pub fn add(&mut self, test: &UnderTest) {
        let entry = self.0.entry(test.name.clone()).or_insert(TestCount { count: 0, exact: test.exact });
        entry.count += 1;
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    /// Check names as `go test -v` prints them.
    #[test]
    fn names() {
        let started: Vec<(KtimeNs, TestName)> = ["empty cart", "full", "empty cart", "", "tab\there\u{1}"]
            .into_iter()
            .zip(1..)
            .map(|(name, at)| (KtimeNs(at), TestName { name: name.to_owned(), cut: false }))
            .collect();
        let below: Vec<String> = (0..started.len()).map(|index| part(&started, index, true)).collect();
        assert_eq!(below, ["empty_cart", "full", "empty_cart#01", "#00", "tab_here\\u{1}"]);
        assert_eq!(part(&started, 2, false), "empty cart");
    }
}
