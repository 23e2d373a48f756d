//! The view of what runs now.

use super::{
    super::{
        Failure,
        args::{AttachArgs, BesideArgs, Global, PprofArgs, TargetArg, TopArgs, UsdtTableArg},
        attach::Following,
        colored, piped,
    },
    show,
};
use crate::{kernel::signals::Inherited, top::state::Level};

/// The cgroup that everybody is in.
const ROOT: &str = "/";

/// Follows, and shows, until somebody quits.
pub fn follow(args: &TopArgs, global: Global) -> Result<(), Failure> {
    let attach = as_attach(args);
    let name = args.target.pid.map_or_else(|| "--all".to_owned(), |pid| format!("--pid {pid}"));
    let level = if args.target.all { Level::Processes } else { Level::Sites };
    let following = Following::prepare(&attach, name).map_err(piped::coded)?;
    Inherited::set_aside().map_err(Failure::environment)?;
    let pass = |pipe| Box::new(pipe) as piped::Passed;
    piped::follow(following, pass, || (), |recording, stop| show::live(recording, level, colored(global, None), stop))
}

fn as_attach(args: &TopArgs) -> AttachArgs {
    AttachArgs {
        target: TargetArg { pid: args.target.pid, exe: None, cgroup: args.target.all.then(|| ROOT.into()) },
        output: piped::NAME.into(),
        duration: None,
        detail: args.detail.clone(),
        knobs: args.knobs.clone(),
        beside: BesideArgs { with_pid: Vec::new() },
        pprof: PprofArgs::default(),
        usdt: UsdtTableArg::default(),
    }
}
