//! A ring for each CPU: no program waits for one on another CPU, and one whose reader is behind loses its own CPU's records alone.
//!
//! They are read as one: whichever holds the oldest record gives it up. That is nearly the order of time, and the rest is put right by
//! `order` (docs/order.md).

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    mem,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData, RingBuf},
    util::{nr_cpus, online_cpus},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use nix::{
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
    unistd::{SysconfVar, sysconf},
};
use tracer_common::header::Header;
use zerocopy::FromBytes;

use super::KernelError;

/// The map that holds them, by CPU.
pub(super) const RINGS: &str = "RINGS";
/// All rings together, and what each has at least, unless it is said otherwise.
const ALL_BYTES: u32 = 64 << 20;
const LEAST_BYTES: u32 = 2 << 20;
/// The smallest page that a kernel has.
const PAGE: u32 = 4096;
/// So many records are taken before rings that were found empty are looked at again.
const TURN: usize = 64;

/// The CPUs there are, and those of them that may come to be.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    pub online: u32,
    pub possible: u32,
}

impl Cpus {
    /// Of this machine.
    pub fn count() -> Result<Self, KernelError> {
        let failed = |(path, error)| KernelError::io(path)(error);
        let online = online_cpus().map_err(failed)?;
        // There may be holes among their numbers.
        let numbers = online.iter().max().map_or(1, |last| last + 1);
        Ok(Self { online: (online.len() as u32).max(1), possible: (nr_cpus().map_err(failed)? as u32).max(numbers) })
    }

    /// The size of all rings together where nobody says another.
    pub fn usual_bytes(self) -> u32 {
        ALL_BYTES.max(self.online.saturating_mul(LEAST_BYTES))
    }

    /// How large each of them is that together have `all_bytes`: a power of two.
    fn bytes_of_each(self, all_bytes: u32) -> u32 {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| u32::try_from(page).ok());
        let share = (all_bytes / self.online).max(page.unwrap_or(PAGE));
        1 << share.ilog2()
    }

    /// What all of them have together: not more than was asked for, but a page each at least.
    pub fn bytes_of_all(self, all_bytes: u32) -> u64 {
        u64::from(self.online) * u64::from(self.bytes_of_each(all_bytes))
    }
}

/// A ring for each CPU that is online.
pub(super) fn make(cpus: Cpus, all_bytes: u32) -> Result<Vec<MapData>, KernelError> {
    let ring = || {
        let kind = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, cpus.bytes_of_each(all_bytes), 0);
        MapData::create(kind, "RING", None).map_err(KernelError::map(RINGS))
    };
    (0..cpus.online).map(|_| ring()).collect()
}

/// The reader's end of all rings.
pub(super) struct Rings {
    rings: Vec<RingBuf<MapData>>,
    /// When the first record of each was made that is not empty, and which it is.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// Readable when any of them is.
    epoll: Epoll,
}

impl Rings {
    /// Makes them, and hands them to the BPF side. CPUs that are not online share the rings of those that are, should they come.
    pub fn set_up(ebpf: &mut Ebpf, cpus: Cpus, all_bytes: u32) -> Result<Self, KernelError> {
        let failed = KernelError::map(RINGS);
        let made = make(cpus, all_bytes)?;
        let map = ebpf.map_mut(RINGS).ok_or(KernelError::Missing(RINGS))?;
        let mut by_cpu: ArrayOfMaps<&mut MapData, MapData> = map.try_into().map_err(KernelError::map(RINGS))?;
        let online = online_cpus().unwrap_or_default();
        let others = (0..cpus.possible).filter(|cpu| !online.contains(cpu));
        for (cpu, ring) in online.iter().copied().chain(others).zip(made.iter().cycle()) {
            by_cpu.set(cpu, ring, 0).map_err(KernelError::map(RINGS))?;
        }
        let rings = made.into_iter().map(|ring| RingBuf::try_from(Map::RingBuf(ring)));
        Self::of(rings.collect::<Result<_, _>>().map_err(failed)?)
    }

    fn of(rings: Vec<RingBuf<MapData>>) -> Result<Self, KernelError> {
        let failed = |error: nix::Error| KernelError::io("waiting for the rings")(error.into());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        for ring in &rings {
            epoll.add(ring, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        }
        Ok(Self { rings, heads: BinaryHeap::new(), epoll })
    }

    /// Hands on `most` records or little more, the oldest first, until `take` wants no more. Returns whether all rings were found empty,
    /// or at records that are still being written.
    pub fn drain(&mut self, most: usize, take: impl FnMut(&[u8]) -> bool) -> bool {
        merge(&mut self.rings, &mut self.heads, most, take)
    }
}

/// Where records come from in some order.
trait Source {
    /// When the next record was made. It stays there.
    fn oldest(&mut self) -> Option<u64>;
    /// Takes the next record if it was made by `until`.
    fn take(&mut self, until: u64, take: &mut impl FnMut(&[u8]) -> bool) -> Taken;
}

enum Taken {
    Nothing,
    /// It is younger.
    Younger(u64),
    /// One; whether more are wanted.
    One(bool),
}

impl Source for RingBuf<MapData> {
    fn oldest(&mut self) -> Option<u64> {
        let record = self.next()?;
        let at = made_at(&record);
        // What is forgotten is not consumed.
        mem::forget(record);
        Some(at)
    }

    fn take(&mut self, until: u64, take: &mut impl FnMut(&[u8]) -> bool) -> Taken {
        let Some(record) = self.next() else { return Taken::Nothing };
        let at = made_at(&record);
        if at > until {
            mem::forget(record);
            return Taken::Younger(at);
        }
        Taken::One(take(&record))
    }
}

fn made_at(record: &[u8]) -> u64 {
    Header::read_from_prefix(record).map_or(0, |(header, _)| header.ktime_ns)
}

/// See [`Rings::drain`].
fn merge<S: Source>(
    sources: &mut [S],
    heads: &mut BinaryHeap<Reverse<(u64, usize)>>,
    most: usize,
    mut take: impl FnMut(&[u8]) -> bool,
) -> bool {
    let mut taken = 0;
    while taken < most {
        heads.clear();
        heads.extend(sources.iter_mut().enumerate().filter_map(|(index, source)| Some(Reverse((source.oldest()?, index)))));
        let turn_ends = taken + TURN;
        while taken < turn_ends
            && let Some(Reverse((_, index))) = heads.pop()
        {
            // As long as it is older than what any other has.
            let until = heads.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            while taken < turn_ends {
                match sources[index].take(until, &mut take) {
                    Taken::Nothing => break,
                    Taken::Younger(at) => {
                        heads.push(Reverse((at, index)));
                        break;
                    }
                    Taken::One(false) => return false,
                    Taken::One(true) => taken += 1,
                }
            }
        }
        if taken < turn_ends {
            // Every ring was found empty by now. What came since has its own wake-up.
            return true;
        }
    }
    false
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Times and numbers of records.
    struct Fake(VecDeque<(u64, u8)>);

    impl Source for Fake {
        fn oldest(&mut self) -> Option<u64> {
            self.0.front().map(|(at, _)| *at)
        }

        fn take(&mut self, until: u64, take: &mut impl FnMut(&[u8]) -> bool) -> Taken {
            match self.0.front() {
                None => Taken::Nothing,
                Some((at, _)) if *at > until => Taken::Younger(*at),
                Some((_, number)) => {
                    let more = take(&[*number]);
                    self.0.pop_front();
                    Taken::One(more)
                }
            }
        }
    }

    /// Check that records of several rings come out in the order of time, each once, that a round stops where it is told to and when
    /// it has been long enough, goes on from there, and says when nothing is left.
    #[test]
    fn merged() {
        let mut rings: Vec<Fake> = (0..3).map(|_| Fake(VecDeque::new())).collect();
        for number in 0..=250u8 {
            // In runs of seven, so that rings are left and come back to.
            rings[usize::from(number / 7 % 3)].0.push_back((u64::from(number) * 10, number));
        }
        let (mut heads, mut out) = (BinaryHeap::new(), Vec::new());
        let stopped = merge(&mut rings, &mut heads, 1_000, |record| {
            out.push(record[0]);
            record[0] != 99
        });
        assert!(!stopped && out.len() == 100);
        assert!(!merge(&mut rings, &mut heads, 1, |record| {
            out.push(record[0]);
            true
        }));
        assert_eq!(out.len(), 100 + TURN);
        assert!(merge(&mut rings, &mut heads, 1_000, |record| {
            out.push(record[0]);
            true
        }));
        assert!(out.iter().copied().eq(0..=250), "{out:?}");
        assert!(merge(&mut rings, &mut heads, 1_000, |_| unreachable!()));
    }

    /// Check that rings are powers of two, a page at least, and larger together than asked for where there are many CPUs only.
    #[test]
    fn sizes() {
        let cpus = |online| Cpus { online, possible: 256 };
        assert_eq!(cpus(2).usual_bytes(), 64 << 20);
        assert_eq!(cpus(2).bytes_of_each(64 << 20), 32 << 20);
        assert_eq!(cpus(3).bytes_of_each(64 << 20), 16 << 20);
        assert_eq!(cpus(2).bytes_of_each(4096), 4096);
        assert_eq!(cpus(64).usual_bytes(), 128 << 20);
        assert_eq!(cpus(64).bytes_of_each(cpus(64).usual_bytes()), 2 << 20);
        assert_eq!(cpus(6).bytes_of_all(64 << 20), 48 << 20);
    }
}
