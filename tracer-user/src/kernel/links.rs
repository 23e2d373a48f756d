//! Probes that are set, and taking them away.
//!
//! The kernel needs up to a quarter of a second to take one away, so they go side by side.

use std::{
    os::fd::OwnedFd,
    thread::{self, JoinHandle},
};

use aya::programs::uprobe::UProbeLink;

use crate::recording::contract::Tier;

/// Threads that close probes side by side.
const CLOSERS: usize = 16;

/// Probes of ours; they go when it is dropped.
pub struct Link(#[expect(dead_code, reason = "held for its drop")] Held);

#[expect(dead_code, reason = "held for their drop")]
enum Held {
    One(UProbeLink),
    Many(OwnedFd),
}

impl Link {
    /// Of one place.
    pub fn of_one(link: UProbeLink) -> Self {
        Self(Held::One(link))
    }

    /// Of many places of one program.
    pub fn of_many(link: OwnedFd) -> Self {
        Self(Held::Many(link))
    }
}

/// The probes of a binary, by their tier: T1, T2, T3. Those of USDT are T1's.
#[derive(Default)]
pub struct Links([Vec<Link>; 3]);

impl Links {
    pub fn of(&mut self, tier: Tier) -> &mut Vec<Link> {
        &mut self.0[usize::from(tier.number()).saturating_sub(1).min(2)]
    }

    /// The highest of which any are set.
    pub fn tier(&self) -> Tier {
        let set = |tier: &Tier| !self.0[usize::from(tier.number()).saturating_sub(1)].is_empty();
        [Tier::T3, Tier::T2, Tier::T1].into_iter().find(set).unwrap_or(Tier::T0)
    }

    pub fn take_above(&mut self, tier: Tier) -> Vec<Link> {
        self.0.iter_mut().skip(usize::from(tier.number())).flat_map(std::mem::take).collect()
    }
}

/// Closes links side by side; the threads that do.
pub fn close(links: impl IntoIterator<Item = Link>) -> Vec<JoinHandle<()>> {
    let mut shares: Vec<Vec<Link>> = Vec::new();
    shares.resize_with(CLOSERS, Vec::new);
    for (index, link) in links.into_iter().enumerate() {
        shares[index % CLOSERS].push(link);
    }
    shares.retain(|share| !share.is_empty());
    // Where no thread is to be had, its share is closed here and now.
    shares.into_iter().filter_map(|share| thread::Builder::new().spawn(move || drop(share)).ok()).collect()
}
