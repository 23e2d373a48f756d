//! The seam to the subcommands that need the kernel.

use super::{
    Failure,
    args::{AttachArgs, DoctorArgs, Global, LeaksArgs, RunArgs, SnapshotArgs, UsdtArgs},
};

#[cfg(feature = "live")]
mod with_kernel {
    use std::io;

    use super::{super::*, AttachArgs, DoctorArgs, Failure, Global, LeaksArgs, RunArgs, SnapshotArgs, UsdtArgs};

    /// `lifetrace run`: CMD's status, or a failure of ours.
    pub fn run(args: &RunArgs, global: Global) -> Result<u8, Failure> {
        run::run(args, global).map_err(|error| coded(error, OURS))
    }

    /// `lifetrace attach`.
    pub fn attach(args: &AttachArgs, global: Global) -> Result<u8, Failure> {
        attach::attach(args, global).map_err(|error| coded(error, ENVIRONMENT))
    }

    /// `lifetrace leaks` of what is not recorded yet.
    pub fn leaks(args: &LeaksArgs, global: Global) -> Result<u8, Failure> {
        match args.pid {
            Some(pid) => leaks::command::judge_process(args, pid, global).map_err(|error| coded(error, ENVIRONMENT)),
            None => leaks::command::judge(args, global).map_err(|error| coded(error, OURS)),
        }
    }

    /// `lifetrace doctor`.
    pub fn doctor(args: &DoctorArgs, _global: Global) -> Result<u8, Failure> {
        doctor::doctor(args, &mut io::stdout().lock()).map_err(|error| coded(error, USAGE))
    }

    /// `lifetrace snapshot`.
    pub fn snapshot(args: &SnapshotArgs, global: Global) -> Result<u8, Failure> {
        snapshot::snapshot(args, global).map(|()| 0)
    }

    /// `lifetrace usdt`.
    pub fn usdt(args: &UsdtArgs, _global: Global) -> Result<u8, Failure> {
        match &args.command {
            args::UsdtCommand::List(args) => usdt::list(args).map(|()| 0),
        }
    }

    /// `lifetrace exec-gate`.
    pub fn exec_gate() -> Result<u8, Failure> {
        crate::kernel::gate::server::serve().map(|()| 0).map_err(Failure::environment)
    }

    /// The failure inside an error, or the error with a code.
    fn coded(error: anyhow::Error, code: u8) -> Failure {
        error.downcast::<Failure>().unwrap_or_else(|error| Failure { code, error })
    }
}

#[cfg(not(feature = "live"))]
mod with_kernel {
    use anyhow::anyhow;

    use super::{AttachArgs, DoctorArgs, Failure, Global, LeaksArgs, RunArgs, SnapshotArgs, UsdtArgs};

    pub fn run(_args: &RunArgs, _global: Global) -> Result<u8, Failure> {
        Err(absent("run"))
    }

    pub fn attach(_args: &AttachArgs, _global: Global) -> Result<u8, Failure> {
        Err(absent("attach"))
    }

    pub fn leaks(_args: &LeaksArgs, _global: Global) -> Result<u8, Failure> {
        Err(absent("leaks -- CMD"))
    }

    pub fn doctor(_args: &DoctorArgs, _global: Global) -> Result<u8, Failure> {
        Err(absent("doctor"))
    }

    pub fn snapshot(_args: &SnapshotArgs, _global: Global) -> Result<u8, Failure> {
        Err(absent("snapshot"))
    }

    pub fn usdt(_args: &UsdtArgs, _global: Global) -> Result<u8, Failure> {
        Err(absent("usdt"))
    }

    pub fn exec_gate() -> Result<u8, Failure> {
        Err(absent("exec-gate"))
    }

    fn absent(name: &str) -> Failure {
        Failure::environment(anyhow!(
            "this lifetrace was built without the tracer (feature \"live\"), so it cannot {name}; it reads recordings"
        ))
    }
}

pub use with_kernel::{attach, doctor, exec_gate, leaks, run, snapshot, usdt};
