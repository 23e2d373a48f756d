//! What is known of a binary, made ready for its events: what the names of its sites and wait reasons mean is asked once, and not at each
//! hit.

use rustc_hash::FxHashMap;

use super::{
    Park, ReasonId,
    reasons::{self, Reasons},
    wake::Waker,
};
use crate::{
    clock::KtimeNs,
    golang::SEMAPHORE_REASONS,
    id::{Address, BinaryId, SiteId, StackId, Tid},
    recording::contract::{Binary, Tier},
};

/// What the engine needs of a binary.
pub(super) struct Program {
    sites: FxHashMap<SiteId, Site>,
    /// By number.
    reasons: Vec<Reason>,
    /// What its probes tell.
    pub tier: Tier,
    /// When they last began to tell anything after they had not; `None`: there was no gap.
    pub gap_until: Option<KtimeNs>,
    /// What a goroutine waits for that hands its thread to a coroutine.
    pub coroutine: Option<ReasonId>,
    pub stw_reasons: Vec<String>,
}

/// A place where its probes are.
#[derive(Clone, Copy)]
pub(super) struct Site {
    /// As it was linked.
    pub address: Address,
    pub waker: Waker,
    /// Who is born here is a coroutine, and waits for its turn.
    pub makes_coroutines: bool,
}

/// A wait reason.
#[derive(Clone, Copy)]
enum Reason {
    /// A goroutine only seems to wait.
    Pseudo,
    Real(ReasonId, Object),
}

/// What a park's lock says about what is waited for.
#[derive(Clone, Copy)]
enum Object {
    /// It is that.
    Lock,
    /// It lies so many bytes into that.
    Channel(u64),
    /// It is the root that many semaphores hang on, and none of them.
    Shared,
}

impl Program {
    pub fn new(binary: &Binary, reasons: &mut Reasons) -> Self {
        let site = |function: &str, address| Site {
            address,
            waker: Waker::of_site(function),
            makes_coroutines: function.starts_with("runtime.newcoro"),
        };
        Self {
            sites: binary.sites.iter().map(|of| (of.id, site(&of.function, of.address))).collect(),
            reasons: binary.wait_reasons.iter().map(|name| Reason::new(name, binary, reasons)).collect(),
            // Recordings that do not say otherwise have parks and wakes.
            tier: if binary.scheduling { Tier::T3 } else { Tier::T2 },
            gap_until: None,
            coroutine: binary.scheduling.then(|| reasons.intern("coroutine")),
            stw_reasons: binary.stw_reasons.clone(),
        }
    }

    pub fn site(&self, id: SiteId) -> Option<Site> {
        self.sites.get(&id).copied()
    }

    /// A wait reason by its number, `None` if it is not known; or nothing: with that one a goroutine only seems to wait.
    pub fn reason(&self, number: u8) -> Option<Option<ReasonId>> {
        match self.reasons.get(usize::from(number)) {
            Some(Reason::Pseudo) => None,
            Some(Reason::Real(id, _)) => Some(Some(*id)),
            None => Some(None),
        }
    }

    /// What a park means; `None`: nothing, the goroutine only seems to wait.
    pub fn park(&self, reason: u8, lock: Option<Address>, stack: Option<StackId>, tid: Tid) -> Option<Park> {
        let (reason, object) = match self.reasons.get(usize::from(reason)) {
            Some(Reason::Pseudo) => return None,
            Some(Reason::Real(id, Object::Lock)) => (Some(*id), lock),
            Some(Reason::Real(id, Object::Channel(inside))) => {
                (Some(*id), lock.map(|lock| Address(lock.0.wrapping_sub(*inside))))
            }
            Some(Reason::Real(id, Object::Shared)) => (Some(*id), None),
            None => (None, lock),
        };
        Some(Park { reason, stack, object, tid: Some(tid) })
    }
}

impl Reason {
    fn new(name: &str, binary: &Binary, reasons: &mut Reasons) -> Self {
        if reasons::is_pseudo(name) {
            return Self::Pseudo;
        }
        let object = match binary.hchan_lock {
            Some(inside) if name.starts_with("chan ") => Object::Channel(inside),
            _ if SEMAPHORE_REASONS.contains(&name) && !binary.semaphores => Object::Shared,
            _ => Object::Lock,
        };
        Self::Real(reasons.intern(name), object)
    }
}

/// Programs by binary.
#[derive(Default)]
pub(super) struct Programs(Vec<Option<Box<Program>>>);

impl Programs {
    pub fn insert(&mut self, id: BinaryId, program: Program) {
        let index = usize::from(id.0);
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(Box::new(program));
    }

    pub fn get(&self, id: BinaryId) -> Option<&Program> {
        self.0.get(usize::from(id.0))?.as_deref()
    }

    pub fn get_mut(&mut self, id: BinaryId) -> Option<&mut Program> {
        self.0.get_mut(usize::from(id.0))?.as_deref_mut()
    }

    /// What a park of that binary means; of one that is not known, as much as can be said.
    pub fn park(
        &self,
        binary: Option<BinaryId>,
        reason: u8,
        lock: Option<Address>,
        stack: Option<StackId>,
        tid: Tid,
    ) -> Option<Park> {
        match binary.and_then(|binary| self.get(binary)) {
            Some(program) => program.park(reason, lock, stack, tid),
            None => Some(Park { reason: None, stack, object: lock, tid: Some(tid) }),
        }
    }
}
