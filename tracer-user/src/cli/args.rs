//! STUB
use crate::recording::contract::Tier;
pub struct Global {
    pub quiet: bool,
}
pub struct RunArgs {
    pub command: Vec<std::ffi::OsString>,
    pub output: Option<std::path::PathBuf>,
    pub user: Option<String>,
    pub as_root: bool,
    pub tier: Tier,
    pub ring_mib: Option<u32>,
    pub max_processes: Option<u32>,
    pub empty_probes: bool,
    pub global: Global,
}
