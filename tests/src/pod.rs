//! Programs in pods, as far as the kernel and an agent's file are concerned.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    agent::Metrics,
    api_server::{ApiServer, PodOf},
    cgroup::Cgroup,
    fixture,
    process::Running,
};

/// A program in a container, as the kubelet and containerd make its cgroup.
pub struct InPod {
    pub running: Running,
    pub program: PathBuf,
    pub pod: PodOf,
    _container: Cgroup,
    _slice: Cgroup,
}

impl InPod {
    /// Starts the order service, which leaks 50 goroutines, in a container called `app`.
    pub fn start(top: &Cgroup, dir: &Path, pod: PodOf) -> Result<Self> {
        let program = fixture::copied(&fixture::orders()?, &dir.join(pod.name))?;
        let id = format!("{:0>64}", pod.uid.replace('-', ""));
        let slice = top.below(&format!("kubepods-pod{}.slice", pod.uid.replace('-', "_")))?;
        let container = slice.below(&format!("cri-containerd-{id}.scope"))?;
        let mut command = container.command(&program);
        command.args(["-leak", "afterfunc", "-n", "50", "-rate", "50", "-for", "600s"]);
        let running = Running::start(command, None)?;
        Ok(Self { running, program, pod: pod.with("app", &id), _container: container, _slice: slice })
    }

    #[must_use]
    pub fn label(&self) -> String {
        format!("program=\"{}\"", self.program.display())
    }

    /// All that tells its series apart.
    #[must_use]
    pub fn labels(&self) -> String {
        let PodOf { namespace, name, .. } = self.pod;
        format!("{},namespace=\"{namespace}\",pod=\"{name}\",container=\"app\"", self.label())
    }

    #[must_use]
    pub fn alive(&self, metrics: &Metrics) -> Option<f64> {
        metrics.sum("lifetrace_goroutines", &[&self.labels(), "time.goFunc"])
    }
}

/// An agent's file that asks this server for the pods of the node that it knows.
pub fn asking(server: &ApiServer, dir: &Path, more: &str) -> Result<String> {
    let kubeconfig = dir.join("kubeconfig");
    server.kubeconfig(&kubeconfig)?;
    Ok(format!("node = \"n1\"\nbudget = \"none\"\n[kubernetes]\nkubeconfig = {kubeconfig:?}\n{more}"))
}
