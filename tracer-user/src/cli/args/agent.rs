//! What the agent is told.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Whom to follow and what to serve, in TOML (docs/agent.md); read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Read the file, say what it means, and end
    #[arg(long)]
    pub check_config: bool,
}
