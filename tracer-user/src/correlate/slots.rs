//! Values by small numbers, which are dealt out again when they are free: cheaper to find than by a hash, and never moved.

/// Values in one chunk: few, for there may be many processes with a handful of goroutines each.
const CHUNK: usize = 64;

/// Places for values, each with its number.
#[derive(Debug)]
pub struct Slots<T> {
    chunks: Vec<Box<[Option<T>]>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub fn get(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?[slot % CHUNK].as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?[slot % CHUNK].as_mut()
    }

    /// The place itself; it is made if there is none.
    pub fn place(&mut self, slot: u32) -> &mut Option<T> {
        let slot = slot as usize;
        while self.chunks.len() <= slot / CHUNK {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        &mut self.chunks[slot / CHUNK][slot % CHUNK]
    }

    pub fn take(&mut self, slot: u32) -> Option<T> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?[slot % CHUNK].take()
    }

    /// All that are there, by number.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flat_map(|chunk| chunk.iter_mut().flatten())
    }

    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.chunks.into_iter().flat_map(|chunk| chunk.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that values are where they were put, and nowhere else.
    #[test]
    fn places() {
        let mut slots = Slots::default();
        assert_eq!(slots.take(7), None);
        for slot in [3, 511, 512, 5_000] {
            *slots.place(slot) = Some(slot);
        }
        assert_eq!((slots.get(512), slots.get(513), slots.get(u32::MAX)), (Some(&512), None, None));
        *slots.get_mut(3).unwrap() = 4;
        assert_eq!(slots.take(511), Some(511));
        assert_eq!(slots.iter().copied().collect::<Vec<_>>(), [4, 512, 5_000]);
        slots.iter_mut().for_each(|value| *value += 1);
        assert_eq!(slots.into_values().collect::<Vec<_>>(), [5, 513, 5_001]);
    }
}
