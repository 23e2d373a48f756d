//! Where things are: the checkout, and the folders that the set-up may fill.

use std::path::{Path, PathBuf};

/// The top of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// What the set-up fetches and builds once: toolchains and tools. `LIFETRACE_CACHE` moves it.
pub fn cache() -> PathBuf {
    std::env::var_os("LIFETRACE_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from)
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
