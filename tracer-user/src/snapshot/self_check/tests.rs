use super::{super::memory::fake::Fake, *};

const LEN: u64 = 0x1000;
const FIRST: u64 = 0x1008;
const LIST: u64 = 0x2000;
const G: u64 = 0xc0_0000_0000;
const STACK: u64 = 0xc0_1000_0000;
const STACK_SIZE: u64 = 0x2000;
const M: u64 = 0x8000;
const G0: u64 = 0xa000;
const CODE: std::ops::Range<u64> = 0x40_0000..0x50_0000;
const REASONS: usize = 40;

/// The memory of a process whose runtime has `offsets`.
struct World {
    memory: Fake,
    offsets: Offsets,
}

impl World {
    /// With `count` goroutines that wait, numbered from 1.
    fn of(offsets: Offsets, count: u64) -> Self {
        let world = Self { memory: Fake::default(), offsets };
        world.memory.block(LEN, [count.to_le_bytes(), LIST.to_le_bytes()].concat());
        world.memory.block(LIST, (0..count).flat_map(|i| world.g(i).to_le_bytes()).collect());
        world.memory.block(G, vec![0; (count * u64::from(offsets.g_size)) as usize]);
        world.memory.block(M, vec![0; 0x400]);
        world.memory.block(G0, vec![0; offsets.g_size as usize]);
        for index in 0..count {
            let low = STACK + index * STACK_SIZE;
            let sp = low + STACK_SIZE - 0x100;
            for (offset, value) in [
                (offsets.g_stack_lo, low),
                (offsets.g_stack_hi, low + STACK_SIZE),
                (offsets.g_sched_sp, sp),
                (offsets.g_sched_pc, CODE.start + 0x123),
                (offsets.g_sched_bp, sp + 0x20),
                (offsets.g_goid, index + 1),
                (offsets.g_waitreason, 19),
                (offsets.g_gopc, CODE.start + 0x777),
                (offsets.g_startpc, CODE.start + 0x1000),
            ] {
                world.field(index, offset, value);
            }
            world.status(index, WAITING);
        }
        world
    }

    fn g(&self, index: u64) -> u64 {
        G + index * u64::from(self.offsets.g_size)
    }

    fn field(&self, index: u64, offset: u32, value: u64) {
        self.memory.write_u64(self.g(index) + u64::from(offset), value);
    }

    fn status(&self, index: u64, status: u32) {
        self.memory.write(self.g(index) + u64::from(self.offsets.g_atomicstatus), &status.to_le_bytes());
    }

    /// Lets a goroutine run on the one thread.
    fn run(&self, index: u64) {
        self.status(index, RUNNING);
        self.field(index, self.offsets.g_m, M);
        self.memory.write_u64(M + u64::from(self.offsets.m_curg), self.g(index));
        self.memory.write_u64(M + u64::from(self.offsets.m_g0), G0);
        self.memory.write_u64(G0 + u64::from(self.offsets.g_m), M);
    }

    /// Holds `believed` against it.
    fn check(&self, believed: &Offsets) -> Result<Borne, Doubt> {
        let subject = Subject {
            all: AllGoroutines { len: LEN, first: FIRST },
            offsets: believed,
            wait_reasons: REASONS,
            in_code: &|pc| CODE.contains(&pc),
            is_entry: &|pc| CODE.contains(&pc) && pc.is_multiple_of(0x1000),
        };
        check(&self.memory, &subject)
    }
}

/// Check that each version is borne out by a process of its own, one that runs a goroutine included.
#[test]
fn the_truth_is_borne_out() {
    for minor in [19, 21, 22, 23, 24, 25, 26, 27] {
        let offsets = Offsets::of_minor(minor);
        let world = World::of(offsets, 20);
        assert_eq!(world.check(&offsets).unwrap(), Borne { goroutines: 20, threads: 0 }, "1.{minor}");
        world.run(3);
        assert_eq!(world.check(&offsets).unwrap(), Borne { goroutines: 20, threads: 1 }, "1.{minor}");
    }
}

/// Check that a version is contradicted by a process of another one whose offsets differ.
#[test]
fn another_version_is_contradicted() {
    for (real, believed) in [(25, 23), (23, 25), (25, 26), (26, 25), (24, 21), (21, 24), (27, 22)] {
        let world = World::of(Offsets::of_minor(real), 20);
        world.run(0);
        let result = world.check(&Offsets::of_minor(believed));
        assert!(matches!(result, Err(Doubt::Contradicted { .. })), "1.{believed} for 1.{real}: {result:?}");
    }
}

/// Check that each claim alone is enough to contradict.
#[test]
fn each_claim_counts() {
    let offsets = Offsets::of_minor(26);
    for (offset, value, what) in [
        (offsets.g_atomicstatus, 77, "its status"),
        (offsets.g_goid, 0, "its id"),
        (offsets.g_goid, 5, "its id"),
        (offsets.g_goid, G, "its id"),
        (offsets.g_stack_lo, STACK + 3, "its stack's bounds"),
        (offsets.g_stack_hi, 0, "its stack's bounds"),
        (offsets.g_sched_sp, STACK - 8, "its saved registers"),
        (offsets.g_sched_pc, 1, "its saved registers"),
        (offsets.g_sched_bp, 8, "its saved registers"),
        (offsets.g_waitreason, 200, "its wait reason"),
        (offsets.g_startpc, CODE.start + 8, "its start function"),
        (offsets.g_gopc, 0, "its go statement"),
        (offsets.g_parent_goid.unwrap(), G, "its parent"),
    ] {
        let world = World::of(offsets, 12);
        (0..12).for_each(|index| world.field(index, offset, value));
        let found = world.check(&offsets);
        assert!(matches!(found, Err(Doubt::Contradicted { what: found, .. }) if found == what), "{what}: {found:?}");
    }
    let world = World::of(offsets, 3);
    world.run(1);
    world.memory.write_u64(M + u64::from(offsets.m_curg), world.g(2));
    assert!(matches!(world.check(&offsets), Err(Doubt::Contradicted { what: "its thread", .. })));
}

/// Check that a goroutine caught in the middle of something is looked at again, and that one among many may stay odd.
#[test]
fn the_process_runs_on() {
    let offsets = Offsets::of_minor(27);
    let world = World::of(offsets, 2);
    world.status(1, 5);
    let status = world.g(1) + u64::from(offsets.g_atomicstatus);
    // Three reads for the list, one for each goroutine, and the second look finds it waiting.
    world.memory.later.borrow_mut().push((6, status, WAITING.to_le_bytes().to_vec()));
    assert_eq!(world.check(&offsets).unwrap().goroutines, 2);
    let world = World::of(offsets, 30);
    world.field(7, offsets.g_sched_pc, 1);
    assert_eq!(world.check(&offsets).unwrap().goroutines, 30);
}

/// Check that nothing is said of a process that has hardly begun, and that the dead bear nothing out.
#[test]
fn too_early() {
    let offsets = Offsets::of_minor(26);
    assert!(matches!(World::of(offsets, 0).check(&offsets), Err(Doubt::NotYet)));
    assert!(matches!(World::of(offsets, 1).check(&offsets), Err(Doubt::NotYet)));
    let world = World::of(offsets, 9);
    (0..9).for_each(|index| world.status(index, 6));
    assert!(matches!(world.check(&offsets), Err(Doubt::Contradicted { .. })));
}

/// Check that a length no process has, and pointers to nowhere, are contradictions that cost nothing.
#[test]
fn nonsense_is_bounded() {
    let offsets = Offsets::of_minor(26);
    let world = World::of(offsets, 4);
    world.memory.write_u64(LEN, u64::MAX);
    assert!(matches!(world.check(&offsets), Err(Doubt::Contradicted { .. })));
    let world = World::of(offsets, 4);
    (0..4).for_each(|index| world.memory.write_u64(LIST + index * 8, !7));
    assert!(matches!(world.check(&offsets), Err(Doubt::Contradicted { what: "the pointer to it", .. })));
    assert!(*world.memory.asked.borrow() < 100_000);
}

/// Check that a thread of C that called in counts, though no go statement made its goroutine.
#[test]
fn called_from_c() {
    let offsets = Offsets::of_minor(25);
    let world = World::of(offsets, 4);
    world.run(2);
    world.status(2, SYSCALL);
    for offset in [offsets.g_startpc, offsets.g_gopc] {
        world.field(2, offset, 0);
    }
    world.field(2, offsets.g_syscallsp, STACK + 2 * STACK_SIZE + 0x1000);
    world.field(2, offsets.g_syscallpc, CODE.start + 5);
    assert_eq!(world.check(&offsets).unwrap(), Borne { goroutines: 4, threads: 1 });
}
