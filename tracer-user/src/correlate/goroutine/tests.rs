//! A goroutine run through events.

use super::*;

const PARK: super::Park = super::Park { reason: Some(ReasonId(0)), stack: Some(StackId(9)), object: None, tid: Some(Tid(7)) };

#[derive(Clone, Copy)]
enum Happens {
    Park(u64),
    Abort(u64),
    Wake(u64),
    Exit(u64),
    Cut(u64),
    Gone(u64),
    Change(Transition, u64),
}
use Happens::*;

/// Runs a goroutine through events; spans as `state start-end`, behind them what was lost.
fn run(first: Option<First>, scheduling: bool, events: &[Happens]) -> Vec<String> {
    run_from(
        match first {
            Some(first) => Goroutine::born(who(), first, tier(scheduling)),
            None => Goroutine::met(who().image, who().goid, who().since, tier(scheduling)),
        },
        events,
    )
}

fn tier(scheduling: bool) -> Tier {
    if scheduling { Tier::T3 } else { Tier::T2 }
}

fn who() -> Who {
    let (image, goid, since) = (ImageId(0), Goid(1), KtimeNs(10));
    let origin = Origin { parent: None, gopc: Address(1), startpc: Address(2), stack: None };
    Who {
        image,
        goid,
        born_at: Some(since),
        born_by: None,
        origin: Some(origin),
        origin_by_look: false,
        unseen: false,
        since,
        depth: 0,
        slot: 0,
    }
}

fn run_from(goroutine: Goroutine, events: &[Happens]) -> Vec<String> {
    let mut goroutine = Some(goroutine);
    let mut repairs = Vec::new();
    let mut spans = Vec::new();
    let mut sink = |_: &Who, span: Span| {
        spans.push(format!("{} {}-{}", format!("{:?}", span.state).to_lowercase(), span.start.0, span.end.0));
    };
    for event in events {
        let live = goroutine.as_mut().expect("alive");
        repairs.extend(match *event {
            Park(at) => live.park(KtimeNs(at), PARK, &mut sink),
            Abort(at) => {
                live.park_abort(KtimeNs(at), &mut sink);
                None
            }
            Wake(at) => live.wake(KtimeNs(at), WokenBy::Unknown, &mut sink),
            Change(transition, at) => live.transition(KtimeNs(at), Step { transition, park: PARK, by: None }, &mut sink),
            Exit(at) => goroutine.take().unwrap().exit(KtimeNs(at), Tid(1), &mut sink).lost,
            Cut(at) => {
                goroutine.take().unwrap().cut(KtimeNs(at), &mut sink);
                None
            }
            Gone(at) => {
                goroutine.take().unwrap().gone(KtimeNs(at), &mut sink);
                None
            }
        });
    }
    spans.extend(repairs.iter().map(|repair| repair.name().to_owned()));
    spans
}

/// Check what each sequence of events says, lost ones included.
#[test]
fn lives() {
    let cases: &[(&str, bool, &[Happens], &[&str])] = &[
        ("a whole life", true, &[Park(20), Wake(30), Exit(40)], &["awake 10-20", "blocked 20-30", "awake 30-40"]),
        ("an aborted park never was", true, &[Park(20), Abort(21), Exit(40)], &["awake 10-40"]),
        (
            "a lost wake",
            true,
            &[Park(20), Park(30), Wake(35), Exit(40)],
            &["awake 10-20", "unknown 20-30", "blocked 30-35", "awake 35-40", "lost_wake"],
        ),
        (
            "a lost wake before an aborted park",
            true,
            &[Park(20), Park(30), Abort(31), Exit(40)],
            &["awake 10-20", "unknown 20-30", "awake 30-40", "lost_wake"],
        ),
        ("a lost park", true, &[Wake(30), Exit(40)], &["awake 10-40"]),
        ("exit while blocked: the wake is lost", true, &[Park(20), Exit(40)], &["awake 10-20", "unknown 20-40", "lost_wake"]),
        ("met parking", false, &[Park(20), Wake(30), Cut(40)], &["unknown 10-20", "blocked 20-30", "awake 30-40"]),
        ("met waking", false, &[Wake(30), Cut(40)], &["unknown 10-30", "awake 30-40"]),
        ("met exiting", false, &[Exit(30)], &["unknown 10-30"]),
        ("met in an aborted park", false, &[Park(20), Abort(22), Exit(30)], &["unknown 10-20", "awake 20-30"]),
        ("met by an abort whose park was lost", false, &[Abort(22), Exit(30)], &["unknown 10-22", "awake 22-30"]),
        ("blocked until the end", true, &[Park(20), Cut(90)], &["awake 10-20", "blocked 20-90"]),
        (
            "a lost exit of one that was awake",
            true,
            &[Park(20), Wake(30), Gone(90)],
            &["awake 10-20", "blocked 20-30", "unknown 30-90"],
        ),
        ("a lost exit of one that was blocked", true, &[Park(20), Gone(90)], &["awake 10-20", "unknown 20-90"]),
        (
            "a late wake cannot run backwards",
            true,
            &[Park(20), Wake(15), Exit(40)],
            &["awake 10-20", "blocked 20-20", "awake 20-40"],
        ),
    ];
    for (name, born, steps, spans) in cases {
        assert_eq!(run(born.then_some(First::Awake), false, steps), *spans, "{name}");
    }
}

/// Check the same where every change of state is told: what each says, and what is said of one that is missing.
#[test]
fn scheduled_lives() {
    use Transition::*;
    let run_at = |at| Change(Run, at);
    let cases: &[(&str, &[Happens], &[&str])] = &[
        (
            "a whole life",
            &[run_at(12), Park(20), Wake(30), run_at(33), Exit(40)],
            &["runnable 10-12", "running 12-20", "blocked 20-30", "runnable 30-33", "running 33-40"],
        ),
        (
            "an aborted park, and the run that follows it",
            &[run_at(12), Park(20), Abort(21), run_at(21), Exit(40)],
            &["runnable 10-12", "running 12-40"],
        ),
        (
            "an aborted park whose run was lost",
            &[run_at(12), Park(20), Abort(21), Change(Yield, 30), run_at(31), Exit(40)],
            &["runnable 10-12", "running 12-30", "runnable 30-31", "running 31-40"],
        ),
        (
            "a yield",
            &[run_at(12), Change(Yield, 20), run_at(25), Cut(40)],
            &["runnable 10-12", "running 12-20", "runnable 20-25", "running 25-40"],
        ),
        (
            "preempted: runnable, not blocked",
            &[run_at(12), Change(Preempt, 20), Wake(22), run_at(25), Cut(40)],
            &["runnable 10-12", "running 12-20", "runnable 20-25", "running 25-40"],
        ),
        (
            "preempted, the wake lost",
            &[run_at(12), Change(Preempt, 20), run_at(25), Cut(40)],
            &["runnable 10-12", "running 12-20", "runnable 20-25", "running 25-40"],
        ),
        (
            "system calls, with and without a processor behind them",
            &[
                run_at(12),
                Change(Syscall, 20),
                Change(SyscallExit, 22),
                Change(Syscall, 24),
                Change(SyscallExitQueued, 28),
                run_at(30),
                Exit(40),
            ],
            &[
                "runnable 10-12",
                "running 12-20",
                "syscall 20-22",
                "running 22-24",
                "syscall 24-28",
                "runnable 28-30",
                "running 30-40",
            ],
        ),
        (
            "a coroutine's caller",
            &[run_at(12), Change(CoroutineStop, 20), Change(CoroutineRun, 25), Exit(40)],
            &["runnable 10-12", "running 12-20", "blocked 20-25", "running 25-40"],
        ),
        (
            "the run is lost",
            &[Park(20), Wake(30), Cut(40)],
            &["unknown 10-20", "blocked 20-30", "runnable 30-40", "lost_transition"],
        ),
        (
            "the park is lost",
            &[run_at(12), Wake(30), Cut(40)],
            &["runnable 10-12", "unknown 12-30", "runnable 30-40", "lost_transition"],
        ),
        (
            "the wake is lost",
            &[run_at(12), Park(20), run_at(30), Cut(40)],
            &["runnable 10-12", "running 12-20", "unknown 20-30", "running 30-40", "lost_wake"],
        ),
        (
            "the yield is lost",
            &[run_at(12), run_at(30), Cut(40)],
            &["runnable 10-12", "unknown 12-30", "running 30-40", "lost_transition"],
        ),
        (
            "the return from a system call is lost",
            &[run_at(12), Change(Syscall, 20), Park(30), Cut(40)],
            &["runnable 10-12", "running 12-20", "unknown 20-30", "blocked 30-40", "lost_transition"],
        ),
        (
            "the entry into a system call is lost",
            &[run_at(12), Change(SyscallExit, 20), Cut(40)],
            &["runnable 10-12", "unknown 12-20", "running 20-40", "lost_transition"],
        ),
        (
            "the switch away from a coroutine is lost",
            &[run_at(12), Change(CoroutineRun, 20), Cut(40)],
            &["runnable 10-12", "unknown 12-20", "running 20-40", "lost_transition"],
        ),
        (
            "the switch to a coroutine is lost",
            &[run_at(12), Change(CoroutineStop, 20), Exit(40)],
            &["runnable 10-12", "running 12-20", "unknown 20-40", "lost_wake"],
        ),
        ("exit while runnable: the run is lost", &[Exit(40)], &["unknown 10-40", "lost_transition"]),
        ("a lost exit", &[run_at(12), Gone(40)], &["runnable 10-12", "unknown 12-40"]),
    ];
    for (name, events, spans) in cases {
        assert_eq!(run(Some(First::Runnable), true, events), *spans, "{name}");
    }
}

/// Check a coroutine's life, which begins waiting, and a C thread's goroutine, whose birth nobody sees.
#[test]
fn lives_that_begin_otherwise() {
    use Transition::*;
    assert_eq!(
        run(Some(First::Waiting(PARK)), true, &[Change(CoroutineRun, 20), Change(CoroutineStop, 30), Cut(40)]),
        ["blocked 10-20", "running 20-30", "blocked 30-40"]
    );
    let thread = [Change(ThreadAttach, 20), Change(SyscallExit, 21), Change(Syscall, 30), Change(ThreadDetach, 31), Cut(40)];
    assert_eq!(run(None, true, &thread), ["unknown 10-20", "syscall 20-21", "running 21-30", "syscall 30-31", "unknown 31-40"]);
    assert_eq!(run(None, true, &[Wake(20), Change(Run, 25), Cut(40)]), ["unknown 10-20", "runnable 20-25", "running 25-40"]);
}

fn found(seen: Seen, scheduling: bool) -> Goroutine {
    let look = Look { number: 1, from: KtimeNs(20), to: KtimeNs(30), tier: tier(scheduling), gap: false, summing: false };
    Goroutine::found(Who { born_at: None, ..who() }, look, seen, LookedAt::default())
}

/// Check what is made of a goroutine that was read out of memory between 20 and 30, waiting or not, by its first event.
#[test]
fn found_in_memory() {
    let cases: &[(&str, bool, &[Happens], &[&str])] = &[
        ("woken later", true, &[Wake(40), Cut(50)], &["unknown 10-20", "blocked 20-40", "awake 40-50"]),
        ("woken while it was read", true, &[Wake(25), Cut(50)], &["unknown 10-20", "blocked 20-25", "awake 25-50"]),
        ("waits to the end", true, &[Cut(50)], &["unknown 10-20", "blocked 20-50"]),
        (
            "parked before it was looked at",
            true,
            &[Park(25), Wake(40), Cut(50)],
            &["unknown 10-20", "awake 20-25", "blocked 25-40", "awake 40-50"],
        ),
        ("a lost wake", true, &[Park(40), Cut(50)], &["unknown 10-20", "unknown 20-40", "blocked 40-50", "lost_wake"]),
        ("ran", false, &[Park(40), Cut(50)], &["unknown 10-20", "awake 20-40", "blocked 40-50"]),
        (
            "ran after a wake that came before it was looked at",
            false,
            &[Wake(25), Cut(50)],
            &["unknown 10-20", "unknown 20-25", "awake 25-50"],
        ),
        ("ended after it was looked at", false, &[Exit(25)], &["unknown 10-20", "awake 20-25"]),
        (
            "woken and ended after it was looked at",
            true,
            &[Wake(22), Exit(25)],
            &["unknown 10-20", "blocked 20-22", "awake 22-25"],
        ),
    ];
    for (name, waits, events, spans) in cases {
        let seen = if *waits { Seen::Blocked(PARK) } else { Seen::Open(SpanState::Awake) };
        assert_eq!(run_from(found(seen, false), events), *spans, "{name}");
    }
}

/// Check the same where every change of state is told.
#[test]
fn found_in_memory_scheduled() {
    use Transition::*;
    let cases: &[(&str, SpanState, &[Happens], &[&str])] = &[
        (
            "read after it had begun to run",
            SpanState::Running,
            &[Change(Run, 25), Cut(50)],
            &["unknown 10-20", "runnable 20-25", "running 25-50"],
        ),
        (
            "read before it began to run",
            SpanState::Runnable,
            &[Change(Run, 25), Cut(50)],
            &["unknown 10-20", "runnable 20-25", "running 25-50"],
        ),
        (
            "read in a system call that it came out of later",
            SpanState::Syscall,
            &[Change(SyscallExit, 40), Cut(50)],
            &["unknown 10-20", "syscall 20-40", "running 40-50"],
        ),
        (
            "the run is lost",
            SpanState::Runnable,
            &[Park(40), Cut(50)],
            &["unknown 10-20", "unknown 20-40", "blocked 40-50", "lost_transition"],
        ),
    ];
    for (name, state, events, spans) in cases {
        assert_eq!(run_from(found(Seen::Open(*state), true), events), *spans, "{name}");
    }
}
