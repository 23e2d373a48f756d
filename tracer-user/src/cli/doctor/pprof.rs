//! Whether a process serves profiles, and in which network.

use std::thread;

use super::Ability;
use crate::{
    id::Tgid,
    pprof::{
        client::Client,
        discover::{DiscoverError, Search, enter_network},
    },
};

/// What `--pprof auto` would find.
pub fn served(tgid: Tgid) -> Ability {
    // Whoever goes into another namespace stays there.
    let looked = thread::spawn(move || {
        let moved = enter_network(tgid)?;
        Ok((moved, Search::default().look(tgid, &Client::default())))
    });
    let Ok(looked) = looked.join() else {
        return Ability::no("pprof", "the search for it failed".to_owned(), "");
    };
    let network = |moved| if moved { "in a network namespace of its own" } else { "in our network namespace" };
    match looked {
        Ok((moved, Ok(found))) => Ability::yes("pprof", format!("served at {}, {}", found.base, network(moved))),
        Ok((moved, Err(error))) => {
            Ability::no("pprof", format!("{error} ({})", network(moved)), "goroutines are read out of its memory")
        }
        Err(error @ DiscoverError::OtherNamespace { .. }) => {
            Ability::no("pprof", error.to_string(), "its memory is read instead: --pprof auto goes on without")
        }
        Err(error) => Ability::no("pprof", format!("{:#}", anyhow::Error::from(error)), "run as root"),
    }
}
