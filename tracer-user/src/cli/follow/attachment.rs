//! The probes of one program: what is needed to set them, and to set them again.

use std::{fs::File, os::fd::AsRawFd, path::PathBuf};

use tracer_common::config::GoLayout;

use crate::{
    golang::HookSite,
    id::{BinaryId, SiteId},
    kernel::{
        KernelError,
        session::{Session, Target},
    },
    recording::contract::Tier,
};

/// A program whose probes can be set.
pub(super) struct Attachment {
    pub id: BinaryId,
    /// What people call it.
    pub name: String,
    /// Exactly the file that was analysed, whatever its path names by now.
    pub file: File,
    pub layout: GoLayout,
    /// Those of the highest tier.
    pub sites: Vec<(SiteId, HookSite)>,
    /// That is this one.
    pub most: Tier,
    pub empty: bool,
    pub adopt: u8,
}

impl Attachment {
    /// Sets what a tier needs, and begins to take away what it does not.
    pub fn bring_to(&self, tier: Tier, session: &mut Session) -> Result<(), KernelError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let Self { id, layout, ref sites, empty, adopt, .. } = *self;
        session.probe_at(&Target { id, path: &path, layout, sites, empty, adopt }, tier)
    }
}
