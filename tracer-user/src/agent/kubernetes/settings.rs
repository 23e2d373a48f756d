//! The section `[kubernetes]` of the agent's file.

use std::{env, fmt, path::PathBuf};

use serde::Deserialize;

/// Where a pod finds who it is (`rest.InClusterConfig` of client-go).
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const HOST: &str = "KUBERNETES_SERVICE_HOST";

/// As it stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Text {
    enabled: bool,
    kubeconfig: Option<PathBuf>,
    annotations: bool,
}

impl Default for Text {
    fn default() -> Self {
        Self { enabled: true, kubeconfig: None, annotations: true }
    }
}

/// How the API server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `None`: the way in which every pod reaches it.
    pub kubeconfig: Option<PathBuf>,
    /// Pods' own annotations decide over rules.
    pub annotations: bool,
}

impl Settings {
    /// `None`: nobody is asked. Where the file does not say: whether this is a pod that may ask.
    pub fn of(text: Option<Text>) -> Result<Option<Self>, String> {
        if !cfg!(feature = "kubernetes") {
            let wanted = text.is_some_and(|text| text.enabled);
            return if wanted {
                Err("kubernetes: this lifetrace was built without (feature \"kubernetes\")".to_owned())
            } else {
                Ok(None)
            };
        }
        let Text { enabled, kubeconfig, annotations } = match text {
            Some(text) => text,
            None => Text { enabled: in_cluster(), ..Text::default() },
        };
        if !enabled {
            return Ok(None);
        }
        #[cfg(feature = "kubernetes")]
        kubeconfig.as_deref().map(super::client::check).transpose()?;
        Ok(Some(Self { kubeconfig, annotations }))
    }
}

/// Whether we are in a pod that may know the API server.
fn in_cluster() -> bool {
    env::var_os(HOST).is_some() && PathBuf::from(TOKEN).is_file()
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kubeconfig {
            Some(path) => write!(f, "the API server of {}", path.display())?,
            None => write!(f, "the API server of its cluster")?,
        }
        write!(f, "{}", if self.annotations { "; pods' annotations decide" } else { "" })
    }
}
