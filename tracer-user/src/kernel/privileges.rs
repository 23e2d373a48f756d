//! Giving up the rights that following programs does not need: capabilities(7), `PR_SET_NO_NEW_PRIVS` of prctl(2).

use std::thread;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use super::features;

/// Loading programs, setting probes, reading memory, reading files.
const NEEDED: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Why rights could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    #[error("capabilities cannot be dropped")]
    Capabilities(#[from] CapsError),
    #[error("no_new_privs cannot be set")]
    NoNewPrivileges(#[from] nix::Error),
}

/// What cannot be done with the rights that there are; empty: everything can.
pub fn missing() -> Vec<&'static str> {
    let consequences = [
        (
            Capability::CAP_SYS_PTRACE,
            "without CAP_SYS_PTRACE other users' programs are not found, and nobody's goroutines are read",
        ),
        (Capability::CAP_DAC_READ_SEARCH, "without CAP_DAC_READ_SEARCH only programs that everybody may read are followed"),
    ];
    let lacks = |capability| !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(true);
    consequences.into_iter().filter(|(capability, _)| lacks(*capability)).map(|(_, consequence)| consequence).collect()
}

/// Gives up all but the needed of those that this thread, and those that it starts, have; nobody gets any back by executing something. Whether
/// CAP_SYS_ADMIN had to be kept, because this kernel sets no probes without.
pub fn give_up() -> Result<bool, PrivilegeError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let mut kept: CapsHashSet = NEEDED.into_iter().filter(|needed| held.contains(needed)).collect();
    let admin = held.contains(&Capability::CAP_SYS_ADMIN) && cannot_probe_with(kept.clone());
    if admin {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    // Needs CAP_SETPCAP, which goes below: whoever lacks it gains nothing by the bounding set.
    let bounded = if held.contains(&Capability::CAP_SETPCAP) { cut_bounding_set(&kept) } else { Ok(()) };
    // Whatever became of that, what can be done now is what counts.
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    nix::sys::prctl::set_no_new_privs()?;
    bounded.map(|()| admin)
}

/// Tried by a thread that gives up the others for it: rights are each thread's own.
fn cannot_probe_with(rights: CapsHashSet) -> bool {
    let tried = thread::spawn(move || caps::set(None, CapSet::Effective, &rights).is_ok() && features::perf_is_closed());
    tried.join().unwrap_or(false)
}

fn cut_bounding_set(kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    for capability in caps::all() {
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability)? {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}
