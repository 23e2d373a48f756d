//! What the BPF side sums instead of telling it (`--min-block`, docs/summing.md), and what it tells late.
//!
//! A goroutine may live and wait for a while before anything is told of it. Once something is, its birth is told with the time at which it
//! happened; a wait is told when it is over, with the time at which it began, or by a look at what the BPF side keeps.

use super::{
    Engine, Sink,
    goroutine::{First, Goroutine, Origin, SiteKey, Who},
    process::ImageId,
    sink::SumOfMany,
    wake,
};
use crate::{
    clock::KtimeNs,
    event::{Event, What},
    id::{BinaryId, Goid, Tgid},
    recording::contract::{KeptAt, KeptGoroutine, SumOf, Summed, Tier},
};

impl Engine {
    /// Waits and lives that are too short to be told are summed in this recording.
    pub fn sum_short(&mut self, summing: bool) {
        self.summing = summing;
    }

    /// Takes sums.
    pub fn summed(&mut self, summed: &Summed, sink: &mut impl Sink) {
        self.newest = self.newest.max(summed.at);
        for sum in &summed.sums {
            self.sum(sum, summed.at, sink);
        }
    }

    fn sum(&mut self, sum: &SumOf, at: KtimeNs, sink: &mut impl Sink) {
        let ended = self.ended.get(&(sum.tgid, sum.binary)).copied();
        let Some(image) = self.image_with(sum.tgid, sum.binary).or(ended) else { return };
        let reason = match sum
            .wait_reason
            .map(|reason| self.programs.get(sum.binary).map_or(Some(None), |program| program.reason(reason)))
        {
            // It only seemed to wait.
            Some(None) => return,
            Some(Some(reason)) => reason,
            None => None,
        };
        let SumOf { gopc, startpc, stack, count, total_ns, ref buckets, .. } = *sum;
        let site = match gopc.0 {
            0 => SiteKey { image, gopc: None, startpc: None },
            _ => SiteKey { image, gopc: Some(gopc), startpc: Some(startpc) },
        };
        let lives = sum.wait_reason.is_none();
        sink.summed(&SumOfMany { site, lives, reason, stack, at, count, total_ns, buckets });
    }

    /// A look at what is kept of goroutines.
    pub fn kept(&mut self, kept: &KeptAt, sink: &mut impl Sink) {
        self.newest = self.newest.max(kept.at);
        for goroutine in &kept.goroutines {
            self.kept_goroutine(goroutine, kept.at, sink);
        }
    }

    fn kept_goroutine(&mut self, kept: &KeptGoroutine, at: KtimeNs, sink: &mut impl Sink) {
        let Some(image) = self.image_with(kept.tgid, kept.binary) else { return };
        let tier = self.programs.get(kept.binary).map_or(Tier::T2, |program| program.tier);
        if let Some(born_at) = kept.born_at.filter(|_| tier >= Tier::T1) {
            let origin = Origin { parent: kept.parent, gopc: kept.gopc, startpc: kept.startpc, stack: kept.stack };
            self.late_birth(image, kept.goid, born_at.min(at), origin, tier, sink);
        }
        let Some(waits) = kept.waits.as_ref().filter(|_| tier >= Tier::T2) else { return };
        let Some(park) = self.programs.park(Some(kept.binary), waits.wait_reason, waits.lock, waits.stack, waits.tid) else {
            return;
        };
        self.with((image, kept.goid, tier), |goroutine, _| {
            goroutine.waiting(waits.since.min(at), park, &mut |who, span| sink.span(who, &span))
        });
    }

    /// Takes an event that is told late.
    pub(super) fn late_event(&mut self, image: ImageId, event: &Event, tier: Tier, sink: &mut impl Sink) {
        match event.what {
            What::GoroutineLateBirth { goid, born_at, parent, gopc, startpc, stack } => {
                self.late_birth(image, goid, born_at.min(event.at), Origin { parent, gopc, startpc, stack }, tier, sink);
            }
            What::GoroutineWait { goid, parked_at, wait_reason, lock, stack, park_tid, waker } => {
                if event.binary.is_none() {
                    return;
                }
                let Some(park) = self.programs.park(event.binary, wait_reason, lock, stack, park_tid) else { return };
                let site = event.binary.and_then(|binary| self.programs.get(binary)?.site(event.site));
                let by = wake::attribute(waker, site.map(|site| site.waker), self.reasons.wait(park.reason));
                self.with((image, goid, tier), |goroutine, _| {
                    goroutine.waited(parked_at.min(event.at), event.at, (park, by), &mut |who, span| sink.span(who, &span))
                });
            }
            _ => {}
        }
    }

    /// The image of a process that lives, if it runs that program.
    fn image_with(&self, tgid: Tgid, binary: BinaryId) -> Option<ImageId> {
        let image = self.processes.newest_image(tgid)?;
        (self.processes.image(image).binary == Some(binary)).then_some(image)
    }

    /// One that is known already was told of by a look, or twice.
    fn late_birth(&mut self, image: ImageId, goid: Goid, born_at: KtimeNs, origin: Origin, tier: Tier, sink: &mut impl Sink) {
        let since = self.processes.image(image).since;
        let population = self.populations.of(image);
        if population.dead.contains(goid) {
            return;
        }
        let parent = origin.parent.and_then(|parent| population.live.get(parent));
        let depth = parent.map_or(0, |parent| parent.who.depth.saturating_add(1));
        let born_at = born_at.max(since);
        if let Some(known) = population.live.get_mut(goid) {
            known.born_late(born_at, origin, depth);
            return;
        }
        let who = Who {
            image,
            goid,
            born_at: Some(born_at),
            born_by: None,
            origin: Some(origin),
            origin_by_look: false,
            unseen: false,
            since: born_at,
            depth,
            slot: 0,
        };
        sink.born(&who);
        population.live.insert(Goroutine::born(who, First::Awake, tier));
    }
}
