//! The names of what goroutines wait for, and of why the world is stopped: each once, over all binaries.

use super::{ReasonId, wake::Wait};

/// Names that are told apart.
const MAX_REASONS: usize = 4096;

/// Waits during which a goroutine really runs (`runtime2.go`, `isWaitingForSuspendG`, and what a GC worker reports).
const PSEUDO_WAITS: [&str; 10] = [
    "GC assist marking",
    "GC worker (active)",
    "stopping the world",
    "GC mark termination",
    "garbage collection",
    "garbage collection scan",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "flushing proc caches",
];

/// Whether a goroutine with this reason only seems to wait.
pub(super) fn is_pseudo(name: &str) -> bool {
    PSEUDO_WAITS.contains(&name)
}

/// Names by number, and what each says of who may end the wait.
#[derive(Default)]
pub(super) struct Reasons(Vec<(String, Wait)>);

impl Reasons {
    pub fn intern(&mut self, name: &str) -> ReasonId {
        let known = self.0.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            // There are a few dozen of them, nearly the same in every Go version: more are a recording's nonsense, and not worth a search.
            if self.0.len() < MAX_REASONS {
                self.0.push((name.to_owned(), Wait::of(name)));
            }
            self.0.len() - 1
        });
        ReasonId(u16::try_from(index).unwrap_or(u16::MAX))
    }

    pub fn name(&self, id: ReasonId) -> &str {
        self.0.get(usize::from(id.0)).map_or("?", |(name, _)| name)
    }

    /// `None`: it is not known what is waited for.
    pub fn wait(&self, id: Option<ReasonId>) -> Wait {
        id.map_or(Wait::Other, |id| self.0[usize::from(id.0)].1)
    }
}
