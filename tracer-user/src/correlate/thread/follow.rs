//! All threads that live, and what an event means for which of them.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::{
    clock::KtimeNs,
    correlate::{Engine, Sink, process::ImageId},
    event::{Event, ThreadName, ThreadOff, Waker, What},
    id::{Tgid, Tid},
    recording::contract::{Threads, ThreadsMet},
};

use super::{
    Lost, Thread, ThreadEnd, ThreadId, ThreadState, ThreadWaker, ThreadWho,
    reason::{self, Announced, Wait},
};

/// The threads that live.
#[derive(Default)]
pub(in crate::correlate) struct ThreadsAlive {
    /// Whose threads are followed in detail.
    pub followed: Threads,
    live: BTreeMap<(Tgid, Tid), Thread>,
    /// Those whose exit was told, by the process they were of: they leave their CPU once more, and that says nothing.
    exited: FxHashMap<Tid, Tgid>,
    count: u32,
}

impl ThreadsAlive {
    fn next_id(&mut self) -> ThreadId {
        self.count += 1;
        ThreadId(self.count - 1)
    }

    fn of(&self, tgid: Tgid) -> Vec<Tid> {
        self.live.range((tgid, Tid(0))..=(tgid, Tid(u32::MAX))).map(|((_, tid), _)| *tid).collect()
    }
}

impl Engine {
    /// Learns whose threads are followed in detail, before any event.
    pub fn follow_threads(&mut self, followed: Threads) {
        self.threads.followed = followed;
    }

    /// Whether the scheduler's events of an image come.
    fn in_detail(&self, image: ImageId) -> bool {
        match self.threads.followed {
            Threads::Off => false,
            Threads::On => true,
            Threads::Auto => self.processes.image(image).first_hit.is_none(),
        }
    }

    /// What is known of a thread that gets a CPU next, or has one.
    fn if_in_detail(&self, image: ImageId, state: ThreadState) -> ThreadState {
        if self.in_detail(image) { state } else { ThreadState::Unknown }
    }

    /// An event of a thread.
    pub(in crate::correlate) fn thread_event(&mut self, event: &Event, sink: &mut impl Sink) {
        match event.what {
            What::ThreadBirth { child, .. } => self.thread_birth((event.tgid, child), event, sink),
            What::ThreadExit { with_process, name, .. } => self.thread_exit(event, with_process, name, sink),
            What::ThreadOff(off) => self.thread_off(event, &off, sink),
            What::ThreadOn => {
                self.on_thread((event.tgid, event.tid), event.at, sink, |thread, sink| {
                    thread.on(event.at, &mut |who, span| sink.thread_span(who, &span))
                });
            }
            What::ThreadWake { tgid, tid, waker } => {
                let by = match waker {
                    Waker::Task => ThreadWaker::Thread(event.tid),
                    Waker::Interrupt => ThreadWaker::Interrupt,
                    Waker::Unknown => ThreadWaker::Unknown,
                };
                self.on_thread((tgid, tid), event.at, sink, |thread, sink| {
                    thread.wake(event.at, by, &mut |who, span| sink.thread_span(who, &span));
                    None
                });
            }
            What::ThreadWait { on, kernel_stack, user_stack } => {
                self.on_thread((event.tgid, event.tid), event.at, sink, |thread, _| {
                    thread.announced = Some(Announced { on, user_stack, kernel_stack });
                    None
                });
            }
            _ => {}
        }
    }

    fn thread_off(&mut self, event: &Event, off: &ThreadOff, sink: &mut impl Sink) {
        let who = (event.tgid, event.tid);
        let announced = self.threads.live.get(&who).and_then(|thread| thread.announced).filter(|told| reason::fits(told, off));
        let wait = Wait {
            reason: reason::name(off, announced.as_ref()).map(|name| self.reasons.intern(&name)),
            object: reason::object(off, announced.as_ref()),
            user_stack: off.user_stack.or(announced.and_then(|told| told.user_stack)),
            kernel_stack: off.kernel_stack.or(announced.and_then(|told| told.kernel_stack)),
        };
        self.on_thread(who, event.at, sink, |thread, sink| {
            if !off.preempted {
                thread.announced = announced;
            }
            thread.off(event.at, wait, !off.preempted, &mut |who, span| sink.thread_span(who, &span))
        });
    }

    /// Applies an event to a thread, and counts what that shows to be lost. One that is met for the first time is unknown since its
    /// image began.
    fn on_thread<S: Sink>(
        &mut self,
        (tgid, tid): (Tgid, Tid),
        at: KtimeNs,
        sink: &mut S,
        apply: impl FnOnce(&mut Thread, &mut S) -> Option<Lost>,
    ) {
        if !self.threads.live.contains_key(&(tgid, tid)) {
            if self.threads.exited.get(&tid) == Some(&tgid) {
                return;
            }
            let Some(image) = self.processes.running(tgid, at) else { return };
            self.begin_thread((tgid, tid), image, None, ThreadState::Unknown);
        }
        if let Some(thread) = self.threads.live.get_mut(&(tgid, tid))
            && let Some(lost) = apply(thread, sink)
        {
            self.repairs.count(lost.name());
        }
    }

    /// `born`: when, and by which thread.
    fn begin_thread(
        &mut self,
        (tgid, tid): (Tgid, Tid),
        image: ImageId,
        born: Option<(KtimeNs, Option<Tid>)>,
        state: ThreadState,
    ) {
        let (process, began) = (self.processes.image(image).process, self.processes.image(image).since);
        let (born_at, born_by) = (born.map(|(at, _)| at), born.and_then(|(_, by)| by));
        let id = self.threads.next_id();
        let who = ThreadWho { id, process, tid, born_at, born_by, since: born_at.unwrap_or(began) };
        self.threads.exited.remove(&tid);
        self.threads.live.insert((tgid, tid), Thread::new(who, image, state));
    }

    fn thread_birth(&mut self, (tgid, tid): (Tgid, Tid), event: &Event, sink: &mut impl Sink) {
        let Some(image) = self.processes.running(tgid, event.at) else { return };
        self.replace_thread((tgid, tid), image, (event.at, Some(event.tid)), sink);
    }

    /// A thread that begins takes the place of one whose end was lost; one that was only found beside it, or whose first event was
    /// early, is this one.
    fn replace_thread(&mut self, of: (Tgid, Tid), image: ImageId, born: (KtimeNs, Option<Tid>), sink: &mut impl Sink) {
        let (at, by) = born;
        if let Some(old) = self.threads.live.get_mut(&of) {
            let found = old.state == ThreadState::Unknown && old.who.born_at.is_none() && old.last <= old.since;
            if found {
                self.threads.live.remove(&of);
            } else {
                self.end_thread(of, at, ThreadEnd::Gone, sink);
            }
        }
        let state = self.if_in_detail(image, ThreadState::Runnable);
        self.begin_thread(of, image, Some((at, by)), state);
    }

    fn thread_exit(&mut self, event: &Event, with_process: bool, name: ThreadName, sink: &mut impl Sink) {
        let of = (event.tgid, event.tid);
        self.on_thread(of, event.at, sink, |thread, _| {
            thread.name = Some(name);
            None
        });
        let end = if with_process { ThreadEnd::ExitOfAll } else { ThreadEnd::Exit };
        self.end_thread(of, event.at, end, sink);
        self.threads.exited.insert(event.tid, event.tgid);
    }

    fn end_thread(&mut self, of: (Tgid, Tid), at: KtimeNs, end: ThreadEnd, sink: &mut impl Sink) {
        let Some(thread) = self.threads.live.remove(&of) else { return };
        match end {
            ThreadEnd::Gone => self.repairs.count("lost_thread_exit"),
            ThreadEnd::Exit | ThreadEnd::ExitOfAll | ThreadEnd::Exec if thread.is_off() => self.repairs.count("lost_thread_on"),
            _ => {}
        }
        let (who, life) = thread.end(at, end, &mut |who, span| sink.thread_span(who, &span));
        sink.thread_life(&who, &life);
    }

    /// A process was forked: its first thread begins.
    pub(in crate::correlate) fn first_thread(&mut self, tgid: Tgid, event: &Event, sink: &mut impl Sink) {
        for tid in self.threads.of(tgid).into_iter().filter(|tid| tid.0 != tgid.0) {
            self.end_thread((tgid, tid), event.at, ThreadEnd::Gone, sink);
        }
        self.thread_birth((tgid, Tid(tgid.0)), event, sink);
    }

    /// A process executed a program: the thread that did is its only one now, under the number of the first.
    pub(in crate::correlate) fn threads_exec(&mut self, old_tid: Option<Tid>, event: &Event, sink: &mut impl Sink) {
        let (tgid, at) = (event.tgid, event.at);
        let Some(image) = self.processes.running(tgid, at) else { return };
        let leader = Tid(tgid.0);
        let executing = old_tid.unwrap_or(leader);
        for tid in self.threads.of(tgid).into_iter().filter(|tid| *tid != executing) {
            self.end_thread((tgid, tid), at, ThreadEnd::Gone, sink);
        }
        let running = self.if_in_detail(image, ThreadState::Running);
        if executing != leader {
            self.end_thread((tgid, executing), at, ThreadEnd::Exec, sink);
            self.begin_thread((tgid, leader), image, Some((at, Some(executing))), running);
            return;
        }
        if !self.threads.live.contains_key(&(tgid, leader)) {
            self.begin_thread((tgid, leader), image, None, running);
        }
        if let Some(thread) = self.threads.live.get_mut(&(tgid, leader)) {
            thread.turn(at, running, &mut |who, span| sink.thread_span(who, &span));
            thread.image = image;
        }
    }

    /// A process ended: so did its threads.
    pub(in crate::correlate) fn threads_of_ended(&mut self, tgid: Tgid, at: KtimeNs, sink: &mut impl Sink) {
        for tid in self.threads.of(tgid) {
            self.end_thread((tgid, tid), at, ThreadEnd::ProcessEnd, sink);
            self.threads.exited.insert(tid, tgid);
        }
    }

    /// A probe of Go's was hit in a process: where its threads are told of no more, nothing is known of them from here on.
    pub(in crate::correlate) fn threads_out_of_sight(&mut self, tgid: Tgid, at: KtimeNs, sink: &mut impl Sink) {
        if self.threads.followed != Threads::Auto {
            return;
        }
        for tid in self.threads.of(tgid) {
            if let Some(thread) = self.threads.live.get_mut(&(tgid, tid)) {
                thread.turn(at, ThreadState::Unknown, &mut |who, span| sink.thread_span(who, &span));
            }
        }
    }

    /// Which threads a process had when it came to be followed.
    pub fn threads_met(&mut self, met: &ThreadsMet) {
        for thread in &met.threads {
            let of = (met.tgid, thread.tid);
            if !self.threads.live.contains_key(&of) {
                let Some(image) = self.processes.running(met.tgid, met.at) else { return };
                self.begin_thread(of, image, None, ThreadState::Unknown);
            }
            if let Some(known) = self.threads.live.get_mut(&of) {
                known.name.get_or_insert(ThreadName::new(&thread.name));
            }
        }
    }

    /// Closes every thread that still lives.
    pub(in crate::correlate) fn finish_threads(&mut self, at: KtimeNs, sink: &mut impl Sink) {
        let live: Vec<(Tgid, Tid)> = self.threads.live.keys().copied().collect();
        for of in live {
            self.end_thread(of, at, ThreadEnd::RecordingEnd, sink);
        }
    }
}
