//! The BPF side's counters, summed for people.

use aya::maps::{MapData, PerCpuArray};
use tracer_common::{counters, header::Kind};

use super::KernelError;
use crate::{
    clock::KtimeNs,
    recording::contract::{Counters, KindCount, Lost},
};

/// Reads every counter once.
pub fn read(table: &PerCpuArray<MapData, u64>, at: KtimeNs) -> Result<Counters, KernelError> {
    let per_cpu = |index: u32| table.get(&index, 0).map_err(KernelError::map("COUNTERS"));
    let sum = |index: u32| per_cpu(index).map(|values| values.iter().sum::<u64>());
    let mut read = Counters {
        at,
        foreign_hits: sum(counters::FOREIGN_HITS)?,
        duplicate_hits: sum(counters::DUPLICATE_HITS)?,
        faults: sum(counters::FAULTS)?,
        processes_refused: sum(counters::PROCESSES_REFUSED)?,
        ..Counters::default()
    };
    for kind in Kind::ALL {
        let hits = sum(counters::HITS + kind as u32)?;
        if hits > 0 {
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
