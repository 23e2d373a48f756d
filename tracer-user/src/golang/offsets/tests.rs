use super::*;

/// Check that the table is readable, ordered, usable, and keeps the rules that the runtime keeps in every version.
#[test]
fn table_is_consistent() {
    assert!(!table::ENTRIES.is_empty(), "the table has another shape than the program: `cargo xtask offsets`");
    let order: Vec<u32> = table::ENTRIES.iter().map(|entry| entry.minor).collect();
    assert!(order.is_sorted(), "{order:?}");
    for entry in table::ENTRIES.iter() {
        let (offsets, releases) = (&entry.offsets, &entry.releases);
        assert!(offsets.is_usable(), "{releases:?}");
        assert!(releases.iter().all(|release| release.starts_with(&format!("1.{}", entry.minor))), "{releases:?}");
        assert_eq!(offsets.g_parent_goid.is_some(), entry.minor >= 21, "{releases:?}");
        assert_eq!(offsets.g_syscallbp.is_some(), entry.minor >= 23, "{releases:?}");
        assert_eq!(offsets.g_waitreason, offsets.g_waitsince + 8, "{releases:?}");
        assert_eq!(entry.wait_reasons.first(), Some(&""), "{releases:?}");
        assert!(entry.wait_reasons.contains(&"chan receive"), "{releases:?}");
    }
}

/// Check a few numbers against those that were read from toolchains by other means.
#[test]
fn known_numbers() {
    for (minor, goid, gopc, curg, hchan_lock, receive) in [
        (19, 152, 296, 192, 88, 14),
        (21, 152, 280, 192, 88, 14),
        (23, 160, 288, 192, 96, 14),
        (25, 152, 280, 184, 104, 14),
        (26, 152, 288, 184, 104, 19),
        (27, 152, 288, 184, 104, 19),
    ] {
        let entry = table::of_minor(minor).unwrap();
        let offsets = entry.offsets;
        assert_eq!(
            (offsets.g_goid, offsets.g_gopc, offsets.m_curg, offsets.hchan_lock),
            (goid, gopc, curg, hchan_lock),
            "1.{minor}"
        );
        assert_eq!(entry.wait_reasons.iter().position(|reason| *reason == "chan receive"), Some(receive), "1.{minor}");
    }
}

/// Check that minor versions nobody measured are unknown, and that a release is found only by its exact name.
#[test]
fn what_is_unknown() {
    for minor in [0, 17, 18, 20, 28, u32::MAX] {
        assert!(table::of_minor(minor).is_none(), "1.{minor}");
    }
    assert_eq!(table::exact("1.26.6").map(|(entry, _)| entry.minor), Some(26));
    for release in ["", "1.26", "1.26.99", "1.26.66"] {
        assert!(table::exact(release).is_none(), "{release}");
    }
    assert_eq!(known_minors(), [19, 21, 22, 23, 24, 25, 26, 27]);
}

/// The structures of `offsets`, as debug information has them.
fn structures(offsets: &Offsets) -> Vec<Structure> {
    let values = serde_json::to_value(offsets).unwrap();
    let mut found: Vec<Structure> = Vec::new();
    for name in STRUCTURES {
        let short = name.strip_prefix("runtime.").unwrap();
        let members = values.as_object().unwrap().iter().filter_map(|(field, value)| {
            let member = field.strip_prefix(short)?.strip_prefix('_')?;
            let member = if member == "parent_goid" { "parentGoid" } else { member };
            Some((member.to_owned(), value.as_u64()?))
        });
        found.push(Structure { name, size: u64::from(offsets.g_size), members: members.collect() });
    }
    let mut add = |structure: &str, member: &str, offset: u32| {
        let structure = found.iter_mut().find(|found| found.name == structure).unwrap();
        structure.members.push((member.to_owned(), u64::from(offset)));
    };
    add("runtime.g", "stack", 0);
    add("runtime.stack", "lo", offsets.g_stack_lo);
    add("runtime.stack", "hi", offsets.g_stack_hi);
    add("runtime.g", "sched", offsets.g_sched_sp);
    add("runtime.gobuf", "sp", 0);
    add("runtime.gobuf", "pc", offsets.g_sched_pc - offsets.g_sched_sp);
    add("runtime.gobuf", "bp", offsets.g_sched_bp - offsets.g_sched_sp);
    found
}

/// Check that offsets are read out of structures, and that a missing member or one beyond belief yields none.
#[test]
fn out_of_structures() {
    let offsets = Offsets::of_minor(26);
    let whole = structures(&offsets);
    assert_eq!(Offsets::of(&whole), Some(offsets));
    for (member, value) in
        [("goid", u64::MAX), ("goid", 8), ("startpc", 0), ("gopc", 1 << 31), ("labels", 456), ("parentGoid", 0)]
    {
        let mut odd = whole.clone();
        odd[0].members.iter_mut().find(|(name, _)| name == member).unwrap().1 = value;
        assert_eq!(Offsets::of(&odd), None, "{member} {value}");
        odd[0].members.retain(|(name, _)| name != member);
        assert_eq!(Offsets::of(&odd).is_some(), member == "parentGoid", "without {member}");
    }
    let mut huge = whole;
    huge[0].size = 1 << 20;
    assert_eq!(Offsets::of(&huge), None);
    assert_eq!(Offsets::of(&[]), None);
}
