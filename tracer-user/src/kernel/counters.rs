//! The BPF side's counters: summed for people, and by CPU for marks.

use aya::maps::{MapData, PerCpuArray};
use tracer_common::{counters, header::Kind};

use super::{KernelError, watermark::Reading};
use crate::{
    clock::{KtimeNs, ktime_now},
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
        signals_left_out: sum(counters::SIGNALS_LEFT_OUT)?,
        preemption_signals: sum(counters::PREEMPTION_SIGNALS)?,
        unkept: sum(counters::UNKEPT)?,
        unsummed: sum(counters::UNSUMMED)?,
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

/// How far the records of each CPU are numbered, for a mark: first the losses, then the clock, then the numbers.
pub fn numbers(table: &PerCpuArray<MapData, u64>) -> Result<Reading, KernelError> {
    let per_cpu = |index: u32| table.get(&index, 0).map(|values| values.to_vec()).map_err(KernelError::map("COUNTERS"));
    let lost = per_cpu(counters::LOST_RECORDS)?;
    let at = ktime_now();
    Ok(Reading { lost, at, next_seq: per_cpu(counters::SEQ)? })
}

/// Whether a record of this kind stands for a trap in the target; the others ride on one, or come from tracepoints.
fn is_hit(kind: Kind) -> bool {
    use Kind::*;
    match kind {
        GoroutineBirth | GoroutinePark | GoroutineParkAbort | GoroutineWake | GoroutineExit | GoroutineTransition => true,
        GoroutineWait => true,
        StopTheWorld | StartTheWorld | GcCycleStart | TestRun | UsdtHit => true,
        // Told with another, which is counted.
        GoroutineLateBirth => false,
        Stack | ProcessImage | ProcessFork | ProcessExec | ProcessExit | ProcessMet | OnCpuSample => false,
        ProcessReaped | SignalSent | SignalTaken | OomVictim | CgroupMoved => false,
        ThreadBirth | ThreadExit | ThreadOff | ThreadOn | ThreadWake | ThreadWait => false,
    }
}
