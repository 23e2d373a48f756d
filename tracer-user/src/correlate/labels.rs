//! Sets of labels, each kept once.

use rustc_hash::FxHashMap;

use super::LabelsId;

/// All sets of labels that looks have found.
#[derive(Clone, Debug, Default)]
pub struct LabelSets {
    sets: Vec<Vec<(String, String)>>,
    ids: FxHashMap<Vec<(String, String)>, LabelsId>,
}

impl LabelSets {
    pub(super) fn intern(&mut self, set: &[(String, String)]) -> LabelsId {
        if let Some(id) = self.ids.get(set) {
            return *id;
        }
        // A recording that holds more sets than that is beyond what can be read.
        let id = LabelsId(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        self.sets.push(set.to_vec());
        self.ids.insert(set.to_vec(), id);
        id
    }

    /// Keys and values.
    pub fn get(&self, id: LabelsId) -> &[(String, String)] {
        self.sets.get(id.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The value of one key.
    pub fn value(&self, id: LabelsId, key: &str) -> Option<&str> {
        self.get(id).iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}
