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
    /// The recording was cut out of a longer one, and tells of what happened from here on.
    pub fn cut(&mut self, from: KtimeNs) {
        self.cut = Some(from);
    }

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
        if from == Tier::T0 {
            // Who lives in those of which nothing was told was born unseen, too.
            let runs = self.processes.images().filter(|(_, image)| image.binary == Some(binary) && image.until.is_none());
            let untold: Vec<ImageId> = runs.map(|(image, _)| image).collect();
            // Where the recording begins in their middle, the first look finds who was there.
            let joins = self.cut.is_some_and(|cut| at <= cut);
            for image in untold {
                let population = self.populations.of(image);
                (population.gap, population.joining) = (true, population.joining || joins);
            }
        }
        let images: Vec<ImageId> =
            self.populations.images().filter(|image| self.processes.image(*image).binary == Some(binary)).collect();
        for image in images {
            if tier == Tier::T0 || from == Tier::T0 {
                self.close_gc(image, at, sink);
            }
            let Some(population) = self.populations.get_mut(image) else { continue };
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
