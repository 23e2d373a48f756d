use tracer_common::thread::COMM_MAX;

use super::*;
use crate::{
    correlate::{Engine, Life, Sink, Span, goroutine::Who},
    event::{Event, ProcessExit, ProcessFork, Program, Syscall, ThreadOff, WaitsOn, Waker, What},
    id::{SiteId, Tgid},
    recording::contract::Threads,
};

/// What was told, in short.
#[derive(Default)]
struct Heard {
    spans: Vec<(u32, ThreadSpan)>,
    lives: Vec<(ThreadWho, ThreadLife)>,
}

impl Sink for Heard {
    fn span(&mut self, _: &Who, _: &Span) {}
    fn life(&mut self, _: &Who, _: &Life) {}

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        self.spans.push((who.tid.0, *span));
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        self.lives.push((*who, *life));
    }
}

/// An engine that is told of process 100, whose thread 101 is looked at.
struct Scene {
    engine: Engine,
    heard: Heard,
    seq: u64,
}

fn off(state: u32, number: u32, args: [u64; 2]) -> What {
    let syscall = Syscall::Known { number, args };
    What::ThreadOff(ThreadOff { state, preempted: state == 0, syscall, kernel_stack: None, user_stack: None })
}

fn wake(tid: u32, waker: Waker) -> What {
    What::ThreadWake { tgid: Tgid(100), tid: Tid(tid), waker }
}

const READ: u32 = 0;
const FUTEX: u32 = 202;
const RESTART: u32 = 219;

impl Scene {
    fn new() -> Self {
        let mut engine = Engine::default();
        engine.follow_threads(Threads::Auto);
        let mut scene = Self { engine, heard: Heard::default(), seq: 0 };
        scene.event(
            0,
            1,
            What::ProcessFork(ProcessFork {
                child: Tgid(100),
                child_start_boottime_ns: 0,
                parent_start_boottime_ns: 0,
                parent: Tgid(1),
                cgroup: tracer_common::process::Cgroup::default(),
            }),
        );
        scene.event(1, 100, What::ThreadOn);
        scene.event(2, 100, What::ThreadBirth { child: Tid(101), start_boottime_ns: 0 });
        scene
    }

    fn event(&mut self, at: u64, tid: u32, what: What) -> &mut Self {
        let tgid = if tid >= 100 { Tgid(100) } else { Tgid(1) };
        self.seq += 1;
        let (at, tid) = (KtimeNs(at), Tid(tid));
        let event = Event { at, cpu: 0, seq: self.seq, tgid, tid, binary: None, site: SiteId(0), what };
        self.engine.event(&event, &mut self.heard);
        self
    }

    /// The spans of a thread: state, from, to, reason, object, waker.
    fn told(&mut self, tid: u32) -> Vec<(ThreadState, u64, u64, String, String, String)> {
        self.engine.finish(KtimeNs(1000), &mut self.heard);
        let spans = self.heard.spans.iter().filter(|(of, _)| *of == tid);
        let text = |text: Option<String>| text.unwrap_or_default();
        spans
            .map(|(_, span)| {
                let reason = span.reason.map(|reason| self.engine.reason(reason).to_owned());
                let (object, by) = (span.object.map(|object| object.to_string()), span.woken_by.map(|by| by.to_string()));
                (span.state, span.start.0, span.end.0, text(reason), text(object), text(by))
            })
            .collect()
    }

    fn states(&mut self, tid: u32) -> Vec<(ThreadState, u64, u64)> {
        self.told(tid).into_iter().map(|(state, from, to, ..)| (state, from, to)).collect()
    }

    fn repairs(&self) -> Vec<(&'static str, u64)> {
        self.engine.repairs().by_kind.iter().map(|(kind, count)| (*kind, *count)).collect()
    }

    fn end_of(&self, tid: u32) -> Vec<(ThreadEnd, u64, Option<u32>)> {
        let of = self.heard.lives.iter().filter(|(who, _)| who.tid.0 == tid);
        of.map(|(who, life)| (life.end, life.ended_at.0, who.born_by.map(|tid| tid.0))).collect()
    }
}

use ThreadState::{Blocked, Runnable, Running, Unknown};

/// Check a whole life: born, run, wait for a futex, be woken by a thread, preempted, woken by an interrupt, exit.
#[test]
fn whole_life() {
    let mut scene = Scene::new();
    scene
        .event(5, 101, What::ThreadOn)
        .event(10, 101, off(1, FUTEX, [0xab0, 128]))
        .event(20, 100, wake(101, Waker::Task))
        .event(23, 101, What::ThreadOn)
        .event(30, 101, off(0, READ, [0; 2]))
        .event(35, 101, What::ThreadOn)
        .event(40, 101, off(2, READ, [3, 0]))
        .event(50, 100, wake(101, Waker::Interrupt))
        .event(51, 101, What::ThreadOn)
        .event(60, 101, What::ThreadExit { exit_code: 0, with_process: false, name: ThreadName::new("worker") })
        .event(61, 101, off(0, 60, [0; 2]));
    let row = |state, from, to, reason: &str, object: &str, by: &str| {
        (state, from, to, reason.to_owned(), object.to_owned(), by.to_owned())
    };
    assert_eq!(
        scene.told(101),
        [
            row(Runnable, 2, 5, "", "", ""),
            row(Running, 5, 10, "", "", ""),
            row(Blocked, 10, 20, "futex", "0xab0", "tid:100"),
            row(Runnable, 20, 23, "futex", "0xab0", ""),
            row(Running, 23, 30, "", "", ""),
            row(Runnable, 30, 35, "preempted", "", ""),
            row(Running, 35, 40, "", "", ""),
            row(Blocked, 40, 50, "read (uninterruptible)", "", "interrupt"),
            row(Runnable, 50, 51, "read (uninterruptible)", "", ""),
            row(Running, 51, 60, "", "", ""),
        ]
    );
    assert_eq!(scene.end_of(101), [(ThreadEnd::Exit, 60, Some(100))]);
    assert_eq!(scene.repairs(), []);
}

/// Check that what is lost is unknown, and that each loss is counted by what it was.
#[test]
fn losses() {
    for (events, states, repair) in [
        // The wake.
        (vec![(5, What::ThreadOn), (10, off(1, READ, [0; 2])), (20, What::ThreadOn)], [Running, Unknown], "lost_thread_wake"),
        // That it left its CPU.
        (vec![(5, What::ThreadOn), (20, What::ThreadOn)], [Unknown, Running], "lost_thread_off"),
        // That it got one.
        (vec![(5, off(1, READ, [0; 2])), (20, wake(101, Waker::Task))], [Unknown, Blocked], "lost_thread_on"),
    ] {
        let mut scene = Scene::new();
        for (at, what) in events {
            scene.event(at, 101, what);
        }
        let told = scene.states(101);
        let inner: Vec<ThreadState> =
            told.iter().map(|(state, ..)| *state).skip_while(|state| *state == Runnable).take(2).collect();
        assert_eq!(inner, states, "{repair}: {told:?}");
        assert_eq!(scene.repairs(), [(repair, 1)]);
    }
}

/// Check a wake that comes before the thread has left its CPU, and one that comes when it does not leave at all.
#[test]
fn early_wakes() {
    let mut scene = Scene::new();
    scene
        .event(5, 101, What::ThreadOn)
        .event(9, 100, wake(101, Waker::Task))
        .event(10, 101, off(1, READ, [0; 2]))
        .event(12, 101, What::ThreadOn)
        .event(20, 100, wake(101, Waker::Task))
        .event(30, 101, off(0, READ, [0; 2]))
        .event(33, 101, What::ThreadOn)
        .event(40, 101, off(1, READ, [0; 2]))
        .event(50, 100, wake(101, Waker::Task));
    assert_eq!(
        scene.states(101),
        [
            (Runnable, 2, 5),
            (Running, 5, 10),
            (Blocked, 10, 10),
            (Runnable, 10, 12),
            (Running, 12, 30),
            (Runnable, 30, 33),
            (Running, 33, 40),
            (Blocked, 40, 50),
            (Runnable, 50, 1000)
        ]
    );
    assert_eq!(scene.repairs(), []);
}

/// Check that what a kprobe told names the waits of that call, one that goes on after a signal too, and no other call's.
#[test]
fn announced_waits() {
    let futex = || What::ThreadWait { on: WaitsOn::Futex(Address(0xab0)), kernel_stack: None, user_stack: None };
    let mut scene = Scene::new();
    scene
        .event(5, 101, What::ThreadOn)
        .event(6, 101, futex())
        .event(10, 101, off(1, FUTEX, [0xab0, 0]))
        .event(11, 100, wake(101, Waker::Task))
        .event(12, 101, What::ThreadOn)
        .event(13, 101, futex())
        .event(14, 101, off(1, RESTART, [7, 7]))
        .event(15, 100, wake(101, Waker::Task))
        .event(16, 101, What::ThreadOn)
        .event(20, 101, futex())
        .event(21, 101, off(1, READ, [0; 2]))
        .event(22, 100, wake(101, Waker::Task))
        .event(23, 101, What::ThreadOn)
        .event(24, 101, off(1, RESTART, [7, 7]));
    let told = scene.told(101);
    let waits: Vec<(&str, &str)> =
        told.iter().filter(|row| row.0 == Blocked).map(|row| (row.3.as_str(), row.4.as_str())).collect();
    assert_eq!(waits, [("futex", "0xab0"), ("futex", "0xab0"), ("read", ""), ("restart_syscall", "")]);
}

/// Check an exec from a thread: it goes on under its process's number, and the others are gone.
#[test]
fn exec_from_a_thread() {
    let mut scene = Scene::new();
    scene.event(5, 101, What::ThreadOn).event(
        8,
        100,
        What::ThreadExit { exit_code: 0, with_process: false, name: ThreadName([0; COMM_MAX]) },
    );
    let program = Program { old_tid: Some(Tid(101)), ..Program::default() };
    scene.event(10, 100, What::ProcessExec(Box::new(program))).event(20, 100, off(1, READ, [0; 2]));
    let exit = ProcessExit { start_boottime_ns: 0, wait_status: Some(0), parent: None, autoreaped: false };
    scene.event(30, 100, What::ProcessExit(exit));
    assert_eq!(scene.states(101).last(), Some(&(Running, 5, 10)));
    assert_eq!(scene.end_of(101), [(ThreadEnd::Exec, 10, Some(100))]);
    assert_eq!(scene.end_of(100), [(ThreadEnd::Exit, 8, Some(1)), (ThreadEnd::ProcessEnd, 30, Some(101))]);
}

/// Check that a number that is used again is another thread, and that a thread whose end was lost is gone by then.
#[test]
fn reused_numbers() {
    let mut scene = Scene::new();
    let birth = || What::ThreadBirth { child: Tid(101), start_boottime_ns: 0 };
    scene.event(5, 101, What::ThreadExit { exit_code: 0, with_process: false, name: ThreadName([0; COMM_MAX]) });
    scene.event(10, 100, birth()).event(12, 101, What::ThreadOn).event(20, 100, birth());
    assert_eq!(scene.states(101).last(), Some(&(Runnable, 20, 1000)));
    let ends: Vec<(ThreadEnd, u64)> = scene.end_of(101).into_iter().map(|(end, at, _)| (end, at)).collect();
    assert_eq!(ends, [(ThreadEnd::Exit, 5), (ThreadEnd::Gone, 20), (ThreadEnd::RecordingEnd, 1000)]);
    // The first one was never told to be on a CPU, where it must have been to end.
    assert_eq!(scene.repairs(), [("lost_thread_exit", 1), ("lost_thread_on", 1)]);
}

/// Check that threads of a process of which a probe of Go's is hit are out of sight from there on.
#[test]
fn out_of_sight() {
    let mut scene = Scene::new();
    scene.event(5, 101, What::ThreadOn).event(10, 101, What::ProcessImage { ip: Address(0x1000) });
    assert_eq!(scene.states(101), [(Runnable, 2, 5), (Running, 5, 10), (Unknown, 10, 1000)]);
}
