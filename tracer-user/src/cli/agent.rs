//! `lifetrace agent`: follows whom a file chooses, one recording after the other, until somebody ends it.

use super::{
    Failure,
    args::{AgentArgs, Global},
};

#[cfg(feature = "agent")]
mod live;

#[cfg(feature = "agent")]
pub fn main(args: &AgentArgs, global: Global) -> Result<u8, Failure> {
    let config = crate::agent::config::Config::read(&args.config).map_err(Failure::usage)?;
    if args.check_config {
        super::write_output(None, |out| write!(out, "{config}"))?;
        return Ok(0);
    }
    live::serve(args, config, global).map(|()| 0)
}

#[cfg(not(feature = "agent"))]
pub fn main(_args: &AgentArgs, _global: Global) -> Result<u8, Failure> {
    Err(Failure::environment(anyhow::anyhow!("this lifetrace was built without the agent (feature \"agent\")")))
}
