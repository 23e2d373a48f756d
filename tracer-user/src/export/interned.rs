//! Things that are told once and referred to by number.

use std::{borrow::Borrow, hash::Hash};

use rustc_hash::FxHashMap;

/// Each thing once, in the order in which it came.
pub struct Interned<T> {
    all: Vec<T>,
    numbers: FxHashMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { all: Vec::new(), numbers: FxHashMap::default() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    /// The number of a thing.
    pub fn number<Q>(&mut self, thing: &Q) -> u32
    where
        T: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = T> + ?Sized,
    {
        if let Some(number) = self.numbers.get(thing) {
            return *number;
        }
        // More than that do not fit into memory.
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(thing.to_owned());
        self.numbers.insert(thing.to_owned(), number);
        number
    }

    pub fn all(&self) -> &[T] {
        &self.all
    }

    pub fn into_all(self) -> Vec<T> {
        self.all
    }
}
