//! Which processes are followed: rules over what they run and where. Pure.

use std::{collections::BTreeSet, fmt, path::Path};

use globset::GlobMatcher;

use super::kubernetes::{conditions::Conditions, pod::Pod};
use crate::{
    governor::{self, Care},
    recording::contract::Tier,
};

/// What becomes of those who match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Follow,
    Ignore,
}

/// Which programs a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Go,
    Any,
}

/// Everything that a rule asks for must be so.
#[derive(Clone, Debug)]
pub struct Rule {
    pub action: Action,
    pub exe: Option<GlobMatcher>,
    /// Of its path in the unified hierarchy.
    pub cgroup: Option<GlobMatcher>,
    pub container: Option<bool>,
    pub kind: Kind,
    /// What may be followed of those that it names, where that is not what may be of all.
    pub tier: Option<Tier>,
    /// And what that may cost them: `Some(None)` whatever it costs.
    pub budget: Option<Option<f64>>,
    pub pods: Conditions,
}

/// A process that might be followed.
pub struct Candidate<'a> {
    /// As the kernel names it, in the process's own mount namespace.
    pub exe: &'a Path,
    /// Within the unified hierarchy; empty where there is none.
    pub cgroup: &'a str,
    /// The id of its container, if it is in one.
    pub container: Option<&'a str>,
    /// Where it is in one that is known.
    pub pod: Option<&'a Pod>,
}

/// The rules; the first one that matches decides.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    /// What may be followed where no rule says anything else.
    care: Care,
}

impl Policy {
    /// Without any rule, every Go program is followed; with some, nobody whom none of them names.
    pub fn new(rules: Vec<Rule>, care: Care) -> Self {
        Self { rules, care }
    }

    /// What may be followed of one, if it is to be followed. `is_go` is asked when it is needed: that is dear. What a pod says of itself
    /// decides before the rules do.
    pub fn care_for(&self, who: &Candidate<'_>, mut is_go: impl FnMut() -> bool) -> Option<Care> {
        let care = match who.pod.and_then(Pod::follow) {
            Some(false) => return None,
            Some(true) if is_go() => Some(self.care),
            _ => self.by_rule(who, is_go),
        }?;
        Some(Care { tier: who.pod.and_then(Pod::tier).unwrap_or(care.tier), ..care })
    }

    fn by_rule(&self, who: &Candidate<'_>, mut is_go: impl FnMut() -> bool) -> Option<Care> {
        if self.rules.is_empty() {
            return is_go().then_some(self.care);
        }
        let matches = |rule: &&Rule| rule.names(who) && (rule.kind == Kind::Any || is_go());
        let rule = self.rules.iter().find(matches).filter(|rule| rule.action == Action::Follow)?;
        Some(Care { tier: rule.tier.unwrap_or(self.care.tier), budget: rule.budget.unwrap_or(self.care.budget) })
    }

    /// What may be followed where no rule says anything else.
    pub fn care(&self) -> Care {
        self.care
    }

    /// The most that may be followed of anybody.
    pub fn most(&self) -> Tier {
        self.rules.iter().filter_map(|rule| rule.tier).fold(self.care.tier, Tier::max)
    }

    /// Whether it depends on the pod what becomes of one: the first rule that might match asks for something of it.
    pub fn depends_on_pod(&self, who: &Candidate<'_>, mut is_go: impl FnMut() -> bool) -> bool {
        let might = |rule: &&Rule| rule.names_but_for_pod(who) && (rule.kind == Kind::Any || is_go());
        self.rules.iter().find(might).is_some_and(|rule| rule.pods.ask_for_anything())
    }

    pub fn asks_for_pods(&self) -> bool {
        self.rules.iter().any(|rule| rule.pods.ask_for_anything())
    }

    /// Whether it depends on what its container is called what becomes of one whose pod is known: of that the first rule asks which names it otherwise.
    pub fn depends_on_container(&self, who: &Candidate<'_>, mut is_go: impl FnMut() -> bool) -> bool {
        let might = |rule: &&Rule| {
            rule.names_but_for_pod(who) && rule.pods.hold_but_for_container(who.pod) && (rule.kind == Kind::Any || is_go())
        };
        let decides_itself = who.pod.is_none_or(|pod| pod.follow().is_some());
        !decides_itself && self.rules.iter().find(might).is_some_and(|rule| rule.pods.container.is_some())
    }

    /// The keys of annotations that are asked for.
    pub fn annotations(&self) -> Vec<String> {
        let keys: BTreeSet<&String> = self.rules.iter().flat_map(|rule| rule.pods.annotations.keys()).collect();
        keys.into_iter().cloned().collect()
    }
}

impl Rule {
    fn names(&self, who: &Candidate<'_>) -> bool {
        self.names_but_for_pod(who) && self.pods.hold(who.pod, who.container)
    }

    fn names_but_for_pod(&self, who: &Candidate<'_>) -> bool {
        self.exe.as_ref().is_none_or(|glob| glob.is_match(who.exe))
            && self.cgroup.as_ref().is_none_or(|glob| glob.is_match(who.cgroup))
            && self.container.is_none_or(|wanted| who.container.is_some() == wanted)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.is_empty() {
            return write!(f, "every Go program");
        }
        for (index, rule) in self.rules.iter().enumerate() {
            write!(f, "{}{rule}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.action == Action::Ignore {
            write!(f, "not ")?;
        }
        match (&self.exe, self.kind) {
            (Some(exe), Kind::Any) => write!(f, "{}", exe.glob())?,
            (Some(exe), Kind::Go) => write!(f, "{} (Go)", exe.glob())?,
            (None, Kind::Any) => write!(f, "any program")?,
            (None, Kind::Go) => write!(f, "Go programs")?,
        }
        match self.container {
            Some(true) => write!(f, " in a container")?,
            Some(false) => write!(f, " in no container")?,
            None => {}
        }
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| write!(f, " of {}", cgroup.glob()))?;
        write!(f, "{}", self.pods)?;
        self.tier.map_or(Ok(()), |tier| write!(f, " at {tier:?}"))?;
        match self.budget {
            Some(Some(budget)) => write!(f, " for {} %", governor::percent(budget)),
            Some(None) => write!(f, " whatever that costs"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use globset::GlobBuilder;

    use super::{
        super::kubernetes::pod::{FOLLOW, Keep, TIER, tests::raw},
        *,
    };

    fn glob(text: &str) -> Option<GlobMatcher> {
        Some(GlobBuilder::new(text).literal_separator(true).build().unwrap().compile_matcher())
    }

    fn rule(action: Action, exe: Option<GlobMatcher>) -> Rule {
        Rule { action, exe, cgroup: None, container: None, kind: Kind::Go, pods: Conditions::default(), tier: None, budget: None }
    }

    const CARE: Care = Care { tier: Tier::T2, budget: Some(0.01) };

    /// Check that a rule says what may be followed of those whom it names, and that what it does not say is as for all.
    #[test]
    fn care() {
        let policy = Policy::new(
            vec![
                Rule { tier: Some(Tier::T3), budget: Some(None), ..rule(Action::Follow, glob("/a")) },
                Rule { budget: Some(Some(0.002)), ..rule(Action::Follow, glob("/b")) },
                rule(Action::Follow, None),
            ],
            CARE,
        );
        let care =
            |exe: &str| policy.care_for(&Candidate { exe: Path::new(exe), cgroup: "", container: None, pod: None }, || true);
        assert_eq!(care("/a"), Some(Care { tier: Tier::T3, budget: None }));
        assert_eq!(care("/b"), Some(Care { tier: Tier::T2, budget: Some(0.002) }));
        assert_eq!(care("/c"), Some(CARE));
        assert_eq!(policy.most(), Tier::T3);
        assert_eq!(policy.to_string(), "/a (Go) at T3 whatever that costs; /b (Go) for 0.2 %; Go programs");
    }

    /// Check that the first rule that matches decides, that each of its conditions counts, and that others are not followed.
    #[test]
    fn first_match() {
        let id = "0123456789abcdef".repeat(4);
        let pod = format!("/kubepods.slice/kubepods-podaa.slice/cri-containerd-{id}.scope");
        let policy = Policy::new(
            vec![
                rule(Action::Ignore, glob("/usr/bin/*")),
                Rule { kind: Kind::Any, ..rule(Action::Follow, glob("/opt/**")) },
                Rule { container: Some(true), ..rule(Action::Follow, None) },
                Rule { cgroup: glob("/system.slice/*.service"), ..rule(Action::Follow, None) },
            ],
            CARE,
        );
        let follows = |exe: &str, cgroup: &str, go: bool| {
            let container = cgroup.contains(&id).then_some(id.as_str());
            policy.care_for(&Candidate { exe: Path::new(exe), cgroup, container, pod: None }, || go).is_some()
        };
        assert!(!follows("/usr/bin/kubelet", &pod, true), "ignored first");
        assert!(follows("/usr/bin/sub/app", &pod, true), "one star stays in a folder");
        assert!(follows("/opt/a/b", "/", false), "any program");
        assert!(!follows("/app", &pod, false), "not Go");
        assert!(follows("/app", "/system.slice/app.service", true));
        assert!(!follows("/app", "/system.slice/a/app.service", true));
        assert!(!follows("/app", "/user.slice", true), "named by no rule");
        let (without, app) =
            (Policy::new(Vec::new(), CARE), Candidate { exe: Path::new("/app"), cgroup: "", container: None, pod: None });
        assert_eq!(without.care_for(&app, || true), Some(CARE));
        assert_eq!(without.care_for(&app, || false), None);
    }

    /// Check that what a pod is counts, that what it says of itself decides before rules do, for Go programs, and that a rule which asks for a
    /// pod that is not known is waited for, unless one before it decides.
    #[test]
    fn pods() {
        let pod = |namespace: &str, follow: Option<&str>| {
            let mut sent = raw(namespace, "orders-0", &[]);
            sent.annotations.extend(follow.map(|text| (FOLLOW.to_owned(), text.to_owned())));
            Pod::of(&sent, &Keep { wishes: true, ..Keep::default() }).unwrap().0
        };
        let asks = Conditions { namespace: glob("kube-*"), ..Conditions::default() };
        let policy = Policy::new(
            vec![
                rule(Action::Ignore, glob("/usr/bin/*")),
                Rule { pods: asks, ..rule(Action::Ignore, None) },
                rule(Action::Follow, None),
            ],
            CARE,
        );
        let who = |exe, pod| Candidate { exe: Path::new(exe), cgroup: "", container: None, pod };
        let follows = |who: &Candidate<'_>, go: bool| policy.care_for(who, || go).is_some();
        let (system, shop) = (pod("kube-system", None), pod("shop", None));
        let (wants, refuses) = (pod("kube-system", Some("true")), pod("shop", Some("false")));
        assert!(!follows(&who("/app", Some(&system)), true));
        assert!(follows(&who("/app", Some(&shop)), true));
        assert!(follows(&who("/app", None), true), "in no pod");
        assert!(follows(&who("/usr/bin/app", Some(&wants)), true) && !follows(&who("/app", Some(&wants)), false));
        assert!(!follows(&who("/app", Some(&refuses)), true));
        assert!(policy.depends_on_pod(&who("/app", None), || true));
        assert!(
            !policy.depends_on_pod(&who("/usr/bin/app", None), || true) && !policy.depends_on_pod(&who("/app", None), || false)
        );
        // What its container is called is waited for where that decides, and nowhere else.
        let named = |namespace: &str| Rule {
            pods: Conditions { namespace: glob(namespace), container: glob("app"), ..Conditions::default() },
            ..rule(Action::Follow, None)
        };
        let by_name = |first: &str| Policy::new(vec![named(first), rule(Action::Follow, None)], CARE);
        let depends = |policy: &Policy, pod| policy.depends_on_container(&who("/app", Some(pod)), || true);
        assert!(depends(&by_name("shop"), &shop) && !depends(&by_name("kube-*"), &shop) && !depends(&by_name("*"), &refuses));
        assert!(!depends(&policy, &shop));
        let mut dear = raw("shop", "orders-0", &[]);
        dear.annotations.insert(TIER.to_owned(), "3".to_owned());
        let dear = Pod::of(&dear, &Keep { wishes: true, ..Keep::default() }).unwrap().0;
        let care = policy.care_for(&who("/app", Some(&dear)), || true);
        assert_eq!(care, Some(Care { tier: Tier::T3, ..CARE }), "in which detail, too");
        assert!(policy.asks_for_pods() && !Policy::new(Vec::new(), CARE).asks_for_pods());
    }
}
