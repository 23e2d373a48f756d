//! What is said of single processes: of which there may be very many, so that a log would hold nothing else.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines in so long.
const MOST: u32 = 20;
const WHILE: Duration = Duration::from_secs(60);

static SAID: Mutex<Said> = Mutex::new(Said { since: None, lines: 0, left_out: 0 });

struct Said {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Said {
    /// Whether a line may be said now, and how many were left out before it.
    fn may(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WHILE) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == MOST {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(mem::take(&mut self.left_out))
    }
}

/// Warns of a process, unless much was said of late; the recording has each all the same.
pub fn warn(text: &str) {
    let may = SAID.lock().unwrap_or_else(PoisonError::into_inner).may(Instant::now());
    match may {
        Some(0) => tracing::warn!("{text}"),
        Some(left_out) => tracing::warn!("{text} (of other processes {left_out} lines were left out before)"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that only so many lines are said in a while, and that the next one tells how many were not.
    #[test]
    fn few() {
        let (mut said, now) = (Said { since: None, lines: 0, left_out: 0 }, Instant::now());
        let lines = (0..100).filter(|_| said.may(now).is_some()).count();
        assert_eq!(lines, MOST as usize);
        assert_eq!(said.may(now + WHILE), Some(100 - u64::from(MOST)));
        assert_eq!(said.may(now + WHILE), Some(0));
    }
}
