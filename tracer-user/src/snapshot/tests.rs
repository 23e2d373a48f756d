use super::{
    memory::fake::Fake,
    reader::{PASSES, POINTERS},
    *,
};
use crate::golang::{Saved, SnapshotLayout};

const LEN: u64 = 0x1000;
const FIRST: u64 = 0x1008;
const LIST: u64 = 0x2000;
const G: u64 = 0x10_0000;
const G_SIZE: u64 = 0x80;
const STACK: u64 = 0x100_0000;
const STACK_SIZE: u64 = 0x800;

const SAVED: Saved = Saved { sp: 16, pc: 24, bp: Some(32) };

/// A layout of our own: the fields in the order of the comments of [`World::goroutine`].
fn layout() -> SnapshotLayout {
    SnapshotLayout::for_test(G_SIZE as u32, SAVED, Saved { bp: None, ..SAVED })
}

/// The memory of a Go process.
struct World {
    memory: Fake,
    layout: SnapshotLayout,
}

impl World {
    /// With `count` goroutines that wait, numbered from 1.
    fn of(count: u64) -> Self {
        let world = Self { memory: Fake::default(), layout: layout() };
        world.memory.block(LEN, [count.to_le_bytes(), LIST.to_le_bytes()].concat());
        let list = (0..count).flat_map(|i| (G + i * G_SIZE).to_le_bytes()).collect();
        world.memory.block(LIST, list);
        world.memory.block(G, vec![0; (count * G_SIZE) as usize]);
        world.memory.block(STACK, vec![0; (count * STACK_SIZE) as usize]);
        for i in 0..count {
            world.goroutine(i, 4);
        }
        world
    }

    fn field(&self, index: u64, offset: u32, value: u64) {
        self.memory.write_u64(G + index * G_SIZE + u64::from(offset), value);
    }

    /// Writes goroutine `index` with a stack of one call: 0x500, called from 0x600.
    fn goroutine(&self, index: u64, status: u64) {
        let (layout, low) = (&self.layout, STACK + index * STACK_SIZE);
        let sp = low + STACK_SIZE - 0x100;
        for (offset, value) in [
            (layout.stack_lo, low),
            (layout.stack_hi, low + STACK_SIZE),
            (SAVED.sp, sp),
            (SAVED.pc, 0x500),
            (SAVED.bp.unwrap(), sp + 0x20),
            (layout.atomicstatus, status),
            (layout.goid, index + 1),
            (layout.waitreason, 1),
            (layout.gopc, 0x700),
            (layout.startpc, 0x600),
        ] {
            self.field(index, offset, value);
        }
        self.memory.write_u64(sp + 0x28, 0x600);
    }

    fn read(&self) -> Result<Goroutines, SnapshotError> {
        self.read_of(Detail::Whole)
    }

    fn read_of(&self, detail: Detail) -> Result<Goroutines, SnapshotError> {
        self.read_again(detail, &mut reader::Before::default())
    }

    fn read_again(&self, detail: Detail, before: &mut reader::Before) -> Result<Goroutines, SnapshotError> {
        let program = Program {
            all: AllGoroutines { len: LEN, first: FIRST },
            layout: &self.layout,
            wait_reasons: &["", "chan receive"],
            labels: Representation::List,
            frame_bytes: &|_| None,
        };
        reader::read(&self.memory, &program, detail, before)
    }
}

/// Check that all are found in the order of their ids, with what they wait for and one stack for all, over more than one chunk.
#[test]
fn all_are_found() {
    let found = World::of(3000).read().unwrap();
    assert!(found.all.iter().map(|g| g.goid.0).eq(1..=3000));
    assert_eq!(found.stacks, [Stack { pcs: vec![0x500, 0x600], truncated: false }]);
    assert_eq!(found.torn, 0);
    let first = &found.all[0];
    assert_eq!((first.state, first.wait_reason, first.stack), (Some(State::Waiting), Some("chan receive"), StackRead::Known(0)));
    assert_eq!((first.gopc, first.startpc, first.waits_since), (Address(0x700), Address(0x600), None));
}

/// Check that goroutines that a collection has seen waiting, and that have waited since, are not read anew, and that others are: who has run,
/// who was never seen, and who is another.
#[test]
fn not_read_again() {
    let world = World::of(100);
    (0..100).for_each(|index| world.field(index, world.layout.waitsince, 777));
    let mut before = reader::Before::default();
    let asked = |before: &mut reader::Before| {
        *world.memory.asked.borrow_mut() = 0;
        let found = world.read_again(Detail::WithChannels, before).unwrap();
        assert!(found.all.len() == 100 && found.all.iter().all(|goroutine| matches!(goroutine.stack, StackRead::Known(_))));
        let place = |index: usize| match found.all[index].stack {
            StackRead::Known(stack) => found.stacks[stack as usize].pcs[1],
            _ => 0,
        };
        (*world.memory.asked.borrow(), [3, 4, 5].map(place))
    };
    let (first, _) = asked(&mut before);
    // Their stacks are others now. Of one nothing tells, and so it has not run.
    (3..6).for_each(|index| world.memory.write_u64(STACK + (index + 1) * STACK_SIZE - 0x100 + 0x28, 0x900 + index));
    world.field(4, world.layout.waitsince, 0);
    world.field(5, world.layout.goid, 6_000);
    let (second, places) = asked(&mut before);
    assert!(second < first / 2, "{second} of {first}");
    assert_eq!(places[..2], [0x600, 0x904]);
    assert_eq!(asked(&mut reader::Before::default()).1[..2], [0x903, 0x904]);
}

/// Check what is said of each status: the dead are none, who runs has no stack, the scan bit is no state, nonsense is torn.
#[test]
fn states() {
    let world = World::of(9);
    for (index, status) in [0u64, 1, 2, 3, 0x1004, 6, 9, 11, 77].into_iter().enumerate() {
        world.goroutine(index as u64, status);
    }
    let found = world.read().unwrap();
    let states: Vec<_> = found.all.iter().map(|g| (g.goid.0, g.state.unwrap(), g.stack, g.wait_reason.is_some())).collect();
    let known = StackRead::Known(0);
    // Without a saved frame pointer and unknown code, a system call's stack is its one frame.
    assert_eq!(
        states,
        [
            (2, State::Runnable, known, false),
            (3, State::Running, StackRead::Running, false),
            (4, State::Syscall, StackRead::Known(1), false),
            (5, State::Waiting, known, true),
            (7, State::Preempted, known, false),
        ]
    );
    assert_eq!(found.torn, 1);
}

/// Check that a length no process has is refused before anything is read by it.
#[test]
fn huge_length() {
    for count in [MAX_GOROUTINES + 1, u64::MAX] {
        let world = World::of(1);
        world.memory.write_u64(LEN, count);
        assert!(matches!(world.read(), Err(SnapshotError::TooMany(found)) if found == count));
        assert!(*world.memory.asked.borrow() < 100);
    }
}

/// Check that a list that is cut short, or is nowhere, is an error after some tries.
#[test]
fn list_cut_short() {
    let world = World::of(10);
    world.memory.write_u64(LEN, 9_000_000);
    assert!(matches!(world.read(), Err(SnapshotError::NoList)));
    assert!(*world.memory.asked.borrow() <= 16 * POINTERS as u64);
    for start in [0, 8, u64::MAX, u64::MAX - 20] {
        let world = World::of(10);
        world.memory.write_u64(FIRST, start);
        assert!(matches!(world.read(), Err(SnapshotError::NoList)), "{start:#x}");
    }
    let empty = World { memory: Fake::default(), layout: layout() };
    assert!(matches!(empty.read(), Err(SnapshotError::NoList)));
}

/// Check that pointers to nowhere, odd ones and repeated ones cost nothing but themselves.
#[test]
fn pointers_to_nowhere() {
    let world = World::of(10);
    for (index, pointer) in [0, 3, !7, 0x7fff_0000, G + 9 * G_SIZE].into_iter().enumerate() {
        world.memory.write_u64(LIST + index as u64 * 8, pointer);
    }
    let found = world.read().unwrap();
    assert!(found.all.iter().map(|g| g.goid.0).eq(6..=10));
    assert_eq!(found.torn, 4);
}

/// Check that of goroutines that lie on top of one another the first is believed, and the others are counted.
#[test]
fn overlapping_goroutines() {
    let world = World::of(10);
    for index in 1..5 {
        world.memory.write_u64(LIST + index * 8, G + index * 8);
    }
    let found = world.read().unwrap();
    assert!(found.all.iter().map(|g| g.goid.0).eq([1, 6, 7, 8, 9, 10]));
    assert_eq!(found.torn, 4);
}

/// Check that a process that has no goroutines yet has none.
#[test]
fn no_goroutines() {
    let world = World::of(1);
    world.memory.write_u64(LEN, 0);
    assert!(world.read().unwrap().all.is_empty());
}

/// Check that registers that lead out of the stack leave a goroutine without one, and bytes that are not there do too.
#[test]
fn stacks_that_cannot_be_read() {
    let world = World::of(3);
    world.field(0, SAVED.sp, 0x10);
    let nowhere = 0x5000_0000;
    for (offset, value) in [(0, nowhere), (8, nowhere + 0x800), (SAVED.sp, nowhere + 0x700)] {
        world.field(1, offset, value);
    }
    let stacks: Vec<_> = world.read().unwrap().all.iter().map(|g| g.stack).collect();
    assert_eq!(stacks, [StackRead::Unreadable, StackRead::Unreadable, StackRead::Known(0)]);
}

/// Reads before the first goroutine: length, place, list, place again. Then each look is three: goroutines, stacks, goroutines.
const BEFORE: u32 = 4;

/// Check that a goroutine that changed while its stack was read is looked at again, and is whole then.
#[test]
fn changed_once() {
    let world = World::of(2);
    let sp = G + u64::from(SAVED.sp);
    world.memory.later.borrow_mut().push((BEFORE + 3, sp, (STACK + STACK_SIZE - 0x120).to_le_bytes().to_vec()));
    let found = world.read().unwrap();
    assert_eq!((found.all.len(), found.torn), (2, 0));
    assert!(found.all.iter().all(|g| matches!(g.stack, StackRead::Known(_))));
}

/// Check that one that changes under every look is counted, and shown without state and stack if it stays the same goroutine.
#[test]
fn changing_all_the_time() {
    for (offset, shown) in [(layout().atomicstatus, 2), (layout().goid, 1)] {
        let world = World::of(2);
        for look in 0..PASSES {
            let values = if offset == layout().goid { [50 + look, 60 + look] } else { [1, 4] };
            for (at, value) in [(1, values[0]), (3, values[1])] {
                let bytes = value.to_le_bytes().to_vec();
                world.memory.later.borrow_mut().push((BEFORE + look * 3 + at, G + u64::from(offset), bytes));
            }
        }
        let found = world.read().unwrap();
        assert_eq!((found.all.len(), found.torn), (shown, 1));
        let still = found.all.iter().find(|g| g.goid.0 == 2).unwrap();
        assert_eq!(still.state, Some(State::Waiting));
        if let Some(changing) = found.all.iter().find(|g| g.goid.0 == 1) {
            assert_eq!((changing.state, changing.stack), (None, StackRead::Changed));
        }
    }
}

/// Check that without stacks all else is there, and nothing of the stacks is read.
#[test]
fn without_stacks() {
    let world = World::of(3000);
    let (whole, without) = (world.read().unwrap(), world.read_of(Detail::WithoutStacks).unwrap());
    assert!(without.stacks.is_empty());
    assert!(without.all.iter().all(|goroutine| goroutine.stack == StackRead::LeftOut));
    let leave_out = |goroutine: &Goroutine| {
        let alike = Arc::new(Alike { stack: StackRead::LeftOut, ..goroutine.alike.as_ref().clone() });
        Goroutine { alike, ..goroutine.clone() }
    };
    assert!(whole.all.iter().map(leave_out).eq(without.all));
    world.memory.block(STACK, vec![]);
    assert_eq!(world.read_of(Detail::WithoutStacks).unwrap().all.len(), 3000);
}

/// Check that goroutines share a set of labels, that one without has none, and that nonsense is unknown.
#[test]
fn labels() {
    let world = World::of(4);
    let (set, array, text) = (0x9000u64, 0xa000u64, 0xb000u64);
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    world.memory.block(set, words(&[array, 1, 1]));
    world.memory.block(array, words(&[text, 4, text + 4, 3]));
    world.memory.block(text, b"userann".to_vec());
    for (index, pointer) in [(0, set), (1, set), (2, 0x33)] {
        world.field(index, layout().labels, pointer);
    }
    let found = world.read().unwrap();
    assert_eq!(found.labels, [LabelSet::from([("user".to_owned(), "ann".to_owned())])]);
    let read: Vec<_> = found.all.iter().map(|goroutine| goroutine.labels).collect();
    assert_eq!(read, [LabelsRead::Known(0), LabelsRead::Known(0), LabelsRead::Unknown, LabelsRead::None]);
    // Exchanged while they are read: whose they are is unknown, the rest is not.
    world.memory.later.borrow_mut().push((
        BEFORE + 6,
        G + u64::from(layout().labels),
        set.wrapping_add(8).to_le_bytes().to_vec(),
    ));
    *world.memory.reads.borrow_mut() = 0;
    let found = world.read().unwrap();
    assert_eq!((found.all[0].labels, found.all[1].labels, found.torn), (LabelsRead::Unknown, LabelsRead::Known(0), 0));
    assert_eq!(found.all[0].state, Some(State::Waiting));
}

/// Check that a list that moves while it is read is read anew.
#[test]
fn moved_list() {
    let world = World::of(3);
    world.memory.block(0x8000, (0..3).flat_map(|i| (G + i * G_SIZE).to_le_bytes()).collect());
    world.memory.write_u64(LIST, 0xdead_0000);
    world.memory.later.borrow_mut().push((BEFORE, FIRST, 0x8000u64.to_le_bytes().to_vec()));
    let found = world.read().unwrap();
    assert_eq!((found.all.len(), found.torn), (3, 0));
}
