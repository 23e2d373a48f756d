//! Texts that are written once and then named by number.

use rustc_hash::FxHashMap;

use super::proto::{InternedData, Name, Text};

/// The texts of one kind; numbers begin at 1.
#[derive(Default)]
struct Table {
    numbers: FxHashMap<String, u64>,
    /// Not written yet.
    fresh: Vec<(u64, String)>,
}

impl Table {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.numbers.len() as u64 + 1;
        self.numbers.insert(text.to_owned(), number);
        self.fresh.push((number, text.to_owned()));
        number
    }

    fn take_names(&mut self) -> Vec<Name> {
        self.fresh.drain(..).map(|(iid, name)| Name { iid: Some(iid), name: Some(name) }).collect()
    }
}

/// All that is interned on the one sequence of a trace.
#[derive(Default)]
pub(super) struct Interned {
    categories: Table,
    names: Table,
    annotations: Table,
    values: Table,
}

impl Interned {
    pub fn category(&mut self, text: &str) -> u64 {
        self.categories.number(text)
    }

    pub fn name(&mut self, text: &str) -> u64 {
        self.names.number(text)
    }

    pub fn annotation(&mut self, text: &str) -> u64 {
        self.annotations.number(text)
    }

    pub fn value(&mut self, text: &str) -> u64 {
        self.values.number(text)
    }

    /// What must stand in the packet that first names it.
    pub fn take(&mut self) -> Option<InternedData> {
        let tables = [&self.categories, &self.names, &self.annotations, &self.values];
        if tables.iter().all(|table| table.fresh.is_empty()) {
            return None;
        }
        let text = |(iid, text): (u64, String)| Text { iid: Some(iid), str: Some(text.into_bytes()) };
        Some(InternedData {
            event_categories: self.categories.take_names(),
            event_names: self.names.take_names(),
            debug_annotation_names: self.annotations.take_names(),
            debug_annotation_string_values: self.values.fresh.drain(..).map(text).collect(),
        })
    }
}
