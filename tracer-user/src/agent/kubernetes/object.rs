//! A pod as the API server sends it: of all that a `v1.Pod` has, what is asked for is read, the rest is passed over as it arrives.

use std::borrow::Cow;

use k8s_openapi::{api::core::v1::Pod as FullPod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, core::NamespaceResourceScope};
use serde::Deserialize;

use super::pod::Raw;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    metadata: ObjectMeta,
    status: Option<Statuses>,
}

/// `v1.PodStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Statuses {
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

/// `v1.ContainerStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

impl Resource for Object {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        FullPod::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        FullPod::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        FullPod::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        FullPod::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Object {
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// What is asked for of it.
    pub fn into_raw(self) -> Raw {
        let Self { metadata, status } = self;
        let owners = metadata.owner_references.unwrap_or_default();
        // One at most manages it (`metav1.GetControllerOf`).
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| (owner.kind, owner.name));
        let Statuses { container_statuses, init_container_statuses, ephemeral_container_statuses } = status.unwrap_or_default();
        let all = [container_statuses, init_container_statuses, ephemeral_container_statuses].into_iter().flatten().flatten();
        Raw {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            owner,
            containers: all.filter_map(|status| Some((status.name, status.container_id?))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a pod is read as the API server writes it, whatever else it has, and one that was just made as well.
    #[test]
    fn sent() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"orders-5d4f8-x","namespace":"shop","uid":"u1",
            "resourceVersion":"7","labels":{"app":"orders"},"annotations":{"a":"b"},"managedFields":[{"manager":"kubelet","fieldsV1":{"f:x":{}}}],
            "ownerReferences":[{"apiVersion":"v1","kind":"Other","name":"o","uid":"1"},
                {"apiVersion":"apps/v1","kind":"ReplicaSet","name":"orders-5d4f8","uid":"2","controller":true}]},
            "spec":{"containers":[{"name":"app","image":"x"}],"nodeName":"n1"},
            "status":{"phase":"Running","containerStatuses":[{"name":"app","containerID":"containerd://abc","ready":true,"restartCount":0,
                "image":"x","imageID":"y","state":{"running":{}}},{"name":"waits","state":{"waiting":{}}}],
                "initContainerStatuses":[{"name":"init","containerID":"cri-o://def"}]}}"#;
        let raw = serde_json::from_str::<Object>(text).unwrap().into_raw();
        assert_eq!((raw.namespace.as_str(), raw.name.as_str(), raw.uid.as_str()), ("shop", "orders-5d4f8-x", "u1"));
        assert_eq!(raw.owner, Some(("ReplicaSet".to_owned(), "orders-5d4f8".to_owned())));
        let of = |name: &str, id: &str| (name.to_owned(), id.to_owned());
        assert_eq!(raw.containers, [of("app", "containerd://abc"), of("init", "cri-o://def")]);
        assert_eq!((raw.labels["app"].as_str(), raw.annotations["a"].as_str()), ("orders", "b"));
        let new = serde_json::from_str::<Object>(r#"{"metadata":{"name":"a"}}"#).unwrap().into_raw();
        assert_eq!((new.name.as_str(), new.containers.len()), ("a", 0));
        assert_eq!(Object::url_path(&(), None), "/api/v1/pods");
    }
}
