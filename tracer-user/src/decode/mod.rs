//! Bytes of a wire record into an [`Event`], and back.
//!
//! Every read is checked: an unknown kind or a short record is a [`DecodeError`] for the caller to count.

use tracer_common::{
    gc::{GcCycleStart, StartTheWorld, StopTheWorld},
    goroutine::{
        GoroutineBirth, GoroutineExit, GoroutineLateBirth, GoroutinePark, GoroutineParkAbort, GoroutineTransition, GoroutineWait,
        GoroutineWake,
    },
    header::{Header, Kind},
    process::ProcessImage,
    sample::{GOID_KNOWN, IN_KERNEL, OnCpuSample},
    stack::{EXACT, KERNEL, MAX_FRAMES, NATIVE, Stack, TOP_WORD, TRUNCATED},
    testing::{NAME_MAX, TestRun},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    clock::KtimeNs,
    event::{CodeOf, Event, Runner, Top, Transition, What},
    id::{Address, BinaryId, Goid, SiteId, StackId, Tgid, Tid},
};

mod process;
mod thread;
mod usdt;

/// Why bytes are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record of {len} bytes is too short for its kind")]
    Short { len: usize },
    #[error("record kind {kind} is unknown")]
    UnknownKind { kind: u8 },
    #[error("a {} record is malformed", kind.name())]
    Malformed { kind: Kind },
}

/// Decodes one record. Bytes behind the record's structure are ignored: a later version may add fields there.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let header: Header = read(bytes)?;
    let kind = Kind::from_u8(header.kind).ok_or(DecodeError::UnknownKind { kind: header.kind })?;
    Ok(Event {
        at: KtimeNs(header.ktime_ns),
        cpu: header.cpu,
        seq: header.seq,
        tgid: Tgid(header.tgid),
        tid: Tid(header.tid),
        binary: (header.binary != 0).then_some(BinaryId(header.binary)),
        site: SiteId(header.site),
        what: what(kind, bytes)?,
    })
}

fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| DecodeError::Short { len: bytes.len() })
}

fn what(kind: Kind, bytes: &[u8]) -> Result<What, DecodeError> {
    Ok(match kind {
        Kind::GoroutineBirth => {
            let birth: GoroutineBirth = read(bytes)?;
            What::GoroutineBirth {
                goid: goid(kind, birth.goid)?,
                parent: nonzero(birth.parent_goid).map(Goid),
                gopc: Address(birth.gopc),
                startpc: Address(birth.startpc),
                stack: nonzero(birth.stack_id).map(StackId),
            }
        }
        Kind::GoroutinePark => {
            let park: GoroutinePark = read(bytes)?;
            What::GoroutinePark {
                goid: goid(kind, park.goid)?,
                wait_reason: park.wait_reason,
                lock: nonzero(park.lock).map(Address),
                stack: nonzero(park.stack_id).map(StackId),
            }
        }
        Kind::GoroutineParkAbort => What::GoroutineParkAbort { goid: goid(kind, read::<GoroutineParkAbort>(bytes)?.goid)? },
        Kind::GoroutineWake => {
            let wake: GoroutineWake = read(bytes)?;
            What::GoroutineWake { goid: goid(kind, wake.goid)?, waker: nonzero(wake.waker_goid).map(Goid) }
        }
        Kind::GoroutineLateBirth => {
            let birth: GoroutineLateBirth = read(bytes)?;
            What::GoroutineLateBirth {
                goid: goid(kind, birth.goid)?,
                born_at: KtimeNs(birth.born_at),
                parent: nonzero(birth.parent_goid).map(Goid),
                gopc: Address(birth.gopc),
                startpc: Address(birth.startpc),
                stack: nonzero(birth.stack_id).map(StackId),
            }
        }
        Kind::GoroutineWait => {
            let wait: GoroutineWait = read(bytes)?;
            What::GoroutineWait {
                goid: goid(kind, wait.goid)?,
                parked_at: KtimeNs(wait.parked_at),
                wait_reason: wait.wait_reason,
                lock: nonzero(wait.lock).map(Address),
                stack: nonzero(wait.stack_id).map(StackId),
                park_tid: Tid(wait.park_tid),
                waker: nonzero(wait.waker_goid).map(Goid),
            }
        }
        Kind::GoroutineExit => What::GoroutineExit { goid: goid(kind, read::<GoroutineExit>(bytes)?.goid)? },
        Kind::GoroutineTransition => {
            let record: GoroutineTransition = read(bytes)?;
            What::GoroutineTransition {
                goid: goid(kind, record.goid)?,
                transition: Transition::between(record.from, record.to).ok_or(DecodeError::Malformed { kind })?,
                stack: nonzero(record.stack_id).map(StackId),
            }
        }
        Kind::Stack => stack(&read(bytes)?)?,
        Kind::ProcessImage => What::ProcessImage { ip: Address(read::<ProcessImage>(bytes)?.ip) },
        Kind::ProcessFork
        | Kind::ProcessExec
        | Kind::ProcessMet
        | Kind::ProcessExit
        | Kind::ProcessReaped
        | Kind::SignalSent
        | Kind::SignalTaken
        | Kind::OomVictim
        | Kind::CgroupMoved => return process::decode(kind, bytes),
        Kind::ThreadBirth | Kind::ThreadExit | Kind::ThreadOff | Kind::ThreadOn | Kind::ThreadWake | Kind::ThreadWait => {
            return thread::decode(kind, bytes);
        }
        Kind::StopTheWorld => {
            let stop: StopTheWorld = read(bytes)?;
            What::StopTheWorld { goid: nonzero(stop.goid).map(Goid), reason: stop.reason }
        }
        Kind::StartTheWorld => What::StartTheWorld { goid: nonzero(read::<StartTheWorld>(bytes)?.goid).map(Goid) },
        Kind::GcCycleStart => What::GcCycleStart { goid: nonzero(read::<GcCycleStart>(bytes)?.goid).map(Goid) },
        Kind::TestRun => test_run(&read(bytes)?),
        Kind::OnCpuSample => sample(&read(bytes)?),
        Kind::UsdtHit => return usdt::decode(&read(bytes)?),
    })
}

fn test_run(record: &TestRun) -> What {
    let name = record.name.get(..record.name_copied as usize).unwrap_or(&record.name);
    let mut name = String::from_utf8_lossy(name).into_owned();
    // What stands for broken bytes is longer than these.
    let fits = name.floor_char_boundary(NAME_MAX);
    let cut = record.name_copied < record.name_len || fits < name.len();
    name.truncate(fits);
    What::TestRun { goid: nonzero(record.goid).map(Goid), name, cut }
}

fn sample(record: &OnCpuSample) -> What {
    let known = record.flags & GOID_KNOWN != 0;
    What::OnCpuSample {
        runner: match nonzero(record.goid) {
            _ if !known => Runner::Unknown,
            None => Runner::Nobody,
            Some(goid) => Runner::Goroutine(Goid(goid)),
        },
        stack: nonzero(record.stack_id).map(StackId),
        in_kernel: record.flags & IN_KERNEL != 0,
        period_ns: record.period_ns,
    }
}

/// Goids begin at 1; 0 is a g of the scheduler, or memory that could not be read.
fn goid(kind: Kind, goid: u64) -> Result<Goid, DecodeError> {
    nonzero(goid).map(Goid).ok_or(DecodeError::Malformed { kind })
}

fn stack(record: &Stack) -> Result<What, DecodeError> {
    let pcs = record.pcs.get(..record.depth as usize).filter(|_| record.stack_id != 0);
    let pcs = pcs.ok_or(DecodeError::Malformed { kind: Kind::Stack })?;
    Ok(What::Stack {
        id: StackId(record.stack_id),
        pcs: pcs.iter().copied().map(Address).collect(),
        truncated: record.flags & TRUNCATED != 0,
        top: match (record.flags & EXACT != 0, record.flags & TOP_WORD != 0) {
            (false, _) => Top::Return,
            (true, false) => Top::Instruction,
            (true, true) => Top::InstructionAndWord,
        },
        of: match (record.flags & KERNEL != 0, record.flags & NATIVE != 0) {
            (true, _) => CodeOf::Kernel,
            (false, true) => CodeOf::Process,
            (false, false) => CodeOf::Binary,
        },
    })
}

fn nonzero(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// The wire record of an event: what synthetic recordings are made of. Lists longer than a record holds are cut.
pub fn encode(event: &Event) -> Vec<u8> {
    let header = |kind: Kind| Header {
        ktime_ns: event.at.0,
        seq: event.seq,
        tgid: event.tgid.0,
        tid: event.tid.0,
        cpu: event.cpu,
        binary: event.binary.map_or(0, |binary| binary.0),
        site: event.site.0,
        kind: kind as u8,
        _pad: 0,
    };
    match &event.what {
        What::GoroutineBirth { goid, parent, gopc, startpc, stack } => bytes(&GoroutineBirth {
            header: header(Kind::GoroutineBirth),
            goid: goid.0,
            parent_goid: parent.map_or(0, |goid| goid.0),
            gopc: gopc.0,
            startpc: startpc.0,
            stack_id: stack.map_or(0, |id| id.0),
        }),
        What::GoroutinePark { goid, wait_reason, lock, stack } => bytes(&GoroutinePark {
            header: header(Kind::GoroutinePark),
            goid: goid.0,
            stack_id: stack.map_or(0, |id| id.0),
            lock: lock.map_or(0, |lock| lock.0),
            wait_reason: *wait_reason,
            _pad: [0; 7],
        }),
        What::GoroutineParkAbort { goid } => {
            bytes(&GoroutineParkAbort { header: header(Kind::GoroutineParkAbort), goid: goid.0 })
        }
        What::GoroutineWake { goid, waker } => bytes(&GoroutineWake {
            header: header(Kind::GoroutineWake),
            goid: goid.0,
            waker_goid: waker.map_or(0, |goid| goid.0),
        }),
        What::GoroutineLateBirth { goid, born_at, parent, gopc, startpc, stack } => bytes(&GoroutineLateBirth {
            header: header(Kind::GoroutineLateBirth),
            goid: goid.0,
            born_at: born_at.0,
            parent_goid: parent.map_or(0, |goid| goid.0),
            gopc: gopc.0,
            startpc: startpc.0,
            stack_id: stack.map_or(0, |id| id.0),
        }),
        What::GoroutineWait { goid, parked_at, wait_reason, lock, stack, park_tid, waker } => bytes(&GoroutineWait {
            header: header(Kind::GoroutineWait),
            goid: goid.0,
            waker_goid: waker.map_or(0, |goid| goid.0),
            parked_at: parked_at.0,
            stack_id: stack.map_or(0, |id| id.0),
            lock: lock.map_or(0, |lock| lock.0),
            park_tid: park_tid.0,
            wait_reason: *wait_reason,
            _pad: [0; 3],
        }),
        What::GoroutineExit { goid } => bytes(&GoroutineExit { header: header(Kind::GoroutineExit), goid: goid.0 }),
        What::GoroutineTransition { goid, transition, stack } => {
            let (from, to) = transition.states();
            bytes(&GoroutineTransition {
                header: header(Kind::GoroutineTransition),
                goid: goid.0,
                stack_id: stack.map_or(0, |id| id.0),
                from,
                to,
                _pad: [0; 6],
            })
        }
        What::Stack { id, pcs, truncated, top, of } => {
            let top = match top {
                Top::Return => 0,
                Top::Instruction => EXACT,
                Top::InstructionAndWord => EXACT | TOP_WORD,
            };
            let of = match of {
                CodeOf::Binary => 0,
                CodeOf::Process => NATIVE,
                CodeOf::Kernel => KERNEL,
            };
            encode_stack(header(Kind::Stack), *id, pcs, top | of | if *truncated { TRUNCATED } else { 0 })
        }
        What::ProcessImage { ip } => bytes(&ProcessImage { header: header(Kind::ProcessImage), ip: ip.0 }),
        What::ProcessFork(_)
        | What::ProcessExec(_)
        | What::ProcessMet(_)
        | What::ProcessExit(_)
        | What::ProcessReaped(_)
        | What::SignalSent(_)
        | What::SignalTaken { .. }
        | What::OomVictim { .. }
        | What::CgroupMoved { .. } => process::encode(&event.what, header),
        What::ThreadBirth { .. }
        | What::ThreadExit { .. }
        | What::ThreadOff(_)
        | What::ThreadOn
        | What::ThreadWake { .. }
        | What::ThreadWait { .. } => thread::encode(&event.what, header),
        What::StopTheWorld { goid, reason } => {
            let (header, goid) = (header(Kind::StopTheWorld), goid.map_or(0, |goid| goid.0));
            bytes(&StopTheWorld { header, goid, reason: *reason, _pad: [0; 7] })
        }
        What::StartTheWorld { goid } => {
            bytes(&StartTheWorld { header: header(Kind::StartTheWorld), goid: goid.map_or(0, |goid| goid.0) })
        }
        What::GcCycleStart { goid } => {
            bytes(&GcCycleStart { header: header(Kind::GcCycleStart), goid: goid.map_or(0, |goid| goid.0) })
        }
        What::TestRun { goid, name, cut } => {
            let (header, goid) = (header(Kind::TestRun), goid.map_or(0, |goid| goid.0));
            let copied = name.len().min(NAME_MAX);
            let mut record = TestRun { header, goid, name_len: copied as u32, name_copied: copied as u32, name: [0; NAME_MAX] };
            record.name_len += u32::from(*cut);
            record.name[..copied].copy_from_slice(&name.as_bytes()[..copied]);
            bytes(&record)
        }
        What::OnCpuSample { runner, stack, in_kernel, period_ns } => {
            let (goid, known) = match runner {
                Runner::Goroutine(goid) => (goid.0, GOID_KNOWN),
                Runner::Nobody => (0, GOID_KNOWN),
                Runner::Unknown => (0, 0),
            };
            bytes(&OnCpuSample {
                header: header(Kind::OnCpuSample),
                goid,
                stack_id: stack.map_or(0, |id| id.0),
                period_ns: *period_ns,
                flags: known | if *in_kernel { IN_KERNEL } else { 0 },
            })
        }
        What::UsdtHit { args, text } => usdt::encode(header(Kind::UsdtHit), args, text.as_deref()),
    }
}

fn encode_stack(header: Header, id: StackId, pcs: &[Address], flags: u32) -> Vec<u8> {
    let mut record = Stack { header, stack_id: id.0, depth: 0, flags, pcs: [0; MAX_FRAMES] };
    for (slot, pc) in record.pcs.iter_mut().zip(pcs) {
        *slot = pc.0;
        record.depth += 1;
    }
    bytes(&record)
}

fn bytes(record: &(impl IntoBytes + Immutable)) -> Vec<u8> {
    record.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(what: What) -> Event {
        Event { at: KtimeNs(77), cpu: 3, seq: 9, tgid: Tgid(40), tid: Tid(41), binary: Some(BinaryId(2)), site: SiteId(5), what }
    }

    fn every_kind() -> Vec<Event> {
        let goid = Goid(17);
        let (stack, lock) = (Some(StackId(8)), Some(Address(0xc000)));
        let transitions = Transition::ALL.map(|transition| What::GoroutineTransition { goid, transition, stack });
        let others = [
            What::GoroutineBirth { goid, parent: None, gopc: Address(1), startpc: Address(2), stack },
            What::GoroutineBirth { goid, parent: Some(Goid(1)), gopc: Address(1), startpc: Address(2), stack: None },
            What::GoroutinePark { goid, wait_reason: 14, lock, stack },
            What::GoroutineParkAbort { goid },
            What::GoroutineWake { goid, waker: Some(Goid(3)) },
            What::GoroutineExit { goid },
            What::GoroutineLateBirth {
                goid,
                born_at: KtimeNs(70),
                parent: Some(Goid(1)),
                gopc: Address(1),
                startpc: Address(2),
                stack,
            },
            What::GoroutineWait { goid, parked_at: KtimeNs(71), wait_reason: 14, lock, stack, park_tid: Tid(42), waker: None },
            What::Stack {
                id: StackId(8),
                pcs: vec![Address(1), Address(2)],
                truncated: true,
                top: Top::Return,
                of: CodeOf::Binary,
            },
            What::Stack {
                id: StackId(10),
                pcs: vec![Address(1)],
                truncated: true,
                top: Top::InstructionAndWord,
                of: CodeOf::Process,
            },
            What::Stack { id: StackId(9), pcs: vec![Address(1)], truncated: false, top: Top::Instruction, of: CodeOf::Kernel },
            What::ProcessImage { ip: Address(0x401000) },
            What::StopTheWorld { goid: Some(goid), reason: 7 },
            What::StartTheWorld { goid: None },
            What::GcCycleStart { goid: Some(goid) },
            What::TestRun { goid: Some(goid), name: "TestShop/empty cart".to_owned(), cut: false },
            What::TestRun { goid: None, name: String::new(), cut: true },
            What::OnCpuSample { runner: Runner::Goroutine(goid), stack, in_kernel: false, period_ns: 10_101_010 },
            What::OnCpuSample { runner: Runner::Nobody, stack: None, in_kernel: true, period_ns: 1 },
            What::OnCpuSample { runner: Runner::Unknown, stack, in_kernel: true, period_ns: 1 },
        ];
        transitions
            .into_iter()
            .chain(others)
            .chain(process::tests::every())
            .chain(thread::tests::every())
            .chain(usdt::tests::every())
            .map(event)
            .collect()
    }

    /// Check that every kind of event survives the way to bytes and back.
    #[test]
    fn round_trip() {
        for event in every_kind() {
            assert_eq!(decode(&encode(&event)), Ok(event));
        }
    }

    /// Check that a record that is cut anywhere is a counted error.
    #[test]
    fn short_records() {
        for event in every_kind() {
            let bytes = encode(&event);
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), Err(DecodeError::Short { len: cut }));
            }
        }
    }

    /// Check that an unknown kind and impossible lengths are named as such.
    #[test]
    fn unknown_and_malformed() {
        let mut bytes = encode(&event(What::GoroutineExit { goid: Goid(1) }));
        bytes[30] = 99;
        assert_eq!(decode(&bytes), Err(DecodeError::UnknownKind { kind: 99 }));
        let nobody = encode(&event(What::GoroutineExit { goid: Goid(0) }));
        assert_eq!(decode(&nobody), Err(DecodeError::Malformed { kind: Kind::GoroutineExit }));
        let mut bytes = encode(&event(What::GoroutineTransition { goid: Goid(1), transition: Transition::Run, stack: None }));
        bytes[49] = 4; // from runnable to waiting
        assert_eq!(decode(&bytes), Err(DecodeError::Malformed { kind: Kind::GoroutineTransition }));
        let mut bytes =
            encode(&event(What::Stack { id: StackId(8), pcs: vec![], truncated: false, top: Top::Return, of: CodeOf::Binary }));
        bytes[40] = 33;
        assert_eq!(decode(&bytes), Err(DecodeError::Malformed { kind: Kind::Stack }));
    }

    proptest! {
        /// Check that no bytes at all make the decoder panic.
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..1400), kind in 0u8..64) {
            if bytes.len() > 30 {
                bytes[30] = kind;
            }
            let _ = decode(&bytes);
        }
    }
}
