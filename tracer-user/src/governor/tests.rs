use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

/// What a target does: how many CPUs it uses, and what each tier's own probes would cost it, as a share of that.
#[derive(Clone, Copy, Debug)]
struct Load {
    cpus: f64,
    shares: [f64; 3],
}

/// A target under a governor.
struct Scene {
    governor: Governor,
    reading: Reading,
    steps: Vec<(u64, Tier, Why)>,
    /// Time at each tier, ns.
    at_tier: [u64; 4],
}

impl Scene {
    fn new(budget: f64, ceiling: Tier) -> Self {
        let reading = Reading::default();
        Self { governor: Governor::new(budget, ceiling, reading), reading, steps: Vec::new(), at_tier: [0; 4] }
    }

    /// Lets the target do something for a while. A reading comes every quarter of a second, or hundredth if it is wanted soon.
    fn run(&mut self, ms: u64, load: impl Fn(u64) -> Load) -> &mut Self {
        let end = self.reading.at.0 + ms * MS;
        while self.reading.at.0 < end {
            let passed = if self.governor.in_a_hurry() { 10 * MS } else { 250 * MS };
            let Load { cpus, shares } = load(self.reading.at.0 / MS);
            let used = cpus * passed as f64;
            let tier = self.governor.tier();
            self.at_tier[usize::from(tier.number())] += passed;
            self.reading.at.0 += passed;
            self.reading.cpu_ns += used as u64;
            for (paid, share) in self.reading.paid_ns.iter_mut().zip(shares).take(tier.number().into()) {
                *paid += (share * used) as u64;
            }
            if let Some(step) = self.governor.tick(self.reading) {
                assert_eq!(step.tier, self.governor.tier());
                self.steps.push((self.reading.at.0 / MS, step.tier, step.why));
            }
        }
        self
    }

    /// What was paid since, as a share.
    fn share_since(&self, before: Reading) -> f64 {
        let paid: u64 = (0..3).map(|tier| self.reading.paid_ns[tier] - before.paid_ns[tier]).sum();
        paid as f64 / (self.reading.cpu_ns - before.cpu_ns) as f64
    }

    fn share_of_time(&self, tier: Tier) -> f64 {
        self.at_tier[usize::from(tier.number())] as f64 / self.reading.at.0 as f64
    }
}

fn steady(cpus: f64, shares: [f64; 3]) -> impl Fn(u64) -> Load {
    move |_| Load { cpus, shares }
}

/// Check that what is cheap is followed in all detail within about a second, and from there on; and no higher than is wanted.
#[test]
fn cheap() {
    for (ceiling, within_ms) in [(Tier::T3, 1_100), (Tier::T2, 1_000), (Tier::T1, 1_000)] {
        let mut scene = Scene::new(0.01, ceiling);
        scene.run(60_000, steady(0.5, [0.0001, 0.001, 0.002]));
        assert_eq!(scene.governor.tier(), ceiling);
        let (at, ..) = *scene.steps.last().unwrap();
        assert!(at <= within_ms, "{:?}", scene.steps);
    }
}

/// Check that a tier whose price is some times the budget is followed in windows, of a second or more, with gaps of a second or more, and that
/// all of it stays within the budget.
#[test]
fn windows() {
    for times in [1.2, 2.0, 4.0, 8.0] {
        let mut scene = Scene::new(0.01, Tier::T3);
        scene.run(300_000, steady(1.5, [0.0005, 0.01 * times, 0.3]));
        let share = scene.share_since(Reading::default());
        assert!((0.007..=0.0115).contains(&share), "{times}: {share} {:?}", scene.steps);
        let covered = scene.share_of_time(Tier::T2) + scene.share_of_time(Tier::T3);
        assert!(covered > 0.6 / times, "{times}: {covered}");
        let mut since: Option<(u64, bool)> = None;
        for (at, tier, why) in &scene.steps[4..] {
            if let Some((began, open)) = since {
                assert!(at - began >= 1_000 || *why == Why::Runaway || *why == Why::Trial || !open, "{times}: {:?}", scene.steps);
            }
            since = Some((*at, *why == Why::Window && *tier == Tier::T2));
        }
    }
}

/// Check that what costs very many times the budget is tried for a moment now and then, ever more rarely, and nothing more; the tier below
/// stays.
#[test]
fn much_too_dear() {
    let mut scene = Scene::new(0.01, Tier::T2);
    scene.run(600_000, steady(2.0, [0.002, 0.6, 0.0]));
    assert!(scene.share_of_time(Tier::T1) > 0.99, "{:?}", scene.at_tier);
    let trials = scene.steps.iter().filter(|(_, tier, why)| (*tier, *why) == (Tier::T2, Why::Trial)).count();
    assert!((3..=12).contains(&trials), "{:?}", scene.steps);
    assert!(scene.share_since(Reading::default()) < 0.01);
}

/// Check that where even births cost too much, these are windows or nothing.
#[test]
fn nothing_affordable() {
    let mut scene = Scene::new(0.01, Tier::T3);
    scene.run(300_000, steady(2.0, [0.05, 0.5, 0.5]));
    let share = scene.share_of_time(Tier::T1);
    assert!((0.1..0.25).contains(&share), "{share} {:?}", scene.steps);
    let mut scene = Scene::new(0.01, Tier::T3);
    scene.run(300_000, steady(2.0, [0.5, 0.5, 0.5]));
    assert!(scene.share_of_time(Tier::T0) > 0.99, "{:?}", scene.steps);
    assert!(scene.share_since(Reading::default()) < 0.01);
}

/// Check that a price that rises to many times the budget is not paid for longer than a second, and one that rises slowly not above it.
#[test]
fn rising() {
    let mut scene = Scene::new(0.01, Tier::T2);
    scene.run(20_000, steady(1.0, [0.0001, 0.001, 0.0]));
    assert_eq!(scene.governor.tier(), Tier::T2);
    let (before, steps) = (scene.reading, scene.steps.len());
    scene.run(1_000, steady(2.0, [0.001, 0.4, 0.0]));
    assert!(scene.governor.tier() <= Tier::T1, "{:?}", &scene.steps[steps..]);
    assert_eq!(scene.steps[steps].2, Why::Runaway);
    assert!(scene.share_since(before) < 0.25);
    let mut scene = Scene::new(0.01, Tier::T2);
    scene.run(200_000, |ms| Load { cpus: 1.0, shares: [0.0001, 0.02 * ms as f64 / 200_000.0, 0.0] });
    let dear = scene.steps.iter().find(|(_, _, why)| *why == Why::Dear).unwrap();
    assert!((80_000..=100_000).contains(&dear.0), "{:?}", scene.steps);
    assert!(scene.share_since(Reading::default()) < 0.01);
}

/// Check that a load about the limit does not lead to a step each second.
#[test]
fn hysteresis() {
    let mut scene = Scene::new(0.01, Tier::T2);
    scene.run(600_000, |ms| {
        let share = if ms / 1_500 % 2 == 0 { 0.0095 } else { 0.0075 };
        Load { cpus: 1.0, shares: [0.0002, share, 0.0] }
    });
    assert!(scene.steps.len() < 60, "{} {:?}", scene.steps.len(), scene.steps);
}

/// Check that an alarm takes everything away at once, and for a while.
#[test]
fn alarm() {
    let mut scene = Scene::new(0.01, Tier::T3);
    scene.run(10_000, steady(0.5, [0.0001, 0.001, 0.001]));
    assert_eq!(scene.governor.tier(), Tier::T3);
    let step = scene.governor.alarm(scene.reading.at, Why::Guard).unwrap();
    assert_eq!((step.tier, step.why), (Tier::T0, Why::Guard));
    assert_eq!(scene.governor.alarm(scene.reading.at, Why::Guard), None);
    scene.run(50_000, steady(0.5, [0.0001, 0.001, 0.001]));
    assert_eq!(scene.governor.tier(), Tier::T0);
    scene.run(200_000, steady(0.5, [0.0001, 0.001, 0.001]));
    assert_eq!(scene.governor.tier(), Tier::T3);
}

/// Check that an alarm holds for a minute, whatever was held before, and that further ones make it no longer.
#[test]
fn alarm_holds() {
    let mut scene = Scene::new(0.01, Tier::T2);
    scene.run(5_000, steady(2.0, [0.001, 0.6, 0.0]));
    assert!(scene.steps.iter().any(|(_, _, why)| *why == Why::Runaway), "{:?}", scene.steps);
    scene.governor.alarm(scene.reading.at, Why::Guard);
    for _ in 0..50 {
        assert_eq!(scene.governor.alarm(scene.reading.at, Why::Guard), None);
    }
    let steps = scene.steps.len();
    scene.run(59_000, steady(2.0, [0.001, 0.001, 0.0]));
    assert_eq!(scene.steps.len(), steps, "{:?}", scene.steps);
    scene.run(400_000, steady(2.0, [0.001, 0.001, 0.0]));
    assert_eq!(scene.governor.tier(), Tier::T2, "{:?}", scene.steps);
}

/// Check that a tier that cannot be had is left alone for a while, and nothing else is.
#[test]
fn refused() {
    let mut scene = Scene::new(0.01, Tier::T2);
    let load = steady(0.5, [0.0001, 0.0001, 0.0]);
    while scene.governor.tier() < Tier::T2 {
        scene.run(10, &load);
    }
    scene.governor.refused(scene.reading.at);
    assert_eq!(scene.governor.tier(), Tier::T1);
    scene.run(9_000, &load);
    assert_eq!(scene.governor.tier(), Tier::T1, "{:?}", scene.steps);
    scene.run(5_000, &load);
    assert_eq!(scene.governor.tier(), Tier::T2, "{:?}", scene.steps);
}

/// Check that CPU time that comes in jumps, as the kernel tells it, makes no price: between two readings there may be hits and none of it.
#[test]
fn time_in_jumps() {
    const JUMP: u64 = 12 * MS;
    let mut governor = Governor::new(0.4, Tier::T2, Reading::default());
    let (mut at, mut paid) = (0, 0);
    for n in 0..2_000 {
        // One CPU, of which T2 takes 85 %; readings come soon after one another every now and then.
        let passed = if n % 3 == 0 { MS / 2 } else { 10 * MS };
        at += passed;
        paid += if governor.tier() == Tier::T2 { passed * 85 / 100 } else { 0 };
        let reading = Reading { at: KtimeNs(at), paid_ns: [0, paid, 0], cpu_ns: at / JUMP * JUMP };
        let step = governor.tick(reading);
        assert!(step.is_none_or(|step| step.why != Why::Runaway), "{step:?} after {} ms", at / MS);
    }
    assert!(paid > at / 4, "{paid} of {at} ns: no window");
}

/// Check that a target that does nothing does not make a single hit count as a fortune.
#[test]
fn idle() {
    let mut scene = Scene::new(0.01, Tier::T2);
    scene.run(60_000, |ms| Load { cpus: 0.0001, shares: if ms % 1_000 < 250 { [0.05, 0.2, 0.0] } else { [0.0; 3] } });
    assert_eq!(scene.governor.tier(), Tier::T2, "{:?}", scene.steps);
}

proptest! {
    /// Check that whatever the target does, the budget is kept over time: what was saved at the beginning, and what is not noticed within a
    /// quarter of a second, may be paid on top.
    #[test]
    fn within_the_budget(
        loads in proptest::collection::vec((1u64..40, 0.01f64..2.0, 0.0f64..0.2, 0.0f64..0.8, 0.0f64..0.8), 3..12),
        budget in 0.002f64..0.1,
    ) {
        let mut scene = Scene::new(budget, Tier::T3);
        for (seconds, cpus, t1, t2, t3) in &loads {
            scene.run(seconds * 1_000, steady(*cpus, [*t1, *t2, *t3]));
        }
        let used = scene.reading.cpu_ns as f64;
        let paid: f64 = scene.reading.paid_ns.iter().map(|paid| *paid as f64).sum();
        // Each change of load can be met with everything set, for two readings.
        let changes: f64 = loads.iter().map(|(_, cpus, t1, t2, t3)| cpus * (t1 + t2 + t3) * 0.5e9).sum();
        let idle = scene.reading.at.0 as f64 * 0.01;
        prop_assert!(paid <= budget * (used + idle) + budget * 20e9 + changes, "{paid} of {used}: {:?}", scene.steps);
        // No more than three steps in a second, at worst.
        prop_assert!((scene.steps.len() as u64) < 12 + scene.reading.at.0 / 300_000_000, "{:?}", scene.steps);
    }
}

/// Check that a ceiling that falls is kept from the next reading on, and that one that rises is bought as at the beginning.
#[test]
fn another_ceiling() {
    let mut scene = Scene::new(0.01, Tier::T2);
    let cheap = || steady(0.5, [0.0001, 0.001, 0.002]);
    scene.run(10_000, cheap());
    scene.governor.allow(Tier::T3, 0.01);
    scene.run(10_000, cheap());
    assert_eq!(scene.governor.tier(), Tier::T3);
    scene.governor.allow(Tier::T1, 0.01);
    scene.run(500, cheap());
    assert_eq!(scene.governor.tier(), Tier::T1);
    scene.run(10_000, cheap());
    assert_eq!(scene.governor.tier(), Tier::T1);
}

/// Check that a smaller budget is kept as well as the first one.
#[test]
fn another_budget() {
    let mut scene = Scene::new(0.01, Tier::T3);
    let load = || steady(1.5, [0.0005, 0.02, 0.3]);
    scene.run(60_000, load());
    scene.governor.allow(Tier::T3, 0.002);
    let before = scene.reading;
    scene.run(300_000, load());
    let share = scene.share_since(before);
    assert!(share <= 0.0025, "{share} {:?}", scene.steps);
}

proptest! {
    /// Check that what all may pay after the cut is what they may together, or what they would have paid anyway.
    #[test]
    fn together(programs in prop::collection::vec((0.0001..1.0, 0.0..64.0), 0..50), all in 0.0001..10.0) {
        let part = cut(programs.iter().copied(), all);
        let would: f64 = programs.iter().map(|(budget, cpus)| budget * f64::max(*cpus, 0.01)).sum();
        prop_assert!((0.0..=1.0).contains(&part));
        prop_assert!((part * would - would.min(all)).abs() < 1e-9 * would.max(1.0), "{part} of {would}, {all}");
    }
}
