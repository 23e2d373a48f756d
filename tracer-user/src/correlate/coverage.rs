//! What is followed changes: from when on which events are believed, and what a step means for who lives.

use super::{Engine, Sink, process::ImageId};
use crate::{clock::KtimeNs, event::What, id::BinaryId, recording::contract::Tier};

/// The tier whose probes make an event.
pub(super) fn needs(what: &What) -> Tier {
    match what {
        What::GoroutineBirth { .. } | What::GoroutineLateBirth { .. } | What::GoroutineExit { .. } | What::TestRun { .. } => {
            Tier::T1
        }
        What::StopTheWorld { .. } | What::StartTheWorld { .. } | What::GcCycleStart { .. } => Tier::T1,
        What::GoroutinePark { .. }
        | What::GoroutineParkAbort { .. }
        | What::GoroutineWake { .. }
        | What::GoroutineWait { .. } => Tier::T2,
        What::GoroutineTransition { .. } => Tier::T3,
        _ => Tier::T0,
    }
}

impl Engine {
    /// From here on the processes of a binary are followed at a tier.
    pub fn cover(&mut self, binary: BinaryId, tier: Tier, at: KtimeNs, sink: &mut impl Sink) {
        let Some(program) = self.programs.get_mut(binary) else { return };
        let from = std::mem::replace(&mut program.tier, tier);
        if from == Tier::T0 || tier == Tier::T0 {
            program.gap_until = Some(at);
        }
        let gaps = program.gap_until.is_some();
        if from == tier {
            return;
        }
        let images: Vec<ImageId> =
            self.populations.images().filter(|image| self.processes.image(*image).binary == Some(binary)).collect();
        for image in images {
            if tier == Tier::T0 || from == Tier::T0 {
                self.close_gc(image, at, sink);
            }
            let Some(population) = self.populations.get_mut(image) else { continue };
            population.gap |= from == Tier::T0;
            population.left.clear();
            for goroutine in population.live.iter_mut() {
                goroutine.covered(tier, at, &mut |who, span| sink.span(who, &span));
            }
            if gaps {
                sink.covered(image, tier, at);
            }
        }
    }
}
