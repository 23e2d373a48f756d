//! Whose telemetry it is: attributes of resources by OpenTelemetry's semantic conventions.

use std::{fs, ops::RangeInclusive};

use opentelemetry_proto::tonic::{common::v1::KeyValue, resource::v1::Resource};

use super::attributes::{digest, number, text, uuid};
use crate::{
    agent::kubernetes::{
        Places,
        pod::{Owner, Pod},
        subject::Subject,
    },
    correlate::process::{Process, ProcessId},
    timeline::human::plain,
    top::{model::Model, short},
};

/// What is known of a container of a pod.
#[derive(Default)]
struct Workload {
    /// In place of the name of its file.
    service_name: Option<String>,
    /// `k8s.pod.name` and so on, and their values.
    attributes: Vec<(&'static str, String)>,
}

impl Workload {
    /// `service.name` as OpenTelemetry's conventions for Kubernetes have it (docs/non-normative/k8s-attributes.md): the label
    /// `app.kubernetes.io/instance`, else `…/name`, else what made the pod, else the pod. Its annotations `resource.opentelemetry.io/…` are
    /// not asked for.
    fn of(pod: &Pod, container: Option<&str>) -> Self {
        let label = |key: &str| pod.labels.get(key).map(|value| value.to_string());
        let owner = pod.owner.as_ref();
        let cron_job = owner.and_then(cron_job);
        // A kubelet's own pods belong to their node, which is no service.
        let maker = owner.filter(|owner| &*owner.kind != "Node").map(|owner| &*owner.name);
        let made_by = pod.deployment.as_deref().or(cron_job).or(maker).unwrap_or(&pod.name);
        let service = label("app.kubernetes.io/instance").or_else(|| label("app.kubernetes.io/name"));
        let mut attributes = vec![
            ("service.namespace", pod.namespace.to_string()),
            ("k8s.namespace.name", pod.namespace.to_string()),
            ("k8s.pod.name", pod.name.to_string()),
            ("k8s.pod.uid", pod.uid.to_string()),
            ("k8s.node.name", pod.node.to_string()),
        ];
        attributes.extend(label("app.kubernetes.io/version").map(|version| ("service.version", version)));
        attributes.extend(pod.deployment.as_ref().map(|name| ("k8s.deployment.name", name.to_string())));
        attributes.extend(cron_job.map(|name| ("k8s.cronjob.name", name.to_owned())));
        let kind = |owner: &Owner| match &*owner.kind {
            "ReplicaSet" => Some("k8s.replicaset.name"),
            "StatefulSet" => Some("k8s.statefulset.name"),
            "DaemonSet" => Some("k8s.daemonset.name"),
            "Job" => Some("k8s.job.name"),
            _ => None,
        };
        attributes.extend(owner.and_then(|owner| Some((kind(owner)?, owner.name.to_string()))));
        attributes.extend(container.and_then(|id| pod.container(id)).map(|name| ("k8s.container.name", name.to_string())));
        Self { service_name: Some(service.unwrap_or_else(|| made_by.to_owned())), attributes }
    }
}

/// The CronJob behind a Job, which is called as it and by the minute for which it was made, since 1970 (Kubernetes
/// `pkg/controller/cronjob/utils.go`, `getJobName`). Numbers of other times are somebody's own.
fn cron_job(owner: &Owner) -> Option<&str> {
    const MINUTES: RangeInclusive<u64> = 26_000_000..=70_000_000;
    let (name, minute) = owner.name.rsplit_once('-').filter(|_| &*owner.kind == "Job")?;
    MINUTES.contains(&minute.parse().ok()?).then_some(name).filter(|name| !name.is_empty())
}

/// The host, and who knows its containers.
pub struct Host {
    node: String,
    boot: String,
    places: Places,
}

impl Host {
    pub fn new(node: &str, places: Places) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Self { node: node.to_owned(), boot, places }
    }

    /// The agent itself.
    pub fn agent(&self) -> Resource {
        let instance = uuid(&[self.node.as_bytes(), b"agent"]);
        resource(vec![
            text("service.name", "lifetrace"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
            text("host.name", self.node.clone()),
            number("process.pid", i64::from(std::process::id())),
        ])
    }

    /// All processes of this host that run a program, in a container of a pod or not.
    pub fn program(&self, subject: &Subject) -> Resource {
        let Subject { program: path, namespace, pod, container } = subject;
        let known = subject.is_in_pod().then(|| self.places.pods.named(namespace, pod)).flatten();
        let workload = known.map_or_else(Workload::default, |pod| Workload::of(&pod, None));
        let names = [b"program", path.as_bytes(), namespace.as_bytes(), pod.as_bytes(), container.as_bytes()];
        let identity = [&[self.node.as_bytes()], &names[..]].concat();
        let mut attributes = vec![
            text("service.name", workload.service_name.unwrap_or_else(|| file_name(path))),
            text("service.instance.id", uuid(&identity)),
        ];
        attributes.extend(self.of_file(path));
        attributes.extend(workload.attributes.into_iter().map(|(key, value)| text(key, value)));
        let of_pod = [("k8s.namespace.name", namespace), ("k8s.pod.name", pod), ("k8s.container.name", container)];
        for (key, name) in of_pod.into_iter().filter(|(_, name)| !name.is_empty()) {
            if !attributes.iter().any(|known| known.key == key) {
                attributes.push(text(key, name.to_string()));
            }
        }
        resource(attributes)
    }

    /// One process.
    pub fn process(&self, id: ProcessId, model: &Model) -> Resource {
        let replaying = model.replaying();
        let processes = replaying.engine().processes();
        let process = processes.process(id);
        let image = process.images.last().map(|image| (*image, processes.image(*image)));
        let path = image.map_or_else(|| "?".into(), |(id, _)| model.program(id));
        let binary = image.and_then(|(_, image)| replaying.binary(image));
        let container = self.places.container(process, replaying.place(process).paths()).unwrap_or_default();
        let pod = self.places.pods.of(&container);
        let workload = pod.map_or_else(Workload::default, |pod| Workload::of(&pod, container.id.as_deref()));
        let mut attributes = vec![
            text("service.name", workload.service_name.unwrap_or_else(|| file_name(&path))),
            text("service.instance.id", uuid(&[&self.identity(process)])),
            number("process.pid", i64::from(process.tgid.0)),
        ];
        attributes.extend(self.of_file(&path));
        if let Some(binary) = binary {
            attributes.push(text("process.runtime.name", "go"));
            attributes.push(text("process.runtime.version", short(&plain(&binary.go_version)).to_string()));
        }
        attributes.extend(container.id.clone().map(|id| text("container.id", id)));
        attributes.extend(workload.attributes.into_iter().map(|(key, value)| text(key, value)));
        // A kubelet's own pods have another one in their cgroup's name than at the API server.
        if let Some(uid) = container.pod_uid.clone().filter(|_| attributes.iter().all(|known| known.key != "k8s.pod.uid")) {
            attributes.push(text("k8s.pod.uid", uid));
        }
        resource(attributes)
    }

    fn of_file(&self, path: &str) -> [KeyValue; 3] {
        [
            text("process.executable.path", path),
            text("process.executable.name", file_name(path)),
            text("host.name", self.node.clone()),
        ]
    }

    /// What stands for a process, and for no other one of any host and any time.
    pub fn identity(&self, process: &Process) -> [u8; 32] {
        // One whose start nobody told is told apart by when it was met.
        let start = process.key.map_or(process.first_seen.0, |key| key.start_ticks);
        digest(&[self.node.as_bytes(), self.boot.as_bytes(), &process.tgid.0.to_le_bytes(), &start.to_le_bytes()])
    }
}

fn resource(attributes: Vec<KeyValue>) -> Resource {
    Resource { attributes, ..Resource::default() }
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests;
