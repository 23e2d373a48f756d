//! Whose a process number was: numbers are used again.

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    correlate::{
        process::{Process, ProcessId},
        replay::Replayed,
    },
    id::Tgid,
};

/// The processes of a recording, by number.
pub struct Owners<'a>(FxHashMap<Tgid, Vec<(ProcessId, &'a Process)>>);

impl<'a> Owners<'a> {
    pub fn new(replayed: &'a Replayed) -> Self {
        let mut by_tgid: FxHashMap<Tgid, Vec<_>> = FxHashMap::default();
        for (id, process) in replayed.engine.processes().processes() {
            by_tgid.entry(process.tgid).or_default().push((id, process));
        }
        Self(by_tgid)
    }

    /// Who had a number at a time; else who had it last: what the kernel told of a process may be a moment late.
    pub fn at(&self, tgid: Tgid, at: KtimeNs) -> Option<ProcessId> {
        let all = self.0.get(&tgid)?;
        let lived = |process: &Process| process.first_seen <= at && process.ended.is_none_or(|(end, _)| at <= end);
        all.iter().rev().find(|(_, process)| lived(process)).or(all.last()).map(|(id, _)| *id)
    }
}
