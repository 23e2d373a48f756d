//! What a rule asks for of a pod. Pure.

use std::{collections::BTreeMap, fmt};

use globset::GlobMatcher;

use super::pod::Pod;

/// Everything must be so; nothing asked for is so of everybody.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    pub namespace: Option<GlobMatcher>,
    pub pod: Option<GlobMatcher>,
    /// What its container is called in its pod.
    pub container: Option<GlobMatcher>,
    /// By key.
    pub labels: BTreeMap<String, GlobMatcher>,
    pub annotations: BTreeMap<String, GlobMatcher>,
}

impl Conditions {
    pub fn ask_for_anything(&self) -> bool {
        let names = [&self.namespace, &self.pod, &self.container];
        names.iter().any(|name| name.is_some()) || !self.labels.is_empty() || !self.annotations.is_empty()
    }

    /// `container`: the id of the one that it is in.
    pub fn hold(&self, pod: Option<&Pod>, container: Option<&str>) -> bool {
        let called = || pod?.container(container?);
        self.hold_but_for_container(pod)
            && self.container.as_ref().is_none_or(|glob| called().is_some_and(|name| glob.is_match(&**name)))
    }

    /// Whatever its container is called.
    pub fn hold_but_for_container(&self, pod: Option<&Pod>) -> bool {
        let Some(pod) = pod else { return !self.ask_for_anything() };
        let all = |wanted: &BTreeMap<String, GlobMatcher>, there: &BTreeMap<Box<str>, Box<str>>| {
            wanted.iter().all(|(key, glob)| there.get(key.as_str()).is_some_and(|value| glob.is_match(&**value)))
        };
        self.namespace.as_ref().is_none_or(|glob| glob.is_match(&*pod.namespace))
            && self.pod.as_ref().is_none_or(|glob| glob.is_match(&*pod.name))
            && all(&self.labels, &pod.labels)
            && all(&self.annotations, &pod.annotations)
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, glob) in [("namespace", &self.namespace), ("pod", &self.pod), ("container", &self.container)] {
            glob.as_ref().map_or(Ok(()), |glob| write!(f, " of {what} {}", glob.glob()))?;
        }
        for (what, wanted) in [("label", &self.labels), ("annotation", &self.annotations)] {
            for (key, glob) in wanted {
                write!(f, " with {what} {key}={}", glob.glob())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use globset::Glob;

    use super::{
        super::pod::{Keep, tests::raw},
        *,
    };

    fn glob(text: &str) -> GlobMatcher {
        Glob::new(text).unwrap().compile_matcher()
    }

    /// Check that each condition counts, that one who is in no pod meets none, and that a label that is not there has no value.
    #[test]
    fn each_counts() {
        let id = "0123456789abcdef".repeat(4);
        let mut sent = raw("shop-eu", "orders-0", &[("app", &id)]);
        sent.labels.insert("tier".to_owned(), "gold".to_owned());
        sent.annotations.insert("example.com/owner".to_owned(), "a/b".to_owned());
        let keep = Keep { annotations: vec!["example.com/owner".to_owned()], ..Keep::default() };
        let pod = Pod::of(&sent, &keep).unwrap().0;
        let label =
            |key: &str, value: &str| Conditions { labels: [(key.to_owned(), glob(value))].into(), ..Conditions::default() };
        let of_namespace = |name: &str| Conditions { namespace: Some(glob(name)), ..Conditions::default() };
        let annotation =
            Conditions { annotations: [("example.com/owner".to_owned(), glob("a/*"))].into(), ..Conditions::default() };
        let of_container = |name: &str| Conditions { container: Some(glob(name)), ..Conditions::default() };
        for (conditions, expected) in [
            (of_container("a*"), true),
            (of_container("proxy"), false),
            (of_namespace("shop-*"), true),
            (of_namespace("shop"), false),
            (Conditions { pod: Some(glob("orders-?")), ..of_namespace("*") }, true),
            (Conditions { pod: Some(glob("carts-*")), ..of_namespace("*") }, false),
            (label("tier", "{gold,silver}"), true),
            (label("tier", "bronze"), false),
            (label("absent", "*"), false),
            (annotation, true),
        ] {
            assert!(conditions.ask_for_anything() && !conditions.hold(None, Some(&id)), "{conditions}");
            assert_eq!(conditions.hold(Some(&pod), Some(&id)), expected, "{conditions}");
        }
        assert!(Conditions::default().hold(None, None) && Conditions::default().hold(Some(&pod), None));
        for unknown in [None, Some("ff")] {
            assert!(of_namespace("shop-*").hold(Some(&pod), unknown) && !of_container("*").hold(Some(&pod), unknown));
        }
        let all = Conditions { labels: label("tier", "gold").labels, ..of_namespace("shop*") };
        assert_eq!(all.to_string(), " of namespace shop* with label tier=gold");
    }
}
