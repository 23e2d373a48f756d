//! The BPF side's counters, summed for people.

use aya::maps::{MapData, PerCpuArray};
use tracer_common::{counters, header::Kind};

use super::KernelError;
use crate::{
    clock::KtimeNs,
    recording::contract::{Counters, KindCount, Lost},
};

/// Reads every counter once. `delivered` are the records that reached the reader, by kind: with the lost ones they are the
/// hits that counted.
pub fn read(
    table: &PerCpuArray<MapData, u64>,
    delivered: &[u64; Kind::LIMIT as usize],
    at: KtimeNs,
) -> Result<Counters, KernelError> {
    let per_cpu = |index: u32| table.get(&index, 0).map_err(KernelError::map("COUNTERS"));
    let sum = |index: u32| per_cpu(index).map(|values| values.iter().sum::<u64>());
    let mut read = Counters {
        at,
        foreign_hits: sum(counters::FOREIGN_HITS)?,
        duplicate_hits: sum(counters::DUPLICATE_HITS)?,
        failed_swaps: sum(counters::FAILED_SWAPS)?,
        no_scratch: sum(counters::NO_SCRATCH)?,
        faults: sum(counters::FAULTS)?,
        processes_refused: sum(counters::PROCESSES_REFUSED)?,
        ticks: sum(counters::TICKS)?,
        ..Counters::default()
    };
    for kind in Kind::ALL {
        let hits = delivered[kind as usize] + sum(counters::LOST + kind as u32)?;
        if hits > 0 && is_hit(kind) {
            read.hits.push(KindCount { kind: kind as u8, count: hits });
        }
        for (cpu, &count) in per_cpu(counters::LOST + kind as u32)?.iter().enumerate() {
            if count > 0 {
                read.lost.push(Lost { cpu: cpu as u16, kind: kind as u8, count });
            }
        }
    }
    Ok(read)
}

/// Whether a record of this kind stands for a trap in the target; the others ride on one, or come from tracepoints.
fn is_hit(kind: Kind) -> bool {
    use Kind::*;
    match kind {
        GoroutineBirth | GoroutinePark | GoroutineParkAbort | GoroutineWake | GoroutineExit | GoroutineTransition => true,
        StopTheWorld | StartTheWorld | GcCycleStart => true,
        Stack | ProcessImage | ProcessFork | ProcessExec | ProcessExit | ProcessMet | OnCpuSample => false,
    }
}
