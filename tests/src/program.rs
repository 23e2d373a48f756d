//! Programs that nobody here wrote, as `cargo xtask test` has fetched them.

use std::{env, path::PathBuf};

use crate::fixture;

/// A program of the folder that `LIFETRACE_PROGRAMS` names, by default the set-up's own: `etcd/bin/etcdctl`.
#[must_use]
pub fn fetched(path: &str) -> PathBuf {
    let usual = || fixture::target_dir().with_file_name(".cache").join("programs");
    env::var_os("LIFETRACE_PROGRAMS").map_or_else(usual, PathBuf::from).join(path)
}
