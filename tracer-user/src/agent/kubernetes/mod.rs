//! What Kubernetes knows of the programs of this node (docs/agent.md, Kubernetes).
//!
//! ```text
//! API server → watch (a thread of its own) → pods ─┐
//! /proc → discovery → residence ───────────────────┴→ policy (which pods) and ledger (whose series)
//! ```
//! Everything but [`watch`], `client` and `object` is pure, and there without the feature `kubernetes`: then no pod is ever known.

use std::sync::Arc;

use crate::{
    container::{self, Container},
    correlate::process::Process,
};

#[cfg(feature = "kubernetes")]
mod client;
pub mod conditions;
#[cfg(feature = "kubernetes")]
mod object;
pub mod pod;
pub mod pods;
pub mod residence;
pub mod settings;
pub mod subject;
#[cfg(feature = "kubernetes")]
pub mod watch;

use pod::Keep;
use pods::Pods;
use residence::Residents;
use settings::Settings;
use subject::Subject;

/// Who is where: discovery and the watch tell, policy and ledger ask.
#[derive(Clone, Debug, Default)]
pub struct Places {
    pub pods: Arc<Pods>,
    pub residents: Arc<Residents>,
}

impl Places {
    /// Whose series a process has a part in. `paths` are its cgroups as far as the recording names them.
    pub fn subject<'a>(&self, program: Arc<str>, process: &Process, paths: impl Iterator<Item = &'a str>) -> Subject {
        if !self.pods.on() {
            return Subject::of(program);
        }
        self.container(process, paths)
            .map_or_else(|| Subject::of(Arc::clone(&program)), |container| self.within(&program, &container))
    }

    fn within(&self, program: &Arc<str>, container: &Container) -> Subject {
        let Some(pod) = self.pods.of(container) else { return Subject::of(Arc::clone(program)) };
        let name = container.id.as_deref().and_then(|id| pod.container(id));
        Subject {
            program: Arc::clone(program),
            namespace: Arc::clone(&pod.namespace),
            pod: Arc::clone(&pod.name),
            container: name.map_or_else(Arc::default, Arc::clone),
        }
    }

    /// The container that a process is in. Who was gone before /proc was looked at was where its parent is.
    pub fn container<'a>(&self, process: &Process, mut paths: impl Iterator<Item = &'a str>) -> Option<Arc<Container>> {
        let start = process.key.map(|key| key.start_ticks);
        let told = paths.find_map(container::of_path).map(Arc::new);
        let seen = || self.residents.of(process.tgid, start);
        told.or_else(seen).or_else(|| self.residents.of(process.parent?, None))
    }
}

/// The watch, as the agent's file wants it.
pub struct Awareness {
    pub places: Places,
    wanted: Option<(Settings, Keep)>,
    #[cfg(feature = "kubernetes")]
    watch: Option<watch::Watch>,
}

impl Awareness {
    /// Knows nothing yet: rights have to be given up before there are threads.
    pub fn none() -> Self {
        Self {
            places: Places::default(),
            wanted: None,
            #[cfg(feature = "kubernetes")]
            watch: None,
        }
    }

    /// Watches as is wanted from here on; where nothing changed, what is watched goes on.
    pub fn want(&mut self, wanted: Option<(Settings, Keep)>) {
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        #[cfg(feature = "kubernetes")]
        self.renew();
    }

    #[cfg(feature = "kubernetes")]
    fn renew(&mut self) {
        // One at a time: the last one must not tell what nobody wants any more.
        self.watch = None;
        self.places.pods.turn(false);
        let Some((settings, keep)) = self.wanted.clone() else { return };
        match watch::Watch::start(settings, keep, Arc::clone(&self.places.pods)) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => tracing::warn!(%error, "nobody can watch pods: no thread"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{
        pod::{Pod, tests::raw},
        *,
    };
    use crate::{
        clock::KtimeNs,
        correlate::process::{ProcessId, Processes},
        id::{ProcessKey, Tgid},
    };

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Check that a process is its pod's by the cgroup that the recording names, else by what /proc said of it, else by its parent; and
    /// nobody's where the pod is not known, or nobody watches.
    #[test]
    fn subjects() {
        let places = Places::default();
        let mut processes = Processes::default();
        processes.running(Tgid(7), KtimeNs(1)).unwrap();
        let mut process = processes.process(ProcessId(0)).clone();
        let path = format!("/kubepods/podx/cri-containerd-{ID}.scope");
        let of = |process: &Process, paths: &[&str]| places.subject("/app".into(), process, paths.iter().copied()).to_string();
        places.pods.apply(Pod::of(&raw("shop", "orders-0", &[("app", ID)]), &Keep::default()).unwrap().0, Instant::now());
        assert_eq!(of(&process, &[&path]), "/app", "nobody watches");
        places.pods.turn(true);
        assert_eq!(of(&process, &["/", &path]), "/app in shop/orders-0/app");
        assert_eq!(of(&process, &[&path.replace('0', "1")]), "/app", "of a pod that is not known");
        assert_eq!(of(&process, &["/"]), "/app");
        let container = container::of_path(&path).unwrap();
        places.residents.note(ProcessKey { tgid: Tgid(7), start_ticks: 5 }, &container, Instant::now());
        assert_eq!(of(&process, &["/"]), "/app in shop/orders-0/app");
        process.key = Some(ProcessKey { tgid: Tgid(7), start_ticks: 6 });
        assert_eq!(of(&process, &["/"]), "/app", "another one with its number");
        (process.tgid, process.parent) = (Tgid(8), Some(Tgid(7)));
        assert_eq!(of(&process, &[]), "/app in shop/orders-0/app", "as its parent");
        let by_pod = Container { pod_uid: Some("uid-of-orders-0".to_owned()), ..Container::default() };
        assert_eq!(places.within(&"/app".into(), &by_pod).to_string(), "/app in shop/orders-0/");
    }
}
