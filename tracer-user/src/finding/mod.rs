//! Findings: what happened that explains why something was late or ended, told only where the events prove it. No leaks.
//!
//! One file a kind: [`pause`] (who waited behind a pause), [`late_timer`] (a regular timer that came late, and what covers the time),
//! [`process`] (restart loops, and who was killed because it did not end).

mod late_timer;
mod pause;
mod process;

use serde::Serialize;

pub use late_timer::LateTimer;
pub use pause::{Delays, LateOut};
pub use process::{KilledAfterTimeout, RestartLoop, RunOut};

use self::{late_timer::TimerTally, pause::PauseTally};
use crate::{
    correlate::{
        Life, Sink, Span,
        gc::{Cycle, Pause},
        goroutine::Who,
        process::ImageId,
        replay::Replayed,
    },
    id::Address,
    symbolize::{Symbolizer, is_system},
};

/// Findings told, those that are about the most time.
const MAX_FINDINGS: usize = 100;

/// Collects what findings stand on while a recording is replayed.
#[derive(Default)]
pub struct FindingTally {
    pauses: PauseTally,
    timers: TimerTally,
}

impl Sink for FindingTally {
    fn span(&mut self, who: &Who, span: &Span) {
        self.pauses.span(who, span);
        self.timers.span(who, span);
    }

    fn life(&mut self, who: &Who, _life: &Life) {
        self.timers.life(who);
    }

    fn pause(&mut self, image: ImageId, pause: &Pause) {
        self.pauses.pause(image, pause);
    }

    fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        self.timers.cycle(image, cycle);
    }
}

#[derive(Serialize)]
pub struct Finding {
    pub kind: &'static str,
    pub id: String,
    pub tgid: u32,
    pub start_ns: u64,
    pub end_ns: u64,
    pub cause: String,
    pub evidence: Evidence,
    /// How much time it is about: the most comes first.
    #[serde(skip)]
    pub weight: u64,
}

/// What a finding stands on, by its kind.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Evidence {
    /// `delayed_by_pause`.
    Pause(Delays),
    /// `late_timer`.
    Timer(LateTimer),
    /// `restart_loop`.
    Restarts(RestartLoop),
    /// `killed_after_timeout`.
    Killed(KilledAfterTimeout),
}

/// Names what was found, the longest first.
pub fn findings(replayed: &Replayed, tally: &FindingTally) -> Vec<Finding> {
    let symbols = Symbolizer::new(replayed);
    let mut found = pause::findings(replayed, &symbols, &tally.pauses);
    found.extend(late_timer::findings(replayed, &symbols, &tally.timers, &tally.pauses));
    found.extend(process::findings(replayed));
    found.sort_by_key(|finding| (std::cmp::Reverse(finding.weight), finding.tgid, finding.start_ns));
    found.truncate(MAX_FINDINGS);
    found
}

/// Whether it is one of the runtime's own goroutines that begins there.
fn is_systems(symbols: &Symbolizer<'_>, image: ImageId, startpc: Option<Address>) -> bool {
    startpc.is_some_and(|pc| is_system(&symbols.entry(image, pc).function))
}
