//! Facts that no tracepoint has: through kprobes where the kernel has them, else by the fallback. Which it was is printed.

use anyhow::{Context, Result};
use lifetrace_tests::{
    fixture, kernel,
    lifetrace::Run,
    recording::Span,
    scenario::{Need, alone},
    truth,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Restarted {
    pid: u32,
    timed_out: bool,
    object: String,
}

#[derive(Deserialize)]
struct Truth {
    threads: Vec<Thread>,
}

#[derive(Deserialize)]
struct Thread {
    role: String,
    tid: u32,
    waits: usize,
    object: String,
}

fn kernel_has_kprobes() -> bool {
    let there = kernel::has_kprobes();
    println!("futex and epoll waits: through {}", if there { "kprobes" } else { "the fallback, the system call's arguments" });
    there
}

fn blocked(spans: &[Span]) -> Vec<(&str, Option<&str>)> {
    let blocked = spans.iter().filter(|span| span.state == "blocked");
    blocked.map(|span| (span.reason.as_deref().unwrap_or_default(), span.object.as_deref())).collect()
}

/// Check that waits on a futex and on an epoll are as many as the program made, each with what it waited for.
#[test]
fn futex_and_epoll_waits() -> Result<()> {
    alone(&[Need::Root], || {
        let _ = kernel_has_kprobes();
        let (finished, recording) = Run::of(fixture::c("threads")?).finish_whole()?;
        let truth: Truth = truth::read(finished.expect_code(0)?.last_line())?;
        for (role, reason) in [("futex", "futex"), ("epoll", "epoll_wait")] {
            let thread = truth.threads.iter().find(|thread| thread.role == role).context("a thread of that role")?;
            let spans = recording.timeline(Some(&format!("tid:{}", thread.tid)))?;
            let waits = blocked(&spans).into_iter().filter(|wait| *wait == (reason, Some(thread.object.as_str()))).count();
            assert_eq!(waits, thread.waits, "{role}");
        }
        Ok(())
    })
}

/// Check a wait that a stop interrupts and a continuation resumes: the kernel goes on with restart_syscall, whose arguments are not those of
/// the wait. A kprobe knows them still; without one they are not invented.
#[test]
fn interrupted_futex_wait() -> Result<()> {
    alone(&[Need::Root], || {
        let kprobes = kernel_has_kprobes();
        let (finished, recording) = Run::of(fixture::c("threads")?).args(["restart"]).finish_whole()?;
        let truth: Restarted = truth::read(finished.expect_code(0)?.last_line())?;
        assert!(truth.timed_out, "the wait went on to its end");
        let spans = recording.timeline(Some(&format!("tid:{}", truth.pid)))?;
        let waits = blocked(&spans);
        let object = Some(truth.object.as_str());
        let first = waits.iter().position(|wait| *wait == ("futex", object)).with_context(|| format!("{waits:?}"))?;
        let second = if kprobes { ("futex", object) } else { ("restart_syscall", None) };
        assert_eq!(waits.get(first + 1).map(|wait| wait.0), Some("stopped"), "{waits:?}");
        assert_eq!(waits.get(first + 2), Some(&second), "{waits:?}");
        Ok(())
    })
}
