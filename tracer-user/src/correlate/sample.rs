//! CPU samples, joined with whose they are.

use crate::{
    clock::KtimeNs,
    event::{Event, Runner, What},
    id::{StackId, Tid},
};

use super::{Engine, Sink, goroutine::Who, process::ImageId};

/// A tick of the sampling clock that met a process on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at: KtimeNs,
    pub tid: Tid,
    pub runner: Runner,
    /// Who the runner is, where more than its number is known.
    pub who: Option<Who>,
    /// The user stack, the interrupted instruction first.
    pub stack: Option<StackId>,
    pub in_kernel: bool,
    /// The CPU time that it stands for.
    pub ns: u64,
}

impl Engine {
    /// A sample tells that a goroutine runs, but begins no life: what is known of goroutines does not depend on it.
    pub(super) fn sample_event(&mut self, image: ImageId, event: &Event, sink: &mut impl Sink) {
        let What::OnCpuSample { runner, stack, in_kernel, period_ns } = event.what else { return };
        let who = match runner {
            Runner::Goroutine(goid) => {
                let live = self.populations.get(image).and_then(|population| population.live.get(goid));
                live.map(|goroutine| goroutine.who)
            }
            Runner::Nobody | Runner::Unknown => None,
        };
        sink.sample(image, &Sample { at: event.at, tid: event.tid, runner, who, stack, in_kernel, ns: u64::from(period_ns) });
    }
}
