//! Whether a dump of goroutines is of the process that was meant: held against what its memory showed before and after.
//!
//! Goids are dealt to processors in batches of 16 (`runtime/proc.go`, `newproc1`), so that a goroutine can be born with a smaller one than
//! others that are there already: each processor deals out the rest of one old batch at most.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::id::Goid;

/// Goids in one batch.
const BATCH: usize = 16;

/// What the memory showed of a goroutine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub parent: Option<Goid>,
    /// Function that holds its go statement; `None`: unknown.
    pub made_by: Option<String>,
    /// It belongs to the runtime: dumps leave those out.
    pub system: bool,
}

/// All goroutines the memory showed at one time.
pub type Sight = FxHashMap<Goid, Seen>;

/// What a dump claims of a goroutine: its creator, function and goid.
pub type Claims<'t> = BTreeMap<Goid, Option<(&'t str, Option<Goid>)>>;

/// Why a dump cannot be of the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    #[error("it lacks {count} goroutine(s) that live in the process, goroutine {first} among them")]
    Lacks { count: usize, first: Goid },
    #[error("it has {count} goroutine(s) that the process has not, goroutine {first} among them")]
    Invents { count: usize, first: Goid },
    #[error("it says that goroutine {goid} was made by {said}, which was {truth}")]
    Creator { goid: Goid, said: String, truth: String },
}

/// Holds a dump against what was seen before it was asked for and after it came. One that is `cut` may lack any.
pub fn judge(before: &Sight, after: &Sight, claims: &Claims<'_>, cut: bool, processors: usize) -> Result<(), Lie> {
    if !cut {
        let lives = |(goid, seen): &(&Goid, &Seen)| !seen.system && after.get(*goid).is_some_and(|after| !after.system);
        let lacking = before.iter().filter(lives).map(|(goid, _)| *goid).filter(|goid| !claims.contains_key(goid));
        let lacking: Vec<Goid> = lacking.collect();
        if let Some(first) = lacking.iter().min() {
            return Err(Lie::Lacks { count: lacking.len(), first: *first });
        }
    }
    let newest = before.keys().max().copied().unwrap_or(Goid(0));
    let unseen = claims.keys().filter(|goid| !before.contains_key(*goid) && !after.contains_key(*goid)).copied();
    let (newer, older): (Vec<Goid>, Vec<Goid>) = unseen.partition(|goid| *goid > newest);
    let processors = processors.max(1);
    // Those that are newer came and went in between: not many times as many as there are otherwise.
    let brief = (4 * BATCH * processors).max(before.len() + after.len());
    for (invented, most) in [(older, BATCH * processors), (newer, brief)] {
        if let Some(first) = invented.first().filter(|_| invented.len() > most) {
            return Err(Lie::Invents { count: invented.len(), first: *first });
        }
    }
    for (goid, claim) in claims {
        let Some(seen) = before.get(goid).or_else(|| after.get(goid)) else { continue };
        creator(*goid, seen, *claim)?;
    }
    Ok(())
}

/// What is known on both sides must agree.
fn creator(goid: Goid, seen: &Seen, claim: Option<(&str, Option<Goid>)>) -> Result<(), Lie> {
    let Some((said, parent)) = claim else { return Ok(()) };
    let other_function = seen.made_by.as_deref().is_some_and(|function| without_types(function) != without_types(said));
    let other_parent = parent.is_some() && seen.parent.is_some() && parent != seen.parent;
    if !other_function && !other_parent {
        return Ok(());
    }
    let words = |function: &str, parent: Option<Goid>| match parent {
        Some(parent) => format!("{function} in goroutine {parent}"),
        None => function.to_owned(),
    };
    let truth = words(seen.made_by.as_deref().unwrap_or("another function"), seen.parent);
    Err(Lie::Creator { goid, said: words(said, parent), truth })
}

/// Dumps show type arguments as `[...]`, binaries show them whole: `main.f[go.shape.int].func1`.
pub fn without_types(function: &str) -> (&str, &str) {
    match (function.find('['), function.rfind(']')) {
        (Some(open), Some(close)) if open < close => (&function[..open], &function[close + 1..]),
        _ => (function, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(goids: impl IntoIterator<Item = u64>) -> Sight {
        let seen =
            |goid: u64| Seen { parent: Some(Goid(1)), made_by: Some("main.work[go.shape.int]".to_owned()), system: goid == 2 };
        goids.into_iter().map(|goid| (Goid(goid), seen(goid))).collect()
    }

    fn claims(goids: impl IntoIterator<Item = u64>) -> Claims<'static> {
        goids.into_iter().map(|goid| (Goid(goid), Some(("main.work[...]", Some(Goid(1)))))).collect()
    }

    /// Check that an honest dump is believed: goroutines that came and went meanwhile, the rest of old batches, system goroutines left out.
    #[test]
    fn honest() {
        let (before, after) = (sight([1, 2, 50, 100]), sight([1, 2, 100, 101]));
        assert_eq!(judge(&before, &after, &claims([1, 100]), false, 1), Ok(()));
        assert_eq!(judge(&before, &after, &claims([1, 50, 60, 61, 100, 101, 900]), false, 1), Ok(()));
        assert_eq!(judge(&before, &after, &claims([1]), true, 1), Ok(()), "a cut one may lack any");
    }

    /// Check that a dump of another process is found out, by what it lacks, what it has too much, and who made whom.
    #[test]
    fn lies() {
        let (before, after) = (sight([1, 2, 50, 100]), sight([1, 2, 50, 100]));
        let lie = judge(&before, &after, &claims([1, 100]), false, 1);
        assert_eq!(lie, Err(Lie::Lacks { count: 1, first: Goid(50) }));
        let lie = judge(&before, &after, &claims(1..=100), false, 1);
        assert_eq!(lie, Err(Lie::Invents { count: 96, first: Goid(3) }));
        let lie = judge(&before, &after, &claims([1, 50, 100].into_iter().chain(1000..1065)), false, 1);
        assert_eq!(lie, Err(Lie::Invents { count: 65, first: Goid(1000) }));
        let mut other = claims([1, 50, 100]);
        other.insert(Goid(50), Some(("main.work[...]", Some(Goid(9)))));
        assert!(matches!(judge(&before, &after, &other, false, 1), Err(Lie::Creator { goid: Goid(50), .. })));
        other.insert(Goid(50), Some(("main.play", Some(Goid(1)))));
        assert!(matches!(judge(&before, &after, &other, false, 1), Err(Lie::Creator { goid: Goid(50), .. })));
        other.insert(Goid(50), None);
        assert_eq!(judge(&before, &after, &other, false, 1), Ok(()));
    }
}
