//! What a first reading of the recording told, and rows are written with: names, and what holds of an image as a whole.

use rustc_hash::FxHashMap;

use super::{
    layout::{Layout, Of, ProgramId},
    stacks::StackNumbers,
};
use crate::{
    clock::KtimeNs,
    correlate::{
        ReasonId,
        goroutine::{Origin, SiteKey},
        process::ImageId,
        replay::{Coverage, Replayed},
    },
    id::{Address, Goid, StackId},
    leak::tests::{Tests, TestsOf},
    recording::contract::{Frame, Tier},
    symbolize::{Symbolizer, is_system, label},
    timeline::tier_at,
};

/// A creation site, by order of appearance.
#[derive(Clone, Copy, Debug)]
pub(super) struct SiteId(u32);

/// The name of a test, by order of appearance.
#[derive(Clone, Copy, Debug)]
pub(super) struct TestId(u32);

/// Where goroutines are made and what they run, as the report calls it.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub created_by: Option<Frame>,
    pub start_function: Option<String>,
    pub system: bool,
}

/// What holds of an image as a whole.
#[derive(Clone, Debug)]
pub(super) struct OfImage {
    pub process: u32,
    pub tgid: u32,
    /// The best that it was ever followed at.
    pub tier: Option<Tier>,
    coverage: Vec<Coverage>,
    /// Who was last known to live before then may have ended.
    doubtful_until: KtimeNs,
}

impl OfImage {
    fn of(replayed: &Replayed, id: ImageId, lost_until: KtimeNs) -> Self {
        let processes = replayed.engine.processes();
        let coverage = replayed.coverage(id);
        // Who ended while no probe was there may be among those who seem to live; looks alone are another matter.
        let untold = if replayed.meta.tier == Tier::T0 { None } else { replayed.untold_until(id) };
        Self {
            process: processes.image(id).process.0,
            tgid: processes.of_image(id).tgid.0,
            tier: coverage.iter().map(|span| span.tier).max(),
            coverage,
            doubtful_until: untold.unwrap_or_default().max(lost_until),
        }
    }
}

pub(super) struct Names<'a> {
    pub replayed: &'a Replayed,
    pub symbols: &'a Symbolizer<'a>,
    images: Vec<OfImage>,
    sites: Vec<Site>,
    site_ids: FxHashMap<SiteKey, SiteId>,
    tests: FxHashMap<ImageId, TestsOf<'a>>,
    test_names: Vec<String>,
    test_ids: FxHashMap<String, TestId>,
    pub stacks: StackNumbers,
    pub layout: Layout<'a>,
}

impl<'a> Names<'a> {
    pub fn new(replayed: &'a Replayed, symbols: &'a Symbolizer<'a>, tests: &'a Tests, layout: Layout<'a>) -> Self {
        let lost_until = replayed.lost_until();
        let all = || replayed.engine.processes().images();
        Self {
            replayed,
            symbols,
            images: all().map(|(id, _)| OfImage::of(replayed, id, lost_until)).collect(),
            sites: Vec::new(),
            site_ids: FxHashMap::default(),
            tests: all().filter_map(|(id, _)| Some((id, tests.of(id, symbols)?))).collect(),
            test_names: Vec::new(),
            test_ids: FxHashMap::default(),
            stacks: StackNumbers::default(),
            layout,
        }
    }

    /// Whether the first reading knew an image.
    pub fn knows(&self, image: ImageId) -> bool {
        (image.0 as usize) < self.images.len()
    }

    /// Of an image that is known.
    pub fn image(&self, image: ImageId) -> &OfImage {
        &self.images[image.0 as usize]
    }

    pub fn program_of(&self, of: Of) -> ProgramId {
        self.layout.program_of(of)
    }

    pub fn since_zero(&self, at: KtimeNs) -> u64 {
        self.replayed.since_zero(at)
    }

    pub fn reason(&self, reason: ReasonId) -> &str {
        self.replayed.engine.reason(reason)
    }

    /// At which tier an image was followed at a time.
    pub fn tier_at(&self, image: ImageId, at: KtimeNs) -> Tier {
        tier_at(&self.image(image).coverage, at).unwrap_or(self.replayed.meta.tier)
    }

    /// Whether one that seems to live may have ended since it was last known to.
    pub fn is_doubtful(&self, image: ImageId, last_known: KtimeNs) -> bool {
        last_known < self.image(image).doubtful_until
    }

    pub fn site_id(&mut self, key: SiteKey) -> SiteId {
        if let Some(id) = self.site_ids.get(&key) {
            return *id;
        }
        let start_function = key.startpc.filter(|pc| pc.0 != 0).map(|pc| label(&self.symbols.entry(key.image, pc)));
        let site = Site {
            created_by: key.gopc.map(|gopc| self.symbols.go_statement(key.image, gopc)),
            system: start_function.as_deref().is_some_and(is_system),
            start_function,
        };
        let id = SiteId(self.sites.len() as u32);
        self.sites.push(site);
        self.site_ids.insert(key, id);
        id
    }

    /// That of an address of a `go` statement and one of a start function.
    pub fn site_of(&mut self, image: ImageId, (gopc, startpc): (Address, Address)) -> SiteId {
        self.site_id(SiteKey { image, gopc: Some(gopc), startpc: Some(startpc) })
    }

    pub fn site(&self, id: SiteId) -> &Site {
        &self.sites[id.0 as usize]
    }

    /// The test under which a goroutine was born.
    pub fn test_id(&mut self, image: ImageId, goid: Goid) -> Option<TestId> {
        let test = self.tests.get_mut(&image)?.above(goid)?;
        let next = TestId(self.test_names.len() as u32);
        let id = *self.test_ids.entry(test.name).or_insert_with_key(|name| {
            self.test_names.push(name.clone());
            next
        });
        Some(id)
    }

    pub fn test(&self, id: TestId) -> &str {
        &self.test_names[id.0 as usize]
    }

    /// The number of a stack of user code.
    pub fn stack(&mut self, image: ImageId, stack: Option<StackId>) -> Option<u32> {
        self.stacks.number(self.replayed, image, None, stack)
    }

    /// The number of a thread's stack: in the kernel, and below it.
    pub fn thread_stack(&mut self, image: ImageId, kernel: Option<StackId>, user: Option<StackId>) -> Option<u32> {
        self.stacks.number(self.replayed, image, kernel, user)
    }

    /// The number of the stack that executed a `go` statement.
    pub fn creation(&mut self, image: ImageId, origin: &Origin) -> u32 {
        self.stacks.creation(image, origin)
    }
}
