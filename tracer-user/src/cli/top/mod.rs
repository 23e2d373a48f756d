//! `lifetrace top`: what lives now, on the terminal; or what lived at the end of a recording.

use super::{
    Failure,
    args::{Global, TopArgs},
};

#[cfg(all(feature = "live", feature = "top"))]
mod live;
#[cfg(feature = "top")]
mod show;

/// The view, until somebody quits.
#[cfg(feature = "top")]
pub fn main(args: &TopArgs, global: Global) -> Result<u8, Failure> {
    use std::io::{self, IsTerminal};

    use anyhow::anyhow;

    if !io::stdout().is_terminal() {
        let instead = "use `lifetrace report` or `lifetrace snapshot`";
        return Err(Failure::usage(anyhow!("top draws on a terminal, and stdout is none: {instead}")));
    }
    let Some(path) = &args.target.recording else { return follow(args, global) };
    if args.detail.tier.is_some() || args.detail.budget.is_some() {
        return Err(Failure::usage(anyhow!("a recording has the detail that it has: leave out --tier and --budget")));
    }
    let recording = crate::recording::reader::Recording::open(path).map_err(Failure::usage)?;
    show::recorded(recording, super::colored(global, None)).map(|()| 0)
}

#[cfg(all(feature = "live", feature = "top"))]
fn follow(args: &TopArgs, global: Global) -> Result<u8, Failure> {
    live::follow(args, global).map(|()| 0)
}

#[cfg(all(not(feature = "live"), feature = "top"))]
fn follow(_args: &TopArgs, _global: Global) -> Result<u8, Failure> {
    Err(Failure::environment(anyhow::anyhow!(
        "this lifetrace was built without the tracer (feature \"live\"), so it can show recordings alone"
    )))
}

#[cfg(not(feature = "top"))]
pub fn main(_args: &TopArgs, _global: Global) -> Result<u8, Failure> {
    Err(Failure::environment(anyhow::anyhow!("this lifetrace was built without the terminal view (feature \"top\")")))
}
