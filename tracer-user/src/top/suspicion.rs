//! Which sites' goroutines grow in number without bound: the test of `leaks` (`leak::growth`), over what was watched so far.

use rustc_hash::FxHashMap;

use super::{
    names::{Names, SiteId},
    picture::Suspicion,
    tally::Tally,
};
use crate::{
    clock::KtimeNs,
    correlate::{goroutine::SiteKey, process::ImageId, replaying::Replaying},
    id::Goid,
    leak::growth::Lives,
};

/// How often the test is made: it takes all births of those who live, sorted.
const EVERY_NS: u64 = 2_000_000_000;
/// Nothing is said of who was watched for less.
const MIN_WATCHED_NS: u64 = 10_000_000_000;
/// The goroutine of `main`.
const MAIN: Goid = Goid(1);

/// What the newest test said.
#[derive(Default)]
pub struct Suspicions {
    at: Option<KtimeNs>,
    of: FxHashMap<SiteId, Suspicion>,
}

/// The living of a site.
struct Living {
    image: ImageId,
    born_ns: Vec<u64>,
    alive: u64,
    /// Who lived before the process was followed, whether it lives or has ended.
    found: u64,
    ended_within_ns: Option<u64>,
}

impl Suspicions {
    pub fn of(&self, site: SiteId) -> Suspicion {
        self.of.get(&site).copied().unwrap_or_default()
    }

    /// Makes the test, if it is time.
    pub fn renew(&mut self, now: KtimeNs, replaying: &Replaying, tally: &Tally, names: &Names) {
        if self.at.is_some_and(|at| now.since(at) < EVERY_NS) {
            return;
        }
        self.at = Some(now);
        let processes = replaying.engine().processes();
        let judged = |(site, living): (SiteId, Living)| {
            let watched_ns = now.since(processes.image(living.image).since);
            (site, living.suspicion(watched_ns))
        };
        self.of = living(replaying, tally, names).into_iter().map(judged).collect();
    }
}

impl Living {
    fn suspicion(mut self, watched_ns: u64) -> Suspicion {
        if watched_ns < MIN_WATCHED_NS {
            return Suspicion::Unknown;
        }
        self.born_ns.sort_unstable();
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let risen = signed(self.alive).saturating_sub(signed(self.found));
        let lives = Lives { born_ns: &self.born_ns, watched_ns, ended_within_ns: self.ended_within_ns, risen };
        let growth = lives.growth();
        if growth.unbounded { Suspicion::Grows(growth.per_hour) } else { Suspicion::None }
    }
}

fn living(replaying: &Replaying, tally: &Tally, names: &Names) -> FxHashMap<SiteId, Living> {
    let mut all: FxHashMap<SiteId, Living> = FxHashMap::default();
    let mut alive: FxHashMap<SiteKey, u64> = FxHashMap::default();
    let processes = replaying.engine().processes();
    for goroutine in replaying.engine().living().filter(|goroutine| goroutine.who.goid != MAIN) {
        let key = SiteKey::of(&goroutine.who);
        let Some(id) = names.id(&key) else { continue };
        let of = all.entry(id).or_insert_with(|| Living {
            image: key.image,
            born_ns: Vec::new(),
            alive: 0,
            found: 0,
            ended_within_ns: None,
        });
        let born = goroutine.who.born_at.or(goroutine.who.born_by);
        of.born_ns.extend(born.map(|at| at.since(processes.image(key.image).since)));
        of.found += u64::from(born.is_none());
        of.alive += 1;
        *alive.entry(key).or_default() += 1;
    }
    for (key, site) in &tally.sites {
        let Some(of) = names.id(key).and_then(|id| all.get_mut(&id)) else { continue };
        of.found = of.found.saturating_add(site.found_ended);
        of.ended_within_ns = of.ended_within_ns.max(site.ended_within_ns(alive.get(key).copied().unwrap_or_default()));
    }
    all
}
