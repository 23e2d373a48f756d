//! Whose series they are.

use std::{fmt, sync::Arc};

use rustc_hash::FxHashMap;

use super::Places;
use crate::{
    correlate::process::{ImageId, ProcessId},
    top::model::Model,
};

/// A program, in a container of a pod or not: one row of each series.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The path of the file that runs.
    pub program: Arc<str>,
    /// Empty outside of pods, and where the pod is not known.
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    /// Empty where only the pod is known.
    pub container: Arc<str>,
}

impl Subject {
    /// One that is in no pod.
    pub fn of(program: Arc<str>) -> Self {
        Self { program, ..Self::default() }
    }

    pub fn is_in_pod(&self) -> bool {
        !self.pod.is_empty()
    }

    /// What there is, by label.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all =
            [("program", &self.program), ("namespace", &self.namespace), ("pod", &self.pod), ("container", &self.container)];
        all.into_iter().map(|(key, value)| (key, &**value)).filter(|(_, value)| !value.is_empty())
    }
}

impl From<&str> for Subject {
    fn from(program: &str) -> Self {
        Self::of(program.into())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, namespace, pod, container } = self;
        write!(f, "{program}")?;
        if self.is_in_pod() { write!(f, " in {namespace}/{pod}/{container}") } else { Ok(()) }
    }
}

/// Finds whose series an image of a recording has a part in, once.
pub struct Subjects<'a> {
    pub model: &'a Model,
    places: Places,
    known: FxHashMap<ImageId, Subject>,
}

impl<'a> Subjects<'a> {
    pub fn of_model(model: &'a Model, places: Places) -> Self {
        Self { model, places, known: FxHashMap::default() }
    }

    pub fn of(&mut self, image: ImageId) -> Subject {
        let Self { model, places, known } = self;
        let process = model.process_of(image);
        let subject = || places.subject(model.program(image), process, model.cgroups_of(process));
        known.entry(image).or_insert_with(subject).clone()
    }

    /// Of one whose program is known.
    pub fn of_process(&self, program: Arc<str>, process: ProcessId) -> Subject {
        let process = self.model.process(process);
        self.places.subject(program, process, self.model.cgroups_of(process))
    }
}
