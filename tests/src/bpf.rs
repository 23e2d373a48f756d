//! Which BPF programs and links the kernel holds, by id: bpf(2), `BPF_PROG_GET_NEXT_ID` and `BPF_LINK_GET_NEXT_ID`.

use std::{collections::BTreeSet, io, mem};

use anyhow::{Context, Result};

use crate::deadline;

/// The ids of all programs and links at one moment. Ids are never reused, so a difference of two inventories is exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub programs: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

impl Inventory {
    /// Lists them; needs root.
    pub fn take() -> Result<Self> {
        const PROG_GET_NEXT_ID: u32 = 11;
        const LINK_GET_NEXT_ID: u32 = 31;
        Ok(Self {
            programs: ids(PROG_GET_NEXT_ID).context("cannot list BPF programs")?,
            links: ids(LINK_GET_NEXT_ID).context("cannot list BPF links")?,
        })
    }

    /// What `later` has and this has not.
    #[must_use]
    pub fn new_in(&self, later: &Self) -> Self {
        Self { programs: &later.programs - &self.programs, links: &later.links - &self.links }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.links.is_empty()
    }

    /// Waits until nothing is left that was not there at this inventory.
    pub fn wait_restored(&self, patience: std::time::Duration) -> Result<()> {
        let mut left = Self::default();
        deadline::wait_for("the kernel to drop our programs and links", patience, || {
            left = self.new_in(&Self::take()?);
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("left: {left:?}"))
    }
}

/// The part of `union bpf_attr` that the `GET_NEXT_ID` commands read and write.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

fn ids(command: u32) -> io::Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    let mut attr = NextId::default();
    loop {
        // SAFETY: bpf(2): the attribute is a live, zero-extended prefix of union bpf_attr of the size given, and these commands
        // touch nothing beyond it.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, mem::size_of::<NextId>()) };
        if result == 0 {
            all.insert(attr.next_id);
            attr = NextId { start_id: attr.next_id, ..NextId::default() };
            continue;
        }
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) { Ok(all) } else { Err(error) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that only what came later counts as left over.
    #[test]
    fn difference() {
        let before = Inventory { programs: [1, 2].into(), links: [7].into() };
        let after = Inventory { programs: [2, 3].into(), links: [7].into() };
        assert_eq!(before.new_in(&after), Inventory { programs: [3].into(), links: [].into() });
        assert!(before.new_in(&before).is_empty());
    }
}
