//! Stacks and their frames: each once, by number.

use std::{collections::BTreeSet, io};

use rustc_hash::FxHashMap;

use super::{
    layout::{Of, ProgramId},
    names::Names,
    table::{Column, Row, Table},
};
use crate::{
    correlate::{goroutine::Origin, process::ImageId, replay::Replayed},
    id::{Address, StackId},
    recording::contract::{Frame, IN_KERNEL},
    symbolize::{FrameId, Symbolizer},
};

/// What a stack is made of. The same addresses are other code in another image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// The kernel's frames, and those of user code below them.
    Seen { image: ImageId, kernel: Option<StackId>, user: Option<StackId> },
    /// What executed a `go` statement.
    Creation { image: ImageId, gopc: Address, stack: Option<StackId> },
}

/// Stacks by number, in order of appearance.
#[derive(Default)]
pub(super) struct StackNumbers {
    keys: Vec<Key>,
    numbers: FxHashMap<Key, u32>,
}

impl StackNumbers {
    /// `None` where there is no stack, or it was lost.
    pub fn number(&mut self, replayed: &Replayed, image: ImageId, kernel: Option<StackId>, user: Option<StackId>) -> Option<u32> {
        let there = |id: &StackId| replayed.stacks.contains_key(id);
        let (kernel, user) = (kernel.filter(there), user.filter(there));
        kernel.or(user)?;
        Some(self.of(Key::Seen { image, kernel, user }))
    }

    pub fn creation(&mut self, image: ImageId, origin: &Origin) -> u32 {
        self.of(Key::Creation { image, gopc: origin.gopc, stack: origin.stack })
    }

    fn of(&mut self, key: Key) -> u32 {
        let next = self.keys.len() as u32;
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.keys.push(key);
        }
        number
    }
}

impl Key {
    fn image(self) -> ImageId {
        match self {
            Self::Seen { image, .. } | Self::Creation { image, .. } => image,
        }
    }

    /// Innermost first, and whether the root is cut off.
    fn frames(self, symbols: &Symbolizer<'_>) -> (Vec<FrameId>, bool) {
        match self {
            Self::Seen { image, kernel, user } => {
                let (mut all, mut cut) = (Vec::new(), false);
                for (frames, truncated) in [kernel, user].into_iter().flatten().filter_map(|id| symbols.stack(image, id)) {
                    all.extend(frames);
                    cut = truncated;
                }
                (all, cut)
            }
            Self::Creation { image, gopc, stack } => {
                symbols.creation(image, &Origin { parent: None, gopc, startpc: Address(0), stack })
            }
        }
    }
}

/// A frame of a stack.
pub(super) struct StackRow {
    image: ImageId,
    stack: u32,
    position: u32,
    frame: FrameId,
    truncated: bool,
}

impl Row for StackRow {
    const TABLE: &'static str = "stacks";
    const ABOUT: &'static str = "The frames of each stack, a row a frame. Two stacks may have the same frames.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("stack_id", "the stack", |row, _| Some(row.stack.into())).always(),
            Column::<Self>::integer("position", "0 is the innermost frame", |row, _| Some(row.position)).always(),
            Column::<Self>::bigint("frame_id", "the frame, in `frames`", |row, _| Some(row.frame.0.into())).always(),
            Column::<Self>::boolean("truncated", "the root of the stack is cut off", |row, _| Some(row.truncated)).always(),
        ]
    }
}

/// A distinct frame.
pub(super) struct FrameRow {
    program: ProgramId,
    id: FrameId,
    frame: Frame,
}

impl Row for FrameRow {
    const TABLE: &'static str = "frames";
    const ABOUT: &'static str = "Places in code. Functions that were inlined have a frame of their own.";

    fn of(&self) -> Of {
        Of::Program(self.program)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("frame_id", "the frame", |row, _| Some(row.id.0.into())).always(),
            Column::<Self>::text("function", "`?` for an address without a name", |row, _| Some(&row.frame.function)).always(),
            Column::<Self>::text("file", "of an address without a name, the address", |row, _| Some(&row.frame.file)).always(),
            Column::<Self>::integer("line", "", |row, _| line(&row.frame)),
            Column::<Self>::boolean("kernel", "it is the kernel's", |row, _| Some(row.frame.file == IN_KERNEL)).always(),
        ]
    }
}

/// The line of a frame, where it is known.
pub(super) fn line(frame: &Frame) -> Option<u32> {
    (frame.line != 0).then_some(frame.line)
}

/// Writes the stacks that rows have named.
pub(super) fn write(mut stacks: Table<StackRow>, mut frames: Table<FrameRow>, names: &Names<'_>) -> io::Result<()> {
    let mut used: BTreeSet<(ProgramId, FrameId)> = BTreeSet::new();
    for (stack, key) in (0..).zip(&names.stacks.keys) {
        let (ids, truncated) = key.frames(names.symbols);
        let (image, program) = (key.image(), names.program_of(Of::Image(key.image())));
        used.extend(ids.iter().map(|frame| (program, *frame)));
        let rows = (0..).zip(ids).map(|(position, frame)| StackRow { image, stack, position, frame, truncated });
        stacks.extend(rows, names)?;
    }
    stacks.finish(names)?;
    let rows = used.into_iter().map(|(program, id)| FrameRow { program, id, frame: names.symbols.frame(id) });
    frames.extend(rows, names)?;
    frames.finish(names)
}
