//! What the terminal view shows.

use std::path::PathBuf;

use clap::Args;

use super::{DetailArgs, Knobs};

#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub target: TopTarget,
    #[command(flatten)]
    pub detail: DetailArgs,
    #[command(flatten)]
    pub knobs: Knobs,
}

/// What is looked at.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TopTarget {
    /// This process, and the processes that it starts
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// Every Go process of this host, now or later
    #[arg(long)]
    pub all: bool,
    /// This recording, as it was at its end
    #[arg(value_name = "REC")]
    pub recording: Option<PathBuf>,
}
