//! What USDT probes of a target tell, and what some of them need to fire.

use std::collections::{BTreeMap, BTreeSet};

use super::Ability;
use crate::{
    cli::{
        args::DoctorArgs,
        usdt::{Listing, of_exe, of_pid},
    },
    id::Tgid,
    usdt::Table,
};

/// A line for each runtime whose probes the built-in table knows; `None` without a target, or for one that cannot be read.
pub fn examine(args: &DoctorArgs) -> Option<Vec<Ability>> {
    let table = Table::built_in();
    let listing = match (&args.exe, args.pid) {
        (Some(path), _) => of_exe(path, &table).ok()?,
        (None, Some(pid)) => of_pid(Tgid(pid), &table).ok()?,
        (None, None) => return None,
    };
    Some(abilities(&listing))
}

fn abilities(listing: &Listing) -> Vec<Ability> {
    let probes = || listing.files.iter().flat_map(|file| &file.probes);
    let mut runtimes: BTreeMap<&str, (BTreeSet<String>, BTreeSet<&str>)> = BTreeMap::new();
    for probe in probes() {
        if let Some(meaning) = &probe.meaning {
            let (found, needs) = runtimes.entry(&meaning.runtime).or_default();
            found.insert(format!("{} ({})", meaning.event, probe.full_name()));
            needs.extend(Some(probe.needs.as_str()).filter(|needs| !needs.is_empty()));
        }
    }
    if runtimes.is_empty() {
        let found = format!("{} probes, none of which the built-in table knows", probes().count());
        let advice = if probes().count() > 0 { "`lifetrace usdt list` shows them; --usdt-table says what they mean" } else { "" };
        return vec![Ability { advice: advice.to_owned(), ..Ability::yes("units of work", found) }];
    }
    let ability = |(runtime, (found, needs)): (&str, (BTreeSet<String>, BTreeSet<&str>))| {
        let found: Vec<String> = found.into_iter().collect();
        let needs: Vec<&str> = needs.into_iter().collect();
        let advice = if needs.is_empty() { String::new() } else { format!("some need {}", needs.join(", and ")) };
        Ability { advice, ..Ability::yes("units of work", format!("{runtime}: {}", found.join(", "))) }
    };
    runtimes.into_iter().map(ability).collect()
}
