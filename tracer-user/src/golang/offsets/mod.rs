//! Where things are in a Go runtime's structures, what its wait reasons are called, and how far that can be trusted.
//!
//! Sources, best first: the debug information of the binary itself; [`table`], which `cargo xtask offsets` generates out of the
//! toolchains, for the releases it names; the table's entry of another release of the same minor version, which holds only if the
//! process itself bears it out ([`crate::snapshot::self_check`]). Neither the offsets nor the numbers of the reasons move
//! monotonically, so a minor version that nothing is known of is refused, not guessed.

mod table;
mod wait_reasons;

use serde::{Deserialize, Serialize};
use tracer_common::config::{GoLayout, MAX_OFFSET};

use self::table::Entry;
pub use self::{table::minors as known_minors, wait_reasons::SYMBOL as WAIT_REASONS_SYMBOL};
use super::{debug_info::Structure, elf::Elf, snapshot_layout::SnapshotLayout, version::GoVersion};
use crate::recording::contract::OffsetsSource;

/// The structures that [`Offsets`] are taken from (`runtime/runtime2.go`, `runtime/chan.go`, `runtime/coro.go`).
pub const STRUCTURES: &[&str] =
    &["runtime.g", "runtime.m", "runtime.p", "runtime.gobuf", "runtime.stack", "runtime.sudog", "runtime.hchan", "runtime.coro"];

/// Offsets in bytes, on amd64. `None`: this version has no such member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offsets {
    pub g_size: u32,
    /// Lowest address of the stack, and the one behind its highest.
    pub g_stack_lo: u32,
    pub g_stack_hi: u32,
    pub g_m: u32,
    pub g_sched_sp: u32,
    pub g_sched_pc: u32,
    pub g_sched_bp: u32,
    pub g_syscallsp: u32,
    pub g_syscallpc: u32,
    /// Came with Go 1.23.
    pub g_syscallbp: Option<u32>,
    pub g_atomicstatus: u32,
    pub g_goid: u32,
    pub g_waitsince: u32,
    pub g_waitreason: u32,
    pub g_lockedm: u32,
    /// Came with Go 1.21.
    pub g_parent_goid: Option<u32>,
    pub g_gopc: u32,
    pub g_startpc: u32,
    /// Came with Go 1.23.
    pub g_coroarg: Option<u32>,
    pub g_waiting: u32,
    pub g_labels: u32,
    pub m_g0: u32,
    pub m_gsignal: u32,
    pub m_procid: u32,
    pub m_curg: u32,
    pub m_p: u32,
    /// What gopark was given as lock, from before the goroutine stops until it has. 0: nobody knows.
    pub m_waitlock: u32,
    pub p_id: u32,
    pub p_status: u32,
    pub sudog_g: u32,
    pub sudog_elem: u32,
    pub sudog_waitlink: u32,
    pub sudog_c: u32,
    pub hchan_lock: u32,
    /// Came with Go 1.23; the linker leaves the structure out where no program part uses it.
    pub coro_f: Option<u32>,
}

impl Offsets {
    /// Out of the structures as debug information has them; `None` where something is missing or beyond belief.
    pub fn of(structures: &[Structure]) -> Option<Self> {
        let structure = |name: &str| structures.iter().find(|s| s.name.strip_prefix("runtime.") == Some(name));
        let optional = |of: &str, member: &str| u32::try_from(structure(of)?.member(member)?).ok();
        let inside = |of: &str, member: &str, inner: &str, last: &str| optional(of, member)?.checked_add(optional(inner, last)?);
        let this = Self {
            g_size: u32::try_from(structure("g")?.size).ok()?,
            g_stack_lo: inside("g", "stack", "stack", "lo")?,
            g_stack_hi: inside("g", "stack", "stack", "hi")?,
            g_m: optional("g", "m")?,
            g_sched_sp: inside("g", "sched", "gobuf", "sp")?,
            g_sched_pc: inside("g", "sched", "gobuf", "pc")?,
            g_sched_bp: inside("g", "sched", "gobuf", "bp")?,
            g_syscallsp: optional("g", "syscallsp")?,
            g_syscallpc: optional("g", "syscallpc")?,
            g_syscallbp: optional("g", "syscallbp"),
            g_atomicstatus: optional("g", "atomicstatus")?,
            g_goid: optional("g", "goid")?,
            g_waitsince: optional("g", "waitsince")?,
            g_waitreason: optional("g", "waitreason")?,
            g_lockedm: optional("g", "lockedm")?,
            g_parent_goid: optional("g", "parentGoid"),
            g_gopc: optional("g", "gopc")?,
            g_startpc: optional("g", "startpc")?,
            g_coroarg: optional("g", "coroarg"),
            g_waiting: optional("g", "waiting")?,
            g_labels: optional("g", "labels")?,
            m_g0: optional("m", "g0")?,
            m_gsignal: optional("m", "gsignal")?,
            m_procid: optional("m", "procid")?,
            m_curg: optional("m", "curg")?,
            m_p: optional("m", "p")?,
            m_waitlock: optional("m", "waitlock")?,
            p_id: optional("p", "id")?,
            p_status: optional("p", "status")?,
            sudog_g: optional("sudog", "g")?,
            sudog_elem: optional("sudog", "elem")?,
            sudog_waitlink: optional("sudog", "waitlink")?,
            sudog_c: optional("sudog", "c")?,
            hchan_lock: optional("hchan", "lock")?,
            coro_f: optional("coro", "f"),
        };
        this.is_usable().then_some(this)
    }

    /// Whether the programs of the BPF side, and a snapshot, can work with it.
    fn is_usable(&self) -> bool {
        let in_g = [
            Some(self.g_stack_hi),
            Some(self.g_m),
            Some(self.g_sched_sp),
            Some(self.g_sched_pc),
            Some(self.g_sched_bp),
            Some(self.g_syscallsp),
            Some(self.g_syscallpc),
            self.g_syscallbp,
            Some(self.g_goid),
            Some(self.g_waitsince),
            Some(self.g_waitreason),
            Some(self.g_lockedm),
            Some(self.g_startpc),
            Some(self.g_labels),
            Some(self.g_waiting),
        ];
        let fits = in_g.into_iter().flatten().all(|offset| offset.checked_add(8).is_some_and(|end| end <= self.g_size));
        // These are read as one: see GoLayout, and the status with the goid behind it.
        let together = self.g_gopc.checked_add(16) == Some(self.g_startpc)
            && self.g_parent_goid.is_none_or(|parent| parent.checked_add(8) == Some(self.g_gopc))
            && self.g_atomicstatus.checked_add(8) == Some(self.g_goid);
        fits && together
            && self.g_size <= MAX_OFFSET
            && self.m_curg.max(self.m_waitlock) < MAX_OFFSET
            && self.hchan_lock.max(self.sudog_g).max(self.sudog_c).max(self.sudog_waitlink) < MAX_OFFSET
    }

    /// Those of the table, for tests.
    #[cfg(test)]
    pub fn of_minor(minor: u32) -> Self {
        table::of_minor(minor).expect("the table knows it").offsets
    }

    /// What the BPF side needs.
    pub fn go_layout(&self) -> GoLayout {
        GoLayout {
            valid: 1,
            g_goid: self.g_goid,
            has_parent_goid: u32::from(self.g_parent_goid.is_some()),
            g_gopc: self.g_gopc,
            g_m: self.g_m,
            m_curg: self.m_curg,
            g_sched_pc: self.g_sched_pc,
            g_sched_bp: self.g_sched_bp,
            // The tier says it.
            scheduling: 0,
            // A matter of the build: the binary's code tells.
            g_tls: 0,
            g_waitreason: self.g_waitreason,
            m_waitlock: self.m_waitlock,
            // By the code.
            semaphore_reasons: 0,
            // It is asked for.
            min_block_ns: 0,
            summing_since: 0,
        }
    }
}

/// What is known of a binary's runtime.
#[derive(Debug)]
pub struct Runtime {
    pub source: OffsetsSource,
    /// Whether it may be used only where the process bears it out.
    pub needs_self_check: bool,
    pub offsets: Offsets,
    pub snapshot: SnapshotLayout,
    pub wait_reasons: &'static [&'static str],
}

impl Runtime {
    /// By the best source there is; `None`: nothing is known of this version.
    pub fn choose(version: &GoVersion, structures: &[Structure], elf: &Elf, reasons_at: Option<(u64, u64)>) -> Option<Self> {
        let (major, minor) = version.release();
        let newest = (major == 1).then(|| table::of_minor(minor)).flatten();
        let own_reasons = reasons_at.and_then(|(address, bytes)| wait_reasons::read(elf, address, bytes));
        let build = |source, offsets, needs_self_check, entry: Option<&'static Entry>| {
            let wait_reasons = own_reasons.or(entry.map(|entry| entry.wait_reasons.as_slice()))?;
            Some(Self { source, needs_self_check, snapshot: SnapshotLayout::of(&offsets), offsets, wait_reasons })
        };
        if let Some(offsets) = Offsets::of(structures) {
            return build(OffsetsSource::Dwarf, offsets, newest.is_none(), newest);
        }
        let newest = newest.filter(|_| !version.is_development())?;
        if let Some((entry, release)) = version.plain_release().and_then(table::exact) {
            let source = OffsetsSource::Table { release: release.to_owned() };
            return build(source, entry.offsets, false, Some(entry));
        }
        // It moved between Go 1.24.3 and 1.24.11, and no process can bear it out.
        let offsets = Offsets { m_waitlock: 0, ..newest.offsets };
        build(OffsetsSource::TableUnverified { minor }, offsets, true, Some(newest))
    }
}

#[cfg(test)]
mod tests;
